package main

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"slices"
	"sync"

	"seedbed/images"
	"seedbed/images/capture"
	"seedbed/images/intake"
	"seedbed/images/repository"
	"seedbed/images/restore"
	"seedbed/images/tile"
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

// remove forgets tiles of an image that are healed.
func (d *damagedTiles) remove(image images.Digest, healed map[int]images.TileSet) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for piece, set := range healed {
		if old, ok := d.tiles[image][piece]; ok {
			d.tiles[image][piece] = old.Minus(set)
		}
	}
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

// copies has right copies of damaged tiles: from a disk that holds the image, and from machines. It implements
// repository.TileSource and repository.LayerSource. Owned by one goroutine.
type copies struct {
	lib    *library
	reader *repository.Reader       // nil: the image cannot be opened
	left   map[int]images.TileSet   // damaged tiles that were not looked for on machines yet
	found  map[tilePlace][]byte     // by machines with the last fetch, and not asked for yet
	older  map[tilePlace][]byte     // with the fetch before
	disk   *restore.File            // nil: none was named
	layers map[images.Digest][]byte // of what the disk holds; nil: not looked at yet
}

// tilePlace is a tile of a piece.
type tilePlace struct{ piece, tile int }

// batchTiles is how many tiles are fetched from machines at once: at most 128 MiB are in memory then, with those of the
// fetch before.
const batchTiles = 1024

var (
	_ repository.TileSource  = (*copies)(nil)
	_ repository.LayerSource = (*copies)(nil)
)

// newCopies returns what looks for other copies of damaged tiles of an image, on the disk at path too, if there is one. The
// caller closes.
func (l *library) newCopies(ctx context.Context, image images.Digest, damage []*repository.Damage, path string) (*copies, error) {
	c := &copies{lib: l}
	if path != "" {
		var err error
		if c.disk, err = restore.Open(path, false); err != nil {
			return nil, diskRefusal(err)
		}
	}
	if r, err := l.repo.OpenImage(ctx, image); err == nil {
		c.reader, c.left = r, tilesOf(r, damage)
	}
	return c, nil
}

func (c *copies) close() error {
	if c.disk == nil {
		return nil
	}
	return c.disk.Close()
}

// Tile implements repository.TileSource.
func (c *copies) Tile(ctx context.Context, image images.Digest, partition int, t int64, key images.TileKey) (raw []byte, err error) {
	if c.reader == nil { // a layer was damaged, and may be healed now
		if c.reader, err = c.lib.repo.OpenImage(ctx, image); err != nil {
			return nil, err
		}
	}
	if c.disk != nil {
		if raw := c.fromDisk(partition, t, key); raw != nil {
			return raw, nil
		}
	}
	piece, in := c.reader.Layout().Piece(partition, t)
	at := tilePlace{piece, in}
	if c.found[at] == nil && c.older[at] == nil && c.left[piece].Has(in) && c.lib.fromMachines != nil {
		if err := c.fetch(ctx, at); err != nil {
			return nil, err
		}
	}
	for _, found := range []map[tilePlace][]byte{c.found, c.older} {
		if raw := found[at]; raw != nil {
			delete(found, at)
			return raw, nil
		}
	}
	if c.lib.fromMachines == nil {
		return nil, errors.New("no appliance runs that could ask machines for it; start it, name a disk that holds the image with --heal-from, or capture it again")
	}
	return nil, errors.New("neither a disk nor a machine that has it was found; name a disk with --heal-from, or capture it again")
}

// fromDisk reads a tile from the disk; nil says that it has not got it.
func (c *copies) fromDisk(partition int, t int64, key images.TileKey) []byte {
	shape := c.reader.Layout()
	raw := make([]byte, key.Length)
	if _, err := c.disk.ReadAt(raw, shape.DiskOffset(partition)+t*images.TileLength); err != nil {
		return nil
	}
	shape.Mask(partition, raw, t*images.TileLength)
	if tile.Hash(raw) != key.Hash {
		return nil
	}
	return raw
}

// fetch fetches a tile and others that will be asked for from machines.
func (c *copies) fetch(ctx context.Context, first tilePlace) error {
	batch, n := map[int]images.TileSet{}, 0
	take := func(at tilePlace) {
		set, left := batch[at.piece], c.left[at.piece]
		set.Add(at.tile)
		left.Remove(at.tile)
		batch[at.piece], c.left[at.piece] = set, left
		n++
	}
	take(first)
	for _, piece := range slices.Sorted(maps.Keys(c.left)) { // they are asked for in about this order
		for t := range c.left[piece].All() {
			if n < batchTiles {
				take(tilePlace{piece, t})
			}
		}
	}
	var mu sync.Mutex // guards found
	c.found, c.older = map[tilePlace][]byte{}, c.found
	return c.lib.fromMachines(ctx, c.reader, batch, func(piece, t int, raw []byte) error {
		mu.Lock()
		defer mu.Unlock()
		c.found[tilePlace{piece, t}] = bytes.Clone(raw)
		return nil
	})
}

// Layer implements repository.LayerSource: the disk is captured anew, without keeping its tiles.
func (c *copies) Layer(ctx context.Context, d images.Digest) ([]byte, error) {
	if c.layers == nil {
		if c.disk == nil {
			return nil, errors.New("no disk was named that holds the image; name one with --heal-from, or capture it again")
		}
		s := &layerSink{}
		sector := c.disk.SectorLength
		if sector == 0 {
			sector = 512
			if c.reader != nil {
				sector = c.reader.Image().Manifest.SectorLength
			}
		}
		if _, err := capture.Disk(ctx, c.disk, c.disk.Length, sector, s, capture.Options{Codec: tile.Stored}); err != nil {
			return nil, err
		}
		c.layers = s.layers
	}
	if b := c.layers[d]; b != nil {
		return b, nil
	}
	return nil, errors.New("the disk that was named does not have it")
}

// layerSink is a capture that keeps layers only. It implements intake.Sink.
type layerSink struct{ layers map[images.Digest][]byte }

// Have implements intake.Sink: no tile has to come.
func (s *layerSink) Have(_ context.Context, keys []images.TileKey) ([]bool, error) {
	list := make([]bool, len(keys))
	for i := range list {
		list[i] = true
	}
	return list, nil
}

// Put implements intake.Sink.
func (s *layerSink) Put(context.Context, []intake.Tile) error { return nil }

// Commit implements intake.Sink.
func (s *layerSink) Commit(_ context.Context, spec *intake.Spec) (p *intake.Published, err error) {
	_, s.layers, err = intake.Assemble(spec, "healing", "1")
	return &intake.Published{Name: "healing", Version: "1"}, err
}

// Close implements intake.Sink.
func (s *layerSink) Close() error { return nil }

// heal replaces what is damaged of an image, and returns what could not be.
func (l *library) heal(ctx context.Context, image images.Digest, damage []*repository.Damage, path string) ([]*repository.Damage, error) {
	c, err := l.newCopies(ctx, image, damage, path)
	if err != nil {
		return nil, err
	}
	report, err := l.repo.Heal(ctx, image, damage, c)
	if err = errors.Join(err, c.close()); err != nil {
		return nil, err
	}
	if c.reader != nil {
		healed := tilesOf(c.reader, damage)
		for piece, set := range tilesOf(c.reader, report.Failed) {
			healed[piece] = healed[piece].Minus(set)
		}
		l.damaged.remove(image, healed)
	}
	if l.reopen != nil && report.Tiles > 0 {
		l.reopen(ctx, image)
	}
	return report.Failed, nil
}
