package fleet

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"time"

	"seedbed/appliance/job"
	"seedbed/images"
)

// Inventory keeps what a machine is and tells it who it is to the site.
func (f *Fleet) Inventory(ctx context.Context, c Caller, inv job.Inventory) (job.Admission, error) {
	var answer job.Admission
	err := f.change(ctx, func(d *draft) error {
		s := d.session(c.session.ID)
		if s == nil || s.Revoked {
			return refuse(CodeRevoked, "the certificate of %s was revoked; start the machine again", c.session.MAC)
		}
		m := d.identify(s.MAC, &inv)
		if s.Machine != m.ID {
			d.editSession(s).Machine = m.ID
		}
		answer = job.Admission{Machine: m.ID, Name: m.Name, Admitted: m.Admitted, Code: m.Code}
		return nil
	})
	return answer, err
}

// identify returns the machine with this inventory. Where the record made from its boot packets turns out to be a
// machine that is known from before, the new record is merged into the old one.
func (d *draft) identify(bootMAC string, inv *job.Inventory) *Machine {
	id := inventoryIdentity(bootMAC, inv)
	all := d.machines()
	best, ambiguous := recognise(id, all)
	if ambiguous {
		// Another machine's job would wipe this one's disk: it is a machine of its own, and a person says whether jobs may run.
		best, _ = fittest(id, all, false)
	}
	if best == nil {
		best = d.record(id, inv.UUID)
	}
	own := d.editMachine(best)
	if ambiguous {
		own.Admitted, own.Code = false, newCode()
		d.event(Event{Kind: "machine.conflict", Machine: own.ID, Text: own.Name + " fits more than one known machine; " +
			"compare serial numbers and MACs with `seedbed machine ls --json`, then admit it by the code on its screen"})
	}
	for _, other := range all {
		if other.ID == best.ID || !shares(id.macs, other.MACs) {
			continue
		}
		if other.Inventory == nil {
			d.merge(other, own)
			continue
		}
		// The adapter is in this machine now.
		moved := d.editMachine(other)
		moved.MACs = slices.DeleteFunc(moved.MACs, func(mac string) bool { return slices.Contains(id.macs, mac) })
	}
	if own.Inventory == nil {
		d.event(Event{Kind: "machine.inventory", Machine: own.ID, Text: own.Name + " is a " +
			strings.TrimSpace(inv.Manufacturer+" "+inv.Product) + ", serial number " + quoteEmpty(inv.Serial)})
	}
	own.Inventory = inv
	if canonicalUUID(inv.UUID) != "" {
		own.UUID = inv.UUID
	}
	for _, mac := range slices.Backward(id.macs) {
		own.MACs = slices.DeleteFunc(own.MACs, func(m string) bool { return m == mac })
		own.MACs = slices.Insert(own.MACs, 0, mac)
	}
	return own
}

func quoteEmpty(s string) string {
	if s == "" {
		return "unknown"
	}
	return s
}

// merge makes one machine of two records: from was only ever seen in boot packets.
func (d *draft) merge(from, into *Machine) {
	gone := d.editMachine(from)
	gone.MergedInto = into.ID
	for _, j := range d.jobs() {
		switch {
		case j.Machine != from.ID || j.State.Ended():
		case j.Kind == job.Capture:
			d.editJob(j).Machine = into.ID
		default:
			d.end(d.editJob(j), job.Cancelled, "merged", "the machine is "+into.Name)
		}
	}
	d.event(Event{Kind: "machine.merged", Machine: into.ID, Text: from.Name + " turned out to be " + into.Name})
	d.enlist(into)
}

// Claim returns the machine's next job with a certificate for its swarm, or nil if none came within the time of a poll.
// A later boot of the machine takes over the claim of an earlier one.
func (f *Fleet) Claim(ctx context.Context, c Caller, request job.Claim) (*job.Job, error) {
	if c.session.Machine == "" || request.Machine != c.session.Machine {
		return nil, refuse(CodeMachineUnknown, "the machine %q is not the one that this certificate was given to", request.Machine)
	}
	ctx, cancel := context.WithTimeout(ctx, f.config.ClaimPoll)
	defer cancel()
	for {
		changed := f.Changed()
		if j := f.next(c); j != nil {
			if answer, err := f.claim(ctx, c, j.ID); answer != nil || err != nil {
				return answer, err
			}
		}
		select {
		case <-ctx.Done():
			return nil, nil
		case <-changed:
		}
	}
}

