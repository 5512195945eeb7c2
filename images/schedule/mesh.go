package schedule

import "slices"

// meshLinks is how many links a machine of the mesh has to machines of other groups. With eight inside its group a fifth of
// what it fetches comes over the uplink, so that of 47 machines an uplink carries 9.6 images each way.
const meshLinks = 2

// weave finds the groups of the mesh: those whose uplinks carry several images, which no pin sends elsewhere, and which no
// edge keeps from another one of them. One alone is none.
func (p *Policy) weave() {
	var in []int
	plain := func(i int) sides {
		return p.sidesBy(func(y party) bool { return y.kind == kindGroup && y.group == i })
	}
	for i, g := range p.Groups {
		apart := slices.ContainsFunc(in, func(j int) bool {
			allow, ok := p.verdict(plain(i), plain(j))
			return ok && !allow
		})
		if g.Images > 1 && g.pin == noPin && !apart {
			in = append(in, i)
		}
	}
	b := divide(p.MaxConnections, true)
	if p.mesh = in; len(in) < 2 || b.upstream < meshLinks || len(in) < len(p.Groups) && b.downstream <= meshLinks {
		p.mesh = nil
	}
}

// budget shares out the connections of a machine. Beside a chain it may have links of the mesh, and upstream and downstream.
func (p *Policy) budget(grouped bool) budget {
	b := divide(p.MaxConnections, grouped)
	if len(p.mesh) > 0 && len(p.mesh) < len(p.Groups) {
		b.downstream -= meshLinks
	}
	return b
}

// meshed reports whether the group is one of the mesh, and whether it is its first.
func (p *Policy) meshed(group int) (in, first bool) {
	i := slices.Index(p.mesh, group)
	return i >= 0, i == 0
}

// newMesh returns the graph of the machines that have links between groups, nil where no groups are a mesh.
func (t *Topology) newMesh(allowed func(a, b ID) bool) *Graph {
	if len(t.policy.mesh) == 0 {
		return nil
	}
	for _, i := range t.policy.mesh {
		t.groups[i].maxGates = t.policy.Groups[i].Images * (t.budget.degree + meshLinks) / meshLinks
	}
	return NewGraph(meshLinks, t.random, func(a, b ID) bool {
		return t.members[a].group != t.members[b].group && (allowed == nil || allowed(a, b))
	})
}

// open makes a machine one of those that have links between groups, if its group's uplink allows one more.
func (t *Topology) open(m *member) {
	g := t.groups[m.group]
	if m.gate || m.weight == 0 || g.gates >= g.maxGates {
		return
	}
	m.gate = true
	t.mesh.Join(m.id)
	if g.gates++; g.gates == 1 {
		t.shape++
	}
}

// shut takes that back; another of the group's machines takes its place.
func (t *Topology) shut(m *member) {
	if !m.gate {
		return
	}
	g := t.groups[m.group]
	m.gate = false
	t.mesh.Leave(m.id)
	if g.gates--; g.gates == 0 {
		t.shape++
	}
	for _, o := range g.pool.slots {
		if o != nil && o != m && g.gates < g.maxGates {
			t.open(o)
		}
	}
}

// woven reports whether the group gets everything through the mesh, from those that come before it there.
func (t *Topology) woven(i int) bool {
	return t.groups[i].gates > 0 && t.firstGate() < i
}

// firstGate returns the first group of the mesh that has links there, -1 without any.
func (t *Topology) firstGate() int {
	for _, j := range t.policy.mesh {
		if t.groups[j].gates > 0 {
			return j
		}
	}
	return -1
}
