package schedule

import "slices"

// MayFetch reports whether a machine may fetch from another one what it needs before it takes part in the swarm, and has no
// links yet: from one of its group, of the mesh that its group is in, or of the group before, or where it or its group is pinned,
// from its parent; not where an edge forbids it.
func (p *Policy) MayFetch(w, from Who) bool {
	group, of := p.GroupOf(w), p.GroupOf(from)
	if len(p.edges) > 0 && !p.MayLink(w, from) {
		return false
	}
	if pinned := p.pinOf(w, group); pinned != noPin {
		return p.pins[pinned].parent.matches(from, of)
	}
	if of == group {
		return true
	}
	if own := p.Groups[group].pin; own != noPin {
		return p.pins[own].parent.matches(from, of)
	}
	if slices.Contains(p.mesh, group) && slices.Contains(p.mesh, of) {
		return true
	}
	return of == group-1
}
