package schedule

import "slices"

// pool is a list of machines in which each keeps its place while others come and go; newcomers take places that are free.
type pool struct {
	slots   []*member // nil where one left
	weights []int     // by slot, of who was last there
	free    []int
	live    int
	at      map[ID]int
	version int // counts changes
}

func newPool() *pool { return &pool{at: map[ID]int{}} }

func (p *pool) has(m *member) bool { _, ok := p.at[m.id]; return ok }

func (p *pool) add(m *member) {
	if p.has(m) {
		return
	}
	i := len(p.slots)
	if n := len(p.free); n > 0 {
		i, p.free = p.free[n-1], p.free[:n-1]
		p.slots[i], p.weights[i] = m, m.weight
	} else {
		p.slots, p.weights = append(p.slots, m), append(p.weights, m.weight)
	}
	p.at[m.id] = i
	p.live++
	p.version++
}

func (p *pool) remove(m *member) {
	i, ok := p.at[m.id]
	if !ok {
		return
	}
	delete(p.at, m.id)
	p.slots[i] = nil
	p.free = append(p.free, i)
	p.live--
	p.version++
	if len(p.free) > p.live+8 || p.live == 0 {
		p.compact()
	}
}

// compact closes the gaps.
func (p *pool) compact() {
	n := 0
	for _, m := range p.slots {
		if m != nil {
			p.slots[n], p.weights[n], p.at[m.id] = m, m.weight, n
			n++
		}
	}
	clear(p.slots[n:])
	p.slots, p.weights, p.free = p.slots[:n], p.weights[:n], nil
}

// crossing is how the machines of a pool fetch from those of another.
type crossing struct {
	child *pool
	// whole says that each fetches everything, not a share.
	whole                    bool
	links                    int   // at most, 0 is no limit
	bytesPerSecond, fallback int64 // of all together: its own uplink's, that of its parent; 0 is no limit
	idle                     func() bool
	fabric                   *fabric // nil where there is no parent

	seats   []*member // who fetches; nil where nobody is
	weights []int     // by seat, of who is or was there
	limit   int64     // for each machine that fetches
}

// upward are a machine's links into the pool from which it fetches.
type upward struct {
	fabric *fabric // that made them
	links  []*member
	share  Share
}

// fabric are the links into one pool from below.
type fabric struct {
	parent   *pool
	children []*crossing
	down     map[*member][]*member
	versions int // sum of those of the pools for which it is right
	asked    int // how often it was needed since it was not
}

// Links of few machines are made anew at each change. Of more, once so many have changed, or asked, that the work for each
// stays small.
const (
	fewMachines   = 512
	changesToWait = 64 // machines for each change
	asksToWait    = 8  // machines for each that asks
)

// refresh makes the links anew, if machines came or left. They follow from the places of the machines alone.
func (f *fabric) refresh(t *Topology) {
	now, all := f.parent.version, 0
	for _, c := range f.children {
		now += c.child.version
		all += c.child.live
	}
	changes := now - f.versions
	if changes == 0 {
		return
	}
	size := all + f.parent.live
	if f.asked++; f.down != nil && size > fewMachines && changes < size/changesToWait && f.asked < size/asksToWait {
		return
	}
	f.versions, f.asked, f.down = now, 0, make(map[*member][]*member, f.parent.live)
	room := t.budget.downstream
	if slices.ContainsFunc(t.named, func(p *pool) bool { return p != nil }) {
		room = max(1, room/2) // a machine may be in two pools
	}
	for _, c := range f.children {
		for _, m := range c.child.slots {
			if m != nil {
				m.up = upward{fabric: f, links: m.up.links[:0]}
			}
		}
		if c.limit = 0; c.idle != nil && c.idle() || all == 0 {
			continue
		}
		links := max(1, room*f.parent.live*c.child.live/all)
		if c.links > 0 {
			links = min(links, c.links)
		}
		f.link(t, c, links, room)
		c.share()
		c.bound(len(f.children))
	}
}

