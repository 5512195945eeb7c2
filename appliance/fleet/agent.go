package fleet

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"seedbed/appliance/job"
	"seedbed/images"
)

// Bounds of an inventory, and of the cards that were ever in one machine: those seen last are kept.
const (
	maxNICs  = 64
	maxDisks = 1024
	maxMACs  = 256
	// maxDevices bounds what else is named of its hardware: what is more is left out.
	maxDevices = 32
)

// Inventory keeps what a machine is and tells it who it is to the site. The same again writes nothing.
func (f *Fleet) Inventory(ctx context.Context, c Caller, inv job.Inventory) (job.Admission, error) {
	var answer job.Admission
	if !f.tellers.may(c.session.MAC, f.now()) {
		return answer, refuse(CodeTooMany, "the machine that booted from %s tells too often what it is; once a second is enough", c.session.MAC)
	}
	if len(inv.NICs) > maxNICs || len(inv.Disks) > maxDisks {
		return answer, refuse(CodeInvalid, "a machine with %d network cards and %d disks is not known here: at most %d and %d are", len(inv.NICs), len(inv.Disks), maxNICs, maxDisks)
	}
	inv = bounded(inv)
	encoded, err := json.Marshal(inv)
	if err != nil {
		return answer, refuse(CodeInvalid, "the inventory cannot be kept: %v", err)
	}
	sum := sumOf(encoded)
	if answer, known := f.told(c, sum); known {
		return answer, nil
	}
	if err := f.mayTell(c, len(encoded)); err != nil {
		return answer, err
	}
	err = f.change(ctx, func(d *draft) error {
		s := d.session(c.session.ID)
		if s == nil || s.Revoked {
			return refuse(CodeRevoked, "the certificate of %s was revoked; start the machine again", c.session.MAC)
		}
		m, err := d.identify(s, &inv)
		if err != nil {
			return err
		}
		own := d.editSession(s)
		own.Machine, own.Told = m.ID, sum
		answer = m.admission()
		return nil
	})
	return answer, err
}

// bounded cuts what an inventory says in words: they go into records, events and lists.
func bounded(inv job.Inventory) job.Inventory {
	inv.Disks, inv.NICs = slices.Clone(inv.Disks), slices.Clone(inv.NICs)
	words := []*string{&inv.UUID, &inv.Manufacturer, &inv.Product, &inv.Serial, &inv.Firmware, &inv.SecureBoot}
	for i := range inv.Disks {
		d := &inv.Disks[i]
		words = append(words, &d.Name, &d.Model, &d.Serial, &d.WWN, &d.Bus)
	}
	for i := range inv.NICs {
		n := &inv.NICs[i]
		words = append(words, &n.Name, &n.MAC, &n.Driver, &n.Addr)
	}
	inv.Controllers = slices.Clone(inv.Controllers[:min(len(inv.Controllers), maxDevices)])
	inv.NoDriver = slices.Clone(inv.NoDriver[:min(len(inv.NoDriver), maxDevices)])
	inv.SecureBootDB = slices.Clone(inv.SecureBootDB[:min(len(inv.SecureBootDB), maxDevices)])
	for i := range inv.Controllers {
		c := &inv.Controllers[i]
		words = append(words, &c.Slot, &c.ID, &c.Class, &c.Driver, &c.Mode)
	}
	for i := range inv.NoDriver {
		words = append(words, &inv.NoDriver[i].Slot, &inv.NoDriver[i].ID)
	}
	for i := range inv.SecureBootDB {
		words = append(words, &inv.SecureBootDB[i])
	}
	for _, word := range words {
		cut(word, maxWord)
	}
	return inv
}

func quoteEmpty(s string) string {
	if s == "" {
		return "unknown"
	}
	return s
}

