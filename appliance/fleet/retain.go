package fleet

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"time"

	"seedbed/appliance/job"
)

// How long what happened is kept, in days.
const (
	// LeastKept is the least that may be set: what is younger is shown in lists.
	LeastKept   = 30
	KeepForever = -1
	defaultKeep = 365
	mostKept    = 100 * 365
)

// wrongBy is how far ahead the time of a boot is that a wrong clock wrote.
const wrongBy = 24 * time.Hour

// In one transaction so many events, or jobs, are deleted at most: machines at work write theirs between.
const (
	eventsAtOnce = 1000
	jobsAtOnce   = 200
)

// checkKept says what is wrong with how long things are kept.
func (s *Settings) checkKept(w *wrongs) {
	for field, days := range map[string]int{"keep_events_days": s.KeepEvents, "keep_jobs_days": s.KeepJobs} {
		w.unless(days == KeepForever || days >= LeastKept && days <= mostKept, field,
			"events and jobs are kept %d to %d days, or %d, which is for ever; not %d", LeastKept, mostKept, KeepForever, days)
	}
}

// since is from when on things are kept that are kept so many days; forever says that it has no beginning.
func since(now time.Time, days int) (t time.Time, forever bool) {
	return now.Add(-time.Duration(days) * 24 * time.Hour), days == KeepForever
}

// retained counts what a look for old records deleted.
type retained struct {
	events, jobs, deployments int
}

// retain deletes events, boots and jobs that were kept long enough, in small transactions, and says in an event how many. It does nothing
// where another appliance schedules the site.
func (f *Fleet) retain(ctx context.Context) error {
	if !f.InOffice() {
		return nil
	}
	var gone retained
	s, now := f.Settings(), f.now()
	newest, err := f.config.Records.Events(ctx, EventQuery{Before: math.MaxInt64, Limit: 1})
	if err != nil {
		return err
	}
	if len(newest) > 0 && now.Sub(newest[0].At) > LeastKept*24*time.Hour { // a clock that is wrong would delete what is young
		f.log.Warn("nothing is deleted: the newest event is older than 30 days; is the clock right?", "newest", newest[0].At, "now", now)
		return nil
	}
	if from, forever := since(now, s.KeepJobs); !forever {
		if err := f.retainJobs(ctx, from, &gone); err != nil {
			return err
		}
	}
	from, forever := since(now, s.KeepEvents)
	if !forever {
		if err := f.retainEvents(ctx, from, &gone); err != nil {
			return err
		}
	} else {
		from = time.Time{}
	}
	ahead := now.Add(wrongBy) // of those that a clock saw which was wrong five would keep all others out
	if len(newest) > 0 && newest[0].At.After(now) {
		ahead = time.Time{} // it is this clock that is wrong
	}
	if err := f.retainBoots(ctx, from, ahead); err != nil {
		return err
	}
	if gone == (retained{}) {
		return nil
	}
	return f.schedule(ctx, func(d *draft) error {
		d.event(Event{Kind: "records.deleted", Text: fmt.Sprintf("%d events, %d jobs and %d deployments were deleted, since they were kept as long as the settings say",
			gone.events, gone.jobs, gone.deployments)})
		return nil
	})
}

// retainEvents deletes the events from before a time. Their order is that of their IDs.
func (f *Fleet) retainEvents(ctx context.Context, before time.Time, gone *retained) error {
	for {
		list, err := f.config.Records.Events(ctx, EventQuery{Limit: eventsAtOnce})
		if err != nil {
			return err
		}
		n := slices.IndexFunc(list, func(e Event) bool { return !e.At.Before(before) })
		if n < 0 {
			n = len(list)
		}
		if n == 0 {
			return nil
		}
		done, err := f.scheduled(ctx, func(d *draft) error {
			d.facts.forget.Events = list[n-1].ID
			return nil
		})
		if err != nil || !done {
			return err
		}
		gone.events += n
	}
}

// retainJobs deletes the jobs that ended before a time, with their receipts and old tables, and deployments of which nothing is left.
func (f *Fleet) retainJobs(ctx context.Context, before time.Time, gone *retained) error {
	for q := (JobQuery{Before: before, Limit: jobsAtOnce}); ; {
		list, err := f.config.Records.Jobs(ctx, q)
		if err != nil {
			return err
		}
		if len(list) == 0 {
			break
		}
		last := list[len(list)-1]
		q.Before, q.Behind = last.Ended, last.ID
		var old int
		done, err := f.scheduled(ctx, func(d *draft) error {
			old = d.forgetJobs(list)
			return nil
		})
		if err != nil || !done {
			return err
		}
		gone.jobs += old
	}
	return f.retainDeployments(ctx, before, gone)
}

// forgetJobs deletes those of a list of ended jobs that nothing needs, and returns how many they are.
func (d *draft) forgetJobs(list []*Job) (n int) {
	needed := map[string]bool{}
	for _, m := range every(d, KindMachine, d.f.state.machines) {
		if m.Deployed != nil { // the receipt of what its disk holds
			needed[m.Deployed.Job] = true
		}
		if m.Clean != nil {
			needed[m.Clean.Job] = true
		}
	}
	for _, j := range list {
		dep := d.deployment(j.Deployment)
		if needed[j.ID] || dep != nil && dep.All && !dep.Closed { // its jobs say which machines had it
			continue
		}
		d.facts.forget.Jobs = append(d.facts.forget.Jobs, j.ID)
		n++
		m := d.machine(j.Machine)
		if m == nil {
			continue
		}
		if i := slices.IndexFunc(m.Saved, func(s Saved) bool { return s.Job == j.ID }); i >= 0 {
			d.editMachine(m).Saved = slices.Delete(slices.Clone(m.Saved), i, i+1)
		}
	}
	return n
}

// retainDeployments deletes deployments from before a time that have no job any more.
func (f *Fleet) retainDeployments(ctx context.Context, before time.Time, gone *retained) error {
	for _, dep := range f.Deployments() {
		if !dep.Created.Before(before) || dep.All && !dep.Closed {
			continue
		}
		left, err := f.config.Records.Jobs(ctx, JobQuery{Deployment: dep.ID, Limit: 1})
		if err != nil {
			return err
		}
		if len(left) > 0 {
			continue
		}
		done, err := f.scheduled(ctx, func(d *draft) error {
			if have := d.deployment(dep.ID); have != nil && !slices.ContainsFunc(d.jobs(), func(j *Job) bool { return j.Deployment == dep.ID }) {
				d.remove(have.Ref())
			}
			return nil
		})
		if err != nil || !done {
			return err
		}
		gone.deployments++
	}
	return nil
}

// ReceiptOf returns the receipt of a job with both signatures, nil where the job has none: it did not succeed, or wrote nothing.
func (f *Fleet) ReceiptOf(ctx context.Context, id string) (*Receipt, error) {
	return f.config.Records.Receipt(ctx, id)
}

// Decode returns what the receipt says.
func (r *Receipt) Decode() (*job.Receipt, error) {
	says := new(job.Receipt)
	if err := json.Unmarshal(r.Receipt, says); err != nil {
		return nil, fmt.Errorf("read the receipt of job %s: %w", r.Job, err)
	}
	return says, nil
}
