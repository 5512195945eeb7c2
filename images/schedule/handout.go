package schedule

import (
	"slices"
	"time"
)

// Handout decides which piece a complete peer shows to whom: every piece to one guest before any piece to a second, a
// bounded number shown and not yet announced back; the guests exchange the rest among themselves. A piece shown is
// fetched at once. It knows no sockets and no clock. Owned by one goroutine.
//
// In a room that starts together and whose machines reach each other, each piece is shown once. Further showings go to
// guests that are behind: at most a quarter of what a guest gets, or all of it if its neighbours give it nothing.
type Handout struct {
	data    Set     // pieces worth showing
	holders []int32 // by piece: guests that announced it
	shown   []int32 // by piece: guests that it was shown to and that are expected to announce it
	guests  map[int]*guest
	order   []*guest // as they came, so that equal guests are served in turn and a simulation repeats itself
	live    int      // sum of shown
	given   int      // showings, ever
	cursor  int      // no piece before it has neither holder nor showing
	window  int      // limit of live
	// isolated is how long a guest gets nothing from its neighbours before it is fed alone.
	isolated time.Duration
	// usual is how long a guest takes from showing to announcement, a moving mean; zero before the first.
	usual time.Duration
	// broken are pieces that could not be read just now; cleared from time to time.
	broken Set
	// HoldUntil is when the first piece may be shown: after a restart the guests of before come back one by one, and
	// what the others hold need not be shown.
	HoldUntil time.Time
}

// guest is one peer that lacks something.
type guest struct {
	id    int
	has   Set
	lacks int
	shown map[int]*showing
	live  int // showings that are not stalled
	given int // pieces shown, ever
	// extra counts pieces shown to it though another guest had them, own those that it got from others.
	extra, own int
	// blocked says that a showing stalled and that it announced nothing shown to it since: it is shown nothing more.
	blocked bool
	fed     time.Time // when it last announced a piece that it had from others, or came
}

type showing struct {
	at      time.Time
	stalled bool
}

// Waits of the hand-out, and its window. 0.25 s of the server's rate in flight, 4 MiB and 8 pieces at least, was found
// by measurement: fewer leave the uplink idle, more lengthen the first hop.
const (
	MinWindow      = 8
	maxWindow      = 256
	minWindowBytes = 4 << 20
	windowTime     = 250 * time.Millisecond
	minStall       = 4 * time.Second  // and 4 x usual
	firstStall     = 15 * time.Second // while usual is unknown
	extraShare     = 3                // pieces from neighbours for each extra one
)

// NewHandout returns a hand-out of the pieces of data, of a content of so many pieces. A guest that gets nothing from its
// neighbours for isolated is fed alone.
func NewHandout(data Set, pieces int, isolated time.Duration) *Handout {
	return &Handout{
		data: data, holders: make([]int32, pieces), shown: make([]int32, pieces), guests: map[int]*guest{},
		window: MinWindow, broken: NewSet(pieces), isolated: isolated,
	}
}

// Given is how many showings there were.
func (h *Handout) Given() int { return h.given }

// Pace sets the window from the rate of sending and the mean length of a piece on the wire, both in bytes.
func (h *Handout) Pace(bytesPerSecond float64, pieceLength int64) {
	want := max(minWindowBytes, int64(bytesPerSecond*windowTime.Seconds())) / max(pieceLength, 1)
	h.window = int(min(max(want, MinWindow), maxWindow))
}

// Join adds a guest with the pieces that it holds; has stays the caller's.
func (h *Handout) Join(id int, has Set, now time.Time) {
	g := &guest{id: id, has: NewSet(len(h.holders)), shown: map[int]*showing{}, fed: now}
	g.lacks = h.data.Len()
	h.guests[id] = g
	h.order = append(h.order, g)
	for i := range has.All() {
		h.Have(id, i, now)
	}
	g.own = 0
}

// Leave removes a guest: what was shown to it is shown to another.
func (h *Handout) Leave(id int) {
	g := h.guests[id]
	if g == nil {
		return
	}
	delete(h.guests, id)
	h.order = slices.DeleteFunc(h.order, func(o *guest) bool { return o == g })
	for i := range g.has.All() {
		h.holders[i]--
		h.freed(i)
	}
	for i, s := range g.shown {
		if !s.stalled {
			h.shown[i]--
			h.live--
		}
		h.freed(i)
	}
}

func (h *Handout) freed(piece int) {
	if h.holders[piece]+h.shown[piece] == 0 {
		h.cursor = min(h.cursor, piece)
	}
}

