package fleet

import (
	"fmt"
	"time"

	"golang.org/x/time/rate"
)

// Bounds of what boots that no person knows of leave in the records, at one appliance: machines that are new, by their packets and by
// their agents' hellos, and events about machines that nobody but AdmitAuto admitted. A new machine leaves some six events, and each of
// its boots three.
const (
	sightsBurst, sightsRate = maxUnknown, 2
	straysBurst, straysRate = 50000, 5
	// straysToldEvery is how far apart the events are that tell of those left out.
	straysToldEvery = time.Hour
)

// ofBoots are the kinds of the events that boots cause, and nobody's order.
var ofBoots = map[string]bool{
	"machine.seen": true, "machine.hello": true, "machine.inventory": true, "machine.merged": true, "machine.conflict": true,
	"machine.local-boot": true, "machine.stuck": true, "machine.dhcp": true, "machine.loader": true,
}

// strays are the events about machines that no person admitted. Owned by who holds Fleet.writing.
type strays struct {
	may   *rate.Limiter
	left  int // out, since it was told last
	since time.Time
	told  time.Time
}

func newStrays() strays { return strays{may: rate.NewLimiter(straysRate, straysBurst)} }

// keep returns those of a draft's events that are to be written. Who boots a machine over and over, or as another one each time, fills
// no disk.
func (s *strays) keep(d *draft, events []Event, now time.Time) []Event {
	kept := make([]Event, 0, len(events)+1)
	for _, e := range events {
		if e.Actor == "" && ofBoots[e.Kind] && d.isStray(e.Machine) && !s.may.AllowN(now, 1) {
			if s.left++; s.left == 1 {
				s.since = now
			}
			continue
		}
		kept = append(kept, e)
	}
	if s.left > 0 && now.Sub(s.told) >= straysToldEvery {
		kept = append(kept, Event{At: now.UTC(), Kind: "machine.untold", Text: fmt.Sprintf("%d events about machines that no person admitted are left out since %s: they boot too often. "+
			"Admit those that are the site's, and look for a strange device on the boot network", s.left, s.since.UTC().Format(time.RFC3339))})
		s.left, s.told = 0, now
	}
	return kept
}

// isStray reports whether an event is about no machine that a person admitted.
func (d *draft) isStray(machine string) bool {
	m := d.machine(machine)
	return m == nil || !m.vouched()
}
