package disk

import (
	"context"
	"fmt"

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

// Verify reads the content back from the disk, past the page cache, and returns the root of each partition, which are
// those of the manifest; else the error is an *ErrContent. Tiles that Look read past the page cache and found right, and
// near which nothing was written in this job, are not read a second time: the hash that they were found to have counts.
// progress is called with the bytes of data tiles that are right, on several goroutines. Flush first.
func (s *Storage) Verify(ctx context.Context, m *images.Manifest, progress func(int64)) ([]job.PartitionRoot, error) {
	var roots []job.PartitionRoot
	for i := range m.Partitions {
		first, end := s.layout.Pieces(i)
		pieces := make([]images.Digest, end-first)
		if err := s.verifyPieces(ctx, m, first, pieces, progress); err != nil {
			return nil, err
		}
		root := images.PartitionRoot(pieces, m.PieceLength)
		if p := &m.Partitions[i]; root != p.Root {
			return nil, &ErrContent{s.dev.Name, p.Number, images.Extent{Length: p.Length}}
		}
		roots = append(roots, job.PartitionRoot{Number: m.Partitions[i].Number, Root: root})
	}
	return roots, nil
}

// verifyPieces fills in the hashes of the pieces from first on.
func (s *Storage) verifyPieces(ctx context.Context, m *images.Manifest, first int, pieces []images.Digest, progress func(int64)) error {
	work := make(chan int)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(work)
		for i := range pieces {
			if unproven, known := s.unproven(first + i); unproven.IsEmpty() && known == nil {
				// Nothing is in use, or the hashes were checked when it was looked at and are no longer in memory.
				pieces[i] = s.layout.PieceHash(first + i)
				for t := range s.layout.Data(first + i).All() {
					progress(int64(s.layout.TileLength(first+i, t)))
				}
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
	return g.Wait()
}

// readBack returns the hash of one piece from the bytes on the disk.
func (s *Storage) readBack(r *runReader, piece int, progress func(int64)) (images.Digest, error) {
	data := s.layout.Data(piece)
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
	if known == nil && !tiles.IsEmpty() && !s.layout.Data(piece).IsEmpty() {
		return used, nil
	}
	return tiles, known
}

// pieceHash joins the tiles' hashes; it overwrites them.
func (s *Storage) pieceHash(piece int, length int64, tiles []images.Digest) images.Digest {
	partition := s.layout.Span(piece).Partition
	return images.PieceHash(tiles, length, s.layout.PieceLength(), s.layout.Map(partition).Length)
}
