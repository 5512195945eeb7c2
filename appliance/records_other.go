//go:build !linux

package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"seedbed/images"
)

// usedByRecords takes it that nothing is deployed where there are no records: an appliance runs on Linux.
func (l *library) usedByRecords(context.Context, images.Digest) (string, error) {
	_, err := os.Stat(filepath.Join(l.data, "records.db"))
	if l.records != "" || !errors.Is(err, fs.ErrNotExist) {
		return "", needsLinux("to know from the records which images are in use", "remove the image on the appliance")
	}
	return "", nil
}
