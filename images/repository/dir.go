package repository

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Dir is a Bucket in a local folder: one file per object, under the object's key. Objects appear by a hard link from a
// file that is complete and synced, so the file system must have hard links (ext4, XFS, btrfs, ZFS, NFS, NTFS).
type Dir struct {
	path string
	fs   fileSystem

	mu   sync.Mutex
	made map[string]bool // folders known to be durable; guarded by mu
}

// tempFolder holds files being written; no key begins with a dot.
const tempFolder = ".tmp"

// staleAfter is the age at which a temporary file was certainly left by a process that died.
const staleAfter = 24 * time.Hour

// OpenDir opens the bucket in the folder path, which it creates if need be, and removes temporary files older than a
// day.
func OpenDir(path string) (*Dir, error) { return openDir(localFiles{}, path) }

func openDir(fsys fileSystem, path string) (*Dir, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("open repository folder: %w", err)
	}
	d := &Dir{path: path, fs: fsys, made: map[string]bool{}}
	temp := filepath.Join(path, tempFolder)
	if err := d.folder(temp); err != nil {
		return nil, fmt.Errorf("open repository folder %s: %w", path, err)
	}
	old, err := fsys.ReadDir(temp)
	if err != nil {
		return nil, fmt.Errorf("open repository folder %s: %w", path, err)
	}
	for _, f := range old {
		if time.Since(f.ModTime()) > staleAfter {
			_ = fsys.Remove(filepath.Join(temp, f.Name())) // only space is lost if it stays
		}
	}
	return d, nil
}

// Path returns the bucket's folder.
func (d *Dir) Path() string { return d.path }

// folder makes sure once per process that a folder exists durably.
func (d *Dir) folder(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.made[name] {
		return nil
	}
	if err := makeDirs(d.fs, name); err != nil {
		return err
	}
	d.made[name] = true
	return nil
}

func (d *Dir) file(key string) string { return filepath.Join(d.path, filepath.FromSlash(key)) }

// Put implements Bucket: write a temporary file, sync it, link it to its name, sync the folder.
func (d *Dir) Put(ctx context.Context, key string, r io.Reader, length int64) error {
	if err := CheckKey(key); err != nil {
		return err
	}
	if _, err := d.fs.Stat(d.file(key)); err == nil {
		return d.link("", key) // durable even if whoever created it has not come to syncing the folder
	}
	var name [16]byte
	rand.Read(name[:])
	temp := filepath.Join(d.path, tempFolder, hex.EncodeToString(name[:]))
	f, err := d.fs.Create(temp)
	if err != nil {
		return fmt.Errorf("put object %s: %w", key, err)
	}
	defer d.fs.Remove(temp)
	n, err := io.Copy(f, &contextReader{ctx, io.LimitReader(r, length+1)})
	if err == nil && n != length {
		err = fmt.Errorf("%d bytes given, %d announced", n, length)
	}
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		return fmt.Errorf("put object %s: %w", key, err)
	}
	return d.link(temp, key)
}

// PutFile is Put for a file that is complete, synced and never written again. Where it lies on the bucket's own file
// system no byte is copied.
func (d *Dir) PutFile(ctx context.Context, key, name string) error {
	if err := CheckKey(key); err != nil {
		return err
	}
	err := d.link(name, key)
	if err == nil || errors.Is(err, ErrExists) || errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return putCopy(ctx, d.fs, d, key, name) // another file system, for example
}

// link gives the file temp the object's name, durably. An empty temp only makes an existing name durable.
func (d *Dir) link(temp, key string) error {
	name := d.file(key)
	folder := filepath.Dir(name)
	if err := d.folder(folder); err != nil {
		return fmt.Errorf("put object %s: %w", key, err)
	}
	linked := fs.ErrExist
	if temp != "" {
		linked = d.fs.Link(temp, name)
	}
	if linked != nil && !errors.Is(linked, fs.ErrExist) {
		return fmt.Errorf("put object %s: %w", key, linked)
	}
	if err := d.fs.SyncDir(folder); err != nil {
		return fmt.Errorf("put object %s: %w", key, err)
	}
	if linked != nil {
		return fmt.Errorf("put object %s: %w", key, ErrExists)
	}
	return nil
}

