package main

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// importSpool is the folder of disks that are read from standard input. Who writes one holds a lock on the file,
// which ends with the process however it ends: a file without a lock is a leftover.
func importSpool(data string) string { return filepath.Join(data, "spool", "import") }

// errHeld says that another process has a lock.
var errHeld = errors.New("another process has it locked")

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
	if err := lockFile(f, true); err != nil {
		return nil, errors.Join(err, f.Close(), os.Remove(f.Name()))
	}
	return f, nil
}

// sweepSpool removes leftovers. Until end is called nobody else makes or removes files.
func sweepSpool(dir string) (end func() error, err error) {
	folder, err := lockFolder(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return func() error { return nil }, nil
	}
	if err != nil {
		return nil, err
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

// lockFolder waits for the lock of a folder.
func lockFolder(dir string) (io.Closer, error) {
	f, err := openLock(dir)
	if err != nil {
		return nil, err
	}
	if err := lockFile(f, true); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
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
	err = errors.Join(lockFile(f, false), f.Close())
	if errors.Is(err, errHeld) {
		return nil // a disk that is being read or captured
	}
	if err == nil {
		err = os.Remove(name) // nobody takes it meanwhile: that needs the folder
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
