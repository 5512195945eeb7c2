package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"seedbed/appliance/fleet"
	"seedbed/images/packed"
	"seedbed/images/repository"
	"seedbed/images/restore"
)

// unpacked returns the path of a disk file: the file itself, or, where it is packed in a way that is read here, that of a sparse file with
// its content, which exists until remove is called.
func (l *library) unpacked(ctx context.Context, path string) (file string, remove func(), err error) {
	nothing := func() {}
	st, err := os.Stat(path)
	if err != nil || !st.Mode().IsRegular() {
		return path, nothing, nil // who opens it says what is wrong with it
	}
	in, err := os.Open(path)
	if err != nil {
		return path, nothing, nil
	}
	defer in.Close()
	var head [packed.HeadLength]byte
	n, _ := io.ReadFull(in, head[:]) // a short file is none of them
	format := packed.Recognise(head[:n])
	if format == "" {
		return path, nothing, nil
	}
	if _, err := in.Seek(0, io.SeekStart); err != nil {
		return "", nil, fmt.Errorf("unpack %s: %w", path, err)
	}
	dir := importSpool(l.data)
	out, err := createSpooled(dir)
	if err != nil {
		return "", nil, fmt.Errorf("unpack %s: %w", path, err)
	}
	remove = func() {
		os.Remove(out.Name())
		out.Close()
	}
	w := &sparseWriter{f: out, dir: dir}
	if err = packed.Unpack(w, bufio.NewReaderSize(&endingReader{ctx, in}, 1<<20), format); err == nil {
		err = out.Truncate(w.done)
	}
	switch {
	case errors.Is(err, packed.ErrDamaged):
		err = &fleet.Refusal{Code: codeSourceInvalid, Detail: fmt.Sprintf("the disk cannot be unpacked with %s: %v; take another copy of the file", format, err)}
	case err != nil:
		err = fmt.Errorf("unpack %s into %s: %w", path, dir, err)
	}
	if err != nil {
		remove()
		return "", nil, err
	}
	return out.Name(), remove, nil
}

// endingReader reads until its context ends.
type endingReader struct {
	ctx context.Context
	r   io.Reader
}

func (e *endingReader) Read(b []byte) (int, error) {
	if err := e.ctx.Err(); err != nil {
		return 0, err
	}
	return e.r.Read(b)
}

// Bounds of what is unpacked: its length in bytes, the room that has to stay free, and how many bytes are written between looks at it.
const (
	mostUnpacked = 64 << 40
	roomLeft     = 1 << 30
	lookEvery    = 64 << 20
)

// sparseWriter writes a file from its beginning with holes where it is zero, as long as the folder's file system has room.
type sparseWriter struct {
	f          *os.File
	dir        string
	done, look int64 // bytes
}

func (s *sparseWriter) Write(b []byte) (int, error) {
	if s.done >= s.look {
		free, _, err := repository.RoomIn(s.dir)
		if err != nil {
			return 0, err
		}
		if free < roomLeft || s.done > mostUnpacked {
			return 0, &fleet.Refusal{Code: codeSourceInvalid, Detail: fmt.Sprintf("there is no room in %s to unpack this disk: %s are free after %s of it; make room, or unpack it elsewhere", s.dir, bytesText(free), bytesText(s.done))}
		}
		s.look = s.done + lookEvery
	}
	if err := restore.WriteSparse(s.f, b, s.done); err != nil {
		return 0, err
	}
	s.done += int64(len(b))
	return len(b), nil
}
