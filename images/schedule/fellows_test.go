package schedule

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// room is a model of peers that hand out and of guests that announce what was shown to them, and hold it for good. What
// one says the others hear latency later.
type room struct {
	now     time.Time
	latency time.Duration
	hands   []*hand
	guests  int
	pieces  int
	shown   []int // by piece: showings
	held    Set   // pieces that some guest holds
	mail    []mail
}

type hand struct {
	*Handout
	id    int
	rate  float64 // pieces a second
	queue []Showing
	sent  float64 // of the first in queue
	count int     // pieces that it gave
	dead  bool
}

type mail struct {
	at   time.Time
	from int // only what is from a living hand arrives; -1 for guests
	do   func()
}

const modelStep = 10 * time.Millisecond

// newRoom makes hand-outs of given rates; holds says which pieces each of them has.
func newRoom(pieces, guests int, latency time.Duration, rates []float64, holds func(hand, piece int) bool) *room {
	r := &room{now: noon, latency: latency, guests: guests, pieces: pieces, shown: make([]int, pieces), held: NewSet(pieces)}
	for i, rate := range rates {
		h := &hand{Handout: NewHandout(allOf(pieces), pieces, time.Hour), id: 1000 + i, rate: rate}
		h.Name = fmt.Sprint(i)
		for p := range pieces {
			if !holds(i, p) {
				h.Lacks(p)
			}
		}
		r.hands = append(r.hands, h)
	}
	for _, h := range r.hands {
		for g := range guests {
			h.Join(1+g, NewSet(pieces), noon)
		}
		for _, o := range r.hands {
			if o != h {
				h.Meet(o.id, o.Name, o.can)
			}
		}
	}
	return r
}

func (r *room) post(from int, do func()) {
	r.mail = append(r.mail, mail{r.now.Add(r.latency), from, do})
	r.deliver()
}

func (r *room) deliver() {
	for len(r.mail) > 0 && !r.mail[0].at.After(r.now) {
		m := r.mail[0]
		r.mail = r.mail[1:]
		if m.from < 0 || !r.hands[m.from].dead {
			m.do()
		}
	}
}

// step lets everyone show, send and hear.
func (r *room) step() {
	r.deliver()
	for i, h := range r.hands {
		if h.dead {
			continue
		}
		h.Expire(r.now)
		r.show(i)
		for h.sent += h.rate * modelStep.Seconds(); h.sent >= 1 && len(h.queue) > 0; h.sent-- {
			s := h.queue[0]
			h.queue = h.queue[1:]
			h.count++
			r.held.Add(s.Piece)
			r.post(-1, func() {
				for _, o := range r.hands {
					o.Have(s.Guest, s.Piece, r.now)
				}
			})
			r.show(i)
		}
		h.sent = min(h.sent, 1)
	}
	r.now = r.now.Add(modelStep)
}

// show lets one show what it may, and tells the others.
func (r *room) show(i int) {
	h := r.hands[i]
	for _, piece := range h.TakenBack() {
		r.tell(i, func(o *hand) { o.TookBack(h.id, piece) })
	}
	for {
		id, piece, ok := h.Next(r.now)
		if !ok {
			return
		}
		r.shown[piece]++
		h.queue = append(h.queue, Showing{id, piece})
		r.tell(i, func(o *hand) { o.Promised(h.id, piece, id, r.now) })
	}
}

func (r *room) tell(from int, what func(o *hand)) {
	r.post(from, func() {
		for _, o := range r.hands {
			if o != r.hands[from] {
				what(o)
			}
		}
	})
}

// kill ends a hand, which the others notice after a while.
func (r *room) kill(i int, notice time.Duration) {
	dead := r.hands[i]
	dead.dead = true
	r.mail = append(r.mail, mail{r.now.Add(notice), -1, func() {
		for _, o := range r.hands {
			if o != dead {
				o.Part(dead.id)
			}
		}
	}})
	slices.SortStableFunc(r.mail, func(a, b mail) int { return a.at.Compare(b.at) })
}

