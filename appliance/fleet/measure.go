package fleet

import (
	"math"

	"seedbed/appliance/job"
	"seedbed/appliance/queue"
)

// Measures are counts for those who watch the site. Every state, kind and code that there is has an entry, also where it counts
// nothing.
type Measures struct {
	// Machines are counted by state: "unadmitted", "idle" where one never had a job, else the state of its oldest job that has
	// not ended or of its latest one.
	Machines map[string]int
	// Jobs are those that have not ended, and those that ended in the last 30 days.
	Jobs map[JobKind]int
	// Waits counts the jobs that wait by the code of what they wait for, see package queue.
	Waits map[string]int
	// Agents ask for a job now.
	Agents int
	// Office says that this appliance schedules the site, in Epoch; Appliances are those of the site that are there.
	Office     bool
	Epoch      int64
	Appliances int
	// Boots are the boots of agents and the guests that are known, Tokens those of get and seed.
	Boots, Tokens int
	Traffic       Traffic
}

// JobKind is what jobs are counted by.
type JobKind struct {
	Kind  job.Kind
	State job.State
}

// Traffic is what agents told this appliance since it started, in bytes: content received from appliances and from other
// machines, from seed nodes, sent to other machines, written to disks, sent for captures; tiles that came from others and were
// compared with their hashes, and those that were other than these. It only grows.
type Traffic struct {
	FromAppliance, FromPeers, FromSeeds, ToPeers, Written, Captured int64
	Tiles, WrongTiles                                               int64
}

// add counts what a report says beyond the one before it of the same claim. A machine that began anew counts from 0.
func (t *Traffic) add(before, r job.Report) {
	for _, c := range []struct {
		sum       *int64
		old, told int64
	}{
		{&t.FromAppliance, before.FromAppliance, r.FromAppliance}, {&t.FromPeers, before.FromPeers, r.FromPeers},
		{&t.ToPeers, before.ToPeers, r.ToPeers}, {&t.Written, before.Written, r.Written}, {&t.Captured, before.Sent, r.Sent},
		{&t.FromSeeds, before.FromSeeds, r.FromSeeds}, {&t.Tiles, before.Tiles, r.Tiles}, {&t.WrongTiles, before.WrongTiles, r.WrongTiles},
	} {
		if c.told < c.old {
			c.old = 0
		}
		*c.sum += min(max(0, c.told-c.old), math.MaxInt64-*c.sum)
	}
}

// What machines and jobs are counted by.
var (
	machineStates = []string{"unadmitted", "idle"}
	jobStates     = []job.State{job.Waiting, job.Claimed, job.Running, job.Paused, job.Succeeded, job.Failed, job.Cancelled}
	jobKinds      = []job.Kind{job.Deploy, job.Capture, job.VerifyDisk, job.RepairDisk, job.WipeDisk, job.InventoryOf}
	waitCodes     = []string{queue.WaitsMachine, queue.WaitsTime, queue.WaitsWindow, queue.WaitsPreload, queue.WaitsTurn, queue.WaitsSite,
		queue.WaitsGroup, queue.WaitsUplink, queue.WaitsPerson, queue.WaitsAdmit, queue.WaitsCalled, queue.WaitsSilent}
)

// Measures counts what is there now. It takes time by the number of machines and jobs.
func (f *Fleet) Measures() Measures {
	m := Measures{Machines: map[string]int{}, Jobs: map[JobKind]int{}, Waits: map[string]int{}}
	for _, s := range machineStates {
		m.Machines[s] = 0
	}
	for _, s := range jobStates {
		m.Machines[string(s)] = 0
		for _, k := range jobKinds {
			m.Jobs[JobKind{k, s}] = 0
		}
	}
	for _, c := range waitCodes {
		m.Waits[c] = 0
	}
	turns, _ := f.decide()
	f.mu.RLock()
	defer f.mu.RUnlock()
	shown := f.measureJobs(&m, turns)
	for _, one := range f.state.machines {
		if one.MergedInto == "" {
			m.Machines[stateOf(one, shown[one.ID])]++
		}
	}
	m.Agents, m.Traffic = len(f.claims), f.traffic
	m.Boots, m.Tokens = len(f.state.sessions), len(f.state.tokens)
	m.Office, m.Epoch = f.InOffice(), f.office.Load().Epoch
	for _, a := range f.appliances() {
		if a.Present {
			m.Appliances++
		}
	}
	return m
}

// measureJobs counts the jobs and returns the one of each machine that tells its state. The caller holds mu.
func (f *Fleet) measureJobs(m *Measures, turns *turns) map[string]*Job {
	shown := make(map[string]*Job, len(f.state.machines))
	for _, j := range f.state.jobs {
		m.Jobs[JobKind{j.Kind, j.State}]++
		if other := shown[j.Machine]; other == nil || before(j, other) {
			shown[j.Machine] = j
		}
		if w, waits := turns.Waits[j.ID]; waits && j.State == job.Waiting {
			m.Waits[w.Code]++
		}
	}
	return shown
}

// stateOf is the state by which a machine is counted; j is the job that tells it, or nil.
func stateOf(m *Machine, j *Job) string {
	switch {
	case !m.Admitted:
		return machineStates[0]
	case j == nil:
		return machineStates[1]
	}
	return string(j.State)
}
