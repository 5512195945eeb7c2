//go:build darwin || freebsd

package restore

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// openFile opens a disk; to write, only one that nothing has mounted: the kernel refuses the others.
func openFile(path string, write bool) (*os.File, error) {
	how := os.O_RDONLY
	if write {
		how = os.O_RDWR
	}
	f, err := os.OpenFile(rawName(path), how|unix.O_NONBLOCK, 0) // a FIFO must not hang us
	if write && errors.Is(err, inUse) {
		return nil, fmt.Errorf("%w: %v; unmount all of it first (%s), nothing was written", ErrInUse, err, unmount(path))
	}
	return f, err
}

// openInUse opens a disk to write. What is mounted the kernel refuses, whoever asks.
func openInUse(path string) (*os.File, error) { return openFile(path, true) }

// IsDevice reports whether a path, of which Stat says info, is a disk and not a file. Disks are character devices here; what
// is none is seen when it is opened.
func IsDevice(_ string, info os.FileInfo) bool { return info != nil && info.Mode()&os.ModeDevice != 0 }

// MakeSparse makes a file whose holes take no room: every file is one here, where the file system has them.
func MakeSparse(*os.File) {}

func unused(*os.File, os.FileInfo) error { return nil }

func adviseSequential(*os.File) {}

// zeroRange does nothing: zeros are written.
func zeroRange(*os.File, int, int64, int64) (bool, error) { return false, nil }

// measure finds the length and the sectors of a disk, and has whole ones read and written.
func (d *File) measure() error {
	sector, length, err := diskSize(int(d.f.Fd()))
	if errors.Is(err, unix.ENOTTY) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENXIO) {
		return ErrNoDisk // a terminal, or the like
	}
	if err != nil {
		return err
	}
	return d.inSectors(sector, length)
}

// openDirect reads a disk, which has no cache before it here; a file cannot be read past what memory has of it.
func (d *File) openDirect() (DirectReader, error) {
	if !d.IsDevice() {
		return nil, errNotDirect
	}
	return through{d.at}, nil
}

// rereadTable has nothing to do: the kernel looks at a disk anew when the last who wrote to it closes it.
func rereadTable(*os.File) error { return nil }

// ioctl asks a device; value is where it answers.
func ioctl(fd int, request uintptr, value unsafe.Pointer) error {
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), request, uintptr(value)); errno != 0 {
		return errno
	}
	return nil
}
