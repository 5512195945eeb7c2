package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"seedbed/appliance/fleet"
	"seedbed/images"
	"seedbed/images/parttable"
	"seedbed/images/restore"
)

// Codes of refusals of `seedbed get`.
const (
	codeFileExists = "file-exists"
	codeNoRoom     = "no-room"
)

// getOut is where `seedbed get` writes: a file that has another name until it is whole, or a disk.
type getOut struct {
	path   string // as it was asked for
	final  string // the name of the whole file; of a disk, path
	part   string // of the file in the making; "" for a disk
	pass   string // of what a guest needs to go on after an interruption
	force  bool
	device bool
	fresh  bool // the file did not exist
	disk   *restore.File
}

// open looks at the place that is to be written, and changes nothing.
func (o *getOrder) open() (*getOut, error) {
	out := &getOut{path: o.path, final: o.path, force: o.force}
	info, err := os.Stat(o.path)
	switch {
	case err == nil && info.Mode()&os.ModeDevice != 0 && info.Mode()&os.ModeCharDevice == 0:
		out.device = true
		// Refused before anything is asked of an appliance.
		if out.disk, err = out.openDisk(o.path); err != nil {
			return nil, err
		}
		dir, err := os.UserCacheDir()
		if err != nil {
			dir = os.TempDir()
		}
		dir = filepath.Join(dir, "seedbed", "get")
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
		out.pass = filepath.Join(dir, images.Sum([]byte(o.path)).String()[:16]+".pass")
		return out, nil
	case err == nil:
		return nil, &fleet.Refusal{Code: codeFileExists, Detail: o.path + " exists; remove it, or choose another name. Nothing was written"}
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	if o.unverified {
		out.final += ".unverified"
		if _, err := os.Lstat(out.final); err == nil {
			return nil, &fleet.Refusal{Code: codeFileExists, Detail: out.final + " exists; remove it, or choose another name. Nothing was written"}
		}
	}
	out.part = o.path + ".part"
	out.pass = out.part + ".pass"
	return out, nil
}

func (out *getOut) openDisk(path string) (*restore.File, error) {
	open := func() (*restore.File, error) { return restore.Open(path, true) }
	if out.force {
		open = func() (*restore.File, error) { return restore.OpenInUse(path) }
	}
	d, err := open()
	if errors.Is(err, restore.ErrInUse) && out.device {
		err = fmt.Errorf("%w; --force writes all the same", err)
	}
	return d, diskRefusal(err)
}

// prepare opens a file of length bytes, made where there is none, or checks that a disk is long enough. data is how much
// will be written at most.
func (out *getOut) prepare(length, data int64) error {
	if out.device {
		if out.disk.Length < length {
			return diskRefusal(fmt.Errorf("%s: %w", out.path, &parttable.TooSmallError{Need: length, Have: out.disk.Length}))
		}
		return nil
	}
	f, err := os.OpenFile(out.part, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	out.fresh = err == nil
	if errors.Is(err, fs.ErrExist) {
		f, err = os.OpenFile(out.part, os.O_RDWR, 0)
	}
	if err != nil {
		return err
	}
	err = out.room(f, data)
	if err == nil {
		err = f.Truncate(length)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		if out.fresh {
			os.Remove(out.part)
		}
		return err
	}
	out.disk, err = out.openDisk(out.part)
	return err
}

// room refuses a file system that has not enough room for data bytes in a file of which some may be there.
func (out *getOut) room(f *os.File, data int64) error {
	var have unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &have); err != nil {
		return nil // it will show
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		data -= s.Blocks * 512
	}
	if free := int64(have.Bavail) * have.Bsize; free < data {
		return &fleet.Refusal{Code: codeNoRoom, Detail: fmt.Sprintf("there is no room for %s: %d bytes are needed and %d are free in %s; "+
			"make room, or choose another place", out.path, data, free, filepath.Dir(out.path))}
	}
	return nil
}

// wipe makes the old table of a disk disappear, so that no half of an image boots.
func (out *getOut) wipe(sector int) error {
	list, err := parttable.Wipe(out.disk, out.disk.Length, sector)
	if err != nil {
		return err
	}
	for _, e := range list {
		if err := out.disk.Zero(e.Offset, e.Length); err != nil {
			return err
		}
	}
	return out.disk.Sync()
}

// commit gives a whole file its name.
func (out *getOut) commit() error {
	if out.device {
		return nil
	}
	err := os.Link(out.part, out.final) // unlike a rename it replaces nothing
	switch {
	case err == nil:
		err = os.Remove(out.part)
	case errors.Is(err, fs.ErrExist):
		return &fleet.Refusal{Code: codeFileExists,
			Detail: out.final + " was made by somebody else meanwhile; what was fetched is whole and in " + out.part}
	default:
		err = os.Rename(out.part, out.final) // a file system without links
	}
	if err != nil {
		return fmt.Errorf("name %s: %w", out.final, err)
	}
	dir, err := os.Open(filepath.Dir(out.final))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

func (out *getOut) close() {
	if out.disk != nil {
		out.disk.Close()
	}
}

// explain adds to an error what there is to be done.
func (out *getOut) explain(ctx context.Context, err error) error {
	switch {
	case errors.Is(err, syscall.ENOSPC):
		return &fleet.Refusal{Code: codeNoRoom, Detail: fmt.Sprintf("the disk is full on which %s is written; make room and run the same "+
			"command again, it goes on with what is there: %v", out.path, err)}
	case ctx.Err() != nil && out.disk != nil:
		return fmt.Errorf("interrupted; the same command goes on with what %s holds", out.begun())
	}
	return err
}

// begun names what holds the content until it is whole.
func (out *getOut) begun() string {
	if out.device {
		return out.path
	}
	return out.part
}
