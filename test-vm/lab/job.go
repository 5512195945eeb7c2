package lab

import (
	"context"
	"fmt"
	"strings"
	"time"

	"seedbed/appliance/api"
	"seedbed/appliance/job"
)

// Job returns the machine's latest job, nil if it has none yet.
func (a *Appliance) Job(ctx context.Context, m *Machine) (*api.Job, error) {
	jobs, err := a.Jobs(ctx)
	if err != nil {
		return nil, err
	}
	var found *api.Job
	for i := range jobs {
		if strings.EqualFold(jobs[i].MAC, m.MAC.String()) {
			found = &jobs[i]
		}
	}
	return found, nil
}

// WaitJob polls until the machine's job is as ok wants it, and returns it. A job that failed or was cancelled, where ok
// does not want that, is an error. While the appliance is away it goes on asking.
func (a *Appliance) WaitJob(ctx context.Context, m *Machine, ok func(*api.Job) bool) (*api.Job, error) {
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for {
		j, err := a.Job(ctx, m)
		if err == nil && j != nil {
			if ok(j) {
				return j, nil
			}
			if j.State == job.Failed || j.State == job.Cancelled {
				return j, fmt.Errorf("machine %s: job %s: %s", m.Config.Name, j.State, j.Reason)
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			if j == nil {
				return nil, fmt.Errorf("machine %s: no job: %w (%v)", m.Config.Name, ctx.Err(), err)
			}
			return j, fmt.Errorf("machine %s: job %s in phase %s, %d of %d bytes: %w", m.Config.Name, j.State, j.Phase, j.Held, j.Total, ctx.Err())
		}
	}
}
