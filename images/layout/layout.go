// Package layout says where the pieces and tiles of an image lie on a disk, and what their hashes must be. It is pure
// arithmetic over the manifest, the maps and the piece layers: no socket, clock or disk.
package layout

import (
	"errors"
	"fmt"
	"math"
	"math/bits"

	"seedbed/images"
)

// Layout is the geometry of one image. Piece indexes count from 0 over all partitions in the manifest's order, each
// partition beginning with a piece of its own, as in a v2 torrent (BEP 52). It implements swarm.Pieces. What it keeps
// grows with the pieces that hold data, not with the disk. Immutable after New; safe for concurrent use.
type Layout struct {
	pieceLength int64
	parts       []part
	count       int
	dataLength  int64

	// has holds a bit per piece, bit i%64 of word i/64, set where the piece holds data; rank[w] counts the set bits
	// before word w. Together they find a piece in data and hashes.
	has    []uint64
	rank   []int32
	data   []images.TileSet // of each piece with data, ascending
	hashes []images.Digest  // of each piece with data, ascending

	zeroPiece images.Digest // of a full piece without data, in a partition longer than a piece
}

// part is one partition.
type part struct {
	first  int // its first piece
	pieces int
	offset int64 // on the captured disk, bytes
	length int64
	m      *images.Map
}

// Span is where a piece lies.
type Span struct {
	Partition int   // index into Manifest.Partitions
	Offset    int64 // bytes from the start of the partition
	Length    int64 // bytes: the piece length but for the tail of a partition
}

// New returns the layout of an image. maps and pieceLayers have one item per partition; the piece layer of a partition
// of at most one piece is empty. The caller has checked their digests (Load does). New checks that they agree with the
// manifest: lengths, counts of bytes and tiles, and that the pieces give each partition's root. It keeps the maps and
// copies the layers.
func New(m *images.Manifest, maps []*images.Map, pieceLayers [][]byte) (*Layout, error) {
	if err := m.Check(); err != nil {
		return nil, err
	}
	if len(maps) != len(m.Partitions) || len(pieceLayers) != len(m.Partitions) {
		return nil, fmt.Errorf("layout of %s: %d maps and %d piece layers for %d partitions", m.Name, len(maps),
			len(pieceLayers), len(m.Partitions))
	}
	l := &Layout{pieceLength: m.PieceLength}
	for i := range m.Partitions {
		p := &m.Partitions[i]
		n := (p.Length + m.PieceLength - 1) / m.PieceLength
		if n > int64(images.MaxPieces-l.count) {
			return nil, fmt.Errorf("layout of %s: more than %d pieces of %d bytes", m.Name, images.MaxPieces, m.PieceLength)
		}
		l.parts = append(l.parts, part{first: l.count, pieces: int(n), offset: p.Offset, length: p.Length, m: maps[i]})
		l.count += int(n)
	}
	l.has = make([]uint64, l.count/64+1)
	l.rank = make([]int32, len(l.has))
	zeros := make([]images.Digest, m.PieceLength/images.TileLength)
	for i := range zeros {
		zeros[i] = images.ZeroTileHash(images.TileLength)
	}
	l.zeroPiece = images.PieceHash(zeros, m.PieceLength, m.PieceLength, math.MaxInt64)
	for i := range m.Partitions {
		if err := l.addPartition(i, &m.Partitions[i], pieceLayers[i]); err != nil {
			return nil, fmt.Errorf("layout of %s: partition %d: %w", m.Name, m.Partitions[i].Number, err)
		}
	}
	for w := 1; w < len(l.rank); w++ {
		l.rank[w] = l.rank[w-1] + int32(bits.OnesCount64(l.has[w-1]))
	}
	for i := range m.Partitions {
		if got := l.root(&l.parts[i]); got != m.Partitions[i].Root {
			return nil, fmt.Errorf("layout of %s: partition %d: its pieces give the root %s, the manifest says %s", m.Name,
				m.Partitions[i].Number, got.Short(), m.Partitions[i].Root.Short())
		}
	}
	return l, nil
}

