package fleet

import (
	"fmt"
	"time"

	"seedbed/appliance/job"
)

// Bounds of the machines that no person admitted, at a site. Under AdmitAuto those are the machines that were admitted at first sight.
const (
	// maxByThemselves are the machines that tell what they are and were admitted by nobody but AdmitAuto, maxByThemselvesHour those of
	// the last hour: a lab of a few thousand machines may be switched on at once.
	maxByThemselves     = 6000
	maxByThemselvesHour = 3000
	// An inventory of shortInventory bytes is always taken, from so many machines as may tell one: a computer with four disks and three
	// network cards has half of that. Longer ones have longInventories bytes together. Both are bytes as weight counts them.
	shortInventory  = 4 << 10
	longInventories = 32 << 20
)

// vouched reports whether a person admitted the machine.
func (m *Machine) vouched() bool { return m.Admitted && m.ByItself.IsZero() }

// crowd counts the machines that no person admitted.
type crowd struct {
	packets int   // that were only ever seen in boot packets
	told    int   // that told what they are, and were admitted by nobody
	long    int64 // bytes of long inventories, also of machines that were admitted at first sight
}

// move takes over a record of a machine; before is the one that it replaces, or nil, and after nil where it is removed.
func (c *crowd) move(before, after *Machine) {
	c.count(before, -1)
	c.count(after, 1)
}

func (c *crowd) count(m *Machine, by int) {
	if m == nil || m.MergedInto != "" || m.vouched() {
		return
	}
	switch {
	case m.Inventory == nil:
		c.packets += by
	case !m.Admitted:
		c.told += by
	}
	if w := weight(m.Inventory); w > shortInventory {
		c.long += int64(by) * w
	}
}

// weight is what an inventory, which may be nil, takes in memory and in its record, in bytes, to some ten in a hundred.
func weight(inv *job.Inventory) int64 {
	if inv == nil {
		return 0
	}
	n := 256 + len(inv.UUID) + len(inv.Manufacturer) + len(inv.Product) + len(inv.Serial) + len(inv.Firmware) + len(inv.SecureBoot)
	for _, d := range inv.Disks {
		n += 200 + len(d.Name) + len(d.Model) + len(d.Serial) + len(d.WWN) + len(d.Bus)
	}
	for _, c := range inv.Controllers {
		n += 150 + len(c.Slot) + len(c.ID) + len(c.Class) + len(c.Driver) + len(c.Mode)
	}
	for _, d := range inv.NoDriver {
		n += 60 + len(d.Slot) + len(d.ID)
	}
	for _, name := range inv.SecureBootDB {
		n += 24 + len(name)
	}
	for _, c := range inv.NICs {
		n += 100 + len(c.Name) + len(c.MAC) + len(c.Driver) + len(c.Addr)
	}
	return int64(n)
}

// crowd returns the counts as the draft has them.
func (d *draft) crowd() crowd {
	c := d.f.crowd
	known := map[string]bool{}
	take := func(k Key) {
		if k.Kind == KindMachine && !known[k.ID] {
			known[k.ID] = true
			c.move(d.f.state.machines[k.ID], d.machine(k.ID))
		}
	}
	for p := d; p != nil; p = p.parent {
		for _, k := range p.order {
			take(k)
		}
		for k := range p.gone {
			take(k)
		}
	}
	return c
}

// hasRoomToTell refuses the inventory that a machine in the draft has now, where it is a long one and those of machines that no person
// admitted are too much together.
func (d *draft) hasRoomToTell(own *Machine) error {
	if own.vouched() || weight(own.Inventory) <= shortInventory {
		return nil
	}
	if was := d.f.state.machines[own.ID]; was != nil && weight(was.Inventory) >= weight(own.Inventory) {
		return nil // it adds nothing
	}
	if c := d.crowd(); c.long > longInventories {
		return refuse(CodeTooMany, "the long inventories of machines that no person admitted take %d MiB already, and that of %s is one of more than %d KiB; "+
			"admit it first (`seedbed machine admit %s`), or look for a strange device on the boot network", longInventories>>20, own.Name, shortInventory>>10, own.MAC())
	}
	return nil
}

// admitItself decides, where the site admits at first sight, whether a machine that tells what it is may stay admitted: there are bounds,
// so that who makes up machines gets jobs for a bounded number of them, and a person hears of it.
func (d *draft) admitItself(own *Machine) {
	first := own.Inventory == nil && own.Admitted && !own.ByItself.IsZero()
	again := own.Crowded && !own.Admitted && len(own.Like) == 0
	if d.f.config.Admit != AdmitAuto || !first && !again {
		return
	}
	now := d.f.now().UTC()
	why := d.tooManyByThemselves(own, now)
	switch {
	case why == "":
		own.Admitted, own.Code, own.Crowded, own.ByItself = true, "", false, now
		if again {
			d.event(Event{Kind: "machine.admitted", Machine: own.ID, Text: own.Name + " was admitted by itself, as there is room again"})
			d.enlist(own)
		}
	case first:
		own.Admitted, own.Code, own.Crowded, own.ByItself = false, newCode(), true, time.Time{}
		d.event(Event{Kind: "machine.crowded", Machine: own.ID, Text: fmt.Sprintf("%s is not admitted by itself, as %s; it waits for a person (`seedbed machine admit %s`). "+
			"If nobody switched so many machines on, look for a strange device on the boot network", own.Name, why, own.Code)})
	}
}

// tooManyByThemselves says why no more machines are admitted at first sight for now, or returns "".
func (d *draft) tooManyByThemselves(own *Machine, now time.Time) string {
	all, hour := 0, 0
	for _, m := range d.machines() {
		if m.ID == own.ID || m.Inventory == nil || !m.Admitted || m.ByItself.IsZero() {
			continue
		}
		if all++; now.Sub(m.ByItself) < time.Hour {
			hour++
		}
	}
	switch {
	case all >= maxByThemselves:
		return fmt.Sprintf("%d machines were already, and no more are until a person admits or removes some", all)
	case hour >= maxByThemselvesHour:
		return fmt.Sprintf("%d machines were in the last hour", hour)
	}
	return ""
}
