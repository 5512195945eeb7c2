package disk

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// directAlign is what offsets, lengths and addresses of direct reads are multiples of: the largest logical sector.
const directAlign = 4096

// directChunk is the longest direct read, in bytes.
const directChunk = 1 << 20

// DirectReader reads a disk past the kernel's page cache: what it returns comes from the disk itself. Owned by one
// goroutine.
type DirectReader struct {
	d   *Device
	f   *os.File
	buf []byte // mapped, so that it begins at a page
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
	buf, err := unix.Mmap(-1, 0, directChunk, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("memory for direct reading: %w", err)
	}
	return &DirectReader{d: d, f: f, buf: buf}, nil
}

// Close gives file and memory back.
func (r *DirectReader) Close() error {
	return errors.Join(unix.Munmap(r.buf), r.f.Close())
}

// ReadAt fills b from the disk (io.ReaderAt).
func (r *DirectReader) ReadAt(b []byte, offset int64) (done int, err error) {
	for done < len(b) {
		at := offset + int64(done)
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
