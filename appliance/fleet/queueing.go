package fleet

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"

	"seedbed/appliance/job"
	"seedbed/appliance/queue"
)

// turns is what the queue decided last.
type turns struct {
	queue.Decision
	begin    map[string]bool // of Decision.Begin
	revision int64           // of the records that it was decided by
	at       time.Time       // by the fleet's clock
	took     time.Duration   // by the clock of the host
	taken    time.Time
}

// may reports whether a job has a turn now. One that came after the decision has none yet.
func (t *turns) may(id string) bool { return t.begin[id] }

// soon is how long before its time a job's machine boots the agent, which waits there; a machine whose job begins later
// boots its own disk.
const soon = 5 * time.Minute

// later reports whether a job waits for a time that is not soon, or for another job of its machine, which is asked about itself.
func (t *turns) later(id string, now time.Time) bool {
	w := t.Waits[id]
	if w.Code == queue.WaitsTurn || w.Code == queue.WaitsWindow && w.Until.IsZero() { // never
		return true
	}
	return (w.Code == queue.WaitsTime || w.Code == queue.WaitsWindow) && w.Until.Sub(now) > soon
}

// share of one processor that the queue may take: it decides again only after so many times what a decision takes.
const decideGap = 10

// shortQueue is a number of jobs over which the queue decides at each change: on a busy host the time that it took tells nothing.
const shortQueue = 100

// decide returns what the queue decides for now, and after how long to ask again though nothing changes; zero is not at all.
// The decision may be a moment old where the queue is long.
func (f *Fleet) decide() (*turns, time.Duration) {
	f.deciding.Lock()
	defer f.deciding.Unlock()
	now := f.now()
	t := f.turns
	f.mu.RLock()
	revision := f.revision
	fresh := t != nil && t.revision == revision && (t.Next.IsZero() || now.Before(t.Next)) && !now.Before(t.at)
	if gap := decideGap * tookOf(t); t != nil && !fresh && time.Since(t.taken) < gap {
		f.mu.RUnlock()
		return t, gap - time.Since(t.taken)
	}
	if !fresh {
		began := time.Now()
		jobs, limits := f.queued(now)
		f.mu.RUnlock()
		t = &turns{Decision: queue.Decide(now, jobs, limits), revision: revision, at: now}
		t.begin = make(map[string]bool, len(t.Begin))
		for _, id := range t.Begin {
			t.begin[id] = true
		}
		t.taken = time.Now()
		if len(jobs) > shortQueue {
			t.took = t.taken.Sub(began)
		}
		f.turns = t
	} else {
		f.mu.RUnlock()
	}
	if t.Next.IsZero() {
		return t, 0
	}
	return t, max(t.Next.Sub(now), time.Millisecond)
}

func tookOf(t *turns) time.Duration {
	if t == nil {
		return 0
	}
	return t.took
}

// queued returns the jobs that have not ended as the queue sees them. The caller holds mu.
func (f *Fleet) queued(now time.Time) ([]queue.Job, queue.Limits) {
	return f.queuedOf(maps.Values(f.open), len(f.open), now)
}

// queuedOf returns n jobs as the queue sees them. The caller holds mu.
func (f *Fleet) queuedOf(open iter.Seq[*Job], n int, now time.Time) ([]queue.Job, queue.Limits) {
	limits, rules := f.state.rules()
	jobs := make([]queue.Job, 0, n)
	zone, preload := f.state.settings().Zone(), map[string]string{}
	for j := range open {
		q := f.queuedJob(j, rules, now)
		if !q.After.IsZero() || q.Calls > 0 { // as people read them
			q.After, q.CalledAt = q.After.In(zone), q.CalledAt.In(zone)
		}
		if q.State != queue.AtWork {
			text, known := preload[j.Deployment]
			if !known {
				text = f.preloading(j)
				preload[j.Deployment] = text
			}
			q.Preload = text
		}
		jobs = append(jobs, q)
	}
	return jobs, limits
}

