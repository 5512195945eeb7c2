package swarm

import (
	"errors"
	"sync"
	"testing"
	"time"

	"seedbed/images"
	"seedbed/images/tile"
)

// searched is a store that held some tiles before and finds out while the swarm runs. A want is looked at by itself,
// everything else when lookAll is called.
type searched struct {
	*store
	was []images.TileSet // tiles that are right

	mu     sync.Mutex // guards the rest
	swarm  *Swarm
	unseen map[int]bool
	inPart map[int]bool
	wanted int
}

func newSearched(c *content, was func(piece int) images.TileSet) *searched {
	s := &searched{store: emptyStore(c), unseen: map[int]bool{}, inPart: map[int]bool{}}
	for p := range c.Count() {
		s.was = append(s.was, was(p).Intersect(c.data[p]))
		s.unseen[p] = true
		for i := range s.was[p].All() {
			at := p*c.pieceLength + i*images.TileLength
			copy(s.raw[at:], c.tile(p, i))
		}
	}
	return s
}

func (s *searched) Unseen(piece int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.unseen[piece]
}

func (s *searched) InPart(piece int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.inPart[piece]
}

func (s *searched) Want(piece int) {
	s.mu.Lock()
	s.wanted++
	s.mu.Unlock()
	go s.lookAt(piece)
}

func (s *searched) lookAt(piece int) {
	s.mu.Lock()
	swarm := s.swarm
	if !s.unseen[piece] {
		s.mu.Unlock()
		return
	}
	delete(s.unseen, piece)
	if s.was[piece] == s.c.data[piece] {
		s.store.mu.Lock()
		s.store.held[piece], s.store.hashes[piece] = s.was[piece], s.c.hashes[piece]
		s.store.mu.Unlock()
	} else if !s.was[piece].IsEmpty() {
		s.inPart[piece] = true
	}
	s.mu.Unlock()
	swarm.Found(piece)
}

func (s *searched) Learn(piece int, hashes []images.Digest) {
	s.store.Learn(piece, hashes)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.inPart[piece] {
		delete(s.inPart, piece)
		s.store.mu.Lock()
		s.store.held[piece] = s.was[piece]
		s.store.mu.Unlock()
	}
}

// start runs a machine on the store.
func (s *searched) start(site *site, seeds *peer) *peer {
	s.mu.Lock() // the swarm must not want a piece before it is known
	defer s.mu.Unlock()
	m := site.run(s.c, s, func(cfg *Config) { cfg.Seeds = seeds.addrs() })
	s.swarm = m.Swarm
	return m
}

// thirds makes pieces of which all, some and no tiles are right, in turn.
func thirds(c *content) func(int) images.TileSet {
	return func(piece int) (set images.TileSet) {
		for i := range c.data[piece].All() {
			if piece%3 == 0 || piece%3 == 1 && i%4 != 2 {
				set.Add(i)
			}
		}
		return set
	}
}

func TestOnlyWhatASearchDidNotFindIsFetched(t *testing.T) {
	for name, handOut := range map[string]bool{"handed out": true, "from a machine": false} {
		t.Run(name, func(t *testing.T) {
			site, c := newSite(t), newContent(12<<20+images.TileLength/2, images.MinPieceLength*2)
			var source *peer
			if handOut {
				source = site.appliance(c, fullStore(c), nil)
			} else {
				source = site.run(c, fullStore(c), nil)
			}
			s := newSearched(c, thirds(c))
			m := s.start(site, source)
			if handOut {
				until(t, 10*time.Second, "every piece is looked at because it was handed out", func() bool { return m.Stats().Held == m.Stats().Total })
			} else {
				until(t, 10*time.Second, "a link", func() bool { return m.Stats().Peers == 1 })
				if got := m.Stats(); got.FromPeers != 0 || s.wanted != 0 {
					t.Errorf("%d bytes were fetched of pieces that were not looked at", got.FromPeers)
				}
				for p := range c.Count() {
					s.lookAt(p)
				}
			}
			wait(t, m, 10*time.Second)
			lacking, hashes := int64(0), int64(0)
			for p := range c.Count() {
				if s.was[p] != c.data[p] {
					hashes += int64(32 * c.data[p].Len())
				}
				for i := range c.data[p].Minus(s.was[p]).All() {
					lacking += int64(c.TileLength(p, i))
				}
			}
			got := m.Stats()
			if fetched := got.FromAppliance + got.FromPeers; fetched != lacking+hashes || got.Resumed != got.Total-lacking || got.Held != got.Total {
				t.Errorf("fetched %d bytes of %d that were lacking, resumed %d of %d", fetched, lacking, got.Resumed, got.Total)
			}
			equal(t, s.store)
		})
	}
}

