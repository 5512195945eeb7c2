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
			st.announce(piece)
		} else {
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
		st.announce(a.piece)
		st.completed()
	} else {
		st.pull.GiveBack(a.piece, false)
		if l.Can(a.piece) {
			st.ask(l, a.piece)
		}
	}
	st.feed(l)
}
