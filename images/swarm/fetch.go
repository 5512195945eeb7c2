package swarm

import (
	"fmt"
	"time"

	"seedbed/images"
	"seedbed/images/peerwire"
)

// smallPiece is the length in bytes up to which two pieces are outstanding on a link in place of one: with pieces of
// 256 KiB the pause between two requests costs.
const smallPiece = 512 << 10

// smallAsks is how many pieces of which only a little is lacking may be outstanding on a link.
const smallAsks = 8

// feed asks a peer for pieces, if it has some that we lack and is not busy with others.
func (st *state) feed(l *link) {
	l.waitMemory = false
	if !l.ready || l.choking || l.stalled || st.picker.lacking == 0 {
		return
	}
	if !st.feedShown(l) {
		return
	}
	for st.linked(l) && st.idle(l) {
		piece, ok := st.picker.pick(l.can)
		if !ok || !st.ask(l, piece) {
			return
		}
	}
}

// feedShown asks for pieces that the peer handed out; those that were not looked at wait. False says that there is no
// memory.
func (st *state) feedShown(l *link) bool {
	wait := l.shown[:0]
	for i, piece := range l.shown {
		switch {
		case !st.linked(l):
			return true
		case st.picker.unseen.has(piece):
			wait = append(wait, piece)
		case st.picker.missing.has(piece) && l.can.has(piece) && !st.ask(l, piece):
			l.shown = append(wait, l.shown[i:]...)
			return false
		}
	}
	l.shown = wait
	return true
}

// linked reports whether the link is still there: sending on it may end it.
func (st *state) linked(l *link) bool { return st.all[l.id] == l }

// idle reports whether the link may be asked for one more piece.
func (st *state) idle(l *link) bool {
	asked := int64(0)
	for _, a := range l.asks {
		asked += a.reserved
	}
	return len(l.asks) == 0 || len(l.asks) < 2 && asked <= smallPiece || len(l.asks) < smallAsks && asked <= smallPiece/2
}

func (st *state) feedAll() {
	for _, l := range st.all {
		st.feed(l)
	}
}

// ask requests the tiles of a piece that are lacking and that the peer has; false says that there is no memory.
func (st *state) ask(l *link, piece int) bool {
	a := st.assemblies[piece]
	if a == nil {
		need := st.cfg.Pieces.Data(piece).Minus(st.cfg.Storage.Held(piece))
		n := st.lengthOf(piece, need)
		early := st.inPart(piece)
		if early {
			n = 0 // its hashes come first; then less may be needed
		}
		for !st.memory.reserve(n) {
			if !st.abandon() {
				l.waitMemory = true
				return false
			}
		}
		a = newAssembly(piece, need, n, st.now)
		a.early = early
		st.assemblies[piece] = a
	}
	tiles := l.gives(a)
	if tiles.IsEmpty() {
		l.can.remove(piece)
		if len(a.asked) == 0 {
			st.picker.begin(piece)
			st.giveBack(l, a)
		}
		return true
	}
	a.asked[l], l.asks[piece] = tiles, a
	a.progress, l.asked = st.now, st.now
	st.picker.begin(piece)
	if a.early {
		st.sendTile(l, peerwire.Request{Piece: piece, Hashes: true})
		return true
	}
	hashes := a.hashes == nil && st.cfg.Storage.TileHashes(piece) == nil
	st.sendTile(l, peerwire.Request{Piece: piece, Hashes: hashes, Tiles: tiles})
	return true
}

// giveBack says that the link sends nothing more of a piece. If nobody else does, the piece waits for another peer with
// what arrived, or is forgotten if nothing did.
func (st *state) giveBack(l *link, a *assembly) {
	delete(a.asked, l)
	delete(l.asks, a.piece)
	if a.checking || len(a.asked) > 0 || st.assemblies[a.piece] != a {
		return
	}
	st.picker.giveBack(a.piece, !a.got.IsEmpty())
	if a.got.IsEmpty() {
		st.forget(a)
	}
}

// forget drops an assembly and its memory.
func (st *state) forget(a *assembly) {
	delete(st.assemblies, a.piece)
	st.memory.release(a.reserved)
}

