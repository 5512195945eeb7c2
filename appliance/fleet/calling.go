package fleet

import (
	"context"
	"fmt"
	"strings"
	"time"

	"seedbed/appliance/job"
	"seedbed/appliance/queue"
)

// How machines are woken whose turn it is. A machine keeps its place for calledFor, in which servers too come from the packet to
// their agent; after that it is woken again, maxCalls times in all. callsAtOnce of them are woken in one second: a room that is
// switched on at one moment trips its fuse.
const (
	calledFor   = 5 * time.Minute
	maxCalls    = 3
	callsAtOnce = 20
)

// callGap is for how long a machine is not woken after anything was heard of it: it is on, or shuts down and would miss the packet.
const callGap = 30 * time.Second

// maxUncalled bounds the reason why a machine was not called, in bytes.
const maxUncalled = 300

// callable tells the queue how it stands with waking the machine of a job that is not there; m may be nil. The caller holds mu.
func (f *Fleet) callable(q *queue.Job, j *Job, m *Machine, now time.Time) {
	dep := f.state.deployments[j.Deployment]
	if dep == nil || !dep.Wake || m == nil || m.Boot != nil && m.Boot.To == BootLocal { // which would boot its own disk
		return
	}
	q.Wake, q.Calls, q.MostCalls, q.CalledAt, q.Uncalled = true, j.Calls, maxCalls, j.Called, j.Uncalled
	if j.calledNow(now) {
		q.Until = j.Called.Add(calledFor)
		if j.Uncalled == "" {
			q.State = queue.Called
		}
	}
}

// calledNow reports whether the last call of a job's machine is not over. A clock that was set back ends no call for ever.
func (j *Job) calledNow(now time.Time) bool {
	since := now.Sub(j.Called)
	return j.Calls > 0 && since < calledFor && since > -calledFor
}

// uncall forgets that the machine of a job was woken: it is there, or is to be woken anew.
func (j *Job) uncall() { j.Calls, j.Called, j.Uncalled, j.Unanswered = 0, time.Time{}, "", false }

// stirs reports whether a machine is on, or on its way to its agent. The caller holds mu.
func (f *Fleet) stirs(id string, now time.Time) bool {
	if f.isAsking(id) || now.Sub(f.seen[id]) < callGap {
		return true
	}
	m := f.state.machines[id]
	if m == nil {
		return false
	}
	for _, mac := range m.MACs {
		if t, ok := f.sights[mac]; ok && !t.over && now.Sub(t.last) < recent {
			return true
		}
	}
	return false
}

// onItsWay reports whether a machine was seen in a boot since its job called it. The caller holds mu.
func (f *Fleet) onItsWay(j *Job) bool {
	m := f.state.machines[j.Machine]
	if m == nil || j.Calls == 0 {
		return false
	}
	for _, mac := range m.MACs {
		if t, ok := f.sights[mac]; ok && t.last.After(j.Called) && t.stage != "local" {
			return true
		}
	}
	return false
}

// tidyCalls wakes the machines whose turn it is, and says which did not answer for good.
func (f *Fleet) tidyCalls(ctx context.Context, now time.Time) error {
	due, silent := f.dueCalls(now)
	if len(due)+len(silent) == 0 {
		return nil
	}
	var called []*Job
	done, err := f.scheduled(ctx, func(d *draft) error {
		called = d.call(due, now)
		for _, id := range silent {
			if j := d.job(id); j != nil && j.unanswered(now) {
				d.giveUp(d.editJob(j))
			}
		}
		return nil
	})
	if err != nil || !done { // what was not written is not done: the other appliance does it, or this one later
		return err
	}
	return f.wakeCalled(ctx, called)
}

// dueCalls returns the jobs whose machines are to be woken now, and those whose machines did not answer for good, by ID.
func (f *Fleet) dueCalls(now time.Time) (due, silent []string) {
	if !f.mayCall() {
		return nil, nil
	}
	turns, _ := f.decide()
	f.mu.RLock()
	defer f.mu.RUnlock()
	for _, id := range turns.Call {
		if len(due) == callsAtOnce {
			break
		}
		if j := f.open[id]; j != nil && !f.stirs(j.Machine, now) {
			due = append(due, id)
		}
	}
	for id, j := range f.open {
		if j.unanswered(now) && !f.stirs(j.Machine, now) {
			silent = append(silent, id)
		}
	}
	return due, silent
}

