package schedule

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

func allOf(pieces int) Set {
	b := NewSet(pieces)
	for i := range pieces {
		b.Add(i)
	}
	return b
}

// showings drains next.
func showings(h *Handout, now time.Time) (list []string) {
	for {
		id, piece, ok := h.Next(now)
		if !ok {
			return list
		}
		list = append(list, fmt.Sprintf("%d to %d", piece, id))
	}
}

func TestHandoutShowsEveryPieceOnceBeforeAnyTwice(t *testing.T) {
	const pieces, guests = 100, 3
	h := NewHandout(allOf(pieces), pieces, time.Minute)
	for id := range guests {
		h.Join(id, NewSet(pieces), noon)
	}
	times := map[int]int{}
	given := map[int]int{}
	for len(times) < pieces {
		id, piece, ok := h.Next(noon)
		if !ok {
			t.Fatalf("nothing to show after %d pieces", len(times))
		}
		if times[piece]++; times[piece] > 1 {
			t.Fatalf("piece %d was shown twice before the others once", piece)
		}
		given[id]++
		h.Have(id, piece, noon)
	}
	for id, n := range given {
		if n < pieces/guests {
			t.Errorf("guest %d was given %d of %d pieces", id, n, pieces)
		}
	}
}

func TestHandoutWindow(t *testing.T) {
	h := NewHandout(allOf(1000), 1000, time.Minute)
	h.Join(1, NewSet(1000), noon)
	h.Join(2, NewSet(1000), noon)
	if n := len(showings(h, noon)); n != firstWindow {
		t.Errorf("%d pieces shown at first, want %d", n, firstWindow)
	}
	if n := len(showings(h, noon.Add(firstTime))); n != 1 {
		t.Errorf("%d pieces shown after %v, want one more", n, firstTime)
	}
	h.Have(1, 0, noon)
	if n := len(showings(h, noon)); n != 1 {
		t.Errorf("%d pieces shown after an announcement, want one more", n)
	}
	if n := len(showings(h, noon.Add(time.Hour))); h.live != MinWindow {
		t.Errorf("%d more pieces shown and %d open, want %d", n, h.live, MinWindow)
	}
	if h.guests[1].live != h.guests[2].live {
		t.Errorf("%d and %d pieces shown to two guests", h.guests[1].live, h.guests[2].live)
	}
	for _, c := range []struct {
		rate  float64
		piece int64
		want  int
	}{
		{0, 256 << 10, 16}, {0, 4 << 20, 8}, {12.5e6, 256 << 10, 16}, {125e6, 256 << 10, 119}, {1.25e9, 256 << 10, 256}, {0, 0, 256},
	} {
		if h.Pace(c.rate, c.piece); h.window != c.want {
			t.Errorf("window %d at %.0f bytes/s and pieces of %d, want %d", h.window, c.rate, c.piece, c.want)
		}
	}
}

func TestHandoutForgetsAGuestThatLeaves(t *testing.T) {
	h := NewHandout(allOf(4), 4, time.Minute)
	h.announced = MinWindow // beyond the first
	h.Join(1, NewSet(4), noon)
	if n := len(showings(h, noon)); n != 4 {
		t.Fatalf("%d pieces shown", n)
	}
	h.Have(1, 0, noon)
	h.Leave(1)
	h.Leave(1)
	h.Join(2, NewSet(4), noon)
	if got := fmt.Sprint(showings(h, noon)); got != "[0 to 2 1 to 2 2 to 2 3 to 2]" {
		t.Errorf("shown after the only holder left: %s", got)
	}
}

func TestHandoutDoesNotWaitForAStalledGuest(t *testing.T) {
	h := NewHandout(allOf(MinWindow), MinWindow, time.Hour)
	h.announced = MinWindow // beyond the first
	h.Join(1, NewSet(MinWindow), noon)
	showings(h, noon)
	h.Join(2, NewSet(MinWindow), noon)
	later := noon.Add(firstStall - 1)
	h.Expire(later)
	if got := showings(h, later); got != nil && len(got) > 1 {
		t.Errorf("shown again before the stall: %v", got)
	}
	later = noon.Add(firstStall)
	h.Expire(later)
	for {
		id, piece, ok := h.Next(later)
		if !ok {
			break
		}
		if id != 2 {
			t.Errorf("piece %d shown to the stalled guest", piece)
		}
	}
	if h.guests[2].live == 0 {
		t.Error("nothing shown to the other guest")
	}
	h.Have(1, 3, later)
	if h.guests[1].blocked {
		t.Error("a guest that announced a piece is still taken for stalled")
	}
}

