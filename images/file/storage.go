package file

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"seedbed/images"
	"seedbed/images/layout"
	"seedbed/images/swarm"
	"seedbed/images/tile"
)

// Disk is where content lies: *restore.File is one. Safe for concurrent use.
type Disk interface {
	io.ReaderAt
	io.WriterAt
	// Zero makes bytes read as zeros.
	Zero(offset, length int64) error
	// Sync returns when all that was written is durable.
	Sync() error
}

// Config of a Storage. Disk and Layout are needed.
type Config struct {
	Disk   Disk
	Layout *layout.Layout
	// Part are the pieces that Look looks at and that are held; nil is all.
	Part *Part
	// Base returns where a partition (index) begins on Disk, in bytes; nil is where it begins on the captured disk.
	Base func(partition int) int64
	// ReadOnly says that nothing is written. What is read is compared with its hash then, since others may write.
	ReadOnly bool
	// Fresh says that Disk reads as zeros: nothing is looked at.
	Fresh bool
	// HoldFirst keeps the first tile of the image in memory, and zeros on the disk: of a file system on the whole disk, whose
	// superblock takes the place of a table. Read returns it; who makes the disk whole writes it.
	HoldFirst bool
	// Workers read and hash in Look; 0 is one per processor.
	Workers int
}

// Storage is an image's content where a disk has it: tiles are written where they belong, only their used bytes, and read
// back through the mask. It implements swarm.Looking: what the disk holds already is found by Look while the swarm runs.
// Safe for concurrent use.
type Storage struct {
	Config

	mu        sync.Mutex // guards everything below
	held      []images.TileSet
	heldSum   int64                   // bytes of data tiles held
	found     map[int][]images.Digest // of pieces that are right in part at most: what the disk has
	foundKept int                     // hashes in found
	room      sync.Cond               // that Look waits for
	hashes    map[int][]images.Digest // what Learn was told, of the pieces in order
	order     []int                   // pieces of hashes, the oldest first
	kept      int                     // hashes in the map
	unseen    set
	taken     set // unseen pieces that a worker looks at
	front     int // all before it were taken
	wanted    []int
	first     []byte // the tile that HoldFirst keeps, once it came
}

var _ swarm.Looking = (*Storage)(nil)

// maxHashes bounds the tile hashes kept in memory: 32 MiB, for 64 GiB of data. Older ones are computed from the disk when
// they are asked for.
const maxHashes = 1 << 20

// New returns the content of an image on a disk, of which nothing is known unless it is Fresh.
func New(c Config) (*Storage, error) {
	if c.Part == nil {
		c.Part = NewPart(c.Layout, func(int) bool { return true })
	}
	if c.Base == nil {
		c.Base = c.Layout.DiskOffset
	}
	n := c.Layout.Count()
	s := &Storage{Config: c, held: make([]images.TileSet, n), found: map[int][]images.Digest{}, hashes: map[int][]images.Digest{},
		unseen: newSet(n), taken: newSet(n)}
	s.room.L = &s.mu
	if !c.Fresh {
		for piece := range n {
			if !s.looked(piece).IsEmpty() {
				s.unseen.add(piece)
			}
		}
	}
	if c.HoldFirst && !c.Fresh && !c.ReadOnly {
		for _, e := range c.Layout.WriteExtents(nil, 0, 0, 1) {
			if err := c.Disk.Zero(c.Base(0)+e.Offset, e.Length); err != nil {
				return nil, err
			}
		}
	}
	return s, nil
}

// looked returns the tiles of a piece that Look reads: the data that is wanted, and what has to be zero in the partitions
// that are.
func (s *Storage) looked(piece int) images.TileSet {
	if s.ReadOnly {
		return s.Part.Data(piece)
	}
	if s.Base(s.Layout.Span(piece).Partition) < 0 {
		return images.TileSet{}
	}
	return s.Part.Data(piece).Union(s.Layout.Zero(piece))
}

// mark adds tiles to those held. The caller holds mu.
func (s *Storage) mark(piece int, tiles images.TileSet) {
	s.heldSum += lengthOf(s.Layout, piece, tiles.Minus(s.held[piece]))
	s.held[piece] = s.held[piece].Union(tiles)
}

// Held implements swarm.Storage.
func (s *Storage) Held(piece int) images.TileSet {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.held[piece]
}

// HeldLength returns the decoded length of the data tiles that are held, in bytes.
func (s *Storage) HeldLength() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.heldSum
}

// TileHashes implements swarm.Storage. Hashes that are no longer in memory are computed from the disk.
func (s *Storage) TileHashes(piece int) []images.Digest {
	s.mu.Lock()
	known, held := s.hashes[piece], s.held[piece]
	s.mu.Unlock()
	data := s.Layout.Data(piece)
	if known != nil || !held.Contains(data) {
		return known
	}
	hashes := make([]images.Digest, 0, data.Len())
	err := s.tiles(piece, data, make([]byte, runLength), func(_ int, raw []byte) { hashes = append(hashes, images.TileHash(raw)) })
	if err != nil || s.Layout.CheckHashes(piece, hashes) != nil {
		return nil // the disk does not return what was right
	}
	s.Learn(piece, hashes)
	return hashes
}

