package schedule

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// fellow is another peer that hands out the same content. Each says what it shows to whom, so that all of them together
// show every piece once. They begin at places of their own, evenly spread, and go on in ascending order; who comes to
// where a fellow began goes on in the middle of what the one that is furthest behind has before it. So a slow one is
// relieved, and two never choose at the same place for long.
type fellow struct {
	id    int
	name  string
	has   Set
	shown []promise     // not announced yet, the oldest first
	at    int           // where it goes on; -1 before it began
	usual time.Duration // how long its guests take from showing to announcement, as seen here
	// strangers counts its last showings in a row to guests that we do not know, see manyStrangers.
	strangers int
}

// promise is a showing by a fellow.
type promise struct {
	piece int
	guest int // 0 if we are not linked to it
	at    time.Time
}

const (
	maxPromises = 2 * maxWindow
	// manyStrangers is after how many showings in a row to guests that we do not know a fellow serves others than we do: another
	// group of machines, by a policy. What it shows there does not reach our guests, and is ours to show. In one room each machine is
	// linked with several of those who hand out, so that one of a few showings concerns a guest of ours.
	manyStrangers = 24
	servedTime    = 2 * time.Second // after which an announcement has half its weight in the rate
	// firstWindow is that of one alone at its start; each announcement makes it greater by one, and so does each firstTime, as the
	// first machines may be dead. Where as much as later were shown at once, all of it would come at once, and late: measured with
	// 8 machines, the room begins to exchange 0.2 s earlier.
	firstWindow = 3
	firstTime   = 50 * time.Millisecond
	// leastWindow is that of one that is slow beside its fellows: what it has in flight holds up the room at the end.
	leastWindow = 2
	minQuickest = 100 * time.Millisecond // below it what is in flight holds up nobody
	// minOverdue, and twice what our own showings take, is when a fellow's showing is made again where nothing else is left.
	minOverdue = 500 * time.Millisecond
)

// Meet adds another peer that hands out, under a name that all know it by, with the pieces that it holds; has stays the
// caller's.
func (h *Handout) Meet(id int, name string, has Set) {
	h.Part(id)
	f := &fellow{id: id, name: name, has: slices.Clone(has), at: -1}
	h.enter(f)
}

// enter puts a fellow among those that share the work.
func (h *Handout) enter(f *fellow) {
	at, _ := slices.BinarySearchFunc(h.fellows, f.name, func(f *fellow, name string) int { return cmp.Compare(f.name, name) })
	h.fellows = slices.Insert(h.fellows, at, f)
}

// Part removes a fellow: what it had shown and nobody announced is to be shown again.
func (h *Handout) Part(id int) {
	if f := h.fellow(id); f != nil {
		h.drop(f, func(promise) bool { return true })
		h.fellows = slices.DeleteFunc(h.fellows, func(o *fellow) bool { return o == f })
		h.apart = slices.DeleteFunc(h.apart, func(o *fellow) bool { return o == f })
	}
}

// concerns takes note of whom a fellow serves, and reports whether what it shows concerns our guests.
func (h *Handout) concerns(f *fellow, known bool) bool {
	if known {
		f.strangers = 0
		if at := slices.Index(h.apart, f); at >= 0 {
			h.apart = slices.Delete(h.apart, at, at+1)
			h.enter(f)
		}
		return true
	}
	if f.strangers++; f.strangers < manyStrangers {
		return true
	}
	if at := slices.Index(h.fellows, f); at >= 0 {
		h.drop(f, func(promise) bool { return true })
		h.fellows = slices.Delete(h.fellows, at, at+1)
		h.apart = append(h.apart, f)
	}
	return false
}

// FellowHolds says that a fellow holds a piece.
func (h *Handout) FellowHolds(id, piece int) {
	if f := h.fellow(id); f != nil {
		f.has.Add(piece)
	}
}

// Promised says that a fellow showed a piece to a guest; guest is 0 for one that we do not know.
func (h *Handout) Promised(id, piece, guest int, now time.Time) {
	f, g := h.fellow(id), h.guests[guest]
	if f == nil || !h.concerns(f, g != nil) || !h.data.Has(piece) || g == nil && h.holders[piece] > 0 || g != nil && g.has.Has(piece) {
		return
	}
	if h.bare.Has(piece) || h.shown[piece] > 0 && h.at == piece+1 {
		f.at = piece + 1
	}
	if g == nil {
		guest = 0
	} else {
		g.promised++
	}
	if len(f.shown) == maxPromises {
		oldest := f.shown[0]
		h.drop(f, func(p promise) bool { return p == oldest })
	}
	f.shown = append(f.shown, promise{piece, guest, now})
	h.promised[piece]++
	h.cover(piece)
}

