package swarm

import (
	"net/netip"
	"testing"
	"time"
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
	a := s.appliance(c, fullStore(c), nil)
	disk := holding(c, func(p int) bool { return p%5 < 2 })
	n := s.seedNode(c, disk, a)
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
	}
}

// A seed node at a tenth of the rate gives less than its share of a tenth, and the room does not wait for it.
func TestSlowSeedNode(t *testing.T) {
	s, c := newSite(t), newContent(48*mib, 256<<10)
	rated := func(bytes float64) func(*Config) {
		return func(cfg *Config) { cfg.Transport.Shared = NewLimits(int64(bytes), 0) }
	}
	alone := func() time.Duration {
		a := s.appliance(c, fullStore(c), rated(20e6))
		machines, _ := s.machines(c, 3, 0, a)
		start := time.Now()
		for _, m := range machines {
			wait(t, m, 30*time.Second)
			defer m.stop()
		}
		defer a.stop()
		return time.Since(start)
	}()
	a := s.appliance(c, fullStore(c), rated(20e6))
	n := s.run(c, fullStore(c), func(cfg *Config) {
		cfg.TLS, cfg.HandOut, cfg.Seeds = s.tls(URIRoleSeed), true, a.addrs()
		rated(2e6)(cfg)
	})
	linked(t, a, n)
	machines, disks := s.machines(c, 3, 0, a, n)
	start := time.Now()
	for i, m := range machines {
		wait(t, m, 30*time.Second)
		equal(t, disks[i])
	}
	took := time.Since(start)
	t.Logf("%v with a slow seed node, %v without; it sent %.3f images, the appliance %.2f", took, alone, copies(c, n), copies(c, a))
	if copies(c, n) > 0.2 || took > 2*alone {
		t.Errorf("%v with a slow seed node, %v without; it sent %.3f images", took, alone, copies(c, n))
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
			until(t, 10*time.Second, "the room is half done", func() bool { return machines[0].Stats().PiecesHeld > c.Count()/2 })
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
				wait(t, m, 20*time.Second)
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
