// Package file is a swarm's storage in files and on disks that no deployment writes: a disk file, one partition in a file,
// a block device, a disk that already holds the image, and encoded tiles of a seed node.
package file

import (
	"slices"

	"seedbed/images"
	"seedbed/images/layout"
)

// Part is the shape of some pieces of an image; the others have no data, so that they are neither fetched nor claimed. It
// implements swarm.Pieces, see swarm.Config.Part. Immutable; safe for concurrent use.
type Part struct {
	*layout.Layout
	wanted set
	length int64
	count  int
}

// NewPart returns the part of an image of which wanted tells the pieces. It is called for pieces with data alone.
func NewPart(l *layout.Layout, wanted func(piece int) bool) *Part {
	p := &Part{Layout: l, wanted: newSet(l.Count())}
	for piece := range l.Count() {
		if data := l.Data(piece); !data.IsEmpty() && wanted(piece) {
			p.wanted.add(piece)
			p.length += lengthOf(l, piece, data)
			p.count++
		}
	}
	return p
}

// Data implements swarm.Pieces.
func (p *Part) Data(piece int) images.TileSet {
	if !p.wanted.has(piece) {
		return images.TileSet{}
	}
	return p.Layout.Data(piece)
}

// DataLength returns the decoded length of the data tiles of the part, in bytes.
func (p *Part) DataLength() int64 { return p.length }

// DataPieces returns the number of pieces of the part.
func (p *Part) DataPieces() int { return p.count }

// IsWhole reports whether every piece with data is in the part.
func (p *Part) IsWhole() bool { return p.count == p.Layout.DataPieces() }

// Has reports whether a piece is in the part.
func (p *Part) Has(piece int) bool { return p.wanted.has(piece) }

// Equal reports whether two parts of one image are the same.
func (p *Part) Equal(o *Part) bool { return slices.Equal(p.wanted, o.wanted) }

// lengthOf returns the decoded length of tiles of a piece in bytes.
func lengthOf(l *layout.Layout, piece int, tiles images.TileSet) (n int64) {
	for t := range tiles.All() {
		n += int64(l.TileLength(piece, t))
	}
	return n
}

// set is a set of pieces: bit i%64 of word i/64.
type set []uint64

func newSet(n int) set           { return make(set, (n+63)/64) }
func (s set) has(piece int) bool { return s[piece>>6]>>(piece&63)&1 == 1 }
func (s set) add(piece int)      { s[piece>>6] |= 1 << (piece & 63) }
func (s set) remove(piece int)   { s[piece>>6] &^= 1 << (piece & 63) }
