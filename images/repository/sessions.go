package repository

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"seedbed/images/intake"
)

// instant is a moment by two clocks: the monotonic one stops while a computer sleeps, the other one is set.
type instant struct{ monotonic, wall time.Time }

func now() instant {
	t := time.Now()
	return instant{t, t.Round(0)}
}

// age is how long ago the instant is, by the clock that says more.
func (i instant) age() time.Duration {
	n := now()
	return max(n.monotonic.Sub(i.monotonic), n.wall.Sub(i.wall))
}

// hold is the right to build on what was not marked when it began. What is marked later is not removed before its life
// is over.
type hold struct {
	begun  instant
	life   time.Duration
	marked marked // at the begin
}

func (h *hold) check() error {
	if h.begun.age() > h.life {
		return fmt.Errorf("%w: it began more than %v ago; begin it again, what was stored stays for the next try", intake.ErrExpired, h.life)
	}
	return nil
}

// sessionTable are the sessions of this process. Safe for concurrent use.
type sessionTable struct {
	mu   sync.Mutex
	list []*Session // guarded by mu
}

// add enters a session, unless another one makes the same version.
func (t *sessionTable) add(s *Session) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.list = slices.DeleteFunc(t.list, func(o *Session) bool { return o.over() != nil })
	for _, o := range t.list {
		if s.cfg.Version != "" && o.cfg.Name == s.cfg.Name && o.cfg.Version == s.cfg.Version {
			return fmt.Errorf("begin %s: %w; wait for it, or take another version", s.name(), intake.ErrBusy)
		}
	}
	t.list = append(t.list, s)
	return nil
}

func (t *sessionTable) remove(s *Session) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.list = slices.DeleteFunc(t.list, func(o *Session) bool { return o == s })
}

// pins returns the handles of the packs that sessions rely on.
func (t *sessionTable) pins() map[uint32]bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := map[uint32]bool{}
	for _, s := range t.list {
		if s.over() != nil {
			continue
		}
		s.mu.Lock()
		for h := range s.pinned {
			all[h] = true
		}
		s.mu.Unlock()
	}
	return all
}
