package swarm

import (
	"bytes"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"pgregory.net/rapid"

	"seedbed/images"
	"seedbed/images/peerwire"
	"seedbed/images/tile"
)

func setOf(pieces int, members ...int) bitset {
	b := newBitset(pieces)
	for _, i := range members {
		b.add(i)
	}
	return b
}

func TestPickerLeavesWhatWasNotLookedAt(t *testing.T) {
	p := newPicker(setOf(4, 0), setOf(4, 1, 2), 4, rand.New(rand.NewPCG(1, 2)))
	all := setOf(4, 0, 1, 2, 3)
	if got, ok := p.pick(all); !ok || got != 3 || p.lacking != 3 {
		t.Errorf("picked %d of 3 lacking (%d)", got, p.lacking)
	}
	p.begin(3)
	if _, ok := p.pick(all); ok || p.allBegun() {
		t.Error("picked a piece that was not looked at")
	}
	p.see(2)
	if got, ok := p.pick(all); !ok || got != 2 {
		t.Errorf("picked %d, want the piece that was looked at", got)
	}
}

func TestPicker(t *testing.T) {
	const pieces = 130
	p := newPicker(setOf(pieces, 0), newBitset(pieces), pieces, rand.New(rand.NewPCG(1, 2)))
	if p.lacking != pieces-1 {
		t.Errorf("%d pieces lacking", p.lacking)
	}
	if _, ok := p.pick(setOf(pieces, 0)); ok {
		t.Error("picked a piece that is held")
	}
	for _, i := range []int{3, 70, 129} {
		p.announced(setOf(pieces, 3, i))
	}
	if got, ok := p.pick(setOf(pieces, 3, 70)); !ok || got != 70 {
		t.Errorf("picked %d, want the rarest", got)
	}
	seen := map[int]bool{}
	for range 200 {
		got, _ := p.pick(setOf(pieces, 70, 129, 3))
		seen[got] = true
	}
	if !seen[70] || !seen[129] || len(seen) != 2 {
		t.Errorf("ties went to %v", seen)
	}
	p.begin(3)
	p.giveBack(3, true)
	if got, _ := p.pick(setOf(pieces, 3, 70)); got != 3 {
		t.Errorf("picked %d, want the piece that was begun", got)
	}
	p.begin(3)
	if _, ok := p.pick(setOf(pieces, 3)); ok || len(p.orphans) != 0 {
		t.Error("picked a piece that is on its way")
	}
	p.hold()
	p.gone(setOf(pieces, 3, 70))
	if p.holders[70] != 0 || p.lacking != pieces-2 || p.allBegun() {
		t.Errorf("%d holders, %d lacking", p.holders[70], p.lacking)
	}
}

func TestBitfield(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 200).Draw(t, "pieces")
		b, want := newBitset(n), map[int]bool{}
		for _, i := range rapid.SliceOf(rapid.IntRange(0, n-1)).Draw(t, "members") {
			b.add(i)
			want[i] = true
		}
		got, err := parseBitfield(b.bitfield(n), n)
		if err != nil || got.len() != len(want) || got.lacks(b) || b.lacks(got) {
			t.Fatalf("%v: %v, %v", b, got, err)
		}
		last := -1
		for i := range got.all() {
			if i <= last || !want[i] || !got.has(i) {
				t.Fatalf("member %d after %d", i, last)
			}
			last = i
		}
	})
	if b := setOf(10, 0, 9).bitfield(10); !bytes.Equal(b, []byte{0x80, 0x40}) {
		t.Errorf("bitfield %x", b)
	}
	for _, wrong := range [][]byte{{}, {0xff}, {0xff, 0xff, 0}, {0, 0x20}} {
		if _, err := parseBitfield(wrong, 10); err == nil {
			t.Errorf("bitfield %x of 10 pieces passes", wrong)
		}
	}
}

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
	control, u, ok := o.take(nil, 16)
	if len(control) != 9 || !ok || u.piece != 7 || !u.hashes || u.tiles.Len() != 16 {
		t.Errorf("%x, %+v", control, u)
	}
	control, u, ok = o.take(control, 16)
	if len(control) != 0 || !ok || u.hashes || u.tiles.Len() != 3 || u.tiles.Has(17) {
		t.Errorf("%x, %+v", control, u)
	}
	if _, _, ok = o.take(control, 16); ok {
		t.Error("something is left")
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