func (f *Fleet) queuedJob(j *Job, rules map[string]*rule, now time.Time) queue.Job {
	m := f.state.machines[j.Machine]
	q := queue.Job{
		ID: j.ID, Machine: j.Machine, Priority: j.Priority, Since: j.Created, First: j.first(), Begun: j.begun(), After: j.NotBefore,
		Unadmitted: m == nil || !m.Admitted, State: queue.Absent,
	}
	if m != nil {
		if len(m.Groups) > 0 {
			q.Groups = make([]string, 0, len(m.Groups))
		}
		for _, g := range m.Groups {
			r := rules[g]
			if r == nil {
				continue
			}
			q.Groups = append(q.Groups, g)
			switch {
			case len(r.windows) == 0:
			case q.Windows == nil:
				q.Windows = r.alone // shared; what is added goes to a list of its own
			default:
				q.Windows = append(q.Windows, r.windows)
			}
			if r.uplink != "" && q.Uplink == "" {
				q.Uplink = r.uplink
			}
		}
	}
	if j.Windowless {
		q.Windows = nil
	}
	var back time.Time
	if j.Epoch > 0 && !j.atWork() { // only who had it comes back
		back = f.live[j.ID].back
	}
	switch {
	case j.HeldByOperator:
		q.State = queue.Held
	case j.State == job.Claimed, j.State == job.Running:
		q.State = queue.AtWork
	case f.isAsking(j.Machine):
		q.State = queue.Present
	case now.Sub(back) < backFor:
		q.State, q.Until = queue.Present, back.Add(backFor)
	case j.State == job.Paused:
		q.State = queue.Held
	default:
		q.Elsewhere = m.elsewhere()
		f.callable(&q, j, m, now)
	}
	return q
}

// first reports whether a job goes before the machine's other ones: a deployment would destroy what is to be captured, and a wipe
// what a deployment wrote. Both were ordered before these, or they would have been refused.
func (j *Job) first() bool { return j.Kind == job.Capture || j.Kind == job.WipeDisk }

// elsewhere says that a machine, which may be nil, does not come to its job, or returns "". One that boots its own disk once comes then.
func (m *Machine) elsewhere() string {
	if m == nil || m.Boot == nil || m.Boot.To != BootLocal || m.Boot.Once {
		return ""
	}
	return "waits, since the machine boots its own disk by a person's word; `seedbed machine edit " + m.ID + " --boot jobs` ends that"
}

// backFor is how long after a report a machine counts as there that waits for a place to go on: a report is due each second, and
// the appliances of a site tell each other every attendEvery.
const backFor = 2 * attendEvery

// atWork reports whether a machine has the job.
func (j *Job) atWork() bool { return j.State == job.Claimed || j.State == job.Running }

// begun reports whether a machine was at work on a job that writes: its disk may hold half of an image, which nobody boots.
func (j *Job) begun() bool {
	writes := j.Kind == job.Deploy || j.Kind == job.RepairDisk || j.Kind == job.WipeDisk
	return writes && !j.Started.IsZero()
}

// isAsking reports whether an agent of the machine waits for a job. The caller holds mu.
func (f *Fleet) isAsking(machine string) bool { return f.claims[machine] > 0 }

// rule is what a group demands.
type rule struct {
	windows []queue.Window
	alone   [][]queue.Window // windows as the only ones; without room for more
	uplink  string
}

// rules returns the limits of the site and what its groups demand, by their IDs. The caller holds mu, or writing.
func (s *records) rules() (queue.Limits, map[string]*rule) {
	limits, uplinks := s.limits()
	zone, rules := s.settings().Zone(), make(map[string]*rule, len(uplinks))
	for id, uplink := range uplinks {
		of := &rule{windows: s.others[Key{KindGroup, id}].(*Group).windows(zone), uplink: uplink}
		of.alone = [][]queue.Window{of.windows}
		rules[id] = of
	}
	return limits, rules
}

