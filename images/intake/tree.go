package intake

import (
	"math/bits"

	"seedbed/images"
)

// tree returns the piece layer of a partition, which lists the pieces that hold data (none where the partition is not
// longer than a piece), and its root. hashes are those of the data tiles in order, 32 bytes each, as many as m counts. Its
// time follows from the pieces, at most images.MaxPieces, and the hashes.
func tree(m *images.Map, hashes []byte, pieceLength int64) (layer []byte, root images.Digest) {
	pieces := (m.Length + pieceLength - 1) / pieceLength
	perPiece, count := pieceLength/images.TileLength, images.TileCount(m.Length)
	tiles := make([]images.Digest, 0, perPiece)
	states := cursor{m: m}
	var zero images.Digest // hash of a full piece without data, once known
	piece := func(i int64) images.Digest {
		length := min(pieceLength, m.Length-i*pieceLength)
		full := length == pieceLength && pieces > 1
		data := false
		tiles = tiles[:0]
		for t := i * perPiece; t < min((i+1)*perPiece, count); t++ {
			if states.isData(t) {
				tiles, hashes, data = append(tiles, images.Digest(hashes[:32])), hashes[32:], true
				continue
			}
			tiles = append(tiles, images.ZeroTileHash(int(min(images.TileLength, m.Length-t*images.TileLength))))
		}
		if !data && full && !zero.IsZero() {
			return zero
		}
		d := images.PieceHash(tiles, length, pieceLength, m.Length)
		if data && pieces > 1 {
			layer = append(layer, d[:]...)
		}
		if !data && full {
			zero = d
		}
		return d
	}
	root = rootOf(pieces, pieceLength, piece)
	return layer, root
}

// cursor tells the states of the tiles of a map in ascending order, each in constant time on average.
type cursor struct {
	m            *images.Map
	extent, zero int
}

// isData reports what m.State calls data.
func (c *cursor) isData(tile int64) bool {
	for c.extent < len(c.m.Extents) && c.m.Extents[c.extent].End() <= tile*images.TileLength {
		c.extent++
	}
	if c.extent == len(c.m.Extents) || c.m.Extents[c.extent].Offset >= (tile+1)*images.TileLength {
		return false
	}
	for c.zero < len(c.m.Zero) && c.m.Zero[c.zero].First+c.m.Zero[c.zero].Count <= tile {
		c.zero++
	}
	return c.zero == len(c.m.Zero) || c.m.Zero[c.zero].First > tile
}

// rootOf returns the root over the pieces, which it asks for one at a time in order, 4,096 in memory at once.
func rootOf(pieces, pieceLength int64, piece func(int64) images.Digest) images.Digest {
	const groupHeight = 12
	height := bits.TrailingZeros64(uint64(pieceLength / images.LeafLength))
	var groups []images.Digest
	group := make([]images.Digest, 0, 1<<groupHeight)
	for i := int64(0); i < pieces; {
		group = group[:0]
		for ; i < pieces && len(group) < cap(group); i++ {
			group = append(group, piece(i))
		}
		own := bits.Len(uint(len(group) - 1)) // height of the group's own tree
		root := images.Root(group, height)
		if pieces > int64(cap(group)) {
			root = images.Lift(root, height+own, height+groupHeight)
		}
		groups = append(groups, root)
	}
	return images.Root(groups, height+groupHeight)
}