// Learn implements swarm.Storage. Tiles that the disk was found to have are held from now on, if these are their hashes.
func (s *Storage) Learn(piece int, hashes []images.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.hashes[piece] == nil {
		s.order = append(s.order, piece)
		s.kept += len(hashes)
		for s.kept > maxHashes && len(s.order) > 1 {
			s.kept -= len(s.hashes[s.order[0]])
			delete(s.hashes, s.order[0])
			s.order = s.order[1:]
		}
	}
	s.hashes[piece] = hashes
	if found := s.found[piece]; found != nil {
		delete(s.found, piece)
		s.foundKept -= len(found)
		s.room.Broadcast()
		s.compare(piece, found, hashes)
	}
}

// compare marks the data tiles whose hash is right as held. The caller holds mu.
func (s *Storage) compare(piece int, have, want []images.Digest) {
	var right images.TileSet
	i := 0
	for t := range s.Layout.Data(piece).All() {
		if have[i] == want[i] {
			right.Add(t)
		}
		i++
	}
	s.mark(piece, right)
}

// errChanged says that a disk that is only read has changed since it was looked at.
var errChanged = errors.New("the disk holds something else by now")

// Read implements swarm.Storage: the tiles are read through the mask and encoded anew, by LZ4, which costs least.
func (s *Storage) Read(ctx context.Context, piece int, tiles images.TileSet, _ []byte) ([]tile.Encoded, error) {
	hashes := map[int]images.Digest{}
	if s.ReadOnly {
		rank, known := 0, s.TileHashes(piece)
		for t := range s.Layout.Data(piece).All() {
			if rank >= len(known) {
				return nil, fmt.Errorf("piece %d: %w", piece, errChanged)
			}
			hashes[t] = known[rank]
			rank++
		}
	}
	out := make([]tile.Encoded, 0, tiles.Len())
	var failed error
	err := s.tiles(piece, tiles, make([]byte, runLength), func(t int, raw []byte) {
		if s.ReadOnly && images.TileHash(raw) != hashes[t] {
			failed = fmt.Errorf("tile %d of piece %d: %w", t, piece, errChanged)
		}
		e, err := tile.Encode(tile.LZ4, 0, raw)
		failed = errors.Join(failed, err)
		out = append(out, e)
	})
	if err := errors.Join(err, failed, ctx.Err()); err != nil {
		return nil, err
	}
	return out, nil
}

// ReadPiece is Read: with TileHashes, a Storage is what restore takes content from.
func (s *Storage) ReadPiece(ctx context.Context, piece int, tiles images.TileSet) ([]tile.Encoded, error) {
	return s.Read(ctx, piece, tiles, nil)
}

// runLength is how many bytes are read at once.
const runLength = 1 << 20

// tiles shows f each of the tiles of a piece as the disk holds it through the mask, in order. raw is valid until f returns;
// buf has room for a tile.
func (s *Storage) tiles(piece int, tiles images.TileSet, buf []byte, f func(t int, raw []byte)) error {
	n := s.Layout.Tiles(piece)
	for t := 0; t < n; {
		if !tiles.Has(t) {
			t++
			continue
		}
		run := 1
		for t+run < n && tiles.Has(t+run) && (run+1)*images.TileLength <= len(buf) {
			run++
		}
		raw := buf[:s.Layout.TileExtent(piece, t, run).Length]
		if err := s.read(piece, t, raw); err != nil {
			return err
		}
		for i := range run {
			f(t+i, raw[i*images.TileLength:min((i+1)*images.TileLength, len(raw))])
		}
		t += run
	}
	return nil
}

// read fills raw with the masked content from one tile of a piece on.
func (s *Storage) read(piece, t int, raw []byte) error {
	span := s.Layout.Span(piece)
	offset := span.Offset + int64(t)*images.TileLength
	if _, err := io.ReadFull(io.NewSectionReader(s.Disk, s.Base(span.Partition)+offset, int64(len(raw))), raw); err != nil {
		return fmt.Errorf("read byte %d: %w", s.Base(span.Partition)+offset, err)
	}
	s.Layout.Mask(span.Partition, raw, offset)
	if piece == 0 && t == 0 {
		s.mu.Lock()
		defer s.mu.Unlock()
		copy(raw, s.first)
	}
	return nil
}

// Write implements swarm.Storage: one write per run of used bytes, free bytes are left as they are.
func (s *Storage) Write(piece, t int, raw [][]byte) error {
	if s.ReadOnly {
		return errors.New("this disk is only read")
	}
	var written images.TileSet
	length := int64(0)
	for i := range raw {
		written.Add(t + i)
		length += int64(len(raw[i]))
	}
	span := s.Layout.Span(piece)
	first := span.Offset + int64(t)*images.TileLength
	later := int64(0)
	if s.HoldFirst && piece == 0 && t == 0 {
		later = int64(len(raw[0]))
		s.mu.Lock()
		s.first = bytes.Clone(raw[0])
		s.mu.Unlock()
	}
	for _, e := range s.Layout.WriteExtents(nil, piece, t, written.Len()) {
		if e = e.Intersect(images.Extent{Offset: first + later, Length: length - later}); e.Length == 0 {
			continue
		}
		if _, err := s.Disk.WriteAt(joined(tile.Cut(raw, e.Offset-first, e.End()-first)), s.Base(span.Partition)+e.Offset); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mark(piece, written.Intersect(s.Layout.Data(piece)))
	return nil
}

// joined returns parts as one.
func joined(parts [][]byte) []byte {
	if len(parts) == 1 {
		return parts[0]
	}
	return bytes.Join(parts, nil)
}

// Sync implements swarm.Storage.
func (s *Storage) Sync() error { return s.Disk.Sync() }
