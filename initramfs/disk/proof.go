package disk

import (
	"seedbed/images"
)

// proof says which tiles need not be read back: those that were read from the disk itself, past the page cache, and were
// right in this job, and near which nothing was written in it, before or after. Reading them again would say nothing
// more. Two bits for each tile: 32 MiB for a disk of 8 TiB. The zero value has nothing proven. Guarded by Storage.mu.
type proof struct {
	perPiece int      // tiles
	right    []uint64 // read, right; tile t of a piece is bit piece*perPiece+t, bit i%64 of word i/64
	touched  []uint64 // written, or so near to what was written that the kernel or the disk may have written it too
}

// touchUnit is in what the bytes around a write count as written: the page cache writes pages of 4 KiB, and disks write
// sectors of up to 64 KiB. A tile of an unaligned partition shares such a unit with its neighbours, which may belong to
// another partition.
const touchUnit = 64 << 10

// newProof returns a proof for pieces of a length in bytes.
func newProof(pieces int, pieceLength int64) proof {
	per := int(pieceLength / images.TileLength)
	words := (pieces*per + 63) / 64
	return proof{per, make([]uint64, words), make([]uint64, words)}
}

// add notes tiles of a piece that were read and right.
func (p *proof) add(piece int, tiles images.TileSet) {
	if p.perPiece == 0 {
		return
	}
	for t := range tiles.All() {
		i := piece*p.perPiece + t
		p.right[i>>6] |= 1 << (i & 63)
	}
}

// touch notes count tiles from one of a piece on, which may go on in the next pieces.
func (p *proof) touch(piece, tile, count int) {
	if p.perPiece == 0 {
		return
	}
	for i := piece*p.perPiece + tile; count > 0; i, count = i+1, count-1 {
		p.touched[i>>6] |= 1 << (i & 63)
	}
}

// of returns the tiles of a piece that need not be read back.
func (p *proof) of(piece int) (set images.TileSet) {
	for t := range p.perPiece {
		if i := piece*p.perPiece + t; (p.right[i>>6]&^p.touched[i>>6])>>(i&63)&1 == 1 {
			set.Add(t)
		}
	}
	return set
}

// touch notes that bytes of the disk are about to be written: whatever lies near has to be read back.
func (s *Storage) touch(offset, length int64) {
	if length <= 0 {
		return
	}
	unit := max(touchUnit, int64(s.dev.SectorLength))
	near := images.Extent{Offset: offset / unit * unit}
	near.Length = (offset+length+unit-1)/unit*unit - near.Offset
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.layout.Partitions() {
		e := near.Intersect(images.Extent{Offset: s.layout.DiskOffset(i), Length: s.layout.Map(i).Length})
		if e.Length <= 0 {
			continue
		}
		e.Offset -= s.layout.DiskOffset(i)
		first := e.Offset / images.TileLength
		piece, tile := s.layout.Piece(i, first)
		s.search.proof.touch(piece, tile, int(images.TileCount(e.End())-first))
	}
}

// write writes parts one behind the other.
func (s *Storage) write(parts [][]byte, offset int64) error {
	length := int64(0)
	for i := range parts {
		length += int64(len(parts[i]))
	}
	s.touch(offset, length)
	return s.dev.WriteParts(parts, offset)
}

// zero makes bytes of the disk zeros.
func (s *Storage) zero(offset, length int64) error {
	s.touch(offset, length)
	return s.dev.Zero(offset, length)
}
