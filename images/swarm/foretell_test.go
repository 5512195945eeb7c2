package swarm

import (
	"errors"
	"testing"
	"time"

	"seedbed/images"
	"seedbed/images/peerwire"
	"seedbed/images/tile"
)

// tiles reads on until all of a piece came, which has to be right; it counts announcements on the way. false says that the
// request was refused.
func (x *intruder) tiles(c *content, piece int, announced map[int]int) bool {
	x.t.Helper()
	var got images.TileSet
	for got != c.data[piece] {
		switch m := x.next().(type) {
		case peerwire.Indexed:
			if m.ID == peerwire.IDHave {
				announced[int(m.Piece)]++
			}
		case peerwire.Extended:
			if m.Kind != tileKind {
				continue
			}
			message, err := peerwire.DecodeTile(m.Payload)
			if err != nil {
				x.t.Fatal(err)
			}
			switch m := message.(type) {
			case peerwire.Hashes:
				if m.Piece == piece && len(m.Hashes) != c.data[piece].Len() {
					x.t.Fatalf("%d hashes", len(m.Hashes))
				}
				x.hashes++
			case peerwire.Reject:
				if m.Piece == piece {
					return false
				}
			case peerwire.Tiles:
				for _, one := range m.Tiles {
					if m.Piece != piece || got.Has(one.Index) {
						x.t.Fatalf("tile %d of piece %d", one.Index, m.Piece)
					}
					got.Add(one.Index)
				}
			}
		}
	}
	return true
}

// ask requests a piece.
func (x *intruder) ask(c *content, piece int) {
	x.send(peerwire.AppendTile(nil, tileKind, peerwire.Request{Piece: piece, Hashes: true, Tiles: c.data[piece]}))
}

// settle waits until the machine has taken up all that was sent to it: a request for a block, which is for stock peers, is refused
// at once. It counts announcements on the way.
func (x *intruder) settle(announced map[int]int) {
	x.t.Helper()
	x.send(peerwire.Append(nil, peerwire.Span{ID: peerwire.IDRequest, Length: 1}))
	for {
		switch m := x.next().(type) {
		case peerwire.Indexed:
			if m.ID == peerwire.IDHave {
				announced[int(m.Piece)]++
			}
		case peerwire.Span:
			if m.ID == peerwire.IDReject {
				return
			}
		}
	}
}

// foretold starts a machine, links a neighbour that lacks everything with it, and then an appliance whose reads wait until
// read is closed. It returns the first piece that the machine announced, while it held none.
func (s *site) foretold(c *content, read chan struct{}, err error) (m *peer, x *intruder, piece int, announced map[int]int) {
	t := s.t
	disk := emptyStore(c)
	m = s.run(c, disk, func(cfg *Config) {
		cfg.timing = defaultTiming
		cfg.timing.hush = time.Minute // the test takes its time
	})
	x, announced = newIntruder(t, s, m), map[int]int{}
	if x.ask(c, 0); x.tiles(c, 0, announced) || len(announced) > 0 {
		t.Fatal("a piece that nobody has")
	}
	full := fullStore(c)
	full.read = func(_ int, tiles []tile.Encoded) ([]tile.Encoded, error) {
		<-read
		return tiles, err
	}
	m.AddPeers(s.appliance(c, full, nil).addrs())
	for len(announced) == 0 {
		if have, ok := x.next().(peerwire.Indexed); ok && have.ID == peerwire.IDHave {
			piece = int(have.Piece)
			announced[piece]++
		}
	}
	if n := m.Stats().PiecesHeld; n != 0 {
		t.Fatalf("%d pieces are held", n)
	}
	return m, x, piece, announced
}

