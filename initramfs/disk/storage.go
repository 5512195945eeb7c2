package disk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"

	"seedbed/appliance/job"
	"seedbed/images"
	"seedbed/images/layout"
	"seedbed/images/swarm"
	"seedbed/images/tile"
)

// Storage is an image's content on a disk: tiles are written where they belong, only their used bytes, and read back
// through the mask. Safe for concurrent use.
type Storage struct {
	dev     *Device
	layout  *layout.Layout
	zeroRun int64 // the longest range zeroed at once, in bytes
	// maxFound is the constant; tests make it smaller.
	maxFound int
	turn     sync.Mutex // held while a disk with heads is read in long runs
	kept     []bool     // partitions that stay as they are, by index; nil: none

	mu        sync.Mutex // guards everything below
	held      []images.TileSet
	hashes    map[int][]images.Digest // what Learn was told, of the pieces in order
	order     []int                   // pieces of hashes, the oldest first
	known     int                     // hashes in the map
	found     map[int][]images.Digest // of pieces that are right only in part: what the disk held at Resume
	foundKept int                     // hashes in found
	search    search
	resumed   int64        // bytes of data tiles that were right before anything was written
	heldSum   int64        // bytes of data tiles that are held
	complete  []byte       // pieces held whole, bit 7 of byte 0 is piece 0
	holdFirst bool         // the first tile of the image is kept in memory until WriteFirst
	first     []byte       // that tile, once it came
	fixed     []job.Damage // what was written, by index of the partition
}

var _ swarm.Looking = (*Storage)(nil)

// maxHashes bounds the tile hashes kept in memory: 32 MiB, for 64 GiB of data. Older ones are computed from the disk
// when they are asked for.
const maxHashes = 1 << 20

// zeroRun bounds the time, in which a disk that writes the zeros itself cannot be stopped, to a second or two.
const zeroRun = 64 << 20

// NewStorage returns the content of an image on an open disk, of which nothing is held yet.
func NewStorage(dev *Device, l *layout.Layout) *Storage {
	s := &Storage{dev: dev, layout: l, zeroRun: zeroRun, maxFound: maxFound, held: make([]images.TileSet, l.Count()), hashes: map[int][]images.Digest{},
		found: map[int][]images.Digest{}, complete: make([]byte, (l.Count()+7)/8)}
	n := l.Count()
	s.search = search{unseen: newPieceSet(n), taken: newPieceSet(n), hint: newPieceSet(n)}
	s.search.changed.L = &s.mu
	for piece := range s.held {
		s.mark(piece, images.TileSet{})
	}
	return s
}

// HoldFirst makes the first tile of the image zeros, and keeps its content in memory until WriteFirst: for a file system on
// the whole disk, whose superblock lies there and takes the place of a table; an earlier one would find half of the new
// content. Call it before Probe and before anything is written.
func (s *Storage) HoldFirst() error {
	s.mu.Lock()
	s.holdFirst = true
	s.mu.Unlock()
	for _, e := range s.layout.WriteExtents(nil, 0, 0, 1) {
		if err := s.zero(s.layout.DiskOffset(0)+e.Offset, e.Length); err != nil {
			return err
		}
	}
	return s.dev.Sync()
}

// WriteFirst writes the tile that HoldFirst kept, durably, and reads it back. Without one it does nothing.
func (s *Storage) WriteFirst() error {
	s.mu.Lock()
	first := s.first
	s.mu.Unlock()
	if first == nil {
		return nil
	}
	if err := s.writeFirst(first); err != nil {
		return err
	}
	s.mu.Lock()
	s.first, s.holdFirst = nil, false
	s.mu.Unlock()
	r, err := s.dev.Direct()
	if err != nil {
		return err
	}
	raw := make([]byte, len(first))
	if err := errors.Join(s.readMasked(r, 0, 0, raw), r.Close()); err != nil {
		return err
	}
	if !bytes.Equal(raw, first) {
		return &ErrContent{s.dev.Name, 0, images.Extent{Length: int64(len(first))}}
	}
	return nil
}

// mark adds tiles to those held. The caller holds mu, or owns s.
func (s *Storage) mark(piece int, tiles images.TileSet) {
	for t := range tiles.Minus(s.held[piece]).All() {
		s.heldSum += int64(s.layout.TileLength(piece, t))
	}
	s.held[piece] = s.held[piece].Union(tiles)
	if s.held[piece].Contains(s.data(piece)) {
		s.complete[piece/8] |= 0x80 >> (piece % 8)
	}
}

// Held implements swarm.Storage.
func (s *Storage) Held(piece int) images.TileSet {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.held[piece]
}

// Progress returns the bytes of data tiles that the disk holds rightly, and of those the ones that were there before.
func (s *Storage) Progress() (held, resumed int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.heldSum, s.resumed
}

// Bitmap returns the pieces that are held whole, and those of the hint that are not looked at yet, so that a second
// restart loses nothing of it. Bit 7 of byte 0 is piece 0.
func (s *Storage) Bitmap() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	bits := bytes.Clone(s.complete)
	for piece := range s.layout.Count() {
		if s.search.hint.has(piece) && (!s.search.probed || s.search.unseen.has(piece)) {
			bits[piece/8] |= 0x80 >> (piece % 8)
		}
	}
	return bits
}

// TileHashes implements swarm.Storage. Hashes that are no longer in memory are computed from the disk.
func (s *Storage) TileHashes(piece int) []images.Digest {
	s.mu.Lock()
	known, held := s.hashes[piece], s.held[piece]
	s.mu.Unlock()
	data := s.data(piece)
	if known != nil || !held.Contains(data) {
		return known
	}
	hashes, err := s.hashPiece(piece)
	if err != nil || s.layout.CheckHashes(piece, hashes) != nil {
		return nil // the read-back will say what is wrong with the disk
	}
	s.Learn(piece, hashes)
	return hashes
}

