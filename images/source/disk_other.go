//go:build !linux

package source

import (
	"fmt"
	"os"
	"runtime"
	"time"
)

func (s *Source) openDisk() error {
	return fmt.Errorf("disks are captured on Linux; on %s only files are", runtime.GOOS)
}

func fileInUse(string) error { return nil }

func writtenByQEMU(*os.File) bool { return false }

func inode(os.FileInfo) (string, time.Time) { return "", time.Time{} }
