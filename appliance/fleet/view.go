package fleet

import (
	"context"
	"slices"
	"strings"
	"time"

	"seedbed/appliance/job"
	"seedbed/appliance/queue"
	"seedbed/images"
)

// JobView is a job as people and programs see it: the record, its machine and the last report in one row. Counters are
// cumulative over the present boot of the agent, in bytes.
type JobView struct {
	ID         string        `json:"id"`
	Version    int64         `json:"version"` // of the record, which a report of every second does not change
	Kind       job.Kind      `json:"kind"`
	Deployment string        `json:"deployment"`
	Image      images.Digest `json:"image"`
	ImageName  string        `json:"image_name"`

	Machine     string `json:"machine"`
	MachineName string `json:"machine_name"`
	MAC         string `json:"mac"`
	Firmware    string `json:"firmware"`    // "bios", "uefi", "" before the inventory
	SecureBoot  string `json:"secure_boot"` // "on", "off", ""

	State  job.State `json:"state"`
	Phase  job.Phase `json:"phase"`
	Reason string    `json:"reason,omitempty"`
	Code   string    `json:"code,omitempty"`
	// Wait is what a job that waits waits for, a short fixed word of package queue; Reason says it in words. Place is where it stands
	// in the queue, from 1.
	Wait     string `json:"wait,omitempty"`
	Place    int    `json:"place,omitempty"`
	Priority int    `json:"priority"`
	// Calls is how often its machine was woken for it, Called when at last.
	Calls  int       `json:"calls,omitempty"`
	Called time.Time `json:"called,omitzero"`
	Log    string    `json:"log,omitempty"`
	Epoch  int64     `json:"epoch"` // claims so far
	// RetriedBy is the job that a person had done in its place.
	RetriedBy string `json:"retried_by,omitempty"`

	Disk          string `json:"disk,omitempty"`
	DiskSerial    string `json:"disk_serial,omitempty"`
	Total         int64  `json:"total"`
	Held          int64  `json:"held"`
	Resumed       int64  `json:"resumed"`
	Verified      int64  `json:"verified"`
	Written       int64  `json:"written"`
	WriteNanos    int64  `json:"write_nanos"`
	FromAppliance int64  `json:"from_appliance"`
	FromPeers     int64  `json:"from_peers"`
	// FromSeeds came from seed nodes; FromAppliance and FromPeers do not count them.
	FromSeeds int64 `json:"from_seeds,omitempty"`
	ToPeers   int64 `json:"to_peers"`
	// Earlier are the bytes of claims before this one; the counters above do not count them.
	Earlier    Moved   `json:"earlier,omitzero"`
	Peers      int     `json:"peers"`
	Tiles      int64   `json:"tiles,omitempty"`       // that came from others and were compared with their hashes
	WrongTiles int64   `json:"wrong_tiles,omitempty"` // of those, other than their hashes
	CPU        float64 `json:"cpu,omitempty"`         // busy share of the processors, 0 to 1; 0 is not known
	// DownloadLimit is what the machine may receive, in bytes a second; 0 is no limit.
	DownloadLimit int64 `json:"download_limit,omitempty"`

	// Options are how a deployment writes the disk. Unverified says, of a job that has succeeded, that not all of it was read back;
	// Unproven are the partitions concerned.
	Options    job.Options    `json:"options,omitzero"`
	Unverified bool           `json:"unverified,omitempty"`
	Unproven   []job.Unproven `json:"unproven,omitempty"`
	// Work is what a job is to do that belongs to no deployment; Found what a verify found or a repair has put right, Wiped what a
	// wipe did.
	Work  *Work        `json:"work,omitempty"`
	Found *job.Finding `json:"found,omitempty"`
	Wiped *job.Wiped   `json:"wiped,omitempty"`

	// Barred are sentences about machines that take nothing from this one any more, for what it sent in the swarm.
	Barred []string `json:"barred,omitempty"`

	// Of a capture; Total are then the bytes to be read.
	Done           int64         `json:"done,omitempty"`
	Sent           int64         `json:"sent,omitempty"`
	BytesPerSecond float64       `json:"bytes_per_second,omitempty"`
	Left           time.Duration `json:"left,omitempty"`
	Warnings       []string      `json:"warnings,omitempty"`

	Created  time.Time `json:"created"`
	BootSeen time.Time `json:"boot_seen,omitzero"` // first boot packet of the boot that claimed it
	HelloAt  time.Time `json:"hello_at,omitzero"`  // the agent's first word in that boot
	Claimed  time.Time `json:"claimed,omitzero"`
	Started  time.Time `json:"started,omitzero"`
	Ended    time.Time `json:"ended,omitzero"`
	// onItsWay says that its machine was seen in a boot since it was called.
	onItsWay  bool
	Succeeded time.Time `json:"succeeded,omitzero"`
	Reported  time.Time `json:"reported,omitzero"` // the last report
}