// Learn implements swarm.Storage. Tiles that the disk was found to hold are held from now on, if these are their hashes.
func (s *Storage) Learn(piece int, hashes []images.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.hashes[piece] == nil {
		s.order = append(s.order, piece)
		s.known += len(hashes)
		for s.known > maxHashes && len(s.order) > 1 {
			s.known -= len(s.hashes[s.order[0]])
			delete(s.hashes, s.order[0])
			s.order = s.order[1:]
		}
	}
	s.hashes[piece] = hashes
	found := s.found[piece]
	if found == nil {
		return
	}
	delete(s.found, piece)
	s.foundKept -= len(found)
	s.compare(piece, found, hashes)
	s.search.changed.Broadcast()
}

// Read implements swarm.Storage: the tiles are read through the mask and encoded anew, by LZ4, which costs least.
func (s *Storage) Read(ctx context.Context, piece int, tiles images.TileSet, _ []byte) ([]tile.Encoded, error) {
	out := make([]tile.Encoded, 0, tiles.Len())
	buf := make([]byte, images.TileLength)
	for t := range tiles.All() {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		raw := buf[:s.layout.TileLength(piece, t)]
		if err := s.readMasked(s.dev, piece, t, raw); err != nil {
			return nil, err
		}
		e, err := tile.Encode(tile.LZ4, 0, raw)
		if err != nil {
			return nil, fmt.Errorf("encode tile %d of piece %d: %w", t, piece, err)
		}
		out = append(out, e)
	}
	return out, nil
}

// readerAt is how the bytes of a disk are read: by the page cache or past it.
type readerAt interface {
	ReadAt(b []byte, offset int64) (int, error)
}

// readMasked fills raw with the masked content from one tile of a piece on.
func (s *Storage) readMasked(r readerAt, piece, t int, raw []byte) error {
	span := s.layout.Span(piece)
	offset := span.Offset + int64(t)*images.TileLength
	if _, err := r.ReadAt(raw, s.layout.DiskOffset(span.Partition)+offset); err != nil {
		return err
	}
	s.layout.Mask(span.Partition, raw, offset)
	if piece == 0 && t == 0 {
		s.mu.Lock()
		defer s.mu.Unlock()
		copy(raw, s.first)
	}
	return nil
}

// Write implements swarm.Storage: one write per run of used bytes, free bytes are left as they are.
func (s *Storage) Write(piece, t int, raw [][]byte) error {
	later := 0 // tiles that are not written yet
	if piece == 0 && t == 0 {
		s.mu.Lock()
		if s.holdFirst {
			later = 1
			s.first = bytes.Clone(raw[0])
		}
		s.mu.Unlock()
	}
	if later < len(raw) {
		if err := s.writeTiles(piece, t+later, raw[later:]); err != nil {
			return err
		}
	}
	var written images.TileSet
	for i := range raw {
		written.Add(t + i)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	written = written.Intersect(s.data(piece))
	s.fix(piece, written)
	s.mark(piece, written)
	return nil
}

// fix counts tiles that were put right. The caller holds mu.
func (s *Storage) fix(piece int, tiles images.TileSet) {
	if s.fixed == nil {
		s.fixed = make([]job.Damage, s.layout.Partitions())
	}
	d := &s.fixed[s.layout.Span(piece).Partition]
	for t := range tiles.All() {
		d.Tiles++
		d.Bytes += int64(s.layout.TileLength(piece, t))
	}
}

// Fixed returns what was written, by partition, of those in which something was.
func (s *Storage) Fixed(m *images.Manifest) (list []job.Damage) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, d := range s.fixed {
		if p := &m.Partitions[i]; d.Tiles > 0 {
			d.Partition, d.Of = p.Number, p.DataTiles+p.ZeroTiles
			list = append(list, d)
		}
	}
	return list
}

// writeTiles writes the used bytes of a run of tiles.
func (s *Storage) writeTiles(piece, t int, raw [][]byte) error {
	span := s.layout.Span(piece)
	first := span.Offset + int64(t)*images.TileLength
	base := s.layout.DiskOffset(span.Partition)
	var extents [16]images.Extent
	for _, e := range s.layout.WriteExtents(extents[:0], piece, t, len(raw)) {
		if err := s.write(tile.Cut(raw, e.Offset-first, e.End()-first), base+e.Offset); err != nil {
			return err
		}
	}
	return nil
}

// Sync implements swarm.Storage.
func (s *Storage) Sync() error { return s.dev.Sync() }

// WriteZeros writes the zero tiles: their used bytes, nothing of them travels. progress is called with the bytes of each
// range, on the caller's goroutine.
func (s *Storage) WriteZeros(ctx context.Context, partitions int, progress func(int64)) error {
	for p := range partitions {
		if s.keeps(p) {
			continue
		}
		m, base := s.layout.Map(p), s.layout.DiskOffset(p)
		var used []images.Extent
		for _, run := range m.Zero {
			end := min((run.First+run.Count)*images.TileLength, m.Length)
			used = m.Used(used[:0], images.Extent{Offset: run.First * images.TileLength, Length: end - run.First*images.TileLength})
			for _, e := range used {
				for e.Length > 0 {
					if err := ctx.Err(); err != nil {
						return err
					}
					n := min(e.Length, s.zeroRun)
					if err := s.zero(base+e.Offset, n); err != nil {
						return err
					}
					progress(n)
					e.Offset, e.Length = e.Offset+n, e.Length-n
				}
			}
		}
	}
	return nil
}
