package disk

import (
	"context"
	"fmt"

	"golang.org/x/sync/errgroup"

	"seedbed/appliance/job"
	"seedbed/images"
)

// wrongPiece is a piece that is not as the image has it.
type wrongPiece struct {
	piece  int
	hashes []images.Digest // of its data tiles on the disk, in order; nil where they cannot be read
	dirty  int             // zero tiles that are not zero
	bytes  int64           // in those
}

// resolveAtOnce is of how many pieces the tile hashes are fetched in one request.
const resolveAtOnce = 64

// Survey reads everything that the image uses of the disk, past the page cache, and returns what is wrong, by partition, and the
// roots of the partitions in which nothing is. Those that are kept are left out. Nothing is written. fetch is asked for the tile hashes of the pieces that are not
// right. progress is called with the bytes of data tiles that are right, on several goroutines. What cannot be read counts as wrong.
func (s *Storage) Survey(ctx context.Context, m *images.Manifest, fetch FetchHashes, progress func(int64)) (found []job.Damage, roots []job.PartitionRoot, err error) {
	for i := range m.Partitions {
		p := &m.Partitions[i]
		if s.keeps(i) {
			continue
		}
		d, err := s.surveyPartition(ctx, i, fetch, progress)
		if err != nil {
			return nil, nil, err
		}
		if d.Tiles == 0 {
			roots = append(roots, job.PartitionRoot{Number: p.Number, Root: p.Root})
			continue
		}
		d.Partition, d.Of = p.Number, p.DataTiles+p.ZeroTiles
		found = append(found, d)
	}
	return found, roots, nil
}

// surveyPartition reads one partition. Pieces whose hash is the layout's give the partition's root: layout.New has checked that.
func (s *Storage) surveyPartition(ctx context.Context, partition int, fetch FetchHashes, progress func(int64)) (d job.Damage, err error) {
	first, end := s.layout.Pieces(partition)
	before := s.tilesBefore(first, end)
	work, wrong := make(chan int), make(chan wrongPiece)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(work)
		for piece := first; piece < end; piece++ {
			if s.used(piece).IsEmpty() {
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
	readers, readersCtx := errgroup.WithContext(ctx)
	for range s.workers() {
		readers.Go(func() error { return s.surveyPieces(readersCtx, work, wrong, progress) })
	}
	g.Go(func() error {
		defer close(wrong)
		return readers.Wait()
	})
	g.Go(func() error {
		for batch := range batches(wrong, resolveAtOnce) {
			var ranges []images.Extent
			for _, w := range batch {
				ranges = append(ranges, s.inTileLayer(before[w.piece-first], w.piece))
			}
			if err := s.resolve(ctx, partition, batch, ranges, fetch, progress, &d); err != nil {
				return err
			}
		}
		return nil
	})
	err = g.Wait()
	return d, err
}

// batches joins what comes out of a channel.
func batches(in <-chan wrongPiece, most int) func(yield func([]wrongPiece) bool) {
	return func(yield func([]wrongPiece) bool) {
		var list []wrongPiece
		for w := range in {
			if list = append(list, w); len(list) == most {
				if !yield(list) {
					return
				}
				list = nil
			}
		}
		if len(list) > 0 {
			yield(list)
		}
	}
}

// surveyPieces reads pieces and passes on those that are wrong.
func (s *Storage) surveyPieces(ctx context.Context, work <-chan int, wrong chan<- wrongPiece, progress func(int64)) error {
	r, err := s.newRunReader()
	if err != nil {
		return err
	}
	defer r.Close()
	for piece := range work {
		w := s.surveyPiece(r, piece)
		if w.dirty == 0 && w.hashes != nil && s.layout.CheckHashes(piece, w.hashes) == nil {
			for t := range s.data(piece).All() {
				progress(int64(s.layout.TileLength(piece, t)))
			}
			continue
		}
		select {
		case wrong <- w:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return ctx.Err()
}

func (s *Storage) surveyPiece(r *runReader, piece int) wrongPiece {
	data, zero := s.data(piece), s.zeros(piece)
	w := wrongPiece{piece: piece, hashes: make([]images.Digest, 0, data.Len())}
	err := r.tiles(piece, data.Union(zero), func(t int, raw []byte) {
		switch {
		case data.Has(t):
			w.hashes = append(w.hashes, images.TileHash(raw))
		case !isZero(raw):
			w.dirty++
			w.bytes += int64(len(raw))
		}
	})
	if err != nil {
		w.hashes, w.dirty, w.bytes = nil, 0, 0
		for t := range zero.All() {
			w.dirty++
			w.bytes += int64(s.layout.TileLength(piece, t))
		}
	}
	return w
}

// resolve counts the tiles of pieces that are wrong; where are their hashes in the tile layer.
func (s *Storage) resolve(ctx context.Context, partition int, list []wrongPiece, where []images.Extent, fetch FetchHashes, progress func(int64), d *job.Damage) error {
	var asked []int // indexes into list
	var ranges []images.Extent
	for i, w := range list {
		d.Tiles, d.Bytes = d.Tiles+int64(w.dirty), d.Bytes+w.bytes
		switch {
		case w.hashes == nil:
			for t := range s.data(w.piece).All() {
				d.Tiles++
				d.Bytes += int64(s.layout.TileLength(w.piece, t))
			}
		case len(w.hashes) > 0:
			asked, ranges = append(asked, i), append(ranges, where[i])
		}
	}
	if len(asked) == 0 {
		return nil
	}
	parts, err := fetch(ctx, partition, ranges)
	if err != nil {
		return err
	}
	for n, i := range asked {
		w := list[i]
		right := cutHashes(parts[n])
		if err := s.layout.CheckHashes(w.piece, right); err != nil {
			return fmt.Errorf("tile hashes of the image: %w", err)
		}
		rank := 0
		for t := range s.data(w.piece).All() {
			if length := int64(s.layout.TileLength(w.piece, t)); right[rank] == w.hashes[rank] {
				progress(length)
			} else {
				d.Tiles++
				d.Bytes += length
			}
			rank++
		}
	}
	return nil
}

// tilesBefore returns for each of the pieces [first, end) of a partition how many data tiles the partition has before it.
func (s *Storage) tilesBefore(first, end int) []int64 {
	list, n := make([]int64, end-first), int64(0)
	for i := range list {
		list[i] = n
		n += int64(s.data(first + i).Len())
	}
	return list
}

// inTileLayer returns where the hashes of a piece lie in the tile layer of its partition.
func (s *Storage) inTileLayer(before int64, piece int) images.Extent {
	const size = int64(len(images.Digest{}))
	return images.Extent{Offset: before * size, Length: int64(s.data(piece).Len()) * size}
}

// cutHashes cuts a part of a tile layer into hashes.
func cutHashes(b []byte) (list []images.Digest) {
	for ; len(b) >= len(images.Digest{}); b = b[len(images.Digest{}):] {
		list = append(list, images.Digest(b[:len(images.Digest{})]))
	}
	return list
}
