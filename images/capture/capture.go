// Package capture turns a disk into an image: partition table, file-system maps, tiles, and what a repository computes the
// hash tree and the manifest from.
package capture

import (
	"context"
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
	// Partitions are the numbers of those that are captured; none means all. The others keep their entry in the table, and a
	// deployment writes nothing there.
	Partitions []int
	// Full copies whole what would be refused: a partition whose file system is not clean or has an unknown feature, in
	// all partitions or in those of FullPartitions.
	Full           bool
	FullPartitions []int
	// KeepContents keeps page files, hibernation files and swapped-out memory.
	KeepContents bool
	// RefuseOpaque refuses partitions that can only be copied in full: encrypted ones, those without a map.
	RefuseOpaque bool
	// Unchanged, if not nil, is called once everything was read: an error says that the source changed meanwhile, and
	// nothing is published.
	Unchanged func() error
	// Progress, if not nil, is called after each 1 MiB at most, from one goroutine at a time; it must not block.
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
	NewLength   int64 // encoded bytes that the repository did not hold
}

// Result is what a capture made.
type Result struct {
	Image *intake.Published
	// Warnings are sentences for people: file systems that were copied in full, damage in the table.
	Warnings []string
	// Dropped are contents that were left out by choice.
	Dropped []Dropped
	// UsedLength are the bytes in use; DataLength and ZeroLength are bytes of tiles by state, decoded; a zero tile travels nowhere.
	UsedLength, DataLength, ZeroLength int64
	// Tiles that the repository did not hold, and their encoded bytes.
	NewTiles, NewLength int64
}

// Dropped is content of a partition that was left out by choice.
type Dropped struct {
	Partition int    `json:"partition"`
	Name      string `json:"name"`   // "/pagefile.sys", "swap space"
	Length    int64  `json:"length"` // bytes
}

// Disk captures the disk src of diskLength bytes, whose logical sector has sectorLength bytes, and commits the image to
// sink, which the caller closes. It reads the used extents only (with gaps below a tile read along), on all cores, and keeps
// 32 bytes for each data tile beside the maps and at most 64 MiB of content. The source is never written. What is not safe
// to map is an error that fsmap.Refused knows, unless Options.Full is set. Nothing is published after an error; tiles put so
// far stay and serve the next try.
func Disk(ctx context.Context, src io.ReaderAt, diskLength int64, sectorLength int, sink intake.Sink, o Options) (*Result, error) {
	o.complete()
	src = patient{src, ctx}
	table, err := parttable.Read(src, diskLength, sectorLength)
	if err != nil {
		return nil, err
	}
	c := &capture{src: src, sink: sink, o: o, table: table, result: &Result{}}
	c.warn(table.Warnings...)
	if err := c.scan(); err != nil {
		return nil, err
	}
	if err := c.read(ctx); err != nil {
		return nil, err
	}
	if o.Unchanged != nil {
		if err := o.Unchanged(); err != nil {
			return nil, err
		}
	}
	spec := c.spec()
	c.result.Image, err = sink.Commit(ctx, spec)
	if err != nil {
		return nil, err
	}
	return c.result, nil
}

// complete fills in what the options leave open.
func (o *Options) complete() {
	if o.Workers <= 0 {
		o.Workers = runtime.GOMAXPROCS(0)
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
	// used are the extents; zero grows while the partition is read.
	used *images.Map
	zero []images.TileRun
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
