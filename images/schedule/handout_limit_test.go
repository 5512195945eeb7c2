package schedule

import (
	"testing"
	"time"
)

// What is open follows the limit, so that every piece is shown once however slow sending is.
func TestHandoutBehindALimit(t *testing.T) {
	const pieces, guests, length = 40, 4, 1 << 20
	for name, c := range map[string]struct{ total, each float64 }{
		"of all": {64 << 10, 0}, "of each": {0, 32 << 10}, "of both": {1 << 20, 16 << 10}, "fast": {100 << 20, 0}, "none": {0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			rate := c.total
			if all := c.each * guests; all > 0 && (rate == 0 || all < rate) {
				rate = all
			}
			if rate == 0 {
				rate = 10 << 20
			}
			h := NewHandout(allOf(pieces), pieces, time.Hour)
			h.Limit(c.total, c.each)
			for id := range guests {
				h.Join(1+id, NewSet(pieces), noon)
			}
			h.Pace(0, length)
			type sending struct{ guest, piece int }
			var queue []sending // one after the other
			now, free, times, shown, held := noon, noon, make([]int, pieces), 0, 0
			for held < pieces {
				h.Expire(now)
				for {
					id, piece, ok := h.Next(now)
					if !ok {
						break
					}
					if times[piece]++; times[piece] == 1 {
						shown++
					} else if shown < pieces { // guests that are behind get what others have, when all has been shown
						t.Fatalf("piece %d was shown twice, %d of %d are held after %v", piece, held, pieces, now.Sub(noon))
					}
					queue = append(queue, sending{id, piece})
				}
				if len(queue) == 0 {
					t.Fatalf("nothing is sent, and %d of %d are held", held, pieces)
				}
				free = free.Add(time.Duration(length / rate * float64(time.Second)))
				for now.Before(free) { // ticks
					now = now.Add(250 * time.Millisecond)
					h.Pace(rate, length)
					h.Expire(now)
				}
				s := queue[0]
				if queue = queue[1:]; !h.guests[s.guest].has.Has(s.piece) {
					held++
				}
				for id := range guests { // they exchange at once
					h.Have(1+id, s.piece, now)
				}
			}
			if took, best := now.Sub(noon), time.Duration(pieces*length/rate*float64(time.Second)); took > best+best/4+time.Second {
				t.Errorf("%v, and the line takes %v", took, best)
			}
		})
	}
	h := NewHandout(allOf(pieces), pieces, time.Hour)
	h.Join(1, NewSet(pieces), noon)
	for _, c := range []struct {
		total, each float64
		piece       int64
		want        int
	}{
		{0, 0, 256 << 10, 16}, {1 << 20, 0, 256 << 10, 4}, {64 << 10, 0, 16 << 20, leastWindow}, {12.5e6, 0, 256 << 10, 16}, {0, 1 << 20, 256 << 10, 4},
		{2 << 20, 1 << 20, 256 << 10, 4}, {1 << 40, 0, 256 << 10, 16},
	} {
		h.Limit(c.total, c.each)
		if h.Pace(0, c.piece); h.window != c.want {
			t.Errorf("window %d with limits of %.0f and %.0f, pieces of %d; want %d", h.window, c.total, c.each, c.piece, c.want)
		}
	}
}

// A fellow that serves another group shows our guests nothing: what it showed there is ours to show, until it serves one of ours.
func TestHandoutBesideAFellowOfAnotherGroup(t *testing.T) {
	const pieces = 200
	h := NewHandout(allOf(pieces), pieces, time.Hour)
	h.Join(1, NewSet(pieces), noon)
	h.Join(2, NewSet(pieces), noon)
	h.Meet(1000, "other", allOf(pieces))
	for p := range manyStrangers {
		h.Promised(1000, p, 0, noon)
	}
	for p := range 10 { // announced to us by nobody
		h.Promised(1000, manyStrangers+p, 0, noon)
	}
	h.FellowHolds(1000, 3)
	h.TookBack(1000, 3)
	now, seen := noon, NewSet(pieces)
	for range pieces {
		id, p, ok := h.Next(now)
		if !ok || seen.Has(p) {
			t.Fatalf("after %d pieces: %d, %v", seen.Len(), p, ok)
		}
		seen.Add(p)
		h.Have(1, p, now)
		h.Have(2, p, now)
		_ = id
	}
	if len(h.Showings()) != 0 {
		t.Errorf("%v", h.Showings())
	}
	h = NewHandout(allOf(pieces), pieces, time.Hour)
	h.Join(1, NewSet(pieces), noon)
	h.Meet(1000, "other", allOf(pieces))
	for p := range manyStrangers {
		h.Promised(1000, p, 0, noon)
	}
	h.Promised(1000, 100, 1, noon) // it serves ours too
	h.Promised(1000, 101, 0, noon)
	if len(h.fellows) != 1 || len(h.apart) != 0 || h.promised[100] != 1 || h.promised[101] != 1 || h.promised[0] != 0 {
		t.Errorf("%d fellows and %d apart, promises %v", len(h.fellows), len(h.apart), h.promised)
	}
	h.Part(1000)
	if len(h.fellows)+len(h.apart) != 0 || h.promised[100] != 0 {
		t.Errorf("a fellow that left is there")
	}
	h.Meet(1000, "other", allOf(pieces))
	for p := range manyStrangers {
		h.Promised(1000, p, 0, noon)
	}
	h.Meet(1000, "other", allOf(pieces)) // again
	if len(h.fellows) != 1 || len(h.apart) != 0 {
		t.Errorf("%d fellows and %d apart", len(h.fellows), len(h.apart))
	}
}