// limits returns the limits of the site and the uplinks of its groups, by the groups' IDs. The caller holds mu, or writing.
func (s *records) limits() (queue.Limits, map[string]string) {
	limits := queue.Limits{Site: s.settings().Limit, Groups: map[string]int{}, Uplinks: map[string]int{}}
	uplinks := map[string]string{}
	for k, r := range s.others {
		g, ok := r.(*Group)
		if !ok {
			continue
		}
		uplinks[k.ID] = g.Uplink
		if g.Limit > 0 {
			limits.Groups[k.ID] = g.Limit
		}
		if g.Uplink != "" && g.UplinkLimit > 0 {
			if have := limits.Uplinks[g.Uplink]; have == 0 || g.UplinkLimit < have {
				limits.Uplinks[g.Uplink] = g.UplinkLimit
			}
		}
	}
	return limits, uplinks
}

// isTurn reports whether a job that waits may begin by what its machine does: the queue's decision is of before the draft.
func (d *draft) isTurn(j *Job) bool {
	m := d.machine(j.Machine)
	if m == nil || !m.Admitted || d.f.now().Before(j.NotBefore) {
		return false
	}
	for _, o := range d.f.todo[j.Machine] {
		if o = d.job(o.ID); o != nil && o.ID != j.ID && (o.State == job.Claimed || o.State == job.Running) {
			return false
		}
	}
	return true
}

// hasPlace reports whether the limits leave a place for a job, as the draft has the records: the queue's decision is of
// before it.
func (d *draft) hasPlace(j *Job) bool {
	m := d.machine(j.Machine)
	return m != nil && d.places(func(o *Job) bool { return o.ID != j.ID && o.atWork() }).free(m)
}

// places are those that machines take of what the limits leave.
type places struct {
	limits  queue.Limits
	links   map[string]string // uplinks by group
	site    int
	groups  map[string]int
	uplinks map[string]int
}

// places counts the machines of the jobs that take one.
func (d *draft) places(takes func(*Job) bool) *places {
	p := &places{groups: map[string]int{}, uplinks: map[string]int{}}
	p.limits, p.links = d.f.state.limits()
	if p.limits.Site == 0 && len(p.limits.Groups)+len(p.limits.Uplinks) == 0 {
		return p
	}
	for _, j := range d.openJobs() {
		if takes(j) {
			p.take(d.machine(j.Machine))
		}
	}
	return p
}

// take gives a place to a machine, nil being one that was removed.
func (p *places) take(m *Machine) {
	p.site++
	if m == nil {
		return
	}
	for _, g := range m.Groups {
		p.groups[g]++
	}
	p.uplinks[p.uplink(m)]++
}

// uplink is the link that content for a machine crosses, "" if none is known.
func (p *places) uplink(m *Machine) string {
	for _, g := range m.Groups {
		if link := p.links[g]; link != "" {
			return link
		}
	}
	return ""
}

// free reports whether there is a place for one more machine.
func (p *places) free(m *Machine) bool {
	full := func(used, most int) bool { return most > 0 && used >= most }
	if u := p.uplink(m); full(p.site, p.limits.Site) || u != "" && full(p.uplinks[u], p.limits.Uplinks[u]) {
		return false
	}
	return !slices.ContainsFunc(m.Groups, func(g string) bool { return full(p.groups[g], p.limits.Groups[g]) })
}

// await counts a machine among those that ask for a job until the returned function is called. It refuses where too many wait.
func (f *Fleet) await(machine string) (leave func(), err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	m := f.state.machines[machine]
	strange := m == nil || !m.Admitted
	if err := f.crowded(machine, strange); err != nil {
		return nil, err
	}
	if f.claims[machine]++; strange {
		f.strangers++
	}
	f.revision++
	if f.waitsHere(machine) {
		f.wake() // its place may be another's turn
	}
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.claims[machine]--; f.claims[machine] == 0 {
			delete(f.claims, machine)
			f.seen[machine] = f.now() // until a moment ago
		}
		if strange {
			f.strangers--
		}
		f.revision++
	}, nil
}

// waitsHere reports whether a machine has a job that waits. The caller holds mu.
func (f *Fleet) waitsHere(machine string) bool {
	return slices.ContainsFunc(f.todo[machine], func(j *Job) bool { return j.waits() })
}

