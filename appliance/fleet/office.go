package fleet

import (
	"context"
	"encoding/json"
	"errors"
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
	for {
		if err := f.attendOffice(ctx, &w); err != nil && ctx.Err() == nil {
			f.log.Warn("who schedules the site cannot be read", "err", err)
		}
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
	return nil
}

// schedule asks for a change that only the site's scheduler may make.
func (f *Fleet) schedule(ctx context.Context, fn func(d *draft) error) error {
	err := f.change(ctx, func(d *draft) error {
		d.office = true
		return fn(d)
	})
	if errors.Is(err, ErrFenced) {
		f.office.Store(&Office{}) // it looks who does
		return nil
	}
	return err
}

// attendEvery is how often the appliances of a site tell each other how far their machines are.
const attendEvery = 5 * time.Second

// told is what an appliance tells of the jobs whose machines report to it.
type told struct {
	Reports int64      `json:"n"` // received so far
	Report  job.Report `json:"report"`
}

// attend tells the other appliances how far the machines are that report here, and takes over what they tell, until ctx
// is done.
func (f *Fleet) attend(ctx context.Context) error {
	tick := time.NewTicker(attendEvery)
	defer tick.Stop()
	for {
		if err := f.exchange(ctx); err != nil && ctx.Err() == nil {
			f.log.Warn("what the appliances of the site tell each other was lost", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (f *Fleet) exchange(ctx context.Context) error {
	own := map[string]told{}
	f.mu.Lock()
	f.beat++
	beat := f.beat
	for id := range f.open {
		if l := f.live[id]; l.reports > 0 && f.now().Sub(l.at) < f.config.ClaimExpires {
			r := l.report
			r.Log = ""
			own[id] = told{l.reports, r}
		}
	}
	f.mu.Unlock()
	doc, err := json.Marshal(own)
	if err != nil {
		return err
	}
	if err := f.config.Records.Attend(ctx, Presence{Appliance: f.config.ID, Beat: beat, Doc: doc}); err != nil {
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

// hear takes over what another appliance tells.
func (f *Fleet) hear(p Presence) error {
	var tells map[string]told
	if err := json.Unmarshal(p.Doc, &tells); err != nil {
		return err
	}
	if f.lacksAny(tells) { // jobs that were claimed just now
		f.refresh()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.peers[p.Appliance]
	if n == nil {
		n = &neighbour{reports: map[string]int64{}}
		f.peers[p.Appliance] = n
	}
	if p.Beat == n.beat {
		return nil
	}
	now := f.now()
	n.beat, n.at = p.Beat, now
	for id, t := range tells {
		if f.open[id] == nil || t.Reports == n.reports[id] {
			continue
		}
		n.reports[id] = t.Reports
		f.live[id] = live{report: t.Report, at: now}
		f.seen[f.open[id].Machine] = now
	}
	for id := range n.reports {
		if _, ok := tells[id]; !ok {
			delete(n.reports, id)
		}
	}
	return nil
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
