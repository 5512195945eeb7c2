package schedule

import (
	"slices"
	"time"
)

// Handout decides which piece a peer shows to whom: every piece to one guest before any piece to a second, a bounded
// number shown and not yet announced back; the guests exchange the rest among themselves. A piece shown is fetched at
// once. It knows no sockets and no clock. Owned by one goroutine.
//
// Several peers may hand out the same content, each all of it or some: see Meet. Between them too every piece is shown
// once before any piece twice.
//
// In a room that starts together and whose machines reach each other, each piece is shown once. Further showings go to
// guests that are behind: at most a quarter of what a guest gets, or all of it if its neighbours give it nothing.
type Handout struct {
	// Name is the peer's own name among those who hand out.
	Name string

	data      Set       // pieces worth showing
	can       Set       // those of data that we hold
	bare      Set       // those of data that no guest holds and nobody's showing covers
	holders   []int32   // by piece: guests that announced it
	only      []int32   // by piece: 1 + the guest that announced it alone, counted in its hoard; 0 for none
	shown     []int32   // by piece: guests that it was shown to and that are expected to announce it
	beganAt   time.Time // when a piece was shown first
	desired   Set       // pieces that some guest wants, where each of them wants some only; nil is all
	parts     int       // guests that want some only
	guests    map[int]*guest
	order     []*guest // as they came, so that equal guests are served in turn and a simulation repeats itself
	live      int      // sum of shown
	hoarded   int      // sum of the guests' hoards
	announced int      // showings that were announced, ever
	served    float64  // showings that were announced, old ones fading, in
	busy      float64  // so many seconds, in which some were open
	expired   time.Time
	window    int // limit of live
	// total and each bound the rate of sending, see Limit; takes is how long a showing takes at these rates, 0 without them.
	total, each float64
	takes       time.Duration
	// at is where the first pass goes on, and begun says that it has begun; before, its place follows from Name.
	at    int
	begun bool
	// isolated is how long a guest gets nothing from its neighbours before it is fed alone.
	isolated time.Duration
	// usual is how long a guest takes from showing to announcement, a moving mean in which no single time counts for more
	// than twice the mean; zero before the first.
	usual time.Duration
	// supplied is when a guest last announced a piece that we lack, or the first guest came.
	supplied time.Time
	// broken are pieces that could not be read just now; cleared from time to time.
	broken Set
	// AwaitUntil is when the first piece may be shown. HoldUntil is when all pieces may: after a restart the guests of
	// before come back one by one, and what the others hold need not be shown. What lies in a long row of pieces that
	// nobody holds was not handed out before, and does not wait.
	AwaitUntil, HoldUntil time.Time

	fellows  []*fellow // the others who hand out, by name
	apart    []*fellow // those who serve other guests than ours, see manyStrangers
	promised []int32   // by piece: showings of fellows that are not announced yet
	taken    []int     // pieces whose showing we take back, see TakenBack
	choice   Set       // see choose
}

// guest is one peer that lacks something.
type guest struct {
	id    int
	has   Set
	wants Set // nil is all
	lacks int
	shown map[int]*showing
	live  int // showings that are not stalled
	given int // pieces shown, ever
	// takes is usual for this guest alone; it is forgotten slowly, so that who was slow once is tried again.
	takes time.Duration
	// promised counts what fellows show it.
	promised int
	// hoard counts pieces that it announced and no other guest did.
	hoard int
	// extra counts pieces shown to it though another guest had them, own those that it got from others.
	extra, own int
	// blocked says that a showing stalled and that it announced nothing shown to it since: it is shown nothing more.
	blocked bool
	// late says that a showing is open for longer than lateTimes x usual, or was, and takes is longer still.
	late bool
	fed  time.Time // when it last announced a piece that it had from others, or came
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
	limitedTime    = time.Second      // of a rate that is limited, in flight at most
	minStall       = 4 * time.Second  // and stallTimes x usual
	firstStall     = 15 * time.Second // while usual is unknown
	stallTimes     = 4                // times usual
	extraShare     = 3                // pieces from neighbours for each extra one
	slowTimes      = 4                // times usual: who takes longer is slow
	lateTimes      = 2                // times usual: who has a showing open for longer is slow for now
	leastHoard     = 2                // pieces
	hoardTimes     = 2                // times the mean of the others
	longRow        = 32               // a row of so many'th of all pieces is long, see Handout.HoldUntil
)

