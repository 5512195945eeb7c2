package restore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"

	"golang.org/x/sync/errgroup"

	"seedbed/images"
	"seedbed/images/parttable"
)

// Progress is told how far a long operation is, in bytes, one call at a time. It must not block.
type Progress func(done, total int64)

// Difference is what a disk holds otherwise than an image. Immutable.
type Difference struct {
	image  *Image
	length int64                   // of the disk
	wrong  map[int]images.TileSet  // by piece: data and zero tiles
	failed map[int]images.TileSet  // of wrong: those that could not be read
	table  []parttable.Region      // as it has to be, in writing order
	frame  map[int][]images.Extent // of table: the sectors that differ, as bytes of the disk
}

// IsEmpty reports whether the disk holds the image.
func (d *Difference) IsEmpty() bool { return len(d.wrong) == 0 && len(d.frame) == 0 }

// Compare reads the first length bytes of a disk through the image's maps and returns what is wrong. Free bytes may be
// anything. What cannot be read counts as wrong. One goroutine reads in the order of the disk, all cores hash. Memory:
// 2 MiB for each core.
func (i *Image) Compare(ctx context.Context, disk io.ReaderAt, length int64, progress Progress) (*Difference, error) {
	d, err := i.CompareFrame(disk, length)
	if err != nil {
		return nil, err
	}
	c := &comparison{image: i, disk: disk, progress: progress, total: i.UsedTiles()}
	if err := c.compare(ctx, i.used); err != nil {
		return nil, err
	}
	d.wrong, d.failed = c.wrong, c.failed
	return d, nil
}

// CompareFrame is Compare of the bytes outside partitions alone: the content counts as right.
func (i *Image) CompareFrame(disk io.ReaderAt, length int64) (*Difference, error) {
	table, err := i.table(length)
	if err != nil {
		return nil, err
	}
	d := &Difference{image: i, length: length, table: table, frame: map[int][]images.Extent{}}
	for n, r := range table {
		if list := differing(disk, r, int64(i.manifest.SectorLength)); len(list) > 0 {
			d.frame[n] = list
		}
	}
	return d, nil
}

// differing returns the sectors of a frame region that the disk holds otherwise, or that cannot be read.
func differing(disk io.ReaderAt, r parttable.Region, sector int64) (list []images.Extent) {
	have := make([]byte, sector)
	for at := int64(0); at < int64(len(r.Bytes)); at += sector {
		n, _ := disk.ReadAt(have, r.Offset+at) // what is missing differs
		if !bytes.Equal(have[:n], r.Bytes[at:min(at+sector, int64(len(r.Bytes)))]) {
			list = images.AppendExtent(list, images.Extent{Offset: r.Offset + at, Length: sector})
		}
	}
	return list
}

// comparison is one pass over tiles of a disk.
type comparison struct {
	image    *Image
	disk     io.ReaderAt
	progress Progress
	total    int64

	mu     sync.Mutex // guards all below
	done   int64
	wrong  map[int]images.TileSet
	failed map[int]images.TileSet
}

// chunk is a run as the disk holds it.
type chunk struct {
	run
	raw []byte
	buf []byte // raw's memory, to be given back
}

// compare reads the tiles that choose selects and fills wrong and failed.
func (c *comparison) compare(ctx context.Context, choose func(piece int) images.TileSet) error {
	c.wrong, c.failed = map[int]images.TileSet{}, map[int]images.TileSet{}
	workers := runtime.GOMAXPROCS(0)
	free, work := make(chan []byte, 2*workers), make(chan chunk, workers)
	for range cap(free) {
		free <- make([]byte, runTiles*images.TileLength)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(work)
		for r := range c.image.runs(choose) {
			var buf []byte
			select {
			case buf = <-free:
			case <-ctx.Done():
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
			e, base, _ := c.image.extent(r)
			raw := buf[:e.Length]
			if _, err := io.ReadFull(io.NewSectionReader(c.disk, base+e.Offset, e.Length), raw); err != nil {
				if err := c.alone(r, raw); err != nil {
					return err
				}
				free <- buf
				continue
			}
			work <- chunk{r, raw, buf} // the workers end after this
		}
		return nil
	})
	for range workers {
		g.Go(func() error {
			var failed error
			for k := range work { // to the end, so that the reader never waits
				if failed == nil {
					failed = c.check(k.run, k.raw)
				}
				free <- k.buf
			}
			return failed
		})
	}
	return g.Wait()
}

