package schedule

import "math/rand/v2"

// picker chooses which piece a link fetches next: pieces that were begun and given back first, then the one that the
// fewest linked peers hold; of several one at random, so that machines which lack the same fetch different ones and exchange
// them. Of those that all linked peers hold it is the next one behind that begun last, going round from a place drawn at
// the start: so a machine that comes late writes nearly in order, and machines differ. It knows no sockets and no clock.
// Owned by one goroutine.
//
// Simulated with machines that come late: efficiency is that of ties at random, within 0.003, and the way between two
// writes 6 pieces in place of 340 for one that comes alone.
type picker struct {
	missing  Set     // lacking, and nobody is fetching it
	unseen   Set     // not looked at yet: lacking for now, and not to be fetched
	orphans  []int   // those of missing that were begun, the oldest first
	lacking  int     // pieces that are not held, being fetched or not
	holders  []int32 // by piece: linked peers that announced it
	next     int     // behind the piece begun last
	random   *rand.Rand
	isOrphan Set
}

// newPicker returns a picker that lacks every piece that is not in have. It keeps unseen.
func newPicker(have, unseen Set, pieces int, random *rand.Rand) *picker {
	p := &picker{missing: NewSet(pieces), unseen: unseen, isOrphan: NewSet(pieces), holders: make([]int32, pieces), next: random.IntN(max(pieces, 1)), random: random}
	for i := range pieces {
		if have.Has(i) {
			continue
		}
		p.lacking++
		if !unseen.Has(i) {
			p.missing.Add(i)
		}
	}
	return p
}

// announced counts the pieces of one more peer, gone takes them back.
func (p *picker) announced(has Set) { p.count(has, 1) }
func (p *picker) gone(has Set)      { p.count(has, -1) }

func (p *picker) count(has Set, by int32) {
	for i := range has.All() {
		p.holders[i] += by
	}
}

// pick returns the piece to fetch from a peer that can give those of can, and of which allowed, where set, is true; ok is
// false when there is none. crowd is how many linked peers announce what they hold.
func (p *picker) pick(can Set, crowd int32, allowed func(int) bool) (piece int, ok bool) {
	for _, i := range p.orphans {
		if can.Has(i) && (allowed == nil || allowed(i)) {
			return i, true
		}
	}
	least, ties := int32(0), 0
	for w := range p.missing {
		if p.missing[w]&can[w] == 0 {
			continue
		}
		for i := range (Set{p.missing[w] & can[w]}).All() {
			if allowed != nil && !allowed(w<<6+i) {
				continue
			}
			switch n := p.holders[w<<6+i]; {
			case !ok || n < least:
				piece, least, ties, ok = w<<6+i, n, 1, true
			case n == least:
				if ties++; p.instead(ties, n < crowd, w<<6+i, piece) {
					piece = w<<6 + i
				}
			}
		}
	}
	return piece, ok
}

// instead reports whether a piece is picked in place of one that is as rare, so many being so up to now.
func (p *picker) instead(ties int, lacked bool, one, other int) bool {
	if lacked {
		return p.random.IntN(ties) == 0
	}
	return p.sooner(one, other)
}

// sooner reports whether one piece comes before another, going round from next.
func (p *picker) sooner(one, other int) bool {
	if (one < p.next) != (other < p.next) {
		return one >= p.next
	}
	return one < other
}

// see says that the piece was looked at and is not held as a whole.
func (p *picker) see(piece int) {
	p.unseen.Remove(piece)
	p.missing.Add(piece)
}

// begin says that the piece is being fetched.
func (p *picker) begin(piece int) {
	p.next = piece + 1
	p.missing.Remove(piece)
	p.unorphan(piece)
}

// giveBack says that nobody is fetching the piece any more; begun says that some of it is here.
func (p *picker) giveBack(piece int, begun bool) {
	p.missing.Add(piece)
	p.unorphan(piece)
	if begun {
		p.isOrphan.Add(piece)
		p.orphans = append(p.orphans, piece)
	}
}

func (p *picker) unorphan(piece int) {
	if !p.isOrphan.Has(piece) {
		return
	}
	p.isOrphan.Remove(piece)
	for i, o := range p.orphans {
		if o == piece {
			p.orphans = append(p.orphans[:i], p.orphans[i+1:]...)
			return
		}
	}
}

// hold says that the piece, which was begun, is held now.
func (p *picker) hold() { p.lacking-- }

// allBegun reports whether every lacking piece is being fetched.
func (p *picker) allBegun() bool {
	for i, w := range p.missing {
		if w|p.unseen[i] != 0 {
			return false
		}
	}
	return true
}