// addPartition enters the pieces of partition i that hold data.
func (l *Layout) addPartition(i int, p *images.Partition, layer []byte) error {
	q := &l.parts[i]
	if q.m == nil || q.m.Length != p.Length {
		return errors.New("the map is of another length")
	}
	if used := images.TotalLength(q.m.Extents); used != p.UsedLength {
		return fmt.Errorf("the map has %d bytes in use, the manifest %d", used, p.UsedLength)
	}
	before := len(l.data)
	dataTiles, zeroTiles, err := l.addTiles(q)
	if err != nil {
		return err
	}
	if dataTiles != p.DataTiles || zeroTiles != p.ZeroTiles {
		return fmt.Errorf("the map has %d data and %d zero tiles, the manifest %d and %d", dataTiles, zeroTiles,
			p.DataTiles, p.ZeroTiles)
	}
	if p.Length <= l.pieceLength {
		if len(layer) != 0 {
			return errors.New("it has a piece layer, and is not longer than a piece")
		}
		if len(l.data) > before {
			l.hashes = append(l.hashes, p.Root)
		}
		return nil
	}
	const size = len(images.Digest{})
	if len(layer) != (len(l.data)-before)*size {
		return fmt.Errorf("a piece layer of %d bytes for %d pieces with data", len(layer), len(l.data)-before)
	}
	for ; len(layer) > 0; layer = layer[size:] {
		l.hashes = append(l.hashes, images.Digest(layer[:size]))
	}
	return nil
}

// addTiles walks the used tiles of a partition, enters the data tiles and counts both kinds.
func (l *Layout) addTiles(q *part) (dataTiles, zeroTiles int64, err error) {
	zero := q.m.Zero
	next := int64(0) // the first tile not looked at
	for _, e := range q.m.Extents {
		first, end := max(next, e.Offset/images.TileLength), images.TileCount(e.End())
		for t := first; t < end; {
			for len(zero) > 0 && zero[0].First+zero[0].Count <= t {
				zero = zero[1:]
			}
			if len(zero) == 0 || zero[0].First >= end {
				l.addRun(q, t, end)
				dataTiles += end - t
				break
			}
			if z := zero[0].First; z > t {
				l.addRun(q, t, z)
				dataTiles += z - t
				t = z
			}
			stop := min(end, zero[0].First+zero[0].Count)
			zeroTiles += stop - t
			t = stop
		}
		next = max(next, end)
	}
	listed := int64(0)
	for _, z := range q.m.Zero {
		listed += z.Count
	}
	if listed != zeroTiles {
		return 0, 0, fmt.Errorf("the map lists %d zero tiles, %d of them in use", listed, zeroTiles)
	}
	return dataTiles, zeroTiles, nil
}

// addRun enters the data tiles [first, end) of a partition; runs come in ascending order.
func (l *Layout) addRun(q *part, first, end int64) {
	perPiece := l.pieceLength / images.TileLength
	for t := first; t < end; t++ {
		i := q.first + int(t/perPiece)
		if l.has[i>>6]>>(i&63)&1 == 0 {
			l.has[i>>6] |= 1 << (i & 63)
			l.data = append(l.data, images.TileSet{})
		}
		l.data[len(l.data)-1].Add(int(t % perPiece))
		l.dataLength += min(images.TileLength, q.length-t*images.TileLength)
	}
}

// find returns the place of a piece in data and hashes, or false if it holds no data.
func (l *Layout) find(piece int) (int, bool) {
	w, bit := piece>>6, piece&63
	if l.has[w]>>bit&1 == 0 {
		return 0, false
	}
	return int(l.rank[w]) + bits.OnesCount64(l.has[w]&(1<<bit-1)), true
}

// part returns the index of the partition that holds the piece.
func (l *Layout) part(piece int) int {
	if piece < 0 || piece >= l.count {
		panic(fmt.Sprintf("layout: piece %d of %d", piece, l.count)) // a caller's mistake, never remote input
	}
	i := 0
	for piece >= l.parts[i].first+l.parts[i].pieces {
		i++
	}
	return i
}
