package restore

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
)

// MaxVolumes bounds the volumes of one disk: their names end in three digits.
const MaxVolumes = 999

// VolumeName returns the name of volume number 1, 2, ... of a disk file: "disk.img.001".
func VolumeName(path string, number int) string { return fmt.Sprintf("%s.%03d", path, number) }

// Output is files in the making that hold a disk: one, or volumes. Bytes that are never written are holes. The files are
// there when Commit returns, whole and durable, or not at all. Owned by one goroutine.
type Output struct {
	split int64      // length of a volume; the disk's own if there is one file only
	names []string   // final
	files []*os.File // under temporary names in the same folder
}

// CreateOutput begins a disk of length bytes at path, in volumes of split bytes (0: one file). A file that exists is not
// replaced. The caller commits or aborts.
func CreateOutput(path string, length, split int64) (*Output, error) {
	o := &Output{split: split}
	if split == 0 {
		o.split, o.names = max(length, 1), []string{path}
	} else {
		n := (length + split - 1) / split
		if n > MaxVolumes {
			return nil, fmt.Errorf("%d volumes of %d bytes for a disk of %d, at most %d can be; take longer ones", n, split, length, MaxVolumes)
		}
		for k := range int(n) {
			o.names = append(o.names, VolumeName(path, k+1))
		}
	}
	for k, name := range o.names {
		if err := o.create(name, min(o.split, length-int64(k)*o.split)); err != nil {
			o.Abort()
			return nil, err
		}
	}
	return o, nil
}

// CreateFile begins a file at path of any length, that its Stream is written to from the beginning. A file that exists is not replaced.
func CreateFile(path string) (*Output, error) {
	o := &Output{split: math.MaxInt64, names: []string{path}}
	if err := o.create(path, 0); err != nil {
		return nil, errors.Join(err, o.Abort())
	}
	return o, nil
}

// Stream writes the file of CreateFile, until Commit or Abort.
func (o *Output) Stream() io.Writer { return o.files[0] }

// create opens one file under a temporary name.
func (o *Output) create(name string, length int64) error {
	if st, err := os.Lstat(name); err == nil {
		what := "exists; remove it, or choose another name"
		if st.Mode()&os.ModeDevice != 0 {
			what = "is a device, which is never overwritten; write a disk with `seedbed verify IMAGE DISK --repair`"
		}
		return fmt.Errorf("%s %s", name, what)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".part-*")
	if err != nil {
		return fmt.Errorf("make %s: %w", name, err)
	}
	o.files = append(o.files, f)
	MakeSparse(f)
	if err := f.Truncate(length); err != nil {
		return fmt.Errorf("make %s of %d bytes: %w", name, length, err)
	}
	return nil
}

// Write writes bytes of the disk, leaving out pages that are zero.
func (o *Output) Write(offset int64, b []byte) error {
	for len(b) > 0 {
		k := offset / o.split
		if k >= int64(len(o.files)) {
			return fmt.Errorf("write at byte %d: the disk ends before", offset)
		}
		at := offset - k*o.split
		n := min(int64(len(b)), o.split-at)
		if err := WriteSparse(o.files[k], b[:n], at); err != nil {
			return fmt.Errorf("write %s: %w", o.names[k], err)
		}
		b, offset = b[n:], offset+n
	}
	return nil
}

// WriteSparse writes b but for pages of 4 KiB that are zero, into what reads as zeros.
func WriteSparse(w io.WriterAt, b []byte, offset int64) error {
	next := func(from int) int { return min(from+len(zeros), len(b)) }
	for at := 0; at < len(b); {
		end := next(at)
		if isZero(b[at:end]) {
			at = end
			continue
		}
		for end < len(b) && !isZero(b[end:next(end)]) {
			end = next(end)
		}
		if _, err := w.WriteAt(b[at:end], offset+int64(at)); err != nil {
			return err
		}
		at = end
	}
	return nil
}

// Commit makes the files durable and gives them their names, the first one last: where it is, all are.
func (o *Output) Commit() error {
	for k, f := range o.files {
		if err := f.Sync(); err != nil {
			return errors.Join(fmt.Errorf("write %s: %w", o.names[k], err), o.Abort())
		}
	}
	for k := len(o.files) - 1; k >= 0; k-- {
		if err := errors.Join(o.files[k].Close(), NameFile(o.files[k].Name(), o.names[k])); err != nil {
			for _, named := range o.names[k+1:] {
				err = errors.Join(err, os.Remove(named))
			}
			return errors.Join(fmt.Errorf("name %s: %w", o.names[k], err), o.Abort())
		}
	}
	o.files = nil
	return SyncFolder(filepath.Dir(o.names[0]))
}

// Abort removes what is not committed.
func (o *Output) Abort() error {
	var errs []error
	for _, f := range o.files {
		f.Close() // closed already if Commit failed
		if err := os.Remove(f.Name()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	o.files = nil
	return errors.Join(errs...)
}

// Sequential writes a disk as a stream. Owned by one goroutine.
type Sequential struct {
	W    io.Writer
	done int64
}

// Write writes bytes of the disk, which come in ascending order, and zeros before them.
func (s *Sequential) Write(offset int64, b []byte) error {
	if err := s.zeros(offset); err != nil {
		return err
	}
	n, err := s.W.Write(b)
	s.done += int64(n)
	return err
}

// Finish writes the zeros up to the end of a disk of length bytes.
func (s *Sequential) Finish(length int64) error { return s.zeros(length) }

func (s *Sequential) zeros(end int64) error {
	for s.done < end {
		n, err := s.W.Write(zeroPage[:min(end-s.done, int64(len(zeroPage)))])
		s.done += int64(n)
		if err != nil {
			return err
		}
	}
	return nil
}