func TestPieceIsAnnouncedWhenItIsAskedForAndRequestsWait(t *testing.T) {
	s, c, read := newSite(t), newContent(1536<<10, 256<<10), make(chan struct{})
	m, x, piece, announced := s.foretold(c, read, nil)
	x.ask(c, piece)
	x.ask(c, piece) // once is enough
	x.settle(announced)
	close(read)
	if !x.tiles(c, piece, announced) {
		t.Fatal("refused")
	}
	wait(t, m, 20*time.Second)
	for p := range c.Count() {
		if p == piece {
			continue
		}
		if x.ask(c, p); !x.tiles(c, p, announced) {
			t.Fatalf("piece %d was refused", p)
		}
	}
	for p := range c.Count() {
		if announced[p] != 1 {
			t.Errorf("piece %d was announced %d times", p, announced[p])
		}
	}
}

func TestRequestsForAPieceThatDoesNotComeAreRefused(t *testing.T) {
	s, c, read := newSite(t), newContent(1536<<10, 256<<10), make(chan struct{})
	_, x, piece, announced := s.foretold(c, read, errors.New("the disk is broken"))
	x.ask(c, piece)
	close(read)
	if x.tiles(c, piece, announced) {
		t.Error("who could not be read, was")
	}
}

// A machine that holds some of a piece asks for the hashes first, and for no tile.
func TestHashesOfAPieceThatWasForetoldAreAwaitedToo(t *testing.T) {
	s, c, read := newSite(t), newContent(1536<<10, 256<<10), make(chan struct{})
	m, x, piece, announced := s.foretold(c, read, nil)
	x.send(peerwire.AppendTile(nil, tileKind, peerwire.Request{Piece: piece, Hashes: true}))
	close(read)
	wait(t, m, 20*time.Second)
	other := (piece + 1) % c.Count()
	if x.ask(c, other); !x.tiles(c, other, announced) || x.hashes != 2 {
		t.Errorf("%d messages of hashes, want those of two pieces", x.hashes)
	}
}

func TestRequestThatWaitsCanBeCancelled(t *testing.T) {
	s, c, read := newSite(t), newContent(1536<<10, 256<<10), make(chan struct{})
	m, x, piece, announced := s.foretold(c, read, nil)
	x.ask(c, piece)
	x.send(peerwire.AppendTile(nil, tileKind, peerwire.Cancel{Piece: piece, Tiles: c.data[piece]}))
	if x.ask(c, piece); x.tiles(c, piece, announced) {
		t.Fatal("sent what nobody holds")
	}
	close(read)
	wait(t, m, 20*time.Second)
	other := (piece + 1) % c.Count()
	if x.ask(c, other); !x.tiles(c, other, announced) { // and no tile of the first
		t.Fatal("refused")
	}
	if announced[piece] != 2 {
		t.Errorf("who took back what it asked for was told of the piece %d times, want again when it is held", announced[piece])
	}
}

// Who says that it hands out, and is no appliance and no seed node, makes a machine announce nothing.
func TestNothingIsForetoldForAStranger(t *testing.T) {
	s, c := newSite(t), newContent(1536<<10, 256<<10)
	m := s.run(c, emptyStore(c), nil)
	x := newIntruder(t, s, m)
	announced := map[int]int{}
	if x.ask(c, 0); x.tiles(c, 0, announced) {
		t.Fatal("a piece that nobody has")
	}
	liar := &intruder{t: t, cfg: s.tls(), handsOut: true}
	if err := liar.connect(s, m, peerwire.HaveNone); err != nil {
		t.Fatal(err)
	}
	liar.send(peerwire.Append(nil, peerwire.Have(3)))
	for asked := false; !asked; {
		if e, ok := liar.next().(peerwire.Extended); ok && e.Kind == tileKind {
			message, err := peerwire.DecodeTile(e.Payload)
			if err != nil {
				t.Fatal(err)
			}
			_, asked = message.(peerwire.Request)
		}
	}
	if x.ask(c, 3); x.tiles(c, 3, announced) || len(announced) > 0 {
		t.Errorf("announced: %v", announced)
	}
}
