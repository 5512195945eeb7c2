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
	"seedbed/images/intake"
	"seedbed/images/parttable"
	"seedbed/images/tile"
)

// Options say how a disk is captured. The zero value is usable.
type Options struct {
	// Codec of new tiles and its level; 0 is the codec's fastest. Tiles that the repository holds keep theirs.
	Codec tile.Codec
	Level int
	// PieceLength in bytes; 0 means as images.PieceLengthFor says.
	PieceLength int64
	// Full copies whole what would be refused: a partition whose file system is not clean or has an unknown feature.
	Full bool
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
	Image *intake.Published
	// Warnings are sentences for people: file systems that were copied in full, damage in the table.
	Warnings []string
	// Bytes of tiles by state, decoded; a zero tile travels nowhere.
	DataLength, ZeroLength int64
	// Tiles that the repository did not hold, and their encoded bytes.
	NewTiles, NewLength int64
}

// Disk captures the disk src of diskLength bytes, whose logical sector has sectorLength bytes, and commits the image to
// sink, which the caller closes. It reads the used extents only (with gaps below a tile read along), on all cores, and keeps
// 32 bytes for each data tile beside the maps and some 2 MiB for each worker. The source is never written. What is not safe
// to map is an error that fsmap.Refused knows, unless Options.Full is set. Nothing is published after an error; tiles put so
// far stay and serve the next try.
func Disk(ctx context.Context, src io.ReaderAt, diskLength int64, sectorLength int, sink intake.Sink, o Options) (*Result, error) {
	o.complete()
	table, err := parttable.Read(src, diskLength, sectorLength)
	if err != nil {
		return nil, err
	}
	c := &capture{src: src, sink: sink, o: o, table: table, result: &Result{}}
	c.warn(table.Warnings...)
	if err := c.scan(); err != nil {
		return nil, err
	}
	for _, p := range c.parts {
		if err := c.read(ctx, p); err != nil {
			return nil, fmt.Errorf("partition %d: %w", p.entry.Number, err)
		}
	}
	c.result.Image, err = sink.Commit(ctx, c.spec())
	if err != nil {
		return nil, err
	}
	return c.result, nil
}

// complete fills in what the options leave open.
func (o *Options) complete() {
	if o.Workers <= 0 {
		o.Workers = runtime.NumCPU()
	}
	if o.Created.IsZero() {
		o.Created = time.Now()
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
}

// capture is one Disk.
type capture struct {
	src    io.ReaderAt
	sink   intake.Sink
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
	// hashes are those of the data tiles in order, 32 bytes each.
	hashes []byte
}

func (c *capture) warn(list ...string) {
	for _, w := range list {
		if w != "" {
			c.result.Warnings = append(c.result.Warnings, w)
			c.o.Log.Warn("capture", "warning", w)
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

// spec describes what was captured.
func (c *capture) spec() *intake.Spec {
	s := &intake.Spec{
		Created: c.o.Created.Unix(), DiskLength: c.table.DiskLength, SectorLength: c.table.SectorLength, PieceLength: c.o.PieceLength,
		Table: c.table.Kind, Firmware: c.table.Firmware(),
	}
	for _, r := range c.table.Frame() {
		s.Regions = append(s.Regions, intake.Region{Kind: r.Kind, Offset: r.Offset, Bytes: r.Bytes})
	}
	for _, p := range c.parts {
		s.Partitions = append(s.Partitions, intake.Partition{
			Number: p.entry.Number, Offset: p.entry.Offset, Length: p.entry.Length,
			Type: p.entry.Type, GUID: p.entry.GUID, Label: p.entry.Label,
			FS: p.fs.FS, FSUUID: p.fs.UUID, MapKind: p.fs.Kind, Map: p.m.Encode(), Tiles: p.hashes,
		})
	}
	return s
}
