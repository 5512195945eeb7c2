package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/netip"
	"time"

	"seedbed/appliance/job"
)

// An appliance that schedules says so every officeBeat; where its beat stands still for officeVacant, by the clock of the
// one that looks, another takes over. No two clocks are compared.
const (
	officeBeat   = 3 * time.Second
	officeVacant = 12 * time.Second
)

// InOffice reports whether this appliance schedules the site, as far as it knows: what it decides is refused by the
// records if another one does.
func (f *Fleet) InOffice() bool {
	o := f.office.Load()
	return o.Holder == f.config.ID && o.Epoch > 0
}

// watch is what an appliance that is not in office saw of the one that is.
type watch struct {
	seen  Office
	since time.Time
}

// keepOffice holds the office, or waits for it to be vacant, until ctx is done.
func (f *Fleet) keepOffice(ctx context.Context) error {
	tick := time.NewTicker(officeBeat)
	defer tick.Stop()
	var w watch
	var o outage
	for {
		o.note(ctx, f.log, slog.LevelWarn, "who schedules the site cannot be read", "who schedules the site can be read again", f.attendOffice(ctx, &w))
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (f *Fleet) attendOffice(ctx context.Context, w *watch) error {
	lost := f.InOffice()
	if lost {
		err := f.config.Records.Beat(ctx, f.config.ID, f.office.Load().Epoch)
		if !errors.Is(err, ErrFenced) {
			return err
		}
		f.log.Warn("another appliance schedules the site now")
	}
	seen, err := f.config.Records.Office(ctx)
	if err != nil {
		return err
	}
	f.office.Store(&seen)
	switch now := f.now(); {
	case seen.Holder == "" || seen.Holder == f.config.ID: // its own, of before it was started again
	case seen != w.seen:
		w.seen, w.since = seen, now
		return nil
	case now.Sub(w.since) < officeVacant:
		return nil
	}
	if lost && seen.Holder == f.config.ID {
		f.log.Error("another appliance of the site has this one's ID, and both take the schedule from each other; "+
			"stop one, remove the file appliance-id from its data directory and start it again", "appliance", f.config.ID)
	}
	taken, err := f.config.Records.Seize(ctx, f.config.ID, seen)
	if errors.Is(err, ErrFenced) {
		return nil // another was faster
	}
	if err != nil {
		return err
	}
	f.mu.Lock()
	for id := range f.open { // who reported to the one before has the full time to report again
		l := f.live[id]
		l.at = f.now()
		f.live[id] = l
	}
	f.mu.Unlock()
	f.office.Store(&taken)
	f.log.Info("this appliance schedules the site", "epoch", taken.Epoch, "before", seen.Holder)
	if seen.Holder == "" || seen.Holder == f.config.ID {
		return nil
	}
	return f.schedule(ctx, func(d *draft) error {
		d.event(Event{Kind: "appliance.office", Text: "appliance " + d.applianceName(f.config.ID) + " schedules the site, since nothing was heard of appliance " +
			d.applianceName(seen.Holder) + "; if that was not stopped on purpose, look after it"})
		return nil
	})
}

// applianceName is how people know an appliance of the site.
func (d *draft) applianceName(id string) string {
	if a := lookup[*Appliance](d, KindAppliance, id); a != nil {
		return a.Name + " (" + a.URL + ")"
	}
	return id
}

// schedule asks for a change that only the site's scheduler may make.
func (f *Fleet) schedule(ctx context.Context, fn func(d *draft) error) error {
	_, err := f.scheduled(ctx, fn)
	return err
}

// scheduled is schedule for those who do something after it, which is theirs to do only where the change was made.
func (f *Fleet) scheduled(ctx context.Context, fn func(d *draft) error) (done bool, err error) {
	err = f.change(ctx, func(d *draft) error {
		d.office = true
		return fn(d)
	})
	if errors.Is(err, ErrFenced) {
		f.office.Store(&Office{}) // it looks who does
		return false, nil
	}
	return err == nil, err
}

// attendEvery is how often the appliances of a site tell each other how far their machines are.
const attendEvery = 5 * time.Second

// telling is what an appliance tells the others.
type telling struct {
	Jobs  map[string]told     `json:"jobs"`            // whose machines report to it, by ID
	Ask   []string            `json:"ask,omitempty"`   // machines whose agents ask it for a job, by ID
	Nodes map[string]nodeTold `json:"nodes,omitempty"` // seed nodes that report to it, by ID of the guest
	Extra json.RawMessage     `json:"extra,omitempty"` // see Config.Tell
}

// told is the last report of a job.
type told struct {
	Reports int64      `json:"n"` // received so far
	Report  job.Report `json:"report"`
}

// nodeTold is the last report of a seed node. One that has not changed is left out, of all but each tellAgain-th telling: Sum names it.
type nodeTold struct {
	Addr   netip.AddrPort  `json:"addr"`
	Sum    string          `json:"sum"`
	Report *job.NodeReport `json:"report,omitempty"`
}

// A report of a seed node is told tellOften times after it changed, since an appliance reads the last telling of the others only, and
// again each minute, for appliances that came since.
const (
	tellOften = 3
	tellAgain = 12
)

// told is what the other appliances are told of the node at a beat.
func (n *node) told(beat int64) nodeTold {
	t := nodeTold{Addr: n.addr, Sum: n.sum}
	if beat-n.since < tellOften || beat%tellAgain == 0 {
		r := n.report
		t.Report = &r
	}
	return t
}

// attend tells the other appliances how far the machines are that report here, and takes over what they tell, until ctx
// is done.
func (f *Fleet) attend(ctx context.Context) error {
	var o outage
	tick := time.NewTicker(attendEvery)
	defer tick.Stop()
	for {
		o.note(ctx, f.log, slog.LevelWarn, "what the appliances of the site tell each other is lost", "the appliances of the site hear each other again", f.exchange(ctx))
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (f *Fleet) exchange(ctx context.Context) error {
	if err := f.tell(ctx); err != nil {
		return err
	}
	list, err := f.config.Records.Attendance(ctx)
	if err != nil {
		return err
	}
	for _, p := range list {
		if p.Appliance != f.config.ID {
			if err := f.hear(p); err != nil {
				f.log.Warn("what another appliance tells cannot be read", "appliance", p.Appliance, "err", err)
			}
		}
	}
	return nil
}

// tell writes how far the machines are that report here.
func (f *Fleet) tell(ctx context.Context) error {
	own := telling{Jobs: map[string]told{}, Nodes: map[string]nodeTold{}}
	if f.config.Tell != nil {
		own.Extra = f.config.Tell()
	}
	f.mu.Lock()
	f.beat++
	beat := f.beat
	for id := range f.open {
		l := f.live[id]
		if l.reports > 0 && f.now().Sub(l.at) < f.config.ClaimExpires || !f.config.Records.Shared() && l.report.Job == id { // its own next run hears it
			r := l.report
			r.Log = ""
			r.Screen = f.screenNews(f.open[id].Machine)
			own.Jobs[id] = told{l.reports, r}
		}
	}
	for id := range f.claims {
		own.Ask = append(own.Ask, id)
	}
	for id, n := range f.nodes {
		if f.now().Sub(n.here) < attendEvery+2*nodePoll {
			own.Nodes[id] = n.told(beat)
		}
	}
	f.mu.Unlock()
	doc, err := json.Marshal(own)
	if err != nil {
		return err
	}
	return f.config.Records.Attend(ctx, Presence{Appliance: f.config.ID, Beat: beat, Doc: doc})
}

// hear takes over what another appliance tells.
func (f *Fleet) hear(p Presence) error {
	var tells telling
	if err := json.Unmarshal(p.Doc, &tells); err != nil {
		return err
	}
	if f.lacksAny(tells.Jobs) { // jobs that were claimed just now
		if err := f.refresh(); err != nil {
			return err
		}
	}
	if !f.take(p, &tells) {
		return nil
	}
	if f.config.Hear != nil && len(tells.Extra) > 0 {
		f.config.Hear(tells.Extra)
	}
	return nil
}

// take takes over what another appliance tells, and reports whether it was told just now: what is found at the start may be the last
// words of one that is gone, and tells only from where its beat goes on.
func (f *Fleet) take(p Presence, tells *telling) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.peers[p.Appliance]
	if n == nil {
		f.peers[p.Appliance] = &neighbour{beat: p.Beat, reports: map[string]int64{}}
		return false
	}
	if p.Beat == n.beat {
		return false
	}
	now := f.now()
	n.beat, n.at = p.Beat, now
	for id, t := range tells.Jobs {
		if f.open[id] == nil || t.Reports == n.reports[id] {
			continue
		}
		n.reports[id] = t.Reports
		f.takeScreen(f.open[id].Machine, f.open[id].Session, t.Report.Screen)
		t.Report.Screen = nil
		f.live[id] = live{report: t.Report, at: now, back: f.backAt(f.open[id], t.Report, now)}
		f.seen[f.open[id].Machine] = now
	}
	for _, id := range tells.Ask {
		if f.state.machines[id] != nil {
			f.seen[id] = now
		}
	}
	for id := range n.reports {
		if _, ok := tells.Jobs[id]; !ok {
			delete(n.reports, id)
		}
	}
	f.takeNodes(tells.Nodes, now)
	return true
}

// takeNodes takes over what another appliance tells of seed nodes that report to it. The caller holds mu.
func (f *Fleet) takeNodes(tells map[string]nodeTold, now time.Time) {
	for id, t := range tells {
		have := f.nodes[id]
		switch {
		case have == nil:
			have = &node{id: id, first: now}
			f.nodes[id] = have
			f.wake()
		case now.Sub(have.here) < attendEvery: // it reports here now
			continue
		}
		have.addr, have.last = t.Addr, now
		if t.Report != nil {
			have.report, have.sum = *t.Report, t.Sum
		}
	}
}

// lacksAny reports whether a job is told of that is not known as open.
func (f *Fleet) lacksAny(tells map[string]told) bool {
	f.mu.RLock()
	defer f.mu.RUnlock()
	for id := range tells {
		if f.open[id] == nil {
			return true
		}
	}
	return false
}

// neighbour is another appliance of the site.
type neighbour struct {
	beat    int64
	at      time.Time // when its beat was seen to change last
	reports map[string]int64
}
