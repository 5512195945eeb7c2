package swarm

import (
	"net/netip"
	"sync"
	"testing"
	"time"

	"seedbed/images/tile"
)

// seedNode starts a machine that hands out what it holds, knowing the others that do.
func (s *site) seedNode(c *content, storage Storage, others ...*peer) *peer {
	return s.run(c, storage, func(cfg *Config) {
		cfg.TLS, cfg.HandOut = s.tls(URIRoleSeed), true
		for _, o := range others {
			cfg.Seeds = append(cfg.Seeds, o.Addr())
		}
	})
}

// holding returns a store that holds the pieces for which held is true.
func holding(c *content, held func(piece int) bool) *store {
	s := emptyStore(c)
	for p := range c.Count() {
		if held(p) {
			s.held[p], s.hashes[p] = c.data[p], c.hashes[p]
			copy(s.raw[p*c.pieceLength:min((p+1)*c.pieceLength, len(s.raw))], c.raw[p*c.pieceLength:])
		}
	}
	return s
}

// machines starts machines that take so long for each write, and makes them know the others.
func (s *site) machines(c *content, n int, write time.Duration, seeds ...*peer) (peers []*peer, disks []*store) {
	for range n {
		disk := emptyStore(c)
		disk.write = func() error { time.Sleep(write); return nil }
		disks = append(disks, disk)
		peers = append(peers, s.run(c, disk, func(cfg *Config) {
			for _, o := range seeds {
				cfg.Seeds = append(cfg.Seeds, o.Addr())
			}
		}))
	}
	meet(peers...)
	return peers, disks
}

// linked waits until everyone who hands out knows the others.
func linked(t *testing.T, hands ...*peer) {
	t.Helper()
	for _, h := range hands {
		until(t, 5*time.Second, "those who hand out are linked", func() bool { return h.Stats().Peers >= len(hands)-1 })
	}
}

// copies returns how many images the peers sent.
func copies(c *content, peers ...*peer) (sent float64) {
	for _, p := range peers {
		sent += float64(p.Stats().ToPeers)
	}
	return sent / float64(c.dataLength())
}

func TestTwoAppliancesShareTheHandOut(t *testing.T) {
	s, c := newSite(t), newContent(32*mib, 256<<10)
	a := s.appliance(c, fullStore(c), nil)
	b := s.appliance(c, fullStore(c), func(cfg *Config) { cfg.Seeds = a.addrs() })
	linked(t, a, b)
	machines, disks := s.machines(c, 3, time.Millisecond, a, b)
	for i, m := range machines {
		wait(t, m, 30*time.Second)
		equal(t, disks[i])
	}
	t.Logf("the appliances sent %.2f and %.2f images", copies(c, a), copies(c, b))
	if copies(c, a, b) > 1.7 || copies(c, a) < 0.1 || copies(c, b) < 0.1 {
		t.Errorf("the appliances sent %.2f and %.2f images", copies(c, a), copies(c, b))
	}
}

func TestSeedNodeWithAShareOfThePieces(t *testing.T) {
	s, c := newSite(t), newContent(32*mib, 256<<10)
	link := func(cfg *Config) { cfg.Transport.Shared = NewLimits(10e6, 0) } // so that neither is the faster one
	a := s.appliance(c, fullStore(c), link)
	disk := holding(c, func(p int) bool { return p%5 < 2 })
	n := s.run(c, disk, func(cfg *Config) {
		link(cfg)
		cfg.TLS, cfg.HandOut, cfg.Seeds = s.tls(URIRoleSeed), true, a.addrs()
	})
	linked(t, a, n)
	// A room is there from the start: the seed node fetches what it lacks from machines.
	machines, disks := s.machines(c, 3, time.Millisecond, a, n)
	for i, m := range machines {
		wait(t, m, 30*time.Second)
		equal(t, disks[i])
	}
	wait(t, n, 30*time.Second)
	equal(t, disk)
	t.Logf("the appliance sent %.2f images, the seed node %.2f", copies(c, a), copies(c, n))
	if copies(c, n) < 0.1 || copies(c, a, n) > 1.8 {
		t.Errorf("the appliance sent %.2f images, the seed node %.2f", copies(c, a), copies(c, n))
	}
}

