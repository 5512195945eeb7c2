package tracker

import "time"

// Totals counts the swarms in which somebody is, and the peers in all of them.
func (t *Tracker) Totals() (swarms, peers int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	for _, s := range t.swarms {
		s.expire(now)
		if n := len(s.machines); n > 0 {
			swarms++
			peers += n
		}
	}
	return swarms, peers
}
