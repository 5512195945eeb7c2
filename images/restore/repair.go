package restore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"

	"golang.org/x/sync/errgroup"

	"seedbed/images"
)

// Disk is a disk that is written. Safe for concurrent use.
type Disk interface {
	io.ReaderAt
	io.WriterAt
	// Zero makes bytes read as zeros.
	Zero(offset, length int64) error
	// Sync returns when all that was written is durable.
	Sync() error
	// Direct opens a way to read what the disk itself holds; past is false where that is not possible and memory may
	// answer. The caller closes.
	Direct() (r DirectReader, past bool, err error)
}

// DirectReader reads a disk past the memory of the kernel. Owned by one goroutine.
type DirectReader interface {
	io.ReaderAt
	io.Closer
}

// Repaired says what a repair did.
type Repaired struct {
	Tiles  int64 // written
	Length int64 // bytes written, zeros and the table included
	// Past says that what was written was read back from the disk itself, not from memory.
	Past bool
	// Left are tiles of which the image has no right copy. The table is not written then, if it was wrong.
	Left []*DamageError
}

// ReadBackError says that a disk returned other bytes than were written.
type ReadBackError struct {
	Range Range
}

func (e *ReadBackError) Error() string {
	return fmt.Sprintf("the disk returned other bytes than were written to it: %v; the disk, its cable or this machine's memory is faulty", e.Range)
}

// Repair writes what d says is wrong, and nothing else: used bytes only, the bytes outside partitions last and LBA 0 or
// what takes its place at the very end, each after what was before is durable; and reads it back. Stopped anywhere, it
// leaves a disk that Compare and Repair complete. The image's damage is no error but listed.
func (d *Difference) Repair(ctx context.Context, disk Disk, progress Progress) (*Repaired, error) {
	w := &repair{Difference: d, disk: disk, progress: progress}
	_, w.total, _ = d.Count()
	if err := w.content(ctx); err != nil {
		return &w.result, err
	}
	if err := disk.Sync(); err != nil {
		return &w.result, err
	}
	if err := w.readBack(ctx); err != nil {
		return &w.result, err
	}
	if len(w.result.Left) > 0 {
		return &w.result, nil
	}
	if w.held != nil {
		if err := w.last(ctx); err != nil {
			return &w.result, err
		}
	}
	return &w.result, w.frame()
}

// repair is one Repair.
type repair struct {
	*Difference
	disk     Disk
	progress Progress
	total    int64
	// held is the tile that is written last: the first of a file system on the whole disk, whose superblock takes the
	// place of a table.
	held *run

	mu      sync.Mutex // guards all below
	result  Repaired
	done    int64
	written map[int]images.TileSet
}

