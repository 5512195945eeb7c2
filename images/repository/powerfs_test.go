package repository

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// powerFS is a file system in memory that loses power after a number of changes. It keeps apart what a program sees and
// what is certain to be on the disk: content by file.Sync, names by SyncDir.
type powerFS struct {
	mu    sync.Mutex
	left  int // changes until the power fails
	made  int // changes so far
	names map[string]*inode
	disk  map[string]*inode // names that are durable
}

// inode is a file or a folder.
type inode struct {
	dir  bool
	data []byte
	disk []byte // data that is durable

	modified time.Time
}

var errPower = errors.New("the power has failed")

func newPowerFS(left int) *powerFS {
	root := &inode{dir: true}
	return &powerFS{left: left, names: map[string]*inode{"/": root}, disk: map[string]*inode{"/": root}}
}

// change counts one change; the caller holds mu.
func (p *powerFS) change() error {
	if p.left == 0 {
		return errPower
	}
	p.left--
	p.made++
	return nil
}

// loss says what a power cut makes of what was not synced.
type loss struct {
	name  string
	names bool                           // names that were not synced are as programs saw them
	data  func(seen, disk []byte) []byte // content
}

var losses = []loss{
	{"everything unsynced is lost", false, func(_, disk []byte) []byte { return disk }},
	{"everything unsynced is kept", true, func(seen, _ []byte) []byte { return seen }},
	{"names are kept, content is lost", true, func(_, disk []byte) []byte { return disk }},
	{"names are kept, content is zeros", true, func(seen, disk []byte) []byte {
		b := slices.Clone(disk)
		return append(b, make([]byte, max(0, len(seen)-len(disk)))...)
	}},
	{"content is kept, names are lost", false, func(seen, _ []byte) []byte { return seen }},
	{"half of what was written is kept", true, func(seen, disk []byte) []byte {
		if len(seen) <= len(disk) {
			return seen
		}
		return seen[:(len(seen)+len(disk))/2]
	}},
}

// restart returns the file system that a machine finds after the power cut.
func (p *powerFS) restart(l loss, left int) *powerFS {
	p.mu.Lock()
	defer p.mu.Unlock()
	from := p.disk
	if l.names {
		from = p.names
	}
	n := &powerFS{left: left, names: map[string]*inode{}, disk: map[string]*inode{}}
	twins := map[*inode]*inode{}
	for name, i := range from {
		above := true
		for d := filepath.Dir(name); d != "/"; d = filepath.Dir(d) {
			above = above && from[d] != nil
		}
		if !above {
			continue // its folder was lost
		}
		if twins[i] == nil {
			b := slices.Clone(l.data(i.data, i.disk))
			twins[i] = &inode{dir: i.dir, data: b, disk: slices.Clone(b), modified: i.modified}
		}
		n.names[name], n.disk[name] = twins[i], twins[i]
	}
	return n
}

// restartProcess returns the file system as a program finds it after another was killed: nothing is lost, and what was
// not durable still is not.
func (p *powerFS) restartProcess(left int) *powerFS {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := &powerFS{left: left, names: map[string]*inode{}, disk: map[string]*inode{}}
	twins := map[*inode]*inode{}
	twin := func(i *inode) *inode {
		if twins[i] == nil {
			twins[i] = &inode{dir: i.dir, data: slices.Clone(i.data), disk: slices.Clone(i.disk), modified: i.modified}
		}
		return twins[i]
	}
	for name, i := range p.names {
		n.names[name] = twin(i)
	}
	for name, i := range p.disk {
		n.disk[name] = twin(i)
	}
	return n
}

// fingerprint is equal for two disks that hold the same, whatever the random names of temporary files.
func (p *powerFS) fingerprint() string {
	var list []string
	for name, i := range p.names {
		if filepath.Base(filepath.Dir(name)) == tempFolder {
			name = tempFolder
		}
		list = append(list, fmt.Sprintf("%s %x", name, sha256.Sum256(i.data)))
	}
	slices.Sort(list)
	return fmt.Sprintf("%x", sha256.Sum256([]byte(strings.Join(list, "\n"))))
}

func pathError(op, name string, err error) error { return &fs.PathError{Op: op, Path: name, Err: err} }

func (p *powerFS) Create(name string) (file, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.names[name] != nil {
		return nil, pathError("create", name, fs.ErrExist)
	}
	if p.names[filepath.Dir(name)] == nil {
		return nil, pathError("create", name, fs.ErrNotExist)
	}
	if err := p.change(); err != nil {
		return nil, err
	}
	i := &inode{modified: time.Now()}
	p.names[name] = i
	return &powerFile{p, name, i}, nil
}

