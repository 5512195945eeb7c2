package repository

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
)

// fileSystem is what the repository asks of a local file system. Tests put one in its place that loses power between
// any two calls.
type fileSystem interface {
	Create(name string) (file, error) // for writing, 0600; fails if the name is taken
	Open(name string) (file, error)   // for reading
	Append(name string) (file, error) // for reading, and writing at the end
	Mkdir(name string) error          // 0700
	Link(from, to string) error       // fails if to is taken
	Remove(name string) error
	SyncDir(name string) error // makes names created and removed in the folder durable
	ReadDir(name string) ([]fs.FileInfo, error)
	Stat(name string) (fs.FileInfo, error)
}

// file is an open file of a fileSystem.
type file interface {
	io.ReaderAt
	io.Writer
	io.Closer
	Truncate(length int64) error
	Sync() error
	Stat() (fs.FileInfo, error)
}

// localFiles is the fileSystem of the operating system.
type localFiles struct{}

func (localFiles) Create(name string) (file, error) {
	return wrapFile(os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL|os.O_APPEND, 0o600))
}

func (localFiles) Open(name string) (file, error) { return wrapFile(os.Open(name)) }

func (localFiles) Append(name string) (file, error) {
	return wrapFile(os.OpenFile(name, os.O_RDWR|os.O_APPEND, 0))
}

func (localFiles) Mkdir(name string) error               { return os.Mkdir(name, 0o700) }
func (localFiles) Link(from, to string) error            { return os.Link(from, to) }
func (localFiles) Remove(name string) error              { return os.Remove(name) }
func (localFiles) Stat(name string) (fs.FileInfo, error) { return os.Stat(name) }

func (localFiles) ReadDir(name string) ([]fs.FileInfo, error) {
	entries, err := os.ReadDir(name)
	if err != nil {
		return nil, err
	}
	infos := make([]fs.FileInfo, 0, len(entries))
	for _, e := range entries {
		info, err := e.Info()
		if os.IsNotExist(err) {
			continue // removed since
		}
		if err != nil {
			return nil, err
		}
		infos = append(infos, info)
	}
	return infos, nil
}

func (localFiles) SyncDir(name string) error {
	if runtime.GOOS == "windows" {
		return nil // folders cannot be opened for sync; NTFS journals names
	}
	d, err := os.Open(name)
	if err != nil {
		return err
	}
	err = d.Sync()
	if e := d.Close(); err == nil {
		err = e
	}
	return err
}

// wrapFile keeps a nil *os.File from becoming a file that is not nil.
func wrapFile(f *os.File, err error) (file, error) {
	if err != nil {
		return nil, err
	}
	return f, nil
}

// makeDirs creates a folder and those above it, each durable before the next. It syncs the parent of a folder that is
// there already too: a process killed earlier may have created it without.
func makeDirs(fsys fileSystem, name string) error {
	parent := filepath.Dir(name)
	if parent == name {
		return nil
	}
	if _, err := fsys.Stat(name); err != nil {
		if err := makeDirs(fsys, parent); err != nil {
			return err
		}
		if err := fsys.Mkdir(name); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return fsys.SyncDir(parent)
}
