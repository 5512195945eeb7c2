package schedule

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"
)

func setOf(pieces int, members ...int) Set {
	b := NewSet(pieces)
	for _, i := range members {
		b.Add(i)
	}
	return b
}

func TestPickerLeavesWhatWasNotLookedAt(t *testing.T) {
	p := newPicker(setOf(4, 0), setOf(4, 1, 2), 4, rand.New(rand.NewPCG(1, 2)))
	all := setOf(4, 0, 1, 2, 3)
	if got, ok := p.pick(all, 0, nil); !ok || got != 3 || p.lacking != 3 {
		t.Errorf("picked %d of 3 lacking (%d)", got, p.lacking)
	}
	p.begin(3)
	if _, ok := p.pick(all, 0, nil); ok || p.allBegun() {
		t.Error("picked a piece that was not looked at")
	}
	p.see(2)
	if got, ok := p.pick(all, 0, nil); !ok || got != 2 {
		t.Errorf("picked %d, want the piece that was looked at", got)
	}
}

func TestPicker(t *testing.T) {
	const pieces = 130
	p := newPicker(setOf(pieces, 0), NewSet(pieces), pieces, rand.New(rand.NewPCG(1, 2)))
	if p.lacking != pieces-1 {
		t.Errorf("%d pieces lacking", p.lacking)
	}
	if _, ok := p.pick(setOf(pieces, 0), 0, nil); ok {
		t.Error("picked a piece that is held")
	}
	for _, i := range []int{3, 70, 129} {
		p.announced(setOf(pieces, 3, i))
	}
	if got, ok := p.pick(setOf(pieces, 3, 70), 0, nil); !ok || got != 70 {
		t.Errorf("picked %d, want the rarest", got)
	}
	for next, want := range map[int]int{0: 70, 70: 70, 71: 129, 129: 129, 130: 70} {
		p.next = next
		if got, _ := p.pick(setOf(pieces, 70, 129, 3), 0, nil); got != want {
			t.Errorf("picked %d of two equally rare, going on at %d, want %d", got, next, want)
		}
	}
	p.begin(3)
	p.giveBack(3, true)
	if got, _ := p.pick(setOf(pieces, 3, 70), 0, nil); got != 3 {
		t.Errorf("picked %d, want the piece that was begun", got)
	}
	p.begin(3)
	if _, ok := p.pick(setOf(pieces, 3), 0, nil); ok || len(p.orphans) != 0 {
		t.Error("picked a piece that is on its way")
	}
	p.hold()
	p.gone(setOf(pieces, 3, 70))
	if p.holders[70] != 0 || p.lacking != pieces-2 || p.allBegun() {
		t.Errorf("%d holders, %d lacking", p.holders[70], p.lacking)
	}
}

// Where all pieces are equally rare they are picked in order, from a place that differs between machines.
func TestPickerGoesOnInOrder(t *testing.T) {
	const pieces = 100
	firsts := map[int]bool{}
	for seed := range uint64(10) {
		p := newPicker(NewSet(pieces), NewSet(pieces), pieces, rand.New(rand.NewPCG(seed, 2)))
		first, _ := p.pick(allOf(pieces), 0, nil)
		firsts[first] = true
		for i := range pieces {
			got, ok := p.pick(allOf(pieces), 0, nil)
			if want := (first + i) % pieces; !ok || got != want {
				t.Fatalf("picked %d, want %d", got, want)
			}
			p.begin(got)
		}
	}
	if len(firsts) < 5 {
		t.Errorf("ten machines began at %v", firsts)
	}
}

// Machines that lack the same pieces, of which one peer alone has all, have to fetch different ones.
func TestPickerDiffersWhereSomeLinkedPeerLacksThePiece(t *testing.T) {
	const pieces = 100
	same := 0
	for i := range 50 {
		one := newPicker(NewSet(pieces), NewSet(pieces), pieces, rand.New(rand.NewPCG(uint64(i), 2)))
		other := newPicker(NewSet(pieces), NewSet(pieces), pieces, rand.New(rand.NewPCG(uint64(i), 3)))
		one.next, other.next = i, i
		for _, p := range []*picker{one, other} {
			p.announced(allOf(pieces))
			p.announced(setOf(pieces))
		}
		a, _ := one.pick(allOf(pieces), 2, nil)
		b, _ := other.pick(allOf(pieces), 2, nil)
		if a == b {
			same++
		}
	}
	if same > 10 {
		t.Errorf("two machines picked the same piece %d times of 50", same)
	}
}

// What a search finds does not move the place where a machine writes.
func TestPickerGoesOnInOrderWhileASearchFinds(t *testing.T) {
	p := NewPuller(NewSet(100), setOf(100, 80), 100, rand.New(rand.NewPCG(1, 2)))
	p.begin(10)
	p.See(80, true)
	if got, _ := p.pick(allOf(100), 0, nil); got != 11 {
		t.Errorf("picked %d behind 10", got)
	}
}

func TestBitfield(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 200).Draw(t, "pieces")
		b, want := NewSet(n), map[int]bool{}
		for _, i := range rapid.SliceOf(rapid.IntRange(0, n-1)).Draw(t, "members") {
			b.Add(i)
			want[i] = true
		}
		got, err := ParseBitfield(b.Bitfield(n), n)
		if err != nil || got.Len() != len(want) || got.Lacks(b) || b.Lacks(got) {
			t.Fatalf("%v: %v, %v", b, got, err)
		}
		last := -1
		for i := range got.All() {
			if i <= last || !want[i] || !got.Has(i) {
				t.Fatalf("member %d after %d", i, last)
			}
			last = i
		}
	})
	if b := setOf(10, 0, 9).Bitfield(10); !bytes.Equal(b, []byte{0x80, 0x40}) {
		t.Errorf("bitfield %x", b)
	}
	for _, wrong := range [][]byte{{}, {0xff}, {0xff, 0xff, 0}, {0, 0x20}} {
		if _, err := ParseBitfield(wrong, 10); err == nil {
			t.Errorf("bitfield %x of 10 pieces passes", wrong)
		}
	}
}
