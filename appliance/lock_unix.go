//go:build unix

package main

import (
	"errors"
	"io"
	"os"
	"syscall"
)

// lockFile takes an advisory lock on an open file that ends with the file and with the process (flock(2)). errHeld says that
// another process has it; with wait it is waited for.
func lockFile(f *os.File, wait bool) error {
	how := syscall.LOCK_EX
	if !wait {
		how |= syscall.LOCK_NB
	}
	err := syscall.Flock(int(f.Fd()), how)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return errHeld
	}
	return err
}

// lockFolder waits for the lock of a folder.
func lockFolder(dir string) (io.Closer, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := lockFile(f, true); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
