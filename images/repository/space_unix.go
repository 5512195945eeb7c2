//go:build unix

package repository

import (
	"golang.org/x/sys/unix"
)

var fullErrors = []error{unix.ENOSPC, unix.EDQUOT}

// freeBytes returns the bytes that an unprivileged process can still write to the file system of path.
func freeBytes(path string) (int64, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(path, &s); err != nil {
		return 0, err
	}
	return int64(s.Bavail) * int64(s.Bsize), nil
}
