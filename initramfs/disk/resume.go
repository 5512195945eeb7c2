package disk

import (
	"context"
	"sync"

	"golang.org/x/sync/errgroup"

	"seedbed/images"
)

// maxFound bounds the hashes of what the disk holds of pieces that are not right as a whole and whose tile hashes are
// still to come: 16 MiB, for 32 GiB of data. Looking waits when there are more.
const maxFound = 1 << 19

// search is how far the looking at the disk has come. Guarded by Storage.mu.
type search struct {
	unseen  pieceSet
	taken   pieceSet // unseen pieces that a worker looks at
	wanted  []int    // to be looked at next
	hint    pieceSet // looked at after the others
	front   int      // what lies before was looked at, or taken, or is put off by hint
	late    bool     // front is in the pieces of hint
	probed  bool     // Probe has decided what is unseen
	zeroed  bool     // the zero tiles are zeros
	proof   proof
	changed sync.Cond
}

// pieceSet is a set of pieces: bit i%64 of word i/64.
type pieceSet []uint64

func newPieceSet(n int) pieceSet      { return make(pieceSet, (n+63)/64) }
func (p pieceSet) has(piece int) bool { return p[piece>>6]>>(piece&63)&1 == 1 }
func (p pieceSet) add(piece int)      { p[piece>>6] |= 1 << (piece & 63) }
func (p pieceSet) remove(piece int)   { p[piece>>6] &^= 1 << (piece & 63) }

// Hint says which pieces this disk was reported to hold as a whole, by an earlier boot: bit 7 of byte 0 is piece 0. It
// orders the search and proves nothing. The others are looked at first, since they are probably to be fetched, and Probe
// looks at some of the pieces reported, since a disk of which little was written would pass for one that holds nothing.
// A bitmap of any length and content will do. Call it before Probe.
func (s *Storage) Hint(bitmap []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for piece := range min(s.layout.Count(), 8*len(bitmap)) {
		if bitmap[piece/8]&(0x80>>(piece%8)) != 0 {
			s.search.hint.add(piece)
		}
	}
}

// expect makes every piece that has used tiles unseen.
func (s *Storage) expect() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.search.proof = newProof(s.layout.Count(), s.layout.PieceLength())
	for piece := range s.layout.Count() {
		if !s.used(piece).IsEmpty() {
			s.search.unseen.add(piece)
		}
	}
}

// used are the data and zero tiles of a piece.
func (s *Storage) used(piece int) images.TileSet {
	return s.data(piece).Union(s.zeros(piece))
}

// Unseen implements swarm.Looking.
func (s *Storage) Unseen(piece int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.search.unseen.has(piece)
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
	if s.search.unseen.has(piece) {
		s.search.wanted = append(s.search.wanted, piece)
		s.search.changed.Broadcast()
	}
}

// Look makes the used bytes that hold no data zeros, and where Probe found something, reads everything in use in the
// order of the disk, hashes it through the mask and marks what is right as held: whole pieces now, the tiles of other pieces
// when their hashes are learnt. What is right is not written. found is called for each piece with data that was looked at
// and progress with the bytes read or zeroed, both on several goroutines. It runs beside the swarm, and can be ended
// and called again.
func (s *Storage) Look(ctx context.Context, found func(piece int), progress func(int64)) error {
	s.mu.Lock()
	s.search.front, s.search.late, s.search.taken = 0, false, newPieceSet(s.layout.Count())
	blank, zeroed := !s.search.any(), s.search.zeroed
	s.mu.Unlock()
	if blank {
		if zeroed {
			return nil
		}
		if err := s.WriteZeros(ctx, s.layout.Partitions(), progress); err != nil {
			return err
		}
	} else if err := s.lookAtAll(ctx, found, progress); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.search.zeroed = true
	return nil
}

func (c *search) any() bool {
	for _, w := range c.unseen {
		if w != 0 {
			return true
		}
	}
	return false
}