// NewHandout returns a hand-out of the pieces of data, of a content of so many pieces. A guest that gets nothing from its
// neighbours for isolated is fed alone.
func NewHandout(data Set, pieces int, isolated time.Duration) *Handout {
	return &Handout{
		data: data, can: slices.Clone(data), bare: slices.Clone(data), choice: NewSet(pieces),
		holders: make([]int32, pieces), only: make([]int32, pieces), shown: make([]int32, pieces), promised: make([]int32, pieces),
		guests: map[int]*guest{}, window: MinWindow, broken: NewSet(pieces), isolated: isolated,
	}
}

// Lacks says that a piece is not held and cannot be shown for now; Holds that it is. At the start all are held.
func (h *Handout) Lacks(piece int) { h.can.Remove(piece) }
func (h *Handout) Holds(piece int) {
	if h.data.Has(piece) {
		h.can.Add(piece)
	}
}

// Hungry reports whether some guest lacks a piece that it may be shown, by us or another, and guests get what we lack: where
// for long none of them got any of it, we are all that they have.
func (h *Handout) Hungry(now time.Time) bool { return h.hungry() && now.Sub(h.supplied) <= h.isolated }

// Announced is how many showings were announced back, ever: what was sent went into those, and in part into the open
// ones.
func (h *Handout) Announced() int { return h.announced }

// Limit says how fast may be sent at most, to all guests together and to each, in bytes a second; 0 is no limit. It counts with
// the next Pace.
func (h *Handout) Limit(total, each float64) { h.total, h.each = total, each }

// Pace sets the window from the rate of sending and the mean length of a piece on the wire, both in bytes. Where a limit makes
// sending slow, less is open than else: what waits for its turn is asked of nobody else meanwhile.
func (h *Handout) Pace(bytesPerSecond float64, pieceLength int64) {
	pieceLength = max(pieceLength, 1)
	want := max(minWindowBytes, int64(bytesPerSecond*windowTime.Seconds())) / pieceLength
	h.window, h.takes = int(min(max(want, MinWindow), maxWindow)), 0
	bound := h.total
	if all := h.each * float64(len(h.guests)); all > 0 && (bound == 0 || all < bound) {
		bound = all
	}
	if bound > 0 {
		h.window = min(h.window, max(leastWindow, int(bound*limitedTime.Seconds())/int(pieceLength)))
		h.takes = time.Duration(float64(h.window) * float64(pieceLength) / bound * float64(time.Second))
	}
}

// Join adds a guest with the pieces that it holds; has stays the caller's.
func (h *Handout) Join(id int, has Set, now time.Time) {
	g := &guest{id: id, has: NewSet(len(h.holders)), shown: map[int]*showing{}, fed: now}
	g.lacks = h.data.Len()
	if len(h.guests) == 0 {
		h.supplied = now
	}
	h.guests[id] = g
	h.order = append(h.order, g)
	for i := range has.All() {
		h.Have(id, i, now)
	}
	g.own = 0
	h.desire()
}

// Wants says that a guest which has just joined wants some of the pieces, and is to be shown nothing else.
func (h *Handout) Wants(id int, wants Set) {
	g := h.guests[id]
	if g == nil || g.wants != nil {
		return
	}
	g.wants, g.lacks = slices.Clone(wants), 0
	for i := range h.data.All() {
		if wants.Has(i) && !g.has.Has(i) {
			g.lacks++
		}
	}
	h.parts++
	h.desire()
}

// may reports whether the guest wants a piece.
func (g *guest) may(piece int) bool { return g.wants == nil || g.wants.Has(piece) }

// desire brings desired up to date with the guests.
func (h *Handout) desire() {
	h.desired = nil
	if h.parts == 0 || h.parts < len(h.order) {
		return
	}
	h.desired = NewSet(len(h.holders))
	for _, g := range h.order {
		h.desired.Union(g.wants)
	}
}

// uncovered are the pieces of a word that nobody covers and some guest may want.
func (h *Handout) uncovered(word int) uint64 {
	if h.desired == nil {
		return h.bare[word]
	}
	return h.bare[word] & h.desired[word]
}

// Leave removes a guest: what was shown to it is shown to another.
func (h *Handout) Leave(id int) {
	g := h.guests[id]
	if g == nil {
		return
	}
	delete(h.guests, id)
	h.hoarded -= g.hoard
	h.order = slices.DeleteFunc(h.order, func(o *guest) bool { return o == g })
	if g.wants != nil {
		h.parts--
	}
	h.desire()
	for i := range g.has.All() {
		if h.holders[i]--; h.holders[i] == 0 {
			h.only[i] = 0
		}
		h.cover(i)
		if len(h.fellows) == 0 {
			h.goBack(i) // else all would at once
		}
	}
	for i, s := range g.shown {
		if !s.stalled {
			h.unshow(g, i)
		}
	}
	for _, f := range h.fellows {
		h.drop(f, func(p promise) bool { return p.guest == id })
	}
}

