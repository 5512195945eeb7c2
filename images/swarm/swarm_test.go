package swarm

import (
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"seedbed/images"
)

const mib = 1 << 20

func TestOneMachineFetchesAllFromTheAppliance(t *testing.T) {
	s, c := newSite(t), newContent(16*mib+300000, 256<<10)
	a := s.appliance(c, fullStore(c), nil)
	disk := emptyStore(c)
	m := s.run(c, disk, nil)
	m.AddPeers(a.addrs())
	wait(t, m, 20*time.Second)
	equal(t, disk)
	got := m.Stats()
	if got.FromAppliance != c.dataLength()+c.hashLength() || got.FromPeers != 0 || got.Wasted != 0 {
		t.Errorf("%d bytes from the appliance, %d from peers, %d wasted of %d", got.FromAppliance, got.FromPeers, got.Wasted, c.dataLength())
	}
	if got.Held != got.Total || got.Total != c.dataLength() || got.PiecesHeld != got.Pieces || got.Written != got.Total {
		t.Errorf("%+v", got)
	}
	if got.Tiles == 0 || got.WrongTiles != 0 || got.FromSeeds != 0 {
		t.Errorf("%d tiles, %d wrong, %d bytes from seed nodes", got.Tiles, got.WrongTiles, got.FromSeeds)
	}
	if got.Seeders != 1 || got.Peers != 1 || got.NeededByOthers {
		t.Errorf("%+v", got)
	}
}

func TestMachinesExchangeWhatTheApplianceHandsOut(t *testing.T) {
	s, c := newSite(t), newContent(32*mib, 256<<10)
	a := s.appliance(c, fullStore(c), nil)
	peers, disks := []*peer{a}, []*store{}
	for range 3 {
		disk := emptyStore(c)
		disks, peers = append(disks, disk), append(peers, s.run(c, disk, nil))
	}
	meet(peers...)
	for i, m := range peers[1:] {
		wait(t, m, 30*time.Second)
		equal(t, disks[i])
	}
	for _, p := range peers { // though every machine dialled every other, and itself
		until(t, 5*time.Second, "one link to each other peer", func() bool { return p.Stats().Peers == 3 })
	}
	copies := float64(a.Stats().ToPeers) / float64(c.dataLength())
	t.Logf("the appliance sent %.2f images", copies)
	if copies > 1.7 {
		t.Errorf("the appliance sent %.2f images", copies)
	}
}

func TestMachineThatHoldsSomeTilesFetchesTheOthers(t *testing.T) {
	s, c := newSite(t), newContent(8*mib, 1*mib)
	a := s.appliance(c, fullStore(c), nil)
	disk, lacking := emptyStore(c), int64(0)
	for p := range c.Count() {
		disk.hashes[p] = c.hashes[p]
		for i := range c.data[p].All() {
			if i%4 == 1 {
				lacking += int64(c.TileLength(p, i))
				continue
			}
			disk.held[p].Add(i)
			copy(disk.raw[p*c.pieceLength+i*images.TileLength:], c.tile(p, i))
		}
	}
	m := s.run(c, disk, nil)
	meet(a, m)
	wait(t, m, 20*time.Second)
	equal(t, disk)
	if got := m.Stats(); got.FromAppliance != lacking || got.Resumed != got.Total-lacking {
		t.Errorf("fetched %d of %d bytes lacking, resumed %d", got.FromAppliance, lacking, got.Resumed)
	}
}

// Two machines hold alternate tiles of every piece, and nobody else is there.
func TestMachinesCompleteEachOther(t *testing.T) {
	s, c := newSite(t), newContent(8*mib, 1*mib)
	var disks []*store
	var peers []*peer
	for k := range 2 {
		disk := emptyStore(c)
		for p := range c.Count() {
			disk.hashes[p] = c.hashes[p]
			for i := range c.data[p].All() {
				if i%2 == k {
					disk.held[p].Add(i)
					copy(disk.raw[p*c.pieceLength+i*images.TileLength:], c.tile(p, i))
				}
			}
		}
		disks, peers = append(disks, disk), append(peers, s.run(c, disk, nil))
	}
	meet(peers...)
	for k := range peers {
		wait(t, peers[k], 20*time.Second)
		equal(t, disks[k])
	}
}

