package fleet

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"seedbed/appliance/job"
	"seedbed/appliance/queue"
	"seedbed/images"
)

// Order asks for a deployment.
type Order struct {
	Image string `json:"image"` // name, name:version or the beginning of a digest
	// All is for each machine of the site, those seen later too; else Machines are IDs, names or MACs, Groups names of groups.
	All      bool     `json:"all"`
	Machines []string `json:"machines,omitempty"`
	Groups   []string `json:"groups,omitempty"`
	// SeedFor is how long a finished machine serves others at most; 0 is 60 s. SeedUntilDone has it serve until the last one of
	// the deployment is done, those that are not switched on yet too; SeedFor bounds that, 0 is then 4 hours.
	SeedFor       time.Duration `json:"seed_for,omitempty"`
	SeedUntilDone bool          `json:"seed_until_done,omitempty"`
	// After is "reboot" (also if empty), "poweroff" or "stay".
	After string `json:"after,omitempty"`
	// Priority orders the queue, higher first; NotBefore is when machines may begin. Windowless lets them begin outside their
	// groups' windows.
	Priority   int       `json:"priority,omitempty"`
	NotBefore  time.Time `json:"not_before,omitzero"`
	Windowless bool      `json:"windowless,omitempty"`
	// Retries is how often a job that failed of the network is tried again by itself; nil is what the settings say.
	Retries *int `json:"retries,omitempty"`
	// Preload is the share of the image that seed nodes fetch before machines begin, from 0 to 1.
	Preload float64 `json:"preload,omitempty"`
	// Wake has machines woken over the network when it is their turn.
	Wake bool `json:"wake,omitempty"`
	// Options are how the disk is written.
	Options job.Options `json:"options,omitzero"`
}

// defaultSeedFor bounds how long a finished machine waits for others.
const defaultSeedFor = 60 * time.Second

// defaultSeedUntil bounds it where it waits for the last machine of its deployment, which may never be switched on.
const defaultSeedUntil = 4 * time.Hour

// Bounds of an order.
const (
	maxPriority = queue.MaxPriority
	maxRetries  = 100
)

// check completes an order, or says what is wrong with it.
func (o *Order) check() error {
	switch {
	case o.All == (len(o.Machines)+len(o.Groups) > 0):
		return refuse(CodeInvalid, "a deployment is either for all machines or for those that are named, by themselves or by groups")
	case o.SeedFor < 0:
		return refuse(CodeInvalid, "machines cannot serve others for a negative time")
	case o.Priority < -maxPriority || o.Priority > maxPriority:
		return refuse(CodeInvalid, "a priority is from %d to %d, not %d", -maxPriority, maxPriority, o.Priority)
	case o.Retries != nil && (*o.Retries < 0 || *o.Retries > maxRetries):
		return refuse(CodeInvalid, "a job is tried again 0 to %d times, not %d", maxRetries, *o.Retries)
	case !(o.Preload >= 0 && o.Preload <= 1):
		return refuse(CodeInvalid, "a share of an image is from 0 to 100 %%")
	}
	if o.SeedFor == 0 {
		o.SeedFor = defaultSeedFor
		if o.SeedUntilDone {
			o.SeedFor = defaultSeedUntil
		}
	}
	if err := checkStart(o.NotBefore); err != nil {
		return err
	}
	return checkAfter(&o.After)
}

// checkStart refuses times that no job can begin at: a record cannot hold a time after the year 9999.
func checkStart(at time.Time) error {
	if !at.IsZero() && (at.Year() < 2000 || at.Year() > 2200) {
		return refuse(CodeInvalid, "a job cannot begin at %s", at.Format(time.RFC3339))
	}
	return nil
}

// checkOptions completes how the disk is written, or says what the image has not.
func checkOptions(o job.Options, m *images.Manifest) (job.Options, error) {
	if err := o.Check(); err != nil {
		return o, refuse(CodeInvalid, "%v", err)
	}
	for _, number := range o.Keep {
		if !slices.ContainsFunc(m.Partitions, func(p images.Partition) bool { return p.Number == number }) {
			return o, refuse(CodeInvalid, "the image has no partition %d that could be kept; `seedbed image show` lists them", number)
		}
	}
	if len(o.Keep) > 0 && len(o.Keep) == len(m.Partitions) {
		return o, refuse(CodeInvalid, "a deployment that keeps every partition writes nothing; leave one out of --keep")
	}
	return o, nil
}

