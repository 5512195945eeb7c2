//go:build darwin || freebsd

package main

import "golang.org/x/sys/unix"

// freeBytes returns what an unprivileged process can still write to the file system of an open file.
func freeBytes(fd int) (int64, error) {
	var have unix.Statfs_t
	err := unix.Fstatfs(fd, &have)
	return int64(have.Bavail) * int64(have.Bsize), err
}