// TookBack says that a fellow does not expect a piece to be announced any more that it had shown.
func (h *Handout) TookBack(id, piece int) {
	if f := h.fellow(id); f != nil {
		h.drop(f, func(p promise) bool { return p.piece == piece })
	}
}

// TakenBack returns the pieces, ascending, of which the fellows have to be told that our showing does not count any more.
func (h *Handout) TakenBack() []int {
	list := slices.Compact(slices.Sorted(slices.Values(h.taken)))
	h.taken = h.taken[:0]
	return list
}

// Showing is a piece that was shown to a guest.
type Showing struct{ Guest, Piece int }

// Showings returns what a new fellow has to be told: what was shown and is expected to be announced, the oldest first.
func (h *Handout) Showings() (list []Showing) {
	for _, g := range h.order {
		for piece, s := range g.shown {
			if !s.stalled {
				list = append(list, Showing{g.id, piece})
			}
		}
	}
	slices.SortFunc(list, func(a, b Showing) int {
		return cmp.Or(h.guests[a.Guest].shown[a.Piece].at.Compare(h.guests[b.Guest].shown[b.Piece].at), cmp.Compare(a.Piece, b.Piece))
	})
	return list
}

func (h *Handout) fellow(id int) *fellow {
	for _, list := range [][]*fellow{h.fellows, h.apart} {
		for _, f := range list {
			if f.id == id {
				return f
			}
		}
	}
	return nil
}

// drop forgets promises of a fellow.
func (h *Handout) drop(f *fellow, which func(promise) bool) {
	f.shown = slices.DeleteFunc(f.shown, func(p promise) bool {
		if !which(p) {
			return false
		}
		if g := h.guests[p.guest]; g != nil {
			g.promised--
		}
		h.promised[p.piece]--
		h.cover(p.piece)
		return true
	})
}

// kept takes the announcement of a piece for the promises of fellows; true says that one of them had shown it to the guest.
func (h *Handout) kept(guest, piece int, now time.Time) (kept bool) {
	for _, f := range h.fellows {
		h.drop(f, func(p promise) bool {
			if p.piece != piece || p.guest != guest && p.guest != 0 {
				return false
			}
			kept = kept || p.guest == guest
			f.usual = mean(f.usual, now.Sub(p.at))
			return true
		})
	}
	return kept
}

// promisedTo reports whether a fellow showed the piece to the guest.
func (h *Handout) promisedTo(guest, piece int) bool {
	for _, f := range h.fellows {
		if slices.ContainsFunc(f.shown, func(p promise) bool { return p.piece == piece && p.guest == guest }) {
			return true
		}
	}
	return false
}

// expireFellows stops counting on fellows' showings that take too long, and lets old successes fade.
func (h *Handout) expireFellows(now time.Time) {
	if elapsed := now.Sub(h.expired); h.live > 0 && !h.expired.IsZero() {
		fade := math.Exp2(-elapsed.Seconds() / servedTime.Seconds())
		h.served *= fade
		h.busy = fade * (h.busy + elapsed.Seconds())
	}
	h.expired = now
	for _, f := range h.fellows {
		limit := stallLimit(f.usual)
		h.drop(f, func(p promise) bool { return now.Sub(p.at) >= limit })
	}
}

// limit returns how many pieces may be shown and not announced: few at first, and among fellows so many later that they
// take no longer than those of the quickest.
func (h *Handout) limit(now time.Time) int {
	if len(h.fellows) == 0 {
		begun := 0
		if !h.beganAt.IsZero() {
			begun = int(min(now.Sub(h.beganAt)/firstTime, maxWindow))
		}
		return min(h.window, firstWindow+h.announced+begun)
	}
	quickest := time.Duration(0)
	for _, f := range h.fellows {
		if f.usual > 0 && (quickest == 0 || f.usual < quickest) {
			quickest = f.usual
		}
	}
	limit := leastWindow + 2*h.served
	if quickest > 0 && h.busy > 0 {
		limit = 2 * h.served / h.busy * max(quickest, minQuickest).Seconds()
	}
	return min(h.window, max(leastWindow, int(limit)))
}

