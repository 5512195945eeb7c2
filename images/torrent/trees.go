package torrent

import (
	"math/bits"

	"seedbed/images"
	"seedbed/images/layout"
)

// Trees are the merkle trees of all partitions from the piece layer upwards, for clients that have the info dictionary alone
// and ask peers for the rest (BEP 52, "hash request"). Immutable; safe for concurrent use.
type Trees struct {
	base   uint32 // layer of the pieces; 0 is that of the leaves
	levels map[images.Digest][][]images.Digest
}

// NewTrees builds the trees: 64 bytes for each piece.
func NewTrees(shape *layout.Layout) *Trees {
	t := &Trees{base: uint32(bits.TrailingZeros64(uint64(shape.PieceLength() / images.LeafLength))), levels: map[images.Digest][][]images.Digest{}}
	for i := range shape.Partitions() {
		first, end := shape.Pieces(i)
		if end-first < 2 {
			continue // its root is all there is
		}
		level := make([]images.Digest, 0, end-first)
		for piece := first; piece < end; piece++ {
			level = append(level, shape.PieceHash(piece))
		}
		pad := images.Lift(images.Digest{}, 0, int(t.base))
		for len(level)&(len(level)-1) != 0 {
			level = append(level, pad)
		}
		levels := [][]images.Digest{level}
		for len(level) > 1 {
			up := make([]images.Digest, len(level)/2)
			for k := range up {
				up[k] = images.Root([]images.Digest{level[2*k], level[2*k+1]}, 0)
			}
			levels, level = append(levels, up), up
		}
		t.levels[level[0]] = levels
	}
	return t
}

// Hashes returns count hashes of the layer base from index on, and the uncles that lead from them through so many proof layers
// to the root of a partition. ok is false for what is not kept: the layers below the pieces.
func (t *Trees) Hashes(root images.Digest, base, index, count, proof uint32) (list []images.Digest, ok bool) {
	levels := t.levels[root]
	if levels == nil || base != t.base || count == 0 || count&(count-1) != 0 || index%count != 0 ||
		uint64(index)+uint64(count) > uint64(len(levels[0])) || int(proof) > len(levels) {
		return nil, false
	}
	list = append(list, levels[0][index:index+count]...)
	for i := bits.TrailingZeros32(count); i < int(proof) && i < len(levels)-1; i++ {
		list = append(list, levels[i][(index>>i)^1])
	}
	return list, true
}
