package schedule

import (
	"math/rand/v2"
	"slices"
)

// ID is a machine as the caller of a Graph or a Topology numbers it.
type ID uint32

// Degree is how many neighbours a machine has in a Graph unless a policy says otherwise: 8 to 32 are the same in the
// simulation, and fewer links cost less.
const Degree = 8

// maxCircles bounds the degree of a Graph: two for each circle.
const maxCircles = 8

// Graph keeps the machines of a group in degree/2 random circles; the neighbours of a machine are those before and
// behind it in each. With up to degree+1 machines everyone is everyone's neighbour. With more, every machine has exactly
// degree different neighbours, whatever joins and leaves came before, and each circle goes through all machines, so that
// the graph is connected by any one of them. Only where pairs are not allowed some machines have fewer.
//
// A join or leave changes at most four neighbours for each circle, and takes a time that does not depend on the
// number of machines, but for groups of up to about three times the degree, which may be put in circles anew.
type Graph struct {
	circles int
	random  *rand.Rand
	allowed func(a, b ID) bool // nil: every pair
	places  []place
	free    []int32 // of places
	live    []int32 // of places
	at      map[ID]int32
}

// place is a machine in all circles.
type place struct {
	id    ID
	index int32                // in live
	sides [maxCircles][2]int32 // by circle the two places beside it, in no order; none where the circle is open
}

const none = int32(-1)

// NewGraph returns an empty graph of a degree, which is even, 2 to 16. allowed, where set, says which pairs may be
// neighbours: it is symmetric and never changes its mind.
func NewGraph(degree int, random *rand.Rand, allowed func(a, b ID) bool) *Graph {
	return &Graph{circles: min(max(degree/2, 1), maxCircles), random: random, allowed: allowed, at: map[ID]int32{}}
}

// Len is the number of machines.
func (g *Graph) Len() int { return len(g.live) }

// Has reports whether the machine is in the graph.
func (g *Graph) Has(id ID) bool { _, ok := g.at[id]; return ok }

// full reports whether everyone is everyone's neighbour, so that there are no circles.
func (g *Graph) full() bool { return len(g.live) <= 2*g.circles+1 }

// Neighbours returns the machine's neighbours; none if it is not in the graph.
func (g *Graph) Neighbours(id ID) []ID {
	p, ok := g.at[id]
	if !ok {
		return nil
	}
	list := make([]ID, 0, 2*g.circles+1)
	add := func(q int32) {
		if o := g.places[q].id; o != id && (g.allowed == nil || g.allowed(id, o)) {
			list = append(list, o)
		}
	}
	if g.full() {
		for _, q := range g.live {
			add(q)
		}
		return list
	}
	for c := range g.circles {
		add(g.places[p].sides[c][0])
		add(g.places[p].sides[c][1])
	}
	return list
}

// Join adds a machine at a random place of each circle. One that is there stays as it is.
func (g *Graph) Join(id ID) {
	if g.Has(id) {
		return
	}
	p := int32(len(g.places))
	if n := len(g.free); n > 0 {
		p, g.free = g.free[n-1], g.free[:n-1]
	} else {
		g.places = append(g.places, place{})
	}
	was := g.full()
	g.places[p] = place{id: id, index: int32(len(g.live))}
	for c := range g.places[p].sides {
		g.places[p].sides[c] = [2]int32{none, none}
	}
	g.live = append(g.live, p)
	g.at[id] = p
	if g.full() {
		return
	}
	for c := 0; c < g.circles && !was; c++ {
		was = !g.insert(p, c)
	}
	if was {
		g.rebuild()
	}
}

// Leave removes a machine and closes the gap in each circle.
func (g *Graph) Leave(id ID) {
	p, ok := g.at[id]
	if !ok {
		return
	}
	circles := !g.full()
	delete(g.at, id)
	v := g.places[p]
	last := g.live[len(g.live)-1]
	g.live[v.index], g.places[last].index = last, v.index
	g.live = g.live[:len(g.live)-1]
	g.free = append(g.free, p)
	if !circles || g.full() {
		return
	}
	for c := range g.circles {
		g.replace(v.sides[c][0], c, p, none)
		g.replace(v.sides[c][1], c, p, none)
	}
	for c := range g.circles {
		if !g.close(c, v.sides[c][0], v.sides[c][1]) {
			g.rebuild()
			return
		}
	}
}

