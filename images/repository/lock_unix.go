//go:build unix

package repository

import (
	"errors"
	"io"
	"os"
	"syscall"
)

// lockFile takes an advisory lock that ends with the process, however it ends (flock(2)).
func lockFile(name string) (io.Closer, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		defer f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, locked(f)
		}
		return nil, &os.PathError{Op: "lock", Path: name, Err: err}
	}
	writeOwner(f)
	return f, nil
}
