package swarm

import (
	"net/netip"
	"testing"
	"time"

	"seedbed/images"
	"seedbed/images/peerwire"
	"seedbed/images/tile"
)

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

func TestBook(t *testing.T) {
	b := newBook(defaultTiming)
	seed, other := netip.MustParseAddrPort("192.0.2.1:6881"), netip.MustParseAddrPort("192.0.2.2:6881")
	b.add(seed, true)
	b.add(other, false)
	b.add(netip.MustParseAddrPort("[::ffff:192.0.2.2]:6881"), false)
	b.add(netip.MustParseAddrPort("0.0.0.0:6881"), false)
	b.add(netip.MustParseAddrPort("192.0.2.3:0"), false)
	b.add(netip.AddrPort{}, false)
	if got := b.due(noon, 0); len(got) != 1 || got[0] != seed {
		t.Fatalf("due without room: %v", got)
	}
	if got := b.due(noon, 9); len(got) != 1 || got[0] != other {
		t.Fatalf("due: %v", got)
	}
	if got := b.due(noon, 9); got != nil {
		t.Fatalf("dialled twice: %v", got)
	}
	waits := func(a netip.AddrPort) (longest time.Duration, tries int) {
		now := noon
		for tries = 0; tries < 100; tries++ {
			b.freed(a, now)
			e := b.entries[a]
			if e == nil {
				return longest, tries
			}
			longest = max(longest, e.next.Sub(now))
			now = e.next
			b.due(now, 9)
		}
		return longest, tries
	}
	if longest, tries := waits(seed); longest != defaultTiming.seedMax || tries != 100 {
		t.Errorf("a seed: wait %v, %d tries", longest, tries)
	}
	if longest, tries := waits(other); longest != defaultTiming.peerMax || tries != maxFailures {
		t.Errorf("another: wait %v, %d tries", longest, tries)
	}
	b.linked(other)
	if got := b.due(noon.Add(time.Hour), 9); got != nil {
		t.Errorf("dialled though linked: %v", got)
	}
	b.freed(other, noon)
	if e := b.entries[other]; e.next.Sub(noon) != defaultTiming.backoff {
		t.Errorf("first wait %v", e.next.Sub(noon))
	}
}

func TestMemory(t *testing.T) {
	m := newMemory(2000)
	if !m.reserve(5000) {
		t.Error("one piece finds no room")
	}
	if m.reserve(1) {
		t.Error("room behind a piece that is too long")
	}
	m.release(5000)
	if !m.reserve(600) || !m.reserve(400) || m.reserve(1) {
		t.Error("not exactly 1000 bytes reserved")
	}
	piece := func(n int) []peerwire.IndexedTile {
		return []peerwire.IndexedTile{{Index: 2, Encoded: tile.Encoded{Length: int32(n), Bytes: make([]byte, n)}}}
	}
	for i := range 5 {
		m.keep(i, piece(300))
	}
	var both images.TileSet
	both.Add(2)
	both.Add(3)
	if m.find(1, both) != nil || len(m.find(2, both)) != 1 || len(m.find(4, both)) != 1 {
		t.Error("the cache does not hold the three newest pieces")
	}
	if now, peak := m.use(); now != 1900 || peak != 5000 {
		t.Errorf("%d bytes, %d at the peak", now, peak)
	}
}

func TestMemoryBudgetFollowsTheMachine(t *testing.T) {
	for available, want := range map[int64]int64{0: 32 << 20, 700 << 20: 700 << 17, 16 << 30: 1 << 30} {
		if got := MemoryBudget(available); got != want {
			t.Errorf("%d bytes of %d", got, want)
		}
	}
}

func TestOutbox(t *testing.T) {
	o := newOutbox()
	var tiles, some images.TileSet
	for i := range 20 {
		tiles.Add(i)
	}
	some.Add(17)
	o.send(peerwire.Have(1))
	o.serve(upload{7, true, tiles})
	o.serve(upload{8, false, some})
	o.cancel(8, some)
	o.cancel(7, some)
	u, ok := o.take(16)
	if !ok || u.piece != 7 || !u.hashes || u.tiles.Len() != 16 {
		t.Errorf("%+v", u)
	}
	if u, ok = o.take(16); !ok || u.hashes || u.tiles.Len() != 3 || u.tiles.Has(17) {
		t.Errorf("%+v", u)
	}
	if _, ok = o.take(16); ok {
		t.Error("something is left")
	}
	control := o.takeControl(nil)
	if len(control) != 9 {
		t.Errorf("%x", control)
	}
	if control = o.takeControl(control); len(control) != 0 {
		t.Errorf("%x", control)
	}
	for i := 0; o.serve(upload{i, false, some}); i++ {
		if i > maxUploads {
			t.Fatal("requests without bound")
		}
	}
	for i := 0; o.send(peerwire.Have(1)); i++ {
		if i > maxControl {
			t.Fatal("messages without bound")
		}
	}
}
