package file

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"sync"

	"seedbed/images"
	"seedbed/images/layout"
	"seedbed/images/swarm"
	"seedbed/images/tile"
)

// Shelf keeps tiles of one image encoded, in one file, in the order in which they came, so that a seed node hands them on
// without encoding them again. A record is whole or it is not there: its head has a CRC-32C that is checked when the shelf
// is opened, its bytes have one that is checked when they are read. It implements swarm.Storage. Safe for concurrent use.
//
// The file begins with shelfMagic and the image's digest. A record is a head of headLength bytes (big-endian: kind 1,
// codec 1, tile 2, piece 4, decoded length 4, length 4, CRC-32C of the bytes 4, CRC-32C of the head before it 4) and its bytes:
// an encoded tile, or the hashes of all data tiles of a piece.
type Shelf struct {
	// Room is asked before n bytes are written, and may refuse them; it is called with -n where that failed. Nil is none. It
	// is set before the first write.
	Room func(n int64) error

	f      *os.File
	layout *layout.Layout
	codec  tile.Codec

	writing sync.Mutex // guards end
	end     int64      // of what is written

	mu      sync.Mutex // guards everything below; never held during I/O
	held    []images.TileSet
	heldSum int64
	places  map[int][]place         // by piece
	stored  map[int]int64           // where the hashes of a piece lie
	fresh   map[int][]images.Digest // hashes of pieces that are not whole
}

// place is where a tile lies.
type place struct {
	tile   uint8
	offset int64 // of its head
}

const (
	shelfMagic  = "seedbed shelf 1\n"
	headLength  = 24
	shelfStart  = int64(len(shelfMagic) + len(images.Digest{}))
	recordTile  = 1
	recordNames = 2 // hashes
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var _ swarm.Storage = (*Shelf)(nil)

// OpenShelf opens the shelf of an image, or makes it. A file that ends in the middle of a record, as after a power cut, is
// cut there. codec is how new tiles are encoded.
func OpenShelf(path string, image images.Digest, l *layout.Layout, codec tile.Codec) (*Shelf, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	s := &Shelf{f: f, layout: l, codec: codec, held: make([]images.TileSet, l.Count()), places: map[int][]place{},
		stored: map[int]int64{}, fresh: map[int][]images.Digest{}}
	if err := s.load(image); err != nil {
		f.Close()
		return nil, fmt.Errorf("open the tiles in %s: %w", path, err)
	}
	return s, nil
}

// Close closes the file.
func (s *Shelf) Close() error { return s.f.Close() }

// load reads the heads of all records.
func (s *Shelf) load(image images.Digest) error {
	info, err := s.f.Stat()
	if err != nil {
		return err
	}
	start := append([]byte(shelfMagic), image[:]...)
	if info.Size() < shelfStart {
		if err := s.f.Truncate(0); err != nil {
			return err
		}
		_, err := s.f.WriteAt(start, 0)
		s.end = shelfStart
		return err
	}
	have := make([]byte, shelfStart)
	if _, err := s.f.ReadAt(have, 0); err != nil {
		return err
	}
	if string(have) != string(start) {
		return errors.New("it holds tiles of another image, or none at all; remove it")
	}
	s.end = shelfStart
	for {
		h, err := s.head(s.end)
		if err != nil || s.end+headLength+int64(h.length) > info.Size() || !s.known(h) {
			return s.f.Truncate(s.end)
		}
		s.enter(h, s.end)
		s.end += headLength + int64(h.length)
	}
}

// head is the head of a record.
type head struct {
	kind, codec byte
	tile        uint16
	piece       uint32
	decoded     uint32
	length      uint32
	sum         uint32
}

func (h head) append(b []byte) []byte {
	start := len(b)
	b = append(b, h.kind, h.codec)
	b = binary.BigEndian.AppendUint16(b, h.tile)
	for _, v := range []uint32{h.piece, h.decoded, h.length, h.sum} {
		b = binary.BigEndian.AppendUint32(b, v)
	}
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b[start:], castagnoli))
}

var errHead = errors.New("no whole record lies there")

func (s *Shelf) head(offset int64) (h head, err error) {
	var b [headLength]byte
	if _, err := io.ReadFull(io.NewSectionReader(s.f, offset, headLength), b[:]); err != nil {
		return h, errHead
	}
	at := func(i int) uint32 { return binary.BigEndian.Uint32(b[i:]) }
	if crc32.Checksum(b[:headLength-4], castagnoli) != at(headLength-4) {
		return h, errHead
	}
	return head{b[0], b[1], binary.BigEndian.Uint16(b[2:]), at(4), at(8), at(12), at(16)}, nil
}

// known reports whether a record can be of this image.
func (s *Shelf) known(h head) bool {
	if int64(h.piece) >= int64(s.layout.Count()) {
		return false
	}
	data := s.layout.Data(int(h.piece))
	switch h.kind {
	case recordTile:
		return h.tile < images.MaxPieceTiles && data.Has(int(h.tile)) && int(h.decoded) == s.layout.TileLength(int(h.piece), int(h.tile)) &&
			h.length > 0 && h.length <= h.decoded
	case recordNames:
		return int(h.length) == data.Len()*len(images.Digest{})
	}
	return false
}

// enter takes note of a record. The caller holds mu, or owns s.
func (s *Shelf) enter(h head, offset int64) {
	piece := int(h.piece)
	if h.kind == recordNames {
		s.stored[piece] = offset
		return
	}
	if s.held[piece].Has(int(h.tile)) {
		return
	}
	s.held[piece].Add(int(h.tile))
	s.heldSum += int64(h.decoded)
	s.places[piece] = append(s.places[piece], place{uint8(h.tile), offset})
	if s.held[piece] == s.layout.Data(piece) {
		delete(s.fresh, piece)
	}
}