// merge makes one machine of two records. The one that ends is kept for its history, unless it was made by boot packets alone: of these
// there may be as many as somebody makes up.
func (d *draft) merge(from, into *Machine) {
	bare := d.isBare(from)
	into.inherit(from, func(id string) bool {
		g := lookup[*Group](d, KindGroup, id)
		return g != nil && g.Kind == Room
	})
	for _, j := range d.jobsOf(from.ID) {
		switch {
		case j.State.Ended():
		case bare:
			d.remove(j.Ref()) // nothing was done of it, and the machine has one of its own
		case j.Kind == job.Capture:
			own := d.editJob(j)
			own.Machine = into.ID
			d.add(own)
		default:
			d.end(d.editJob(j), job.Cancelled, "merged", "the machine is "+into.Name)
		}
	}
	d.event(Event{Kind: "machine.merged", Machine: into.ID, Text: from.Name + " turned out to be " + into.Name})
	if bare {
		d.remove(from.Ref())
	} else {
		d.editMachine(from).MergedInto = into.ID
	}
	d.enlist(into)
}

// inherit takes over what is known of another record of the same computer, and what people said of it, where the machine has nothing
// of its own. isRoom says which groups are rooms: a machine stands in one.
func (m *Machine) inherit(from *Machine, isRoom func(id string) bool) {
	room := slices.IndexFunc(m.Groups, isRoom)
	moves := m.Seat == nil && from.Seat != nil
	for _, id := range from.Groups {
		switch {
		case slices.Contains(m.Groups, id):
		case isRoom(id) && room >= 0:
			moves = false // its seat is in another room
		default:
			m.Groups = append(m.Groups, id)
		}
	}
	slices.Sort(m.Groups)
	if moves {
		m.Seat = from.Seat
	}
	if from.Deployed != nil && (m.Deployed == nil || from.Deployed.At.After(m.Deployed.At)) {
		m.Deployed = from.Deployed // the disk holds what was written last
	}
	if m.Notes == "" {
		m.Notes = from.Notes
	}
	if m.Boot == nil {
		m.Boot = from.Boot
	}
	if m.Inventory == nil {
		m.Inventory, m.UUID = from.Inventory, from.UUID
	}
	m.Saved = slices.Concat(from.Saved, m.Saved)
	for _, mac := range from.Booted {
		if !slices.Contains(m.Booted, mac) && len(m.Booted) < maxBooted {
			m.Booted = append(m.Booted, mac)
		}
	}
	if !from.FirstSeen.IsZero() && from.FirstSeen.Before(m.FirstSeen) {
		m.FirstSeen = from.FirstSeen
	}
}

// Claim returns the machine's next job with a certificate for its swarm, or nil if none came within the time of a poll. Where one
// waits for anything but a person or a later time, the answer says for what: job.Job.Waits.
// A later boot of the machine takes over the claim of an earlier one.
func (f *Fleet) Claim(ctx context.Context, c Caller, request job.Claim) (*job.Job, error) {
	if c.session.Machine == "" || request.Machine != c.session.Machine {
		return nil, refuse(CodeMachineUnknown, "the machine %q is not the one that this certificate was given to", request.Machine)
	}
	f.mu.Lock()
	f.screenSays(c, request.Screen)
	f.mu.Unlock()
	asked := ctx
	ctx, cancel := context.WithTimeout(ctx, f.config.ClaimPoll)
	defer cancel()
	leave, err := f.await(c.session.Machine)
	if err != nil {
		return nil, err
	}
	defer leave()
	for {
		changed, looked := f.Changed(), time.Now()
		turns, later := f.decide()
		if j := f.next(c, turns); j != nil {
			if answer, err := f.claim(ctx, c, j.ID); answer != nil || err != nil {
				return answer, err
			}
		}
		if f.isMerged(c.session.Machine) {
			return nil, nil // the agent tells anew what it is, and learns which machine that is now
		}
		again := make(<-chan time.Time)
		if later > 0 {
			again = time.After(later)
		}
		select {
		case <-ctx.Done():
			return f.waiting(c), nil
		case <-changed:
			// Where much happens a machine looks some times a second, not at each change: a thousand may wait.
			select {
			case <-ctx.Done():
				if asked.Err() != nil {
					return nil, asked.Err() // who asked is gone
				}
			case <-time.After(f.config.ClaimPoll/looksPerPoll - time.Since(looked)):
			}
		case <-again:
		}
	}
}

