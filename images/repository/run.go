package repository

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"sort"
	"sync/atomic"

	"seedbed/images"
)

// A run lists the tiles of some packs, sorted, in a file of the local index:
//
//	magic "SBRUN02\n", number of packs (4), number of items (8), pack IDs (32 each)
//	items of 44 bytes: tile hash (32), decoded length (4), pack in the list above (4), ordinal in the pack (4)
//	fence: the first 8 bytes of items 0, 128, 256, ...
const (
	runMagic        = "SBRUN02\n"
	runHeaderLength = 20
	itemLength      = 44
	// fenceEvery items one is kept in memory, so that a look-up is one read of 5.5 KiB. That is 1 MiB of memory for the
	// 704 MiB of items of 1 TiB of tiles.
	fenceEvery = 128
)

// run is an open run. Immutable but for Close and broken.
type run struct {
	name  string
	f     file
	packs []images.Digest
	// handles are the packs' handles in the repository, in the order of packs.
	handles []uint32
	count   int64
	start   int64    // of the items in the file
	fence   []uint64 // the first 8 bytes of items 0, fenceEvery, 2*fenceEvery, ...
	// broken is set once the file could not be read.
	broken atomic.Bool
}

// openRun opens a run and reads its fence. A file of another size than its header says is an error.
func openRun(fsys fileSystem, name string) (*run, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	r := &run{name: name, f: f}
	if err := r.load(); err != nil {
		f.Close()
		return nil, fmt.Errorf("index file %s: %w", name, err)
	}
	return r, nil
}

func (r *run) load() error {
	info, err := r.f.Stat()
	if err != nil {
		return err
	}
	var h [runHeaderLength]byte
	if _, err := r.f.ReadAt(h[:], 0); err != nil {
		return err
	}
	packs, count := int64(binary.BigEndian.Uint32(h[8:])), binary.BigEndian.Uint64(h[12:])
	r.start = runHeaderLength + 32*packs
	fences := (int64(min(count, 1<<40)) + fenceEvery - 1) / fenceEvery
	if string(h[:8]) != runMagic || count > 1<<40 || info.Size() != r.start+int64(count)*itemLength+8*fences {
		return errors.New("not as long as its header says")
	}
	r.count = int64(count)
	ids := make([]byte, 32*packs)
	if _, err := r.f.ReadAt(ids, runHeaderLength); err != nil && packs > 0 {
		return err
	}
	for ; len(ids) > 0; ids = ids[32:] {
		r.packs = append(r.packs, images.Digest(ids[:32]))
	}
	fence := make([]byte, 8*fences)
	if _, err := r.f.ReadAt(fence, r.start+r.count*itemLength); err != nil && fences > 0 {
		return err
	}
	r.fence = make([]uint64, fences)
	for i := range r.fence {
		r.fence[i] = binary.BigEndian.Uint64(fence[8*i:])
	}
	return nil
}

// find looks a tile up; a tile may be in several packs. Locations that avoid, if not nil, reports are passed over.
func (r *run) find(key images.TileKey, avoid func(Location) bool) (Location, bool, error) {
	prefix := binary.BigEndian.Uint64(key.Hash[:])
	want := appendItemKey(nil, key)
	var buf [fenceEvery * itemLength]byte
	group := sort.Search(len(r.fence), func(i int) bool { return r.fence[i] > prefix }) - 1
	for ; group >= 0; group-- {
		first := int64(group) * fenceEvery
		items := buf[:min(fenceEvery, r.count-first)*itemLength]
		if n, err := r.f.ReadAt(items, r.start+first*itemLength); n < len(items) {
			return Location{}, false, fmt.Errorf("index file %s: %w", r.name, err)
		}
		n := len(items) / itemLength
		i := sort.Search(n, func(i int) bool { return bytes.Compare(items[i*itemLength:i*itemLength+36], want) >= 0 })
		for k := i; k < n && bytes.Equal(items[k*itemLength:k*itemLength+36], want); k++ {
			item := items[k*itemLength:]
			pack := binary.BigEndian.Uint32(item[36:])
			if int(pack) >= len(r.handles) {
				continue // damaged; the tile is stored once more
			}
			at := Location{pack: r.handles[pack], ordinal: binary.BigEndian.Uint32(item[40:])}
			if avoid == nil || !avoid(at) {
				return at, true, nil
			}
		}
		if i > 0 {
			break // equal items may begin in the group before only if they begin this one
		}
	}
	return Location{}, false, nil
}

