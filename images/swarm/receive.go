package swarm

import (
	"fmt"
	"net/netip"
	"time"

	"seedbed/images"
	"seedbed/images/peerwire"
	"seedbed/images/schedule"
)

// receive deals with one message of a linked peer. An error drops the link.
func (st *state) receive(e received) error {
	l := e.l
	if handled, err := st.receiveStock(l, e.message); handled || err != nil {
		return err
	}
	switch m := e.message.(type) {
	case peerwire.Bare:
		return st.receiveBare(l, m.ID)
	case peerwire.Bitfield:
		has, err := schedule.ParseBitfield(m.Bits, st.cfg.Pieces.Count())
		if err != nil {
			return err
		}
		return st.announced(l, has)
	case peerwire.Indexed:
		if m.ID == peerwire.IDHave {
			return st.receiveHave(l, int(m.Piece))
		}
	case peerwire.Span:
		if m.ID == peerwire.IDRequest { // blocks are for stock peers of open swarms
			st.send(l, peerwire.Span{ID: peerwire.IDReject, Piece: m.Piece, Begin: m.Begin, Length: m.Length})
			return l.out.replied()
		}
	case peerwire.Extended:
		switch m.Kind {
		case 0:
			return st.receiveHandshake(l, m.Payload)
		case tileKind:
			return st.receiveTile(l, e.tile, e.memory)
		}
	}
	return nil
}

func (st *state) receiveBare(l *link, id peerwire.ID) error {
	switch id {
	case peerwire.IDHaveAll:
		all := schedule.NewSet(st.cfg.Pieces.Count())
		for i := range st.cfg.Pieces.Count() {
			all.Add(i)
		}
		return st.announced(l, all)
	case peerwire.IDHaveNone:
		return st.announced(l, schedule.NewSet(st.cfg.Pieces.Count()))
	case peerwire.IDChoke:
		l.Choking = true
		st.choked(l)
	case peerwire.IDUnchoke:
		l.Choking = false
		st.feed(l)
	}
	return nil
}

// announced takes the bitfield, which comes once and before everything else.
func (st *state) announced(l *link, has schedule.Set) error {
	if l.stock != nil && l.bits {
		return st.announcedAgain(l, has)
	}
	if l.bits || l.Ready && l.stock == nil {
		return fmt.Errorf("bitfield in the middle of a session")
	}
	l.bits = true
	st.pull.Announced(l.Source, has)
	if l.Ready {
		st.guestHas(l, has)
		st.feed(l)
	}
	return nil
}

func (st *state) receiveHave(l *link, piece int) error {
	if piece >= st.cfg.Pieces.Count() {
		return fmt.Errorf("have of piece %d of %d", piece, st.cfg.Pieces.Count())
	}
	l.bits = true
	st.pull.Have(l.Source, piece, st.have.Has(piece))
	if st.hand != nil && l.Ready {
		st.hand.Have(l.id, piece, st.now)
		st.hand.FellowHolds(l.id, piece)
		st.show()
	}
	if st.have.Has(piece) {
		return nil
	}
	if l.HandsOut {
		if st.pull.Unseen(piece) {
			st.looking.Want(piece)
		}
		if l.Shown() > st.cfg.Pieces.Count() {
			return fmt.Errorf("%d pieces handed out of %d", l.Shown(), st.cfg.Pieces.Count())
		}
	}
	st.feed(l)
	return nil
}

// receiveHandshake takes the extended handshake and answers with our sb_tile version and the tiles that we hold of
// pieces that are not whole.
func (st *state) receiveHandshake(l *link, payload []byte) error {
	h, err := peerwire.DecodeExtendedHandshake(payload)
	if st.greetStock(l, h) {
		return nil
	}
	switch {
	case err != nil:
		return err
	case h.Tile == 0:
		return fmt.Errorf("%q does not speak %s", h.Version, peerwire.TileExtension)
	case l.tileKind.Load() != 0:
		return nil // a later handshake may change what we do not use
	}
	l.tileKind.Store(int32(h.Tile))
	st.reachable(l, h.Port)
	if st.hand != nil && l.part {
		st.greetPart(l, h.Part)
	}
	st.sendTile(l, peerwire.Version{Version: peerwire.TileVersion, HandsOut: st.hand != nil && (!l.part || l.tells)})
	if st.hand != nil {
		return nil
	}
	l.untold = schedule.NewSet(st.cfg.Pieces.Count())
	for i := range st.data.All() {
		if !st.have.Has(i) && !st.heldOf(i).IsEmpty() {
			l.untold.Add(i)
		}
	}
	st.tellParts(l)
	return nil
}

