package repository

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"seedbed/images"
	"seedbed/images/tile"
)

// brokenTile is a data tile of the image whose record is damaged.
type brokenTile struct {
	damage    *Damage
	partition int
	tile      int64
	key       images.TileKey
	at        packRecord
}

// tiles heals tiles.
func (h *healing) tiles(ctx context.Context, x *Reader, damage []*Damage) error {
	var broken []brokenTile
	bad := map[images.Digest]badRecords{}
	for _, d := range damage {
		list, err := h.broken(ctx, x, d)
		if err != nil {
			return err
		}
		for _, b := range list {
			broken = append(broken, b)
			bad[b.at.pack] = bad[b.at.pack].with(badRecords{ordinals: map[uint32]bool{b.at.ordinal: true}})
		}
	}
	// Nobody finds them from here on, so that what is stored below is not taken for known.
	for id, records := range bad {
		if err := h.r.condemnRecords(ctx, id, records); err != nil {
			return err
		}
	}
	var good []brokenTile
	for _, b := range broken {
		copied, err := h.store(ctx, b)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			h.fail(b.damage, fmt.Errorf("tile %d of partition %d: %w", b.tile, x.parts[b.partition].p.Number, err))
			continue
		}
		if good = append(good, b); copied {
			h.report.Copied++
		}
	}
	if err := h.r.sealAll(ctx); err != nil {
		return err
	}
	for _, b := range good {
		to, err := h.locate(b.key)
		if err != nil {
			return err
		}
		h.moved[b.at] = to
	}
	h.report.Tiles = len(good)
	return h.lead(ctx)
}

// broken returns the tiles of a damaged range that really cannot be read.
func (h *healing) broken(ctx context.Context, x *Reader, d *Damage) (list []brokenTile, err error) {
	for i := range x.parts {
		if x.parts[i].p.Number != d.Partition {
			continue
		}
		for t := d.Extent.Offset / images.TileLength; t*images.TileLength < d.Extent.End(); t++ {
			rank, ok := x.rank(i, t)
			if !ok {
				continue
			}
			piece, _ := x.shape.Piece(i, t)
			hashes, err := x.pieceHashes(ctx, piece)
			if err != nil {
				if ctx.Err() != nil {
					return nil, ctx.Err()
				}
				h.fail(d, err)
				return nil, nil
			}
			b := brokenTile{damage: d, partition: i, tile: t, key: images.TileKey{Hash: hashes[rank-x.before[piece]],
				Length: int32(min(images.TileLength, x.parts[i].p.Length-t*images.TileLength))}}
			b.at.pack, b.at.ordinal = x.parts[i].placement.at(rank)
			if _, known := h.packs[b.at.pack]; !known {
				h.packs[b.at.pack] = h.r.checkFrame(ctx, b.at.pack)
			}
			var unread error // what the storage says, if it does not give the record
			one, err := x.read(ctx, i, []int64{t}, func(ctx context.Context, id images.Digest, start, end int64) ([]byte, error) {
				raw, err := x.fetchDirect(ctx, id, start, end)
				unread = err
				return raw, err
			}, false)
			if err == nil && h.packs[b.at.pack] == nil {
				var raw []byte
				if raw, err = one[0].Decode(nil); err == nil && tile.KeyOf(raw) == b.key {
					continue // it is good
				}
			}
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			if e := cmp.Or(h.packs[b.at.pack], unread); e != nil && !h.r.certain(e) {
				h.fail(d, e) // it may be good, and is not to be noted as damaged for ever
				return list, nil
			}
			list = append(list, b)
		}
	}
	return list, nil
}

// store makes sure that the repository holds a good copy of a tile, and reports whether it did before.
func (h *healing) store(ctx context.Context, b brokenTile) (copied bool, err error) {
	for {
		at, ok, err := h.r.Find(b.key)
		if err != nil {
			return false, err
		}
		if !ok {
			break
		}
		if copied, err := h.r.holds(ctx, at, b.key); copied || err != nil {
			return copied, err
		}
	}
	if h.source == nil {
		return false, errors.New("no other copy is in the repository, and nobody was given who has it; capture the disk again, or heal from a machine that holds the image")
	}
	raw, err := h.source.Tile(ctx, h.digest, b.partition, b.tile, b.key)
	if err != nil {
		return false, err
	}
	if len(raw) == 0 || len(raw) > images.TileLength || tile.KeyOf(raw) != b.key {
		return false, errors.New("what was given for it has another hash")
	}
	e, err := tile.Encode(tile.Zstd, 0, raw)
	if err == nil {
		_, err = h.r.Put(ctx, b.key, e)
	}
	return false, err
}

// holds reports whether a location has the tile. One that has not is not found again.
func (r *Repository) holds(ctx context.Context, at Location, key images.TileKey) (bool, error) {
	name := r.packKeyOf(at.pack)
	if name == "" {
		return true, nil // it was just stored
	}
	id, _ := packID(name)
	f, err := r.frame(ctx, id)
	if err != nil && ctx.Err() == nil && !r.certain(err) {
		return false, err
	}
	bad := badRecords{all: err != nil, ordinals: map[uint32]bool{at.ordinal: true}}
	if err == nil && int(at.ordinal) < f.count() {
		start, end := f.record(at.ordinal)
		var raw []byte
		if raw, err = fetchRange(ctx, r.bucket, name, start, end-start); err == nil {
			found, t, e := decodeRecord(raw)
			if e == nil && found == key {
				if raw, e = t.Decode(nil); e == nil && tile.KeyOf(raw) == key {
					return true, nil
				}
			}
		} else if !r.certain(err) {
			return false, err
		}
	}
	if ctx.Err() != nil {
		return false, ctx.Err()
	}
	return false, r.condemnRecords(ctx, id, bad)
}

// locate returns where a tile lies in the bucket.
func (h *healing) locate(key images.TileKey) (packRecord, error) {
	at, ok, err := h.r.Find(key)
	if err != nil {
		return packRecord{}, err
	}
	id, sealed := packID(h.r.packKeyOf(at.pack))
	if !ok || !sealed {
		return packRecord{}, fmt.Errorf("tile %v is not where it was put", key)
	}
	return packRecord{id, at.ordinal}, nil
}

// lead makes the placements of all images lead to the good records.
func (h *healing) lead(ctx context.Context) error {
	if len(h.moved) == 0 {
		return nil
	}
	list, err := h.r.Images(ctx)
	if err != nil {
		return err
	}
	for _, l := range list {
		i := &liveImage{name: l.Name, version: l.Version}
		if err := h.r.loadLive(ctx, i); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			h.r.log.Warn("image cannot be read and is not healed with others", "image", i.String(), "err", err)
			continue
		}
		if i.m == nil {
			continue
		}
		led := false
		for k, old := range i.places {
			place, changed := old.lead(h.moved)
			if !changed {
				continue
			}
			if err := h.claim.check(ctx); err != nil {
				return err
			}
			if _, err := h.r.putPlacement(ctx, i.digest, &i.m.Partitions[k], i.generations[k], place); err != nil {
				return err
			}
			led = true
		}
		if led {
			h.report.Images = append(h.report.Images, i.String())
		}
	}
	return nil
}
