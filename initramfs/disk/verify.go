package disk

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"seedbed/appliance/job"
	"seedbed/images"
)

// ErrContent says that the disk returned other bytes than were written.
type ErrContent struct {
	Disk      string
	Partition int           // number
	Bytes     images.Extent // of the partition
}

func (e *ErrContent) Error() string {
	return fmt.Sprintf("disk %s returned other bytes than the image has, in partition %d, bytes %v, although they were right "+
		"when they were written. The disk, its cable or the machine's memory is faulty: replace it and deploy again",
		e.Disk, e.Partition, e.Bytes)
}

// Proven is what a read-back has shown.
type Proven struct {
	Roots    []job.PartitionRoot // of the partitions of which everything was read
	Unproven []job.Unproven      // the others, but for those that are kept
}

// sampleOf is of how many pieces one is read back where samples are.
const sampleOf = 16

// Verify reads the content back from the disk, past the page cache, and returns the root of each partition, which are
// those of the manifest; else the error is an *ErrContent. Tiles that Look read past the page cache and found right, and
// near which nothing was written in this job, are not read a second time: the hash that they were found to have counts.
// At level sample only the first and the last piece of each partition are read, and one in sixteen of the others at random; at
// level none no piece is. progress is called with the bytes of data tiles that are right, on several goroutines. Flush first.
func (s *Storage) Verify(ctx context.Context, m *images.Manifest, level job.Verify, progress func(int64)) (p Proven, err error) {
	for i := range m.Partitions {
		if s.keeps(i) {
			continue
		}
		first, end := s.layout.Pieces(i)
		pieces := make([]images.Digest, end-first)
		var right atomic.Int64
		skipped, err := s.verifyPieces(ctx, m, level, first, pieces, func(n int64) { right.Add(n); progress(n) })
		if err != nil {
			return p, err
		}
		part := &m.Partitions[i]
		if skipped {
			p.Unproven = append(p.Unproven, job.Unproven{Number: part.Number, Proven: right.Load(), Total: s.dataLength(first, end)})
			continue
		}
		root := images.PartitionRoot(pieces, m.PieceLength)
		if root != part.Root {
			return p, &ErrContent{s.dev.Name, part.Number, images.Extent{Length: part.Length}}
		}
		p.Roots = append(p.Roots, job.PartitionRoot{Number: part.Number, Root: root})
	}
	return p, nil
}

// dataLength returns the bytes of the data tiles in the pieces [first, end).
func (s *Storage) dataLength(first, end int) (n int64) {
	for piece := first; piece < end; piece++ {
		for t := range s.data(piece).All() {
			n += int64(s.layout.TileLength(piece, t))
		}
	}
	return n
}

// reads reports whether a piece of a partition, the i-th of n, is read back at a level.
func reads(level job.Verify, i, n int) bool {
	switch level {
	case job.VerifyNone:
		return false
	case job.VerifySample:
		return i == 0 || i == n-1 || rand.IntN(sampleOf) == 0
	}
	return true
}

// verifyPieces fills in the hashes of the pieces from first on; skipped says that the level left some out.
func (s *Storage) verifyPieces(ctx context.Context, m *images.Manifest, level job.Verify, first int, pieces []images.Digest, progress func(int64)) (skipped bool, err error) {
	work := make(chan int)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(work)
		for i := range pieces {
			unproven, known := s.unproven(first + i)
			if unproven.IsEmpty() && known == nil {
				// Nothing is in use, or the hashes were checked when it was looked at and are no longer in memory.
				pieces[i] = s.layout.PieceHash(first + i)
				for t := range s.data(first + i).All() {
					progress(int64(s.layout.TileLength(first+i, t)))
				}
				continue
			}
			if !unproven.IsEmpty() && !reads(level, i, len(pieces)) {
				skipped = true // of this goroutine until it has ended
				continue
			}
			select {
			case work <- i:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	for range s.workers() {
		g.Go(func() error {
			r, err := s.newRunReader()
			if err != nil {
				return err
			}
			defer r.Close()
			for i := range work {
				if pieces[i], err = s.readBack(r, first+i, progress); err != nil {
					return err
				}
				if pieces[i] != s.layout.PieceHash(first+i) {
					span := s.layout.Span(first + i)
					return &ErrContent{s.dev.Name, m.Partitions[span.Partition].Number, images.Extent{Offset: span.Offset, Length: span.Length}}
				}
			}
			return nil
		})
	}
	err = g.Wait()
	return skipped, err
}

// readBack returns the hash of one piece from the bytes on the disk.
func (s *Storage) readBack(r *runReader, piece int, progress func(int64)) (images.Digest, error) {
	data := s.data(piece)
	unproven, known := s.unproven(piece)
	tiles := make([]images.Digest, s.layout.Tiles(piece))
	rank := 0 // among the data tiles
	for t := range tiles {
		switch {
		case !data.Has(t):
			tiles[t] = images.ZeroTileHash(s.layout.TileLength(piece, t))
			continue
		case !unproven.Has(t):
			tiles[t] = known[rank]
			progress(int64(s.layout.TileLength(piece, t)))
		}
		rank++
	}
	err := r.tiles(piece, unproven, func(t int, raw []byte) {
		tiles[t] = images.TileHash(raw)
		if data.Has(t) {
			progress(int64(len(raw)))
		}
	})
	return s.pieceHash(piece, s.layout.Span(piece).Length, tiles), err
}

// unproven returns the used tiles of a piece that have to be read back, and the hashes of its data tiles where they are
// known. A piece that is proven in part, and whose hashes are no longer in memory, has to be read whole.
func (s *Storage) unproven(piece int) (tiles images.TileSet, known []images.Digest) {
	used := s.used(piece)
	s.mu.Lock()
	defer s.mu.Unlock()
	tiles, known = used.Minus(s.search.proof.of(piece)), s.hashes[piece]
	if known == nil && !tiles.IsEmpty() && !s.data(piece).IsEmpty() {
		return used, nil
	}
	return tiles, known
}

// pieceHash joins the tiles' hashes; it overwrites them.
func (s *Storage) pieceHash(piece int, length int64, tiles []images.Digest) images.Digest {
	partition := s.layout.Span(piece).Partition
	return images.PieceHash(tiles, length, s.layout.PieceLength(), s.layout.Map(partition).Length)
}