// run steps until every piece was shown and is held, and returns how long it took.
func (r *room) run(t interface{ Fatalf(string, ...any) }, until func() bool) time.Duration {
	for !until() {
		if r.step(); r.now.Sub(noon) > time.Hour {
			t.Fatalf("%d of %d pieces are held after an hour", r.held.Len(), r.pieces)
		}
	}
	return r.now.Sub(noon)
}

func (r *room) done() bool { return r.held.Len() == r.pieces }

// Whoever holds what, every piece is shown once over all hand-outs before any is shown twice.
func TestFellowsShowEveryPieceOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pieces := rapid.IntRange(1, 300).Draw(t, "pieces")
		rates := rapid.SliceOfN(rapid.Float64Range(40, 120), 1, 4).Draw(t, "rates")
		share := rapid.SliceOfN(rapid.IntRange(1, 100), len(rates), len(rates)).Draw(t, "percent held")
		striped := rapid.Bool().Draw(t, "striped")
		r := newRoom(pieces, rapid.IntRange(1, 6).Draw(t, "guests"), 0, rates, func(i, p int) bool {
			if striped {
				return i == 0 || p*7919%100 < share[i]
			}
			return i == 0 || p*100 < share[i]*pieces
		})
		r.run(t, func() bool {
			left := r.hands[0].bare.Len()
			for p, n := range r.shown {
				if n > 1 && left > 0 {
					t.Fatalf("piece %d was shown %d times, and %d not at all", p, n, left)
				}
			}
			return r.done()
		})
	})
}

// What one says takes a moment to be heard: few pieces are shown twice for that.
func TestFellowsAtADistance(t *testing.T) {
	for _, n := range []int{2, 3, 5} {
		rates := slices.Repeat([]float64{50}, n)
		r := newRoom(2000, 16, 50*time.Millisecond, rates, func(int, int) bool { return true })
		took := r.run(t, r.done)
		twice := 0
		for _, s := range r.shown {
			if s > 1 {
				twice++
			}
		}
		ideal := time.Duration(2000 / (50 * float64(n)) * float64(time.Second))
		t.Logf("%d hand-outs: %v, ideal %v, %d pieces shown twice", n, took, ideal, twice)
		if twice > 20*n || took > ideal*11/10 {
			t.Errorf("%d hand-outs: %v, ideal %v, %d pieces shown twice", n, took, ideal, twice)
		}
	}
}

// A slow one gives no more than its share, and the others do not wait for it.
func TestASlowFellowIsRelieved(t *testing.T) {
	for name, rates := range map[string][]float64{"first": {5, 50}, "second": {50, 5}, "of three": {50, 5, 50}} {
		t.Run(name, func(t *testing.T) {
			r := newRoom(1000, 8, 10*time.Millisecond, rates, func(int, int) bool { return true })
			took, sum := r.run(t, r.done), 0.0
			for _, rate := range rates {
				sum += rate
			}
			ideal := time.Duration(1000 / sum * float64(time.Second))
			for i, h := range r.hands {
				t.Logf("%.0f pieces a second: %d pieces", rates[i], h.count)
				if share := float64(h.count) / 1000; rates[i] == 5 && share > 1.5*5/sum {
					t.Errorf("the slow one gave %.2f of the pieces", share)
				}
			}
			if t.Logf("%v, ideal %v", took, ideal); took > ideal*11/10 {
				t.Errorf("%v, ideal %v", took, ideal)
			}
		})
	}
}

// No piece is lost when one dies that others can show, and only what it had under way is shown again.
func TestFellowsTakeOverFromOneThatDies(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const pieces = 300
		rates := rapid.SliceOfN(rapid.Float64Range(20, 120), 2, 4).Draw(t, "rates")
		r := newRoom(pieces, 4, 0, rates, func(int, int) bool { return true })
		killed := rapid.IntRange(0, len(rates)-1).Draw(t, "killed")
		at := noon.Add(time.Duration(rapid.IntRange(0, 1500).Draw(t, "ms")) * time.Millisecond)
		r.run(t, func() bool { return !r.now.Before(at) || r.done() })
		under := len(r.hands[killed].queue)
		r.kill(killed, time.Duration(rapid.SampledFrom([]int{0, 3}).Draw(t, "seconds"))*time.Second)
		r.run(t, r.done)
		again := 0
		for _, n := range r.shown {
			again += n - 1
		}
		alive := 0
		for i, h := range r.hands {
			if i != killed {
				alive += h.window
			}
		}
		if again > under+alive {
			t.Fatalf("%d pieces were shown again, %d were under way", again, under)
		}
	})
}