// mayCall reports whether there is any machine to be woken.
func (f *Fleet) mayCall() bool {
	f.mu.RLock()
	defer f.mu.RUnlock()
	for _, j := range f.open {
		if dep := f.state.deployments[j.Deployment]; dep != nil && dep.Wake && j.State == job.Waiting && !j.Unanswered {
			return true
		}
	}
	return false
}

// unanswered reports whether it is to be said of a job that its machine is woken no more.
func (j *Job) unanswered(now time.Time) bool {
	return j.State == job.Waiting && !j.HeldByOperator && j.Calls >= maxCalls && !j.calledNow(now) && !j.Unanswered
}

// call notes that machines are woken, as far as there are places, and returns their jobs.
func (d *draft) call(ids []string, now time.Time) (called []*Job) {
	if len(ids) == 0 {
		return nil
	}
	room := d.places(func(j *Job) bool { return j.atWork() || j.State == job.Waiting && j.Uncalled == "" && j.calledNow(now) })
	for _, id := range ids {
		j := d.job(id)
		if j == nil || j.State != job.Waiting || j.Calls >= maxCalls || j.calledNow(now) || !d.isTurn(j) { // not as it was decided by
			continue
		}
		dep, m := d.deployment(j.Deployment), d.machine(j.Machine)
		if dep == nil || !dep.Wake || !room.free(m) {
			continue
		}
		room.take(m)
		own := d.editJob(j)
		own.Calls, own.Called, own.Uncalled = j.Calls+1, now.UTC(), ""
		text := m.Name + " is woken over the network for job " + j.ID
		if own.Calls > 1 {
			text += fmt.Sprintf(", for the %s time", ordinal(own.Calls))
		}
		d.event(Event{Kind: "job.called", Machine: m.ID, Job: j.ID, Deployment: j.Deployment, Text: text})
		called = append(called, own)
	}
	return called
}

// giveUp says that the machine of a job is woken no more. The job stays: a machine that is switched on by hand gets it.
func (d *draft) giveUp(own *Job) {
	own.Unanswered = true
	name := own.Machine
	if m := d.machine(own.Machine); m != nil {
		name = m.Name
	}
	text := fmt.Sprintf("%s was woken %d times for job %s and did not answer; switch it on, and look for wake-on-LAN in its firmware", name, own.Calls, own.ID)
	if own.Uncalled != "" {
		text = fmt.Sprintf("%s could not be woken for job %s: %s", name, own.ID, own.Uncalled)
	}
	d.event(Event{Kind: "job.no-answer", Machine: own.Machine, Job: own.ID, Deployment: own.Deployment, Text: text})
}

func ordinal(n int) string {
	switch n {
	case 2:
		return "second"
	case 3:
		return "third"
	}
	return fmt.Sprintf("%dth", n)
}

// wakeCalled sends the packets, and notes where none left.
func (f *Fleet) wakeCalled(ctx context.Context, called []*Job) error {
	failed := map[string]string{}
	for _, j := range called {
		f.mu.RLock()
		m := f.state.machines[j.Machine]
		f.mu.RUnlock()
		if m == nil {
			continue
		}
		if _, err := f.wakeMachine(m); err != nil {
			text := err.Error()
			failed[j.ID] = strings.ToValidUTF8(text[:min(len(text), maxUncalled)], "")
		}
	}
	if len(failed) == 0 {
		return nil
	}
	return f.schedule(ctx, func(d *draft) error {
		for _, before := range called {
			j := d.job(before.ID)
			if j == nil || failed[j.ID] == "" || j.State != job.Waiting || !j.Called.Equal(before.Called) {
				continue
			}
			d.editJob(j).Uncalled = failed[j.ID]
			d.event(Event{Kind: "job.uncalled", Machine: j.Machine, Job: j.ID, Deployment: j.Deployment, Text: failed[j.ID]})
		}
		return nil
	})
}