func TestLateMachineFetchesFromItsNeighbours(t *testing.T) {
	s, c := newSite(t), newContent(16*mib, 256<<10)
	a := s.appliance(c, fullStore(c), nil)
	first := s.run(c, emptyStore(c), nil)
	meet(a, first)
	wait(t, first, 20*time.Second)
	disk := emptyStore(c)
	late := s.run(c, disk, nil)
	meet(a, first, late)
	until(t, 5*time.Second, "the first machine sees that it is needed", func() bool { return first.Stats().NeededByOthers })
	wait(t, late, 20*time.Second)
	equal(t, disk)
	if got := late.Stats(); got.FromPeers < c.dataLength()/2 {
		t.Errorf("%d bytes from peers of %d", got.FromPeers, c.dataLength())
	}
	until(t, 5*time.Second, "the first machine sees that it is not needed", func() bool { return !first.Stats().NeededByOthers })
	if lacking := first.Stats().Lacking; lacking != 0 {
		t.Errorf("%d peers lack something", lacking)
	}
}

func TestMachineWithEverythingIsDoneAtOnce(t *testing.T) {
	s, c := newSite(t), newContent(2*mib, 256<<10)
	disk := fullStore(c)
	m := s.run(c, disk, nil)
	wait(t, m, 5*time.Second)
	if disk.syncs != 1 {
		t.Errorf("%d syncs", disk.syncs)
	}
	if b := m.Bitfield(); len(b) != 1 || b[0] != 0xff {
		t.Errorf("bitfield %x of 8 pieces", b)
	}
}

// An appliance is killed in the middle and comes back at the same address: nobody needs to be told.
func TestApplianceRestart(t *testing.T) {
	s, c := newSite(t), newContent(32*mib, 256<<10)
	slow := func() *store {
		disk := emptyStore(c)
		disk.write = func() error { time.Sleep(5 * time.Millisecond); return nil } // a disk of 50 MB/s
		return disk
	}
	a := s.appliance(c, fullStore(c), nil)
	addr := a.Addr()
	disks := []*store{slow(), slow()}
	var peers []*peer
	for _, disk := range disks {
		peers = append(peers, s.run(c, disk, nil))
	}
	meet(append(peers, a)...)
	until(t, 10*time.Second, "a machine is half done", func() bool { return peers[0].Stats().PiecesHeld > c.Count()/3 })
	a.stop()
	until(t, 5*time.Second, "the machines are alone", func() bool { return peers[0].Stats().Seeders == 0 })
	b := s.appliance(c, fullStore(c), func(cfg *Config) {
		cfg.ListenAddr, cfg.timing = addr.String(), defaultTiming
		cfg.timing.restart = time.Second
	})
	for i := range peers {
		wait(t, peers[i], 30*time.Second)
		equal(t, disks[i])
	}
	sent := float64(a.Stats().ToPeers+b.Stats().ToPeers) / float64(c.dataLength())
	t.Logf("both lives of the appliance sent %.2f images", sent)
	if sent > 1.9 {
		t.Errorf("the appliance sent %.2f images", sent)
	}
}

func TestStorageErrorEndsTheSwarm(t *testing.T) {
	s, c := newSite(t), newContent(4*mib, 256<<10)
	a := s.appliance(c, fullStore(c), nil)
	disk, broken := emptyStore(c), errors.New("no space left on device")
	var writes atomic.Int32
	disk.write = func() error {
		if writes.Add(1) > 4 {
			return broken
		}
		return nil
	}
	m := s.run(c, disk, func(cfg *Config) { cfg.Seeds = a.addrs() })
	until(t, 10*time.Second, "the disk is full", func() bool { return writes.Load() > 4 })
	select {
	case <-m.closed:
	case <-time.After(10 * time.Second):
		t.Fatal("the swarm goes on")
	}
	if err := m.stop(); !errors.Is(err, broken) {
		t.Errorf("Run returned %v", err)
	}
}

func TestMemoryIsBounded(t *testing.T) {
	s, c := newSite(t), newContent(32*mib, 1*mib)
	a := s.appliance(c, fullStore(c), nil)
	budget := func(cfg *Config) { cfg.MemoryBytes = 8 * mib }
	disks := []*store{emptyStore(c), emptyStore(c), emptyStore(c), emptyStore(c)}
	peers := []*peer{a}
	for _, disk := range disks {
		disk.write = func() error { time.Sleep(2 * time.Millisecond); return nil } // slower than the links
		peers = append(peers, s.run(c, disk, budget))
	}
	meet(peers...)
	for i, m := range peers[1:] {
		wait(t, m, 30*time.Second)
		equal(t, disks[i])
		if peak := m.Stats().PeakMemoryBytes; peak > 8*mib {
			t.Errorf("%d bytes at the peak", peak)
		}
	}
}
