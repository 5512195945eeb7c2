package console

import "sync"

// maxListenersOfOne bounds the listeners of one user: others have room beside them.
const maxListenersOfOne = 20

// perUser counts who listens, by user name.
type perUser struct {
	mu    sync.Mutex
	count map[string]int
}

// enter reports whether one more of a user may listen; then leave must follow.
func (p *perUser) enter(name string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.count[name] >= maxListenersOfOne {
		return false
	}
	if p.count == nil {
		p.count = map[string]int{}
	}
	p.count[name]++
	return true
}

func (p *perUser) leave(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.count[name]--; p.count[name] <= 0 {
		delete(p.count, name)
	}
}
