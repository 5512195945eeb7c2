package fleet

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"seedbed/appliance/job"
)

// What a boot proves is its network card: its token was bound to the DHCP exchange of that address, its certificate to the token.
// All else is what the machine says. It may add that to its own record, never take it from another machine's, nor pass for that one:
// a person says which machine it is.

// Bounds of what is kept of boots, and of a person's words about who is who.
const (
	maxBooted = 64
	maxUnlike = 64
)

// holds reports whether a boot from a network card may be this machine's: it booted from it before; or it has it, and is admitted, or
// never told anything but that. What a machine that nobody admitted says of network cards counts for nothing.
func (m *Machine) holds(mac string) bool {
	switch {
	case slices.Contains(m.Booted, mac):
		return true
	case m.Inventory == nil, m.Admitted:
		return slices.Contains(m.MACs, mac)
	}
	return len(m.Booted) == 0 && m.MAC() == mac // of an earlier version of the program
}

// established reports whether a person, or a job, has said something of the machine: its identity is nobody else's to take.
func (m *Machine) established() bool {
	return m.Admitted || m.Deployed != nil || len(m.Groups) > 0 || m.Seat != nil || m.Notes != "" || m.Boot != nil
}

// identify returns the machine with this inventory: one that holds the network card which the boot proves, or a new one. Where the
// inventory fits a machine that does not hold it, the record is one of its own that waits for a person's word.
func (d *draft) identify(s *Session, inv *job.Inventory) (*Machine, error) {
	bootMAC := s.MAC
	id := inventoryIdentity(bootMAC, inv)
	var held, strange []*Machine
	for _, m := range d.like(id) {
		if m.holds(bootMAC) {
			held = append(held, m)
		} else {
			strange = append(strange, m)
		}
	}
	best, rivals := choose(id, held, strange)
	if m := d.machine(s.Machine); best == nil && len(rivals) == 0 && m != nil && m.MergedInto == "" {
		best = m // one boot is of one machine, whatever it says
	}
	if best == nil {
		var err error
		if best, err = d.recordTold(bootMAC, inv, rivals); err != nil {
			return nil, err
		}
	}
	own := d.editMachine(best)
	d.proven(own, bootMAC, slices.Concat(held, strange))
	words := passing(id, rivals)
	taken := d.takeCards(own, id.macs[1:], strange, held)
	words = append(words, taken.words...)
	told := without(inv, id, rivals, taken.others)
	if own.Inventory == nil {
		d.event(Event{Kind: "machine.inventory", Machine: own.ID, Text: own.Name + " is a " +
			strings.TrimSpace(inv.Manufacturer+" "+inv.Product) + ", serial number " + quoteEmpty(told.Serial)})
	}
	d.admitItself(own)
	own.Inventory = told
	if canonicalUUID(told.UUID) != "" {
		own.UUID = told.UUID
	} else if canonicalUUID(own.UUID) == id.uuid && id.uuid != "" {
		own.UUID = "" // it is a rival's
	}
	for _, mac := range taken.others {
		own.MACs = lacking(own.MACs, mac)
	}
	own.have(append([]string{bootMAC}, taken.own...))
	d.contest(own, rivals, words)
	return own, d.hasRoomToTell(own)
}

// recordTold makes a machine of what an agent told, unless too many wait for a person's word already.
func (d *draft) recordTold(bootMAC string, inv *job.Inventory, rivals []*Machine) (*Machine, error) {
	if strangers := d.crowd().told; strangers >= maxGreeted {
		return nil, refuse(CodeTooMany, "%d machines told what they are and nobody admitted them; admit them or remove them (`seedbed machine ls`), "+
			"and look for a strange device on the boot network", strangers)
	}
	uuid := inv.UUID
	if len(rivals) > 0 {
		uuid = ""
	}
	return d.record(identity{macs: []string{bootMAC}}, uuid), nil
}

