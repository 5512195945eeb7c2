//go:build unix

package restore

import (
	"errors"
	"io/fs"
	"os"
)

// SyncFolder makes names in a folder durable.
func SyncFolder(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// NameFile gives a whole file its name, in the same folder. One that exists is not replaced: fs.ErrExist.
func NameFile(from, to string) error {
	err := os.Link(from, to) // unlike a rename it replaces nothing
	switch {
	case err == nil:
		return os.Remove(from)
	case errors.Is(err, fs.ErrExist):
		return err
	}
	switch _, there := os.Lstat(to); { // a file system without links says no more than that
	case there == nil:
		return &os.LinkError{Op: "link", Old: from, New: to, Err: fs.ErrExist}
	case errors.Is(there, fs.ErrNotExist):
		return os.Rename(from, to)
	}
	return err
}
