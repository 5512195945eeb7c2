package monitor

import (
	"slices"
	"time"

	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
)

// place finds out which machines are compared with each other: those of a room, else of a line.
func (l *look) place(list []fleet.MachineView, groups []fleet.GroupView) {
	kinds := make(map[string]fleet.GroupKind, len(groups))
	for _, g := range groups {
		kinds[g.ID] = g.Kind
	}
	l.machines, l.siblings = make(map[string]*fleet.MachineView, len(list)), make(map[string]string, len(list))
	links := map[string][]int{}
	for i := range list {
		m := &list[i]
		l.machines[m.ID] = m
		for _, g := range m.Groups {
			if kinds[g] == fleet.Room || kinds[g] == fleet.Line && l.siblings[m.ID] == "" {
				l.siblings[m.ID] = g
			}
		}
		if at, mbit := l.siblings[m.ID], linkOf(m); at != "" && mbit > 0 {
			links[at] = append(links[at], mbit)
		}
	}
	for i := range l.jobs { // machines that have no room are compared with those of their deployment
		v := &l.jobs[i]
		at := l.among(v)
		if l.peers[at] == nil {
			l.peers[at] = &peers{}
		}
		if m := l.machines[v.Machine]; m != nil && at != "" && at == v.Deployment {
			if mbit := linkOf(m); mbit > 0 {
				links[at] = append(links[at], mbit)
			}
		}
	}
	for at, list := range links {
		if l.peers[at] == nil {
			l.peers[at] = &peers{}
		}
		l.peers[at].link = median(list)
	}
}

// fewest are the machines that it takes for a median to say something.
const fewest = 3

// compare measures all jobs, and what each machine is compared with.
func (l *look) compare() {
	l.made = make([]*Progress, len(l.jobs))
	for i := range l.jobs {
		p := l.measure(i)
		l.made[i] = p
		if v := &l.jobs[i]; v.Deployment != "" && v.State == job.Running && v.Phase == job.PhaseContent || v.Phase == job.PhaseSeed && p.Peers > 0 {
			l.swarming[v.Deployment]++
		}
		l.fromAppliance += p.FromAppliance
	}
	for _, p := range l.peers {
		if len(p.judged) >= fewest {
			p.median = median(p.judged)
		}
		if n := len(p.busy); n > 1 {
			slices.Sort(p.busy)
			p.cpu = p.busy[(n-1)/2] // of two the other one, where one of them is busier
		}
	}
	for id, list := range l.reads {
		l.t.reads[id] = median(list)
	}
}

// show gives each machine of the site its progress.
func (l *look) show(list []fleet.MachineView, before *Picture) {
	byID := make(map[string]*Progress, len(l.made))
	for _, p := range l.made {
		byID[p.Job] = p
	}
	for i := range list {
		m := &list[i]
		p := byID[m.JobID]
		if p == nil {
			p = &Progress{Word: Idle, Judged: -1, Left: -1, LinkMbit: linkOf(m)}
		}
		p.Machine, p.Name = m.ID, m.Name
		p.Since = l.since(p, before.Machines[m.ID])
		if old := before.Machines[m.ID]; old != nil && *old == *p {
			p = old
		}
		l.picture.Machines[m.ID] = p
	}
}

// since is when a machine got its word.
func (l *look) since(p, old *Progress) time.Time {
	if old != nil && old.Word == p.Word && old.Job == p.Job {
		return old.Since
	}
	if v := l.views[p.Job]; v != nil {
		switch {
		case v.State.Ended() && !v.Ended.IsZero():
			return v.Ended
		case v.State == job.Waiting && p.Word == Waiting && old == nil:
			return v.Created
		}
	}
	return l.now
}

// deployments adds up those that have a job that has not ended, or ended since the tracker began.
func (l *look) deployments(before *Picture) {
	sums, live, begun := map[string]*course{}, map[string]bool{}, map[string]bool{}
	for i := range l.jobs {
		v, p := &l.jobs[i], l.made[i]
		if v.Deployment == "" || v.RetriedBy != "" {
			continue
		}
		c := sums[v.Deployment]
		if c == nil {
			c = newCourse(v.Deployment)
			sums[v.Deployment] = c
		}
		c.add(l.now, p)
		if !v.State.Ended() || v.Ended.After(l.t.began) {
			live[v.Deployment] = true
		}
		if p.atWork() {
			begun[v.Deployment] = true
		}
	}
	series := make(map[string][]Sample, len(live))
	for id := range live {
		c := sums[id].course()
		if s := l.t.series[id]; begun[id] {
			series[id] = extend(s, sums[id].sample(l.now))
		} else if s != nil {
			series[id] = s
		}
		c.Series = series[id]
		if old := before.Deployments[id]; c.same(old) {
			c = old
		}
		l.picture.Deployments[id] = c
	}
	for id := range l.t.reads {
		if !live[id] {
			delete(l.t.reads, id)
		}
	}
	l.t.series = series
}

// groups adds up the machines of each group.
func (l *look) groups(list []fleet.MachineView, groups []fleet.GroupView, before *Picture) {
	sums := make(map[string]*course, len(groups))
	for _, g := range groups {
		sums[g.ID] = newCourse(g.ID)
	}
	for i := range list {
		for _, g := range list[i].Groups {
			if c := sums[g]; c != nil {
				c.add(l.now, l.picture.Machines[list[i].ID])
			}
		}
	}
	for id, sum := range sums {
		c := sum.course()
		if old := before.Groups[id]; c.same(old) {
			c = old
		}
		l.picture.Groups[id] = c
	}
}