func TestSeedNodeFetchesFromTheApplianceBeforeTheRoomIsThere(t *testing.T) {
	s, c := newSite(t), newContent(8*mib, 256<<10)
	a := s.appliance(c, fullStore(c), nil)
	disk := emptyStore(c)
	n := s.seedNode(c, disk, a)
	wait(t, n, 20*time.Second)
	equal(t, disk)
	a.stop()
	machines, disks := s.machines(c, 2, 0, n)
	for i, m := range machines {
		wait(t, m, 20*time.Second)
		equal(t, disks[i])
		if got := m.Stats(); got.FromSeeds == 0 || got.FromSeeds > got.FromPeers || got.FromAppliance != 0 {
			t.Errorf("%d bytes from seed nodes of %d from peers, %d from the appliance", got.FromSeeds, got.FromPeers, got.FromAppliance)
		}
	}
}

// turns makes one storage read once for so many reads of another, however fast the machine is.
type turns struct {
	mu          sync.Mutex // guards the rest
	again       sync.Cond
	of          int
	slow, quick int // reads that began
	over        bool
}

func newTurns(of int) *turns {
	t := &turns{of: of}
	t.again.L = &t.mu
	return t
}

func (t *turns) quickRead(_ int, tiles []tile.Encoded) ([]tile.Encoded, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.quick++
	t.again.Broadcast()
	return tiles, nil
}

func (t *turns) slowRead(_ int, tiles []tile.Encoded) ([]tile.Encoded, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.slow++
	for mine := t.slow; t.quick < mine*t.of && !t.over; {
		t.again.Wait()
	}
	return tiles, nil
}

// end lets every read pass.
func (t *turns) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.over = true
	t.again.Broadcast()
}

// The room does not wait for a seed node at a tenth of the appliance's rate, which is asked for little more than a tenth. How
// fast both are is counted in reads, so that the test says the same on a loaded machine.
func TestSlowSeedNode(t *testing.T) {
	s, c, rate := newSite(t), newContent(48*mib, 256<<10), newTurns(10)
	quick, slow := fullStore(c), fullStore(c)
	quick.read, slow.read = rate.quickRead, rate.slowRead
	patient := func(cfg *Config) {
		cfg.timing = defaultTiming
		cfg.timing.fellow, cfg.timing.isolated = time.Minute, time.Minute
		cfg.Transport.Shared = NewLimits(20e6, 0) // so that the windows are those of 20 MB/s at most
	}
	a := s.appliance(c, quick, patient)
	n := s.run(c, slow, func(cfg *Config) {
		patient(cfg)
		cfg.TLS, cfg.HandOut, cfg.Seeds = s.tls(URIRoleSeed), true, a.addrs()
	})
	defer rate.end()
	linked(t, a, n)
	machines, disks := s.machines(c, 3, 0, a, n)
	for i, m := range machines {
		wait(t, m, time.Minute)
		equal(t, disks[i])
	}
	rate.mu.Lock()
	defer rate.mu.Unlock()
	t.Logf("%d reads of the appliance, %d of the slow seed node", rate.quick, rate.slow)
	if rate.slow > rate.quick/5 || rate.quick > 3*c.Count()/2 {
		t.Errorf("%d reads of the appliance, %d of the slow seed node, for %d pieces", rate.quick, rate.slow, c.Count())
	}
}

