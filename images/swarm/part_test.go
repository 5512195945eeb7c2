package swarm

import (
	"testing"
	"time"

	"seedbed/images"
)

// part is content of which only some pieces are wanted.
type part struct {
	*content
	wanted func(piece int) bool
}

func (p *part) Data(piece int) images.TileSet {
	if !p.wanted(piece) {
		return images.TileSet{}
	}
	return p.content.Data(piece)
}

// runPart starts a peer that wants a part.
func (s *site) runPart(c *content, storage *store, wanted func(int) bool, change func(*Config)) *peer {
	return s.run(c, storage, func(cfg *Config) {
		cfg.Pieces, cfg.Part, cfg.TLS = &part{c, wanted}, true, s.tls(URIRolePart)
		if change != nil {
			change(cfg)
		}
	})
}

func TestAPartIsFetchedAndNothingElseAndTheOthersAreNotHeldUp(t *testing.T) {
	s, c := newSite(t), newContent(16*mib, 256<<10)
	a := s.appliance(c, fullStore(c), nil)
	even, whole, own := emptyStore(c), emptyStore(c), emptyStore(c)
	wanted := func(piece int) bool { return piece%2 == 0 }
	p := s.runPart(c, even, wanted, nil)
	m := s.run(c, whole, nil)
	late := s.run(c, own, nil)
	meet(a, p, m, late)
	for _, peer := range []*peer{p, m, late} {
		wait(t, peer, 20*time.Second)
	}
	equal(t, whole)
	equal(t, own)
	for i := range c.Count() {
		if held := even.Held(i); wanted(i) && held != c.Data(i) || !wanted(i) && !held.IsEmpty() {
			t.Fatalf("piece %d: %d tiles are held", i, held.Len())
		}
	}
	if stats := p.Stats(); stats.Held != stats.Total || stats.Total >= c.dataLength() {
		t.Errorf("%+v of %d", stats, c.dataLength())
	}
}

func TestWhoHoldsAPartHandsItOut(t *testing.T) {
	s, c := newSite(t), newContent(16*mib, 256<<10)
	peers := make([]*peer, 2)
	for rank := range peers {
		peers[rank] = s.runPart(c, fullStore(c), func(piece int) bool { return piece%2 == rank }, func(cfg *Config) { cfg.HandOut = true })
	}
	disk := emptyStore(c)
	m := s.run(c, disk, nil)
	meet(peers[0], peers[1], m)
	wait(t, m, 20*time.Second)
	equal(t, disk)
	for rank, p := range peers {
		want := p.Stats().Total
		for piece := range c.Count() {
			want += int64(32 * p.cfg.Pieces.Data(piece).Len())
		}
		if sent := p.Stats().ToPeers; sent != want {
			t.Errorf("peer %d sent %d bytes of its %d", rank, sent, want)
		}
	}
}

// A room whose machines all keep a part of their disks is handed the rest as one that lacks everything: each piece once, and the
// machines exchange it.
func TestARoomThatWantsAPartIsHandedItOnce(t *testing.T) {
	for name, whole := range map[string]int{"all keep something": 0, "some lack everything": 2} {
		t.Run(name, func(t *testing.T) {
			s, c := newSite(t), newContent(12*mib, 64<<10)
			a := s.appliance(c, fullStore(c), func(cfg *Config) { cfg.Fresh, cfg.Transport.UploadLimit = true, 12*mib })
			wanted := func(piece int) bool { return piece < 2*c.Count()/3 }
			peers, disks := []*peer{a}, []*store{}
			for i := range 6 {
				disks = append(disks, emptyStore(c))
				if i < whole {
					peers = append(peers, s.run(c, disks[i], nil))
				} else {
					peers = append(peers, s.runPart(c, disks[i], wanted, nil))
				}
			}
			meet(peers...)
			for _, p := range peers[1:] {
				wait(t, p, 30*time.Second)
			}
			lacked := int64(0) // by the one that lacks most
			for i, p := range peers[1:] {
				lacked = max(lacked, p.Stats().Total)
				for piece := range c.Count() {
					if held := disks[i].Held(piece); (i < whole || wanted(piece)) && held != c.Data(piece) || i >= whole && !wanted(piece) && !held.IsEmpty() {
						t.Fatalf("machine %d holds %d tiles of piece %d", i, held.Len(), piece)
					}
				}
			}
			sent := float64(a.Stats().ToPeers) / float64(lacked)
			t.Logf("the appliance sent %.2f times what a machine lacked, to six", sent)
			if sent > 1.3 {
				t.Errorf("the appliance sent %.2f times what a machine lacked", sent)
			}
		})
	}
}

// A machine of an earlier version does not tell which part it wants: it sees everything and chooses.
func TestWhoDoesNotTellWhichPartItWantsGetsItAllTheSame(t *testing.T) {
	s, c := newSite(t), newContent(4*mib, 256<<10)
	a := s.appliance(c, fullStore(c), nil)
	disk := emptyStore(c)
	p := s.runPart(c, disk, func(piece int) bool { return piece%2 == 0 }, func(cfg *Config) { cfg.Part = false })
	meet(a, p)
	wait(t, p, 20*time.Second)
	if stats := p.Stats(); stats.Held != stats.Total || stats.Total == c.dataLength() {
		t.Errorf("%+v of %d", stats, c.dataLength())
	}
}