// next returns the oldest job that the caller could claim, or nil.
func (f *Fleet) next(c Caller) (oldest *Job) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if s := f.state.sessions[c.session.ID]; s == nil || s.Revoked {
		return nil
	}
	if m := f.state.machines[c.session.Machine]; m == nil || !m.Admitted {
		return nil
	}
	for _, j := range f.open {
		if j.Machine == c.session.Machine && !j.HeldByOperator &&
			(oldest == nil || comesBefore(j, oldest)) {
			oldest = j
		}
	}
	return oldest
}

// comesBefore reports whether a machine does a before b: a capture first, since a deployment destroys what it is about,
// then the older one.
func comesBefore(a, b *Job) bool {
	if (a.Kind == job.Capture) != (b.Kind == job.Capture) {
		return a.Kind == job.Capture
	}
	return a.Created.Before(b.Created)
}

// claim gives a job to the caller; nil if the job is not to be had any more.
func (f *Fleet) claim(ctx context.Context, c Caller, id string) (*job.Job, error) {
	var claimed *Job
	var dep *Deployment // of a capture: one without anything
	err := f.change(ctx, func(d *draft) error {
		claimed, dep = nil, new(Deployment)
		j, s := d.job(id), d.session(c.session.ID)
		if j == nil || s == nil || s.Revoked || j.State.Ended() || j.HeldByOperator {
			return nil
		}
		own := d.editJob(j)
		own.Epoch++
		own.State, own.Code, own.Reason, own.Session = job.Claimed, "", "", s.ID
		own.Claimed, own.BootSeen, own.HelloAt = f.now().UTC(), s.BootSeen, s.Redeemed
		own.Last = job.Report{Phase: job.PhaseStart, Total: own.Last.Total}
		claimed = own
		if of := d.deployment(own.Deployment); of != nil {
			dep = of
		}
		d.jobEvent(own)
		return nil
	})
	if err != nil || claimed == nil {
		return nil, err
	}
	f.mu.Lock()
	f.live[id] = live{report: claimed.Last, at: f.now(), reports: f.live[id].reports + 1}
	hint := f.hints[id]
	f.mu.Unlock()
	uris := []string{job.URIMachine + c.session.Machine, job.URIJob + id}
	if claimed.Capture == nil {
		uris = append(uris, f.config.InfoHashURI(claimed.InfoHash))
	}
	cert, err := f.config.Authority.Machine(c.session.PublicKey, f.now(), uris...)
	if err != nil {
		return nil, err
	}
	answer := &job.Job{
		ID: id, Kind: claimed.Kind, Machine: claimed.Machine, Deployment: claimed.Deployment, Epoch: claimed.Epoch,
		Image: claimed.Image, ImageName: claimed.ImageName, InfoHash: claimed.InfoHash, Certificate: cert,
		Seeds: f.seedsFor(claimed.InfoHash, c), Hint: hint, SeedFor: dep.SeedFor, After: dep.After, ReportEvery: reportEvery,
		Transport: f.config.Transport,
	}
	if c := claimed.Capture; c != nil {
		answer.Capture, answer.DiskSerial, answer.After, answer.Seeds = c.Clone(), c.DiskSerial, c.After, nil
	}
	return answer, nil
}

// seedsFor returns the seeders of a swarm that the caller may be told of.
func (f *Fleet) seedsFor(h images.InfoHash, c Caller) []netip.AddrPort {
	list := f.seeds(h)
	if may := f.config.MayReach; may != nil {
		names := f.Names(c.session.Machine)
		list = slices.DeleteFunc(list, func(a netip.AddrPort) bool { return !may(names, c.address, a) })
	}
	return list
}

// Names returns the names of a machine: its ID, its name for people, its MACs. Of one that is not known it is the ID alone.
func (f *Fleet) Names(id string) []string {
	f.mu.RLock()
	defer f.mu.RUnlock()
	m := f.state.machines[id]
	if m == nil {
		return []string{id}
	}
	return append([]string{id, m.Name}, m.MACs...)
}

// maxHint bounds the bitmap that is kept of a job, in bytes: one bit for each of the most pieces that an image can have.
const maxHint = images.MaxPieces / 8

// reportEvery is the interval of reports.
const reportEvery = time.Second

