package disk

import (
	"errors"
	"fmt"
	"io"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// directAlign is what offsets, lengths and addresses of direct reads are multiples of: the largest logical sector.
const directAlign = 4096

// directChunk is the longest direct read, in bytes.
const directChunk = 1 << 20

// DirectReader reads a disk past the kernel's page cache: what it returns comes from the disk itself. Owned by one
// goroutine.
type DirectReader struct {
	d    *Device
	f    *os.File
	buf  []byte // begins at a page
	free func() error
}

// Direct opens a second way to read the disk. Flush first; the caller closes it.
func (d *Device) Direct() (*DirectReader, error) {
	f, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", d.f.Fd()), os.O_RDONLY|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.EINVAL) && !d.block {
		// A file on a file system without direct reads (tmpfs): there is no disk below it to be read.
		f, err = os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", d.f.Fd()), os.O_RDONLY|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		return nil, fmt.Errorf("open disk %s for direct reading: %w", d.Name, err)
	}
	buf, free, err := newAligned(directChunk)
	if err != nil {
		f.Close()
		return nil, err
	}
	return &DirectReader{d: d, f: f, buf: buf, free: free}, nil
}

// Close gives file and memory back.
func (r *DirectReader) Close() error {
	return errors.Join(r.free(), r.f.Close())
}

// ReadAt fills b from the disk (io.ReaderAt).
func (r *DirectReader) ReadAt(b []byte, offset int64) (done int, err error) {
	for done < len(b) {
		at := offset + int64(done)
		if n, ok := r.aligned(b[done:], at); ok {
			n, err := r.f.ReadAt(b[done:done+n], at)
			if err != nil && !errors.Is(err, io.EOF) {
				return done, fmt.Errorf("read disk %s at byte %d: %w", r.d.Name, at, err)
			}
			if n == 0 {
				return done, io.ErrUnexpectedEOF
			}
			done += n
			continue
		}
		start := at &^ (directAlign - 1)
		want := min(int64(directChunk), (at+int64(len(b)-done)-start+directAlign-1)&^(directAlign-1))
		n, err := r.f.ReadAt(r.buf[:want], start)
		if err != nil && !errors.Is(err, io.EOF) {
			return done, fmt.Errorf("read disk %s at byte %d: %w", r.d.Name, start, err)
		}
		if int64(n) <= at-start {
			return done, io.ErrUnexpectedEOF
		}
		done += copy(b[done:], r.buf[at-start:n])
	}
	return done, nil
}

// aligned returns how many bytes can be read at an offset straight into b, at most directChunk: what kernel and disk ask for
// is that address, offset and length are multiples of the sector.
func (r *DirectReader) aligned(b []byte, offset int64) (n int, ok bool) {
	n = min(len(b), directChunk) &^ (directAlign - 1)
	return n, n > 0 && offset%directAlign == 0 && uintptr(unsafe.Pointer(unsafe.SliceData(b)))%directAlign == 0
}

// newAligned returns memory that begins at a page, and how to give it back.
func newAligned(length int) ([]byte, func() error, error) {
	b, err := unix.Mmap(-1, 0, length, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, nil, fmt.Errorf("memory for direct reading: %w", err)
	}
	return b, func() error { return unix.Munmap(b) }, nil
}
