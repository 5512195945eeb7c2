package restore

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// openFile opens a disk; to write, for this process alone (open(2), O_EXCL without O_CREAT: EBUSY for a block device that
// is mounted or part of something).
func openFile(path string, write bool) (*os.File, error) {
	if !write {
		return os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0) // a FIFO must not hang us
	}
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_EXCL|unix.O_NONBLOCK, 0)
	if errors.Is(err, unix.EBUSY) {
		return nil, fmt.Errorf("%w: mounted, swapped to, or part of a volume; unmount it first, nothing was written", ErrInUse)
	}
	return f, err
}

// openInUse opens a disk to write, whatever else uses it.
func openInUse(path string) (*os.File, error) { return os.OpenFile(path, os.O_RDWR, 0) }

// IsDevice reports whether a path, of which Stat says info, is a disk and not a file.
func IsDevice(_ string, info os.FileInfo) bool {
	return info != nil && info.Mode()&os.ModeDevice != 0 && info.Mode()&os.ModeCharDevice == 0
}

// MakeSparse makes a file whose holes take no room: every file is one here, where the file system has them.
func MakeSparse(*os.File) {}

// unused refuses a file that is the disk of a loop device.
func unused(_ *os.File, st os.FileInfo) error {
	list, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, name := range list {
		b, err := os.ReadFile(name)
		if err != nil {
			continue // it was detached this moment
		}
		if other, err := os.Stat(strings.TrimSuffix(string(b), "\n")); err == nil && os.SameFile(st, other) {
			loop := filepath.Base(filepath.Dir(filepath.Dir(name)))
			return fmt.Errorf("%w as /dev/%s; detach it first (losetup -d /dev/%s), nothing was written", ErrInUse, loop, loop)
		}
	}
	return nil
}

// measure finds the length and the sectors of a disk.
func (d *File) measure() (err error) {
	if d.SectorLength, err = unix.IoctlGetInt(int(d.f.Fd()), unix.BLKSSZGET); err == nil {
		d.Length, err = d.f.Seek(0, io.SeekEnd)
	}
	return err
}

func (d *File) flush() error { return d.f.Sync() }

// adviseSequential doubles the read-ahead, and makes the kernel forget what it has of the disk in memory.
func adviseSequential(f *os.File) {
	_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
	_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_SEQUENTIAL)
}

// zeroRange makes a range of zeros without moving data: BLKZEROOUT (linux/fs.h: offset and length in bytes, whole
// sectors), or a hole in a file. done is false where that is not possible.
func zeroRange(f *os.File, sector int, offset, length int64) (done bool, err error) {
	if sector == 0 {
		err = unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, offset, length)
	} else if n := int64(sector); offset%n == 0 && length%n == 0 {
		arg := [2]uint64{uint64(offset), uint64(length)}
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), unix.BLKZEROOUT, uintptr(unsafe.Pointer(&arg[0]))); errno != 0 {
			err = errno
		}
	} else {
		return false, nil
	}
	for _, e := range []error{unix.EOPNOTSUPP, unix.ENOTTY, unix.EINVAL, unix.ENOSYS} {
		if errors.Is(err, e) {
			return false, nil
		}
	}
	return err == nil, err
}

func rereadTable(f *os.File) error { return unix.IoctlSetInt(int(f.Fd()), unix.BLKRRPART, 0) }

const (
	directAlign  = 4096    // offsets, lengths and addresses of direct reads: the largest logical sector
	directLength = 1 << 20 // of one read
)

// direct reads past the page cache (open(2), O_DIRECT).
type direct struct {
	f   *os.File
	buf []byte // mapped, so that it begins at a page
}

func (d *File) openDirect() (DirectReader, error) {
	again, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", d.f.Fd()), os.O_RDONLY|unix.O_DIRECT, 0)
	if errors.Is(err, unix.EINVAL) {
		return nil, errNotDirect
	}
	if err != nil {
		return nil, err
	}
	buf, err := unix.Mmap(-1, 0, directLength, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		again.Close()
		return nil, err
	}
	r := &direct{again, buf}
	if _, err := again.ReadAt(buf[:directAlign], 0); errors.Is(err, unix.EINVAL) { // opened, and not read that way
		r.Close()
		return nil, errNotDirect
	}
	return r, nil
}

// ReadAt implements DirectReader.
func (d *direct) ReadAt(b []byte, offset int64) (done int, err error) {
	for done < len(b) {
		at := offset + int64(done)
		start := at &^ (directAlign - 1)
		want := min(int64(directLength), (at+int64(len(b)-done)-start+directAlign-1)&^(directAlign-1))
		n, err := d.f.ReadAt(d.buf[:want], start)
		if err != nil && !errors.Is(err, io.EOF) {
			return done, err
		}
		if int64(n) <= at-start {
			return done, io.ErrUnexpectedEOF
		}
		done += copy(b[done:], d.buf[at-start:n])
	}
	return done, nil
}

func (d *direct) Close() error { return errors.Join(unix.Munmap(d.buf), d.f.Close()) }
