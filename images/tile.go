package images

import (
	"fmt"
	"math/bits"
)

// Sizes fixed by the format, in bytes.
const (
	LeafLength     = 16 << 10  // BEP 52
	TileLength     = 64 << 10  // four leaves
	MinPieceLength = 256 << 10 // four tiles
	MaxPieceLength = 16 << 20  // 256 tiles: a TileSet
	MaxPieceTiles  = MaxPieceLength / TileLength
	LeavesPerTile  = TileLength / LeafLength
)

// MaxPieces bounds the pieces of one image, and so a peer's bitfield to 128 KiB: what a peer keeps per piece, and who
// hands out keeps per piece and machine, has to fit into RAM.
const MaxPieces = 1 << 20

// PieceLengthFor returns the piece length for an image with so many bytes in data tiles, of a disk of so many bytes: the
// longest power of two that still gives 2,048 data pieces, between 256 KiB and 4 MiB, and 8 MiB and more above 512 GB;
// longer where a large disk would have more than half of MaxPieces. More pieces cost the swarm bookkeeping, fewer cost
// it 10-50 piece times at the end.
func PieceLengthFor(dataLength, diskLength int64) int64 {
	const pieces = 2048
	limit := int64(4 << 20)
	switch {
	case dataLength > 2<<40:
		limit = MaxPieceLength
	case dataLength > 512e9:
		limit = 8 << 20
	}
	n := int64(MinPieceLength)
	for n < limit && dataLength/(2*n) >= pieces {
		n *= 2
	}
	for n < MaxPieceLength && diskLength/n > MaxPieces/2 {
		n *= 2
	}
	return n
}

// TileState says what a deployment does with a tile.
type TileState byte

const (
	// TileFree has no used byte: nothing is written, whatever the disk holds.
	TileFree TileState = iota
	// TileZero has used bytes and all of them are zero: zeros are written, nothing travels.
	TileZero
	// TileData holds used bytes that are not all zero: it is hashed, stored and travels.
	TileData
)

func (s TileState) String() string {
	return [...]string{"free", "zero", "data"}[s]
}

// TileKey names a tile's masked content: the merkle root over its leaves, padded to the next power of two of the
// leaves it has, and its length in bytes (a tail tile is shorter than TileLength). Comparable.
type TileKey struct {
	Hash   Digest
	Length int32
}

func (k TileKey) String() string { return fmt.Sprintf("%s/%d", k.Hash.Short(), k.Length) }

// TileSet is a set of tile indexes within one piece, 0 to MaxPieceTiles-1. Bit i%64 of word i/64 is tile i.
// The zero value is empty; comparable.
type TileSet [MaxPieceTiles / 64]uint64

// Add puts tile i into the set.
func (s *TileSet) Add(i int) { s[i>>6] |= 1 << (i & 63) }

// Remove takes tile i out of the set.
func (s *TileSet) Remove(i int) { s[i>>6] &^= 1 << (i & 63) }

// Has reports whether tile i is in the set.
func (s TileSet) Has(i int) bool { return s[i>>6]>>(i&63)&1 == 1 }

// Len returns the number of tiles in the set.
func (s TileSet) Len() (n int) {
	for _, w := range s {
		n += bits.OnesCount64(w)
	}
	return n
}

// IsEmpty reports whether no tile is in the set.
func (s TileSet) IsEmpty() bool { return s == TileSet{} }

// Union returns the tiles in s or o.
func (s TileSet) Union(o TileSet) TileSet {
	for i := range s {
		s[i] |= o[i]
	}
	return s
}

// Minus returns the tiles in s that are not in o.
func (s TileSet) Minus(o TileSet) TileSet {
	for i := range s {
		s[i] &^= o[i]
	}
	return s
}

// Intersect returns the tiles in both s and o.
func (s TileSet) Intersect(o TileSet) TileSet {
	for i := range s {
		s[i] &= o[i]
	}
	return s
}

// Contains reports whether every tile of o is in s.
func (s TileSet) Contains(o TileSet) bool { return o.Minus(s).IsEmpty() }

// All yields the tiles of the set in ascending order.
func (s TileSet) All() func(yield func(int) bool) {
	return func(yield func(int) bool) {
		for w, word := range s {
			for ; word != 0; word &= word - 1 {
				if !yield(w<<6 + bits.TrailingZeros64(word)) {
					return
				}
			}
		}
	}
}
