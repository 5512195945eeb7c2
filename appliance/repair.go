package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"seedbed/appliance/api"
	"seedbed/images"
	"seedbed/images/repository"
	"seedbed/images/restore"
	"seedbed/images/tile"
)

// withCopies are the data tiles of an image, those that are damaged from elsewhere. It implements restore.Tiles, which
// checks them.
type withCopies struct {
	*repository.Reader
	damaged map[int]images.TileSet

	mu     sync.Mutex // guards copies
	copies *copies
}

// ReadPiece implements restore.Tiles.
func (w *withCopies) ReadPiece(ctx context.Context, piece int, tiles images.TileSet) ([]tile.Encoded, error) {
	if tiles.Intersect(w.damaged[piece]).IsEmpty() {
		return w.Reader.ReadPiece(ctx, piece, tiles)
	}
	var list []tile.Encoded
	rank, hashes, shape := 0, w.TileHashes(piece), w.Layout()
	span := shape.Span(piece)
	for t := range shape.Data(piece).All() {
		switch {
		case !tiles.Has(t):
		case !w.damaged[piece].Has(t):
			var one images.TileSet
			one.Add(t)
			got, err := w.Reader.ReadPiece(ctx, piece, one)
			if err != nil {
				return nil, err
			}
			list = append(list, got...)
		case rank >= len(hashes):
			return nil, errors.New("the hashes of its tiles cannot be read")
		default:
			key := images.TileKey{Hash: hashes[rank], Length: int32(shape.TileLength(piece, t))}
			got, err := w.copyOf(ctx, span.Partition, span.Offset/images.TileLength+int64(t), key)
			if err != nil {
				return nil, err
			}
			list = append(list, got)
		}
		rank++
	}
	return list, nil
}

// copyOf returns a copy of a damaged tile from elsewhere.
func (w *withCopies) copyOf(ctx context.Context, partition int, t int64, key images.TileKey) (tile.Encoded, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	raw, err := w.copies.Tile(ctx, w.Image().Digest, partition, t, key)
	if err != nil {
		return tile.Encoded{}, err
	}
	return tile.Encode(tile.Stored, 0, raw)
}

// healPatience is how long a repair that is done waits for the repository to take the tiles that it lacked: who prunes it is
// waited for.
const healPatience = 2 * time.Minute

// repairRest goes on with a repair that met damaged tiles: with copies from machines, and from the disk at o.HealFrom. The
// repository gets what the disk then has. left are the tiles of which there is no copy.
func (l *library) repairRest(ctx context.Context, digest images.Digest, o api.DiskOrder, disk restore.Disk, done *restore.Repaired, report *api.DiskRepair) (left []*restore.DamageError, err error) {
	var damage []*repository.Damage
	for _, e := range done.Left {
		damage = append(damage, &repository.Damage{Image: e.Image, Partition: e.Partition, Extent: e.Extent, Object: "packs/", Err: e.Err})
	}
	c, err := l.newCopies(ctx, digest, damage, o.HealFrom)
	if err != nil {
		return nil, err
	}
	defer c.close()
	if c.reader == nil {
		return done.Left, nil
	}
	rest, err := done.Rest.With(&withCopies{Reader: c.reader, damaged: tilesOf(c.reader, damage), copies: c}).Repair(ctx, disk, nil)
	if err != nil {
		return nil, err
	}
	report.Tiles, report.Length, report.FromDisk = report.Tiles+rest.Tiles, report.Length+rest.Length, rest.Past
	damage = slices.DeleteFunc(damage, func(d *repository.Damage) bool {
		return slices.ContainsFunc(rest.Left, func(e *restore.DamageError) bool { return e.Partition == d.Partition && e.Extent == d.Extent })
	})
	if report.Elsewhere = len(damage); len(damage) == 0 {
		return rest.Left, nil
	}
	healing, cancel := context.WithTimeout(ctx, healPatience)
	defer cancel()
	failed, err := l.heal(healing, digest, damage, o.Path)
	if err == nil && len(failed) > 0 {
		err = failed[0]
	}
	if err != nil {
		report.NotHealed = fmt.Sprintf("they are still damaged in the repository: %v; `seedbed image verify %s --heal-from %s` puts them there", err, done.Left[0].Image, o.Path)
	}
	return rest.Left, nil
}
