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
	// Rest is what is wrong still where something is left, else nil: Left, and what is written after it. With it the repair
	// goes on when there are other copies.
	Rest *Difference
}

// With returns the same difference, of which a repair takes content from tiles.
func (d *Difference) With(tiles Tiles) *Difference {
	image, other := *d.image, *d
	image.tiles, other.image = tiles, &image
	return &other
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
	if len(w.result.Left) == 0 && w.held != nil {
		if err := w.last(ctx); err != nil {
			return &w.result, err
		}
	}
	if len(w.result.Left) > 0 {
		w.result.Rest = w.rest()
		return &w.result, nil
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

// rest returns the difference without what is written.
func (w *repair) rest() *Difference {
	d := *w.Difference
	d.wrong = map[int]images.TileSet{}
	for piece, set := range w.Difference.wrong {
		if set = set.Minus(w.written[piece]); !set.IsEmpty() {
			d.wrong[piece] = set
		}
	}
	return &d
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
