package schedule

// way is whom a group fetches from: a pool, or the appliance, or neither where the mesh gives it everything.
type way struct {
	from      *pool
	group     int // whose pool it is; -1 of none
	appliance bool
}

// way finds that of a group, after those before it.
func (t *Topology) way(i int) way {
	if own := t.policy.Groups[i].pin; own != noPin {
		switch y := t.policy.pins[own].parent; y.kind {
		case kindAppliance:
			return way{group: -1, appliance: true}
		case kindGroup:
			return way{from: t.groups[y.group].pool, group: y.group}
		}
		return way{from: t.named[own], group: -1}
	}
	if t.woven(i) {
		return way{group: -1}
	}
	for j := i - 1; j >= 0; j-- {
		if o := t.groups[j]; o.pool.live > 0 && t.mayLink(t.groups[i].plain, o.plain) && !t.comesBy(j, i) {
			return way{from: o.pool, group: j}
		}
	}
	return way{group: -1, appliance: true}
}

// comesBy reports whether what group j gets comes by way of group i: it may be pinned to one behind i. Those behind i that are
// not pinned find their way after i did.
func (t *Topology) comesBy(j, i int) bool {
	for range t.groups {
		own := t.policy.Groups[j].pin
		switch {
		case j == i:
			return true
		case own != noPin:
			j = t.policy.groupOfParty(t.policy.pins[own].parent)
		case t.woven(j):
			j = t.firstGate()
		case j < i:
			j = t.ways[j].group
		default:
			return false
		}
		if j < 0 {
			return false
		}
	}
	return false
}

// wire finds out which groups fetch from which, where that may have changed.
func (t *Topology) wire() {
	if t.wired == t.shape {
		return
	}
	t.wired = t.shape
	t.ways = t.ways[:0]
	for i := range t.groups {
		t.ways = append(t.ways, t.way(i))
	}
	clear(t.fabrics)
	connect := func(c *crossing, parent *pool) {
		if c.fabric = nil; parent == nil {
			return
		}
		f := t.fabrics[parent]
		if f == nil {
			f = &fabric{parent: parent}
			t.fabrics[parent] = f
		}
		f.children, c.fabric = append(f.children, c), f
	}
	for i, g := range t.groups {
		parent := t.ways[i].from
		g.crossing.idle = func() bool { return g.full > 0 }
		g.crossing.fallback = t.bytesPerSecond(parent)
		if g.pool.live == 0 {
			parent = nil
		}
		connect(g.crossing, parent)
	}
	for i, c := range t.pinned {
		if c == nil {
			continue
		}
		parent := t.named[i]
		if y := t.policy.pins[i].parent; y.kind == kindGroup {
			parent = t.groups[y.group].pool
		}
		connect(c, parent)
	}
}

// bytesPerSecond returns the budget of the group that a pool is of; 0 for none.
func (t *Topology) bytesPerSecond(p *pool) int64 {
	for i, g := range t.groups {
		if g.pool == p {
			return t.policy.Groups[i].BytesPerSecond
		}
	}
	return 0
}
