package fleet

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"seedbed/appliance/job"
)

// Bounds of what is told of barred peers: peers of a report, events about one, peers whom one program accuses while the
// appliance runs, and all together.
const (
	maxLiars       = 64
	liarEvents     = 3
	maxAccusations = 256
	maxAccused     = 10000
	maxBarred      = 16  // sentences about the machine of one job
	maxLiarDetail  = 100 // bytes of what a report says
)

// accused is a peer that others barred.
type accused struct {
	by []string // who barred it, by session ID
}

// accuse makes events of peers that a program barred for what they sent, named by their certificates: that a peer lied is
// what another says of it, and more than one is heard.
func (f *Fleet) accuse(ctx context.Context, c Caller, name, image string, list []job.Liar) {
	for _, l := range list[:min(len(list), maxLiars)] {
		e, fresh := f.accusation(c, name, image, l)
		if !fresh {
			continue
		}
		if err := f.change(ctx, func(d *draft) error { d.event(e); return nil }); err != nil {
			f.log.Error("event about a barred peer not recorded", "err", err)
		}
	}
}

// accusation returns the event about a barred peer, and whether it was not told yet. The names are what the accuser says.
func (f *Fleet) accusation(c Caller, name, image string, l job.Liar) (e Event, fresh bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	liar, key := l.Peer.Addr().Unmap().String(), ""
	for _, n := range l.Names {
		if id, ok := strings.CutPrefix(n, job.URIMachine); ok && f.state.machines[id] != nil {
			e.Machine, liar, key = id, f.state.machines[id].Name, id
		}
		if id, ok := strings.CutPrefix(n, job.URIJob); ok && f.state.jobs[id] != nil {
			e.Job, e.Deployment = id, f.state.jobs[id].Deployment
		}
		if id, ok := strings.CutPrefix(n, job.URIGuest); ok {
			if s := f.state.sessions[id]; s != nil && s.Guest != nil {
				liar, key = s.Guest.Name, id
			}
		}
	}
	if key == "" {
		key = liar
	}
	a := f.accused[key+" "+image]
	if a == nil && len(f.accused) >= maxAccused || a != nil && (len(a.by) >= liarEvents || slices.Contains(a.by, c.session.ID)) {
		return e, false
	}
	if f.accusers[c.session.ID] >= maxAccusations { // or one could accuse so many that no other is heard
		return e, false
	}
	f.accusers[c.session.ID]++
	what := strings.ToValidUTF8(l.What[:min(len(l.What), maxLiarDetail)], "")
	e.Kind = "swarm.barred"
	e.Text = fmt.Sprintf("%s (%s) %s of %s to %s, which takes nothing from it any more; nothing wrong was written. "+
		"Test its memory, disk and cables, and look who has access to it", liar, l.Peer, what, image, name)
	if a == nil {
		a = &accused{}
		f.accused[key+" "+image] = a
		f.bar(e.Job, e.Text)
	}
	a.by = append(a.by, c.session.ID)
	return e, true
}

// accusations returns what is said against the machine of a job. The caller holds mu, and keeps the list as it is.
func (f *Fleet) accusations(id string) []string { return f.barred[id] }

// bar keeps what is said against the machine of a job, which may be none. The caller holds mu.
func (f *Fleet) bar(job, said string) {
	list := f.barred[job]
	if job == "" || len(list) >= maxBarred {
		return
	}
	list = append(slices.Clone(list), said) // views have the list before
	slices.Sort(list)
	f.barred[job] = list
}
