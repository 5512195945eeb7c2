package layout

import (
	"fmt"
	"math/bits"
	"sort"

	"seedbed/images"
)

// Count returns the number of pieces.
func (l *Layout) Count() int { return l.count }

// DataPieces returns the number of pieces that hold data.
func (l *Layout) DataPieces() int { return len(l.data) }

// DataLength returns the decoded length of all data tiles, in bytes.
func (l *Layout) DataLength() int64 { return l.dataLength }

// PieceLength returns the length of a piece in bytes; the tail of a partition may be shorter.
func (l *Layout) PieceLength() int64 { return l.pieceLength }

// Data returns the tiles of the piece that hold data.
func (l *Layout) Data(piece int) images.TileSet {
	if i, ok := l.find(piece); ok {
		return l.data[i]
	}
	return images.TileSet{}
}

// Zero returns the tiles of the piece that are in use and all zero: what the deployment writes without fetching.
func (l *Layout) Zero(piece int) (set images.TileSet) {
	s := l.Span(piece)
	first, count := s.Offset/images.TileLength, images.TileCount(s.Length)
	runs := l.parts[s.Partition].m.Zero
	at := sort.Search(len(runs), func(i int) bool { return runs[i].First+runs[i].Count > first })
	for ; at < len(runs) && runs[at].First < first+count; at++ {
		for t := max(runs[at].First, first); t < min(runs[at].First+runs[at].Count, first+count); t++ {
			set.Add(int(t - first))
		}
	}
	return set
}

// Tiles returns how many tiles the piece has.
func (l *Layout) Tiles(piece int) int { return int(images.TileCount(l.Span(piece).Length)) }

// TileLength returns the length of one tile of the piece in bytes.
func (l *Layout) TileLength(piece, tile int) int {
	return int(min(images.TileLength, l.Span(piece).Length-int64(tile)*images.TileLength))
}

// Span returns where the piece lies.
func (l *Layout) Span(piece int) Span {
	i := l.part(piece)
	q := &l.parts[i]
	offset := int64(piece-q.first) * l.pieceLength
	return Span{Partition: i, Offset: offset, Length: min(l.pieceLength, q.length-offset)}
}

// Pieces returns the pieces [first, end) of a partition.
func (l *Layout) Pieces(partition int) (first, end int) {
	q := &l.parts[partition]
	return q.first, q.first + q.pieces
}

// Piece returns the piece that holds a tile of a partition, and the tile's index in that piece.
func (l *Layout) Piece(partition int, tile int64) (piece, inPiece int) {
	perPiece := l.pieceLength / images.TileLength
	return l.parts[partition].first + int(tile/perPiece), int(tile % perPiece)
}

// TileExtent returns the bytes of count tiles from one tile of a piece, relative to the partition.
func (l *Layout) TileExtent(piece, tile, count int) images.Extent {
	s := l.Span(piece)
	start := min(int64(tile)*images.TileLength, s.Length)
	end := min(int64(tile+count)*images.TileLength, s.Length)
	return images.Extent{Offset: s.Offset + start, Length: end - start}
}

// WriteExtents appends to dst the used byte ranges of count tiles from one tile of a piece, relative to the partition
// and ascending: all that a deployment writes of them.
func (l *Layout) WriteExtents(dst []images.Extent, piece, tile, count int) []images.Extent {
	return l.parts[l.part(piece)].m.Used(dst, l.TileExtent(piece, tile, count))
}

// Mask sets the free bytes of b to zero, where b holds the bytes of a partition from offset on.
func (l *Layout) Mask(partition int, b []byte, offset int64) { l.parts[partition].m.Mask(b, offset) }

// Map returns the map of a partition.
func (l *Layout) Map(partition int) *images.Map { return l.parts[partition].m }

// DiskOffset returns where a partition begins on the disk, in bytes: where it was captured and where it is written.
func (l *Layout) DiskOffset(partition int) int64 { return l.parts[partition].offset }

// PieceHash returns the merkle root of the piece's masked content: what a v2 torrent has in its piece layers, or as the
// root of a partition of at most one piece.
func (l *Layout) PieceHash(piece int) images.Digest {
	if i, ok := l.find(piece); ok {
		return l.hashes[i]
	}
	s := l.Span(piece)
	if s.Length == l.pieceLength && l.parts[s.Partition].pieces > 1 {
		return l.zeroPiece
	}
	return l.hashOf(piece, s, images.TileSet{}, nil)
}

// CheckHashes returns nil if hashes, one per data tile of the piece in ascending order, give the piece's hash.
func (l *Layout) CheckHashes(piece int, hashes []images.Digest) error {
	data := l.Data(piece)
	if len(hashes) != data.Len() {
		return fmt.Errorf("piece %d: %d tile hashes, it has %d data tiles", piece, len(hashes), data.Len())
	}
	if got := l.hashOf(piece, l.Span(piece), data, hashes); got != l.PieceHash(piece) {
		return fmt.Errorf("piece %d: its tile hashes give %s, not its hash %s", piece, got.Short(), l.PieceHash(piece).Short())
	}
	return nil
}

// hashOf joins the hashes of the data tiles with those of zeros for all others.
func (l *Layout) hashOf(piece int, s Span, data images.TileSet, hashes []images.Digest) images.Digest {
	n := int(images.TileCount(s.Length))
	tiles := make([]images.Digest, 0, images.MaxPieceTiles)
	for t := range n {
		if data.Has(t) {
			tiles, hashes = append(tiles, hashes[0]), hashes[1:]
			continue
		}
		tiles = append(tiles, images.ZeroTileHash(int(min(images.TileLength, s.Length-int64(t)*images.TileLength))))
	}
	return images.PieceHash(tiles, s.Length, l.pieceLength, l.parts[s.Partition].length)
}

// root returns the merkle root of a partition. Subtrees without data are constants, so that the work grows with the
// data and not with the disk.
func (l *Layout) root(q *part) images.Digest {
	if q.pieces == 1 {
		return l.PieceHash(q.first)
	}
	height := 0
	for 1<<height < q.pieces {
		height++
	}
	empty := []images.Digest{l.zeroPiece} // roots of 1<<h full pieces without data
	past := []images.Digest{images.Lift(images.Digest{}, 0, bits.TrailingZeros64(uint64(l.pieceLength/images.LeafLength)))}
	for h := range height {
		empty = append(empty, images.Root([]images.Digest{empty[h], empty[h]}, 0))
		past = append(past, images.Root([]images.Digest{past[h], past[h]}, 0))
	}
	var subtree func(first, h int) images.Digest
	subtree = func(first, h int) images.Digest {
		end := first + 1<<h
		switch {
		case first >= q.pieces:
			return past[h]
		case end < q.pieces && !l.anyData(q.first+first, q.first+end):
			return empty[h]
		case h == 0:
			return l.PieceHash(q.first + first)
		}
		return images.Root([]images.Digest{subtree(first, h-1), subtree(first+1<<(h-1), h-1)}, 0)
	}
	return subtree(0, height)
}

// anyData reports whether a piece of [first, end) holds data.
func (l *Layout) anyData(first, end int) bool { return l.before(end) > l.before(first) }

// before counts the pieces with data before a piece, which may be Count.
func (l *Layout) before(piece int) int {
	w, bit := piece>>6, piece&63
	return int(l.rank[w]) + bits.OnesCount64(l.has[w]&(1<<bit-1))
}

// Partitions returns the number of partitions.
func (l *Layout) Partitions() int { return len(l.parts) }
