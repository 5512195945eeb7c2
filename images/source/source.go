// Package source opens what a disk can be captured from, read-only: a disk, a raw file, one cut into volumes, or the disk of a
// virtual machine (qcow2, VHDX, VHD, VMDK, VDI), which qemu-nbd reads.
package source

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// Options say how a source is opened. The zero value is usable.
type Options struct {
	// SectorLength is the logical sector of a disk file in bytes, 512 or 4096; 0 means what its partition table says, else
	// 512. A disk has its own.
	SectorLength int
	// Live takes a disk or file that is in use as it is: its content may contradict itself.
	Live bool
}

// Source is an open source. ReadAt is safe for concurrent use; the rest is its owner's.
type Source struct {
	io.ReaderAt
	Length       int64 // bytes
	SectorLength int   // logical, bytes: 512 or 4096
	// Format is "disk", "raw", "volumes", or the name of a virtual machine's format: "qcow2", "vhdx", ...
	Format string
	// Warnings are sentences for people.
	Warnings []string
	// Files are what the source consisted of when it was opened; none for a disk.
	Files []File

	name  string
	live  bool
	close []func() error // in the order in which they are called
}

// File is the state of a file, which changes when its content does.
type File struct {
	Path   string    `json:"path"` // absolute, without symbolic links
	Length int64     `json:"length"`
	Time   time.Time `json:"time"`  // of the last change of its content, as exact as the file system has it
	Inode  string    `json:"inode"` // device and inode; "" where the system has none
	// Status is the last change of the file's content, name or attributes, which no program sets: a content whose Time was
	// set back shows here. Zero where the system has none. Unchanged does not look at it.
	Status time.Time `json:"status,omitzero"`
}

// The refusals of Open; the errors that wrap them tell the remedy.
var (
	// ErrInUse says that the source is mounted for writing, or used as swap space, or by a virtual machine.
	ErrInUse = errors.New("the source is in use")
	// ErrLocked says that a virtual machine runs on a file of its own format, which cannot be read even live.
	ErrLocked = errors.New("a virtual machine runs on the file; shut it down first")
	// ErrForeign says that a file needs other files to be read, which could be any file of this host.
	ErrForeign = errors.New("the file refers to other files")
	// ErrFormat says that a file cannot be a disk, or not one that this program reads.
	ErrFormat = errors.New("the file is no disk that can be read")
	// ErrChanged says that a source changed while it was read.
	ErrChanged = errors.New("the source changed while it was read; capture it when nothing writes to it")
)

const machineRuns = "a virtual machine runs on it"

var errMachineRuns = fmt.Errorf("%w: %s; shut it down first", ErrInUse, machineRuns)

// Open opens a source. The caller closes. Nothing is ever written to it. A disk is set read-only until Close.
func Open(ctx context.Context, name string, o Options) (*Source, error) {
	if o.SectorLength != 0 && o.SectorLength != 512 && o.SectorLength != 4096 {
		return nil, fmt.Errorf("a sector of %d bytes: it is either 512 or 4096", o.SectorLength)
	}
	st, err := os.Stat(name)
	disk := isDisk(name, st)
	if err != nil && !disk {
		return nil, err
	}
	s := &Source{name: name, SectorLength: o.SectorLength, live: o.Live}
	switch {
	case disk:
		err = s.openDisk()
	case st.Mode().IsRegular():
		err = s.openFile(ctx)
	default:
		err = fmt.Errorf("%w: it is neither a file nor a disk", ErrFormat)
	}
	if err == nil {
		err = s.check()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("source %s: %w", name, err), s.Close())
	}
	return s, nil
}

// check completes the sector and looks whether the length can be.
func (s *Source) check() error {
	if s.SectorLength == 0 {
		s.SectorLength = s.guessSector()
	}
	switch {
	case s.Length == 0:
		return fmt.Errorf("%w: it is empty", ErrFormat)
	case s.Length%int64(s.SectorLength) != 0:
		return fmt.Errorf("%w: its %d bytes are no whole number of sectors of %d; is it cut off, or no disk?", ErrFormat, s.Length, s.SectorLength)
	}
	return nil
}

// guessSector returns 4096 where a GPT begins there and none at 512 (UEFI 2.10 §5.3.2), else 512.
func (s *Source) guessSector() int {
	has := func(at int64) bool {
		b := make([]byte, 8)
		n, _ := s.ReadAt(b, at)
		return string(b[:n]) == "EFI PART"
	}
	if has(4096) && !has(512) {
		return 4096
	}
	return 512
}

// openFile opens a regular file by what it contains.
func (s *Source) openFile(ctx context.Context) error {
	if !s.live {
		if err := fileInUse(s.name); err != nil {
			return err
		}
	}
	f, err := os.Open(s.name)
	if err != nil {
		return err
	}
	form, err := recognise(f)
	if err != nil {
		f.Close()
		return err
	}
	if form.name != "raw" {
		f.Close()
		return s.openVirtual(ctx, form)
	}
	if first, ok := firstVolume(s.name); ok {
		f.Close()
		return s.openVolumes(first)
	}
	s.close = append(s.close, f.Close)
	if writtenByQEMU(f) {
		if !s.live {
			return errMachineRuns
		}
		s.Warnings = append(s.Warnings, machineRuns+": the image may contradict itself")
	}
	s.ReaderAt, s.Format = f, "raw"
	s.Length, err = s.add(f)
	return err
}

// add notes the state of an open file and returns its length.
func (s *Source) add(f *os.File) (int64, error) {
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	state, err := fileState(f.Name(), st)
	if err != nil {
		return 0, err
	}
	s.Files = append(s.Files, state)
	return st.Size(), nil
}

// fileState returns the state of a file.
func fileState(name string, st os.FileInfo) (File, error) {
	path, err := filepath.Abs(name)
	if err == nil {
		path, err = filepath.EvalSymlinks(path)
	}
	f := File{Path: path, Length: st.Size(), Time: st.ModTime().UTC()}
	f.Inode, f.Status = inode(st)
	return f, err
}

// Unchanged returns an error that wraps ErrChanged if a file was written to, replaced or cut since Open. A live source gets
// a warning instead. Disks are read-only as long as they are open.
func (s *Source) Unchanged() error {
	for _, was := range s.Files {
		st, err := os.Stat(was.Path)
		if err == nil {
			var is File
			is, err = fileState(was.Path, st)
			is.Status = was.Status // a name or attribute more is no other content
			if err == nil && is == was {
				continue
			}
		}
		if s.live {
			s.Warnings = append(s.Warnings, fmt.Sprintf("%s changed while it was read: the image may contradict itself", was.Path))
			continue
		}
		if err != nil {
			return fmt.Errorf("%w: %w", ErrChanged, err)
		}
		return fmt.Errorf("%w (%s)", ErrChanged, was.Path)
	}
	return nil
}

// Close gives everything back: files, processes, the disk's read-only flag.
func (s *Source) Close() error {
	var errs []error
	for _, f := range s.close {
		errs = append(errs, f())
	}
	s.close = nil
	return errors.Join(errs...)
}

var (
	le = binary.LittleEndian
	be = binary.BigEndian
)