// abandon forgets the oldest piece that was begun and that nobody is asked for, to make room; false if there is none.
func (st *state) abandon() bool {
	if len(st.picker.orphans) == 0 {
		return false
	}
	a := st.assemblies[st.picker.orphans[0]]
	for i := range a.got.All() {
		st.count.wasted.Add(int64(len(a.tiles[i].Bytes)))
	}
	st.picker.giveBack(a.piece, false)
	st.forget(a)
	return true
}

// judge deals with a piece that a worker checked.
func (st *state) judge(v verdict) {
	a := v.a
	a.checking = false
	switch {
	case v.err != nil:
		st.err = v.err
		return
	case v.badHashes:
		st.blame(a.hashesFrom, a.piece, "sent wrong tile hashes")
		a.hashes, a.hashesFrom = nil, nil
		a.drop(a.got)
	case !v.bad.IsEmpty():
		for i := range v.bad.All() {
			st.blame(a.from[i], a.piece, "sent a wrong tile")
		}
		a.drop(v.bad)
	default:
		st.hold(a, v.written)
		return
	}
	st.picker.giveBack(a.piece, !a.got.IsEmpty())
	if a.got.IsEmpty() {
		st.forget(a)
	}
	st.feedAll()
}

// blame bars a peer that lied. An appliance is not barred: without it nothing goes on, but the piece is not asked of it
// for a while.
func (st *state) blame(l *link, piece int, what string) {
	if l == nil {
		return
	}
	if l.appliance {
		if !l.refused[piece] {
			st.count.damaged.Add(1)
			st.cfg.Log.Warn("the appliance "+what+"; verify the image there", "peer", l.remote, "piece", piece)
		}
		l.can.remove(piece)
		l.refused[piece] = true
		return
	}
	if !st.banned[l.identity] {
		st.cfg.Log.Warn("a peer "+what+"; it is barred", "peer", l.remote, "piece", piece)
		st.banned[l.identity] = true
	}
	st.leave(l, what, nil)
}

// hold takes note of a piece that is whole and written, and tells everyone.
func (st *state) hold(a *assembly, written int64) {
	st.forget(a)
	st.memory.keep(a.piece, a.indexed())
	st.count.written.Add(written)
	st.count.held.Add(written)
	st.announce(a.piece)
	for _, l := range st.all {
		if l.waitMemory {
			st.feed(l)
		}
	}
	st.completed()
}

// announce tells everyone of a piece that is whole.
func (st *state) announce(piece int) {
	st.have.add(piece)
	st.picker.hold()
	for _, l := range st.all {
		st.send(l, peerwire.Have(piece))
	}
}

// completed makes everything durable if nothing is lacking any more.
func (st *state) completed() {
	if st.picker.lacking > 0 {
		return
	}
	for _, l := range st.all {
		st.send(l, peerwire.NotInterested)
	}
	st.sync()
}

// sync makes everything durable, once.
func (st *state) sync() {
	if st.syncing {
		return
	}
	st.syncing = true
	st.group.Go(func() { st.tell(synced{st.cfg.Storage.Sync()}) })
}

func (st *state) finish(err error) {
	if err != nil {
		st.err = fmt.Errorf("sync: %w", err)
		return
	}
	st.publish()
	st.cfg.Log.Info("all pieces are held", "pieces", st.cfg.Pieces.Count(), "after", st.now.Sub(st.started).Round(time.Millisecond))
	close(st.done)
}

// endgame lets an idle link fetch what another one is slow to send, once every piece is being fetched.
func (st *state) endgame(l *link) {
	if !l.ready || l.choking || l.stalled || len(l.asks) > 0 {
		return
	}
	for _, a := range st.assemblies {
		slow := st.now.Sub(a.progress) > endgameAfter || st.now.Sub(a.begun) > 4*endgameAfter
		few := len(a.asked) == 1 || st.now.Sub(a.progress) > st.cfg.timing.stall // links that live and never answer
		if slow && few && !a.checking && len(a.asked) > 0 && a.asked[l].IsEmpty() && l.can.has(a.piece) && !l.gives(a).IsEmpty() {
			st.ask(l, a.piece)
			return
		}
	}
}

// endgameAfter is how long a piece makes no progress, and a quarter of how long it may be on its way, before another
// peer is asked for the rest as well.
const endgameAfter = time.Second

// gives returns those of the lacking tiles that the peer has.
func (l *link) gives(a *assembly) images.TileSet {
	if l.has.has(a.piece) {
		return a.lacks()
	}
	return a.lacks().Intersect(l.partial[a.piece])
}