// insert puts a place into a circle between two that are not its neighbours in any other one: of the places that a
// circle offers at most 2*degree do not serve. False says that none does.
func (g *Graph) insert(p int32, circle int) bool {
	start := g.live[g.random.IntN(len(g.live)-1)] // the last one is p
	for _, strict := range g.passes() {
		before, at := start, g.places[start].sides[circle][g.random.IntN(2)]
		for range min(len(g.live)-1, g.patience(strict)) {
			if g.fits(p, before, strict) && g.fits(p, at, strict) {
				g.replace(before, circle, at, p)
				g.replace(at, circle, before, p)
				g.places[p].sides[circle] = [2]int32{before, at}
				return true
			}
			before, at = at, g.beyond(at, circle, before)
		}
	}
	return false
}

// close joins the ends of a circle that a leave opened. Where they are neighbours in another circle it is opened at
// another place, between u and w, and closed crosswise: the path a ... w, u ... b becomes a circle by u-a and w-b. Of
// the places at most 2*degree do not serve. False says that none does.
func (g *Graph) close(circle int, a, b int32) bool {
	for _, strict := range g.passes() {
		if g.fits(a, b, strict) {
			g.replace(a, circle, none, b)
			g.replace(b, circle, none, a)
			return true
		}
		skip := g.random.IntN(min(len(g.live), 4*g.circles))
		before, u := none, b
		for range min(len(g.live)-1, skip+g.patience(strict)) {
			w := g.beyond(u, circle, before)
			if w == a {
				break
			}
			if skip--; skip < 0 && g.fits(u, a, strict) && g.fits(w, b, strict) {
				g.replace(u, circle, w, a)
				g.replace(w, circle, u, b)
				g.replace(a, circle, none, u)
				g.replace(b, circle, none, w)
				return true
			}
			before, u = u, w
		}
	}
	return false
}

// passes are the ways to look for a place, in turn: one that respects what is allowed, and any.
func (g *Graph) passes() []bool {
	if g.allowed == nil {
		return []bool{false}
	}
	return []bool{true, false}
}

// patience is how many places are looked at: one more than can be wrong, and more if not every pair is allowed.
func (g *Graph) patience(strict bool) int {
	if strict {
		return 32 * g.circles
	}
	return 4*g.circles + 2
}

// fits reports whether two places may become neighbours: they are not, and with strict it is allowed.
func (g *Graph) fits(p, q int32, strict bool) bool {
	if p == q {
		return false
	}
	for c := range g.circles {
		if s := g.places[p].sides[c]; s[0] == q || s[1] == q {
			return false
		}
	}
	return !strict || g.allowed(g.places[p].id, g.places[q].id)
}

// beyond returns the place on the other side of p than from.
func (g *Graph) beyond(p int32, circle int, from int32) int32 {
	s := g.places[p].sides[circle]
	if s[0] == from {
		return s[1]
	}
	return s[0]
}

// replace puts one neighbour of a place in a circle for another.
func (g *Graph) replace(p int32, circle int, old, now int32) {
	s := &g.places[p].sides[circle]
	if s[0] == old {
		s[0] = now
	} else {
		s[1] = now
	}
}

// rebuild puts all machines into circles anew, in a random order. It always succeeds: the complete graph of n machines
// falls into (n-1)/2 circles through all of them that share no edge (Walecki, 1890s): a hub, and a zigzag over the others
// that is turned by one for each circle.
func (g *Graph) rebuild() {
	order := slices.Clone(g.live)
	g.random.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	hub, ring := order[0], order[1:]
	n := len(ring)
	for c := range g.circles {
		before, first := hub, none
		for t := range n {
			offset := n - t/2
			if t%2 == 1 {
				offset = (t + 1) / 2
			}
			at := ring[(c+offset)%n]
			if t == 0 {
				first = at
			}
			g.places[before].sides[c][1] = at
			g.places[at].sides[c][0] = before
			before = at
		}
		g.places[before].sides[c][1] = hub
		g.places[hub].sides[c] = [2]int32{before, first}
	}
}