func TestHandoutLeavesSecondCopiesToTheNeighbours(t *testing.T) {
	const pieces = 400
	h := NewHandout(allOf(pieces), pieces, time.Minute)
	h.Join(1, allOf(pieces), noon) // holds everything
	h.Join(2, NewSet(pieces), noon)
	extra := 0
	for i := range pieces {
		if h.guests[2].has.Has(i) {
			continue
		}
		h.Have(2, i, noon) // from its neighbour
		for {
			id, piece, ok := h.Next(noon)
			if !ok {
				break
			}
			extra++
			h.Have(id, piece, noon)
		}
	}
	if extra < pieces/5 || extra > pieces/3 {
		t.Errorf("%d of %d pieces shown to a guest whose neighbour has all", extra, pieces)
	}
}

func TestHandoutFeedsAGuestThatGetsNothingElse(t *testing.T) {
	const pieces = 50
	h := NewHandout(allOf(pieces), pieces, 8*time.Second)
	h.Join(1, allOf(pieces), noon)
	h.Join(2, NewSet(pieces), noon)
	for _, s := range showings(h, noon) {
		var id, piece int
		fmt.Sscanf(s, "%d to %d", &piece, &id)
		h.Have(id, piece, noon)
	}
	if n := h.guests[2].given; n > 2 {
		t.Fatalf("%d pieces shown at once", n)
	}
	later := noon.Add(9 * time.Second)
	for !h.guestDone(2) {
		id, piece, ok := h.Next(later)
		if !ok {
			t.Fatalf("nothing shown to an isolated guest that lacks %d pieces", h.guests[2].lacks)
		}
		h.Have(id, piece, later)
	}
}

func (h *Handout) guestDone(id int) bool { return h.guests[id].lacks == 0 }

func TestHandoutSkipsWhatCannotBeRead(t *testing.T) {
	h := NewHandout(allOf(3), 3, time.Minute)
	h.Join(1, NewSet(3), noon)
	showings(h, noon)
	h.Unreadable(1, 1)
	h.Unreadable(7, 2)
	if got := showings(h, noon); got != nil {
		t.Errorf("shown: %v", got)
	}
	h.Retry()
	if got := fmt.Sprint(showings(h, noon)); got != "[1 to 1]" {
		t.Errorf("shown at the second try: %v", got)
	}
}

// A read that takes long and then fails is no fault of the guest: it is shown other pieces.
func TestHandoutForgivesAGuestWhatCouldNotBeRead(t *testing.T) {
	h := NewHandout(allOf(3), 3, time.Minute)
	h.Join(1, NewSet(3), noon)
	h.Lacks(1)
	h.Lacks(2)
	showings(h, noon)
	h.Expire(noon.Add(firstStall))
	h.Unreadable(1, 0)
	h.Holds(1)
	if got := fmt.Sprint(showings(h, noon.Add(firstStall))); got != "[1 to 1]" {
		t.Errorf("shown: %v", got)
	}
	h.Expire(noon.Add(2 * firstStall))
	h.Holds(2)
	if got := showings(h, noon.Add(2*firstStall)); got != nil {
		t.Errorf("shown to a guest that does not answer: %v", got)
	}
}

// Who has guests that get nothing from others has to fetch for them; who sees them get it need not.
func TestGuestsThatNobodyElseSupplies(t *testing.T) {
	h := NewHandout(allOf(3), 3, 8*time.Second)
	h.Lacks(1)
	h.Lacks(2)
	h.Join(1, NewSet(3), noon)
	h.Meet(9, "b", allOf(3))
	if !h.Hungry(noon) {
		t.Error("a guest that just came is served first")
	}
	later := noon.Add(9 * time.Second)
	h.Have(1, 0, later)
	if h.Hungry(later) {
		t.Error("a guest that got what we have alone")
	}
	h.Have(1, 1, later)
	if !h.Hungry(later) {
		t.Error("a guest that got what we lack")
	}
}

