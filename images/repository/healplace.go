package repository

import (
	"context"
	"fmt"
	"slices"

	"seedbed/images"
)

// lead returns a placement that leads to other records, where moved says so.
func (p *placement) lead(moved map[packRecord]packRecord) (place *placement, changed bool) {
	if p == nil {
		return nil, false
	}
	place = &placement{encodedLength: p.encodedLength}
	numbers := map[images.Digest]uint32{}
	for k, run := range p.runs {
		id := p.packs[run.pack]
		for rank := run.start; rank < p.end(k); rank++ {
			at := packRecord{id, run.ordinal + uint32(rank-run.start)}
			if to, ok := moved[at]; ok {
				at, changed = to, true
			}
			n, ok := numbers[at.pack]
			if !ok {
				n = uint32(len(place.packs))
				numbers[at.pack] = n
				place.packs = append(place.packs, at.pack)
			}
			place.add(n, at.ordinal)
		}
	}
	return place, changed
}

// places makes placements anew, from the tile layers and the index.
func (h *healing) places(ctx context.Context, damage []*Damage) error {
	failed := func(err error) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		for _, d := range damage {
			h.fail(d, err)
		}
		return nil
	}
	image, err := h.r.Manifest(ctx, h.digest)
	if err != nil {
		return failed(err)
	}
	draft, layers, err := h.draft(ctx, image.Manifest)
	if err != nil {
		return failed(err)
	}
	if err := h.r.sealAll(ctx); err != nil {
		return err
	}
	list, err := h.r.place(ctx, draft, layers, &hold{begun: now(), life: h.r.cfg.SessionLife})
	if err != nil {
		return failed(err)
	}
	for i, place := range list {
		p := &image.Manifest.Partitions[i]
		damaged := slices.ContainsFunc(damage, func(d *Damage) bool { return d.Partition == p.Number })
		if place.tiles == 0 || !damaged {
			continue
		}
		if err := h.claim.check(ctx); err != nil {
			return err
		}
		n, err := h.r.putPlacement(ctx, h.digest, p, 0, place)
		if err != nil {
			return err
		}
		h.report.Objects = append(h.report.Objects, generationKey(placementKey(h.digest, p), n))
	}
	return nil
}

// draft finds all tiles of an image in the repository, and has the source give those that are not there.
func (h *healing) draft(ctx context.Context, m *images.Manifest) (*Draft, map[images.Digest][]byte, error) {
	draft, layers := &Draft{Manifest: m}, map[images.Digest][]byte{}
	for i := range m.Partitions {
		p := &m.Partitions[i]
		var tiles []Location
		if p.DataTiles > 0 {
			for _, ref := range []images.Ref{p.Map, p.TileLayer} {
				b, err := h.r.Layer(ctx, ref.Digest)
				if err != nil {
					return nil, nil, err
				}
				layers[ref.Digest] = b
			}
			next, stop, err := h.r.pullTiles(ctx, p)
			if err != nil {
				return nil, nil, err
			}
			tail := lastTileLength(layers, p)
			for b := layers[p.TileLayer.Digest]; len(b) > 0 && err == nil; b = b[32:] {
				t, _ := next()
				key := images.TileKey{Hash: images.Digest(b[:32]), Length: images.TileLength}
				if len(b) == 32 {
					key.Length = tail
				}
				var at Location
				at, err = h.find(ctx, brokenTile{partition: i, tile: t, key: key})
				tiles = append(tiles, at)
			}
			stop()
			if err != nil {
				return nil, nil, fmt.Errorf("partition %d: %w", p.Number, err)
			}
		}
		draft.Tiles = append(draft.Tiles, tiles)
	}
	return draft, layers, nil
}

// find returns where a tile is, after having it given if it is not there.
func (h *healing) find(ctx context.Context, b brokenTile) (Location, error) {
	at, ok, err := h.r.Find(b.key)
	if ok || err != nil {
		return at, err
	}
	if _, err := h.store(ctx, b); err != nil {
		return at, fmt.Errorf("tile %d: %w", b.tile, err)
	}
	at, _, err = h.r.Find(b.key)
	return at, err
}
