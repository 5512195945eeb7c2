package swarm

import (
	"seedbed/images/peerwire"
	"seedbed/images/schedule"
)

// tick does what time alone makes due.
func (st *state) tick() {
	st.connect()
	if st.pull.Lacking() == 0 {
		st.sync()
	}
	for _, l := range st.all {
		st.watch(l)
		st.tellParts(l)
		l.out.hurry()
	}
	if st.pull.Starve(st.now) {
		st.feedAll()
	}
	if st.pull.Lacking() > 0 && st.pull.AllBegun() {
		for _, l := range st.all {
			st.endgame(l)
		}
	}
	if st.hand != nil {
		st.pace()
		st.hand.Expire(st.now)
		st.show()
	}
	if st.now.Sub(st.lastSlow) >= retryAfter {
		st.lastSlow = st.now
		st.retry()
	}
	st.publish()
}

// watch deals with silence on a link: requests go to others, the link is closed, or a keep-alive is sent.
func (st *state) watch(l *link) {
	silence, now := int64(st.cfg.timing.silence), clock(st.now)
	alive := silence / 5
	if l.fellow {
		silence = int64(st.cfg.timing.fellow)
		alive = silence / 3
		st.feed(l) // whether it may be asked depends on others
	}
	if l.stock != nil {
		if len(l.asks) > 0 && l.stockSilent(st.now) > st.cfg.timing.silence {
			st.leave(l, "does not answer", nil)
			return
		}
		silence = int64(stockSilence)
	}
	if now-l.received.Load() > silence {
		st.leave(l, "is silent", nil)
		return
	}
	if now-l.sent.Load() > alive {
		st.send(l, peerwire.KeepAlive{})
	}
	if piece, ok := st.pull.Tardy(l.Source, st.now); ok && st.hand == nil {
		a := l.asks[piece]
		l.Refuse(piece)
		tiles := a.asked[l]
		st.giveBack(l, a)
		st.sendTile(l, peerwire.Cancel{Piece: piece, Tiles: tiles})
		st.feedAll()
		if !st.linked(l) {
			return
		}
	}
	silent := l.silentFor(st.now)
	if silent > st.cfg.timing.hush {
		for _, a := range l.asks {
			if a.foretold != nil && a.foretold.from == l {
				st.belie(a)
			}
		}
	}
	switch {
	case l.Stalled && silent < st.cfg.timing.stall:
		l.Stalled = false
		st.feed(l)
	case len(l.asks) > 0 && silent > st.cfg.timing.stall:
		l.Stalled = true
		for _, a := range l.asks {
			if st.pull.Others(l.Source, a.piece) {
				st.sendTile(l, peerwire.Cancel{Piece: a.piece, Tiles: a.asked[l]})
				st.giveBack(l, a)
			}
		}
		st.feedAll()
	}
}

// pace adapts the hand-out's window to the rate of sending.
func (st *state) pace() {
	elapsed := st.now.Sub(st.lastTick)
	if elapsed < st.cfg.timing.tick/2 {
		return
	}
	sent := st.count.toPeers.Load()
	rate := float64(sent-st.sentBefore) / elapsed.Seconds()
	st.sentRate += (rate - st.sentRate) / 4
	st.sentBefore, st.lastTick = sent, st.now
	mean := st.count.total.Load() / int64(max(st.data.Len(), 1))
	if announced := st.hand.Announced(); announced >= schedule.MinWindow {
		mean = min(mean, sent/int64(announced))
	}
	st.hand.Pace(st.sentRate, mean)
}

// retry asks again for what was refused, and of who has some tiles of a piece: they were of no use any more, but what comes
// may be wrong, or forgotten for another piece.
func (st *state) retry() {
	for _, l := range st.all {
		st.remind(l)
		l.Retry()
		for piece := range l.partial {
			if st.have.Has(piece) {
				delete(l.partial, piece)
			} else {
				l.Partial(piece)
			}
		}
		st.feed(l)
	}
	if st.hand != nil {
		st.hand.Retry()
		st.show()
	}
}

// publish makes the state visible to Stats and Bitfield.
func (st *state) publish() {
	seeders, lacking, needed := 0, 0, false
	for _, l := range st.all {
		switch {
		case l.appliance:
			seeders++
		case l.Ready && !l.HandsOut && l.Has.Lacks(st.data):
			lacking++
			needed = needed || l.Has.Lacks(st.have)
		}
	}
	c := &st.count
	c.peers.Store(int64(len(st.all)))
	c.seeders.Store(int64(seeders))
	c.lacking.Store(int64(lacking))
	c.needed.Store(needed)
	held := int64(st.have.Len())
	if old := c.piecesHeld.Swap(held); old != held || st.bits.Load() == nil {
		b := st.have.Bitfield(st.cfg.Pieces.Count())
		st.bits.Store(&b)
	}
}