func TestAFellowsShowingsEndWithItsLink(t *testing.T) {
	h := NewHandout(allOf(4), 4, time.Minute)
	h.Name = "a"
	h.Join(1, NewSet(4), noon)
	h.Meet(9, "b", allOf(4))
	for p := range 4 {
		h.Promised(9, p, 1, noon)
	}
	if got := showings(h, noon); got != nil {
		t.Errorf("shown though a fellow did: %v", got)
	}
	h.TookBack(9, 2)
	if got := fmt.Sprint(showings(h, noon)); got != "[2 to 1]" {
		t.Errorf("shown after the fellow took it back: %s", got)
	}
	h.Have(1, 0, noon)
	h.Part(9)
	if got := showings(h, noon); len(got) != 2 || slices.Contains(got, "0 to 1") {
		t.Errorf("shown after the fellow left: %v", got)
	}
}

// A guest that gets nothing but from hand-outs is isolated, however many they are.
func TestWhatFellowsShowIsNotFromNeighbours(t *testing.T) {
	h := NewHandout(allOf(100), 100, 8*time.Second)
	h.Join(1, NewSet(100), noon)
	h.Join(2, allOf(100), noon)
	h.Meet(9, "b", allOf(100))
	later := noon.Add(9 * time.Second)
	h.Promised(9, 7, 1, later)
	h.Have(1, 7, later)
	if g := h.guests[1]; g.own != 0 || g.fed != noon {
		t.Errorf("%d pieces from neighbours, the last at %v", g.own, g.fed)
	}
	if got := showings(h, later); len(got) < leastWindow {
		t.Errorf("shown to an isolated guest: %v", got)
	}
}

func TestShowingsThatEndAreTakenBack(t *testing.T) {
	h := NewHandout(allOf(4), 4, time.Minute)
	h.Meet(9, "b", NewSet(4))
	h.Join(1, NewSet(4), noon)
	h.served = MinWindow // beyond the first, careful showings
	showings(h, noon)
	if got := fmt.Sprint(h.Showings()); got != "[{1 0} {1 1} {1 2} {1 3}]" {
		t.Errorf("showings %s", got)
	}
	h.Have(1, 3, noon)
	h.Unreadable(1, 2)
	h.Leave(1)
	if got := fmt.Sprint(h.TakenBack(), h.TakenBack()); got != "[0 1 2] []" {
		t.Errorf("taken back %s", got)
	}
}

// After a restart it is shown at once what lies in a long row of pieces that nobody holds.
func TestHandoutDoesNotHoldLongRows(t *testing.T) {
	h := NewHandout(allOf(320), 320, time.Minute)
	h.HoldUntil, h.announced = noon.Add(3*time.Second), MinWindow
	has := NewSet(320)
	for p := range 160 {
		if p%10 != 4 {
			has.Add(p)
		}
	}
	h.Join(1, has, noon)
	if got := showings(h, noon); len(got) != MinWindow || got[0] != "160 to 1" {
		t.Errorf("shown at once: %v", got)
	}
}

// A seed node with every other piece does not wait either where nobody holds a long row.
func TestHandoutOfAShareDoesNotHoldLongRows(t *testing.T) {
	h := NewHandout(allOf(320), 320, time.Minute)
	h.HoldUntil, h.announced = noon.Add(3*time.Second), MinWindow
	for p := range 320 {
		if p%2 == 1 {
			h.Lacks(p)
		}
	}
	has := NewSet(320)
	has.Add(100)
	h.Join(1, has, noon)
	if got := showings(h, noon); len(got) != MinWindow || got[0] != "0 to 1" || got[1] != "2 to 1" {
		t.Errorf("shown at once: %v", got)
	}
}
