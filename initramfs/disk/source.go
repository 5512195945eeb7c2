package disk

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Source is a disk, or a file that stands for one, that is read and never written. Safe for concurrent use.
type Source struct {
	// Name is for people: "vda". Length is in bytes, SectorLength the logical sector.
	Name         string
	Length       int64
	SectorLength int

	f      *os.File
	lock   bool // the device was made read-only here
	device *Device
}

// OpenSource opens a disk for reading: a disk that is mounted or part of an array is an error. Until Close the kernel
// refuses every write to the device, whoever asks for it.
func OpenSource(path, name string) (*Source, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_EXCL|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open disk %s: %w", name, err)
	}
	s := &Source{Name: name, f: f}
	if err := s.open(); err != nil {
		f.Close()
		return nil, fmt.Errorf("open disk %s: %w", name, err)
	}
	return s, nil
}

func (s *Source) open() error {
	d := &Device{Name: s.Name, f: s.f, SectorLength: 512}
	if err := d.measure(); err != nil {
		return err
	}
	d.Fence(errOnlyRead)
	s.Length, s.SectorLength, s.device = d.Length, d.SectorLength, d
	if !d.block {
		return nil
	}
	was, err := unix.IoctlGetInt(int(s.f.Fd()), unix.BLKROGET)
	if err != nil {
		return fmt.Errorf("ask whether it is read-only: %w", err)
	}
	if was != 0 {
		return nil
	}
	if err := unix.IoctlSetPointerInt(int(s.f.Fd()), unix.BLKROSET, 1); err != nil {
		return fmt.Errorf("make it read-only: %w", err)
	}
	s.lock = true
	return nil
}

// ReadAt reads through the page cache (io.ReaderAt).
func (s *Source) ReadAt(b []byte, offset int64) (int, error) {
	n, err := s.f.ReadAt(b, offset)
	if err != nil && !errors.Is(err, io.EOF) {
		err = fmt.Errorf("read disk %s at byte %d: %w", s.Name, offset, err)
	}
	return n, err
}

// errOnlyRead is why a Source's device takes no changes.
var errOnlyRead = errors.New("the job only reads it")

// Device returns the disk for what reads devices: each change of it fails. It is good until Close of the source; it is not
// to be closed itself.
func (s *Source) Device() *Device { return s.device }

// Close closes the disk and lets it be written again.
func (s *Source) Close() error {
	var err error
	if s.lock {
		err = unix.IoctlSetPointerInt(int(s.f.Fd()), unix.BLKROSET, 0)
	}
	return errors.Join(err, s.f.Close())
}
