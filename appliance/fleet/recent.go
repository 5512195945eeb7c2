package fleet

import (
	"slices"
	"strings"
	"time"
)

// JobsSince returns the jobs that have not ended, those that ended at a time or later, and of each other machine the latest one, in the
// order of their creation. Unlike Jobs it takes little longer where many jobs ended long ago.
func (f *Fleet) JobsSince(at time.Time) []JobView {
	turns, _ := f.decide()
	f.mu.RLock()
	defer f.mu.RUnlock()
	var picked []*Job
	shown := make(map[string]*Job, len(f.state.machines)) // by machine
	for _, j := range f.state.jobs {
		if other := shown[j.Machine]; other == nil || before(j, other) {
			shown[j.Machine] = j
		}
		if !j.State.Ended() || !j.Ended.Before(at) {
			picked = append(picked, j)
		}
	}
	for _, j := range shown {
		if j.State.Ended() && j.Ended.Before(at) {
			picked = append(picked, j)
		}
	}
	slices.SortFunc(picked, func(a, b *Job) int {
		if c := a.Created.Compare(b.Created); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
	list := make([]JobView, len(picked))
	for i, j := range picked {
		list[i] = f.jobView(j)
		list[i].waits(turns)
	}
	return list
}
