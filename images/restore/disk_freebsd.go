package restore

import (
	"errors"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Requests of sys/disk.h.
const (
	diocGetSectorSize = 0x40046480 // DIOCGSECTORSIZE: bytes, 32 bits
	diocGetMediaSize  = 0x40086481 // DIOCGMEDIASIZE: bytes, 64 bits
	diocGetFlush      = 0x20006487 // DIOCGFLUSH
)

// inUse is what the kernel says of a disk of which something is mounted (geom(4), kern.geom.debugflags).
const inUse = unix.EPERM

func rawName(path string) string { return path }

func unmount(string) string { return "mount lists what is" }

func diskSize(fd int) (sector int, length int64, err error) {
	var size uint32
	if err := ioctl(fd, diocGetSectorSize, unsafe.Pointer(&size)); err != nil {
		return 0, 0, err
	}
	err = ioctl(fd, diocGetMediaSize, unsafe.Pointer(&length))
	return int(size), length, err
}

// flush makes what was written durable.
func (d *File) flush() error {
	if !d.IsDevice() {
		return d.f.Sync()
	}
	err := ioctl(int(d.f.Fd()), diocGetFlush, nil)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOTTY) {
		return nil // a disk without a cache
	}
	return err
}
