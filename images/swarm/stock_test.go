package swarm

import (
	"bytes"
	"crypto/sha1"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"seedbed/images"
	"seedbed/images/peerwire"
)

// What an open swarm asks of its content.
func (c *content) PieceLength() int64 { return int64(c.pieceLength) }
func (c *content) Tiles(piece int) int {
	return int(images.TileCount(int64(min(c.pieceLength, len(c.raw)-piece*c.pieceLength))))
}

var openNames = Open{V1: sha1.Sum([]byte("v1")), Plain: sha1.Sum([]byte("plain")), Info: bytes.Repeat([]byte("i"), 20<<10)}

// open makes a peer one of an open swarm.
func open(change func(*Config)) func(*Config) {
	return func(cfg *Config) {
		quick(cfg)
		cfg.TLS, cfg.Open = nil, &openNames
		if change != nil {
			change(cfg)
		}
	}
}

// oldClient is a stock peer that has everything, by hand: it knows neither extensions nor refusals, only the plain name, and
// answers requests as answer says.
type oldClient struct {
	t      *testing.T
	c      *content
	l      net.Listener
	answer func(m peerwire.Span, data []byte) []peerwire.Message
	served sync.WaitGroup

	mu    sync.Mutex // guards the rest
	links int        // that got as far as requests
}

func newOldClient(t *testing.T, c *content, address string, answer func(peerwire.Span, []byte) []peerwire.Message) *oldClient {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	o := &oldClient{t: t, c: c, l: l, answer: answer}
	var mu sync.Mutex
	var conns []net.Conn
	o.served.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, conn)
			mu.Unlock()
			o.served.Go(func() { o.serve(conn) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for _, conn := range conns {
			conn.Close()
		}
		mu.Unlock()
		o.served.Wait()
	})
	return o
}

func (o *oldClient) addr() netip.AddrPort { return addrPort(o.l.Addr()) }

func (o *oldClient) serve(conn net.Conn) {
	defer conn.Close()
	theirs, err := peerwire.ReadHandshake(conn)
	if err != nil || theirs.InfoHash != openNames.Plain {
		return // as clients do that do not know the name
	}
	mine := peerwire.Handshake{InfoHash: theirs.InfoHash, PeerID: [20]byte{'-', 'O', 'L', 'D', byte(o.addr().Port())}}
	all := bytes.Repeat([]byte{0xff}, (o.c.Count()+7)/8)
	if spare := len(all)*8 - o.c.Count(); spare > 0 {
		all[len(all)-1] <<= spare
	}
	send := func(list ...peerwire.Message) {
		var b []byte
		for _, m := range list {
			b = peerwire.Append(b, m)
		}
		conn.Write(b)
	}
	conn.Write(mine.Append(nil))
	send(peerwire.Bitfield{Bits: all})
	for r, first := peerwire.NewReader(conn), true; ; {
		m, err := r.Next()
		if err != nil {
			return
		}
		switch m := m.(type) {
		case peerwire.Bare:
			if m == peerwire.Interested {
				send(peerwire.Unchoke)
			}
		case peerwire.Extended:
			o.t.Error("an extended message to a client that does not know them")
		case peerwire.Span:
			switch {
			case m.ID == peerwire.IDReject:
				o.t.Error("a refusal to a client that does not know them")
			case m.ID == peerwire.IDRequest:
				if first {
					o.mu.Lock()
					o.links++
					o.mu.Unlock()
				}
				first = false
				at := int(m.Piece)*o.c.pieceLength + int(m.Begin)
				send(o.answer(m, bytes.Clone(o.c.raw[at:at+int(m.Length)]))...)
			}
		}
	}
}

func (o *oldClient) linked() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.links
}

func honest(m peerwire.Span, data []byte) []peerwire.Message {
	return []peerwire.Message{peerwire.Block{Piece: m.Piece, Begin: m.Begin, Data: data}}
}

func TestAStockPeerThatLiesIsBarred(t *testing.T) {
	c := newContent(6<<20+512, 256<<10)
	s := newSite(t)
	liar := newOldClient(t, c, "127.0.0.2:0", func(m peerwire.Span, data []byte) []peerwire.Message {
		data[len(data)/2] ^= 1
		return honest(m, data)
	})
	storage := emptyStore(c)
	p := s.run(c, storage, open(nil))
	p.AddPeers([]netip.AddrPort{liar.addr()})
	until(t, 10*time.Second, "the liar is asked", func() bool { return liar.linked() == 1 })
	until(t, 10*time.Second, "the liar is cut", func() bool { return p.Stats().Peers == 0 })
	if held := p.Stats().Held; held != 0 {
		t.Errorf("%d bytes of a liar were taken", held)
	}
	friend := newOldClient(t, c, "127.0.0.3:0", honest)
	p.AddPeers([]netip.AddrPort{friend.addr()})
	wait(t, p, 20*time.Second)
	equal(t, storage)
	if n := liar.linked(); n != 1 {
		t.Errorf("the liar was asked on %d links", n)
	}
}

