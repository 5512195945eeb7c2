package swarm

import (
	"time"

	"seedbed/images"
	"seedbed/images/peerwire"
	"seedbed/images/tile"
)

// A stock peer sends no tile hashes. Where they are not known, all data of a piece is fetched from that peer alone, and
// the hashes of its tiles must give the piece's hash; else somebody lied, and it was this peer. Where they are known,
// tiles may come from anybody, as everywhere.

// hashesKnown reports whether each tile of a piece can be judged by itself.
func (st *state) hashesKnown(piece int, a *assembly) bool {
	return a != nil && a.hashes != nil || st.cfg.Storage.TileHashes(piece) != nil
}

// prepareStock prepares a piece to be asked of a stock peer: if its tiles cannot be judged one by one, what others began is
// forgotten. false says that somebody else is asked for it and that this peer cannot help.
func (st *state) prepareStock(l *link, piece int) bool {
	a := st.assemblies[piece]
	if a == nil || st.hashesKnown(piece, a) {
		return a == nil || !a.early
	}
	if len(a.asked) > 0 || a.checking {
		return false
	}
	if a.need == st.cfg.Pieces.Data(piece) && a.allFrom(l) {
		return true
	}
	st.discard(a)
	return true
}

// needOf returns the tiles to fetch of a piece that nobody began, and whether the hashes have to come first. again are
// those that are held already, and fetched to judge the others.
func (st *state) needOf(l *link, piece int) (need, again images.TileSet, early bool) {
	data, held := st.cfg.Pieces.Data(piece), st.cfg.Storage.Held(piece)
	if l.stock != nil && !st.hashesKnown(piece, nil) {
		return data, held.Intersect(data), false
	}
	return data.Minus(held), images.TileSet{}, st.inPart(piece) && l.stock == nil
}

// requestStock asks a stock peer for tiles, as blocks.
func (st *state) requestStock(l *link, m peerwire.Request) {
	for t := range m.Tiles.All() {
		length := st.cfg.Pieces.TileLength(m.Piece, t)
		for at := 0; at < length; at += blockLength {
			l.stock.queue = append(l.stock.queue, peerwire.Span{
				ID: peerwire.IDRequest, Piece: uint32(m.Piece), Begin: uint32(t*images.TileLength + at), Length: uint32(min(blockLength, length-at)),
			})
		}
	}
	l.blockAt = st.now
	st.pump(l)
}

// pump sends requests as far as the peer takes them.
func (st *state) pump(l *link) {
	k := l.stock
	for len(k.queue) > 0 && len(k.pending) < k.depth && !l.Choking {
		m := k.queue[0]
		k.queue = k.queue[1:]
		k.pending[m] = struct{}{}
		st.send(l, m)
		if !st.linked(l) {
			return
		}
	}
}

// dropStock forgets what was asked of a stock peer of a piece; what is under way is taken back.
func (st *state) dropStock(l *link, piece int) {
	k := l.stock
	kept := k.queue[:0]
	for _, m := range k.queue {
		if int(m.Piece) != piece {
			kept = append(kept, m)
		}
	}
	k.queue = kept
	for m := range k.pending {
		if int(m.Piece) == piece {
			delete(k.pending, m)
			m.ID = peerwire.IDCancel
			l.out.send(m)
		}
	}
	for at := range k.filling {
		if at[0] == piece {
			delete(k.filling, at)
		}
	}
}

// requested reports whether a block is to come.
func (k *stock) requested(m peerwire.Span) bool {
	_, ok := k.pending[m]
	return ok
}

// receiveBlock takes a block in. One that was not asked for, or not any more, is of no use.
func (st *state) receiveBlock(l *link, m peerwire.Block) error {
	n := int64(len(m.Data))
	asked := peerwire.Span{ID: peerwire.IDRequest, Piece: m.Piece, Begin: m.Begin, Length: uint32(n)}
	if l.stock == nil || !l.stock.requested(asked) {
		st.countFrom(l, n)
		st.count.wasted.Add(n)
		return l.waste(0, n)
	}
	delete(l.stock.pending, asked)
	l.blockAt = st.now
	piece, t := int(m.Piece), int(m.Begin)/images.TileLength
	length := st.cfg.Pieces.TileLength(piece, t)
	at := [2]int{piece, t}
	f := l.stock.filling[at]
	if f == nil {
		f = &filling{make([]byte, length), (length + blockLength - 1) / blockLength}
		l.stock.filling[at] = f
	}
	copy(f.raw[int(m.Begin)%images.TileLength:], m.Data)
	f.left--
	if st.pump(l); f.left > 0 || !st.linked(l) {
		st.pull.Progress(piece, st.now)
		return nil
	}
	delete(l.stock.filling, at)
	e := tile.Encoded{Codec: tile.Stored, Length: int32(length), Bytes: f.raw}
	return st.receiveTiles(l, peerwire.Tiles{Piece: piece, Tiles: []peerwire.IndexedTile{{Index: t, Encoded: e}}}, nil)
}

// receiveBlockReject takes a refusal: the piece is asked of others.
func (st *state) receiveBlockReject(l *link, m peerwire.Span) {
	m.ID = peerwire.IDRequest
	if !l.stock.requested(m) {
		return
	}
	delete(l.stock.pending, m)
	if a := l.asks[int(m.Piece)]; a != nil {
		l.Refuse(a.piece)
		st.giveBack(l, a)
		st.feedAll()
	}
}

// choked gives back what was asked of a stock peer that takes no requests now: it answers none of them.
func (st *state) choked(l *link) {
	if l.stock == nil || len(l.asks) == 0 {
		return
	}
	clear(l.stock.pending)
	for _, a := range l.asks {
		st.giveBack(l, a)
	}
	st.feedAll()
}

// stockSilent returns how long no block came that was asked for.
func (l *link) stockSilent(now time.Time) time.Duration { return now.Sub(l.blockAt) }

// checkWhole judges a piece that came from one stock peer by the piece's hash, and writes it.
func (s *Swarm) checkWhole(a *assembly, buf []byte) (verdict, []byte) {
	v := verdict{a: a}
	if n := s.lengthOf(a.piece, a.need); int64(cap(buf)) < n {
		buf = make([]byte, n)
	}
	at := 0
	var hashes []images.Digest
	var list [][]byte
	for i := range a.need.All() {
		end := at + s.cfg.Pieces.TileLength(a.piece, i)
		raw, err := a.tiles[i].Raw(buf[at:at:end])
		if err != nil || len(raw) != end-at {
			v.bad = a.need
			return v, buf
		}
		hashes, list = append(hashes, tile.Hash(raw)), append(list, raw)
		at = end
	}
	if s.cfg.Pieces.CheckHashes(a.piece, hashes) != nil {
		v.bad = a.need
		return v, buf
	}
	s.cfg.Storage.Learn(a.piece, hashes)
	return s.put(v, list), buf
}