func (p *powerFS) Open(name string) (file, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := p.names[name]
	if i == nil {
		return nil, pathError("open", name, fs.ErrNotExist)
	}
	return &powerFile{p, name, i}, nil
}

func (p *powerFS) Append(name string) (file, error) { return p.Open(name) }

func (p *powerFS) Mkdir(name string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.names[name] != nil {
		return pathError("mkdir", name, fs.ErrExist)
	}
	if err := p.change(); err != nil {
		return err
	}
	p.names[name] = &inode{dir: true, modified: time.Now()}
	return nil
}

func (p *powerFS) Link(from, to string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.names[to] != nil {
		return pathError("link", to, fs.ErrExist)
	}
	if p.names[from] == nil {
		return pathError("link", from, fs.ErrNotExist)
	}
	if err := p.change(); err != nil {
		return err
	}
	p.names[to] = p.names[from]
	return nil
}

func (p *powerFS) Remove(name string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.names[name] == nil {
		return pathError("remove", name, fs.ErrNotExist)
	}
	if err := p.change(); err != nil {
		return err
	}
	delete(p.names, name)
	return nil
}

func (p *powerFS) SyncDir(name string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.change(); err != nil {
		return err
	}
	for path := range p.disk {
		if filepath.Dir(path) == name && path != "/" && p.names[path] == nil {
			delete(p.disk, path)
		}
	}
	for path, i := range p.names {
		if filepath.Dir(path) == name {
			p.disk[path] = i
		}
	}
	return nil
}

func (p *powerFS) ReadDir(name string) (list []fs.FileInfo, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.names[name] == nil {
		return nil, pathError("read", name, fs.ErrNotExist)
	}
	for path, i := range p.names {
		if filepath.Dir(path) == name && path != "/" {
			list = append(list, powerInfo{path, i.dir, int64(len(i.data)), i.modified})
		}
	}
	slices.SortFunc(list, func(a, b fs.FileInfo) int { return strings.Compare(a.Name(), b.Name()) })
	return list, nil
}

func (p *powerFS) Stat(name string) (fs.FileInfo, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := p.names[name]
	if i == nil {
		return nil, pathError("stat", name, fs.ErrNotExist)
	}
	return powerInfo{name, i.dir, int64(len(i.data)), i.modified}, nil
}

// powerFile is an open file.
type powerFile struct {
	p    *powerFS
	name string
	i    *inode
}

func (f *powerFile) ReadAt(b []byte, offset int64) (int, error) {
	f.p.mu.Lock()
	defer f.p.mu.Unlock()
	if offset >= int64(len(f.i.data)) {
		return 0, io.EOF
	}
	n := copy(b, f.i.data[offset:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (f *powerFile) Write(b []byte) (int, error) {
	f.p.mu.Lock()
	defer f.p.mu.Unlock()
	if err := f.p.change(); err != nil {
		return 0, err
	}
	f.i.data, f.i.modified = append(f.i.data, b...), time.Now()
	return len(b), nil
}

func (f *powerFile) Truncate(n int64) error {
	f.p.mu.Lock()
	defer f.p.mu.Unlock()
	if err := f.p.change(); err != nil {
		return err
	}
	f.i.data = f.i.data[:n]
	return nil
}

func (f *powerFile) Sync() error {
	f.p.mu.Lock()
	defer f.p.mu.Unlock()
	if err := f.p.change(); err != nil {
		return err
	}
	f.i.disk = slices.Clone(f.i.data)
	return nil
}

func (f *powerFile) Close() error { return nil }

func (f *powerFile) Stat() (fs.FileInfo, error) {
	f.p.mu.Lock()
	defer f.p.mu.Unlock()
	return powerInfo{f.name, f.i.dir, int64(len(f.i.data)), f.i.modified}, nil
}

type powerInfo struct {
	path string
	dir  bool
	size int64
	at   time.Time
}

func (i powerInfo) Name() string       { return filepath.Base(i.path) }
func (i powerInfo) Size() int64        { return i.size }
func (powerInfo) Mode() fs.FileMode    { return 0o600 }
func (i powerInfo) ModTime() time.Time { return i.at }
func (i powerInfo) IsDir() bool        { return i.dir }
func (powerInfo) Sys() any             { return nil }
