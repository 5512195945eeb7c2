package repository

import (
	"fmt"
	"io"
	"log/slog"
	"math/bits"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"seedbed/images"
)

// Location says where the repository holds a tile. It is good until the repository is closed.
type Location struct {
	pack    uint32 // handle of the pack
	ordinal uint32 // record in the pack, from 0
}

// index finds tiles by hash: for tiles put lately in memory, for all others in runs on local disk. It can be rebuilt
// from the packs, and what it says is checked against the packs before an image is published, so that damage to it
// costs space and never content. Safe for concurrent use.
type index struct {
	fs  fileSystem
	dir string
	log *slog.Logger

	mu     sync.RWMutex
	recent map[images.TileKey]Location // of packs in no run; guarded by mu
	runs   []*run                      // guarded by mu; files are closed under it
	// condemned are the packs not to be used; guarded by mu.
	condemned map[uint32]bool

	writing sync.Mutex // serialises writers of runs
	next    int        // number of the next run's file; guarded by writing
	loaded  bool       // guarded by writing
}

func newIndex(fsys fileSystem, dir string, log *slog.Logger) *index {
	return &index{fs: fsys, dir: dir, log: log, recent: map[images.TileKey]Location{}, condemned: map[uint32]bool{}}
}

// load opens the runs, once. handle returns the handle of a pack, false if the bucket has no such pack: its tiles
// are taken out. It returns which packs are covered.
func (x *index) load(handle func(images.Digest) (uint32, bool)) (map[images.Digest]bool, error) {
	x.writing.Lock()
	defer x.writing.Unlock()
	if x.loaded {
		return x.covered(), nil
	}
	if err := makeDirs(x.fs, x.dir); err != nil {
		return nil, fmt.Errorf("open index: %w", err)
	}
	files, err := x.fs.ReadDir(x.dir)
	if err != nil {
		return nil, fmt.Errorf("open index: %w", err)
	}
	var found []*run
	for _, f := range files {
		name := filepath.Join(x.dir, f.Name())
		if strings.HasSuffix(name, newSuffix) {
			_ = x.fs.Remove(name)
			continue
		}
		n := 0
		if k, err := fmt.Sscanf(f.Name(), "run-%d", &n); k != 1 || err != nil {
			continue
		}
		x.next = max(x.next, n+1)
		r, err := openRun(x.fs, name)
		if err != nil {
			x.log.Warn("index file is damaged, rebuilding it", "file", name, "err", err)
			_ = x.fs.Remove(name)
			continue
		}
		found = append(found, r)
	}
	x.loaded = true
	return x.keep(found, handle), nil
}

// covered returns the packs that runs cover. The caller holds writing.
func (x *index) covered() map[images.Digest]bool {
	covered := map[images.Digest]bool{}
	for _, r := range x.runs {
		for _, id := range r.packs {
			covered[id] = true
		}
	}
	return covered
}

// keep takes the runs that cover a pack which no longer run covers: after a merge that was cut short the merged run wins.
// Packs that do not exist any more are taken out. It removes the other runs and returns the packs covered. The caller holds
// writing.
func (x *index) keep(found []*run, handle func(images.Digest) (uint32, bool)) map[images.Digest]bool {
	slices.SortFunc(found, func(a, b *run) int { return len(b.packs) - len(a.packs) })
	covered := map[images.Digest]bool{}
	var kept []*run
	for _, r := range found {
		gone, any := goneOf(r, handle)
		fresh := false
		for i, id := range r.packs {
			h, _ := handle(id)
			r.handles = append(r.handles, h)
			fresh = fresh || !gone[i] && !covered[id]
		}
		if !fresh {
			x.discard(r)
			continue
		}
		if any {
			if r = x.without(r, gone); r == nil {
				continue
			}
		}
		for _, id := range r.packs {
			covered[id] = true
		}
		kept = append(kept, r)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.runs = kept
	return covered
}

func (x *index) discard(r *run) {
	r.f.Close()
	_ = x.fs.Remove(r.name) // if it stays, the next start finds it again
}

// close closes the runs. No look-up may be under way.
func (x *index) close() {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, r := range x.runs {
		r.f.Close()
	}
	x.runs = nil
}

// find looks a tile up. Locations that avoid, if not nil, reports are passed over.
func (x *index) find(key images.TileKey, avoid func(Location) bool) (Location, bool, error) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	passOver := func(at Location) bool { return x.condemned[at.pack] || avoid != nil && avoid(at) }
	if loc, ok := x.recent[key]; ok && !passOver(loc) {
		return loc, true, nil
	}
	for _, r := range x.runs {
		loc, ok, err := r.find(key, passOver)
		if ok {
			return loc, ok, nil
		}
		if err != nil && !r.broken.Swap(true) {
			x.log.Warn("index file cannot be read, its tiles are stored again until the next start makes it anew", "file", r.name, "err", err)
			_ = x.fs.Remove(r.name)
		}
	}
	return Location{}, false, nil
}