// waits reports whether a job waits for its turn, or for its machine, which may have paused it.
func (j *Job) waits() bool {
	return j.State == job.Waiting || j.State == job.Paused && !j.HeldByOperator
}

// preloading says that seed nodes still fetch what a job's deployment has them fetch first, or returns "". The caller
// holds mu.
func (f *Fleet) preloading(j *Job) string {
	dep := f.state.deployments[j.Deployment]
	if dep == nil || dep.Preload == 0 || dep.Preloaded {
		return ""
	}
	held, wanted := f.preloaded(dep)
	switch {
	case len(f.nodes) == 0:
		return fmt.Sprintf("waits for seed nodes, which are to fetch %.0f %% of %s: none is there", 100*dep.Preload, dep.ImageName)
	case wanted == 0:
		return fmt.Sprintf("waits for the seed nodes to fetch %.0f %% of %s: they begin", 100*dep.Preload, dep.ImageName)
	}
	return fmt.Sprintf("waits for the seed nodes to fetch %.0f %% of %s: they have %.0f %% of that", 100*dep.Preload, dep.ImageName, 100*float64(held)/float64(wanted))
}

// preloaded returns how many bytes the seed nodes hold of those that they are to fetch for a deployment; those that cannot, for
// a full disk, do not count. The caller holds mu.
func (f *Fleet) preloaded(dep *Deployment) (held, wanted int64) {
	for _, n := range f.nodes {
		for _, i := range n.report.Images {
			if i.InfoHash == dep.InfoHash && i.Problem == "" {
				held, wanted = held+min(i.Held, i.Wanted), wanted+i.Wanted
			}
		}
	}
	return held, wanted
}

// preloadGrace is how long seed nodes have to take an order, or to be heard of again after the appliance was started, before a
// deployment begins without them.
const preloadGrace = 30 * time.Second

// preloads returns the deployments that wait for seed nodes, by ID. The caller holds mu.
func (f *Fleet) preloads() (list []*Deployment) {
	seen := map[string]bool{}
	for _, j := range f.open {
		if seen[j.Deployment] {
			continue
		}
		seen[j.Deployment] = true
		if dep := f.state.deployments[j.Deployment]; dep != nil && dep.Preload > 0 && !dep.Preloaded {
			list = append(list, dep)
		}
	}
	slices.SortFunc(list, func(a, b *Deployment) int { return strings.Compare(a.ID, b.ID) })
	return list
}

// tidyPreloads lets deployments begin whose share the seed nodes hold, and those for which there are none.
func (f *Fleet) tidyPreloads(ctx context.Context, now time.Time) error {
	without := map[string]bool{} // those that begin though no seed node fetches for them
	f.mu.RLock()
	list := slices.DeleteFunc(f.preloads(), func(dep *Deployment) bool {
		held, wanted := f.preloaded(dep)
		if wanted > 0 {
			return held < wanted
		}
		without[dep.ID] = true
		since, older := dep.Created, dep.Created.Before(f.started)
		if older {
			since = f.started
		}
		return (len(f.nodes) > 0 || older) && now.Sub(since) < preloadGrace
	})
	f.mu.RUnlock()
	if len(list) == 0 {
		return nil
	}
	return f.schedule(ctx, func(d *draft) error {
		for _, dep := range list {
			if dep = d.deployment(dep.ID); dep != nil && !dep.Preloaded {
				d.editDeployment(dep).Preloaded = true
				text := "the seed nodes hold what they were to fetch of " + dep.ImageName + " first"
				if without[dep.ID] {
					text = "no seed node fetches " + dep.ImageName + " first: its machines begin without"
				}
				d.event(Event{Kind: "deployment.preloaded", Deployment: dep.ID, Text: text})
			}
		}
		return nil
	})
}