// reachable notes where a peer that dialled us takes connections.
func (st *state) reachable(l *link, port uint16) {
	if !l.address.IsValid() && port != 0 && l.remote.IsValid() && st.hand == nil {
		l.address = netip.AddrPortFrom(l.remote.Addr(), port)
		st.bookOf(l).linked(l.address)
		st.relate(l)
	}
}

// receiveTile deals with one sb_tile message.
func (st *state) receiveTile(l *link, message peerwire.TileMessage, memory *[]byte) error {
	if v, ok := message.(peerwire.Version); ok {
		return st.receiveVersion(l, v)
	}
	if !l.Ready || l.tileKind.Load() == 0 {
		return fmt.Errorf("%s message before the version", peerwire.TileExtension)
	}
	switch m := message.(type) {
	case peerwire.HaveTiles:
		return st.receiveHaveTiles(l, m)
	case peerwire.Request:
		return st.receiveRequest(l, m)
	case peerwire.Hashes:
		return st.receiveHashes(l, m)
	case peerwire.Tiles:
		return st.receiveTiles(l, m, memory)
	case peerwire.Reject:
		if a := l.asks[m.Piece]; a != nil {
			l.Refuse(m.Piece)
			st.giveBack(l, a)
			st.feedAll()
		}
	case peerwire.Cancel:
		l.out.cancel(m.Piece, m.Tiles)
		st.cancelled(l, m)
	case peerwire.Wants:
		return st.receiveWants(l, m)
	case peerwire.Shown, peerwire.TakenBack, peerwire.Holds:
		return st.receiveFellow(l, m)
	}
	return nil
}

func (st *state) receiveHashes(l *link, m peerwire.Hashes) error {
	st.countFrom(l, int64(len(m.Hashes)*len(images.Digest{})))
	a := l.asks[m.Piece]
	if a == nil || a.hashes != nil || a.checking {
		return nil
	}
	if len(m.Hashes) != st.cfg.Pieces.Data(m.Piece).Len() {
		return fmt.Errorf("%d tile hashes of piece %d", len(m.Hashes), m.Piece)
	}
	if a.early {
		st.learn(l, a, m.Hashes)
	} else {
		a.hashes, a.hashesFrom = m.Hashes, l
	}
	return nil
}

// countFrom counts bytes of content that came.
func (st *state) countFrom(l *link, n int64) {
	if l.appliance {
		st.count.fromAppliance.Add(n)
	} else {
		st.count.fromPeers.Add(n)
	}
	if l.seed && !l.appliance {
		st.count.fromSeeds.Add(n)
	}
	if l.Upstream {
		st.count.fromUpstream.Add(n)
	}
}

func (st *state) receiveVersion(l *link, v peerwire.Version) error {
	switch {
	case v.Version != peerwire.TileVersion:
		return fmt.Errorf("%s of version %d, this program speaks %d", peerwire.TileExtension, v.Version, peerwire.TileVersion)
	case l.Ready:
		return fmt.Errorf("a second version")
	}
	l.HandsOut = v.HandsOut && st.hand == nil
	if l.HandsOut && st.cfg.Part {
		st.sendTile(l, peerwire.Wants{Bits: st.data.Bitfield(st.cfg.Pieces.Count())})
	}
	if st.hand != nil && v.HandsOut {
		st.meet(l)
		return nil
	}
	st.welcome(l)
	return nil
}

// welcome takes up a peer that said what it is.
func (st *state) welcome(l *link) {
	l.Ready = true
	if st.hand != nil && !l.appliance && !l.part {
		st.joinHand(l)
		st.show()
	}
	st.feed(l)
	st.publish()
}

// joinHand puts a peer among those who are shown pieces.
func (st *state) joinHand(l *link) {
	if hold := st.started.Add(st.cfg.timing.restart); !st.cfg.Fresh && st.now.Before(hold) && l.Has.Intersects(st.data) {
		st.hand.HoldUntil = hold
	}
	st.hand.Join(l.id, l.Has, st.now)
}

// greetPart says what we hold to a peer that wants a part of the content: one that tells which is shown pieces as others are, one of
// an earlier version sees all of them and chooses.
func (st *state) greetPart(l *link, tells bool) {
	if l.tells = tells; tells {
		st.send(l, peerwire.HaveNone)
		return
	}
	st.send(l, peerwire.Bitfield{Bits: st.claims().Bitfield(st.cfg.Pieces.Count())})
}

// receiveWants shows pieces from now on to a peer that wants a part of the content.
func (st *state) receiveWants(l *link, m peerwire.Wants) error {
	if st.hand == nil || !l.tells || l.wants {
		return nil
	}
	wants, err := schedule.ParseBitfield(m.Bits, st.cfg.Pieces.Count())
	if err != nil {
		return err
	}
	l.wants = true
	st.joinHand(l)
	st.hand.Wants(l.id, wants)
	st.show()
	return nil
}