// Held implements swarm.Storage.
func (s *Shelf) Held(piece int) images.TileSet {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.held[piece]
}

// HeldLength returns the decoded length of the tiles that are held, in bytes.
func (s *Shelf) HeldLength() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.heldSum
}

// TileHashes implements swarm.Storage.
func (s *Shelf) TileHashes(piece int) []images.Digest {
	s.mu.Lock()
	fresh, whole := s.fresh[piece], s.held[piece] == s.layout.Data(piece)
	offset, stored := s.stored[piece]
	s.mu.Unlock()
	if fresh != nil || !whole {
		return fresh
	}
	if stored {
		if b, _, err := s.record(offset); err == nil {
			hashes := make([]images.Digest, 0, len(b)/len(images.Digest{}))
			for ; len(b) > 0; b = b[len(images.Digest{}):] {
				hashes = append(hashes, images.Digest(b[:len(images.Digest{})]))
			}
			if s.layout.CheckHashes(piece, hashes) == nil {
				return hashes
			}
		}
	}
	return s.hash(piece)
}

// hash computes the hashes of a whole piece from its tiles; nil if one is damaged.
func (s *Shelf) hash(piece int) (hashes []images.Digest) {
	list, err := s.Read(context.Background(), piece, s.layout.Data(piece), nil)
	if err != nil {
		return nil
	}
	for _, e := range list {
		raw, err := e.Decode(nil)
		if err != nil {
			return nil
		}
		hashes = append(hashes, tile.Hash(raw))
	}
	if s.layout.CheckHashes(piece, hashes) != nil {
		return nil
	}
	return hashes
}

// Learn implements swarm.Storage.
func (s *Shelf) Learn(piece int, hashes []images.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held[piece] != s.layout.Data(piece) {
		s.fresh[piece] = hashes
	}
}

// record reads a record's bytes.
func (s *Shelf) record(offset int64) ([]byte, head, error) {
	h, err := s.head(offset)
	if err != nil {
		return nil, h, err
	}
	b := make([]byte, h.length)
	if _, err := io.ReadFull(io.NewSectionReader(s.f, offset+headLength, int64(h.length)), b); err != nil {
		return nil, h, err
	}
	if crc32.Checksum(b, castagnoli) != h.sum {
		return nil, h, errors.New("its bytes are damaged")
	}
	return b, h, nil
}

// Read implements swarm.Storage. A tile that is damaged is not held any more.
func (s *Shelf) Read(ctx context.Context, piece int, tiles images.TileSet, _ []byte) ([]tile.Encoded, error) {
	s.mu.Lock()
	offsets := map[int]int64{}
	for _, p := range s.places[piece] {
		offsets[int(p.tile)] = p.offset
	}
	s.mu.Unlock()
	out := make([]tile.Encoded, 0, tiles.Len())
	for t := range tiles.All() {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		b, h, err := s.record(offsets[t])
		if err != nil || int(h.piece) != piece || int(h.tile) != t {
			s.drop(piece, t)
			return nil, fmt.Errorf("tile %d of piece %d in %s: %w", t, piece, s.f.Name(), errors.Join(err, errHead))
		}
		out = append(out, tile.Encoded{Codec: tile.Codec(h.codec), Length: int32(h.decoded), Bytes: b})
	}
	return out, nil
}

// drop forgets a tile.
func (s *Shelf) drop(piece, t int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.held[piece].Has(t) {
		return
	}
	s.held[piece].Remove(t)
	s.heldSum -= int64(s.layout.TileLength(piece, t))
	kept := s.places[piece][:0:0]
	for _, p := range s.places[piece] {
		if int(p.tile) != t {
			kept = append(kept, p)
		}
	}
	s.places[piece] = kept
}

// Write implements swarm.Storage.
func (s *Shelf) Write(piece, first int, raw [][]byte) error {
	var b []byte
	type entry struct {
		h  head
		at int
	}
	var entries []entry
	add := func(h head, payload []byte) {
		h.piece, h.length, h.sum = uint32(piece), uint32(len(payload)), crc32.Checksum(payload, castagnoli)
		entries = append(entries, entry{h, len(b)})
		b = append(h.append(b), payload...)
	}
	s.mu.Lock()
	hashes := s.fresh[piece]
	if _, stored := s.stored[piece]; stored {
		hashes = nil
	}
	s.mu.Unlock()
	if hashes != nil {
		var names []byte
		for i := range hashes {
			names = append(names, hashes[i][:]...)
		}
		add(head{kind: recordNames}, names)
	}
	for i := range raw {
		e, err := tile.Encode(s.codec, 0, raw[i])
		if err != nil {
			return err
		}
		add(head{kind: recordTile, codec: byte(e.Codec), tile: uint16(first + i), decoded: uint32(e.Length)}, e.Bytes)
	}
	// One after the other: what lies behind a record that could not be written would be lost with it.
	s.writing.Lock()
	defer s.writing.Unlock()
	if err := s.room(len(b)); err != nil {
		return err
	}
	if _, err := s.f.WriteAt(b, s.end); err != nil {
		return errors.Join(err, s.room(-len(b)), s.f.Truncate(s.end))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range entries {
		s.enter(e.h, s.end+int64(e.at))
	}
	s.end += int64(len(b))
	return nil
}

func (s *Shelf) room(n int) error {
	if s.Room == nil {
		return nil
	}
	return s.Room(int64(n))
}

// Sync implements swarm.Storage.
func (s *Shelf) Sync() error { return s.f.Sync() }
