package restore

import (
	"errors"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Requests of sys/disk.h.
const (
	dkGetBlockSize     = 0x40046418 // DKIOCGETBLOCKSIZE: bytes, 32 bits
	dkGetBlockCount    = 0x40086419 // DKIOCGETBLOCKCOUNT: 64 bits
	dkSynchronizeCache = 0x20006416 // DKIOCSYNCHRONIZECACHE
)

// inUse is what the kernel says of a disk of which something is mounted.
const inUse = unix.EBUSY

// rawName returns the raw device of a disk, /dev/rdisk4 of /dev/disk4: the other one reads and writes through a cache, slowly.
func rawName(path string) string {
	if number, ok := strings.CutPrefix(path, "/dev/disk"); ok {
		return "/dev/rdisk" + number
	}
	return path
}

func unmount(path string) string {
	return "diskutil unmountDisk " + strings.Replace(path, "/dev/rdisk", "/dev/disk", 1)
}

func diskSize(fd int) (sector int, length int64, err error) {
	var size uint32
	var count uint64
	if err := ioctl(fd, dkGetBlockSize, unsafe.Pointer(&size)); err != nil {
		return 0, 0, err
	}
	err = ioctl(fd, dkGetBlockCount, unsafe.Pointer(&count))
	return int(size), int64(count) * int64(size), err
}

// flush makes what was written durable.
func (d *File) flush() error {
	if !d.IsDevice() {
		return d.f.Sync() // fcntl(2), F_FULLFSYNC
	}
	err := ioctl(int(d.f.Fd()), dkSynchronizeCache, nil)
	if errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.ENOTTY) {
		return nil // a disk without a cache, as that of a disk image
	}
	return err
}