// TestAStockPeerThatChokesAndAnswersInAnyOrder has a client that drops all requests now and then, as BEP 3 lets it, and
// answers the others in pairs, the second first. Where one is left over it is never answered: the link is given up then.
func TestAStockPeerThatChokesAndAnswersInAnyOrder(t *testing.T) {
	c := newContent(4<<20+512, 1<<20)
	s := newSite(t)
	n := 0
	var kept peerwire.Message
	client := newOldClient(t, c, "127.0.0.2:0", func(m peerwire.Span, data []byte) (list []peerwire.Message) {
		n++
		switch block := honest(m, data)[0]; {
		case n%97 == 0:
			kept = nil
			return []peerwire.Message{peerwire.Choke, peerwire.Unchoke}
		case n%2 == 0 || kept != nil:
			list = append(list, block)
			if kept != nil {
				list = append(list, kept)
			}
			kept = nil
		default:
			kept = block
		}
		return list
	})
	storage := emptyStore(c)
	p := s.run(c, storage, open(nil))
	p.AddPeers([]netip.AddrPort{client.addr()})
	wait(t, p, 20*time.Second)
	equal(t, storage)
}

// guest is a connection of a stock client to a peer of ours, by hand.
type guest struct {
	t    *testing.T
	conn net.Conn
	r    *peerwire.Reader
}

func (g *guest) send(list ...peerwire.Message) {
	g.t.Helper()
	for _, m := range list {
		if _, err := g.conn.Write(peerwire.Append(nil, m)); err != nil {
			g.t.Fatal(err)
		}
	}
}

// next returns the next message that ok likes.
func (g *guest) next(what string, ok func(peerwire.Message) bool) peerwire.Message {
	g.t.Helper()
	g.conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	for {
		m, err := g.r.Next()
		if err != nil {
			g.t.Fatalf("waiting for %s: %v", what, err)
		}
		if ok(m) {
			return m
		}
	}
}

