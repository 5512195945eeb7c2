package api

import (
	"context"
	"encoding/json"
	"hash/maphash"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2/sse"

	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
)

// Events of /api/v1/live. The first of a stream that goes on from nowhere is Restart: whoever listens has the lists read then.
type (
	// Restart says that the lists have to be read again: the stream begins here.
	Restart struct {
		At time.Time `json:"at"`
	}
	// Jobs are jobs that changed.
	Jobs struct {
		Items   []Job    `json:"items"`
		Removed []string `json:"removed,omitempty" doc:"IDs of those that are not listed any more."`
	}
	// Machines are machines that changed.
	Machines struct {
		Items   []Machine `json:"items"`
		Removed []string  `json:"removed,omitempty"`
	}
	// Deployments are deployments that changed, or whose jobs did.
	Deployments struct {
		Items   []Deployment `json:"items"`
		Removed []string     `json:"removed,omitempty"`
	}
	// Alive is sent where nothing changes for a while, so that both ends notice that the other is gone.
	Alive struct {
		At time.Time `json:"at"`
	}
)

// liveEvery is how often changes are looked for: half a second, as often as a person can read. liveSilence is when Alive is sent.
const (
	liveEvery   = 500 * time.Millisecond
	liveSilence = 15 * time.Second
)

// Bounds of what is kept for those who go on after their connection broke, and of those who listen.
const (
	maxBatches   = 240
	maxLiveItems = 20000
	maxListeners = 200
)

// batch is what changed in one look.
type batch struct {
	id    int
	parts []any // Jobs, Machines, Deployments
	size  int   // items
}

// live follows the fleet for all who listen. Nobody looks while nobody listens. Safe for concurrent use.
type live struct {
	fleet *fleet.Fleet
	seed  maphash.Seed

	mu        sync.Mutex // guards what follows
	looked    time.Time
	id        int // of the last batch; begins anywhere, so that nobody goes on here with an ID of an earlier run or of another appliance
	known     map[string]uint64
	ended     map[string]epilogue // jobs that have ended
	batches   []batch
	listeners int
}

// liveStalled is how long a listener may take no byte. With HTTP/2 the bound of a write ends a stream that is silent, too, so that it is
// longer than a silence. huma keeps it for the whole program.
const liveStalled = 2 * liveSilence

func newLive(f *fleet.Fleet) *live {
	return &live{fleet: f, seed: maphash.MakeSeed(), id: 1 + rand.IntN(math.MaxInt/2), known: map[string]uint64{}, ended: map[string]epilogue{}}
}

// epilogue is what changes of a job that has ended: such jobs are many, and not looked at closer.
type epilogue struct {
	phase              job.Phase // it serves others for a while
	toPeers            int64
	retriedBy, machine string
	barred             int
}

func epilogueOf(j *fleet.JobView) epilogue {
	return epilogue{j.Phase, j.ToPeers, j.RetriedBy, j.MachineName, len(j.Barred)}
}

// look finds what changed since the last look, unless that is just now. The caller holds mu.
func (l *live) look(o *Operators) {
	now := time.Now()
	if now.Sub(l.looked) < liveEvery*9/10 {
		return
	}
	first := l.looked.IsZero()
	l.looked = now
	seen := map[string]bool{}
	var jobs Jobs
	for _, j := range l.fleet.Jobs() {
		key := "j" + j.ID
		seen[key] = true
		if last, ended := l.ended[j.ID]; ended && last == epilogueOf(&j) {
			continue
		}
		if v := viewJob(j); l.differs(key, v) {
			jobs.Items = append(jobs.Items, v)
		}
		if j.State.Ended() {
			l.ended[j.ID] = epilogueOf(&j)
		}
	}
	var machines Machines
	for _, m := range l.fleet.Machines() {
		key := "m" + m.ID
		seen[key] = true
		v := viewMachine(m)
		v.LastSeen = time.Time{} // each second's report is no change
		if l.differs(key, v) {
			v.LastSeen = m.LastSeen
			machines.Items = append(machines.Items, v)
		}
	}
	var deployments Deployments
	for _, d := range o.deployments() {
		key := "d" + d.ID
		seen[key] = true
		if l.differs(key, d) {
			deployments.Items = append(deployments.Items, d)
		}
	}
	for key := range l.known {
		if seen[key] {
			continue
		}
		delete(l.known, key)
		switch id := key[1:]; key[0] {
		case 'j':
			delete(l.ended, id)
			jobs.Removed = append(jobs.Removed, id)
		case 'm':
			machines.Removed = append(machines.Removed, id)
		case 'd':
			deployments.Removed = append(deployments.Removed, id)
		}
	}
	if first { // all of it: that is what the lists are for
		l.id++
		return
	}
	l.keep(jobs, machines, deployments)
}

