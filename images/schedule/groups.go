package schedule

import (
	"fmt"
	"math/rand/v2"
	"slices"
)

// Share is the part of the pieces that a machine fetches from upstream: those whose index modulo Members is Member, and
// one of the More residues behind it, which are those of dead members. The zero value is no piece.
type Share struct {
	Member, Members, More int
}

// Imports reports whether the piece is in the share.
func (s Share) Imports(piece int) bool {
	return s.Members > 0 && (piece%s.Members-s.Member+s.Members)%s.Members <= s.More
}

// Valid reports whether the numbers make sense: what comes from a network has to be checked.
func (s Share) Valid() bool {
	return s == Share{} || s.Members > 0 && s.Member >= 0 && s.Member < s.Members && s.More >= 0 && s.More < s.Members
}

func (s Share) String() string {
	switch {
	case s.Members == 0:
		return "none"
	case s.More > 0:
		return fmt.Sprintf("%d+%d of %d", s.Member, s.More, s.Members)
	}
	return fmt.Sprintf("%d of %d", s.Member, s.Members)
}

// Relation of a neighbour to a machine.
type Relation byte

// Relations. Only Inside goes both ways: the machine is Downstream to its neighbours Upstream, and the other way round.
const (
	Inside     Relation = iota // of the same group, or of another one of the mesh: each fetches from the other
	Upstream                   // fetched from only, and only pieces of the Share
	Downstream                 // served only
	SeedNode                   // hands out to the group
)

// Neighbour is a machine to be linked with.
type Neighbour struct {
	ID       ID
	Relation Relation
}

// Links is what a Topology tells a machine: it is everything that it may be linked with.
type Links struct {
	Neighbours []Neighbour
	// Appliance says that it may be linked with the appliances' seeders, MaxSeeders of them at most.
	Appliance bool
	// Group is the index of its group in the policy. Grouped says that there is more than one, so that a machine which is
	// not among the neighbours may be one of another group.
	Group   int
	Grouped bool
	// Share are the pieces that it fetches from upstream, BytesPerSecond how fast at most over all its links; zero is no
	// limit.
	Share          Share
	BytesPerSecond int64
}

// budget says what the links of one machine are for.
type budget struct{ seeders, upstream, degree, downstream int }

// divide shares out the connections of a machine. 20 make 4 seeders, 4 upstream, 8 inside and 4 downstream.
func divide(connections int, grouped bool) (b budget) {
	b.seeders = max(1, min(4, connections/5))
	rest := connections - b.seeders
	if !grouped {
		b.degree = min(Degree, rest&^1)
		return b
	}
	b.upstream = max(1, min(4, rest/4))
	b.degree = max(2, min(Degree, (rest-2*b.upstream)&^1))
	b.downstream = rest - b.upstream - b.degree
	return b
}

// Topology keeps, for one swarm, who is linked with whom under a policy. Inside a group machines form a Graph. Groups form
// a chain: a machine fetches a piece from the group before only if the piece is in its Share, over a few links that are
// spread evenly. A group without machines is passed over; before the first one stands the appliance. When a machine leaves,
// the next one of its group takes over its share. Groups whose uplinks carry several images are a mesh: there each machine
// has some links to machines of the others, and fetches anything from them. The first one of them is in the chain.
//
// It knows no addresses but those that a policy asks for. The same calls with the same seed give the same answers. Not
// safe for concurrent use.
type Topology struct {
	policy   *Policy
	random   *rand.Rand
	budget   budget
	grouped  bool
	members  map[ID]*member
	groups   []*group
	pinned   []*crossing // by pin: the machines that it pins to others; nil for pins of groups and to the appliance
	named    []*pool     // by pin: machines that are its parent; nil where that is a group or the appliance
	classes  map[string]*class
	verdicts map[[2]*class]bool
	own      *class // the appliance
	fabrics  map[*pool]*fabric
	mesh     *Graph // of the machines that have links between groups of the mesh; nil without one
	shape    int    // counts groups that got their first machine or lost their last, or their first or last of the mesh
	wired    int    // shape for which fabrics and ways are right
	ways     []way  // by group
}

// class are machines that are the same to the edges of a policy.
type class struct {
	sides sides
	group int // -1 is the appliance
}

type member struct {
	id       ID
	group    int
	class    *class
	weight   int
	pin      int // or noPin
	seed     bool
	complete bool
	part     bool
	same     string // of a part, see Who.Same
	slow     bool
	gate     bool    // has links between groups of the mesh
	rate     float64 // bytes a second, 0 is not known
	up       upward
}

// group is one of the policy's, as far as it takes part in the swarm.
type group struct {
	pool     *pool
	graph    *Graph
	seeds    *pool
	full     int // seeds that hold everything
	crossing *crossing
	plain    *class // a machine that only the group's name concerns
	gates    int    // machines that have links between groups of the mesh
	maxGates int    // 0 outside of the mesh
	reports  int    // of rates since slow machines were looked for
}

