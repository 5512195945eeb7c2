//go:build !linux

package source

import (
	"fmt"
	"os"
	"runtime"
)

func (s *Source) openDisk() error {
	return fmt.Errorf("disks are captured on Linux; on %s only files are", runtime.GOOS)
}

func fileInUse(string) error { return nil }

func inode(os.FileInfo) string { return "" }