// content writes the wrong tiles, in the order of the disk, on all cores.
func (w *repair) content(ctx context.Context) error {
	w.written = map[int]images.TileSet{}
	workers := runtime.GOMAXPROCS(0)
	work := make(chan run)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(work)
		for r := range w.image.runs(w.toWrite) {
			select {
			case work <- r:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	for range workers {
		g.Go(func() error {
			buf := make([]byte, 0, runTiles*images.TileLength)
			for r := range work {
				if err := w.run(ctx, r, buf); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// toWrite returns the wrong tiles of a piece but for the one that is held back. Owned by content's first goroutine.
func (w *repair) toWrite(piece int) images.TileSet {
	set := w.wrong[piece]
	if piece == 0 && set.Has(0) && w.image.manifest.Frame.Table == "none" {
		w.held = &run{0, 0, 1}
		set.Remove(0)
	}
	return set
}

// run writes a run of wrong tiles, of which some may have to be zero.
func (w *repair) run(ctx context.Context, r run, buf []byte) error {
	data := w.image.layout.Data(r.piece)
	for start := r.first; start < r.first+r.count; {
		n := 1
		for start+n < r.first+r.count && data.Has(start+n) == data.Has(start) {
			n++
		}
		part := run{r.piece, start, n}
		if !data.Has(start) {
			if err := w.zero(ctx, part); err != nil {
				return err
			}
		} else if err := w.data(ctx, part, buf); err != nil {
			return err
		}
		start += n
	}
	return nil
}

// data writes data tiles: together, or alone if one of them is damaged in the image.
func (w *repair) data(ctx context.Context, r run, buf []byte) error {
	raw, err := w.image.load(ctx, r.piece, r.set(), buf)
	if damage, ok := errors.AsType[*DamageError](err); ok {
		if r.count == 1 {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.result.Left = append(w.result.Left, damage)
			return nil
		}
		for t := r.first; t < r.first+r.count; t++ {
			if err := w.data(ctx, run{r.piece, t, 1}, buf); err != nil {
				return err
			}
		}
		return nil
	}
	if err != nil {
		return err
	}
	e, base, _ := w.image.extent(r)
	for _, u := range w.image.layout.WriteExtents(nil, r.piece, r.first, r.count) {
		if _, err := w.disk.WriteAt(raw[u.Offset-e.Offset:u.End()-e.Offset], base+u.Offset); err != nil {
			return err
		}
	}
	w.wrote(r)
	return nil
}

func (w *repair) zero(ctx context.Context, r run) error {
	_, base, _ := w.image.extent(r)
	for _, u := range w.image.layout.WriteExtents(nil, r.piece, r.first, r.count) {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := w.disk.Zero(base+u.Offset, u.Length); err != nil {
			return err
		}
	}
	w.wrote(r)
	return nil
}

// set returns the tiles of a run.
func (r run) set() (s images.TileSet) {
	for t := r.first; t < r.first+r.count; t++ {
		s.Add(t)
	}
	return s
}

// wrote counts a run that is written.
func (w *repair) wrote(r run) {
	e, _, _ := w.image.extent(r)
	used := images.TotalLength(w.image.layout.WriteExtents(nil, r.piece, r.first, r.count))
	w.mu.Lock()
	defer w.mu.Unlock()
	w.written[r.piece] = w.written[r.piece].Union(r.set())
	w.result.Tiles += int64(r.count)
	w.result.Length += used
	w.done += e.Length
	if w.progress != nil {
		w.progress(w.done, w.total)
	}
}

// readBack compares what was written with what the disk returns.
func (w *repair) readBack(ctx context.Context) (err error) {
	direct, past, err := w.disk.Direct()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, direct.Close()) }()
	w.result.Past = past
	c := &comparison{image: w.image, disk: direct}
	if err := c.compare(ctx, func(piece int) images.TileSet { return w.written[piece] }); err != nil {
		return err
	}
	again := &Difference{image: w.image, wrong: c.wrong, failed: c.failed}
	if list, _ := again.Ranges(1); len(list) > 0 {
		return &ReadBackError{list[0]}
	}
	return nil
}

// last writes the tile that was held back, durably.
func (w *repair) last(ctx context.Context) error {
	w.written = map[int]images.TileSet{}
	if err := w.run(ctx, *w.held, nil); err != nil {
		return err
	}
	if err := w.disk.Sync(); err != nil {
		return err
	}
	return w.readBack(ctx)
}

// frame writes the sectors of the frame that differ, those of the last region after all else is durable, and reads them
// back.
func (w *repair) frame() (err error) {
	if len(w.Difference.frame) == 0 {
		return nil
	}
	for n, r := range w.table {
		if n == len(w.table)-1 {
			if err := w.disk.Sync(); err != nil {
				return err
			}
		}
		for _, e := range w.Difference.frame[n] {
			if _, err := w.disk.WriteAt(r.Bytes[e.Offset-r.Offset:e.End()-r.Offset], e.Offset); err != nil {
				return err
			}
			w.result.Length += e.Length
		}
	}
	if err := w.disk.Sync(); err != nil {
		return err
	}
	direct, past, err := w.disk.Direct()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, direct.Close()) }()
	w.result.Past = past
	for _, r := range w.table {
		if list := differing(direct, r, int64(w.image.manifest.SectorLength)); len(list) > 0 {
			return &ReadBackError{Range{-1, list[0].Offset, list[0].Length, r.Kind}}
		}
	}
	return nil
}