func newGuest(t *testing.T, p *peer, name [20]byte) *guest {
	t.Helper()
	conn, err := net.Dial("tcp", p.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	h := peerwire.Handshake{Reserved: peerwire.Features(), InfoHash: name, PeerID: [20]byte{'-', 'G', 'U', name[0]}}
	if _, err := conn.Write(h.Append(nil)); err != nil {
		t.Fatal(err)
	}
	theirs, err := peerwire.ReadHandshake(conn)
	if err != nil || theirs.InfoHash != name {
		t.Fatalf("under the name %x: answer %x, %v", name, theirs.InfoHash, err)
	}
	g := &guest{t, conn, peerwire.NewReader(conn)}
	g.send(peerwire.HaveNone, peerwire.ExtendedHandshake{Metadata: 7}.Message())
	return g
}

func isBlock(m peerwire.Message) bool { _, ok := m.(peerwire.Block); return ok }

func isSpan(id peerwire.ID) func(peerwire.Message) bool {
	return func(m peerwire.Message) bool { s, ok := m.(peerwire.Span); return ok && s.ID == id }
}

// TestStockPeersAreServedWhateverTheyAsk covers the three names, what lies behind the end, refusals, the info dictionary, and
// hashes.
func TestStockPeersAreServedWhateverTheyAsk(t *testing.T) {
	c := newContent(4<<20+512, 256<<10)
	s := newSite(t)
	p := s.appliance(c, fullStore(c), open(nil))
	var info images.InfoHash
	for _, name := range [][20]byte{openNames.V1, openNames.Plain, p.cfg.InfoHash.Wire()} {
		info = p.cfg.InfoHash
		g := newGuest(t, p, name)
		bits := g.next("bitfield", func(m peerwire.Message) bool { _, ok := m.(peerwire.Bitfield); return ok }).(peerwire.Bitfield).Bits
		for piece := range c.Count() {
			if held := bits[piece/8]<<(piece%8)&0x80 != 0; held != c.data[piece].IsEmpty() {
				t.Errorf("piece %d, data %v: announced at the start %v", piece, !c.data[piece].IsEmpty(), held)
			}
		}
		shown := g.next("a piece that is handed out", func(m peerwire.Message) bool { i, ok := m.(peerwire.Indexed); return ok && i.ID == peerwire.IDHave })
		piece := shown.(peerwire.Indexed).Piece
		last := uint32(c.Count() - 1)
		for _, m := range []peerwire.Span{
			{ID: peerwire.IDRequest, Piece: piece, Begin: 3 * blockLength, Length: blockLength}, {ID: peerwire.IDRequest, Piece: piece, Begin: 100, Length: 100 << 10},
			{ID: peerwire.IDRequest, Piece: last, Begin: 0, Length: blockLength}, {ID: peerwire.IDRequest, Piece: last, Begin: 128 << 10, Length: blockLength},
		} {
			g.send(m)
			b := g.next("a block", isBlock).(peerwire.Block)
			want := make([]byte, m.Length)
			if at := int(m.Piece)*c.pieceLength + int(m.Begin); at < len(c.raw) {
				copy(want, c.raw[at:])
			}
			if b.Piece != m.Piece || b.Begin != m.Begin || !bytes.Equal(b.Data, want) {
				t.Errorf("%+v: the block at %d of piece %d differs", m, b.Begin, b.Piece)
			}
		}
		g.send(peerwire.Extended{Kind: metadataKind, Payload: []byte("d8:msg_typei0e5:piecei1ee")})
		x := g.next("the info dictionary", func(m peerwire.Message) bool { x, ok := m.(peerwire.Extended); return ok && x.Kind == 7 }).(peerwire.Extended)
		if name == openNames.Plain && !bytes.Contains(x.Payload, []byte("8:msg_typei2e")) {
			t.Errorf("a dictionary that there is not: %.60q", x.Payload)
		}
		if name != openNames.Plain && (!bytes.Contains(x.Payload, []byte("8:msg_typei1e")) || !bytes.HasSuffix(x.Payload, openNames.Info[16<<10:])) {
			t.Errorf("the second piece of the dictionary is %.60q", x.Payload)
		}
		g.send(peerwire.Unknown{ID: idHashRequest, Payload: make([]byte, hashHeadLength)})
		g.next("a refusal of hashes", func(m peerwire.Message) bool { u, ok := m.(peerwire.Unknown); return ok && u.ID == idHashReject })
		g.send(peerwire.Span{ID: peerwire.IDRequest, Piece: piece, Begin: uint32(c.pieceLength) - 1, Length: 2})
		g.conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		for {
			if _, err := g.r.Next(); err != nil {
				break // cut, for what is behind the end of a piece
			}
		}
	}
	if conn, err := net.Dial("tcp", p.Addr().String()); err != nil {
		t.Fatal(err)
	} else {
		defer conn.Close()
		conn.Write(peerwire.Handshake{InfoHash: [20]byte{1}}.Append(nil))
		conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := peerwire.ReadHandshake(conn); err == nil {
			t.Errorf("a handshake for another swarm than %s was answered", info)
		}
	}
}

func TestAPeerThatLacksAPieceRefusesItsBlocks(t *testing.T) {
	c := newContent(2<<20, 256<<10)
	p := newSite(t).run(c, emptyStore(c), open(nil))
	g := newGuest(t, p, openNames.V1)
	for piece := range c.Count() {
		if !c.data[piece].IsEmpty() {
			g.send(peerwire.Span{ID: peerwire.IDRequest, Piece: uint32(piece), Length: blockLength})
			if m := g.next("a refusal", isSpan(peerwire.IDReject)).(peerwire.Span); int(m.Piece) != piece {
				t.Errorf("refused piece %d for %d", m.Piece, piece)
			}
			return
		}
	}
	t.Fatal("no piece has data")
}

// TestOpenPeersSpeakTilesAmongEachOther has three of ours in an open swarm, one of which knows a stock peer alone.
func TestOpenPeersSpeakTilesAmongEachOther(t *testing.T) {
	c := newContent(4<<20+512, 256<<10)
	s := newSite(t)
	client := newOldClient(t, c, "127.0.0.2:0", honest)
	first, second := emptyStore(c), emptyStore(c)
	a, b := s.run(c, first, open(nil)), s.run(c, second, open(nil))
	a.AddPeers([]netip.AddrPort{client.addr()})
	b.AddPeers([]netip.AddrPort{a.Addr()})
	wait(t, a, 20*time.Second)
	wait(t, b, 20*time.Second)
	equal(t, first)
	equal(t, second)
	if hashes := second.TileHashes(0); hashes == nil && !c.data[0].IsEmpty() {
		t.Error("the second has no tile hashes: it was not given tiles")
	}
}

func TestAnOpenSwarmIsConfiguredWhole(t *testing.T) {
	c := newContent(1<<20, 256<<10)
	for name, cfg := range map[string]Config{
		"with TLS":                  {Open: &openNames, TLS: newSite(t).tls()},
		"for a part":                {Open: &openNames, Part: true},
		"neither open nor closed":   {},
		"without the piece's whole": {Open: &openNames, Pieces: struct{ Pieces }{c}},
	} {
		if cfg.Pieces == nil {
			cfg.Pieces = c
		}
		cfg.Storage = fullStore(c)
		if _, err := New(cfg); err == nil {
			t.Errorf("a swarm %s was made", name)
		}
	}
}