func TestHandoutWaitsAfterARestart(t *testing.T) {
	h := NewHandout(allOf(3), 3, time.Minute)
	h.HoldUntil = noon.Add(time.Second)
	h.Join(1, NewSet(3), noon)
	if got := showings(h, noon); got != nil {
		t.Errorf("shown: %v", got)
	}
	if got := showings(h, noon.Add(time.Second)); len(got) != 3 {
		t.Errorf("shown: %v", got)
	}
}

// Guests that want a part are shown that alone, each piece of it once before any twice; what nobody wants keeps nobody waiting.
func TestHandoutToGuestsThatWantAPart(t *testing.T) {
	const pieces, guests = 90, 3
	for name, whole := range map[string]bool{"all want a part": false, "one wants everything": true} {
		t.Run(name, func(t *testing.T) {
			h := NewHandout(allOf(pieces), pieces, time.Minute)
			wants := NewSet(pieces)
			for i := range 2 * pieces / 3 {
				wants.Add(i)
			}
			for id := 1; id <= guests; id++ {
				if h.Join(id, NewSet(pieces), noon); id > 1 || !whole {
					h.Wants(id, wants)
				}
			}
			want := wants.Len()
			if whole {
				want = pieces
			}
			times := map[int]int{}
			for len(times) < want {
				id, piece, ok := h.Next(noon)
				if !ok {
					t.Fatalf("nothing to show after %d pieces", len(times))
				}
				if times[piece]++; times[piece] > 1 || !wants.Has(piece) && (!whole || id != 1) {
					t.Fatalf("piece %d was shown %d times, now to %d, after %d others", piece, times[piece], id, len(times))
				}
				h.Have(id, piece, noon)
			}
			for piece := range want { // they get the rest from each other
				for id := 1; id <= guests; id++ {
					if h.guests[id].may(piece) {
						h.Have(id, piece, noon)
					}
				}
			}
			if id, piece, ok := h.Next(noon); ok || h.Hungry(noon) {
				t.Errorf("everyone has all that it wants, and piece %d is shown to %d", piece, id)
			}
			for id := 1; id <= guests; id++ {
				h.Leave(id)
			}
			h.Join(9, NewSet(pieces), noon)
			if list := showings(h, noon.Add(time.Hour)); len(list) == 0 {
				t.Error("nothing is shown to a guest that wants everything, behind those that wanted a part")
			}
		})
	}
}

// Whatever happens, the counts agree with what is known of the guests.
func TestHandoutCounts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const pieces = 20
		data := NewSet(pieces)
		for i := range pieces {
			if rapid.Bool().Draw(t, "data") {
				data.Add(i)
			}
		}
		h, now := NewHandout(data, pieces, 8*time.Second), noon
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			id, piece := rapid.IntRange(1, 4).Draw(t, "guest"), rapid.IntRange(0, pieces-1).Draw(t, "piece")
			fellow := rapid.IntRange(11, 13).Draw(t, "fellow")
			switch rapid.IntRange(0, 13).Draw(t, "step") {
			case 0:
				h.Leave(id)
				has := NewSet(pieces)
				for i := range rapid.IntRange(0, pieces).Draw(t, "held") {
					has.Add(i)
				}
				h.Join(id, has, now)
			case 1:
				h.Leave(id)
			case 2:
				h.Have(id, piece, now)
			case 3:
				now = now.Add(time.Duration(rapid.IntRange(0, 20).Draw(t, "seconds")) * time.Second)
				h.Expire(now)
			case 4:
				h.Unreadable(id, piece)
			case 5:
				h.Retry()
			case 6:
				if id, piece, ok := h.Next(now); ok && (h.guests[id].has.Has(piece) || !h.guests[id].may(piece) || !data.Has(piece)) {
					t.Fatalf("piece %d shown to %d", piece, id)
				}
			case 7:
				h.Meet(fellow, fmt.Sprint(fellow), data)
			case 8:
				h.Part(fellow)
			case 9, 10:
				h.Promised(fellow, piece, rapid.SampledFrom([]int{0, id}).Draw(t, "shown to"), now)
			case 11:
				h.TookBack(fellow, piece)
			case 12:
				if h.Lacks(piece); rapid.Bool().Draw(t, "held after all") {
					h.Holds(piece)
				}
			case 13:
				wants := NewSet(pieces)
				for i := range pieces {
					if rapid.Bool().Draw(t, "wanted") {
						wants.Add(i)
					}
				}
				h.Wants(id, wants)
			}
			checkCounts(t, h)
		}
	})
}