// Deploy makes a deployment and a job for each of its machines. A deployment to all machines closes an earlier one to
// all: machines seen from now on get the new image. A machine at work finishes its present job first.
func (f *Fleet) Deploy(ctx context.Context, o Order) (*Deployment, error) {
	image, err := f.checked(ctx, &o)
	if err != nil {
		return nil, err
	}
	return f.deploy(ctx, o, image, "")
}

// checked completes an order and finds its image, or says what is wrong with it.
func (f *Fleet) checked(ctx context.Context, o *Order) (*Image, error) {
	if err := may(ctx, RoleOperator, "deploy"); err != nil {
		return nil, err
	}
	image, err := f.config.Library.Image(ctx, o.Image)
	if err != nil {
		return nil, err
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	if o.Options, err = checkOptions(o.Options, image.Manifest); err != nil {
		return nil, err
	}
	if o.Options.Disk != "" && (o.All || len(o.Groups) > 0 || len(o.Machines) != 1) {
		return nil, refuse(CodeInvalid, "a disk is named by its serial number (%s) for one machine at a time; give each machine an order of its own", o.Options.Disk)
	}
	return image, nil
}

func (f *Fleet) deploy(ctx context.Context, o Order, image *Image, instead string) (*Deployment, error) {
	id := newID()
	var made *Deployment
	err := f.change(ctx, func(d *draft) error {
		dep := f.newDeployment(ctx, o, image)
		dep.ID, dep.Instead = id, instead
		made = dep
		machines, err := d.chosen(o)
		if err != nil {
			return err
		}
		if o.All {
			for _, old := range d.deployments() {
				if old.All && !old.Closed {
					d.editDeployment(old).Closed = true
				}
			}
		}
		d.add(dep)
		d.event(by(ctx, Event{Kind: "deployment.created", Deployment: dep.ID, Text: fmt.Sprintf("deployment of %s to %s begins", dep.ImageName, o.whom(len(machines)))}))
		if err := admitted(machines); err != nil && !o.All {
			return err
		}
		if err := d.kept(machines, dep.Options); err != nil {
			return err
		}
		for _, m := range machines {
			if m.Admitted {
				d.addJob(dep, m)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return made, nil
}

// newDeployment is the record of an order that was checked, without its ID.
func (f *Fleet) newDeployment(ctx context.Context, o Order, image *Image) *Deployment {
	dep := &Deployment{
		Image: image.Digest, ImageName: image.Name(), InfoHash: image.InfoHash, All: o.All, Closed: !o.All, SeedFor: o.SeedFor,
		SeedUntilDone: o.SeedUntilDone, After: o.After, Priority: o.Priority, NotBefore: o.NotBefore.UTC(), Windowless: o.Windowless,
		Retries: o.Retries, Preload: o.Preload, Wake: o.Wake, Options: o.Options, Created: f.now().UTC(),
	}
	if a, known := ActorOf(ctx); known {
		dep.By = a.Name
	}
	return dep
}

// admitted returns a Refusal that names the machines that are not.
func admitted(machines []*Machine) error {
	var not []string
	for _, m := range machines {
		if !m.Admitted {
			not = append(not, m.Name)
		}
	}
	switch len(not) {
	case 0:
		return nil
	case 1:
		return refuse(CodeInvalid, "%s is not admitted; admit it by the code on its screen first", not[0])
	}
	return refuse(CodeInvalid, "%d machines are not admitted: %s; admit them by the codes on their screens first", len(not), someOf(not))
}

// kept returns a Refusal that names the machines of which a wipe, which goes first, would take away what an order keeps.
func (d *draft) kept(machines []*Machine, o job.Options) error {
	var lost, wipes []string
	for _, m := range machines {
		for _, j := range d.jobsOf(m.ID) {
			if len(o.Keep) > 0 && j.Kind == job.WipeDisk && !j.State.Ended() && j.State != job.Paused {
				lost, wipes = append(lost, m.Name), append(wipes, j.ID)
			}
		}
	}
	if len(lost) == 0 {
		return nil
	}
	return refuse(CodeInvalid, "a wipe that was ordered before goes first on %s, and takes away the partitions that are to be kept; cancel it (`seedbed job cancel %s`), or deploy without --keep",
		someOf(lost), wipes[0])
}

// whom says for people which machines an order is for.
func (o *Order) whom(n int) string {
	switch {
	case o.All:
		return "all machines"
	case n == 1:
		return "1 machine"
	case len(o.Groups) == 1 && len(o.Machines) == 0:
		return fmt.Sprintf("the %d machines of %s", n, o.Groups[0])
	}
	return fmt.Sprintf("%d machines", n)
}

// chosen returns the machines that an order is for, by ID.
func (d *draft) chosen(o Order) (list []*Machine, err error) {
	all := d.machines()
	if o.All {
		list = all
	} else if list, err = d.pick(all, o.Machines, o.Groups); err != nil {
		return nil, err
	}
	slices.SortFunc(list, func(a, b *Machine) int { return strings.Compare(a.ID, b.ID) })
	return list, nil
}

// pick returns the machines that names of machines and of groups mean.
func (d *draft) pick(machines []*Machine, names, groups []string) (list []*Machine, err error) {
	seen := map[string]bool{}
	add := func(m *Machine) {
		if !seen[m.ID] {
			seen[m.ID] = true
			list = append(list, m)
		}
	}
	for _, name := range names {
		m, err := find(machines, name)
		if err != nil {
			return nil, err
		}
		add(m)
	}
	for _, name := range groups {
		g, err := d.group(name)
		if err != nil {
			return nil, err
		}
		before := len(list)
		for _, m := range machines {
			if slices.Contains(m.Groups, g.ID) {
				add(m)
			}
		}
		if len(list) == before && len(groups)+len(names) == 1 {
			return nil, refuse(CodeInvalid, "no machine belongs to group %s; `seedbed group add %s MACHINE` puts one into it", g.Name, g.Name)
		}
	}
	return list, nil
}

// find returns the one machine with this ID, name, MAC or serial number.
func find(machines []*Machine, name string) (found *Machine, err error) {
	mac := typedMAC(name)
	// What a machine says of itself, as its serial number, takes no other machine's ID or name away.
	for _, is := range []func(*Machine) bool{
		func(m *Machine) bool { return m.ID == name },
		func(m *Machine) bool { return m.Name == name || mac != "" && slices.Contains(m.MACs, mac) },
		func(m *Machine) bool { return m.Inventory != nil && name == m.Inventory.Serial && name != "" },
	} {
		for _, m := range machines {
			if !is(m) {
				continue
			}
			if found != nil {
				return nil, refuse(CodeAmbiguous, "%q is %s and %s; name the machine by its ID", name, found.ID, m.ID)
			}
			found = m
		}
		if found != nil {
			break
		}
	}
	if found == nil {
		return nil, refuse(CodeMachineUnknown, "no machine has the ID, name, MAC or serial number %q; `seedbed machine ls` lists them", name)
	}
	return found, nil
}

// enlist gives an admitted machine a job of each open deployment that it has none of.
func (d *draft) enlist(m *Machine) {
	if !m.Admitted {
		return
	}
	for _, dep := range d.deployments() {
		if dep.All && !dep.Closed && !d.had(dep, m) {
			d.addJob(dep, m)
		}
	}
}

// had reports whether a machine has, or had, a job of a deployment.
func (d *draft) had(dep *Deployment, m *Machine) bool {
	stored := d.f.state.jobs
	if d.f.state.machines[m.ID] == nil { // a machine that is new has none but in the draft
		stored = nil
	}
	return slices.ContainsFunc(every(d, KindJob, stored), func(j *Job) bool { return j.Deployment == dep.ID && j.Machine == m.ID })
}

// addJob gives a machine a job. Jobs of other deployments that it has not begun make way, and jobs that it paused: they
// wait for a person to change something (another disk), and this is what the person changed. A capture or a wipe that it has not
// begun comes first, see Job.first: what is to be wiped before a new image comes is not forgotten for that.
func (d *draft) addJob(dep *Deployment, m *Machine) *Job {
	for _, j := range d.jobsOf(m.ID) {
		if !j.State.Ended() && !j.HeldByOperator &&
			(j.State == job.Waiting && j.Epoch == 0 && !j.first() || j.State == job.Paused) {
			d.end(d.editJob(j), job.Cancelled, "superseded", "a later deployment took its place")
		}
	}
	j := &Job{
		ID: newID(), Kind: job.Deploy, Machine: m.ID, Deployment: dep.ID, State: job.Waiting, Created: d.f.now().UTC(),
		Image: dep.Image, ImageName: dep.ImageName, InfoHash: dep.InfoHash, Reason: waitsForBoot,
		Priority: dep.Priority, NotBefore: dep.NotBefore, Windowless: dep.Windowless, Options: dep.Options,
	}
	if dep.Paused {
		j.HeldByOperator, j.State, j.Code, j.Reason = true, job.Paused, "operator", "the deployment is paused; resume it to go on"
	}
	d.add(j)
	d.jobEvent(j)
	return j
}

// end ends a job that is in the draft.
func (d *draft) end(j *Job, state job.State, code, reason string) {
	d.endBy(context.Background(), j, state, code, reason)
}

// endBy is end where somebody asked for it.
func (d *draft) endBy(ctx context.Context, j *Job, state job.State, code, reason string) {
	j.State, j.Code, j.Reason, j.Ended = state, code, reason, d.f.now().UTC()
	if state != job.Succeeded && !d.plan { // whose last report is its receipt's, or that does not end in truth
		j.counts(d.f.lastOf(j))
	}
	d.jobEventBy(ctx, j)
}

// jobEvent records the state that a job has come to.
func (d *draft) jobEvent(j *Job) { d.jobEventBy(context.Background(), j) }

// jobEventBy is jobEvent where somebody asked for it.
func (d *draft) jobEventBy(ctx context.Context, j *Job) {
	name := j.Machine
	if m := d.machine(j.Machine); m != nil {
		name = m.Name
	}
	text := name + ": job " + j.ID + " (" + orEmpty(j.ImageName, string(j.Kind)) + ") is " + string(j.State)
	if j.Reason != "" {
		text += ": " + j.Reason
	}
	d.event(by(ctx, Event{Kind: "job." + string(j.State), Machine: j.Machine, Job: j.ID, Deployment: j.Deployment, Text: text}))
}

// Admit admits the machine with this code, ID, name or MAC; open deployments to all machines give it a job.
func (f *Fleet) Admit(ctx context.Context, name string) (*Machine, error) {
	if err := may(ctx, RoleOperator, "admit machines"); err != nil {
		return nil, err
	}
	var admitted *Machine
	err := f.change(ctx, func(d *draft) error {
		machines := d.machines()
		code := strings.ToUpper(strings.TrimSpace(name))
		i := slices.IndexFunc(machines, func(m *Machine) bool { return m.Code != "" && m.Code == code })
		m := (*Machine)(nil)
		if i >= 0 {
			m = machines[i]
		} else if found, err := find(machines, name); err == nil {
			m = found
		} else {
			return refuse(CodeCodeUnknown, "no machine shows the code %q; read it from the machine's screen again", name)
		}
		if err := d.expected(ctx, m, m.Name); err != nil {
			return err
		}
		admitted = m
		if m.vouched() {
			return nil
		}
		own := d.editMachine(m)
		own.admit()
		admitted = own
		d.event(by(ctx, Event{Kind: "machine.admitted", Machine: m.ID, Text: m.Name + " was admitted"}))
		d.enlist(own)
		return nil
	})
	return admitted, err
}

// CloseDeployment ends the growth of a deployment to all machines; its jobs go on.
func (f *Fleet) CloseDeployment(ctx context.Context, id string) error {
	if err := may(ctx, RoleOperator, "close deployments"); err != nil {
		return err
	}
	return f.change(ctx, func(d *draft) error {
		dep, err := d.known(ctx, id)
		if err != nil {
			return err
		}
		d.editDeployment(dep).Closed = true
		d.event(by(ctx, Event{Kind: "deployment.closed", Deployment: id, Text: "machines seen from now on do not get " + dep.ImageName}))
		return nil
	})
}

// known returns the deployment with an ID, if it is as the caller expects.
func (d *draft) known(ctx context.Context, id string) (*Deployment, error) {
	dep := d.deployment(id)
	if dep == nil {
		return nil, refuse(CodeDeploymentUnknown, "no deployment has the ID %q; `seedbed deployment ls` lists them", id)
	}
	return dep, d.expected(ctx, dep, "deployment "+id)
}

// Rollback puts on the machines of a deployment what each held before it: the image of its last successful job before. Only
// what differs travels. Machines that held nothing of Seedbed's, or got another image since, stay as they are; their number is
// returned beside.
func (f *Fleet) Rollback(ctx context.Context, id string) (made []*Deployment, left int, err error) {
	back, err := f.back(ctx, id)
	if err != nil {
		return nil, back.left, err
	}
	dep := back.dep
	for d, machines := range back.machines {
		o := Order{Machines: machines, SeedFor: dep.SeedFor, SeedUntilDone: dep.SeedUntilDone, After: dep.After, Priority: dep.Priority,
			Windowless: dep.Windowless, Retries: dep.Retries, Wake: dep.Wake, Options: dep.Options}
		one, err := f.deploy(ctx, o, back.images[d], id)
		if err != nil {
			return made, back.left, err
		}
		made = append(made, one)
	}
	return made, back.left, nil
}

// Back is what a rollback gives some of its machines.
type Back struct {
	ImageName string // "name:version"
	Machines  int
}

// PlanRollback says what Rollback would do, and changes nothing: what how many machines would get, and how many would stay as they are.
func (f *Fleet) PlanRollback(ctx context.Context, id string) (list []Back, left int, err error) {
	back, err := f.back(ctx, id)
	if err != nil {
		return nil, back.left, err
	}
	for d, machines := range back.machines {
		list = append(list, Back{back.images[d].Name(), len(machines)})
	}
	slices.SortFunc(list, func(a, b Back) int { return strings.Compare(a.ImageName, b.ImageName) })
	return list, back.left, nil
}

// wayBack is what a rollback is made of.
type wayBack struct {
	dep      *Deployment
	machines map[images.Digest][]string // IDs, by what they held before
	images   map[images.Digest]*Image
	left     int // machines that stay as they are
}

// back finds out what a rollback does, or refuses it.
func (f *Fleet) back(ctx context.Context, id string) (b wayBack, err error) {
	if err := may(ctx, RoleOperator, "roll back"); err != nil {
		return b, err
	}
	b.machines, b.images = map[images.Digest][]string{}, map[images.Digest]*Image{}
	f.mu.RLock()
	b.dep, err = newDraft(f, nil).known(ctx, id)
	held := map[string]*Job{} // the first job of each machine
	for _, j := range f.state.jobs {
		if j.Deployment != id || j.Kind != job.Deploy || j.Claimed.IsZero() {
			continue
		}
		if had := held[j.Machine]; had == nil || j.Created.Before(had.Created) {
			held[j.Machine] = j
		}
	}
	for machine, j := range held {
		m := f.state.machines[machine]
		if j.Before.IsZero() || m == nil || m.MergedInto != "" || !m.Admitted || m.movedOn(b.dep, j) { // what was removed since keeps no room from going back
			b.left++
			continue
		}
		b.machines[j.Before] = append(b.machines[j.Before], machine)
	}
	f.mu.RUnlock()
	switch {
	case err != nil:
		b.left = 0
		return b, err
	case len(b.machines) == 0:
		return b, refuse(CodeInvalid, "no machine of deployment %s is known to have held an image before it and to have got none since", id)
	}
	for d := range b.machines { // all are looked for before any machine is touched
		if b.images[d], err = f.config.Library.Image(ctx, d.String()); err != nil {
			return b, err
		}
		if _, err := checkOptions(b.dep.Options, b.images[d].Manifest); err != nil {
			return b, err
		}
	}
	return b, nil
}

// movedOn reports whether a machine got another image since its job of a deployment ended.
func (m *Machine) movedOn(dep *Deployment, j *Job) bool {
	return dep != nil && m.Deployed != nil && m.Deployed.Image != dep.Image && !j.Ended.IsZero() && m.Deployed.written().After(j.Ended)
}