// hoard brings the counts of pieces that one guest holds alone up to date, after a guest announced one.
func (h *Handout) hoard(piece int, g *guest) {
	if o := h.guests[int(h.only[piece])-1]; o != nil && h.only[piece] > 0 {
		o.hoard--
		h.hoarded--
	}
	if h.only[piece] = 0; h.holders[piece] == 1 {
		h.only[piece] = int32(g.id) + 1
		g.hoard++
		h.hoarded++
	}
}

// cover brings bare up to date with the counts of a piece.
func (h *Handout) cover(piece int) {
	if h.data.Has(piece) && h.holders[piece]+h.shown[piece]+h.promised[piece] == 0 {
		h.bare.Add(piece)
	} else {
		h.bare.Remove(piece)
	}
}

// unshow stops counting on a showing.
func (h *Handout) unshow(g *guest, piece int) {
	g.live--
	h.live--
	h.shown[piece]--
	h.cover(piece)
	if h.shown[piece]+h.holders[piece] > 0 {
		return
	}
	h.goBack(piece)
	if len(h.fellows) > 0 {
		h.taken = append(h.taken, piece)
	}
}

// goBack lets the first pass go on at a piece that nobody has any more.
func (h *Handout) goBack(piece int) {
	if h.bare.Has(piece) {
		h.at = min(h.at, piece)
	}
}

// Have says that a guest announced a piece.
func (h *Handout) Have(id, piece int, now time.Time) {
	g := h.guests[id]
	if g == nil || !h.data.Has(piece) || g.has.Has(piece) {
		return
	}
	g.has.Add(piece)
	if g.may(piece) {
		g.lacks--
	}
	if !h.can.Has(piece) {
		h.supplied = now
	}
	h.holders[piece]++
	h.hoard(piece, g)
	h.cover(piece)
	kept := h.kept(id, piece, now)
	s := g.shown[piece]
	if s == nil {
		if !kept {
			g.fed, g.own = now, g.own+1
		}
		return
	}
	delete(g.shown, piece)
	took := now.Sub(s.at)
	g.takes = max(took, g.takes-g.takes/4)
	if h.usual > 0 {
		took = min(took, 2*h.usual)
	}
	h.usual = mean(h.usual, took)
	h.served++
	h.announced++
	g.blocked = false
	if !s.stalled {
		h.unshow(g, piece)
	}
}

// mean is a moving mean; zero is none yet.
func mean(old, one time.Duration) time.Duration {
	if old == 0 {
		return one
	}
	return old + (one-old)/8
}

// Unreadable takes back a showing of a piece that could not be read, and shows it to nobody until retry.
func (h *Handout) Unreadable(id, piece int) {
	h.broken.Add(piece)
	g := h.guests[id]
	if g == nil || g.shown[piece] == nil {
		return
	}
	stalled := g.shown[piece].stalled
	delete(g.shown, piece)
	if !stalled {
		h.unshow(g, piece)
		return
	}
	g.blocked = false // it could not have announced this one
	for _, s := range g.shown {
		g.blocked = g.blocked || s.stalled
	}
}

// Retry lets the pieces be shown again that could not be read.
func (h *Handout) Retry() {
	clear(h.broken)
}

// Expire stops counting on showings that take too long, ours and those of fellows.
func (h *Handout) Expire(now time.Time) {
	limit := max(stallLimit(h.usual), stallTimes*h.takes)
	for _, g := range h.order {
		g.takes -= g.takes / 256
		g.late = g.late && g.takes > lateTimes*h.usual
		for piece, s := range g.shown {
			if s.stalled {
				continue
			}
			if open := now.Sub(s.at); open < limit {
				g.late = g.late || h.usual > 0 && open > lateTimes*h.usual
				continue
			}
			s.stalled, g.blocked = true, true
			h.unshow(g, piece)
		}
	}
	h.expireFellows(now)
}

// stallLimit returns how long a showing may take where usual is usual.
func stallLimit(usual time.Duration) time.Duration {
	if usual == 0 {
		return firstStall
	}
	return max(minStall, stallTimes*usual)
}