// NewTopology returns one without machines.
func NewTopology(p *Policy, seed uint64) *Topology {
	t := &Topology{
		policy: p, random: rand.New(rand.NewPCG(seed, 0)), members: map[ID]*member{}, classes: map[string]*class{},
		verdicts: map[[2]*class]bool{}, fabrics: map[*pool]*fabric{}, wired: -1,
		grouped: len(p.Groups) > 1 || slices.ContainsFunc(p.pins, func(n pin) bool { return n.child.kind != kindGroup }),
	}
	t.budget = p.budget(t.grouped)
	t.own = t.class(p.applianceSides(), -1)
	var allowed func(a, b ID) bool
	if len(p.edges) > 0 {
		allowed = func(a, b ID) bool { return t.mayLink(t.members[a].class, t.members[b].class) }
	}
	for i, g := range p.Groups {
		own := &group{pool: newPool(), seeds: newPool(), graph: NewGraph(t.budget.degree, t.random, allowed)}
		own.crossing = &crossing{child: own.pool, links: g.Links, bytesPerSecond: g.BytesPerSecond}
		own.plain = t.class(p.sidesBy(func(y party) bool { return y.kind == kindGroup && y.group == i }), i)
		t.groups = append(t.groups, own)
	}
	t.mesh = t.newMesh(allowed)
	for _, n := range p.pins {
		var c *crossing
		var named *pool
		if n.child.kind != kindGroup && n.parent.kind != kindAppliance {
			c = &crossing{child: newPool(), whole: true}
		}
		if n.parent.kind == kindRange || n.parent.kind == kindName {
			named = newPool()
		}
		t.pinned, t.named = append(t.pinned, c), append(t.named, named)
	}
	return t
}

// MaxSeeders is how many seeders a machine may be linked with, those of appliances and seed nodes together.
func (t *Topology) MaxSeeders() int { return t.budget.seeders }

// MaxConnections bounds the links of a machine.
func (t *Topology) MaxConnections() int { return t.policy.MaxConnections }

// Len is the number of machines.
func (t *Topology) Len() int { return len(t.members) }

func (t *Topology) class(s sides, group int) *class {
	key := fmt.Sprint(group, " ", s)
	c := t.classes[key]
	if c == nil {
		c = &class{s, group}
		t.classes[key] = c
	}
	return c
}

// mayLink reports whether no edge forbids a link.
func (t *Topology) mayLink(a, b *class) bool {
	key := [2]*class{a, b}
	may, known := t.verdicts[key]
	if !known {
		allow, ok := t.policy.verdict(a.sides, b.sides)
		may = allow || !ok
		t.verdicts[key] = may
	}
	return may
}

// Join adds a machine. A seed hands out to its group. One that is there stays as it is.
func (t *Topology) Join(id ID, w Who, seed bool) {
	if t.members[id] != nil {
		return
	}
	g := t.policy.GroupOf(w)
	m := &member{id: id, group: g, seed: seed, pin: t.policy.pinOf(w, g), weight: t.policy.weightOf(w, g)}
	m.class = t.class(t.policy.sidesOf(w, g), g)
	if m.part = w.Part; m.part {
		m.weight, m.same = 0, w.Same
	}
	t.members[id] = m
	for i, n := range t.policy.pins {
		if t.named[i] != nil && n.parent.matches(w, g) && !n.child.matches(w, g) {
			t.named[i].add(m)
		}
	}
	if seed {
		t.groups[g].seeds.add(m)
	}
	t.place(m)
}

// place puts a machine among those that fetch.
func (t *Topology) place(m *member) {
	if m.pin != noPin {
		if c := t.pinned[m.pin]; c != nil {
			c.child.add(m)
		}
		return
	}
	g := t.groups[m.group]
	g.graph.Join(m.id)
	if g.pool.add(m); g.pool.live == 1 {
		t.shape++
	}
	t.open(m)
}

// unplace takes it back.
func (t *Topology) unplace(m *member) {
	m.up = upward{}
	if m.pin != noPin {
		if c := t.pinned[m.pin]; c != nil {
			c.child.remove(m)
		}
		return
	}
	g := t.groups[m.group]
	if !g.graph.Has(m.id) {
		return
	}
	g.graph.Leave(m.id)
	if g.pool.remove(m); g.pool.live == 0 {
		t.shape++
	}
	t.shut(m)
}

// Leave removes a machine.
func (t *Topology) Leave(id ID) {
	m := t.members[id]
	if m == nil {
		return
	}
	t.fill(m, false)
	t.unplace(m)
	if m.seed {
		t.groups[m.group].seeds.remove(m)
	}
	for _, p := range t.named {
		if p != nil {
			p.remove(m)
		}
	}
	delete(t.members, id)
}

