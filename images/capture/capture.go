// Package capture turns a disk into an image: partition table, file-system maps, tiles, hash tree, signed manifest.
package capture

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"time"

	"seedbed/images"
	"seedbed/images/fsmap"
	"seedbed/images/parttable"
	"seedbed/images/repository"
	"seedbed/images/tile"
)

// Sink is where a capture puts tiles and the image: a *repository.Repository.
type Sink interface {
	Find(key images.TileKey) (repository.Location, bool, error)
	Put(ctx context.Context, key images.TileKey, t tile.Encoded) (repository.Location, error)
	NextVersion(ctx context.Context, name string) (string, error)
	Publish(ctx context.Context, draft *repository.Draft) (*repository.Image, error)
}

// Options say how a disk is captured. Name and Sign are needed.
type Options struct {
	Name string
	// Version "" means the next whole number.
	Version string
	// Codec of new tiles and its level; 0 is the codec's fastest. Tiles that the repository holds keep theirs.
	Codec tile.Codec
	Level int
	// PieceLength in bytes; 0 means as images.PieceLengthFor says.
	PieceLength int64
	// Full copies whole what would be refused: a partition whose file system is not clean or has an unknown feature.
	Full bool
	// Sign returns the detached signature over the encoded manifest.
	Sign func(manifest []byte) []byte
	// Progress, if not nil, is called after each 1 MiB read, from one goroutine at a time; it must not block.
	Progress func(Progress)
	// Workers is how many tiles are hashed and compressed at once; 0 means one for each core.
	Workers int
	// Created is the time written into the manifest; zero means now.
	Created time.Time
	// Log takes warnings about the source; nil means discard.
	Log *slog.Logger
}

// Progress says how far a capture is, in bytes of used tiles.
type Progress struct {
	Partition   int // number of the partition being read
	Done, Total int64
}

// Result is what a capture made.
type Result struct {
	Image *repository.Image
	// Warnings are sentences for people: file systems that were copied in full, damage in the table.
	Warnings []string
	// Bytes of tiles by state, decoded; a zero tile travels nowhere.
	DataLength, ZeroLength int64
	// Tiles that the repository did not hold, and their encoded bytes.
	NewTiles, NewLength int64
}

// Disk captures the disk src of diskLength bytes, whose logical sector has sectorLength bytes, and publishes the image.
// It reads the used extents only (with gaps below a tile read along), on all cores, and keeps 40 bytes for each data tile
// beside the maps and some 2 MiB for each worker. The source is never written. An unclean file system is an error that wraps
// fsmap.ErrDirty unless Options.Full is set. Nothing is published after an error; tiles put so far stay and serve the next try.
func Disk(ctx context.Context, src io.ReaderAt, diskLength int64, sectorLength int, sink Sink, o Options) (*Result, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	table, err := parttable.Read(src, diskLength, sectorLength)
	if err != nil {
		return nil, fmt.Errorf("capture %s: %w", o.Name, err)
	}
	c := &capture{src: src, sink: sink, o: o, table: table, result: &Result{}}
	c.warn(table.Warnings...)
	if err := c.scan(); err != nil {
		return nil, fmt.Errorf("capture %s: %w", o.Name, err)
	}
	for _, p := range c.parts {
		if err := c.read(ctx, p); err != nil {
			return nil, fmt.Errorf("capture %s: partition %d: %w", o.Name, p.entry.Number, err)
		}
	}
	if err := c.publish(ctx); err != nil {
		return nil, fmt.Errorf("capture %s: %w", o.Name, err)
	}
	return c.result, nil
}