// Report takes what an agent says about its job and answers what it is to do.
func (f *Fleet) Report(ctx context.Context, c Caller, r job.Report) (job.Directive, error) {
	f.mu.Lock()
	j := f.state.jobs[r.Job]
	if reported(j, c, r) != nil && f.config.Records.Shared() { // it may have been claimed at another appliance just now
		f.mu.Unlock()
		f.refresh()
		f.mu.Lock()
		j = f.state.jobs[r.Job]
	}
	if err := reported(j, c, r); err != nil {
		f.mu.Unlock()
		return job.Directive{}, err
	}
	if len(r.Bitmap) > 0 && len(r.Bitmap) <= maxHint && !j.State.Ended() {
		f.hints[j.ID] = r.Bitmap
	}
	r.Bitmap = nil
	f.live[j.ID] = live{report: r, at: f.now(), reports: f.live[j.ID].reports + 1}
	transition := !j.State.Ended() && !j.HeldByOperator && (j.State != r.State || j.Last.Phase != r.Phase || j.Reason != r.Reason)
	directive := f.directive(j)
	name := j.Machine
	if m := f.state.machines[j.Machine]; m != nil {
		name = m.Name
	}
	f.mu.Unlock()
	f.accuse(ctx, c, name, j.ImageName, r.Liars)
	if !transition {
		return directive, nil
	}
	err := f.change(ctx, func(d *draft) error {
		j := d.job(r.Job)
		if err := reported(j, c, r); err != nil {
			return err
		}
		if j.State.Ended() || j.HeldByOperator {
			return nil
		}
		d.advance(d.editJob(j), r)
		return nil
	})
	if err != nil {
		return job.Directive{}, err
	}
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.directive(f.state.jobs[r.Job]), nil
}

// reported says why a report is not the caller's to make; j is the job that it is about, or nil.
func reported(j *Job, c Caller, r job.Report) error {
	switch {
	case j == nil || j.Machine != c.session.Machine:
		return refuse(CodeJobUnknown, "this machine has no job %q", r.Job)
	case j.Epoch != r.Epoch || j.Session != c.session.ID:
		return refuse(CodeClaimLost, "job %s was claimed by a later boot of this machine", r.Job)
	case r.State != job.Running && r.State != job.Paused && r.State != job.Failed && r.State != j.State:
		return refuse(CodeInvalid, "a report cannot say that job %s is %q", r.Job, r.State)
	}
	return nil
}

// advance takes a job in the draft to where a report says it is.
func (d *draft) advance(j *Job, r job.Report) {
	was := j.State
	phase := j.Last.Phase
	j.Last, j.Code, j.Reason = r, r.Code, r.Reason
	j.Last.Log = ""
	if r.State == job.Running && j.Started.IsZero() {
		j.Started = d.f.now().UTC()
	}
	switch {
	case r.State == job.Failed:
		j.Log = r.Log
		d.end(j, job.Failed, r.Code, r.Reason)
	case was != r.State || r.State == job.Paused:
		j.State = r.State
		d.jobEvent(j)
	}
	if phase != r.Phase && r.State == job.Running {
		name := j.Machine
		if m := d.machine(j.Machine); m != nil {
			name = m.Name
		}
		d.event(Event{Kind: "job.phase", Machine: j.Machine, Job: j.ID, Deployment: j.Deployment,
			Text: name + ": job " + j.ID + " is in phase " + string(r.Phase)})
	}
}

// directive is what the agent of a job is to do. The caller holds mu.
func (f *Fleet) directive(j *Job) job.Directive {
	d := job.Directive{State: j.State}
	if j.State == job.Claimed || j.State == job.Waiting {
		d.State = job.Running // its report says that it is at work
	}
	switch f.live[j.ID].report.Phase {
	case job.PhaseVerify, job.PhaseTable, job.PhaseSeed, job.PhaseReboot:
		d.Release = !f.needed(j)
	}
	return d
}

// recent is how long after a machine was heard of last it counts as on its way to its claim: the slowest step is the
// load of kernel and initramfs.
const recent = 2 * time.Minute

// needed reports whether another machine of the job's deployment still lacks data that this one could serve: it is at
// work on the content, or on its way there. The caller holds mu.
func (f *Fleet) needed(j *Job) bool {
	now := f.now()
	for _, o := range f.open {
		if o.ID == j.ID || o.InfoHash != j.InfoHash || o.HeldByOperator {
			continue
		}
		l := f.live[o.ID]
		switch {
		case o.State == job.Paused:
		case o.State == job.Waiting:
			if now.Sub(f.seen[o.Machine]) < recent {
				return true
			}
		case now.Sub(l.at) > recent/4:
		case l.report.Total == 0 || l.report.Held < l.report.Total:
			return true
		}
	}
	return false
}
