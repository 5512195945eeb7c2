package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"syscall"

	"seedbed/appliance/fleet"
	"seedbed/images"
	"seedbed/images/parttable"
	"seedbed/images/restore"
)

// Codes of refusals of `seedbed get`.
const (
	codeFileExists = "file-exists"
	codeNoFolder   = "no-folder"
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
	held   *os.File // the file in the making, locked against another get; nil for a disk, and before prepare made one
}

// open looks at the place that is to be written, and changes nothing.
func (o *getOrder) open() (*getOut, error) {
	out := &getOut{path: o.path, final: o.path, force: o.force}
	info, err := os.Stat(o.path)
	device := restore.IsDevice(o.path, info)
	if err := checkName(o.path); err != nil && !device {
		return nil, usageError{err}
	}
	switch {
	case device:
		out.device = true
		// Refused before anything is asked of an appliance.
		if out.disk, err = out.openDisk(o.path); err != nil {
			return nil, err
		}
		dir, err := os.UserCacheDir()
		if err != nil {
			return out, nil // kept nowhere: a common folder is nothing to believe
		}
		dir = filepath.Join(dir, "seedbed", "get")
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
		out.pass = filepath.Join(dir, images.Sum([]byte(o.path)).String()[:16]+".pass")
		return out, nil
	case err == nil && info.IsDir():
		return nil, &fleet.Refusal{Code: codeFileExists, Detail: o.path + " is a folder; name a file in it. Nothing was written"}
	case err == nil && !info.Mode().IsRegular():
		return nil, diskRefusal(fmt.Errorf("%s: %w; nothing was written", o.path, restore.ErrNoDisk))
	case err == nil:
		return nil, &fleet.Refusal{Code: codeFileExists, Detail: o.path + " exists; remove it, or choose another name. Nothing was written"}
	case !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR):
		return nil, err
	}
	if _, err := os.Lstat(o.path); err == nil {
		return nil, &fleet.Refusal{Code: codeFileExists, Detail: o.path + " is a link that leads nowhere; remove it, or choose another name. Nothing was written"}
	}
	if err := mayWriteIn(filepath.Dir(o.path)); err != nil {
		return nil, &fleet.Refusal{Code: codeNoFolder, Detail: fmt.Sprintf("%s cannot be made: %v; make the folder first, or choose another that "+
			"you may write to", o.path, err)}
	}
	if o.unverified {
		out.final += ".unverified"
		if _, err := os.Lstat(out.final); err == nil {
			return nil, &fleet.Refusal{Code: codeFileExists, Detail: out.final + " exists; remove it, or choose another name. Nothing was written"}
		}
	}
	out.part = o.path + ".part"
	out.pass = out.part + ".pass"
	return out, out.resume()
}

// resume opens what an interrupted get left. A file of that name which none left, by the pass beside it, is somebody's, and
// so is a pass of another user, which could name another site.
func (out *getOut) resume() error {
	info, err := os.Lstat(out.pass)
	passed := err == nil
	if passed && (!info.Mode().IsRegular() || !isOwn(out.pass, info)) {
		return &fleet.Refusal{Code: codeFileExists, Detail: out.pass + " is no file of your own; remove it, or choose another name. Nothing was written"}
	}
	info, err = os.Lstat(out.part)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case !passed || !info.Mode().IsRegular():
		return &fleet.Refusal{Code: codeFileExists,
			Detail: out.part + " is there, and no interrupted get left it; remove it, or choose another name. Nothing was written"}
	}
	f, err := openPart(out.part, false)
	if err != nil {
		return err
	}
	return out.lock(f)
}

// lock keeps another get from the file in the making, until close.
func (out *getOut) lock(f *os.File) error {
	err := lockFile(f, false)
	ours, _ := f.Stat()
	there, statErr := os.Lstat(out.part)
	if errors.Is(err, errHeld) || statErr != nil || !os.SameFile(ours, there) {
		f.Close()
		return &fleet.Refusal{Code: codeFileExists, Detail: "another `seedbed get` writes " + out.part + "; wait for it, or choose another name"}
	}
	out.held = f // a file system without locks has to do without
	return nil
}

func (out *getOut) openDisk(path string) (*restore.File, error) {
	open := func() (*restore.File, error) { return restore.Open(path, true) }
	if out.force {
		open = func() (*restore.File, error) { return restore.OpenInUse(path) }
	}
	d, err := open()
	if errors.Is(err, restore.ErrInUse) && out.device && runtime.GOOS == "linux" { // elsewhere the system refuses all the same
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
	if out.held == nil {
		f, err := openPart(out.part, true)
		if errors.Is(err, fs.ErrExist) {
			return &fleet.Refusal{Code: codeFileExists, Detail: out.part + " was made by somebody else meanwhile; choose another name"}
		}
		if err == nil {
			out.fresh = true
			restore.MakeSparse(f)
			err = out.lock(f)
		}
		if err != nil {
			return err
		}
	}
	err := out.room(out.held, data)
	if err == nil {
		err = out.held.Truncate(length)
	}
	if err == nil {
		out.disk, err = out.openDisk(out.part)
	}
	return err
}

// abandon removes a file in which nothing was begun.
func (out *getOut) abandon() {
	if out.fresh && out.held != nil {
		os.Remove(out.part)
	}
}

// room refuses a file system that has not enough room for data bytes in a file of which some may be there.
func (out *getOut) room(f *os.File, data int64) error {
	free, allocated, err := roomFor(f)
	if err != nil {
		return nil // it will show
	}
	if data -= allocated; free < data {
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
	err := restore.NameFile(out.part, out.final)
	if errors.Is(err, fs.ErrExist) {
		return &fleet.Refusal{Code: codeFileExists,
			Detail: out.final + " was made by somebody else meanwhile; what was fetched is whole and in " + out.part}
	}
	if err != nil {
		return fmt.Errorf("name %s: %w", out.final, err)
	}
	return restore.SyncFolder(filepath.Dir(out.final))
}

func (out *getOut) close() {
	if out.disk != nil {
		out.disk.Close()
	}
	if out.held != nil {
		out.held.Close()
	}
}

// explain adds to an error what there is to be done.
func (out *getOut) explain(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case isFull(err):
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
