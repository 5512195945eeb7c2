package fleet

import (
	"slices"
	"time"

	"seedbed/appliance/job"
)

// Greeted returns when the agent of a machine said hello last, what it told of an earlier boot, and whether it told since what the
// machine is; zero if it said none in the last days. machine is an ID.
func (f *Fleet) Greeted(machine string) (hello time.Time, left *job.Left, told bool) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	m := f.state.machines[machine]
	if m == nil {
		return hello, nil, false
	}
	for _, s := range f.state.sessions {
		switch {
		case s.Guest != nil || s.Revoked || !s.Redeemed.After(hello):
		case s.Machine == machine:
			hello, left, told = s.Redeemed, s.Left, true
		case s.Machine == "" && slices.Contains(m.MACs, s.MAC):
			hello, left, told = s.Redeemed, s.Left, false
		}
	}
	return hello, left, told
}
