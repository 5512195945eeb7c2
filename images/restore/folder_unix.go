//go:build unix

package restore

import (
	"errors"
	"os"
)

// SyncFolder makes names in a folder durable.
func SyncFolder(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