// Jobs returns the jobs in the order of their creation: those that have not ended, and those of the last 30 days.
func (f *Fleet) Jobs() []JobView {
	turns, _ := f.decide()
	f.mu.RLock()
	defer f.mu.RUnlock()
	list := make([]JobView, 0, len(f.state.jobs))
	for _, j := range f.state.jobs {
		v := f.jobView(j)
		v.waits(turns)
		list = append(list, v)
	}
	slices.SortFunc(list, func(a, b JobView) int {
		if c := a.Created.Compare(b.Created); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
	return list
}

// Job returns a job that has not ended, or did in the last 30 days.
func (f *Fleet) Job(id string) (*JobView, error) {
	turns, _ := f.decide()
	f.mu.RLock()
	defer f.mu.RUnlock()
	j := f.state.jobs[id]
	if j == nil {
		return nil, refuse(CodeJobUnknown, "no job of the last 30 days has the ID %q; `seedbed job ls` lists them", id)
	}
	v := f.jobView(j)
	v.waits(turns)
	return &v, nil
}

// waits says what the job waits for. What it came back to the queue for goes before.
func (v *JobView) waits(t *turns) {
	if v.State != job.Waiting {
		return
	}
	w, ok := t.Waits[v.ID]
	if !ok {
		return
	}
	v.Wait, v.Place = w.Code, t.Order[v.ID]
	if at, called := strings.CutSuffix(w.Text, queue.NotYet); called && v.onItsWay {
		w.Text = at + " and is on its way"
	}
	if v.Reason == "" || v.Reason == waitsForBoot {
		v.Reason = w.Text
	} else if v.Wait != queue.WaitsMachine {
		v.Reason += "; " + w.Text
	}
}

// waitsForBoot is the reason of a job that nothing happened to yet.
const waitsForBoot = "waits until the machine boots from the network"

// jobView joins what is known of a job. The caller holds mu.
func (f *Fleet) jobView(j *Job) JobView {
	v := JobView{
		ID: j.ID, Version: j.Version, Kind: j.Kind, Deployment: j.Deployment, Image: j.Image, ImageName: j.ImageName, Machine: j.Machine,
		State: j.State, Reason: j.Reason, Code: j.Code, Log: j.Log, Epoch: j.Epoch, RetriedBy: j.RetriedBy, Created: j.Created, BootSeen: j.BootSeen,
		HelloAt: j.HelloAt, Priority: j.Priority, Claimed: j.Claimed, Started: j.Started, Ended: j.Ended,
	}
	v.Options, v.Unproven, v.Unverified, v.Work, v.Wiped = j.Options, j.Unproven, len(j.Unproven) > 0, j.Work, j.Wiped
	v.Calls, v.Called, v.onItsWay = j.Calls, j.Called, f.onItsWay(j)
	if j.State == job.Succeeded {
		v.Succeeded = j.Ended
	}
	if m := f.state.machines[j.Machine]; m != nil {
		v.MachineName, v.MAC = m.Name, m.MAC()
		v.Firmware = f.firmware(m)
		if m.Inventory != nil {
			v.SecureBoot = m.Inventory.SecureBoot
		}
	}
	r := j.Last
	if l, ok := f.live[j.ID]; ok {
		r, v.Reported = l.report, l.at
	}
	v.Phase, v.Disk, v.DiskSerial = r.Phase, r.Disk, r.DiskSerial
	v.Total, v.Held, v.Resumed, v.Verified = r.Total, r.Held, r.Resumed, r.Verified
	v.Earlier = j.Earlier
	v.Written, v.WriteNanos = r.Written, r.WriteNanos
	v.FromAppliance, v.FromPeers, v.ToPeers, v.Peers = r.FromAppliance, r.FromPeers, r.ToPeers, r.Peers
	v.FromSeeds, v.Tiles, v.WrongTiles, v.CPU, v.DownloadLimit = r.FromSeeds, r.Tiles, r.WrongTiles, r.CPU, f.config.Transport.DownloadLimit
	v.Done, v.Sent, v.BytesPerSecond, v.Left, v.Warnings = r.Done, r.Sent, r.BytesPerSecond, r.Left, r.Warnings
	if v.Found = r.Found; v.Found == nil {
		v.Found = j.Last.Found // by the receipt, after which the machine reports on
	}
	v.Barred = f.accusations(j.ID)
	return v
}

// firmware is the machine's firmware as its inventory or its boot packets tell. The caller holds mu.
func (f *Fleet) firmware(m *Machine) string {
	if m.Inventory != nil {
		return m.Inventory.Firmware
	}
	return f.sights[m.MAC()].firmware
}

// MachineView is a machine as people and programs see it.
type MachineView struct {
	Machine
	MAC        string    `json:"mac"`
	Firmware   string    `json:"firmware"`
	SecureBoot string    `json:"secure_boot"`
	LastSeen   time.Time `json:"last_seen,omitzero"` // in this run of the appliance
	// BootSeen is the first packet of its present or last boot, Stage how far that boot has come: "dhcp", "loader",
	// "script", "kernel", "local", "stuck", or "agent" after a hello.
	BootSeen time.Time `json:"boot_seen,omitzero"`
	Stage    string    `json:"stage,omitempty"`
	// Screen is what the machine's own screen says, in its words; nil where no agent has told that lately.
	Screen *job.Screen `json:"screen,omitempty"`
	// State and JobID are of its oldest job that has not ended, else of its latest.
	State job.State `json:"state,omitempty"`
	JobID string    `json:"job,omitempty"`
}

// Machines returns the machines in the order in which they were seen first.
func (f *Fleet) Machines() []MachineView {
	f.mu.RLock()
	defer f.mu.RUnlock()
	shown := make(map[string]*Job, len(f.state.machines)) // by machine
	for _, j := range f.state.jobs {
		if other := shown[j.Machine]; other == nil || before(j, other) {
			shown[j.Machine] = j
		}
	}
	list := make([]MachineView, 0, len(f.state.machines))
	for _, m := range f.state.machines {
		if m.MergedInto != "" {
			continue
		}
		v := f.machineView(m)
		if j := shown[m.ID]; j != nil {
			v.State, v.JobID = j.State, j.ID
		}
		list = append(list, v)
	}
	slices.SortFunc(list, func(a, b MachineView) int {
		if c := a.FirstSeen.Compare(b.FirstSeen); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
	return list
}

// machineView is what is known of a machine beside its jobs. The caller holds mu.
func (f *Fleet) machineView(m *Machine) MachineView {
	v := MachineView{Machine: *m, MAC: m.MAC(), Firmware: f.firmware(m), LastSeen: f.seen[m.ID]}
	if m.Inventory != nil {
		v.SecureBoot = m.Inventory.SecureBoot
	}
	if t, ok := f.sights[m.MAC()]; ok {
		v.BootSeen, v.Stage = t.first, t.stage
	}
	v.Screen = f.screenOf(m)
	return v
}

// before reports whether a machine's job a is shown rather than b.
func before(a, b *Job) bool {
	switch {
	case a.State.Ended() != b.State.Ended():
		return b.State.Ended()
	case a.State.Ended():
		return b.Created.Before(a.Created)
	}
	return a.Created.Before(b.Created)
}

// Deployments returns all deployments, oldest first.
func (f *Fleet) Deployments() []Deployment {
	f.mu.RLock()
	defer f.mu.RUnlock()
	list := make([]Deployment, 0, len(f.state.deployments))
	for _, d := range f.state.deployments {
		list = append(list, *d)
	}
	slices.SortFunc(list, func(a, b Deployment) int {
		if c := a.Created.Compare(b.Created); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
	return list
}

// Events returns what happened.
func (f *Fleet) Events(ctx context.Context, q EventQuery) ([]Event, error) {
	return f.config.Records.Events(ctx, q)
}

// History returns jobs that have ended, the latest first, also those that are not in memory any more.
func (f *Fleet) History(ctx context.Context, q JobQuery) ([]*Job, error) {
	return f.config.Records.Jobs(ctx, q)
}

// Swarm is one swarm that machines need.
type Swarm struct {
	Image    images.Digest
	InfoHash images.InfoHash
}

// Swarms returns the swarms of jobs that have not ended and those that guests need, each once, in the order of their info hashes.
func (f *Fleet) Swarms() (list []Swarm) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	seen := map[images.InfoHash]bool{}
	for _, j := range f.open {
		if j.Kind.Swarms() && !seen[j.InfoHash] {
			seen[j.InfoHash] = true
			list = append(list, Swarm{j.Image, j.InfoHash})
		}
	}
	for h, n := range f.needs {
		if !seen[h] {
			list = append(list, Swarm{n.image, h})
		}
	}
	slices.SortFunc(list, func(a, b Swarm) int { return strings.Compare(a.InfoHash.String(), b.InfoHash.String()) })
	return list
}
