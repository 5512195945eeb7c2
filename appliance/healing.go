package main

import (
	"context"
	"fmt"
	"net/netip"
	"sync"

	"seedbed/appliance/heal"
	"seedbed/images"
	"seedbed/images/repository"
	"seedbed/images/restore"
	"seedbed/images/swarm"
	"seedbed/images/torrent"
)

// damagedTiles are tiles that verification found damaged and that are not healed, by image and piece. The zero value is
// usable; safe for concurrent use.
type damagedTiles struct {
	mu    sync.Mutex // guards tiles
	tiles map[images.Digest]map[int]images.TileSet
}

// set replaces what is known of an image.
func (d *damagedTiles) set(image images.Digest, tiles map[int]images.TileSet) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.tiles == nil {
		d.tiles = map[images.Digest]map[int]images.TileSet{}
	}
	if len(tiles) == 0 {
		delete(d.tiles, image)
		return
	}
	d.tiles[image] = tiles
}

// of returns the damaged tiles of a piece.
func (d *damagedTiles) of(image images.Digest, piece int) images.TileSet {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.tiles[image][piece]
}

// tilesOf returns the data tiles that damage concerns, by piece.
func tilesOf(r *repository.Reader, damage []*repository.Damage) map[int]images.TileSet {
	tiles := map[int]images.TileSet{}
	shape, m := r.Layout(), r.Image().Manifest
	for _, d := range damage {
		for p := range m.Partitions {
			if m.Partitions[p].Number != d.Partition {
				continue
			}
			for t := d.Extent.Offset / images.TileLength; t < images.TileCount(d.Extent.End()); t++ {
				piece, in := shape.Piece(p, t)
				if shape.Data(piece).Has(in) {
					set := tiles[piece]
					set.Add(in)
					tiles[piece] = set
				}
			}
		}
	}
	return tiles
}

// putTile takes a right copy of a data tile, decoded. It may be called on several goroutines; raw is not kept.
type putTile func(piece, tile int, raw []byte) error

// otherCopies looks for damaged tiles on the disk at path, if there is one, and then for the rest on machines.
func (l *library) otherCopies(ctx context.Context, r *repository.Reader, damaged map[int]images.TileSet, path string, put putTile) error {
	left := map[int]images.TileSet{}
	for piece, set := range damaged {
		left[piece] = set
	}
	var mu sync.Mutex // guards left
	found := func(piece, tile int, raw []byte) error {
		if err := put(piece, tile, raw); err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		set := left[piece]
		if set.Remove(tile); set.IsEmpty() {
			delete(left, piece)
		} else {
			left[piece] = set
		}
		return nil
	}
	if path != "" {
		if err := l.copiesFromDisk(ctx, r, damaged, path, found); err != nil {
			return err
		}
	}
	if l.fromMachines == nil || len(left) == 0 {
		return nil
	}
	return l.fromMachines(ctx, r, left, put)
}

// copiesFromDisk reads damaged tiles from a disk, or a file with one, that may hold the image.
func (l *library) copiesFromDisk(ctx context.Context, r *repository.Reader, damaged map[int]images.TileSet, path string, put putTile) error {
	disk, err := restore.Open(path, false)
	if err != nil {
		return diskRefusal(err)
	}
	defer disk.Close()
	image, err := restore.New(r.Image().Manifest, r.Layout(), r, func(ref images.Ref) ([]byte, error) { return l.repo.Layer(ctx, ref.Digest) })
	if err != nil {
		return err
	}
	for piece, tiles := range damaged {
		if err := image.Salvage(ctx, disk, piece, tiles, func(t int, raw []byte) error { return put(piece, t, raw) }); err != nil {
			return err
		}
	}
	return nil
}

// fromMachines fetches damaged tiles from the machines of the image's swarm, as far as they have them.
func (a *appliance) fromMachines(ctx context.Context, r *repository.Reader, damaged map[int]images.TileSet, put putTile) error {
	info, err := torrent.FromManifest(r.Image().Manifest)
	if err != nil {
		return err
	}
	if len(a.tracker.Peers(info.InfoHash)) == 0 {
		return nil
	}
	cert, err := a.lib.site.Peer(swarm.InfoHashURI(info.InfoHash))
	if err != nil {
		return fmt.Errorf("certificate to fetch tiles with: %w", err)
	}
	_, err = heal.Fetch(ctx, heal.Config{
		InfoHash: info.InfoHash, Layout: r.Layout(), Tiles: r, Damaged: damaged, Certificate: cert, CA: a.lib.site.CA(), Put: put,
		Peers: func() []netip.AddrPort { return a.tracker.Peers(info.InfoHash) }, Log: a.log,
	})
	return err
}