// condemn makes the index forget a pack that is not what the index says, so that its tiles are stored anew, and removes
// the runs' files, so that the next open reads the index of every pack again.
func (x *index) condemn(handle uint32) {
	x.writing.Lock()
	defer x.writing.Unlock()
	for _, r := range x.runs { // only writers change it
		_ = x.fs.Remove(r.name)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.condemned[handle] = true
}

// put enters a tile of a pack that is not sealed.
func (x *index) put(key images.TileKey, loc Location) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.recent[key] = loc
}

// forget takes the tiles of a pack out of memory.
func (x *index) forget(entries []entry, handle uint32) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, e := range entries {
		if loc, ok := x.recent[e.key]; ok && loc.pack == handle {
			delete(x.recent, e.key)
		}
	}
}

// packEntries are the records of a pack.
type packEntries struct {
	id      images.Digest
	handle  uint32
	entries []entry
}

// addPack moves the tiles of a sealed pack into a run. When that cannot be done they are kept in memory.
func (x *index) addPack(id images.Digest, handle uint32, entries []entry) {
	x.addPacks([]packEntries{{id, handle, entries}})
}

// addPacks is addPack for several packs, which make one run.
func (x *index) addPacks(list []packEntries) {
	x.writing.Lock()
	defer x.writing.Unlock()
	var ids []images.Digest
	var handles []uint32
	count := int64(0)
	for _, p := range list {
		ids, handles, count = append(ids, p.id), append(handles, p.handle), count+int64(len(p.entries))
	}
	r, err := x.write(ids, handles, count, func(w io.Writer) error { return writeItems(w, list) })
	if err != nil {
		x.log.Warn("index cannot be written, keeping it in memory", "packs", len(list), "err", err)
		for _, p := range list {
			for i, e := range p.entries {
				x.put(e.key, Location{p.handle, uint32(i)})
			}
		}
		return
	}
	x.mu.Lock()
	x.runs = append(x.runs, r)
	x.mu.Unlock()
	for _, p := range list {
		x.forget(p.entries, p.handle)
	}
	if err := x.merge(); err != nil {
		x.log.Warn("index files cannot be merged", "err", err)
	}
}

// write creates and opens the next run. The caller holds writing.
func (x *index) write(packs []images.Digest, handles []uint32, count int64, items func(io.Writer) error) (*run, error) {
	name := filepath.Join(x.dir, fmt.Sprintf("run-%08d", x.next))
	x.next++
	if err := writeRun(x.fs, name, packs, count, items); err != nil {
		return nil, err
	}
	r, err := openRun(x.fs, name)
	if err != nil {
		return nil, err
	}
	r.handles = handles
	return r, nil
}

// mergeRuns is how many runs of one size become one: a look-up then reads at most mergeRuns-1 runs of each size, and an
// item is rewritten once for each size.
const mergeRuns = 8

// tier returns the size class of a run: packs of up to some 4,096 tiles, then each eight times the last.
func tier(count int64) int { return (bits.Len64(uint64(count)>>12) + 2) / 3 }

// merge joins runs while there are mergeRuns of one size. The caller holds writing.
func (x *index) merge() error {
	for {
		byTier := map[int][]*run{}
		var full []*run
		for _, r := range x.runs { // only writers change it
			if r.broken.Load() {
				continue
			}
			t := tier(r.count)
			byTier[t] = append(byTier[t], r)
			if len(byTier[t]) >= mergeRuns {
				full = byTier[t]
			}
		}
		if full == nil {
			return nil
		}
		var packs []images.Digest
		var handles []uint32
		var count int64
		for _, r := range full {
			packs, handles, count = append(packs, r.packs...), append(handles, r.handles...), count+r.count
		}
		merged, err := x.write(packs, handles, count, func(w io.Writer) error { return mergeItems(w, full) })
		if err != nil {
			return err
		}
		x.mu.Lock()
		x.runs = slices.DeleteFunc(x.runs, func(r *run) bool { return slices.Contains(full, r) })
		x.runs = append(x.runs, merged)
		for _, r := range full {
			x.discard(r)
		}
		x.mu.Unlock()
	}
}