func checkCounts(t *rapid.T, h *Handout) {
	live := 0
	for p := range h.holders {
		holders, shown := 0, 0
		for _, g := range h.guests {
			if g.has.Has(p) {
				holders++
			}
			if s := g.shown[p]; s != nil && !s.stalled {
				shown++
			}
		}
		promised := 0
		for _, f := range h.fellows {
			for _, s := range f.shown {
				if s.piece == p {
					promised++
				}
			}
		}
		if int(h.holders[p]) != holders || int(h.shown[p]) != shown || int(h.promised[p]) != promised {
			t.Fatalf("piece %d: %d holders, %d showings, %d of fellows, want %d, %d and %d", p, h.holders[p], h.shown[p],
				h.promised[p], holders, shown, promised)
		}
		if h.bare.Has(p) != (h.data.Has(p) && holders+shown+promised == 0) {
			t.Fatalf("piece %d: %d holders, %d showings, %d of fellows, and bare is %v", p, holders, shown, promised, h.bare.Has(p))
		}
		live += shown
	}
	parts, desired := 0, NewSet(len(h.holders))
	for id, g := range h.guests {
		lacks := 0
		for p := range h.data.All() {
			if g.may(p) && !g.has.Has(p) {
				lacks++
			}
		}
		if g.lacks != lacks {
			t.Fatalf("guest %d lacks %d pieces, want %d", id, g.lacks, lacks)
		}
		if g.wants != nil {
			parts++
			desired.Union(g.wants)
		}
	}
	if h.parts != parts || (h.desired == nil) != (parts == 0 || parts < len(h.guests)) || h.desired != nil && !slices.Equal(h.desired, desired) {
		t.Fatalf("%d of %d guests want a part, want %d; together %v, want %v", h.parts, len(h.guests), parts, h.desired, desired)
	}
	if h.live != live {
		t.Fatalf("%d showings, want %d", h.live, live)
	}
	for id, g := range h.guests {
		promised := 0
		for _, f := range h.fellows {
			for _, s := range f.shown {
				if s.guest == id {
					promised++
				}
			}
		}
		if g.promised != promised {
			t.Fatalf("guest %d was promised %d pieces, want %d", id, g.promised, promised)
		}
	}
}

func TestHandoutShowsSlowGuestsNothingThatOthersTake(t *testing.T) {
	const pieces = 1000
	h := NewHandout(allOf(pieces), pieces, time.Hour)
	now := noon
	for id := 1; id <= 3; id++ {
		h.Join(id, NewSet(pieces), now)
	}
	open := map[int][]int{} // by guest
	given := map[int]int{}
	show := func() {
		for id, piece, ok := h.Next(now); ok; id, piece, ok = h.Next(now) {
			open[id] = append(open[id], piece)
			given[id]++
		}
	}
	announce := func(id int) {
		for _, piece := range open[id] {
			h.Have(id, piece, now)
		}
		open[id] = nil
	}
	round := func(n int) { // every 100 ms the quick ones announce, every 2 s the slow one
		now = now.Add(100 * time.Millisecond)
		announce(1)
		announce(2)
		if n%20 == 0 {
			announce(3)
		}
		h.Expire(now)
		show()
	}
	show()
	for n := range 21 {
		round(n + 1)
	}
	before := given[3]
	for n := range 20 {
		round(n + 1)
	}
	if given[3] > before {
		t.Errorf("%d pieces shown to a slow guest while others take them", given[3]-before)
	}
	for range 600 { // with time it is forgotten
		h.Expire(now)
	}
	if round(1); given[3] == before {
		t.Error("who was slow once is never tried again")
	}
}

func TestHandoutCountsWhatWasAnnounced(t *testing.T) {
	h := NewHandout(allOf(100), 100, time.Minute)
	h.Join(1, NewSet(100), noon)
	showings(h, noon)
	if n := h.Announced(); n != 0 {
		t.Errorf("%d showings announced at the start", n)
	}
	h.Have(1, 0, noon)
	h.Have(1, 99, noon) // from a neighbour
	if n := h.Announced(); n != 1 {
		t.Errorf("%d showings announced, want 1", n)
	}
}

