package file

import (
	"bytes"
	"context"
	"runtime"

	"golang.org/x/sync/errgroup"

	"seedbed/images"
)

// Unseen implements swarm.Looking.
func (s *Storage) Unseen(piece int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.unseen.has(piece)
}

// InPart implements swarm.Looking.
func (s *Storage) InPart(piece int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.found[piece] != nil
}

// Want implements swarm.Looking.
func (s *Storage) Want(piece int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.unseen.has(piece) {
		s.wanted = append(s.wanted, piece)
		s.room.Broadcast()
	}
}

// LookLength returns how many bytes Look reads.
func (s *Storage) LookLength() (n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for piece := range s.Layout.Count() {
		if s.unseen.has(piece) {
			n += lengthOf(s.Layout, piece, s.looked(piece))
		}
	}
	return n
}

// Look reads what is in use of the pieces that were not looked at yet, hashes it, and marks what is right as held: whole
// pieces now, tiles of others when their hashes are learnt. Unless the disk is only read, what has to be zero and is not is
// made so. found is called for each piece with data that was looked at, progress with the bytes read, both on several
// goroutines; either may be nil. It can be ended and called again, and runs once at a time.
func (s *Storage) Look(ctx context.Context, found func(piece int), progress func(int64)) error {
	s.mu.Lock()
	clear(s.taken)
	s.front = 0
	s.mu.Unlock()
	workers := s.Workers
	if workers <= 0 {
		workers = runtime.NumCPU()
	}
	g, ctx := errgroup.WithContext(ctx)
	stop := context.AfterFunc(ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.room.Broadcast()
	})
	defer stop()
	for range workers {
		g.Go(func() error {
			buf := make([]byte, runLength)
			for ctx.Err() == nil {
				piece, ok := s.nextUnseen(ctx)
				if !ok {
					return ctx.Err()
				}
				if err := s.look(piece, buf, progress); err != nil {
					return err
				}
				if found != nil && !s.Part.Data(piece).IsEmpty() {
					found(piece)
				}
			}
			return ctx.Err()
		})
	}
	return g.Wait()
}

// nextUnseen takes the piece to look at next: one that is wanted, else the first on the disk. It waits while too many hashes
// are kept; false says that there is none, or that ctx has ended.
func (s *Storage) nextUnseen(ctx context.Context) (piece int, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	take := func(piece int) bool {
		if !s.unseen.has(piece) || s.taken.has(piece) {
			return false
		}
		s.taken.add(piece)
		return true
	}
	for ctx.Err() == nil {
		for len(s.wanted) > 0 {
			piece, s.wanted = s.wanted[0], s.wanted[1:]
			if take(piece) {
				return piece, true
			}
		}
		for s.front < s.Layout.Count() && (!s.unseen.has(s.front) || s.taken.has(s.front)) {
			s.front++
		}
		if s.front == s.Layout.Count() {
			return 0, false
		}
		if s.foundKept < maxFound {
			return s.front, take(s.front)
		}
		s.room.Wait()
	}
	return 0, false
}

// maxFound bounds the hashes of what the disk holds of pieces that are right in part and whose tile hashes are still to
// come: 16 MiB, for 32 GiB of data.
const maxFound = 1 << 19

// look reads one piece, zeros what has to be zero and is not, and marks what is right. Bytes that cannot be read are not
// right.
func (s *Storage) look(piece int, buf []byte, progress func(int64)) error {
	data := s.Part.Data(piece)
	hashes := make([]images.Digest, 0, data.Len())
	var dirty images.TileSet // zero tiles that are not
	blank := true            // all data tiles are zero
	err := s.tiles(piece, s.looked(piece), buf, func(t int, raw []byte) {
		empty := isZero(raw)
		switch {
		case data.Has(t) && empty:
			hashes = append(hashes, images.ZeroTileHash(len(raw)))
		case data.Has(t):
			blank = false
			hashes = append(hashes, images.TileHash(raw))
		case !empty:
			dirty.Add(t)
		}
		if progress != nil {
			progress(int64(len(raw)))
		}
	})
	if err != nil {
		hashes, dirty = nil, s.looked(piece).Minus(data)
	}
	if !s.ReadOnly {
		if err := s.zero(piece, dirty); err != nil {
			return err
		}
	}
	whole := len(hashes) > 0 && !blank && s.Layout.CheckHashes(piece, hashes) == nil
	if whole {
		s.Learn(piece, hashes)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unseen.remove(piece)
	switch {
	case whole:
		s.mark(piece, data)
	case len(hashes) == 0 || blank:
	case s.hashes[piece] != nil:
		s.compare(piece, hashes, s.hashes[piece])
	case !s.ReadOnly:
		s.found[piece] = hashes
		s.foundKept += len(hashes)
	}
	return nil
}

func (s *Storage) zero(piece int, tiles images.TileSet) error {
	base := s.Base(s.Layout.Span(piece).Partition)
	for t := range tiles.All() {
		for _, e := range s.Layout.WriteExtents(nil, piece, t, 1) {
			if err := s.Disk.Zero(base+e.Offset, e.Length); err != nil {
				return err
			}
		}
	}
	return nil
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