func (st *state) receiveHaveTiles(l *link, m peerwire.HaveTiles) error {
	if st.cfg.Part && m.Piece < st.cfg.Pieces.Count() && !st.data.Has(m.Piece) {
		return nil // of what is not wanted
	}
	if m.Piece >= st.cfg.Pieces.Count() || !st.cfg.Pieces.Data(m.Piece).Contains(m.Tiles) {
		return fmt.Errorf("have-tiles of piece %d", m.Piece)
	}
	if st.have.Has(m.Piece) || l.Has.Has(m.Piece) {
		return nil
	}
	l.partial[m.Piece] = m.Tiles
	if held := st.cfg.Storage.Held(m.Piece); !m.Tiles.Minus(held).IsEmpty() {
		l.Partial(m.Piece)
		st.feed(l)
	}
	return nil
}

// receiveRequest queues tiles for a peer, or refuses them.
func (st *state) receiveRequest(l *link, m peerwire.Request) error {
	if m.Piece >= st.cfg.Pieces.Count() || !st.cfg.Pieces.Data(m.Piece).Contains(m.Tiles) {
		return fmt.Errorf("request of piece %d", m.Piece)
	}
	held := st.cfg.Storage.Held(m.Piece).Contains(m.Tiles)
	known := !m.Hashes || st.have.Has(m.Piece) || st.cfg.Storage.TileHashes(m.Piece) != nil
	switch {
	case (!held || !known) && st.awaits(l, m):
	case !held || !known:
		st.sendTile(l, peerwire.Reject{Piece: m.Piece, Tiles: m.Tiles})
		return l.out.replied()
	case !l.out.serve(upload{m.Piece, m.Hashes, m.Tiles}):
		return misconduct{"asks for more than it reads"}
	}
	return nil
}

// receiveTiles takes in tiles, which lie in memory. Those that were asked for once and are still needed are welcome too, if
// their hashes can say whether they are right: else who sent the others would be blamed for them.
func (st *state) receiveTiles(l *link, m peerwire.Tiles, memory *[]byte) error {
	if m.Piece >= st.cfg.Pieces.Count() {
		return fmt.Errorf("tiles of piece %d", m.Piece)
	}
	a := st.assemblies[m.Piece]
	asked, got, wasted := images.TileSet{}, int64(0), int64(0)
	if l.asks[m.Piece] != nil {
		asked = a.asked[l]
	}
	welcome := a != nil && (l.asks[m.Piece] != nil || st.hashesKnown(m.Piece, a))
	for _, t := range m.Tiles {
		n := int64(len(t.Bytes))
		got += n
		asked.Remove(t.Index)
		if !welcome || !a.put(l, t) {
			wasted += n
		} else if int(t.Length) != st.cfg.Pieces.TileLength(m.Piece, t.Index) {
			var wrong images.TileSet
			wrong.Add(t.Index)
			a.drop(wrong)
			return fmt.Errorf("tile %d of piece %d has %d bytes", t.Index, m.Piece, t.Length)
		}
	}
	if got > wasted && memory != nil {
		a.memory = append(a.memory, memory)
	}
	st.count.wasted.Add(wasted)
	st.countFrom(l, got)
	flood := l.waste(got-wasted, wasted)
	if a == nil {
		return flood
	}
	st.pull.Progress(m.Piece, st.now)
	if l.asks[m.Piece] != nil {
		if l.stock == nil && a.hashes == nil && !a.checking && st.cfg.Storage.TileHashes(m.Piece) == nil {
			a.drop(a.got) // nothing could say whether they are right
			return fmt.Errorf("tiles of piece %d without their hashes", m.Piece)
		}
		if a.asked[l] = asked; asked.IsEmpty() {
			st.answered(l, a)
		}
	}
	switch {
	case a.checking:
	case a.lacks().IsEmpty():
		st.complete(a)
	case len(a.asked) == 0:
		st.pull.GiveBack(a.piece, true)
		st.feedAll()
	}
	st.feed(l)
	return flood
}

// complete gives a piece whose tiles are all here to a worker; who else was asked need not send it.
func (st *state) complete(a *assembly) {
	a.checking = true
	st.pull.Complete(a.piece)
	for o, tiles := range a.asked {
		st.answered(o, a)
		st.sendTile(o, peerwire.Cancel{Piece: a.piece, Tiles: tiles})
		st.feed(o)
	}
	st.ready = append(st.ready, a)
}

// silentFor returns how long no byte came on the link, counted from the last request at the earliest.
func (l *link) silentFor(now time.Time) time.Duration {
	if l.stock != nil {
		return l.stockSilent(now)
	}
	return min(time.Duration(clock(now)-l.received.Load()), now.Sub(l.asked))
}
