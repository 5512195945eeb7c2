package bootdoctor

import (
	"cmp"
	"slices"
	"time"
)

// Seen is a boot as one appliance saw it.
type Seen struct {
	// Appliance is its name, "" for the one that shows it: its steps name no appliance.
	Appliance string
	Boot
}

const (
	// sameBegin is how far apart two appliances see the first packet of one boot: one may miss the first questions of firmware, which
	// come 4, 8 and 16 s apart (PXE 2.1 §2.2.5), and clocks differ a little.
	sameBegin = 30 * time.Second
	// sameRoad is how long after the last step that others saw an appliance may see the next one of the same boot: firmware that
	// waits for files, kernels that start and switch ports that do not forward yet take so long.
	sameRoad = 5 * time.Minute
)

// Merge returns the boots of one card that a site's appliances saw, the latest first. Boots that several saw are one, with the steps of all
// in the order of their times: DHCP is broadcast, and each step after it is seen by the appliance that was asked.
func Merge(list []Seen) (boots []Boot) {
	list = slices.Clone(list)
	slices.SortStableFunc(list, func(a, b Seen) int {
		return cmp.Or(a.Began.Compare(b.Began), cmp.Compare(a.Appliance, b.Appliance))
	})
	var whole []merged
	for _, s := range list {
		if len(s.Steps) == 0 {
			continue
		}
		if i := slices.IndexFunc(whole, func(m merged) bool { return m.holds(&s) }); i >= 0 {
			whole[i].join(s)
			continue
		}
		whole = append(whole, merged{})
		whole[len(whole)-1].join(s)
		for i := range len(whole) - 1 { // what began later ends what began before
			whole[i].over = true
		}
	}
	for _, m := range slices.Backward(whole) {
		slices.SortStableFunc(m.boot.Steps, func(a, b Step) int { return a.At.Compare(b.At) })
		boots = append(boots, m.boot)
	}
	return boots
}

// merged is a boot in the making.
type merged struct {
	boot Boot
	from []string // appliances that saw it
	over bool     // a later one began
}

// holds reports whether what another appliance saw is of this boot. Who saw how a boot began has it begin at the same time; who did not
// saw a part of the last one that began before.
func (m *merged) holds(s *Seen) bool {
	if slices.Contains(m.from, s.Appliance) {
		return false
	}
	if s.begins() && m.begins() {
		return s.Began.Sub(m.boot.Began) <= sameBegin
	}
	return !m.over && s.Began.Sub(m.boot.Latest()) <= sameRoad
}

func (m *merged) begins() bool { return begins(m.boot.Steps) }
func (s *Seen) begins() bool   { return begins(s.Steps) }

// begins reports whether a boot was seen from its first question on.
func begins(steps []Step) bool {
	return slices.ContainsFunc(steps, func(s Step) bool { return s.Kind == DHCP && s.By == ByFirmware })
}

func (m *merged) join(s Seen) {
	m.from = append(m.from, s.Appliance)
	b := &m.boot
	if b.Began.IsZero() || s.Began.Before(b.Began) {
		b.Began = s.Began
	}
	b.MAC, b.Firmware, b.Addr = cmp.Or(b.MAC, s.MAC), cmp.Or(b.Firmware, s.Firmware), cmp.Or(b.Addr, s.Addr)
	b.UEFI, b.HTTPBoot = b.UEFI || s.UEFI, b.HTTPBoot || s.HTTPBoot
	for _, step := range s.Steps {
		if step.Appliance == "" {
			step.Appliance = s.Appliance
		}
		if i := slices.IndexFunc(b.Steps, func(o Step) bool { return o.Appliance != step.Appliance && sameBroadcast(&o, &step) }); i >= 0 {
			b.Steps[i].both(step)
			continue
		}
		b.Steps = append(b.Steps, step)
	}
}

// broadcast are the steps that each appliance in the machine's network sees.
var broadcast = []Kind{DHCP, Address, AgentDHCP}

// sameBroadcast reports whether two appliances saw the same packets. Of two offers each is a step; one that offers nothing, since another
// one does, says nothing new.
func sameBroadcast(a, b *Step) bool {
	return slices.Contains(broadcast, a.Kind) && a.Kind == b.Kind && a.By == b.By && (a.Loader == b.Loader || a.Loader == "" || b.Loader == "") &&
		a.At.Sub(b.Last) <= sameBegin && b.At.Sub(a.Last) <= sameBegin
}

// both makes one step of what two saw.
func (s *Step) both(o Step) {
	if s.Loader == "" && o.Loader != "" {
		s.Loader, s.Note = o.Loader, o.Note
	}
	if s.Appliance != "" && o.Appliance == "" { // the one that shows it saw it too
		s.Appliance = ""
	}
	s.Note = cmp.Or(s.Note, o.Note)
	if o.At.Before(s.At) {
		s.At = o.At
	}
	if o.Last.After(s.Last) {
		s.Last = o.Last
	}
	s.Count = max(s.Count, o.Count)
}
