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
	raw, err := open.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		for end := offset + length; offset < end; offset += adviceStep {
			_ = unix.Fadvise(int(fd), offset, min(adviceStep, end-offset), unix.FADV_WILLNEED)
		}
	})
}

// adviceStep is how much the system is told of at once, in bytes: what lies behind the read-ahead of the disk is forgotten, of
// which this is what Linux gives every disk (read_ahead_kb).
const adviceStep = 128 << 10