// again decides whether a job that failed is tried once more by itself, and has it wait for that.
func (d *draft) again(j *Job) bool {
	most := d.f.state.settings().Retries
	if dep := d.deployment(j.Deployment); dep != nil && dep.Retries != nil {
		most = *dep.Retries
	}
	if j.Failures > most || !retryable(j.Code) {
		return false
	}
	pause := min(retryPause<<min(j.Failures-1, 20), maxRetryPause)
	j.State, j.NotBefore = job.Waiting, d.f.now().UTC().Add(pause)
	j.Reason = fmt.Sprintf("failed and is tried again (%d of %d): %s", j.Failures, most, j.Reason)
	d.jobEvent(j)
	return true
}

// retryPause is before the first try after a failure; it doubles, up to maxRetryPause.
const (
	retryPause    = 10 * time.Second
	maxRetryPause = 4 * time.Minute
)

// retryable reports whether a failure may go away by itself: what came of the network, or of the appliance. A disk that fails
// is not written again, and what a person has to change stays as it is.
func retryable(code string) bool {
	switch code {
	case "swarm-error", "image-error", "appliance-error", "frame-refused", "receipt-refused", "receipt-unsigned", "verify-error", "disk-busy":
		return true
	}
	return false
}

// Retry has a job that failed or was cancelled done again, at the end of the queue; a wipe needs RetryConfirmed.
func (f *Fleet) Retry(ctx context.Context, id string) (*JobView, error) {
	return f.RetryConfirmed(ctx, id, "")
}

