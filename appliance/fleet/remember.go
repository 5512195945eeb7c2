package fleet

import (
	"context"
	"encoding/json"
	"time"

	"seedbed/appliance/job"
)

// rememberEvery is how often an appliance that is alone writes how far its machines are. Agents count from the begin of a claim, so that
// the first report after a restart makes all good; what is written serves those that do not report any more.
const rememberEvery = 15 * time.Second

// remember writes how far the machines are until ctx is done, and once more then. Appliances of a site tell each other, see attend.
func (f *Fleet) remember(ctx context.Context) error {
	tick := time.NewTicker(rememberEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), refreshTimeout)
			defer cancel()
			if err := f.tellIfAny(last); err != nil {
				f.log.Warn("the last reports of machines at work are not kept", "err", err)
			}
			return nil
		case <-tick.C:
		}
		if err := f.tellIfAny(ctx); err != nil && ctx.Err() == nil {
			f.log.Warn("how far machines at work are is not kept", "err", err)
		}
	}
}

// tellIfAny is tell where a machine is at work.
func (f *Fleet) tellIfAny(ctx context.Context) error {
	f.mu.RLock()
	any := false
	for id := range f.open {
		any = any || f.live[id].reports > 0
	}
	f.mu.RUnlock()
	if !any {
		return nil
	}
	return f.tell(ctx)
}

// recall takes up how far machines were by the last words of this appliance's run before: since a change of the job was written last they
// may have got much. That is no news of them. The caller is New.
func (f *Fleet) recall(ctx context.Context) {
	list, err := f.config.Records.Attendance(ctx)
	if err != nil {
		f.log.Warn("how far machines were before the start cannot be read; it is known once they report", "err", err)
		return
	}
	for _, p := range list {
		if p.Appliance != f.config.ID {
			continue
		}
		var tells telling
		if err := json.Unmarshal(p.Doc, &tells); err != nil {
			f.log.Warn("what this appliance told last cannot be read", "err", err)
			continue
		}
		f.beat = max(f.beat, p.Beat) // it goes on there
		for id, t := range tells.Jobs {
			j, l := f.open[id], f.live[id]
			if r := t.Report; j != nil && r.Job == id && r.Epoch == j.Epoch && r.Phase == j.Last.Phase && r.State == j.Last.State && !less(&r, &l.report) {
				l.report = r
				f.live[id] = l
			}
		}
	}
}

// counters are what a report counts from the begin of its claim on.
func counters(r *job.Report) []*int64 {
	return []*int64{&r.Held, &r.Verified, &r.Written, &r.WriteNanos, &r.FromAppliance, &r.FromPeers, &r.FromSeeds, &r.ToPeers, &r.Tiles, &r.WrongTiles, &r.Done, &r.Sent}
}

// less reports whether a report of a claim is older than another by what it counts.
func less(r, other *job.Report) bool {
	theirs := counters(other)
	for i, n := range counters(r) {
		if *n < *theirs[i] {
			return true
		}
	}
	return false
}

// counts enters in a job's record what its machine counted since it was written last.
func (j *Job) counts(r *job.Report) {
	if r.Job != j.ID || r.Epoch != j.Epoch {
		return
	}
	more := counters(r)
	for i, n := range counters(&j.Last) {
		*n = max(*n, *more[i])
	}
	j.Last.Resumed = max(j.Last.Resumed, r.Resumed)
}
