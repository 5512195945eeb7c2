package swarm

import (
	"context"
	"sync"
	"testing"
	"time"

	"seedbed/images"
	"seedbed/images/peerwire"
	"seedbed/images/tile"
)

// newStock returns the state of a machine in an open swarm that does not run, with links to a stock peer and to one of ours
// which both have everything.
func newStock(t *testing.T, c *content, memory int64) (st *state, stocky, ours *link) {
	t.Helper()
	s, err := New(Config{Open: &Open{}, Pieces: c, Storage: emptyStore(c), MemoryBytes: memory})
	if err != nil {
		t.Fatal(err)
	}
	st = newState(s, context.Background(), &sync.WaitGroup{})
	st.now = time.Now()
	link := func(id int) *link {
		l := &link{id: id, end: s.net.ends[0], peer: [20]byte{byte(id)}, identity: [32]byte{byte(id)}, out: newOutbox()}
		l.conn = progressConn{raw: fake{}}
		l.Source, l.partial, l.asks = st.pull.Join(), map[int]images.TileSet{}, map[int]*assembly{}
		st.all[id], st.byPeer[l.acquaintance()] = l, l
		for p := range c.Count() {
			st.pull.Have(l.Source, p, false)
		}
		return l
	}
	stocky, ours = link(1), link(2)
	stocky.stock = &stock{pending: map[peerwire.Span]struct{}{}, filling: map[[2]int]*filling{}, depth: stockDepth}
	ours.Ready = true
	ours.tileKind.Store(tileKind)
	return st, stocky, ours
}

// tiles returns a message with tiles of a piece, the first of which is wrong if lie is set.
func (c *content) tiles(piece, first, end int, lie bool) (m peerwire.Tiles) {
	m.Piece = piece
	for i := first; i < end; i++ {
		b := append([]byte(nil), c.tile(piece, i)...)
		if lie && i == first {
			b[0] ^= 1
		}
		m.Tiles = append(m.Tiles, peerwire.IndexedTile{Index: i, Encoded: tile.Encoded{Codec: tile.Stored, Length: int32(len(b)), Bytes: b}})
	}
	return m
}

// A stock peer answers for a whole piece: what somebody else sends, who was not asked, must not come between.
func TestNobodySpoilsThePieceOfAStockPeer(t *testing.T) {
	c := newContent(mib/4, mib/4)
	st, stocky, ours := newStock(t, c, 0)
	stocky.Ready = true
	if !st.ask(stocky, 0) {
		t.Fatal("not asked")
	}
	if err := st.receiveTiles(ours, c.tiles(0, 0, 1, true), nil); err != nil {
		t.Fatal(err)
	}
	if err := st.receiveTiles(stocky, c.tiles(0, 0, 4, false), nil); err != nil {
		t.Fatal(err)
	}
	if len(st.ready) != 1 {
		t.Fatal("the piece is not complete")
	}
	if v, _ := st.check(st.ready[0], nil); !v.bad.IsEmpty() || v.badHashes || v.err != nil {
		t.Errorf("%+v", v)
	}
}

// What is forgotten for a stock peer may find no memory then: another piece has it.
func TestStockPeerAndNoMemory(t *testing.T) {
	c := newContent(mib/2, mib/4)
	st, stocky, ours := newStock(t, c, mib/2)
	begin := func(piece int) *assembly {
		if !st.ask(ours, piece) {
			t.Fatal("not asked")
		}
		a := st.assemblies[piece]
		a.put(ours, c.tiles(piece, 0, 1, false).Tiles[0])
		return a
	}
	a := begin(0)
	st.giveBack(ours, a)
	stocky.Ready = true
	st.memory.mu.Lock()
	st.memory.reserved += mib // pieces that are being fetched
	st.memory.mu.Unlock()
	if st.ask(stocky, 0) {
		t.Error("asked, though there is no memory")
	}
	if !st.pull.Missing(0) || st.assemblies[0] != nil {
		t.Error("the piece is not as it was before it was begun")
	}
}

// What a stock peer gave before it choked us is not thrown away when it may be asked again.
func TestStockPeerGoesOn(t *testing.T) {
	c := newContent(mib/4, mib/4)
	st, stocky, ours := newStock(t, c, 0)
	stocky.Ready, ours.Ready = true, false
	st.ask(stocky, 0)
	if err := st.receiveTiles(stocky, c.tiles(0, 0, 2, false), nil); err != nil {
		t.Fatal(err)
	}
	stocky.Choking = true
	st.choked(stocky)
	stocky.Choking = false
	st.feed(stocky)
	if got := st.assemblies[0].got.Len(); got != 2 {
		t.Errorf("%d tiles are left of 2", got)
	}
}

// Who does not read its answers gets no more long ones.
func TestAnswersAreBounded(t *testing.T) {
	st, stocky, _ := newStock(t, newContent(mib/4, mib/4), 0)
	st.cfg.Open.Info, stocky.metadata, stocky.name = make([]byte, mib), metadataKind, [20]byte{1}
	for range 3 * maxAnswers / peerwire.MetadataPieceLength {
		if err := st.receiveMetadata(stocky, []byte("d8:msg_typei0e5:piecei1ee")); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(stocky.out.control); n > maxAnswers+mib {
		t.Errorf("%d bytes wait", n)
	}
}
