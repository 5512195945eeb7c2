//go:build !linux

package restore

import (
	"errors"
	"os"
)

func openFile(path string, write bool) (*os.File, error) {
	if !write {
		return os.Open(path)
	}
	return os.OpenFile(path, os.O_RDWR, 0)
}

func unused(*os.File, os.FileInfo) error { return nil }

func sectorLength(*os.File) (int, error) {
	return 0, errors.New("disks can be opened on Linux only; a file that holds a disk will do")
}

func adviseSequential(*os.File) {}

func zeroRange(*os.File, int, int64, int64) (bool, error) { return false, nil }

func openDirect(*os.File) (DirectReader, error) { return nil, errNotDirect }

func rereadTable(*os.File) error { return nil }

func syncFolder(string) error { return nil }