func TestLyingHashesOfAPieceInPartAreNoHarm(t *testing.T) {
	site, c := newSite(t), newContent(4<<20, images.MinPieceLength)
	liar := fullStore(c)
	liar.hashes = make([][]images.Digest, c.Count())
	for p := range liar.hashes {
		liar.hashes[p] = make([]images.Digest, len(c.hashes[p]))
	}
	lying, honest := site.run(c, liar, nil), site.run(c, fullStore(c), nil)
	s := newSearched(c, thirds(c))
	m := s.start(site, lying)
	for p := range c.Count() {
		s.lookAt(p)
	}
	until(t, 10*time.Second, "the liar is cut", func() bool { return m.Stats().Peers == 0 })
	m.AddPeers(honest.addrs())
	wait(t, m, 20*time.Second)
	equal(t, s.store)
}

func TestASearchThatFindsEverythingCompletes(t *testing.T) {
	site, c := newSite(t), newContent(4<<20, images.MinPieceLength)
	s := newSearched(c, func(piece int) images.TileSet { return c.data[piece] })
	m := s.start(site, site.run(c, emptyStore(c), nil))
	for p := range c.Count() {
		s.lookAt(p)
	}
	wait(t, m, 5*time.Second)
	if got := m.Stats(); got.Resumed != got.Total || s.writes != 0 {
		t.Errorf("%+v, %d writes", got, s.writes)
	}
}

// TestFreshHandOutDoesNotWait for machines to come back: nobody was there before.
func TestFreshHandOutDoesNotWait(t *testing.T) {
	site, c := newSite(t), newContent(4<<20, images.MinPieceLength)
	a := site.appliance(c, fullStore(c), func(cfg *Config) {
		cfg.Fresh, cfg.timing = true, defaultTiming
		cfg.timing.restart = time.Minute
	})
	disk := emptyStore(c)
	disk.held[0], disk.hashes[0] = c.data[0], c.hashes[0]
	copy(disk.raw, c.raw[:c.pieceLength])
	m := site.run(c, disk, func(cfg *Config) { cfg.Seeds = a.addrs() })
	wait(t, m, 10*time.Second)
	equal(t, disk)
}

// Two machines were linked before either knew what it holds, and nobody else can be read: tiles go both ways as soon as the
// hashes are known.
func TestMachinesTellWhatTheyLearn(t *testing.T) {
	site, c := newSite(t), newContent(8<<20, images.MinPieceLength*2)
	unread := fullStore(c)
	unread.read = func(int, []tile.Encoded) ([]tile.Encoded, error) { return nil, errors.New("no disk answers") }
	source := site.run(c, unread, nil)
	var stores []*searched
	var machines []*peer
	for k := range 2 {
		s := newSearched(c, func(piece int) (set images.TileSet) {
			for i := range c.data[piece].All() {
				if i%2 == k {
					set.Add(i)
				}
			}
			return set
		})
		stores, machines = append(stores, s), append(machines, s.start(site, source))
	}
	meet(machines...)
	for _, m := range machines {
		until(t, 10*time.Second, "the links", func() bool { return m.Stats().Peers == 2 })
	}
	for p := range c.Count() {
		for _, s := range stores {
			s.lookAt(p)
		}
	}
	for k, m := range machines {
		wait(t, m, 20*time.Second)
		equal(t, stores[k].store)
	}
}
