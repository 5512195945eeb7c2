package fleet

import (
	"slices"
	"time"
)

// Greeted returns when the agent of a machine said hello last, and whether it told since what the machine is; zero if it said none in the
// last days. machine is an ID.
func (f *Fleet) Greeted(machine string) (hello time.Time, told bool) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	m := f.state.machines[machine]
	if m == nil {
		return hello, false
	}
	for _, s := range f.state.sessions {
		switch {
		case s.Guest != nil || s.Revoked || !s.Redeemed.After(hello):
		case s.Machine == machine:
			hello, told = s.Redeemed, true
		case s.Machine == "" && slices.Contains(m.MACs, s.MAC):
			hello, told = s.Redeemed, false
		}
	}
	return hello, told
}