// isMerged reports whether a person, or its identity, has said that a machine is another one.
func (f *Fleet) isMerged(machine string) bool {
	f.mu.RLock()
	defer f.mu.RUnlock()
	m := f.state.machines[machine]
	return m != nil && m.MergedInto != ""
}

// looksPerPoll bounds how often a machine that waits looks for its turn in the time of a poll: each 200 ms.
const looksPerPoll = 100

// next returns the job that the caller may claim: the one that its machine is at already, else the one whose turn it is; or nil.
func (f *Fleet) next(c Caller, turns *turns) (turn *Job) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if s := f.state.sessions[c.session.ID]; s == nil || s.Revoked {
		return nil
	}
	if m := f.state.machines[c.session.Machine]; m == nil || !m.Admitted {
		return nil
	}
	for _, j := range f.todo[c.session.Machine] {
		switch {
		case j.HeldByOperator:
		case j.atWork():
			return j
		case turns.may(j.ID):
			turn = j
		}
	}
	return turn
}

// waiting returns what the job of the caller's machine waits for, as an answer to its claim, or nil.
func (f *Fleet) waiting(c Caller) *job.Job {
	turns, _ := f.decide()
	f.mu.RLock()
	defer f.mu.RUnlock()
	if m := f.state.machines[c.session.Machine]; m == nil || !m.Admitted {
		return nil
	}
	var first *Job
	for _, j := range f.todo[c.session.Machine] {
		if j.HeldByOperator || !j.waits() || turns.later(j.ID, f.now()) {
			continue
		}
		if _, waits := turns.Waits[j.ID]; waits && (first == nil || turns.Order[j.ID] < turns.Order[first.ID]) {
			first = j
		}
	}
	if first == nil {
		return nil
	}
	return &job.Job{ID: first.ID, Waits: turns.Waits[first.ID].Text}
}