// alone compares the tiles of a run one at a time, of which at least one cannot be read.
func (c *comparison) alone(r run, buf []byte) error {
	for t := r.first; t < r.first+r.count; t++ {
		one := run{r.piece, t, 1}
		e, base, _ := c.image.extent(one)
		if _, err := io.ReadFull(io.NewSectionReader(c.disk, base+e.Offset, e.Length), buf[:e.Length]); err != nil {
			c.add(r.piece, t, true)
			c.advance(e.Length)
			continue
		}
		if err := c.check(one, buf[:e.Length]); err != nil {
			return err
		}
	}
	return nil
}

// check compares the tiles of a run with what they have to be. It overwrites raw. The error is the image's, not the
// disk's.
func (c *comparison) check(r run, raw []byte) error {
	i := c.image
	e, _, partition := i.extent(r)
	i.layout.Mask(partition, raw, e.Offset)
	data, hashes := i.layout.Data(r.piece), i.tiles.TileHashes(r.piece)
	if len(hashes) != data.Len() {
		return i.damage(r.piece, r.set(), errors.New("the hashes of its tiles cannot be read"))
	}
	rank := 0
	for t := range data.All() {
		if t >= r.first {
			break
		}
		rank++
	}
	for t := r.first; t < r.first+r.count; t++ {
		n := i.layout.TileLength(r.piece, t)
		right := false
		if data.Has(t) {
			right = images.TileHash(raw[:n]) == hashes[rank]
			rank++
		} else {
			right = isZero(raw[:n])
		}
		if !right {
			c.add(r.piece, t, false)
		}
		raw = raw[n:]
	}
	c.advance(e.Length)
	return nil
}

func (c *comparison) add(piece, t int, failed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	set := c.wrong[piece]
	set.Add(t)
	c.wrong[piece] = set
	if failed {
		set := c.failed[piece]
		set.Add(t)
		c.failed[piece] = set
	}
}

func (c *comparison) advance(n int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.done += n
	if c.progress != nil {
		c.progress(c.done, c.total)
	}
}

var zeros [4096]byte

func isZero(b []byte) bool {
	for len(b) > 0 {
		n := min(len(b), len(zeros))
		if !bytes.Equal(b[:n], zeros[:n]) {
			return false
		}
		b = b[n:]
	}
	return true
}

// Kinds of Range beside those of frame regions.
const (
	KindData       = "data"       // bytes that the image has otherwise
	KindZero       = "zero"       // bytes that have to be zero
	KindUnreadable = "unreadable" // bytes that the disk does not return
)

// Range is bytes of a disk that are wrong.
type Range struct {
	// Partition is the partition's number; -1 outside all, where Offset counts from the start of the disk.
	Partition int    `json:"partition"`
	Offset    int64  `json:"offset"` // bytes
	Length    int64  `json:"length"` // bytes
	Kind      string `json:"kind"`   // one of Kind..., or of images.Region...
}

func (r Range) String() string {
	e := images.Extent{Offset: r.Offset, Length: r.Length}
	if r.Partition < 0 {
		return fmt.Sprintf("disk, bytes %v (%s)", e, r.Kind)
	}
	return fmt.Sprintf("partition %d, bytes %v (%s)", r.Partition, e, r.Kind)
}

// kind says what is wrong with a tile.
func (d *Difference) kind(piece, t int) string {
	switch {
	case d.failed[piece].Has(t):
		return KindUnreadable
	case d.image.layout.Data(piece).Has(t):
		return KindData
	}
	return KindZero
}

// Ranges returns at most limit ranges that are wrong, tiles of one kind that follow one another joined, in the order of
// the table and then of the disk, and how many there are beyond.
func (d *Difference) Ranges(limit int) (list []Range, more int) {
	add := func(r Range) {
		if k := len(list) - 1; k >= 0 && more == 0 && list[k].Kind == r.Kind && list[k].Partition == r.Partition && list[k].Offset+list[k].Length == r.Offset {
			list[k].Length += r.Length
			return
		}
		if len(list) == limit {
			more++
			return
		}
		list = append(list, r)
	}
	for n, r := range d.table {
		for _, e := range d.frame[n] {
			add(Range{-1, e.Offset, e.Length, r.Kind})
		}
	}
	for piece := range d.image.pieces() {
		number := d.image.manifest.Partitions[d.image.layout.Span(piece).Partition].Number
		for t := range d.wrong[piece].All() {
			e := d.image.layout.TileExtent(piece, t, 1)
			add(Range{number, e.Offset, e.Length, d.kind(piece, t)})
		}
	}
	return list, more
}

// Count returns how many tiles are wrong and the bytes in them, and the bytes of frame that are wrong.
func (d *Difference) Count() (tiles, length, frame int64) {
	for piece, set := range d.wrong {
		tiles += int64(set.Len())
		for t := range set.All() {
			length += int64(d.image.layout.TileLength(piece, t))
		}
	}
	for _, list := range d.frame {
		frame += images.TotalLength(list)
	}
	return tiles, length, frame
}
