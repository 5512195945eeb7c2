//go:build unix

package repository

import (
	"golang.org/x/sys/unix"
)

var fullErrors = []error{unix.ENOSPC, unix.EDQUOT}

// roomIn returns the bytes that an unprivileged process can still write to the file system of path, and those it has in all.
func roomIn(path string) (free, total int64, err error) {
	var s unix.Statfs_t
	if err := unix.Statfs(path, &s); err != nil {
		return 0, 0, err
	}
	return int64(s.Bavail) * int64(s.Bsize), int64(s.Blocks) * int64(s.Bsize), nil
}