// choose returns the machine of those that hold the boot's network card that fits best, nil for a new record, and the machines that the
// identity passes for instead: with such, the machine is none that is known, or the record that was made when it passed for them before.
func choose(id identity, held, strange []*Machine) (best *Machine, rivals []*Machine) {
	best, ambiguous := recognise(id, held)
	if ambiguous && best.Inventory != nil {
		for _, m := range held {
			if m.Inventory != nil && score(id, m) == score(id, best) {
				rivals = append(rivals, m)
			}
		}
	}
	for _, m := range strange {
		points := score(id, m)
		switch {
		case m.Inventory == nil || !m.established() || points < pointsRecognised:
		case best != nil && best.Inventory != nil && (best.established() && points < score(id, best) || slices.Contains(best.Unlike, m.ID)):
		default:
			rivals = append(rivals, m)
		}
	}
	if len(rivals) == 0 {
		return best, nil
	}
	slices.SortFunc(rivals, func(a, b *Machine) int { return strings.Compare(a.ID, b.ID) })
	for _, m := range held {
		if !slices.Contains(rivals, m) && (len(m.Like) > 0 || m == best && m.Inventory != nil && !m.established()) {
			return m, rivals
		}
	}
	best, _ = fittest(id, held, false)
	return best, rivals
}

// proven gives a machine the network card that its boot proves. One that has it from a boot of its own is known by it still; a record
// of nothing but its packets is this machine.
func (d *draft) proven(own *Machine, mac string, others []*Machine) {
	for _, other := range others {
		switch {
		case other.ID == own.ID || !slices.Contains(other.MACs, mac):
		case other.Inventory == nil:
			d.merge(other, own)
		default:
			moved := d.editMachine(other)
			if len(moved.Booted) == 0 && moved.MAC() == mac {
				moved.Booted = []string{mac} // of an earlier version of the program
			}
			moved.MACs = lacking(moved.MACs, mac)
		}
	}
	own.Booted = append([]string{mac}, lacking(own.Booted, mac)...)
	own.Booted = own.Booted[:min(len(own.Booted), maxBooted)]
}

// cards are the network cards that a machine told of beside the one it booted from.
type cards struct {
	own    []string
	others []string // that are another machine's, and were never proven to be this one's
	words  []string // about these
}

// takeCards takes for a machine those of the cards that nobody else has: a record of mere packets is the machine's own, and what
// another one only told, that nobody admitted, counts for nothing.
func (d *draft) takeCards(own *Machine, macs []string, lists ...[]*Machine) (c cards) {
	for _, mac := range macs {
		taken := false
		for _, other := range slices.Concat(lists...) {
			other = d.machine(other.ID)
			switch {
			case other == nil || other.ID == own.ID || other.MergedInto != "" || !slices.Contains(other.MACs, mac):
			case d.isBare(other):
				d.merge(other, own)
			case other.Inventory != nil && !other.established() && !slices.Contains(other.Booted, mac):
				moved := d.editMachine(other)
				moved.MACs = lacking(moved.MACs, mac)
			case slices.Contains(own.Booted, mac):
				taken = true // both booted from it, as from a dock: it is now where it booted last
			default:
				taken = true
				c.others = append(c.others, mac)
				c.words = append(c.words, fmt.Sprintf("has the network card %s, which is of %s (%s): the card stays with that one until this machine boots from it", mac, other.Name, other.ID))
			}
		}
		if !taken {
			c.own = append(c.own, mac)
		}
	}
	return c
}

// isBare reports whether a record was made by boot packets and nothing else: no person and no job knows of it.
func (d *draft) isBare(m *Machine) bool {
	byPerson := m.vouched() && d.f.config.Admit != AdmitAuto // where versions before this one did not write who admitted it
	if m.Inventory != nil || byPerson || m.Deployed != nil || len(m.Groups) > 0 || m.Seat != nil || m.Notes != "" || m.Boot != nil || m.Name != nameOf(m.MAC()) {
		return false
	}
	return !slices.ContainsFunc(d.jobsOf(m.ID), func(j *Job) bool {
		dep := d.deployment(j.Deployment)
		return !j.State.Ended() && (dep == nil || !dep.All || j.Epoch > 0)
	})
}

