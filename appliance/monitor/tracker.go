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
	// UploadLimit bounds what the appliance's seeders send together, MachineLimit what they send to one machine, in bytes a second;
	// 0 is no limit.
	UploadLimit, MachineLimit float64
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// Tracker keeps what machines reported over the last minute and judges it. Safe for concurrent use.
type Tracker struct {
	config Config
	began  time.Time

	looking sync.Mutex // guards what follows, and is held while it is looked
	tracks  map[string]*track
	series  map[string][]Sample // by deployment
	reads   map[string]float64  // by deployment: at what rate its machines read back, as far as is known

	mu      sync.Mutex // guards what follows
	picture *Picture
	changed chan struct{}
}

// New returns a tracker that has looked once.
func New(c Config) *Tracker {
	if c.Now == nil {
		c.Now = time.Now
	}
	t := &Tracker{config: c, began: c.Now(), changed: make(chan struct{}), series: map[string][]Sample{}, reads: map[string]float64{}}
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
	t.looking.Lock()
	defer t.looking.Unlock()
	p := t.look(t.Picture())
	t.mu.Lock()
	defer t.mu.Unlock()
	t.picture = p
	close(t.changed)
	t.changed = make(chan struct{})
	return p
}

// look makes a picture; before is the one of the last look. The caller holds looking.
func (t *Tracker) look(before *Picture) *Picture {
	l := &look{t: t, now: t.config.Now(), jobs: t.config.Fleet.Jobs(), peers: map[string]*peers{"": {}}, swarming: map[string]int{}, reads: map[string][]float64{}}
	if t.config.Thresholds != nil {
		l.limits = t.config.Thresholds()
	}
	l.limits = l.limits.Or()
	l.picture = &Picture{At: l.now, Thresholds: l.limits, Machines: map[string]*Progress{}, Deployments: map[string]*Course{}, Groups: map[string]*Course{}}
	if before == nil {
		before = l.picture
	}
	list, groups := t.config.Fleet.Machines(), t.config.Fleet.Groups()
	l.place(list, groups)
	l.gather()
	l.compare()
	for i := range l.jobs {
		l.tell(i)
	}
	l.show(list, before)
	l.deployments(before)
	l.groups(list, groups, before)
	return l.picture
}
