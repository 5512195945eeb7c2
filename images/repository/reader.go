package repository

import (
	"context"
	"fmt"
	"slices"

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
}

type readerPart struct {
	p         *images.Partition
	hashes    []images.Digest // of each data tile
	placement *placement
}

// OpenImage opens an image for reading: it fetches the manifest, the layers and the placements and checks each. What it
// keeps in memory are 32 bytes for each data tile, and the maps.
func (r *Repository) OpenImage(ctx context.Context, d images.Digest) (*Reader, error) {
	image, err := r.Manifest(ctx, d)
	if err != nil {
		return nil, err
	}
	m := image.Manifest
	shape, err := layout.Load(m, func(ref images.Ref) ([]byte, error) { return r.Layer(ctx, ref.Digest) })
	if err != nil {
		return nil, err
	}
	reader := &Reader{r: r, image: image, shape: shape, parts: make([]readerPart, len(m.Partitions))}
	for i := range m.Partitions {
		if reader.parts[i], err = r.openPart(ctx, d, &m.Partitions[i]); err != nil {
			return nil, fmt.Errorf("open image %s:%s: %w", m.Name, m.Version, err)
		}
	}
	reader.before = make([]int64, shape.Count())
	for i := range m.Partitions {
		first, end := shape.Pieces(i)
		n := int64(0)
		for piece := first; piece < end; piece++ {
			reader.before[piece] = n
			n += int64(shape.Data(piece).Len())
		}
	}
	return reader, nil
}

