package repository

import (
	"context"
	"fmt"

	"seedbed/images"
)

// The tile layer is read in ranges, as pieces are: all of it would be 500 MB for 1 TB of data. What a piece takes from it
// is checked against the piece's hash.

// layerRange is the unit in which tile layers are fetched, in bytes: 2,048 tiles, 128 MiB of data.
const layerRange = 64 << 10

// layerCache bounds the ranges in memory, in bytes.
const layerCache = 32 << 20

type layerRangeKey struct {
	layer images.Digest
	index int64
}

// pieceHashes returns the hash of each data tile of a piece in ascending order, checked.
func (x *Reader) pieceHashes(ctx context.Context, piece int) ([]images.Digest, error) {
	p, start, end := x.hashRange(piece)
	if start == end {
		return nil, nil
	}
	hashes := make([]images.Digest, 0, (end-start)/32)
	var raw []byte
	for i := start / layerRange; i*layerRange < end; i++ {
		b, err := x.layerRange(ctx, p, i)
		if err != nil {
			return nil, x.layerDamage(ctx, piece, err)
		}
		raw = append(raw, b[max(start-i*layerRange, 0):min(end-i*layerRange, int64(len(b)))]...)
	}
	for ; len(raw) >= 32; raw = raw[32:] {
		hashes = append(hashes, images.Digest(raw[:32]))
	}
	if err := x.shape.CheckHashes(piece, hashes); err != nil {
		for i := start / layerRange; i*layerRange < end; i++ {
			x.r.layers.drop(layerRangeKey{p.TileLayer.Digest, i})
		}
		return nil, x.layerDamage(ctx, piece, err)
	}
	return hashes, nil
}

// pieceList are the hashes of a piece's data tiles, checked. Several readers have them at the same time: they are not changed.
type pieceList struct {
	piece  int
	hashes []images.Digest
}

// hashesLately is pieceHashes for who reads a piece little by little: those of the last piece are at hand.
func (x *Reader) hashesLately(ctx context.Context, piece int) ([]images.Digest, error) {
	if l := x.lately.Load(); l != nil && l.piece == piece {
		return l.hashes, nil
	}
	hashes, err := x.pieceHashes(ctx, piece)
	if err == nil {
		x.lately.Store(&pieceList{piece, hashes})
	}
	return hashes, err
}

// hashRange returns where the hashes of a piece lie in the tile layer of its partition.
func (x *Reader) hashRange(piece int) (p *images.Partition, start, end int64) {
	p = x.parts[x.shape.Span(piece).Partition].p
	start = 32 * x.before[piece]
	return p, start, start + 32*int64(x.shape.Data(piece).Len())
}

// startHashes begins to fetch the hashes of a piece.
func (x *Reader) startHashes(piece int) {
	p, start, end := x.hashRange(piece)
	for i := start / layerRange; i*layerRange < end; i++ {
		_, _ = x.startLayerRange(p, i) // pieceHashes tells
	}
}

// layerRange returns one range of a partition's tile layer. Where the one before was wanted lately the next is fetched
// ahead.
func (x *Reader) layerRange(ctx context.Context, p *images.Partition, i int64) ([]byte, error) {
	s, err := x.startLayerRange(p, i)
	if err != nil {
		return nil, err
	}
	if i == 0 || x.r.layers.peek(layerRangeKey{p.TileLayer.Digest, i - 1}) != nil {
		if _, err := x.startLayerRange(p, i+1); err != nil {
			return nil, err
		}
	}
	return s.wait(ctx)
}

// startLayerRange begins to fetch a range; nil behind the layer's end.
func (x *Reader) startLayerRange(p *images.Partition, i int64) (*slot[layerRangeKey, []byte], error) {
	offset := i * layerRange
	length := min(layerRange, 32*p.DataTiles-offset)
	if length <= 0 {
		return nil, nil
	}
	return x.r.layers.start(layerRangeKey{p.TileLayer.Digest, i}, length, func(ctx context.Context) ([]byte, int64, error) {
		b, err := fetchRange(ctx, x.r.bucket, layerKey(p.TileLayer.Digest), offset, length)
		return b, int64(len(b)), err
	})
}

// layerDamage says that the hashes of a piece cannot be read.
func (x *Reader) layerDamage(ctx context.Context, piece int, err error) error {
	s := x.shape.Span(piece)
	first := s.Offset / images.TileLength
	p := x.parts[s.Partition].p
	return x.damage(ctx, s.Partition, []int64{first, first + images.TileCount(s.Length) - 1}, layerKey(p.TileLayer.Digest),
		fmt.Errorf("tile layer of partition %d: %w", p.Number, err))
}

// TileHashes returns the hash of each data tile of a piece in ascending order, or nil if they cannot be read now; the log
// then says why. It may wait for the bucket.
func (x *Reader) TileHashes(piece int) []images.Digest {
	hashes, err := x.hashesLately(x.r.ctx, piece)
	if err != nil && x.r.ctx.Err() == nil {
		x.r.log.Warn("tile hashes cannot be read; verify the image", "piece", piece, "err", err)
	}
	return hashes
}