// link gives the machines of a crossing their links upstream, so many in all at most: the first of the one in place i goes
// to place i of the parent, which fetches the same pieces and so has them first of its group, the others to the places behind,
// or to the next ones there that may be linked and have no more than their part. Where links are scarce everyone gets a
// first one before anyone gets a second.
func (f *fabric) link(t *Topology, c *crossing, links, room int) {
	all := len(c.child.slots)
	each := min(t.budget.upstream, max(1, links/max(all, 1)), f.parent.live)
	if each == 0 {
		return
	}
	c.seat(min(all, max(1, links/each)))
	for turn := range each {
		for i, m := range c.seats {
			if m == nil {
				continue
			}
			if o := f.source(t, m, i*len(f.parent.slots)/len(c.seats)+turn, len(c.seats)*each, room); o != nil {
				m.up.links = append(m.up.links, o)
				f.down[o] = append(f.down[o], m)
			}
		}
	}
}

// seat chooses the machines that fetch from upstream, so many at most: those in the first places. Machines of weight 0
// and slow ones do not, as long as there are others. If not all can, the next one sits in for one that left.
func (c *crossing) seat(n int) {
	slots := c.child.slots
	choosy := !c.whole && slices.ContainsFunc(slots, (*member).quick)
	fit := func(m *member) bool { return m != nil && (!choosy || m.quick()) }
	c.seats, c.weights = make([]*member, n), slices.Clone(c.child.weights[:n])
	next := n
	for i := range n {
		if m := slots[i]; fit(m) {
			c.seats[i] = m
			continue
		}
		for next < len(slots) && !fit(slots[next]) {
			next++
		}
		if next < len(slots) {
			c.seats[i], c.weights[i] = slots[next], c.child.weights[next]
			next++
		}
	}
}

// quick reports whether a machine is one to fetch for its group.
func (m *member) quick() bool { return m != nil && m.weight > 0 && !m.slow }

// suits reports whether the machine gets all that another one wants.
func (m *member) suits(o *member) bool { return !m.part || m.same != "" && o.part && o.same == m.same }

// source returns the machine for one of so many links, the one in a place of the parent or behind it, or nil.
func (f *fabric) source(t *Topology, m *member, place, links, room int) *member {
	fair := min(room, (links+f.parent.live-1)/f.parent.live)
	places := len(f.parent.slots)
	for _, limit := range []int{fair, room} {
		for i := range min(places, maxProbes) {
			o := f.parent.slots[(place+i)%places]
			if o != nil && o != m && o.suits(m) && len(f.down[o]) < limit && !slices.Contains(m.up.links, o) && t.mayLink(m.class, o.class) {
				return o
			}
		}
		if limit == room {
			break
		}
	}
	return nil
}

// maxProbes bounds the search for a place upstream where few may be linked.
const maxProbes = 256

// share divides the pieces among the machines that have links, by weight. Seats of machines that left, or have no links,
// go to the next one that has.
func (c *crossing) share() {
	at, begin := 0, 0
	var first, last *member
	for i, m := range c.seats {
		at += c.weightAt(i)
		if m == nil || len(m.up.links) == 0 || at == begin {
			continue
		}
		if last = m; first == nil {
			first = m
		}
		m.up.share = Share{Member: begin, More: at - begin - 1}
		begin = at
	}
	for _, m := range c.seats {
		switch {
		case m == nil || len(m.up.links) == 0:
		case c.whole:
			m.up.share = Share{Members: 1}
		default:
			m.up.share.Members = at
		}
	}
	if last != nil && begin < at && !c.whole { // the seats behind the last one come round to the first
		first.up.share.Member = begin
		first.up.share.More += at - begin
	}
}

// weightAt is the weight of a seat; where no machine has any, each has one.
func (c *crossing) weightAt(i int) int {
	if w := c.weights[i]; w > 0 {
		return w
	}
	if m := c.seats[i]; m != nil && len(m.up.links) > 0 {
		return 1
	}
	return 0
}

// bound divides the budgets of the uplinks among the machines that fetch.
func (c *crossing) bound(children int) {
	total := c.bytesPerSecond
	if above := c.fallback / int64(max(children, 1)); above > 0 && (total == 0 || above < total) {
		total = above
	}
	linked := 0
	for _, m := range c.seats {
		if m != nil && len(m.up.links) > 0 {
			linked++
		}
	}
	if total > 0 && linked > 0 {
		c.limit = max(1, total/int64(linked))
	}
}
