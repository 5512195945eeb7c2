package swarm

import "math/rand/v2"

// picker chooses which piece a link fetches next: pieces that were begun and given back first, then the one that the
// fewest linked peers hold, ties at random. It knows no sockets and no clock. Owned by one goroutine.
type picker struct {
	missing  bitset  // lacking, and nobody is fetching it
	unseen   bitset  // not looked at yet: lacking for now, and not to be fetched
	orphans  []int   // those of missing that were begun, the oldest first
	lacking  int     // pieces that are not held, being fetched or not
	holders  []int32 // by piece: linked peers that announced it
	random   *rand.Rand
	isOrphan bitset
}

// newPicker returns a picker that lacks every piece that is not in have. It keeps unseen.
func newPicker(have, unseen bitset, pieces int, random *rand.Rand) *picker {
	p := &picker{missing: newBitset(pieces), unseen: unseen, isOrphan: newBitset(pieces), holders: make([]int32, pieces), random: random}
	for i := range pieces {
		if have.has(i) {
			continue
		}
		p.lacking++
		if !unseen.has(i) {
			p.missing.add(i)
		}
	}
	return p
}

// announced counts the pieces of one more peer, gone takes them back.
func (p *picker) announced(has bitset) { p.count(has, 1) }
func (p *picker) gone(has bitset)      { p.count(has, -1) }

func (p *picker) count(has bitset, by int32) {
	for i := range has.all() {
		p.holders[i] += by
	}
}

// pick returns the piece to fetch from a peer that can give those of can; ok is false when there is none.
func (p *picker) pick(can bitset) (piece int, ok bool) {
	for _, i := range p.orphans {
		if can.has(i) {
			return i, true
		}
	}
	least, ties := int32(0), 0
	for w := range p.missing {
		if p.missing[w]&can[w] == 0 {
			continue
		}
		for i := range (bitset{p.missing[w] & can[w]}).all() {
			switch n := p.holders[w<<6+i]; {
			case !ok || n < least:
				piece, least, ties, ok = w<<6+i, n, 1, true
			case n == least:
				ties++
				if p.random.IntN(ties) == 0 {
					piece = w<<6 + i
				}
			}
		}
	}
	return piece, ok
}

// see says that the piece was looked at and is not held as a whole.
func (p *picker) see(piece int) {
	p.unseen.remove(piece)
	p.missing.add(piece)
}

// begin says that the piece is being fetched.
func (p *picker) begin(piece int) {
	p.missing.remove(piece)
	p.unorphan(piece)
}

// giveBack says that nobody is fetching the piece any more; begun says that some of it is here.
func (p *picker) giveBack(piece int, begun bool) {
	p.missing.add(piece)
	p.unorphan(piece)
	if begun {
		p.isOrphan.add(piece)
		p.orphans = append(p.orphans, piece)
	}
}

func (p *picker) unorphan(piece int) {
	if !p.isOrphan.has(piece) {
		return
	}
	p.isOrphan.remove(piece)
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