// Have says that a guest announced a piece.
func (h *Handout) Have(id, piece int, now time.Time) {
	g := h.guests[id]
	if g == nil || !h.data.Has(piece) || g.has.Has(piece) {
		return
	}
	g.has.Add(piece)
	g.lacks--
	h.holders[piece]++
	s := g.shown[piece]
	if s == nil {
		g.fed, g.own = now, g.own+1
		return
	}
	delete(g.shown, piece)
	if took := now.Sub(s.at); h.usual == 0 {
		h.usual = took
	} else {
		h.usual += (took - h.usual) / 8
	}
	g.blocked = false
	if s.stalled {
		return
	}
	g.live--
	h.live--
	h.shown[piece]--
}

// Unreadable takes back a showing of a piece that could not be read, and shows it to nobody until retry.
func (h *Handout) Unreadable(id, piece int) {
	h.broken.Add(piece)
	g := h.guests[id]
	if g == nil || g.shown[piece] == nil {
		return
	}
	if !g.shown[piece].stalled {
		g.live--
		h.live--
		h.shown[piece]--
	}
	delete(g.shown, piece)
	h.freed(piece)
}

// Retry lets the pieces be shown again that could not be read.
func (h *Handout) Retry() {
	clear(h.broken)
	h.cursor = 0
}

// Expire stops counting on showings that take too long.
func (h *Handout) Expire(now time.Time) {
	limit := firstStall
	if h.usual > 0 {
		limit = max(minStall, 4*h.usual)
	}
	for _, g := range h.order {
		for piece, s := range g.shown {
			if s.stalled || now.Sub(s.at) < limit {
				continue
			}
			s.stalled, g.blocked = true, true
			g.live--
			h.live--
			h.shown[piece]--
			h.freed(piece)
		}
	}
}

// Next returns the piece to show now and the guest to show it to, and counts it as shown; ok is false when nothing is
// to be shown.
func (h *Handout) Next(now time.Time) (id, piece int, ok bool) {
	if h.live >= h.window || now.Before(h.HoldUntil) || !h.hungry() {
		return 0, 0, false
	}
	for piece = h.cursor; piece < len(h.holders); piece++ {
		if h.data.Has(piece) && !h.broken.Has(piece) && h.holders[piece]+h.shown[piece] == 0 {
			if id, ok = h.guestFor(piece); ok {
				h.show(id, piece, now)
				return id, piece, true
			}
		} else if piece == h.cursor {
			h.cursor++
		}
	}
	if h.live >= 2*len(h.guests) {
		return 0, 0, false
	}
	if id, piece, ok = h.second(now); ok {
		h.guests[id].extra++
		h.show(id, piece, now)
	}
	return id, piece, ok
}

// hungry reports whether some guest can be shown a piece.
func (h *Handout) hungry() bool {
	for _, g := range h.order {
		if g.hungry() {
			return true
		}
	}
	return false
}

// hungry reports whether the guest lacks a piece and takes what it is shown.
func (g *guest) hungry() bool { return g.lacks > len(g.shown) && !g.blocked }

// before orders guests: the one with fewest showings open, then the one that was given least.
func (g *guest) before(o *guest) bool {
	return o == nil || g.live < o.live || (g.live == o.live && g.given < o.given)
}

// guestFor returns the guest to show a piece to that nobody has.
func (h *Handout) guestFor(piece int) (id int, ok bool) {
	var best *guest
	for _, g := range h.order {
		if g.hungry() && !g.has.Has(piece) && g.shown[piece] == nil && g.before(best) {
			id, best = g.id, g
		}
	}
	return id, best != nil
}

// second chooses among pieces that some guest has, or was shown: the rarest that a guest which is behind lacks.
func (h *Handout) second(now time.Time) (id, piece int, ok bool) {
	var best *guest
	for _, g := range h.order {
		behind := g.extra*extraShare <= g.own || now.Sub(g.fed) > h.isolated
		if behind && g.hungry() && g.before(best) {
			id, best = g.id, g
		}
	}
	if best == nil {
		return 0, 0, false
	}
	for p := range h.data.All() {
		if best.has.Has(p) || best.shown[p] != nil || h.broken.Has(p) {
			continue
		}
		if !ok || h.holders[p]+h.shown[p] < h.holders[piece]+h.shown[piece] {
			piece, ok = p, true
		}
	}
	return id, piece, ok
}

func (h *Handout) show(id, piece int, now time.Time) {
	g := h.guests[id]
	g.shown[piece] = &showing{at: now}
	g.live++
	g.given++
	h.given++
	h.live++
	h.shown[piece]++
}
