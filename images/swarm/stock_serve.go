package swarm

import (
	"context"
	"fmt"

	"seedbed/images"
	"seedbed/images/peerwire"
)

// maxBlocks bounds the requests of blocks that wait on one link; libtorrent has up to 500 out.
const maxBlocks = 2000

// tilesAhead is how many tiles are read and decoded at once for a stock peer: 1 MiB.
const tilesAhead = 16

// serveBlock queues a request; false says that too many wait.
func (o *outbox) serveBlock(m peerwire.Span) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.blocks) >= maxBlocks {
		return false
	}
	o.blocks = append(o.blocks, m)
	o.signal()
	return true
}

// cancelBlock takes a request out of the queue; false says that it is not there any more.
func (o *outbox) cancelBlock(m peerwire.Span) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	for i, b := range o.blocks {
		if b.Piece == m.Piece && b.Begin == m.Begin && b.Length == m.Length {
			o.blocks = append(o.blocks[:i], o.blocks[i+1:]...)
			return true
		}
	}
	return false
}

// takeBlocks returns the next requests of one piece, at most n.
func (o *outbox) takeBlocks(n int) []peerwire.Span {
	o.mu.Lock()
	defer o.mu.Unlock()
	k := 0
	for k < min(n, len(o.blocks)) && o.blocks[k].Piece == o.blocks[0].Piece {
		k++
	}
	list := append([]peerwire.Span(nil), o.blocks[:k]...)
	if o.blocks = o.blocks[k:]; len(o.blocks) == 0 {
		o.blocks = nil
	}
	return list
}

// blockReader reads blocks of pieces, and keeps the tiles around the last one: stock clients ask for a piece in order.
// Owned by the goroutine that writes a link.
type blockReader struct {
	piece int
	tiles map[int][]byte // decoded
	buf   []byte
	more  bool          // blocks may wait
	sent  map[int]int64 // bytes of pieces that were sent in part
}

// sendBlocks sends the next blocks that a stock peer asked for; false says that it waits for none.
func (s *Swarm) sendBlocks(ctx context.Context, l *link) (sent bool, err error) {
	list := l.out.takeBlocks(l.up.share(peerwire.TilesTarget, messageTime, blockLength) / blockLength)
	if len(list) == 0 {
		return false, nil
	}
	var data []byte
	n := int64(0)
	for _, m := range list {
		b, err := s.block(ctx, &l.blocks, m)
		switch {
		case ctx.Err() != nil:
			return false, ctx.Err()
		case err != nil:
			s.cfg.Log.Warn("tiles could not be read", "piece", m.Piece, "peer", l.remote, "err", err)
			s.tell(unreadable{l, int(m.Piece)})
			if !l.fast {
				return false, err // nothing else would end its waiting
			}
			m.ID = peerwire.IDReject
			data = peerwire.Append(data, m)
			continue
		}
		data = peerwire.Append(data, peerwire.Block{Piece: m.Piece, Begin: m.Begin, Data: b})
		n += int64(len(b))
	}
	if err := l.writeData(ctx, data); err != nil {
		return false, err
	}
	s.count.toPeers.Add(n)
	s.noteSent(l, int(list[0].Piece), n)
	return true, nil
}

// noteSent tells the swarm when all of a piece was sent.
func (s *Swarm) noteSent(l *link, piece int, n int64) {
	r, whole := &l.blocks, s.cfg.Pieces.(Whole)
	if r.sent == nil {
		r.sent = map[int]int64{}
	}
	last := whole.Tiles(piece) - 1
	length := int64(last)*images.TileLength + int64(whole.TileLength(piece, last))
	if r.sent[piece] += n; r.sent[piece] >= length {
		delete(r.sent, piece)
		s.tell(given{l, piece})
	}
}

// block returns bytes of a piece: what free and zero tiles and the pad file have are zeros.
func (s *Swarm) block(ctx context.Context, r *blockReader, m peerwire.Span) ([]byte, error) {
	whole := s.cfg.Pieces.(Whole)
	piece, data := int(m.Piece), s.cfg.Pieces.Data(int(m.Piece))
	out := make([]byte, m.Length)
	for at := int(m.Begin); at < int(m.Begin+m.Length); {
		t := at / images.TileLength
		end := min((t+1)*images.TileLength, int(m.Begin+m.Length))
		if t < whole.Tiles(piece) && data.Has(t) {
			raw, err := s.decoded(ctx, r, piece, t)
			if err != nil {
				return nil, err
			}
			if from := at - t*images.TileLength; from < len(raw) {
				copy(out[at-int(m.Begin):end-int(m.Begin)], raw[from:])
			}
		}
		at = end
	}
	return out, nil
}

// decoded returns a data tile, and reads the data tiles behind it too.
func (s *Swarm) decoded(ctx context.Context, r *blockReader, piece, t int) ([]byte, error) {
	if r.piece == piece && r.tiles[t] != nil {
		return r.tiles[t], nil
	}
	var set images.TileSet
	for i := range s.cfg.Pieces.Data(piece).All() {
		if i >= t && i < t+tilesAhead {
			set.Add(i)
		}
	}
	list, err := s.readTiles(ctx, upload{piece: piece, tiles: set}, nil)
	if err != nil {
		return nil, err
	}
	r.piece, r.tiles = piece, map[int][]byte{}
	if r.buf == nil {
		r.buf = make([]byte, tilesAhead*images.TileLength)
	}
	for n, e := range list {
		room := r.buf[n*images.TileLength:][:0:images.TileLength]
		raw, err := e.Decode(room)
		if err == nil && len(raw) != s.cfg.Pieces.TileLength(piece, e.Index) {
			err = fmt.Errorf("it has %d bytes", len(raw))
		}
		if err != nil {
			r.tiles = nil
			return nil, fmt.Errorf("tile %d: %w", e.Index, err)
		}
		r.tiles[e.Index] = raw
	}
	return r.tiles[t], nil
}