// One of two dies in the middle, and it may be that no packet says so.
func TestOneWhoHandsOutDies(t *testing.T) {
	for name, silent := range map[string]bool{"reset": false, "cable": true} {
		t.Run(name, func(t *testing.T) {
			s, c := newSite(t), newContent(48*mib, 256<<10)
			fast := func(cfg *Config) {
				quick(cfg)
				cfg.timing.fellow = 300 * time.Millisecond
			}
			a := s.appliance(c, fullStore(c), fast)
			b := s.appliance(c, fullStore(c), fast)
			var cables []*cable
			through := func(p *peer) []netip.AddrPort { // each link to b is a cable of its own
				line := newCable(t, p.Addr())
				cables = append(cables, line)
				return []netip.AddrPort{line.addr()}
			}
			a.AddPeers(through(b))
			linked(t, a, b)
			var machines []*peer
			var disks []*store
			for range 3 {
				disk := emptyStore(c)
				disk.write = func() error { time.Sleep(8 * time.Millisecond); return nil }
				m := s.run(c, disk, fast)
				m.AddPeers(append(a.addrs(), through(b)...))
				machines, disks = append(machines, m), append(disks, disk)
			}
			meet(machines...)
			until(t, time.Minute, "the room is half done", func() bool { return machines[0].Stats().PiecesHeld > c.Count()/2 })
			for _, line := range cables {
				if silent {
					line.pull()
				}
			}
			if !silent {
				b.stop()
			}
			died := time.Now()
			for i, m := range machines {
				wait(t, m, time.Minute)
				equal(t, disks[i])
			}
			t.Logf("complete %v later; they sent %.2f and %.2f images", time.Since(died), copies(c, a), copies(c, b))
		})
	}
}

// Who hands out without a certificate for it is told nothing by the others, and the room is none the worse.
func TestHandOutWithoutACertificate(t *testing.T) {
	s, c := newSite(t), newContent(8*mib, 256<<10)
	a := s.appliance(c, fullStore(c), nil)
	x := s.run(c, emptyStore(c), func(cfg *Config) { cfg.HandOut, cfg.Seeds = true, a.addrs() })
	until(t, 5*time.Second, "the link", func() bool { return a.Stats().Peers == 1 && x.Stats().Peers == 1 })
	machines, disks := s.machines(c, 2, 0, a, x)
	for i, m := range machines {
		wait(t, m, 20*time.Second)
		equal(t, disks[i])
	}
}

// A seed node that wants a share and no more is one of those who hand out all the same.
func TestSeedNodeThatWantsAShare(t *testing.T) {
	s, c := newSite(t), newContent(32*mib, 256<<10)
	a := s.appliance(c, fullStore(c), nil)
	disk := emptyStore(c)
	n := s.runPart(c, disk, func(p int) bool { return p%2 == 0 }, func(cfg *Config) {
		cfg.TLS, cfg.HandOut, cfg.Seeds = s.tls(URIRolePart, URIRoleSeed), true, a.addrs()
	})
	wait(t, n, 20*time.Second)
	before := copies(c, a)
	machines, disks := s.machines(c, 3, time.Millisecond, a, n)
	for i, m := range machines {
		wait(t, m, 30*time.Second)
		equal(t, disks[i])
	}
	sent := copies(c, a) - before
	t.Logf("the appliance sent %.2f images, the seed node %.2f", sent, copies(c, n))
	if copies(c, n) < 0.1 || sent+copies(c, n) > 1.7 {
		t.Errorf("the appliance sent %.2f images, the seed node %.2f", sent, copies(c, n))
	}
}

// A seed node that fetches announces nothing to machines that keep partitions and tell which: it shows them what they want as it shows
// others. One of an earlier version hears of all that the node gets, behind its bitfield, which comes before anything else.
func TestSeedNodeThatFetchesAnnouncesPiecesToWhoDoesNotTell(t *testing.T) {
	s, c := newSite(t), newContent(4*mib, 256<<10)
	swarm, err := New(Config{InfoHash: s.hash, Pieces: c, Storage: emptyStore(c), TLS: s.tls(URIRoleSeed), HandOut: true, ListenAddr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	st := newState(swarm, t.Context(), &sync.WaitGroup{})
	t.Cleanup(func() { st.net.close() })
	for i, l := range []struct {
		name                  string
		greeted, tells, heard bool
	}{{name: "before its handshake"}, {name: "that tells", greeted: true, tells: true}, {name: "that does not", greeted: true, heard: true}} {
		o := &link{id: i + 1, part: true, out: newOutbox()}
		if o.tells = l.tells; l.greeted {
			o.tileKind.Store(1)
		}
		o.Source = st.pull.Join()
		clear(st.all)
		st.all[o.id] = o
		st.announce(i, nil)
		if heard := len(o.out.control) > 0; heard != l.heard {
			t.Errorf("a peer %s heard of a piece: %v", l.name, heard)
		}
	}
}