// openPart fetches the tile layer and the placement of one partition.
func (r *Repository) openPart(ctx context.Context, image images.Digest, p *images.Partition) (part readerPart, err error) {
	part.p = p
	if p.DataTiles == 0 {
		part.placement = &placement{}
		return part, nil
	}
	layer, err := r.Layer(ctx, p.TileLayer.Digest)
	if err != nil {
		return part, fmt.Errorf("tile layer of partition %d: %w", p.Number, err)
	}
	if part.hashes, err = splitDigests(layer, p.DataTiles); err != nil {
		return part, fmt.Errorf("tile layer of partition %d: %w", p.Number, err)
	}
	b, err := fetch(ctx, r.bucket, placementKey(image, p), maxLayerLength)
	if err != nil {
		return part, err
	}
	if part.placement, err = decodePlacement(b, p.DataTiles); err != nil {
		return part, fmt.Errorf("object %s is damaged: %w", placementKey(image, p), err)
	}
	for _, id := range part.placement.packs {
		part.placement.handles = append(part.placement.handles, r.packs.add(id))
	}
	return part, nil
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

// Layout returns the image's layout, which is also its swarm's shape.
func (x *Reader) Layout() *layout.Layout { return x.shape }

// EncodedLength returns the encoded bytes of the image's distinct data tiles: one image of traffic.
func (x *Reader) EncodedLength() (n int64) {
	for _, p := range x.parts {
		n += p.placement.encodedLength
	}
	return n
}

// TileHashes returns the hash of each data tile of a piece in ascending order. The caller does not change it.
func (x *Reader) TileHashes(piece int) []images.Digest {
	n := int64(x.shape.Data(piece).Len())
	if n == 0 {
		return nil
	}
	first := x.before[piece]
	return x.parts[x.shape.Span(piece).Partition].hashes[first : first+n : first+n]
}

// ReadPiece returns data tiles of a piece as they are stored, in ascending order.
func (x *Reader) ReadPiece(ctx context.Context, piece int, tiles images.TileSet) ([]tile.Encoded, error) {
	s := x.shape.Span(piece)
	list := make([]int64, 0, tiles.Len())
	for t := range tiles.All() {
		list = append(list, s.Offset/images.TileLength+int64(t))
	}
	return x.Read(ctx, s.Partition, list)
}

// Read returns data tiles of a partition as they are stored, in the order asked for. partition is an index into the
// manifest's partitions, tiles count from the partition's start. Tiles that follow one another are fetched together,
// and what follows them is fetched ahead. Each is checked against its checksum and is the one that the manifest's tile
// layer names; its hash is for the receiver to check. Damage is an error of type *Damage.
func (x *Reader) Read(ctx context.Context, partition int, tiles []int64) ([]tile.Encoded, error) {
	return x.read(ctx, partition, tiles, x.fetchCached)
}

// fetcher returns the bytes of the records [first, last] of a pack; ahead is the last record that is likely to be read
// next.
type fetcher func(ctx context.Context, id images.Digest, ends []uint32, first, last, ahead uint32) ([]byte, error)

func (x *Reader) read(ctx context.Context, partition int, tiles []int64, fetch fetcher) ([]tile.Encoded, error) {
	part := &x.parts[partition]
	ranks := make([]int64, len(tiles))
	for i, t := range tiles {
		rank, ok := x.rank(partition, t)
		if !ok {
			return nil, fmt.Errorf("read image %s: tile %d of partition %d holds no data", x.image.Manifest.Name, t, part.p.Number)
		}
		ranks[i] = rank
	}
	out := make([]tile.Encoded, 0, len(tiles))
	for i := 0; i < len(tiles); {
		run := part.placement.find(ranks[i])
		n := 1
		for i+n < len(tiles) && ranks[i+n] == ranks[i]+int64(n) && ranks[i+n] < part.placement.end(run) {
			n++
		}
		got, err := x.readRun(ctx, partition, run, tiles[i:i+n], ranks[i], fetch)
		if err != nil {
			return nil, err
		}
		out = append(out, got...)
		i += n
	}
	return out, nil
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

// readRun reads tiles that lie one after the other in one pack. rank is that of the first.
func (x *Reader) readRun(ctx context.Context, partition, run int, tiles []int64, rank int64, fetch fetcher) ([]tile.Encoded, error) {
	part := &x.parts[partition]
	place := part.placement.runs[run]
	first := place.ordinal + uint32(rank-place.start)
	last := first + uint32(len(tiles)-1)
	ahead := place.ordinal + uint32(part.placement.end(run)-1-place.start)
	id := part.placement.packs[place.pack]
	damage := func(n int, err error) error {
		return x.damage(ctx, partition, tiles[n:], packKey(id), err)
	}
	p, err := x.r.packs.pack(part.placement.handles[place.pack])
	if err != nil {
		return nil, err
	}
	ends, err := p.load(ctx, x.r.bucket, id)
	if err != nil {
		return nil, damage(0, err)
	}
	if int(last) >= len(ends) {
		return nil, damage(0, fmt.Errorf("it has %d tiles, the placement names number %d", len(ends), last))
	}
	raw, err := fetch(ctx, id, ends, first, last, min(ahead, uint32(len(ends)-1)))
	if err != nil {
		return nil, damage(0, err)
	}
	out := make([]tile.Encoded, 0, len(tiles))
	for i, t := range tiles {
		n := recordEnd(ends, first+uint32(i)) - recordStart(ends, first+uint32(i))
		key, encoded, err := decodeRecord(raw[:n])
		want := images.TileKey{Hash: part.hashes[rank+int64(i)], Length: int32(min(images.TileLength, part.p.Length-t*images.TileLength))}
		if err == nil && key != want {
			err = fmt.Errorf("it holds %v where %v should be", key, want)
		}
		if err != nil {
			x.r.cache.drop(id)
			return nil, damage(i, err)
		}
		out, raw = append(out, encoded), raw[n:]
	}
	return out, nil
}

// aloneBelow is the length of a run, in bytes, below which its tiles are fetched alone: a whole window for a single
// tile that an earlier version left in another pack would be mostly waste.
const aloneBelow = windowLength / 4

// fetchCached fetches through the read-ahead cache.
func (x *Reader) fetchCached(ctx context.Context, id images.Digest, ends []uint32, first, last, ahead uint32) ([]byte, error) {
	start, end, limit := recordStart(ends, first), recordEnd(ends, last), recordEnd(ends, ahead)
	if limit-start < aloneBelow {
		return fetchRange(ctx, x.r.bucket, packKey(id), start, end-start)
	}
	return x.r.cache.read(ctx, id, start, end, limit, int64(ends[len(ends)-1]))
}

// fetchDirect fetches what is in the bucket now.
func (x *Reader) fetchDirect(ctx context.Context, id images.Digest, ends []uint32, first, last, _ uint32) ([]byte, error) {
	start := recordStart(ends, first)
	return fetchRange(ctx, x.r.bucket, packKey(id), start, recordEnd(ends, last)-start)
}

// recordStart and recordEnd return where record i lies in its pack.
func recordStart(ends []uint32, i uint32) int64 {
	if i == 0 {
		return int64(len(packMagic))
	}
	return int64(ends[i-1])
}

func recordEnd(ends []uint32, i uint32) int64 { return int64(ends[i]) }

// load returns the position after each record of the pack, from the index, which it fetches once.
func (p *pack) load(ctx context.Context, b Bucket, id images.Digest) ([]uint32, error) {
	p.mu.Lock() // others wait for the fetch instead of repeating it
	defer p.mu.Unlock()
	if p.ends != nil {
		return p.ends, nil
	}
	entries, err := readIndex(ctx, b, id)
	if err != nil {
		return nil, err
	}
	ends := make([]uint32, 0, len(entries))
	for _, e := range entries {
		ends = append(ends, uint32(e.end()))
	}
	p.ends = slices.Clip(ends)
	return p.ends, nil
}