// claim gives a job to the caller; nil if the job is not to be had any more.
func (f *Fleet) claim(ctx context.Context, c Caller, id string) (*job.Job, error) {
	if err := f.lookForOwn(c, id); err != nil {
		return nil, err
	}
	var claimed *Job
	var dep *Deployment // of a capture: one without anything
	err := f.change(ctx, func(d *draft) error {
		claimed, dep = nil, new(Deployment) // a try that another appliance was faster than left others
		j, s := d.job(id), d.session(c.session.ID)
		if j == nil || s == nil || s.Revoked || j.State.Ended() || j.HeldByOperator || !j.atWork() && !(d.isTurn(j) && d.hasPlace(j)) {
			return nil
		}
		if j.State == job.Claimed && j.Session == s.ID { // the answer was lost on its way, as the appliance that gave it may be
			claimed = j
			if of := d.deployment(j.Deployment); of != nil {
				dep = of
			}
			return nil
		}
		own := d.editJob(j)
		own.Earlier = own.Earlier.And(f.lastOf(own))
		own.Epoch++
		if m := d.machine(own.Machine); m != nil && m.Deployed != nil && own.Before.IsZero() && own.Kind == job.Deploy {
			own.Before = m.Deployed.Image
		}
		own.State, own.Code, own.Reason, own.Session = job.Claimed, "", "", s.ID
		own.uncall()
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
	if claimed.Kind.OfImage() {
		uris = append(uris, f.config.InfoHashURI(claimed.InfoHash))
	}
	if keep := claimed.Options.Keep; len(keep) > 0 && f.config.PartURI != "" {
		uris = append(uris, f.config.PartURI, job.URIKept+strings.ReplaceAll(strings.Trim(fmt.Sprint(keep), "[]"), " ", ","))
	}
	cert, err := f.config.Authority.Machine(c.session.PublicKey, f.now(), uris...)
	if err != nil {
		return nil, err
	}
	answer := &job.Job{
		ID: id, Kind: claimed.Kind, Machine: claimed.Machine, Deployment: claimed.Deployment, Epoch: claimed.Epoch,
		Image: claimed.Image, ImageName: claimed.ImageName, InfoHash: claimed.InfoHash, Certificate: cert,
		Seeds: f.seedsFor(claimed.InfoHash, c), Hint: hint, SeedFor: dep.SeedFor, After: dep.After, Options: claimed.Options, ReportEvery: reportEvery,
		Transport: f.config.Transport, Appliances: f.addresses(),
	}
	answer.DiskSerial = claimed.Options.Disk
	if c := claimed.Capture; c != nil {
		answer.Capture, answer.DiskSerial, answer.After, answer.Seeds = c.Clone(), c.DiskSerial, c.After, nil
	}
	if w := claimed.Work; w != nil {
		answer.DiskSerial, answer.After, answer.Method, answer.SeedFor = w.DiskSerial, w.After, w.Method, defaultSeedFor
	}
	if !claimed.Kind.Swarms() {
		answer.Seeds = nil
	}
	return answer, nil
}

// lastOf is the last report of a job's claim that is known here.
func (f *Fleet) lastOf(j *Job) *job.Report {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if l, ok := f.live[j.ID]; ok && l.report.Epoch == j.Epoch && l.report.Job == j.ID {
		return &l.report
	}
	return &j.Last
}

// lookForOwn takes over what other appliances wrote where the caller asks for a job that it has already: its answer was lost, or it has
// ended the job at another one since, and giving it writes nothing that would find that out.
func (f *Fleet) lookForOwn(c Caller, id string) error {
	if !f.config.Records.Shared() {
		return nil
	}
	f.mu.RLock()
	j := f.state.jobs[id]
	own := j != nil && j.State == job.Claimed && j.Session == c.session.ID
	f.mu.RUnlock()
	if !own {
		return nil
	}
	return f.refresh()
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
	bound(&r)
	f.mu.Lock()
	j := f.state.jobs[r.Job]
	if reported(j, c, r) != nil && f.config.Records.Shared() { // it may have been claimed at another appliance just now
		f.mu.Unlock()
		if err := f.refresh(); err != nil {
			return job.Directive{}, err
		}
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
	liars := r.Liars
	f.screenSays(c, r.Screen)
	r.Bitmap, r.Liars, r.Screen = nil, nil, nil
	f.traffic.add(f.live[j.ID].report, r)
	f.live[j.ID] = live{report: r, at: f.now(), reports: f.live[j.ID].reports + 1, back: f.backAt(j, r, f.now())}
	changes := !obeys(r) && (j.State != r.State || j.Last.Phase != r.Phase || j.Reason != r.Reason)
	transition := !j.State.Ended() && !j.HeldByOperator && !j.knows(r) && (changes || j.goesOn(r))
	directive := f.directive(j)
	name := j.Machine
	if m := f.state.machines[j.Machine]; m != nil {
		name = m.Name
	}
	f.mu.Unlock()
	f.accuse(ctx, c, name, j.ImageName, liars)
	if !transition {
		return directive, nil
	}
	if changes && !f.tellers.mayChange(j.Machine, f.now()) {
		return job.Directive{}, refuse(CodeTooMany, "%s says something else of job %s too often; once a second is enough", name, j.ID)
	}
	err := f.change(ctx, func(d *draft) error {
		j := d.job(r.Job)
		if err := reported(j, c, r); err != nil {
			return err
		}
		switch {
		case j.State.Ended(), j.HeldByOperator, j.knows(r):
		case j.goesOn(r):
			d.goOn(j, r)
		case !obeys(r):
			d.advance(d.editJob(j), r)
		}
		return nil
	})
	if err != nil {
		return job.Directive{}, err
	}
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.directive(f.state.jobs[r.Job]), nil
}

// knows reports whether a failure is the one for which the job waits to be tried again: its answer was lost, and it does not
// count twice.
func (j *Job) knows(r job.Report) bool {
	return r.State == job.Failed && j.State == job.Waiting && j.Last.State == job.Failed
}

// obeys reports whether a machine says that it stands still by the appliance's word: that is no pause of its own.
func obeys(r job.Report) bool { return r.State == job.Paused && r.Code == codeHeld }

// codeHeld is what agents give as the reason of a pause that the appliance told them.
const codeHeld = "operator"

// goesOn reports whether a report says that a machine is there again, and at work on a job whose place may be another's meanwhile.
func (j *Job) goesOn(r job.Report) bool {
	return j.waits() && !j.HeldByOperator && (r.State == job.Running || obeys(r))
}

// backAt is when a machine reported last that goesOn, at a report of now; zero if it does not. The caller holds mu.
func (f *Fleet) backAt(j *Job, r job.Report, now time.Time) time.Time {
	if !j.goesOn(r) {
		return time.Time{}
	}
	if now.Sub(f.live[j.ID].back) >= backFor {
		f.revision++ // the queue counts it as there from now on
	}
	return now
}

// goOn lets a machine that is there again go on with its job, or has it stand still until there is a place.
func (d *draft) goOn(j *Job, r job.Report) {
	if d.isTurn(j) && d.hasPlace(j) {
		if obeys(r) {
			r.State, r.Code, r.Reason = job.Running, "", ""
		}
		d.advance(d.editJob(j), r)
		return
	}
	if j.State == job.Paused {
		own := d.editJob(j)
		own.State, own.Code, own.Reason = job.Waiting, "", "the machine can go on"
		d.jobEvent(own)
	}
}

// Bounds of the words of a report, in bytes, and of its lists.
const (
	maxWord     = 256
	maxSentence = 2000
	maxTail     = 64 << 10
	maxWarnings = 100
	maxWarned   = 32 << 10 // of all warnings: they are told to the other appliances each second
	maxDamage   = 1024     // partitions
	// maxCount bounds what a claim counts, 1 PiB: the sums of a site's machines stay numbers.
	maxCount = 1 << 50
	maxPeers = 1 << 16
	// maxLeftTime bounds how long a machine says that the rest takes.
	maxLeftTime = 365 * 24 * time.Hour
)

// bound cuts what a report says in words: it is kept with each job, and at each change in an event. Numbers are bounded by what can be:
// others count with them.
func bound(r *job.Report) {
	for _, n := range append(counters(r), &r.Total, &r.Resumed) {
		*n = min(max(0, *n), maxCount)
	}
	r.WrongTiles, r.Peers, r.Left = min(r.WrongTiles, r.Tiles), min(max(0, r.Peers), maxPeers), min(max(0, r.Left), maxLeftTime)
	r.CPU, r.BytesPerSecond = min(max(0, r.CPU), 1), min(max(0, r.BytesPerSecond), maxCount)
	for _, word := range []*string{(*string)(&r.Phase), &r.Code, &r.Disk, &r.DiskSerial, &r.Congestion} {
		cut(word, maxWord)
	}
	cut(&r.Reason, maxSentence)
	cut(&r.Log, maxTail)
	if r.Found != nil {
		r.Found.Damage = r.Found.Damage[:min(len(r.Found.Damage), maxDamage)]
	}
	r.Warnings = r.Warnings[:min(len(r.Warnings), maxWarnings)]
	for i, warned := 0, 0; i < len(r.Warnings); i++ {
		cut(&r.Warnings[i], maxSentence)
		if warned += len(r.Warnings[i]); warned > maxWarned {
			r.Warnings = r.Warnings[:i]
		}
	}
}

// cut leaves at most so many bytes of a text.
func cut(s *string, most int) {
	if len(*s) > most {
		*s = strings.ToValidUTF8((*s)[:most], "")
	}
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
		j.Failures++
		if !d.again(j) {
			d.end(j, job.Failed, r.Code, r.Reason)
		}
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
	if f.live[j.ID].report.State == job.Failed && (!j.State.Ended() || f.waitsHere(j.Machine)) { // also by another job, as after a person's retry
		d.Again = true
		return d
	}
	switch j.State {
	case job.Claimed:
		d.State = job.Running // its report says that it is at work
	case job.Waiting:
		d.State = job.Paused // there is no place for it
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
	dep := f.state.deployments[j.Deployment]
	untilDone := dep != nil && dep.SeedUntilDone
	for _, o := range f.open {
		if o.ID == j.ID || o.InfoHash != j.InfoHash || o.HeldByOperator || !o.Kind.Swarms() {
			continue
		}
		if untilDone && o.Deployment == j.Deployment && o.State != job.Paused {
			return true
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