// Read implements Bucket.
func (d *Dir) Read(_ context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if err := CheckKey(key); err != nil {
		return nil, err
	}
	f, err := d.fs.Open(d.file(key))
	if err != nil {
		return nil, d.readError(key, err)
	}
	info, err := f.Stat()
	if err == nil && info.IsDir() {
		err = fs.ErrNotExist // a folder is no object
	}
	if err != nil {
		return nil, errors.Join(d.readError(key, err), f.Close())
	}
	if length < 0 {
		length = 1<<62 - offset
	}
	return &section{io.NewSectionReader(f, offset, length), f}, nil
}

// section is a part of an open file.
type section struct {
	*io.SectionReader
	io.Closer
}

// Stat implements Bucket.
func (d *Dir) Stat(_ context.Context, key string) (Object, error) {
	info, err := d.stat(key)
	if err != nil {
		return Object{}, err
	}
	return Object{Key: key, Length: info.Size(), Modified: info.ModTime()}, nil
}

// stat describes an object's file. A folder is no object.
func (d *Dir) stat(key string) (fs.FileInfo, error) {
	if err := CheckKey(key); err != nil {
		return nil, err
	}
	info, err := d.fs.Stat(d.file(key))
	if err == nil && info.IsDir() {
		err = fs.ErrNotExist
	}
	if err != nil {
		return nil, d.readError(key, err)
	}
	return info, nil
}

func (d *Dir) readError(key string, err error) error {
	// ENOTDIR: a file where the key has a folder.
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return fmt.Errorf("object %s: %w", key, ErrNotExist)
	}
	return fmt.Errorf("object %s: %w", key, err)
}

// List implements Bucket.
func (d *Dir) List(ctx context.Context, prefix string) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		folder := ""
		if i := strings.LastIndexByte(prefix, '/'); i >= 0 {
			folder = prefix[:i]
			if err := CheckKey(folder); err != nil {
				yield(Object{}, err)
				return
			}
		}
		d.walk(ctx, folder, prefix, yield)
	}
}

// walk yields the objects under a folder of the bucket; false ends the listing.
func (d *Dir) walk(ctx context.Context, folder, prefix string, yield func(Object, error) bool) bool {
	if err := ctx.Err(); err != nil {
		yield(Object{}, err)
		return false
	}
	entries, err := d.fs.ReadDir(d.file(folder))
	if errors.Is(err, fs.ErrNotExist) {
		return true
	}
	if err != nil {
		yield(Object{}, fmt.Errorf("list objects in %s: %w", folder, err))
		return false
	}
	for _, e := range entries {
		key := strings.TrimPrefix(folder+"/"+e.Name(), "/")
		within := strings.HasPrefix(key, prefix) || strings.HasPrefix(prefix, key+"/")
		if CheckKey(key) != nil || !within {
			continue // the temporary folder, a file of someone else, or not asked for
		}
		if e.IsDir() {
			if !d.walk(ctx, key, prefix, yield) {
				return false
			}
		} else if strings.HasPrefix(key, prefix) {
			if !yield(Object{Key: key, Length: e.Size(), Modified: e.ModTime()}, nil) {
				return false
			}
		}
	}
	return true
}

// Delete implements Bucket.
func (d *Dir) Delete(_ context.Context, key string) error {
	if _, err := d.stat(key); err != nil {
		if errors.Is(err, ErrNotExist) {
			return nil
		}
		return err
	}
	name := d.file(key)
	err := d.fs.Remove(name)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		err = d.fs.SyncDir(filepath.Dir(name))
	}
	if err != nil {
		return fmt.Errorf("delete object %s: %w", key, err)
	}
	return nil
}

// putCopy puts the bytes of a local file.
func putCopy(ctx context.Context, fsys fileSystem, b Bucket, key, name string) error {
	f, err := fsys.Open(name)
	if err != nil {
		return fmt.Errorf("put object %s: %w", key, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("put object %s: %w", key, err)
	}
	return b.Put(ctx, key, io.NewSectionReader(f, 0, info.Size()), info.Size())
}

// contextReader ends a copy when its context does.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c *contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
