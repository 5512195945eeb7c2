package schedule

import "slices"

// Guests returns the machines that are told of a seed node, in a fixed order; none if it is no seed node. It dials them: one
// that comes late would else be known to nobody before the others ask again, and the tracker may be gone by then.
func (t *Topology) Guests(seed ID) (list []ID) {
	m := t.members[seed]
	if m == nil || !m.seed {
		return nil
	}
	t.wire()
	for _, o := range t.groups[m.group].pool.slots {
		if o != nil && !o.seed && o.pin == noPin && slices.Contains(t.seedsFor(o), seed) {
			list = append(list, o.id)
		}
	}
	return list
}