// fill notes whether a seed holds everything: it is not among those who fetch then, and its group needs nothing from
// upstream.
func (t *Topology) fill(m *member, complete bool) {
	if !m.seed || m.complete == complete {
		return
	}
	m.complete = complete
	g := t.groups[m.group]
	g.pool.version++
	if complete {
		g.full++
		t.unplace(m)
	} else {
		g.full--
		t.place(m)
	}
}

// Report takes what is known of a machine's progress: whether it holds everything, and how fast it receives in bytes a
// second; 0 is not known.
func (t *Topology) Report(id ID, complete bool, bytesPerSecond float64) {
	m := t.members[id]
	if m == nil {
		return
	}
	t.fill(m, complete)
	if m.rate = bytesPerSecond; complete {
		m.rate = 0
	}
	g := t.groups[m.group]
	if g.reports++; g.reports >= g.pool.live && t.policy.MeasuredWeights {
		g.reports = 0
		g.weigh()
	}
}

// weigh finds the machines that are much slower than the median of their group: nobody should wait for a piece that they
// fetch from upstream.
func (g *group) weigh() {
	var rates []float64
	for _, m := range g.pool.slots {
		if m != nil && m.rate > 0 {
			rates = append(rates, m.rate)
		}
	}
	if len(rates) < 3 {
		return
	}
	slices.Sort(rates)
	median := rates[len(rates)/2]
	for _, m := range g.pool.slots {
		if m == nil || m.rate <= 0 {
			continue
		}
		slow := m.rate < median*slowShare || m.slow && m.rate < median*quickShare
		if slow != m.slow {
			m.slow = slow
			g.pool.version++
		}
	}
}

// A machine is slow below half of its group's median, until it comes to three quarters of it.
const (
	slowShare  = 0.5
	quickShare = 0.75
)

// Links returns what the machine may be linked with, in a fixed order; ok is false if it is not there.
func (t *Topology) Links(id ID) (l Links, ok bool) {
	m := t.members[id]
	if m == nil {
		return l, false
	}
	t.wire()
	g := t.groups[m.group]
	l.Group, l.Grouped = m.group, t.grouped
	l.Appliance = t.reachesAppliance(m)
	l.Neighbours = make([]Neighbour, 0, t.policy.MaxConnections)
	add := func(o ID, r Relation) {
		known := slices.ContainsFunc(l.Neighbours, func(n Neighbour) bool { return n.ID == o })
		if !known && o != id && len(l.Neighbours) < t.policy.MaxConnections {
			l.Neighbours = append(l.Neighbours, Neighbour{o, r})
		}
	}
	if m.pin == noPin {
		for _, o := range t.seedsFor(m) {
			add(o, SeedNode)
		}
	}
	if c := t.crossingOf(m); c != nil && c.fabric != nil {
		c.fabric.refresh(t)
		if m.up.fabric == c.fabric && len(m.up.links) > 0 {
			l.Share, l.BytesPerSecond = m.up.share, c.limit
			for _, o := range m.up.links {
				if t.members[o.id] == o { // it may have left since
					add(o.id, Upstream)
				}
			}
		}
	}
	for _, o := range g.graph.Neighbours(id) {
		add(o, Inside)
	}
	if m.gate {
		for _, o := range t.mesh.Neighbours(id) {
			add(o, Inside)
		}
	}
	t.addDown(g.pool, m, add)
	for _, p := range t.named {
		t.addDown(p, m, add)
	}
	return l, true
}

// addDown adds the machines that fetch from m as one of a pool.
func (t *Topology) addDown(p *pool, m *member, add func(ID, Relation)) {
	f := t.fabrics[p]
	if f == nil || !p.has(m) {
		return
	}
	f.refresh(t)
	for _, o := range f.down[m] {
		if t.members[o.id] == o && o.up.fabric == f {
			add(o.id, Downstream)
		}
	}
}

// crossingOf returns by what the machine fetches from upstream, or nil.
func (t *Topology) crossingOf(m *member) *crossing {
	if m.pin != noPin {
		return t.pinned[m.pin]
	}
	return t.groups[m.group].crossing
}

// seedsFor returns seed nodes of the machine's group, spread evenly.
func (t *Topology) seedsFor(m *member) (list []ID) {
	g := t.groups[m.group]
	n, start := len(g.seeds.slots), g.pool.at[m.id]
	room := t.budget.seeders
	if t.reachesAppliance(m) && room > 1 {
		room--
	}
	for i := range n {
		s := g.seeds.slots[(start+i)%n]
		if s != nil && s != m && len(list) < room && t.mayLink(m.class, s.class) {
			list = append(list, s.id)
		}
	}
	return list
}

// reachesAppliance: a pin counts most, then an edge, then whether there is a group before.
func (t *Topology) reachesAppliance(m *member) bool {
	allow, ok := t.policy.verdict(m.class.sides, t.own.sides)
	switch {
	case ok && !allow:
		return false
	case m.pin != noPin:
		return t.policy.pins[m.pin].parent.kind == kindAppliance
	case ok:
		return true
	}
	return t.ways[m.group].appliance
}