func appendItemKey(dst []byte, key images.TileKey) []byte {
	return binary.BigEndian.AppendUint32(append(dst, key.Hash[:]...), uint32(key.Length))
}

// writeItems writes the items of packs, sorted, as the packs 0, 1 and so on of a run.
func writeItems(w io.Writer, packs []packEntries) error {
	type place struct {
		prefix        uint64
		pack, ordinal uint32
	}
	n := 0
	for _, p := range packs {
		n += len(p.entries)
	}
	order := make([]place, 0, n)
	for k, p := range packs {
		for i := range p.entries {
			order = append(order, place{binary.BigEndian.Uint64(p.entries[i].key.Hash[:]), uint32(k), uint32(i)})
		}
	}
	key := func(p place) images.TileKey { return packs[p.pack].entries[p.ordinal].key }
	slices.SortFunc(order, func(a, b place) int {
		if a.prefix != b.prefix {
			return cmp.Compare(a.prefix, b.prefix)
		}
		ka, kb := key(a), key(b)
		return cmp.Or(bytes.Compare(ka.Hash[:], kb.Hash[:]), cmp.Compare(ka.Length, kb.Length))
	})
	item := make([]byte, 0, itemLength)
	for _, p := range order {
		item = appendItemKey(item[:0], key(p))
		item = binary.BigEndian.AppendUint32(item, p.pack)
		item = binary.BigEndian.AppendUint32(item, p.ordinal)
		if _, err := w.Write(item); err != nil {
			return err
		}
	}
	return nil
}

// fenceWriter passes items on, one a write, and keeps the fence.
type fenceWriter struct {
	w     io.Writer
	count int64
	fence []byte
}

func (f *fenceWriter) Write(item []byte) (int, error) {
	if f.count%fenceEvery == 0 {
		f.fence = append(f.fence, item[:8]...)
	}
	f.count++
	return f.w.Write(item)
}

// writeRun creates a run durably from count sorted items, which write puts into its writer, one a call.
func writeRun(fsys fileSystem, name string, packs []images.Digest, count int64, write func(io.Writer) error) error {
	temp := name + newSuffix
	_ = fsys.Remove(temp) // of a process that died
	f, err := fsys.Create(temp)
	if err != nil {
		return err
	}
	defer fsys.Remove(temp)
	h := binary.BigEndian.AppendUint32([]byte(runMagic), uint32(len(packs)))
	h = binary.BigEndian.AppendUint64(h, uint64(count))
	for _, id := range packs {
		h = append(h, id[:]...)
	}
	w := bufio.NewWriterSize(f, 256<<10)
	w.Write(h) // errors come back from Flush
	items := &fenceWriter{w: w}
	err = write(items)
	w.Write(items.fence)
	if err == nil {
		err = w.Flush()
	}
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = fsys.Link(temp, name)
	}
	if err == nil {
		err = fsys.SyncDir(filepath.Dir(name))
	}
	return err
}

// newSuffix marks a run that is being written.
const newSuffix = ".new"

// mergeItems writes the items of several runs in order. The packs of run i are numbered from base[i] on.
func mergeItems(w io.Writer, runs []*run) error {
	type source struct {
		r    *bufio.Reader
		base uint32
		item [itemLength]byte
	}
	var sources []*source
	base := uint32(0)
	for _, r := range runs {
		s := &source{r: bufio.NewReaderSize(io.NewSectionReader(r.f, r.start, r.count*itemLength), 128<<10), base: base}
		base += uint32(len(r.packs))
		if r.count == 0 {
			continue
		}
		if _, err := io.ReadFull(s.r, s.item[:]); err != nil {
			return err
		}
		sources = append(sources, s)
	}
	for len(sources) > 0 {
		least := 0
		for i, s := range sources {
			if bytes.Compare(s.item[:36], sources[least].item[:36]) < 0 {
				least = i
			}
		}
		s := sources[least]
		binary.BigEndian.PutUint32(s.item[36:], s.base+binary.BigEndian.Uint32(s.item[36:]))
		if _, err := w.Write(s.item[:]); err != nil {
			return err
		}
		if _, err := io.ReadFull(s.r, s.item[:]); err == io.EOF {
			sources = append(sources[:least], sources[least+1:]...)
		} else if err != nil {
			return err
		}
	}
	return nil
}
