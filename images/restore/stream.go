package restore

import (
	"cmp"
	"context"
	"fmt"
	"runtime"
	"slices"

	"golang.org/x/sync/errgroup"

	"seedbed/images"
	"seedbed/images/parttable"
)

// DiskLength returns the length of the captured disk in bytes.
func (i *Image) DiskLength() int64 { return i.manifest.DiskLength }

// DataLength returns the decoded length of all data tiles in bytes: what Stream gives, but for the frame.
func (i *Image) DataLength() int64 { return i.layout.DataLength() }

// Stream gives emit the bytes of a disk of length bytes that holds the image, in ascending order: data tiles, each
// decoded and compared with its hash, and the bytes outside partitions as they are for that length. What is not given is
// zero. emit is called on one goroutine and does not keep b. The error is a *DamageError where the image is damaged.
// All cores decode; memory: 3 MiB for each.
func (i *Image) Stream(ctx context.Context, length int64, emit func(offset int64, b []byte) error, progress Progress) error {
	frame, err := i.table(length)
	if err != nil {
		return err
	}
	slices.SortFunc(frame, func(a, b parttable.Region) int { return cmp.Compare(a.Offset, b.Offset) })
	s := &stream{image: i, emit: emit, frame: frame, progress: progress, total: i.layout.DataLength()}
	workers := runtime.GOMAXPROCS(0)
	order, work := make(chan *decoding, 2*workers), make(chan *decoding)
	free := make(chan []byte, 3*workers)
	for range cap(free) {
		free <- make([]byte, 0, runTiles*images.TileLength)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(work)
		defer close(order)
		for r := range i.runs(i.layout.Data) {
			d := &decoding{run: r, done: make(chan struct{})}
			select {
			case d.buf = <-free:
			case <-ctx.Done():
				return ctx.Err()
			}
			select {
			case order <- d:
			case <-ctx.Done():
				return ctx.Err()
			}
			select {
			case work <- d:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	for range workers {
		g.Go(func() error {
			for d := range work {
				d.raw, d.err = i.load(ctx, d.piece, d.set(), d.buf)
				close(d.done)
			}
			return nil
		})
	}
	g.Go(func() error { return s.write(ctx, order, free) })
	return g.Wait()
}

// decoding is a run that is being decoded.
type decoding struct {
	run
	buf  []byte
	done chan struct{} // closed when raw and err are set
	raw  []byte
	err  error
}

// stream is one Stream. Owned by its writing goroutine.
type stream struct {
	image       *Image
	emit        func(offset int64, b []byte) error
	frame       []parttable.Region // not given yet
	progress    Progress
	done, total int64
}

// write gives runs to emit in their order.
func (s *stream) write(ctx context.Context, order <-chan *decoding, free chan<- []byte) error {
	for {
		var d *decoding
		select {
		case d = <-order:
		case <-ctx.Done():
			return ctx.Err()
		}
		if d == nil {
			return s.regions(1 << 62)
		}
		select {
		case <-d.done:
		case <-ctx.Done():
			return ctx.Err()
		}
		if d.err != nil {
			return d.err
		}
		e, base, _ := s.image.extent(d.run)
		if err := s.regions(base + e.Offset); err != nil {
			return err
		}
		if err := s.emit(base+e.Offset, d.raw); err != nil {
			return err
		}
		s.done += int64(len(d.raw))
		if s.progress != nil {
			s.progress(s.done, s.total)
		}
		free <- d.buf[:0]
	}
}

// regions gives the regions of the frame that begin before end.
func (s *stream) regions(end int64) error {
	for len(s.frame) > 0 && s.frame[0].Offset < end {
		if err := s.emit(s.frame[0].Offset, s.frame[0].Bytes); err != nil {
			return err
		}
		s.frame = s.frame[1:]
	}
	return nil
}

// CheckOrder returns an emit for Stream that refuses bytes that do not come in ascending order inside length bytes: what
// came over a connection.
func CheckOrder(length int64, emit func(offset int64, b []byte) error) func(offset int64, b []byte) error {
	end := int64(0)
	return func(offset int64, b []byte) error {
		if offset < end || offset > length-int64(len(b)) {
			return fmt.Errorf("%d bytes at %d of a disk of %d do not follow byte %d", len(b), offset, length, end)
		}
		end = offset + int64(len(b))
		return emit(offset, b)
	}
}