// RetryConfirmed is Retry with the word that confirms it: "wipe" of a wipe, as at its order, and "" of all others.
func (f *Fleet) RetryConfirmed(ctx context.Context, id, confirm string) (*JobView, error) {
	if err := may(ctx, RoleOperator, "retry a job"); err != nil {
		return nil, err
	}
	var again *Job
	err := f.change(ctx, func(d *draft) error {
		j := d.job(id)
		if j == nil {
			return refuse(CodeJobUnknown, "no job has the ID %q", id)
		}
		err := confirmed(j.Kind, confirm)
		if err == nil {
			err = d.expected(ctx, j, "job "+id)
		}
		if err == nil {
			again, err = d.retry(ctx, j)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	f.mu.RLock()
	defer f.mu.RUnlock()
	view := f.jobView(f.state.jobs[again.ID])
	return &view, nil
}

// retry makes a new job like one that has ended without success.
func (d *draft) retry(ctx context.Context, j *Job) (*Job, error) {
	switch {
	case !j.State.Ended():
		return nil, refuse(CodeInvalid, "job %s has not ended; cancel it first, or wait", j.ID)
	case j.State == job.Succeeded:
		return nil, refuse(CodeJobEnded, "job %s has succeeded; order it anew", j.ID)
	case j.Capture != nil:
		return nil, refuse(CodeInvalid, "a capture is ordered anew (`seedbed capture`), since its image may have another version")
	case j.RetriedBy != "":
		return nil, refuse(CodeInvalid, "job %s was tried again already, as job %s", j.ID, j.RetriedBy)
	}
	m := d.today(j.Machine)
	switch {
	case m == nil:
		return nil, refuse(CodeMachineUnknown, "the machine of job %s was removed; order the image anew for the machine that it is now", j.ID)
	case (j.Kind.OfImage() || j.Kind == job.WipeDisk) && d.outlived(j):
		return nil, refuse(CodeJobEnded, "%s got %s since job %s ended, which the job would take away; order it anew if it is to have that", m.Name, m.Deployed.ImageName, j.ID)
	case j.Kind == job.WipeDisk && j.Work != nil && j.Work.DiskSerial == "":
		if err := oneDisk(m); err != nil {
			return nil, err
		}
	}
	for _, o := range d.jobsOf(m.ID) {
		if !o.State.Ended() {
			return nil, refuse(CodeMachineBusy, "the machine has job %s, which has not ended; cancel it first (`seedbed job cancel %s`)", o.ID, o.ID)
		}
	}
	again := &Job{
		ID: newID(), Kind: j.Kind, Machine: m.ID, Deployment: j.Deployment, Image: j.Image, ImageName: j.ImageName, InfoHash: j.InfoHash,
		Priority: j.Priority, Windowless: j.Windowless, Options: j.Options, Work: j.Work, Before: j.Before, State: job.Waiting,
		Created: d.f.now().UTC(), Reason: "is tried again by a person",
	}
	d.editJob(j).RetriedBy = again.ID
	d.add(again)
	d.jobEventBy(ctx, again)
	return again, nil
}

// today returns the machine that a record of a machine is now, which may have been merged, or nil.
func (d *draft) today(id string) *Machine {
	m := d.machine(id)
	for m != nil && m.MergedInto != "" && m.MergedInto != id { // chains are short, and no one is merged into what was merged
		m = d.machine(m.MergedInto)
	}
	return m
}

// RetryFailed has the jobs of a deployment done again that failed, and returns how many. Machines that hold something newer by now, or
// are busy, are left alone; a Refusal says why where all of them are.
func (f *Fleet) RetryFailed(ctx context.Context, deployment string) (count int, err error) {
	if err := may(ctx, RoleOperator, "retry jobs"); err != nil {
		return 0, err
	}
	err = f.change(ctx, func(d *draft) error {
		count = 0
		var left []error
		if _, err := d.known(ctx, deployment); err != nil {
			return err
		}
		for _, j := range d.jobs() {
			if j.Deployment != deployment || j.State != job.Failed || j.RetriedBy != "" {
				continue
			}
			if _, err := d.retry(ctx, j); err != nil { // a machine that is busy has something newer to do, or holds it
				left = append(left, err)
				continue
			}
			count++
		}
		if count == 0 && len(left) > 0 {
			return refuse(CodeInvalid, "none of the %d jobs that failed can be done again; of the first: %v", len(left), left[0])
		}
		return nil
	})
	return count, err
}

// outlived reports whether a machine holds something that came after a job: a room that is tried again goes back to nothing older.
func (d *draft) outlived(j *Job) bool {
	m := d.today(j.Machine)
	return m != nil && m.Deployed != nil && m.Deployed.written().After(j.Ended)
}

// Prioritise gives a job another priority.
func (f *Fleet) Prioritise(ctx context.Context, id string, priority int) error {
	return f.PrioritiseAt(ctx, id, 0, priority)
}

// PrioritiseAt is Prioritise for who decided it by a version of the record; 0 is any.
func (f *Fleet) PrioritiseAt(ctx context.Context, id string, version int64, priority int) error {
	return f.PrioritiseAll(ctx, []Prioritised{{id, version, priority}})
}

// Prioritised is another priority of a job.
type Prioritised struct {
	Job      string // ID
	Version  int64  // of the record by which it was decided; 0 is any
	Priority int
}

// PrioritiseAll gives jobs other priorities: all of them, or, where one is refused, none.
func (f *Fleet) PrioritiseAll(ctx context.Context, list []Prioritised) error {
	if err := may(ctx, RoleOperator, "change a job's priority"); err != nil {
		return err
	}
	return f.change(ctx, func(d *draft) error {
		for _, p := range list {
			if err := d.prioritise(ctx, p); err != nil {
				return err
			}
		}
		return nil
	})
}

func (d *draft) prioritise(ctx context.Context, p Prioritised) error {
	j := d.job(p.Job)
	switch {
	case p.Priority < -maxPriority || p.Priority > maxPriority:
		return refuse(CodeInvalid, "a priority is from %d to %d, not %d", -maxPriority, maxPriority, p.Priority)
	case j == nil:
		return refuse(CodeJobUnknown, "no job has the ID %q", p.Job)
	case j.State.Ended():
		return refuse(CodeJobEnded, "job %s has already %s", p.Job, j.State)
	case d.changed(j, p.Version):
		return refuse(CodeChanged, "job %s was changed meanwhile: it is %s, with priority %d; look again", p.Job, j.State, j.Priority)
	case j.Priority == p.Priority:
		return nil
	}
	d.editJob(j).Priority = p.Priority
	d.event(by(ctx, Event{Kind: "job.priority", Machine: j.Machine, Job: j.ID, Deployment: j.Deployment,
		Text: fmt.Sprintf("job %s has priority %d now, it had %d", j.ID, p.Priority, j.Priority)}))
	return nil
}
