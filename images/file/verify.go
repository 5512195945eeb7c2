package file

import (
	"context"
	"fmt"
	"io"
	"runtime"

	"golang.org/x/sync/errgroup"

	"seedbed/images"
)

// WrongError says that the disk returns other bytes than were written.
type WrongError struct {
	Partition int           // index
	Extent    images.Extent // bytes of the partition
}

func (e *WrongError) Error() string {
	return fmt.Sprintf("it returned other bytes than the image has, in the partition with index %d, bytes %v, although they were "+
		"right when they were written", e.Partition, e.Extent)
}

// Reader reads a disk, past the memory of the kernel if it can. Owned by one goroutine.
type Reader interface {
	io.ReaderAt
	io.Closer
}

// Verify reads the content back and compares it with the hashes of the image: data of the wanted pieces, and zeros. open is
// called once on each goroutine. The error is a *WrongError where the disk is wrong. progress is called with the bytes read,
// on several goroutines. The first tile is left out where HoldFirst keeps it. Flush first.
func (s *Storage) Verify(ctx context.Context, open func() (Reader, error), progress func(int64)) error {
	workers := s.Workers
	if workers <= 0 {
		workers = runtime.NumCPU()
	}
	work := make(chan int)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(work)
		for piece := range s.Layout.Count() {
			if s.looked(piece).IsEmpty() {
				continue
			}
			select {
			case work <- piece:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	for range workers {
		g.Go(func() error {
			r, err := open()
			if err != nil {
				return err
			}
			defer r.Close()
			other := s.Config
			other.Disk = readOnly{r}
			back := &Storage{Config: other}
			back.first = s.keptFirst()
			buf := make([]byte, runLength)
			for piece := range work {
				if err := back.verify(piece, buf, progress); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// keptFirst returns the tile that HoldFirst keeps.
func (s *Storage) keptFirst() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.first
}

// verify compares one piece.
func (s *Storage) verify(piece int, buf []byte, progress func(int64)) error {
	data := s.Part.Data(piece)
	hashes := make([]images.Digest, 0, data.Len())
	right := true
	err := s.tiles(piece, s.looked(piece), buf, func(t int, raw []byte) {
		if data.Has(t) {
			hashes = append(hashes, images.TileHash(raw))
		} else {
			right = right && isZero(raw)
		}
		progress(int64(len(raw)))
	})
	if err != nil {
		return err
	}
	if !right || len(hashes) > 0 && s.Layout.CheckHashes(piece, hashes) != nil {
		span := s.Layout.Span(piece)
		return &WrongError{span.Partition, images.Extent{Offset: span.Offset, Length: span.Length}}
	}
	return nil
}

// readOnly makes a Disk of what is only read.
type readOnly struct{ io.ReaderAt }

func (readOnly) WriteAt([]byte, int64) (int, error) { return 0, io.ErrClosedPipe }
func (readOnly) Zero(int64, int64) error            { return io.ErrClosedPipe }
func (readOnly) Sync() error                        { return nil }
