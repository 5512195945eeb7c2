package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// importSpool is the folder of disks that are read from standard input. Who writes one holds a lock on the file (flock(2)),
// which ends with the process however it ends: a file without a lock is a leftover.
func importSpool(data string) string { return filepath.Join(data, "spool", "import") }

// createSpooled removes leftovers and makes a file for a disk. The lock lasts until it is closed.
func createSpooled(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	end, err := sweepSpool(dir)
	if err != nil {
		return nil, err
	}
	defer end()
	f, err := os.CreateTemp(dir, "disk-*.raw")
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		return nil, errors.Join(err, f.Close(), os.Remove(f.Name()))
	}
	return f, nil
}

// sweepSpool removes leftovers. Until end is called nobody else makes or removes files.
func sweepSpool(dir string) (end func() error, err error) {
	folder, err := os.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return func() error { return nil }, nil
	}
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(folder.Fd()), syscall.LOCK_EX); err != nil {
		return nil, errors.Join(err, folder.Close())
	}
	list, err := filepath.Glob(filepath.Join(dir, "disk-*.raw"))
	for _, name := range list {
		err = errors.Join(err, removeLeftover(name))
	}
	if err != nil {
		return nil, errors.Join(err, folder.Close())
	}
	return folder.Close, nil
}

// removeLeftover removes a file that nobody has locked.
func removeLeftover(name string) error {
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // its owner is done
	}
	if err != nil {
		return err
	}
	defer f.Close()
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil // a disk that is being read or captured
	}
	if err == nil {
		err = os.Remove(name)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
