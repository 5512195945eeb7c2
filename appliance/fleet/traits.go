package fleet

import "slices"

// traits has the IDs of machines by what machines are recognised by: network cards, UUID, serial number and disks. Who shares none
// of these with a machine is not it: see score.
type traits map[string][]string

// traitsOf returns the traits of a machine, none of one that was merged into another.
func traitsOf(m *Machine) []string {
	if m == nil || m.MergedInto != "" {
		return nil
	}
	id := identity{macs: slices.Concat(m.MACs, m.Booted), uuid: canonicalUUID(m.UUID)}
	if m.Inventory != nil {
		id.serial, id.diskSerials = realSerial(m.Inventory.Serial), diskSerials(m.Inventory)
	}
	return id.traits()
}

// traits returns what an identity may share with that of a machine.
func (id identity) traits() []string {
	list := make([]string, 0, len(id.macs)+len(id.diskSerials)+2)
	for _, mac := range id.macs {
		list = append(list, "mac "+mac)
	}
	for _, serial := range id.diskSerials {
		list = append(list, "disk "+serial)
	}
	if id.uuid != "" {
		list = append(list, "uuid "+id.uuid)
	}
	if id.serial != "" {
		list = append(list, "serial "+id.serial)
	}
	return list
}

// put takes over a record of a machine; before is the one that it replaces, or nil, and after nil where it is removed.
func (t traits) put(id string, before, after *Machine) {
	was, is := traitsOf(before), traitsOf(after)
	if slices.Equal(was, is) {
		return
	}
	for _, trait := range was {
		if t[trait] = slices.DeleteFunc(t[trait], func(o string) bool { return o == id }); len(t[trait]) == 0 {
			delete(t, trait)
		}
	}
	for _, trait := range is {
		if !slices.Contains(t[trait], id) {
			t[trait] = append(t[trait], id)
		}
	}
}

// sharing returns the IDs of the machines that share a trait with an identity.
func (t traits) sharing(id identity) (list []string) {
	known := map[string]bool{} // boards are sold with one UUID for all
	for _, trait := range id.traits() {
		for _, machine := range t[trait] {
			if !known[machine] {
				known[machine] = true
				list = append(list, machine)
			}
		}
	}
	return list
}

// like returns the machines that share a trait with an identity, and perhaps others, as the draft has them.
func (d *draft) like(id identity) (list []*Machine) {
	ids := d.f.traits.sharing(id)
	known := make(map[string]bool, len(ids))
	add := func(id string) {
		if m := d.machine(id); m != nil && m.MergedInto == "" && !known[id] {
			known[id] = true
			list = append(list, m)
		}
	}
	for _, id := range ids {
		add(id)
	}
	for _, p := range d.line() {
		for _, k := range p.order {
			if k.Kind == KindMachine {
				add(k.ID)
			}
		}
	}
	return list
}

// jobsOf returns the jobs of a machine that had not ended before the draft.
func (d *draft) jobsOf(machine string) (list []*Job) {
	add := func(id string) {
		j := d.job(id)
		if j != nil && j.Machine == machine && !slices.ContainsFunc(list, func(o *Job) bool { return o.ID == id }) {
			list = append(list, j)
		}
	}
	for _, j := range d.f.todo[machine] {
		add(j.ID)
	}
	for _, p := range d.line() {
		for _, id := range p.jobsOfMachine[machine] {
			add(id)
		}
	}
	return list
}
