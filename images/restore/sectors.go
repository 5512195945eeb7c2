package restore

import (
	"fmt"
	"io"
	"sync"
	"unsafe"
)

// sectors reads and writes any bytes of a disk that takes whole sectors only, from memory that begins at one: raw disks of
// BSD and Windows, and files that are read past the cache. Safe for concurrent use.
type sectors struct {
	f      readerWriterAt
	unit   int64 // bytes, a power of two
	length int64 // of the disk, in bytes

	// edge is locked by writes that leave a part of a sector as it was; others share it.
	edge    sync.RWMutex
	buffers sync.Pool // of *[]byte
}

// sectorsLength is how many bytes are read or written at once.
const sectorsLength = 1 << 20

func newSectors(f readerWriterAt, unit int, length int64) *sectors {
	s := &sectors{f: f, unit: int64(unit), length: length}
	s.buffers.New = func() any {
		b := make([]byte, sectorsLength+unit)
		if over := int(uintptr(unsafe.Pointer(&b[0])) & uintptr(unit-1)); over != 0 {
			b = b[unit-over:]
		}
		b = b[:sectorsLength]
		return &b
	}
	return s
}

// around returns the whole sectors around some bytes, at most a buffer of them.
func (s *sectors) around(offset, length int64) (start, end int64) {
	start = offset &^ (s.unit - 1)
	return start, min((offset+length+s.unit-1)&^(s.unit-1), start+sectorsLength, max(s.length, start))
}

// ReadAt implements io.ReaderAt.
func (s *sectors) ReadAt(b []byte, offset int64) (done int, err error) {
	buf := s.buffers.Get().(*[]byte)
	defer s.buffers.Put(buf)
	for done < len(b) {
		at := offset + int64(done)
		start, end := s.around(at, int64(len(b)-done))
		if at < 0 || at >= end {
			return done, io.EOF
		}
		n, err := readFull(s.f, (*buf)[:end-start], start)
		if int64(n) <= at-start {
			return done, err
		}
		done += copy(b[done:], (*buf)[at-start:n])
		if err != nil && done < len(b) {
			return done, err
		}
	}
	return done, nil
}

// readFull reads all of b; io.EOF where the disk ends before.
func readFull(r io.ReaderAt, b []byte, offset int64) (n int, err error) {
	for n < len(b) && err == nil {
		var m int
		m, err = r.ReadAt(b[n:], offset+int64(n))
		n += m
		if m == 0 && err == nil {
			err = io.ErrNoProgress
		}
	}
	if n == len(b) {
		err = nil
	}
	return n, err
}

// WriteAt implements io.WriterAt.
func (s *sectors) WriteAt(b []byte, offset int64) (done int, err error) {
	if offset < 0 || offset+int64(len(b)) > s.length {
		return 0, fmt.Errorf("bytes [%d, %d) are outside of %d", offset, offset+int64(len(b)), s.length)
	}
	buf := s.buffers.Get().(*[]byte)
	defer s.buffers.Put(buf)
	for done < len(b) {
		n, err := s.write(*buf, b[done:], offset+int64(done))
		if done += n; err != nil {
			return done, err
		}
	}
	return done, nil
}

// write writes the first of some bytes, as many as buf takes.
func (s *sectors) write(buf, b []byte, offset int64) (int, error) {
	start, end := s.around(offset, int64(len(b)))
	n := int(min(int64(len(b)), end-offset))
	if start == offset && end == offset+int64(n) {
		s.edge.RLock()
		defer s.edge.RUnlock()
	} else {
		s.edge.Lock()
		defer s.edge.Unlock()
		if _, err := readFull(s.f, buf[:end-start], start); err != nil {
			return 0, err
		}
	}
	copy(buf[offset-start:], b[:n])
	if _, err := s.f.WriteAt(buf[:end-start], start); err != nil {
		return 0, err
	}
	return n, nil
}
