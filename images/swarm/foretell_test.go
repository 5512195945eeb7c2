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

// foretold starts a machine, links a neighbour that lacks everything with it, and then an appliance whose reads wait until
// read is closed. It returns the first piece that the machine announced, while it held none.
func (s *site) foretold(c *content, read chan struct{}, err error) (m *peer, x *intruder, piece int, announced map[int]int) {
	t := s.t
	disk := emptyStore(c)
	m = s.run(c, disk, nil)
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

func TestRequestThatWaitsCanBeCancelled(t *testing.T) {
	s, c, read := newSite(t), newContent(1536<<10, 256<<10), make(chan struct{})
	m, x, piece, announced := s.foretold(c, read, nil)
	x.ask(c, piece)
	x.send(peerwire.AppendTile(nil, tileKind, peerwire.Cancel{Piece: piece, Tiles: c.data[piece]}))
	other := (piece + 1) % c.Count()
	close(read)
	wait(t, m, 20*time.Second)
	x.ask(c, other)
	if !x.tiles(c, other, announced) { // and no tile of the first
		t.Error("refused")
	}
}