func (s *Storage) lookAtAll(ctx context.Context, found func(piece int), progress func(int64)) error {
	g, ctx := errgroup.WithContext(ctx)
	stop := context.AfterFunc(ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.search.changed.Broadcast()
	})
	defer stop()
	for range s.workers() {
		g.Go(func() error {
			r, err := s.newRunReader()
			if err != nil {
				return err
			}
			defer r.Close()
			for {
				piece, ok := s.nextUnseen(ctx)
				if !ok {
					return ctx.Err()
				}
				if err := s.look(r, piece, progress); err != nil {
					return err
				}
				if !s.data(piece).IsEmpty() {
					found(piece)
				}
			}
		})
	}
	return g.Wait()
}

// nextUnseen takes the piece to look at next: one that is wanted, else the first on the disk, those of the hint last. It waits while too many
// hashes are kept; false says that there is none, or that ctx has ended.
func (s *Storage) nextUnseen(ctx context.Context) (piece int, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := &s.search
	for ctx.Err() == nil {
		for len(c.wanted) > 0 {
			piece, c.wanted = c.wanted[0], c.wanted[1:]
			if c.unseen.has(piece) && !c.taken.has(piece) {
				c.taken.add(piece)
				return piece, true
			}
		}
		for c.front < s.layout.Count() && (!c.unseen.has(c.front) || c.taken.has(c.front) || !c.late && c.hint.has(c.front)) {
			c.front++
		}
		if c.front == s.layout.Count() {
			if c.late {
				return 0, false
			}
			c.front, c.late = 0, true
			continue
		}
		if s.foundKept < s.maxFound {
			c.taken.add(c.front)
			return c.front, true
		}
		c.changed.Wait()
	}
	return 0, false
}

// look reads one piece, zeros what has to be zero and is not, and marks what is right. Bytes that cannot be read are
// not right: writing them may mend the disk, and the read-back says if it did not.
func (s *Storage) look(r *runReader, piece int, progress func(int64)) error {
	data, zero := s.data(piece), s.zeros(piece)
	hashes := make([]images.Digest, 0, data.Len())
	var dirty images.TileSet // zero tiles that are not
	blank := true            // all data tiles are
	err := r.tiles(piece, data.Union(zero), func(t int, raw []byte) {
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
		progress(int64(len(raw)))
	})
	if err != nil {
		hashes, dirty = nil, zero
	}
	for t := range dirty.All() {
		for _, e := range s.layout.WriteExtents(nil, piece, t, 1) {
			if err := s.zero(s.layout.DiskOffset(s.layout.Span(piece).Partition)+e.Offset, e.Length); err != nil {
				return err
			}
		}
	}
	if !dirty.IsEmpty() {
		s.mu.Lock()
		s.fix(piece, dirty)
		s.mu.Unlock()
	}
	s.settle(piece, hashes, blank, zero.Minus(dirty))
	return nil
}

// settle enters what was found out about a piece: the hashes of its data tiles on the disk, nil if they are unknown, and
// which of its zero tiles were zeros.
func (s *Storage) settle(piece int, hashes []images.Digest, blank bool, zeros images.TileSet) {
	if len(hashes) > 0 && s.layout.CheckHashes(piece, hashes) == nil {
		s.Learn(piece, hashes)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	known := s.hashes[piece]
	switch {
	case len(hashes) == 0 || blank:
	case known != nil:
		s.compare(piece, hashes, known)
	default:
		s.found[piece] = hashes
		s.foundKept += len(hashes)
	}
	s.search.proof.add(piece, zeros)
	s.search.unseen.remove(piece)
}

// compare marks the data tiles that a runReader read, and whose hash is right, as held. The caller holds mu.
func (s *Storage) compare(piece int, have, want []images.Digest) {
	var right images.TileSet
	i := 0
	for t := range s.data(piece).All() {
		if have[i] == want[i] {
			right.Add(t)
			if !s.held[piece].Has(t) {
				s.resumed += int64(s.layout.TileLength(piece, t))
			}
		}
		i++
	}
	s.search.proof.add(piece, right)
	s.mark(piece, right)
}
