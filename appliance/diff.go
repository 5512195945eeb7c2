package main

import (
	"context"

	"seedbed/appliance/api"
	"seedbed/appliance/fleet"
	"seedbed/images"
	"seedbed/images/parttable"
)

// nameOf returns "NAME:VERSION".
func nameOf(m *images.Manifest) string { return m.Name + ":" + m.Version }

// Diff implements api.Upkeep. The content of the images is not read.
func (l *library) Diff(ctx context.Context, from, to string) (*api.ImageDiff, error) {
	a, err := l.image(ctx, from)
	if err != nil {
		return nil, err
	}
	b, err := l.image(ctx, to)
	if err != nil {
		return nil, err
	}
	d, err := l.repo.Diff(ctx, a.Digest, b.Digest)
	if err != nil {
		return nil, asRefusal(err)
	}
	out := &api.ImageDiff{From: nameOf(a.Manifest), To: nameOf(b.Manifest), Partitions: []api.PartitionDiff{}}
	for i, p := range d.Partitions {
		out.Partitions = append(out.Partitions, api.PartitionDiff{
			Number: p.Number, Tiles: p.Tiles, Total: b.Manifest.Partitions[i].DataTiles, Length: p.Bytes, Encoded: p.Encoded, ZeroTiles: p.Zero,
		})
	}
	return out, nil
}

// weigh implements fleet.Config.Weigh.
func (l *library) weigh(ctx context.Context, from, to images.Digest) ([]fleet.Weight, error) {
	d, err := l.repo.Diff(ctx, from, to)
	if err != nil {
		return nil, asRefusal(err)
	}
	list := make([]fleet.Weight, len(d.Partitions))
	for i, p := range d.Partitions {
		list[i] = fleet.Weight{Encoded: p.Encoded, Decoded: p.Bytes}
	}
	return list, nil
}

// needed implements fleet.Config.Needed.
func (l *library) needed(ctx context.Context, image *fleet.Image) (int64, error) {
	frame, err := parttable.LoadFrame(image.Manifest, func(r images.Ref) ([]byte, error) { return l.repo.Layer(ctx, r.Digest) })
	if err != nil {
		return 0, err
	}
	return parttable.Needed(image.Manifest, frame)
}