// complete checks the options and fills in what they leave open.
func (o *Options) complete() error {
	if !images.ValidName(o.Name) || (o.Version != "" && !images.ValidName(o.Version)) {
		return fmt.Errorf("capture: name %.80q and version %.80q must be 1-64 of a-z 0-9 . _ -", o.Name, o.Version)
	}
	if o.Sign == nil {
		return errors.New("capture: no key to sign with")
	}
	if o.Workers <= 0 {
		o.Workers = runtime.NumCPU()
	}
	if o.Created.IsZero() {
		o.Created = time.Now()
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return nil
}

// capture is one Disk.
type capture struct {
	src    io.ReaderAt
	sink   Sink
	o      Options
	table  *parttable.Table
	parts  []*part
	done   Progress
	result *Result
}

// part is one partition being captured.
type part struct {
	entry parttable.Entry
	fs    *fsmap.Result
	m     *images.Map // Zero grows while the partition is read
	// hashes and tiles are those of the data tiles, in order.
	hashes []images.Digest
	tiles  []repository.Location
	zero   int64 // zero tiles
}

func (c *capture) warn(list ...string) {
	for _, w := range list {
		if w != "" {
			c.result.Warnings = append(c.result.Warnings, w)
			c.o.Log.Warn("capture", "image", c.o.Name, "warning", w)
		}
	}
}

// scan maps every partition, so that a capture that cannot be is refused before it begins.
func (c *capture) scan() error {
	if len(c.table.Partitions) == 0 {
		return errors.New("the disk has no partitions")
	}
	for _, e := range c.table.Partitions {
		p := &part{entry: e, m: &images.Map{Length: e.Length}}
		if err := c.scanPart(p); err != nil {
			return fmt.Errorf("partition %d: %w", e.Number, err)
		}
		c.parts = append(c.parts, p)
		c.done.Total += usedTiles(p.m) * images.TileLength
	}
	return nil
}

func (c *capture) scanPart(p *part) error {
	r := io.NewSectionReader(c.src, p.entry.Offset, p.entry.Length)
	found, err := fsmap.Scan(r, p.entry.Length, fsmap.Options{Full: c.o.Full})
	if err != nil {
		return err
	}
	p.fs = found
	if found.Warning != "" {
		c.warn(fmt.Sprintf("partition %d: %s", p.entry.Number, found.Warning))
	}
	for _, e := range p.fs.Used {
		if e.Offset < 0 || e.Length < 0 || e.Offset > p.entry.Length-e.Length {
			return fmt.Errorf("the map of the file system names bytes %v of %d", e, p.entry.Length)
		}
		p.m.Extents = images.AppendExtent(p.m.Extents, e)
	}
	return nil
}

// publish builds the manifest and publishes the image. A version that was not asked for gives way to one that another
// capture published meanwhile.
func (c *capture) publish(ctx context.Context) error {
	draft := c.draft()
	for {
		m := draft.Manifest
		if m.Version = c.o.Version; m.Version == "" {
			var err error
			if m.Version, err = c.sink.NextVersion(ctx, c.o.Name); err != nil {
				return err
			}
		}
		image, err := c.sink.Publish(ctx, draft)
		if c.o.Version == "" && errors.Is(err, repository.ErrVersionExists) {
			continue
		}
		c.result.Image = image
		return err
	}
}

// draft builds manifest and layers.
func (c *capture) draft() *repository.Draft {
	m := &images.Manifest{
		Format: images.FormatVersion, Name: c.o.Name, Created: c.o.Created.Unix(),
		DiskLength: c.table.DiskLength, SectorLength: c.table.SectorLength, PieceLength: c.o.PieceLength,
		Frame: images.Frame{Table: c.table.Kind}, Firmware: c.table.Firmware(),
	}
	if m.PieceLength == 0 {
		m.PieceLength = images.PieceLengthFor(c.result.DataLength, m.DiskLength)
	}
	d := &repository.Draft{Manifest: m, Sign: c.o.Sign}
	layer := func(b []byte) images.Ref {
		if len(b) == 0 {
			return images.Ref{}
		}
		d.Layers = append(d.Layers, b)
		return images.Ref{Digest: images.Sum(b), Length: int64(len(b))}
	}
	for _, region := range c.table.Frame() {
		ref := layer(region.Bytes)
		ref.Kind, ref.Offset = region.Kind, region.Offset
		m.Frame.Region = append(m.Frame.Region, ref)
	}
	for _, p := range c.parts {
		pieces, root := tree(p.m, p.hashes, m.PieceLength)
		m.Partitions = append(m.Partitions, images.Partition{
			Number: p.entry.Number, Offset: p.entry.Offset, Length: p.entry.Length,
			Type: p.entry.Type, GUID: p.entry.GUID, Label: p.entry.Label,
			FS: p.fs.FS, FSUUID: p.fs.UUID, MapKind: p.fs.Kind,
			UsedLength: images.TotalLength(p.m.Extents), DataTiles: int64(len(p.hashes)), ZeroTiles: p.zero,
			Root: root, Map: layer(p.m.Encode()), PieceLayer: layer(pieces), TileLayer: layer(join(p.hashes)),
		})
		d.Tiles = append(d.Tiles, p.tiles)
	}
	return d
}

// join returns the bytes of the digests one after the other.
func join(list []images.Digest) []byte {
	b := make([]byte, 0, len(list)*len(images.Digest{}))
	for _, d := range list {
		b = append(b, d[:]...)
	}
	return b
}