// A guest from which nobody fetches, as it lied or is slow to send, is shown few pieces; when it is fetched from again, as many as
// the others.
func TestHandoutLeavesOutWhoKeepsPiecesToItself(t *testing.T) {
	const pieces, guests = 400, 5
	h := NewHandout(allOf(pieces), pieces, time.Hour)
	for id := range guests {
		h.Join(id, NewSet(pieces), noon)
	}
	held := []int{}
	round := func(hoards bool) (shown [guests]int) {
		for range 20 {
			id, piece, ok := h.Next(noon)
			if !ok {
				t.Fatal("nothing is shown")
			}
			shown[id]++
			h.Have(id, piece, noon)
			if id == 2 && hoards {
				held = append(held, piece)
				continue
			}
			h.Have((id+1)%guests, piece, noon)
		}
		return shown
	}
	if shown := round(true); shown[2] > leastHoard+1 || shown[1] < 4 {
		t.Errorf("shown %v, and nobody fetches from guest 2", shown)
	}
	for _, piece := range held {
		h.Have(3, piece, noon)
	}
	for range 3 {
		round(false)
	}
	if h.hoarded != 0 || h.guests[2].given < 10 {
		t.Errorf("guest 2 was given %d pieces in all, %d pieces are held by one guest", h.guests[2].given, h.hoarded)
	}
	held = held[:0]
	round(true)
	h.Leave(2)
	if h.hoarded != 0 {
		t.Errorf("%d pieces are held by a guest that left", h.hoarded)
	}
	h.Join(2, NewSet(pieces), noon)
	h.Have(2, held[0], noon)
	if h.hoarded != 1 || h.guests[2].hoard != 1 {
		t.Errorf("it came again: %d pieces are held by it alone, of %d", h.guests[2].hoard, h.hoarded)
	}
}

// Of two guests one becomes slow: the other one holds what that one has not fetched yet, and goes on at its own rate.
func TestHandoutFeedsAGuestWhoseOnlyNeighbourBecomesSlow(t *testing.T) {
	const (
		pieces = 4000
		step   = 10 * time.Millisecond
		second = 100 // steps
	)
	h := NewHandout(allOf(pieces), pieces, time.Hour)
	has := [2]Set{NewSet(pieces), NewSet(pieces)}
	for id := range 2 {
		h.Join(1+id, NewSet(pieces), noon)
	}
	h.Pace(2.5e6, 178e3)
	var shown, apart [2][]int // what each fetches of us, and of the other one
	var credit [2]float64     // pieces that its link has carried
	now, random := noon, rand.New(rand.NewPCG(1, 2))
	type one struct {
		id, piece int
		at        time.Time
	}
	var announced []one // what is announced a while after it was fetched, as it is checked and written
	got := func(id, piece int) {
		h.Have(1+id, piece, now)
		has[id].Add(piece)
		if !has[1-id].Has(piece) && !slices.Contains(shown[1-id], piece) {
			apart[1-id] = append(apart[1-id], piece)
		}
	}
	run := func(seconds int, rate [2]float64) (least int) {
		least = pieces
		for range seconds {
			before := has[1].Len()
			for range second {
				now = now.Add(step)
				h.Expire(now)
				for len(announced) > 0 && !announced[0].at.After(now) {
					got(announced[0].id, announced[0].piece)
					announced = announced[1:]
				}
				for id, piece, ok := h.Next(now); ok; id, piece, ok = h.Next(now) {
					shown[id-1] = append(shown[id-1], piece)
				}
				for id := range 2 {
					credit[id] = min(credit[id]+rate[id]/second, 1)
					if credit[id] < 1 {
						continue
					}
					from := &shown[id]
					if len(*from) == 0 || len(apart[id]) > 0 && random.IntN(2) == 0 {
						from = &apart[id]
					}
					if len(*from) == 0 {
						continue
					}
					piece := (*from)[0]
					*from, credit[id] = (*from)[1:], 0
					announced = append(announced, one{id, piece, now.Add(250 * time.Millisecond)})
				}
			}
			least = min(least, has[1].Len()-before)
		}
		return least
	}
	run(2, [2]float64{14, 14})
	if least := run(10, [2]float64{14, 14}); least < 10 {
		t.Fatalf("%d pieces in a second while both are quick", least)
	}
	if least := run(60, [2]float64{1.4, 14}); least < 10 {
		t.Errorf("%d pieces in a second while the other one is slow, of 14 that it could take", least)
	}
}