// leaveToFellows takes out of choice what a fellow can show, if anything else is left.
func (h *Handout) leaveToFellows() {
	if len(h.fellows) == 0 {
		return
	}
	own := false
	for w := range h.choice {
		own = own || h.choice[w]&^h.fellowsHold(w) != 0
	}
	for w := range h.choice {
		if own {
			h.choice[w] &^= h.fellowsHold(w)
		}
	}
}

func (h *Handout) fellowsHold(word int) (held uint64) {
	for _, f := range h.fellows {
		held |= f.has[word]
	}
	return held
}

// fellowsBusy reports whether a fellow has pieces before it that nobody has.
func (h *Handout) fellowsBusy() bool {
	for _, f := range h.fellows {
		for w := range f.has {
			if f.has[w]&h.uncovered(w) != 0 {
				return true
			}
		}
	}
	return false
}

// place returns where our first pass goes on.
func (h *Handout) place() int {
	if h.begun {
		return h.at
	}
	rank := 0
	for _, f := range h.fellows {
		if f.name < h.Name {
			rank++
		}
	}
	return h.spread(rank)
}

// front returns where the first pass of the fellow of an index goes on.
func (h *Handout) front(index int) int {
	f := h.fellows[index]
	switch {
	case f.at >= 0:
		return f.at
	case h.Name < f.name:
		return h.spread(index + 1)
	}
	return h.spread(index)
}

// spread returns where who has a rank by name begins.
func (h *Handout) spread(rank int) int { return len(h.holders) * rank / (len(h.fellows) + 1) }

// after returns how far a piece is behind another, going round.
func (h *Handout) after(from, to int) int {
	n := len(h.holders)
	return ((to-from)%n + n) % n
}

// among returns where to go on from at: there, or if a fellow comes to the next piece first, in the middle of what the
// fellow with the most to do has before it.
func (h *Handout) among(at int) int {
	for piece := range h.choice.From(at) {
		if !h.comesFirst(at, piece) {
			return piece
		}
		return h.relieve(at)
	}
	return at
}

// comesFirst reports whether a fellow goes on between at and a piece, and will show it.
func (h *Handout) comesFirst(at, piece int) bool {
	for i, f := range h.fellows {
		front := h.after(at, h.front(i))
		if f.has.Has(piece) && front <= h.after(at, piece) && (front > 0 || f.name < h.Name) {
			return true
		}
	}
	return false
}

// relieve returns the middle of what the fellow with the most to do has before it; at, if none has anything to do.
func (h *Handout) relieve(at int) int {
	most := 0
	for i, f := range h.fellows {
		front, end := h.front(i), len(h.holders)
		for j := range h.fellows {
			if d := h.after(front, h.front(j)); d > 0 {
				end = min(end, d)
			}
		}
		n := 0
		for range h.before(f, front, end) {
			n++
		}
		if n <= most {
			continue
		}
		most = n
		for piece := range h.before(f, front, end) {
			if n -= 2; n < 0 {
				at = piece
				break
			}
		}
	}
	return at
}

// before yields what a fellow may choose of the pieces from its front to an end, going round.
func (h *Handout) before(f *fellow, front, end int) func(yield func(int) bool) {
	return func(yield func(int) bool) {
		for piece := range h.choice.From(front) {
			if h.after(front, piece) >= end || f.has.Has(piece) && !yield(piece) {
				return
			}
		}
	}
}

// overdue returns a piece that a fellow showed and nobody announced for long, when nothing else is left that nobody has.
func (h *Handout) overdue(now time.Time) (id, piece int, ok bool) {
	limit := max(minOverdue, 2*h.usual)
	for _, f := range h.fellows {
		for _, p := range f.shown {
			if now.Sub(p.at) < limit {
				break // the oldest come first
			}
			if h.holders[p.piece]+h.shown[p.piece] > 0 || !h.can.Has(p.piece) || h.broken.Has(p.piece) {
				continue
			}
			if id, ok = h.guestBut(p.piece, p.guest); ok {
				return id, p.piece, true
			}
		}
	}
	return 0, 0, false
}
