// Package powercut gives SQLite databases a disk that loses power: what was not synced is lost, in part or in full, in any
// order and down to single sectors, and what was synced is kept.
//
// It stands between SQLite and the driver's own file layer, as a VFS (sqlite.org/vfs.html), so that what it sees are the very
// writes, truncations, syncs and removals that the program under test asks of its operating system. The program is neither
// changed nor told. What the database keeps in shared memory (the -shm file) is not on the disk at all and is always lost.
package powercut

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// sector is what a disk writes in full or not at all, in bytes.
const sector = 512

// Disk is the folder in which databases lose power. Safe for concurrent use.
type Disk struct {
	dir string

	mu         sync.Mutex // guards what follows
	files      map[string]*file
	operations int64
	cutAt      int64 // the operation that does not happen any more; 0 is none
	atSync     bool  // it is the first sync from there on
	failFrom   int64 // the operations from there on fail, but for the power
	failTo     int64 // to before this one
	off        chan struct{}
}

// file is one file as the disk holds it and as the program sees it.
type file struct {
	kept     []byte // as of the last sync
	isKept   bool   // its name is in the folder, whatever happens
	isGone   bool   // removed, but the folder was not synced since: it may come back
	pending  []write
	syncsDir bool // its first sync is the folder's too
}

// write is what was asked for since the last sync: bytes at an offset, or the end of the file where bytes are nil.
type write struct {
	offset int64
	bytes  []byte
}

// New has the databases that are opened in dir from now on lose power as Cut says, until the test ends. What is in dir now is kept.
func New(t testing.TB, dir string) *Disk {
	t.Helper()
	d := &Disk{dir: dir, files: map[string]*file{}, off: make(chan struct{})}
	if err := mount(d); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unmount(dir) })
	return d
}

// Unmount hands the folder back to the real disk, before the test ends; nothing in it may be open.
func (d *Disk) Unmount() { unmount(d.dir) }

// Cut switches the disk off at its n-th operation from now on, which does not happen any more, nor any later one; 1 is the next.
func (d *Disk) Cut(n int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.cutAt, d.atSync = d.operations+n, false
}

// CutAtSync is Cut at the first sync from the n-th operation on: all of a commit is written, and nothing of it is safe.
func (d *Disk) CutAtSync(n int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.cutAt, d.atSync = d.operations+n, true
}

// Fail has operations fail, from the n-th from now on, as on a disk that is full for a while.
func (d *Disk) Fail(n, operations int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.failFrom, d.failTo = d.operations+n, d.operations+n+operations
}

// Off is closed when the power is out.
func (d *Disk) Off() <-chan struct{} { return d.off }

// IsOff reports whether the power is out.
func (d *Disk) IsOff() bool {
	select {
	case <-d.off:
		return true
	default:
		return false
	}
}

// Operations is how many writes, truncations, syncs and removals there were.
func (d *Disk) Operations() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.operations
}

// Loss is what becomes of what was not synced.
type Loss int

const (
	All     Loss = iota // nothing of it reached the disk
	None                // all of it did
	Writes              // some writes did, in any order
	Sectors             // some sectors of some writes did
	Losses              // the number of these
)

// Restore writes to a folder what the disk holds after the power cut. Each call may lose something else; the disk stays off.
func (d *Disk) Restore(dir string, loss Loss, random *rand.Rand) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, name := range sorted(d.files) {
		f := d.files[name]
		if !f.there(loss, random) {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, name), f.after(loss, random), 0o600); err != nil {
			return fmt.Errorf("restore a disk after a power cut: %w", err)
		}
	}
	return nil
}

func sorted(files map[string]*file) (names []string) {
	for name := range files {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// there reports whether the folder has the file after a power cut.
func (f *file) there(loss Loss, random *rand.Rand) bool {
	switch {
	case f.isKept != f.isGone: // neither made nor removed since the folder was synced, or both
		return f.isKept
	case loss == All:
		return f.isKept
	case loss == None:
		return !f.isGone
	}
	return random.IntN(2) == 0
}

// after returns the content after a power cut.
func (f *file) after(loss Loss, random *rand.Rand) []byte {
	content := slices.Clone(f.kept)
	for _, w := range f.pending {
		switch {
		case loss == All, loss != None && random.IntN(2) == 0 && (loss == Writes || w.bytes == nil):
		case loss != Sectors || w.bytes == nil:
			content = w.apply(content)
		default:
			for _, part := range w.sectors() {
				if random.IntN(2) == 0 {
					content = part.apply(content)
				}
			}
		}
	}
	return content
}

// apply returns the content with the write in it; a gap before it holds zeros.
func (w write) apply(content []byte) []byte {
	end := w.offset + int64(len(w.bytes))
	if w.bytes == nil && end < int64(len(content)) {
		return content[:end]
	}
	if end > int64(len(content)) {
		content = append(content, make([]byte, end-int64(len(content)))...)
	}
	copy(content[w.offset:], w.bytes)
	return content
}

// sectors splits a write at the borders of the disk's sectors.
func (w write) sectors() (parts []write) {
	for at := int64(0); at < int64(len(w.bytes)); {
		n := min(sector-(w.offset+at)%sector, int64(len(w.bytes))-at)
		parts = append(parts, write{w.offset + at, w.bytes[at : at+n]})
		at += n
	}
	return parts
}

// step counts an operation, and reports whether it happens. The caller holds mu.
func (d *Disk) step(isSync bool) bool {
	if d.IsOff() {
		return false
	}
	d.operations++
	if d.cutAt != 0 && d.operations >= d.cutAt && (isSync || !d.atSync) {
		close(d.off)
		return false
	}
	return d.operations < d.failFrom || d.operations >= d.failTo
}

// open returns the file of that path; nil if it is none of the disk's.
func (d *Disk) open(path string, journal bool) *file {
	name, inside := strings.CutPrefix(path, d.dir+string(filepath.Separator))
	if !inside {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	f := d.files[name]
	if f == nil {
		content, err := os.ReadFile(path)
		f = &file{kept: content, isKept: err == nil, syncsDir: journal && err != nil}
		d.files[name] = f
	}
	if f.isGone {
		// A new file of that name; the old one could come back in its place only with its old content, which a database
		// that removes its journal has to bear anyway.
		*f = file{syncsDir: journal}
	}
	return f
}

func (d *Disk) write(f *file, w write) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.step(false) {
		return false
	}
	f.pending = append(f.pending, w)
	return true
}

func (d *Disk) sync(f *file) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.step(true) {
		return false
	}
	for _, w := range f.pending {
		f.kept = w.apply(f.kept)
	}
	f.pending = nil
	if f.syncsDir { // as the driver does it: unixSync in os_unix.c opens the folder of a new journal and syncs it
		f.syncsDir = false
		d.syncDir()
	}
	return true
}

// syncDir makes the names in the folder durable. The caller holds mu.
func (d *Disk) syncDir() {
	for name, f := range d.files {
		if f.isGone {
			delete(d.files, name)
		} else {
			f.isKept = true
		}
	}
}

func (d *Disk) remove(path string, syncsDir bool) bool {
	name := strings.TrimPrefix(path, d.dir+string(filepath.Separator))
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.step(false) {
		return false
	}
	if f := d.files[name]; f != nil {
		f.isGone = true
	}
	if syncsDir {
		d.syncDir()
	}
	return true
}
