package disk

import (
	"context"
	"math/rand/v2"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"seedbed/images"
)

// probes is how many data pieces are looked at to tell whether the disk holds any of the image. With a tenth of the
// image there, one of 64 is found with a probability of 0.999.
const probes = 64

// maxFound bounds the hashes of what the disk holds of pieces that are not right as a whole: 16 MiB, for 32 GiB of data.
const maxFound = 1 << 19

// hashWorkers read and hash pieces; more would only seek more.
const hashWorkers = 2

// Resume hashes what the disk holds through the mask and marks what is right as held: whole pieces now, the tiles of
// other pieces when their hashes are learnt. A disk on which none of 64 random pieces is right is not hashed further.
// progress is called with the bytes looked at, on several goroutines. Call it before the swarm runs.
func (s *Storage) Resume(ctx context.Context, progress func(int64)) error {
	var pieces []int
	for p := range s.layout.Count() {
		if !s.layout.Data(p).IsEmpty() {
			pieces = append(pieces, p)
		}
	}
	sample := pieces
	if len(pieces) > 4*probes {
		sample = nil
		for _, i := range rand.Perm(len(pieces))[:probes] {
			sample = append(sample, pieces[i])
		}
	}
	var hits atomic.Int64
	err := each(ctx, sample, func(piece int) error {
		right, err := s.look(piece, len(sample) == len(pieces), progress)
		if right {
			hits.Add(1)
		}
		return err
	})
	if err != nil || hits.Load() == 0 || len(sample) == len(pieces) {
		return err
	}
	return each(ctx, pieces, func(piece int) error {
		if s.Held(piece).Contains(s.layout.Data(piece)) {
			return nil // a probe found it
		}
		_, err := s.look(piece, true, progress)
		return err
	})
}

// each calls f for every piece on a few goroutines and waits for them.
func each(ctx context.Context, pieces []int, f func(int) error) error {
	g, ctx := errgroup.WithContext(ctx)
	var next atomic.Int64
	for range hashWorkers {
		g.Go(func() error {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(pieces) {
					return nil
				}
				if err := ctx.Err(); err != nil {
					return err
				}
				if err := f(pieces[i]); err != nil {
					return err
				}
			}
		})
	}
	return g.Wait()
}

// look hashes one piece as the disk holds it and reports whether it is right. Without all it stops at the first tile
// that cannot be right, and keeps nothing of a piece that is right in part.
func (s *Storage) look(piece int, all bool, progress func(int64)) (bool, error) {
	zeros := 0
	hashes, err := s.hashPiece(piece, func(t int, raw []byte) bool {
		progress(int64(len(raw)))
		if isZero(raw) { // a data tile is never all zero
			zeros++
			return all
		}
		return true
	})
	if err != nil || hashes == nil {
		return false, err
	}
	if s.layout.CheckHashes(piece, hashes) == nil {
		data := s.layout.Data(piece)
		s.Learn(piece, hashes)
		s.mu.Lock()
		defer s.mu.Unlock()
		for t := range data.Minus(s.held[piece]).All() {
			s.resumed += int64(s.layout.TileLength(piece, t))
		}
		s.mark(piece, data)
		return true, nil
	}
	if all && zeros < len(hashes) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.foundKept += len(hashes); s.foundKept <= maxFound {
			s.found[piece] = hashes
		}
	}
	return false, nil
}

// hashPiece returns the hash of each data tile of the piece as the disk holds it through the mask, in order. see, if
// not nil, is shown each tile; where it returns false, hashPiece stops and returns nil.
func (s *Storage) hashPiece(piece int, see func(t int, raw []byte) bool) ([]images.Digest, error) {
	data := s.layout.Data(piece)
	hashes := make([]images.Digest, 0, data.Len())
	buf := make([]byte, images.TileLength)
	for t := range data.All() {
		raw := buf[:s.layout.TileLength(piece, t)]
		if err := s.readMasked(s.dev, piece, t, raw); err != nil {
			return nil, err
		}
		if see != nil && !see(t, raw) {
			return nil, nil
		}
		hashes = append(hashes, images.TileHash(raw))
	}
	return hashes, nil
}

// isZero reports whether all bytes are zero.
func isZero(b []byte) bool {
	for len(b) >= 8 {
		if b[0]|b[1]|b[2]|b[3]|b[4]|b[5]|b[6]|b[7] != 0 {
			return false
		}
		b = b[8:]
	}
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
