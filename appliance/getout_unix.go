//go:build unix

package main

import (
	"errors"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// checkName refuses what is no name of a file here, although it looks like one.
func checkName(string) error { return nil }

// mayWriteIn returns why no file can be made in a folder.
func mayWriteIn(dir string) error { return unix.Access(dir, unix.W_OK|unix.X_OK) }

// isOwn reports whether a file is this user's.
func isOwn(_ string, info fs.FileInfo) bool {
	s, ok := info.Sys().(*syscall.Stat_t)
	return !ok || int(s.Uid) == os.Geteuid()
}

// openPart opens the file in the making, or makes it, which fails where there is one.
func openPart(path string, create bool) (*os.File, error) {
	if create {
		return os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	}
	return os.OpenFile(path, os.O_RDWR|syscall.O_NOFOLLOW, 0)
}

// roomFor returns the bytes that are free in the file system of a file, and those that the file has of it.
func roomFor(f *os.File) (free, allocated int64, err error) {
	if free, err = freeBytes(int(f.Fd())); err != nil {
		return 0, 0, err
	}
	info, err := f.Stat()
	if err != nil {
		return 0, 0, err
	}
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		allocated = s.Blocks * 512
	}
	return free, allocated, nil
}

// isFull reports whether an error says that a file system has no room.
func isFull(err error) bool { return errors.Is(err, syscall.ENOSPC) }

// keepPrivate makes a file that only its owner may read: it was made with that mode.
func keepPrivate(string) error { return nil }
