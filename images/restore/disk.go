package restore

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
)

// Errors of Open.
var (
	// ErrInUse says that a disk is mounted, or part of something else that runs.
	ErrInUse = errors.New("it is in use")
	// ErrNoDisk says that it is neither a block device nor a file.
	ErrNoDisk = errors.New("it is neither a disk nor a file that holds one")
)

// File is an open disk, or a file that stands for one. It implements Disk. Safe for concurrent use.
type File struct {
	Name   string
	Length int64 // bytes
	// SectorLength is the logical sector in bytes; 0 for a file, which has none.
	SectorLength int

	f      *os.File
	at     readerWriterAt // f, or what makes whole sectors of it
	noZero atomic.Bool    // it does not zero a range by itself
}

// readerWriterAt reads and writes anywhere.
type readerWriterAt interface {
	io.ReaderAt
	io.WriterAt
}

// Open opens a disk, for reading only unless write is true. A disk that is mounted or otherwise in use is not opened for
// writing: ErrInUse.
func Open(path string, write bool) (*File, error) {
	f, err := openFile(path, write)
	if err != nil {
		return nil, fmt.Errorf("open disk %s: %w", path, err)
	}
	return opened(path, f, write)
}

// OpenInUse opens a disk for writing even if it is mounted or otherwise in use: for who was told to.
func OpenInUse(path string) (*File, error) {
	f, err := openInUse(path)
	if err != nil {
		return nil, fmt.Errorf("open disk %s: %w", path, err)
	}
	return opened(path, f, false)
}

// opened measures an open disk. exclusive refuses a file that is the disk of something else.
func opened(path string, f *os.File, exclusive bool) (*File, error) {
	d := &File{Name: path, f: f, at: f}
	st, err := f.Stat()
	switch {
	case IsDevice(path, st): // of which Windows has no Stat
		err = d.measure()
	case err != nil:
	case st.Mode().IsRegular():
		d.Length = st.Size()
		if exclusive {
			err = unused(f, st)
		}
	default:
		err = ErrNoDisk
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("open disk %s: %w", path, err)
	}
	adviseSequential(f)
	return d, nil
}

// Close closes the disk.
func (d *File) Close() error { return d.f.Close() }

// IsDevice reports whether it is a disk and not a file.
func (d *File) IsDevice() bool { return d.SectorLength != 0 }

// ReadAt implements Disk.
func (d *File) ReadAt(b []byte, offset int64) (int, error) { return d.at.ReadAt(b, offset) }

// WriteAt implements Disk. Bytes outside the disk are an error and nothing is written.
func (d *File) WriteAt(b []byte, offset int64) (int, error) {
	if err := d.inside(offset, int64(len(b))); err != nil {
		return 0, err
	}
	n, err := d.at.WriteAt(b, offset)
	if err != nil {
		return n, fmt.Errorf("write disk %s at byte %d: %w", d.Name, offset, err)
	}
	return n, nil
}

func (d *File) inside(offset, length int64) error {
	if offset < 0 || length < 0 || offset > d.Length-length {
		return fmt.Errorf("write disk %s: bytes [%d, %d) are outside its %d bytes", d.Name, offset, offset+length, d.Length)
	}
	return nil
}

// zeroPage is the unit in which zeros are written where the disk does not make them itself.
var zeroPage [256 << 10]byte

// Zero implements Disk.
func (d *File) Zero(offset, length int64) error {
	if err := d.inside(offset, length); err != nil {
		return err
	}
	if length > 0 && !d.noZero.Load() {
		done, err := zeroRange(d.f, d.SectorLength, offset, length)
		if err != nil {
			return fmt.Errorf("zero disk %s at byte %d: %w", d.Name, offset, err)
		}
		if done {
			return nil
		}
		d.noZero.Store(true)
	}
	for length > 0 {
		n := min(length, int64(len(zeroPage)))
		if _, err := d.WriteAt(zeroPage[:n], offset); err != nil {
			return err
		}
		offset, length = offset+n, length-n
	}
	return nil
}

// Sync implements Disk.
func (d *File) Sync() error {
	if err := d.flush(); err != nil {
		return fmt.Errorf("flush disk %s: %w", d.Name, err)
	}
	return nil
}

// Direct implements Disk. Flush first.
func (d *File) Direct() (DirectReader, bool, error) {
	r, err := d.openDirect()
	if err == nil {
		return r, true, nil
	}
	if d.IsDevice() || !errors.Is(err, errNotDirect) {
		return nil, false, fmt.Errorf("open disk %s to read past the cache: %w", d.Name, err)
	}
	return through{d.f}, false, nil // tmpfs, for example: there is no disk below it
}

// errNotDirect says that a file system cannot be read past the cache.
var errNotDirect = errors.New("no direct reading here")

// through reads through the cache.
type through struct{ io.ReaderAt }

func (through) Close() error { return nil }

// RereadTable makes the kernel read the partition table anew. Of a file there is nothing to read.
func (d *File) RereadTable() error {
	if !d.IsDevice() {
		return nil
	}
	return rereadTable(d.f)
}
