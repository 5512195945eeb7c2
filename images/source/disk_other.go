//go:build !linux

package source

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"
)

// isDisk reports whether a name, of which Stat says st, is a device. Windows has no Stat of one.
func isDisk(name string, st os.FileInfo) bool {
	return strings.HasPrefix(name, `\\.\`) || st != nil && st.Mode()&os.ModeDevice != 0
}

func (s *Source) openDisk() error {
	return fmt.Errorf("disks are captured on Linux; on %s only files are", runtime.GOOS)
}

func fileInUse(string) error { return nil }

func writtenByQEMU(*os.File) bool { return false }

func inode(os.FileInfo) (string, time.Time) { return "", time.Time{} }
