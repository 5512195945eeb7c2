package repository

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"seedbed/images"
	"seedbed/images/layout"
	"seedbed/images/tile"
)

// Reader reads the tiles of one image as they are stored. Safe for concurrent use; it is good until the repository is
// closed.
type Reader struct {
	r     *Repository
	image *Image
	shape *layout.Layout
	parts []readerPart
	// before[i] is the number of data tiles in the partition before piece i.
	before []int64
	ahead  *readAhead
	lately atomic.Pointer[pieceList]

	renewed renewal
}

type readerPart struct {
	p         *images.Partition
	placement *placement
}

// OpenImage opens an image for reading: it fetches the manifest, maps, piece layers and placements and checks each. What
// it keeps in memory grows with pieces and runs of tiles, not with tiles: some 64 bytes for each piece that holds data, 16
// for each run. No index of a pack is read.
func (r *Repository) OpenImage(ctx context.Context, d images.Digest) (*Reader, error) {
	image, err := r.Manifest(ctx, d)
	if err != nil {
		return nil, err
	}
	m := image.Manifest
	reader := &Reader{r: r, image: image, parts: make([]readerPart, len(m.Partitions))}
	group, fetching := errgroup.WithContext(ctx)
	group.SetLimit(parallelFetches)
	layers := make([]struct{ mapped, pieces []byte }, len(m.Partitions))
	for i := range m.Partitions {
		p := &m.Partitions[i]
		fetchLayer := func(ref images.Ref, into *[]byte) {
			if ref.Length > 0 {
				group.Go(func() (err error) {
					*into, err = r.Layer(fetching, ref.Digest)
					return err
				})
			}
		}
		fetchLayer(p.Map, &layers[i].mapped)
		fetchLayer(p.PieceLayer, &layers[i].pieces)
		group.Go(func() (err error) {
			reader.parts[i], err = r.openPart(fetching, d, p)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, fmt.Errorf("open image %s:%s: %w", m.Name, m.Version, err)
	}
	known := map[images.Digest][]byte{}
	for i := range m.Partitions {
		known[m.Partitions[i].Map.Digest], known[m.Partitions[i].PieceLayer.Digest] = layers[i].mapped, layers[i].pieces
	}
	if reader.shape, err = layout.Load(m, func(ref images.Ref) ([]byte, error) { return known[ref.Digest], nil }); err != nil {
		return nil, err
	}
	reader.before = make([]int64, reader.shape.Count())
	for i := range m.Partitions {
		first, end := reader.shape.Pieces(i)
		n := int64(0)
		for piece := first; piece < end; piece++ {
			reader.before[piece] = n
			n += int64(reader.shape.Data(piece).Len())
		}
	}
	reader.ahead = newReadAhead(reader)
	return reader, nil
}

// parallelFetches is how many objects are fetched at once where many are needed: object storage answers each in some
// 30 ms, and any number at once.
const parallelFetches = 16

// openPart fetches the placement of one partition.
func (r *Repository) openPart(ctx context.Context, image images.Digest, p *images.Partition) (part readerPart, err error) {
	part.p = p
	if p.DataTiles == 0 {
		part.placement = &placement{}
		return part, nil
	}
	if p.TileLayer.Length != 32*p.DataTiles {
		return part, fmt.Errorf("partition %d: a tile layer of %d bytes for %d tiles", p.Number, p.TileLayer.Length, p.DataTiles)
	}
	part.placement, _, err = r.placement(ctx, image, p)
	return part, err
}

// splitDigests cuts a layer into its digests.
func splitDigests(layer []byte, count int64) ([]images.Digest, error) {
	if int64(len(layer)) != 32*count {
		return nil, fmt.Errorf("%d bytes for %d digests", len(layer), count)
	}
	list := make([]images.Digest, count)
	for i := range list {
		list[i] = images.Digest(layer[32*i:])
	}
	return list, nil
}

// Image returns the image that is read.
func (x *Reader) Image() *Image { return x.image }

// Near reports whether few tiles at a time are read as fast as many: the operating system reads ahead, see advice.
func (x *Reader) Near() bool { return x.r.advise != nil }

// Layout returns the image's layout, which is also its swarm's shape.
func (x *Reader) Layout() *layout.Layout { return x.shape }

// EncodedLength returns the encoded bytes of the image's distinct data tiles: one image of traffic.
func (x *Reader) EncodedLength() (n int64) {
	for _, p := range x.parts {
		n += p.placement.encodedLength
	}
	return n
}

// ReadPiece returns data tiles of a piece as they are stored, in ascending order.
func (x *Reader) ReadPiece(ctx context.Context, piece int, tiles images.TileSet) ([]tile.Encoded, error) {
	return x.ReadPieceInto(ctx, piece, tiles, nil)
}

// ReadPieceInto is ReadPiece into buf, as far as its capacity is enough: the tiles are good until buf is used again.
func (x *Reader) ReadPieceInto(ctx context.Context, piece int, tiles images.TileSet, buf []byte) ([]tile.Encoded, error) {
	s := x.shape.Span(piece)
	list := make([]int64, 0, tiles.Len())
	for t := range tiles.All() {
		list = append(list, s.Offset/images.TileLength+int64(t))
	}
	return x.readInto(ctx, s.Partition, list, buf)
}

// Read returns data tiles of a partition as they are stored, in the order asked for. partition is an index into the
// manifest's partitions, tiles count from the partition's start. Tiles that lie near one another are fetched together, and
// a reader who reads on finds the next pieces fetched ahead. Each tile is checked against its checksum and is the one that
// the manifest's tile layer names; its hash is for the receiver to check. A tile shares memory with those fetched beside
// it: who keeps one for long keeps a copy. Damage is an error of type *Damage.
func (x *Reader) Read(ctx context.Context, partition int, tiles []int64) ([]tile.Encoded, error) {
	return x.readInto(ctx, partition, tiles, nil)
}

func (x *Reader) readInto(ctx context.Context, partition int, tiles []int64, buf []byte) ([]tile.Encoded, error) {
	now := x.now()
	list, err := now.read(ctx, partition, tiles, now.directly(buf), true)
	if !packGone(err) {
		return list, err
	}
	// Packs go a grace after the placement names others: a Reader that was opened before looks again.
	fresh, e := x.renew(ctx, now)
	if errors.Is(e, ErrNoImage) {
		return nil, e
	}
	if e != nil {
		return nil, errors.Join(err, e)
	}
	return fresh.read(ctx, partition, tiles, fresh.directly(buf), true)
}

// fetcher returns the bytes [start, end) of a pack.
type fetcher func(ctx context.Context, id images.Digest, start, end int64) ([]byte, error)

// read reads tiles through fetch; ahead says that the next ones may be read beside, and what is under way be taken.
func (x *Reader) read(ctx context.Context, partition int, tiles []int64, fetch fetcher, ahead bool) ([]tile.Encoded, error) {
	out := make([]tile.Encoded, 0, len(tiles))
	for len(tiles) > 0 {
		piece, n, err := x.samePiece(partition, tiles)
		if err != nil {
			return nil, err
		}
		var got []tile.Encoded
		var group *slot[groupKey, *records]
		if ahead {
			group = x.ahead.want(piece)
		}
		if group != nil {
			got, err = x.readGroup(ctx, group, piece, tiles[:n], fetch)
		} else {
			got, err = x.readNow(ctx, piece, tiles[:n], fetch)
		}
		if err != nil {
			return nil, err
		}
		out, tiles = append(out, got...), tiles[n:]
	}
	return out, nil
}

// samePiece returns the piece of the first of the tiles and how many of them lie in it.
func (x *Reader) samePiece(partition int, tiles []int64) (piece, n int, err error) {
	for i, t := range tiles {
		if _, ok := x.rank(partition, t); !ok {
			return 0, 0, fmt.Errorf("read image %s: tile %d of partition %d holds no data", x.image.Manifest.Name, t, x.parts[partition].p.Number)
		}
		other, _ := x.shape.Piece(partition, t)
		if i > 0 && other != piece {
			return piece, i, nil
		}
		piece = other
	}
	return piece, len(tiles), nil
}

// rank returns how many data tiles of the partition lie before a data tile.
func (x *Reader) rank(partition int, t int64) (int64, bool) {
	if t < 0 || t >= images.TileCount(x.parts[partition].p.Length) {
		return 0, false
	}
	piece, in := x.shape.Piece(partition, t)
	data := x.shape.Data(piece)
	if !data.Has(in) {
		return 0, false
	}
	n := x.before[piece]
	for other := range data.All() {
		if other == in {
			break
		}
		n++
	}
	return n, true
}

// readNow fetches tiles of one piece.
func (x *Reader) readNow(ctx context.Context, piece int, tiles []int64, fetch fetcher) ([]tile.Encoded, error) {
	partition := x.shape.Span(piece).Partition
	ranks := make([]int64, len(tiles))
	for i, t := range tiles {
		ranks[i], _ = x.rank(partition, t)
	}
	if l := x.lately.Load(); l == nil || l.piece != piece {
		x.startHashes(piece)
	}
	found, at, err := x.records(ctx, partition, ranks, fetch)
	if err != nil {
		return nil, x.damage(ctx, partition, tiles[at.first:at.end], packKey(at.pack), err)
	}
	hashes, err := x.hashesLately(ctx, piece)
	if err != nil {
		return nil, err
	}
	return x.decode(ctx, piece, tiles, hashes, func(i int) []byte { return found.record(i) })
}

// readGroup takes tiles of one piece from a group that is fetched ahead.
func (x *Reader) readGroup(ctx context.Context, g *slot[groupKey, *records], piece int, tiles []int64, fetch fetcher) ([]tile.Encoded, error) {
	hashes, err := x.hashesLately(ctx, piece)
	if err != nil {
		return nil, err
	}
	found, err := g.wait(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return x.readNow(ctx, piece, tiles, fetch) // and say what exactly cannot be read
	}
	partition := x.shape.Span(piece).Partition
	first := x.ahead.firstRank(g.key.group)
	list, err := x.decode(ctx, piece, tiles, hashes, func(i int) []byte {
		rank, _ := x.rank(partition, tiles[i])
		return found.record(int(rank - first))
	})
	if err != nil {
		x.r.cache.drop(g.key)
	}
	return list, err
}

// decode reads records as the tiles of one piece.
func (x *Reader) decode(ctx context.Context, piece int, tiles []int64, hashes []images.Digest, record func(i int) []byte) ([]tile.Encoded, error) {
	partition := x.shape.Span(piece).Partition
	part := &x.parts[partition]
	out := make([]tile.Encoded, 0, len(tiles))
	for i, t := range tiles {
		rank, _ := x.rank(partition, t)
		key, encoded, err := decodeRecord(record(i))
		want := images.TileKey{Hash: hashes[rank-x.before[piece]], Length: int32(min(images.TileLength, part.p.Length-t*images.TileLength))}
		if err == nil && key != want {
			err = fmt.Errorf("it holds %v where %v should be", key, want)
		}
		if err != nil {
			id := part.placement.packs[part.placement.runs[part.placement.find(rank)].pack]
			return nil, x.damage(ctx, partition, tiles[i:i+1], packKey(id), err)
		}
		out = append(out, encoded)
	}
	return out, nil
}

// fetchDirect fetches what is in the bucket now.
func (x *Reader) fetchDirect(ctx context.Context, id images.Digest, start, end int64) ([]byte, error) {
	return fetchRange(ctx, x.r.bucket, packKey(id), start, end-start)
}

// directly is fetchDirect into buf, as far as there is room in it.
func (x *Reader) directly(buf []byte) fetcher {
	if cap(buf) == 0 {
		return x.fetchDirect
	}
	var mu sync.Mutex // guards free
	free := buf[:cap(buf)]
	take := func(n int64) []byte {
		mu.Lock()
		defer mu.Unlock()
		if n > int64(len(free)) {
			return make([]byte, n)
		}
		p := free[:n:n]
		free = free[n:]
		return p
	}
	return func(ctx context.Context, id images.Digest, start, end int64) ([]byte, error) {
		return fetchInto(ctx, x.r.bucket, packKey(id), start, take(end-start))
	}
}
