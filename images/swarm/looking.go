package swarm

import (
	"seedbed/images"
	"seedbed/images/peerwire"
)

// Looking is a Storage that finds out while the swarm runs what it held before: a disk with an earlier version of the
// content. A piece is neither fetched nor announced before it was looked at, so that what is right never travels. None
// of the methods may block.
type Looking interface {
	Storage
	// Unseen says that it is not known yet what is held of the piece. When that has changed, Swarm.Found is called.
	Unseen(piece int) bool
	// InPart says that some of the piece's tiles may be held, and that Learn will tell which.
	InPart(piece int) bool
	// Want asks to look at an unseen piece before others: who hands out waits for it.
	Want(piece int)
}

// Found says that pieces were looked at: Held and InPart have the result. It never blocks.
func (s *Swarm) Found(pieces ...int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.found = append(s.found, pieces...)
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *Swarm) takeFound() []int {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := s.found
	s.found = nil
	return list
}

// look takes up pieces that the storage has looked at.
func (st *state) look() {
	list := st.takeFound()
	fetch := false
	for _, piece := range list {
		if !st.pull.Unseen(piece) {
			continue
		}
		held := st.cfg.Storage.Held(piece).Intersect(st.cfg.Pieces.Data(piece))
		st.resumed(st.lengthOf(piece, held))
		whole := held == st.cfg.Pieces.Data(piece)
		st.pull.See(piece, whole)
		if whole {
			st.announce(piece, nil)
		} else {
			st.foundPart(piece)
			fetch = true
		}
	}
	if fetch {
		st.feedAll()
	}
	if len(list) > 0 {
		st.completed()
	}
}

// heldOf returns the data tiles of a piece that are held.
func (st *state) heldOf(piece int) images.TileSet {
	return st.cfg.Storage.Held(piece).Intersect(st.cfg.Pieces.Data(piece))
}

// foundPart notes that tiles of a piece turned out to be held, of which the peers will be told if the piece is not whole by
// then.
func (st *state) foundPart(piece int) {
	if st.heldOf(piece).IsEmpty() {
		return
	}
	for _, l := range st.all {
		if l.untold != nil {
			l.untold.Add(piece)
		}
	}
}

// partsAtOnce bounds the pieces held in part of which one link is told in each tick: 100 kB/s.
const partsAtOnce = 500

// tellParts announces tiles of pieces that are not whole, to a peer that lacks the piece.
func (st *state) tellParts(l *link) {
	told := 0
	for piece := range l.untold.All() {
		if told == partsAtOnce || !st.linked(l) {
			return
		}
		l.untold.Remove(piece)
		if held := st.heldOf(piece); !held.IsEmpty() && !st.have.Has(piece) && !l.Has.Has(piece) {
			st.sendTile(l, peerwire.HaveTiles{Piece: piece, Tiles: held})
			told++
		}
	}
}

// resumed counts bytes that were there before.
func (st *state) resumed(n int64) {
	st.count.held.Add(n)
	st.count.resumed.Add(n)
}

// inPart reports whether the tile hashes of a piece have to come before its tiles are asked for.
func (st *state) inPart(piece int) bool { return st.looking != nil && st.looking.InPart(piece) }

// learn takes the tile hashes of a piece that is held in part, and asks for the tiles that differ.
func (st *state) learn(l *link, a *assembly, hashes []images.Digest) {
	for o, tiles := range a.asked {
		st.answered(o, a)
		if o != l {
			st.sendTile(o, peerwire.Cancel{Piece: a.piece, Tiles: tiles})
		}
	}
	st.forget(a)
	if st.cfg.Pieces.CheckHashes(a.piece, hashes) != nil {
		st.pull.GiveBack(a.piece, false)
		st.blame(l, a.piece, "sent wrong tile hashes")
		st.feedAll()
		return
	}
	before := st.cfg.Storage.Held(a.piece)
	st.cfg.Storage.Learn(a.piece, hashes)
	held := st.cfg.Storage.Held(a.piece)
	st.resumed(st.lengthOf(a.piece, held.Minus(before)))
	if held.Contains(st.cfg.Pieces.Data(a.piece)) {
		st.announce(a.piece, nil)
		st.completed()
	} else {
		st.foundPart(a.piece)
		st.pull.GiveBack(a.piece, false)
		if l.Can(a.piece) {
			st.ask(l, a.piece)
		}
	}
	st.feed(l)
}
