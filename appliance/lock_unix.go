//go:build unix

package main

import (
	"errors"
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

// openLock opens what stands for a folder when it is locked: the folder.
func openLock(dir string) (*os.File, error) { return os.Open(dir) }
