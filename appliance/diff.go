package main

import (
	"context"
	"fmt"

	"seedbed/appliance/api"
	"seedbed/images"
	"seedbed/images/layout"
	"seedbed/images/repository"
)

// Diff implements api.Upkeep.
func (l *library) Diff(ctx context.Context, from, to string) (*api.ImageDiff, error) {
	a, err := l.open(ctx, from)
	if err != nil {
		return nil, err
	}
	b, err := l.open(ctx, to)
	if err != nil {
		return nil, err
	}
	out := &api.ImageDiff{From: nameOf(a), To: nameOf(b), Partitions: []api.PartitionDiff{}}
	for p := range b.Image().Manifest.Partitions {
		d, err := diffPartition(ctx, a, b, p)
		if err != nil {
			return nil, asRefusal(err)
		}
		out.Partitions = append(out.Partitions, d)
	}
	return out, nil
}

func nameOf(r *repository.Reader) string {
	return r.Image().Manifest.Name + ":" + r.Image().Manifest.Version
}

// open opens an image, whose signature is checked.
func (l *library) open(ctx context.Context, ref string) (*repository.Reader, error) {
	image, err := l.image(ctx, ref)
	if err != nil {
		return nil, err
	}
	r, err := l.repo.OpenImage(ctx, image.Digest)
	return r, asRefusal(err)
}

// held is what a disk with an image has at the places of another image's partition.
type held struct {
	r         *repository.Reader
	shape     *layout.Layout
	partition int // index of the partition at the same place; -1: none
}

// at returns the state of a tile and its hash, if it holds data. Free tiles may hold anything.
func (h held) at(tile int64, length int) (images.TileState, images.Digest) {
	if h.partition < 0 || tile >= images.TileCount(h.shape.Map(h.partition).Length) {
		return images.TileFree, images.Digest{}
	}
	piece, in := h.shape.Piece(h.partition, tile)
	state := h.shape.Map(h.partition).State(tile)
	if state != images.TileData || h.shape.TileLength(piece, in) != length {
		return state, images.Digest{}
	}
	rank, hashes := 0, h.r.TileHashes(piece)
	for t := range h.shape.Data(piece).All() {
		if t == in {
			break
		}
		rank++
	}
	if rank >= len(hashes) {
		return images.TileFree, images.Digest{}
	}
	return state, hashes[rank]
}

// diffPartition compares partition p of b with what lies at its place on a disk with a.
func diffPartition(ctx context.Context, a, b *repository.Reader, p int) (api.PartitionDiff, error) {
	part := &b.Image().Manifest.Partitions[p]
	d := api.PartitionDiff{Number: part.Number, Total: part.DataTiles}
	old := held{r: a, shape: a.Layout(), partition: -1}
	for i := range a.Image().Manifest.Partitions {
		if a.Image().Manifest.Partitions[i].Offset == part.Offset {
			old.partition = i
		}
	}
	shape := b.Layout()
	first, end := shape.Pieces(p)
	for piece := first; piece < end; piece++ {
		var missing images.TileSet
		rank, hashes := 0, b.TileHashes(piece)
		data, start := shape.Data(piece), shape.Span(piece).Offset/images.TileLength
		if len(hashes) != data.Len() {
			return d, fmt.Errorf("image %s: the hashes of partition %d cannot be read", nameOf(b), part.Number)
		}
		for t := range data.All() {
			n := shape.TileLength(piece, t)
			if state, hash := old.at(start+int64(t), n); state != images.TileData || hash != hashes[rank] {
				missing.Add(t)
				d.Tiles++
				d.Length += int64(n)
			}
			rank++
		}
		for t := range shape.Zero(piece).All() {
			if state, _ := old.at(start+int64(t), 0); state != images.TileZero {
				d.ZeroTiles++
			}
		}
		n, err := encodedLength(ctx, b, piece, missing)
		if err != nil {
			return d, err
		}
		d.Encoded += n
	}
	return d, nil
}

// encodedLength reads tiles and counts their encoded bytes.
func encodedLength(ctx context.Context, r *repository.Reader, piece int, tiles images.TileSet) (n int64, err error) {
	if tiles.IsEmpty() {
		return 0, ctx.Err()
	}
	list, err := r.ReadPiece(ctx, piece, tiles)
	for _, e := range list {
		n += int64(len(e.Bytes))
	}
	return n, err
}
