package queue

import (
	"cmp"
	"errors"
	"time"
)

// Placed is a job that waits, as it stands in the queue.
type Placed struct {
	ID       string
	Priority int
	Since    time.Time
}

// MaxPriority bounds priorities in both directions.
const MaxPriority = 1000

// ErrCrowded says that no priorities are left by which jobs could stand as somebody wants.
var ErrCrowded = errors.New("the priorities of the jobs around that place are all taken up to the highest and down to the lowest")

// ahead reports whether a stands before b at the same priority: the one that is there longer, then the lower ID.
func ahead(a, b *Placed) bool {
	return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.ID, b.ID)) < 0
}

// least is the least priority by which a stands before b.
func least(a, b *Placed) int {
	if ahead(a, b) {
		return b.Priority
	}
	return b.Priority + 1
}

// Move returns the jobs that get another priority, so that the job at one index of a queue comes to stand at another one and the others
// keep their order. The priority that it has is kept where it will do, else it gets one between those of its neighbours, as far from
// both as there is room. Where there is none, as few jobs as can be get another one. list is in the order of the queue and
// is not changed.
func Move(list []Placed, from, to int) ([]Placed, error) {
	wanted := make([]*Placed, 0, len(list))
	for i := range list {
		if i != from {
			p := list[i]
			wanted = append(wanted, &p)
		}
	}
	moved := list[from]
	wanted = append(wanted[:to], append([]*Placed{&moved}, wanted[to:]...)...)
	best, found := settle(wanted, to, moved.Priority)
	if found && len(best) == 0 {
		return nil, nil
	}
	for _, priority := range candidates(wanted, to) {
		changed, ok := settle(wanted, to, priority)
		if ok && (!found || len(changed) <= len(best)) {
			best, found = changed, true
		}
	}
	if !found {
		return nil, ErrCrowded
	}
	return best, nil
}

// candidates are priorities that the job at an index might get, the likeliest last.
func candidates(wanted []*Placed, at int) []int {
	j := wanted[at]
	switch {
	case at > 0 && at+1 < len(wanted):
		low, high := least(j, wanted[at+1]), most(wanted[at-1], j)
		return []int{low, high, low + (high-low)/2}
	case at > 0:
		return []int{most(wanted[at-1], j)}
	case at+1 < len(wanted):
		return []int{least(j, wanted[at+1])}
	}
	return nil
}

// most is the highest priority by which b stands behind a.
func most(a, b *Placed) int {
	if ahead(a, b) {
		return a.Priority
	}
	return a.Priority - 1
}

// settle gives the job at an index a priority, raises those before it and lowers those behind it as far as they stand in its way, and
// returns all that changed.
func settle(wanted []*Placed, at, priority int) (changed []Placed, ok bool) {
	jobs := make([]Placed, len(wanted))
	for i, j := range wanted {
		jobs[i] = *j
	}
	jobs[at].Priority = priority
	for i := at - 1; i >= 0; i-- {
		n := least(&jobs[i], &jobs[i+1])
		if jobs[i].Priority >= n {
			break
		}
		jobs[i].Priority = n
	}
	for i := at + 1; i < len(jobs); i++ {
		n := most(&jobs[i-1], &jobs[i])
		if jobs[i].Priority <= n {
			break
		}
		jobs[i].Priority = n
	}
	for i := range jobs {
		if jobs[i].Priority > MaxPriority || jobs[i].Priority < -MaxPriority {
			return nil, false
		}
		if jobs[i].Priority != wanted[i].Priority {
			changed = append(changed, jobs[i])
		}
	}
	return changed, true
}
