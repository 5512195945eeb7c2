package repository

import (
	"syscall"

	"golang.org/x/sys/unix"
)

var _ advised = (*Dir)(nil)

// Advise implements advised by posix_fadvise(2). What goes wrong is told to who reads.
func (d *Dir) Advise(key string, offset, length int64) {
	if CheckKey(key) != nil {
		return
	}
	f, err := d.fs.Open(d.file(key))
	if err != nil {
		return
	}
	defer f.Close()
	open, ok := f.(syscall.Conn)
	if !ok {
		return
	}
	if raw, err := open.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { _ = unix.Fadvise(int(fd), offset, length, unix.FADV_WILLNEED) })
	}
}