// have puts network cards first among those of the machine; those seen last are kept.
func (m *Machine) have(macs []string) {
	for _, mac := range slices.Backward(macs) {
		m.MACs = append([]string{mac}, lacking(m.MACs, mac)...)
	}
	m.MACs = m.MACs[:min(len(m.MACs), maxMACs)]
}

// lacking returns a list without one of its strings; the list itself stays as it is.
func lacking(list []string, s string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(o string) bool { return o == s })
}

// passing says in words how an inventory passes for other machines.
func passing(id identity, rivals []*Machine) (words []string) {
	for _, m := range rivals {
		var same []string
		if id.uuid != "" && id.uuid == canonicalUUID(m.UUID) {
			same = append(same, "UUID")
		}
		if id.serial != "" && id.serial == realSerial(m.Inventory.Serial) {
			same = append(same, "serial number")
		}
		if shares(id.diskSerials, diskSerials(m.Inventory)) {
			same = append(same, "disk")
		}
		if shares(id.macs, m.MACs) {
			same = append(same, "network card")
		}
		words = append(words, fmt.Sprintf("tells what %s (%s) is known by: %s", m.Name, m.ID, strings.Join(same, ", ")))
	}
	return words
}

// without returns an inventory without what rivals are known by, and without network cards that are others'.
func without(inv *job.Inventory, id identity, rivals []*Machine, macs []string) *job.Inventory {
	own := *inv
	own.NICs = slices.DeleteFunc(slices.Clone(inv.NICs), func(n job.NIC) bool { return slices.Contains(macs, canonicalMAC(n.MAC)) })
	own.Disks = slices.Clone(inv.Disks)
	for _, m := range rivals {
		if id.uuid != "" && id.uuid == canonicalUUID(m.UUID) {
			own.UUID = ""
		}
		if id.serial != "" && id.serial == realSerial(m.Inventory.Serial) {
			own.Serial = ""
		}
		theirs := diskSerials(m.Inventory)
		for i := range own.Disks {
			if slices.Contains(theirs, realSerial(own.Disks[i].Serial)) {
				own.Disks[i].Serial, own.Disks[i].WWN = "", ""
			}
		}
	}
	return &own
}

// maxConflictWords bounds what is said of one machine's conflicts, in sentences.
const maxConflictWords = 3

// contest shows operators what of a machine's inventory is another's. One that passes for others runs no job until a person says that
// it may.
func (d *draft) contest(own *Machine, rivals []*Machine, words []string) {
	if len(rivals) > 0 {
		own.Like = nil
	}
	for _, m := range rivals {
		own.Like = append(own.Like, m.ID)
	}
	if more := len(words) - maxConflictWords; more > 0 {
		words = append(words[:maxConflictWords:maxConflictWords], fmt.Sprintf("and %d more", more))
	}
	text := strings.Join(words, "; ")
	if len(rivals) > 0 {
		text += fmt.Sprintf(". If it is that machine, with another network card: `seedbed machine merge %s %s`; if it is another one, admit it by the code on its screen", own.ID, rivals[0].ID)
		if own.Crowded = false; own.Admitted || own.Code == "" { // it waits for a person, whoever else is admitted
			own.Admitted, own.Code = false, newCode()
		}
	}
	if text != "" && text != own.Conflict {
		d.event(Event{Kind: "machine.conflict", Machine: own.ID, Text: own.Name + " " + text})
	}
	own.Conflict = text
}

// admit says that a person knows the machine, and that it is none of those that it passes for.
func (m *Machine) admit() {
	m.Admitted, m.Code, m.ByItself, m.Crowded = true, "", time.Time{}, false
	if len(m.Like) == 0 {
		return
	}
	m.Unlike = append(slices.Clone(m.Like), slices.DeleteFunc(slices.Clone(m.Unlike), func(id string) bool { return slices.Contains(m.Like, id) })...)
	m.Unlike = m.Unlike[:min(len(m.Unlike), maxUnlike)]
	m.Like, m.Conflict = nil, ""
}