// differs reports whether something is not what it was. The caller holds mu.
func (l *live) differs(key string, v any) bool {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // plain types
	}
	sum := maphash.Bytes(l.seed, b)
	had, known := l.known[key]
	l.known[key] = sum
	return !known || had != sum
}

// keep makes a batch of what changed. The caller holds mu.
func (l *live) keep(jobs Jobs, machines Machines, deployments Deployments) {
	b := batch{size: len(jobs.Items) + len(machines.Items) + len(deployments.Items)}
	if b.size == 0 && len(jobs.Removed)+len(machines.Removed)+len(deployments.Removed) == 0 {
		return
	}
	if len(machines.Items)+len(machines.Removed) > 0 {
		b.parts = append(b.parts, machines)
	}
	if len(deployments.Items)+len(deployments.Removed) > 0 {
		b.parts = append(b.parts, deployments)
	}
	if len(jobs.Items)+len(jobs.Removed) > 0 {
		b.parts = append(b.parts, jobs)
	}
	l.id++
	b.id = l.id
	l.batches = append(l.batches, b)
	total := 0
	for i, b := range slices.Backward(l.batches) {
		if total += b.size; total > maxLiveItems && i < len(l.batches)-1 || len(l.batches)-i > maxBatches {
			l.batches = slices.Clone(l.batches[i+1:])
			break
		}
	}
}

// after returns the batches after an ID; whole is false where some of these are not kept any more.
func (l *live) after(o *Operators, id int) (list []batch, last int, whole bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.look(o)
	if id > l.id || len(l.batches) == 0 && id != l.id || len(l.batches) > 0 && id < l.batches[0].id-1 {
		return nil, l.id, false
	}
	for _, b := range l.batches {
		if b.id > id {
			list = append(list, b)
		}
	}
	return list, l.id, true
}

// enter counts a listener.
func (l *live) enter() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.listeners >= maxListeners {
		return false
	}
	l.listeners++
	return true
}

func (l *live) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.listeners--
}

func (o *Operators) addLive() {
	op := operation("GET", "/live", "live", "What changes, as server-sent events")
	op.Description = "Jobs, machines and deployments as they change, together at most twice a second. The header Last-Event-ID goes on where a " +
		"connection broke; where that is too long ago, and at the beginning, a restart says that the lists have to be read."
	sse.Register(o.api, op, map[string]any{"restart": Restart{}, "jobs": Jobs{}, "machines": Machines{}, "deployments": Deployments{}, "alive": Alive{}},
		func(ctx context.Context, in *struct {
			After int `header:"Last-Event-ID"`
		}, send sse.Sender) {
			if !o.live.enter() {
				_ = send(sse.Message{Data: Alive{time.Now()}, Retry: int(liveSilence.Milliseconds())}) // it comes again later
				return
			}
			defer o.live.leave()
			o.follow(ctx, in.After, send)
		})
}

// follow sends what changes until ctx is done or the listener is gone.
func (o *Operators) follow(ctx context.Context, id int, send sse.Sender) {
	tick := time.NewTicker(liveEvery)
	defer tick.Stop()
	var sent time.Time
	for {
		if !o.stillMay(ctx) {
			return
		}
		list, last, whole := o.live.after(o, id)
		if !whole {
			if send(sse.Message{ID: last, Data: Restart{time.Now()}, Retry: 2000}) != nil {
				return
			}
			id, sent = last, time.Now()
		}
		for _, b := range list {
			for i, part := range b.parts {
				m := sse.Message{Data: part}
				if i == len(b.parts)-1 {
					m.ID = b.id // what broke in the middle of a batch is sent again
				}
				if send(m) != nil {
					return
				}
			}
			id, sent = b.id, time.Now()
		}
		if time.Since(sent) > liveSilence {
			if send.Data(Alive{time.Now()}) != nil {
				return
			}
			sent = time.Now()
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}