// Next returns the piece to show now and the guest to show it to, and counts it as shown; ok is false when nothing is
// to be shown.
func (h *Handout) Next(now time.Time) (id, piece int, ok bool) {
	if h.live >= h.limit(now) || now.Before(h.AwaitUntil) || !h.hungry() {
		return 0, 0, false
	}
	if id, piece, ok = h.first(now); ok {
		h.show(id, piece, now)
		h.at, h.begun = piece+1, true
		return id, piece, true
	}
	if now.Before(h.HoldUntil) {
		return 0, 0, false
	}
	if id, piece, ok = h.overdue(now); ok {
		h.show(id, piece, now)
		return id, piece, true
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

// first returns the next piece that nobody has and nobody else shows: the one behind the last, as far as that is not
// another's to show; the reading stays in order.
func (h *Handout) first(now time.Time) (id, piece int, ok bool) {
	h.choose(now)
	at := h.place()
	if len(h.fellows) > 0 {
		at = h.among(at)
	}
	for piece = range h.choice.From(at) {
		if id, ok = h.guestFor(piece); ok {
			return id, piece, true
		}
	}
	return 0, 0, false
}

// choose finds out which pieces the first pass may show: of those that nobody covers the ones that no fellow holds, if
// there are any.
func (h *Handout) choose(now time.Time) {
	for w := range h.choice {
		h.choice[w] = h.uncovered(w)
	}
	if now.Before(h.HoldUntil) {
		h.choice.longRows(max(len(h.holders)/longRow, MinWindow)) // of what nobody holds, whoever can show it
	}
	for w := range h.choice {
		h.choice[w] &= h.can[w] &^ h.broken[w]
	}
	h.leaveToFellows()
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
	if o == nil {
		return true
	}
	a, b := g.live+g.promised, o.live+o.promised
	return a < b || (a == b && g.given < o.given)
}

// guestFor returns the guest to show a piece to that nobody has.
func (h *Handout) guestFor(piece int) (id int, ok bool) { return h.guestBut(piece, 0) }

// guestBut is guestFor, leaving one guest out. Where all who are not slow are late, or full, that may be why nobody fetches from the one
// that hoards: then it is shown as much as they, who else would fill the window while it gets nothing.
func (h *Handout) guestBut(piece, out int) (id int, ok bool) {
	var best, quick *guest
	bestSlow, allLate := false, true
	for _, g := range h.order {
		if g.id == out || !g.hungry() || !g.may(piece) || g.has.Has(piece) || g.shown[piece] != nil {
			continue
		}
		slow := h.slow(g)
		if best == nil || bestSlow && !slow || slow == bestSlow && g.before(best) {
			best, bestSlow = g, slow
		}
		if !h.slowest(g) && g.before(quick) {
			quick = g
		}
		allLate = allLate && (slow || g.late || h.full(g))
	}
	if allLate && quick != nil {
		best = quick
	}
	if best == nil {
		return 0, false
	}
	return best.id, true
}

// slow reports whether the guest takes much longer than the others, or holds many pieces that nobody fetches from it: a piece
// that is shown to it alone keeps everyone waiting.
func (h *Handout) slow(g *guest) bool { return h.slowest(g) || h.hoards(g) }

// full reports whether the guest has half as much again open as its share of the window. Of four and more guests that are not slow, one
// never is.
func (h *Handout) full(g *guest) bool { return 2*g.live*len(h.guests) > 3*h.window }

// slowest reports whether the guest takes much longer than the others.
func (h *Handout) slowest(g *guest) bool { return g.takes > slowTimes*h.usual }

// hoards reports whether far more pieces are held by the guest alone than by others: nobody is linked with it, it sends slowly,
// or it was barred.
func (h *Handout) hoards(g *guest) bool {
	return g.hoard > leastHoard && g.hoard*(len(h.guests)-1) > hoardTimes*(h.hoarded-g.hoard)
}

// second chooses among pieces that some guest has, or was shown: the rarest that a guest which is behind lacks.
func (h *Handout) second(now time.Time) (id, piece int, ok bool) {
	var best *guest
	busy := h.fellowsBusy()
	for _, g := range h.order {
		alone := now.Sub(g.fed) > h.isolated
		behind := alone || !busy && g.extra*extraShare*(1+len(h.fellows)) <= g.own
		if behind && g.hungry() && g.before(best) {
			id, best = g.id, g
		}
	}
	if best == nil {
		return 0, 0, false
	}
	for w := range h.can {
		lacks := h.can[w] &^ h.broken[w] &^ best.has[w]
		if best.wants != nil {
			lacks &= best.wants[w]
		}
		for p := range (Set{lacks}).All() {
			p += w << 6
			if best.shown[p] != nil || h.promised[p] > 0 && h.promisedTo(id, p) {
				continue
			}
			if !ok || h.holders[p]+h.shown[p]+h.promised[p] < h.holders[piece]+h.shown[piece]+h.promised[piece] {
				piece, ok = p, true
			}
		}
	}
	return id, piece, ok
}

func (h *Handout) show(id, piece int, now time.Time) {
	g := h.guests[id]
	if h.beganAt.IsZero() {
		h.beganAt = now
	}
	g.shown[piece] = &showing{at: now}
	g.live++
	g.given++
	h.live++
	h.shown[piece]++
	h.cover(piece)
}
