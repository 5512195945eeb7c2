package monitor

import (
	"context"
	"sync"
	"time"

	"seedbed/appliance/fleet"
)

// every is how often the machines are looked at: as often as a person can read.
const every = 500 * time.Millisecond

// Fleet is what is looked at.
type Fleet interface {
	Jobs() []fleet.JobView
	Machines() []fleet.MachineView
	Groups() []fleet.GroupView
	Deployments() []fleet.Deployment
}

// Config of a tracker. Fleet is needed.
type Config struct {
	Fleet Fleet
	// Thresholds returns those in force; nil is the defaults.
	Thresholds func() Thresholds
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// Tracker keeps what machines reported over the last minute and judges it. Safe for concurrent use.
type Tracker struct {
	config Config

	mu      sync.Mutex // guards what follows
	picture *Picture
	changed chan struct{}
}

// New returns a tracker that has looked once.
func New(c Config) *Tracker {
	if c.Now == nil {
		c.Now = time.Now
	}
	t := &Tracker{config: c, changed: make(chan struct{})}
	t.Look()
	return t
}

// Run looks twice a second until ctx is done.
func (t *Tracker) Run(ctx context.Context) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			t.Look()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Picture is what the last look saw.
func (t *Tracker) Picture() *Picture {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.picture
}

// Changed is closed by the next look.
func (t *Tracker) Changed() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.changed
}

// Look judges all machines now.
func (t *Tracker) Look() *Picture {
	p := &Picture{At: t.config.Now(), Machines: map[string]*Progress{}, Deployments: map[string]*Course{}, Groups: map[string]*Course{}}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.picture = p
	close(t.changed)
	t.changed = make(chan struct{})
	return p
}
