package fleet

import (
	"context"
	"slices"
	"strings"
	"time"

	"seedbed/appliance/job"
)

// Order asks for a deployment.
type Order struct {
	Image string `json:"image"` // name, name:version or the beginning of a digest
	// All is for each machine of the site, those seen later too; else Machines are IDs, names or MACs.
	All      bool     `json:"all"`
	Machines []string `json:"machines,omitempty"`
	// SeedFor is how long a finished machine serves others at most; 0 is 60 s.
	SeedFor time.Duration `json:"seed_for,omitempty"`
	// After is "reboot" (also if empty), "poweroff" or "stay".
	After string `json:"after,omitempty"`
}

// defaultSeedFor bounds how long a finished machine waits for others.
const defaultSeedFor = 60 * time.Second

// Deploy makes a deployment and a job for each of its machines. A deployment to all machines closes an earlier one to
// all: machines seen from now on get the new image. A machine at work finishes its present job first.
func (f *Fleet) Deploy(ctx context.Context, o Order) (*Deployment, error) {
	image, err := f.config.Library.Image(ctx, o.Image)
	if err != nil {
		return nil, err
	}
	if o.All == (len(o.Machines) > 0) {
		return nil, refuse(CodeInvalid, "a deployment is either for all machines or for those that are named")
	}
	if o.SeedFor < 0 {
		return nil, refuse(CodeInvalid, "machines cannot serve others for a negative time")
	}
	if o.SeedFor == 0 {
		o.SeedFor = defaultSeedFor
	}
	switch o.After {
	case "":
		o.After = "reboot"
	case "reboot", "poweroff", "stay":
	default:
		return nil, refuse(CodeInvalid, "after a job a machine can reboot, poweroff or stay, not %q", o.After)
	}
	dep := &Deployment{
		ID: newID(), Image: image.Digest, ImageName: image.Name(), InfoHash: image.InfoHash, All: o.All, Closed: !o.All,
		SeedFor: o.SeedFor, After: o.After, Created: f.now().UTC(),
	}
	err = f.change(ctx, func(d *draft) error {
		machines := d.machines()
		if !o.All {
			var err error
			if machines, err = pick(machines, o.Machines); err != nil {
				return err
			}
		} else {
			for _, old := range d.deployments() {
				if old.All && !old.Closed {
					d.editDeployment(old).Closed = true
				}
			}
		}
		d.add(dep)
		d.event(Event{Kind: "deployment.created", Deployment: dep.ID, Text: "deployment of " + dep.ImageName + " begins"})
		slices.SortFunc(machines, func(a, b *Machine) int { return strings.Compare(a.ID, b.ID) })
		for _, m := range machines {
			if m.Admitted {
				d.addJob(dep, m)
			} else if !o.All {
				return refuse(CodeInvalid, "%s is not admitted; admit it by the code on its screen first", m.Name)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return dep, nil
}

// pick returns the machines that the names mean.
func pick(machines []*Machine, names []string) (list []*Machine, err error) {
	for _, name := range names {
		m, err := find(machines, name)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(list, m) {
			list = append(list, m)
		}
	}
	return list, nil
}

// find returns the one machine with this ID, name, MAC or serial number.
func find(machines []*Machine, name string) (found *Machine, err error) {
	mac := strings.ReplaceAll(strings.ToLower(name), "-", ":")
	for _, m := range machines {
		serial := m.Inventory != nil && name == m.Inventory.Serial && name != ""
		if m.ID != name && m.Name != name && !slices.Contains(m.MACs, mac) && !serial {
			continue
		}
		if found != nil {
			return nil, refuse(CodeAmbiguous, "%q is %s and %s; name the machine by its ID", name, found.ID, m.ID)
		}
		found = m
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
		if dep.All && !dep.Closed && !slices.ContainsFunc(d.jobs(), func(j *Job) bool {
			return j.Deployment == dep.ID && j.Machine == m.ID
		}) {
			d.addJob(dep, m)
		}
	}
}

// addJob gives a machine a job. Jobs of other deployments that it has not begun make way, and jobs that it paused: they
// wait for a person to change something (another disk), and this is what the person changed. A capture that it has not
// begun comes first, since the deployment would destroy what is to be captured.
func (d *draft) addJob(dep *Deployment, m *Machine) {
	for _, j := range d.openJobs() {
		if j.Machine == m.ID && !j.HeldByOperator && (j.State == job.Waiting && j.Epoch == 0 && j.Kind != job.Capture || j.State == job.Paused) {
			own := d.editJob(j)
			d.end(own, job.Cancelled, "superseded", "a later deployment took its place")
		}
	}
	j := &Job{
		ID: newID(), Kind: job.Deploy, Machine: m.ID, Deployment: dep.ID, State: job.Waiting, Created: d.f.now().UTC(),
		Image: dep.Image, ImageName: dep.ImageName, InfoHash: dep.InfoHash, Reason: waitsForBoot,
		Priority: dep.Priority, NotBefore: dep.NotBefore, Windowless: dep.Windowless,
	}
	d.add(j)
	d.jobEvent(j)
}

// end ends a job that is in the draft.
func (d *draft) end(j *Job, state job.State, code, reason string) {
	j.State, j.Code, j.Reason, j.Ended = state, code, reason, d.f.now().UTC()
	d.jobEvent(j)
}

// jobEvent records the state that a job has come to.
func (d *draft) jobEvent(j *Job) { d.jobEventBy(context.Background(), j) }

// jobEventBy is jobEvent where somebody asked for it.
func (d *draft) jobEventBy(ctx context.Context, j *Job) {
	name := j.Machine
	if m := d.machine(j.Machine); m != nil {
		name = m.Name
	}
	text := name + ": job " + j.ID + " (" + j.ImageName + ") is " + string(j.State)
	if j.Reason != "" {
		text += ": " + j.Reason
	}
	d.event(by(ctx, Event{Kind: "job." + string(j.State), Machine: j.Machine, Job: j.ID, Deployment: j.Deployment, Text: text}))
}

// Admit admits the machine with this code, ID, name or MAC; open deployments to all machines give it a job.
func (f *Fleet) Admit(ctx context.Context, name string) (*Machine, error) {
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
		admitted = m
		if m.Admitted {
			return nil
		}
		own := d.editMachine(m)
		own.Admitted, own.Code = true, ""
		admitted = own
		d.event(Event{Kind: "machine.admitted", Machine: m.ID, Text: m.Name + " was admitted"})
		d.enlist(own)
		return nil
	})
	return admitted, err
}

// CloseDeployment ends the growth of a deployment to all machines; its jobs go on.
func (f *Fleet) CloseDeployment(ctx context.Context, id string) error {
	return f.change(ctx, func(d *draft) error {
		dep := d.deployment(id)
		if dep == nil {
			return refuse(CodeInvalid, "no deployment has the ID %q", id)
		}
		d.editDeployment(dep).Closed = true
		d.event(Event{Kind: "deployment.closed", Deployment: id, Text: "machines seen from now on do not get " + dep.ImageName})
		return nil
	})
}

// Cancel ends a job before its end; the machine hears it with its next report.
func (f *Fleet) Cancel(ctx context.Context, id string) error {
	return f.operate(ctx, id, func(d *draft, j *Job) {
		d.end(j, job.Cancelled, "operator", "a person cancelled the job")
	})
}

// Pause holds a job until Resume.
func (f *Fleet) Pause(ctx context.Context, id string) error {
	return f.operate(ctx, id, func(d *draft, j *Job) {
		j.HeldByOperator, j.State, j.Code, j.Reason = true, job.Paused, "operator", "a person paused the job; resume it to go on"
		d.jobEvent(j)
	})
}

// Resume lets a job that Pause holds go on.
func (f *Fleet) Resume(ctx context.Context, id string) error {
	return f.operate(ctx, id, func(d *draft, j *Job) {
		if !j.HeldByOperator {
			return
		}
		j.HeldByOperator, j.State, j.Code, j.Reason = false, job.Waiting, "", ""
		d.jobEvent(j)
	})
}

func (f *Fleet) operate(ctx context.Context, id string, fn func(d *draft, own *Job)) error {
	return f.change(ctx, func(d *draft) error {
		j := d.job(id)
		if j == nil {
			return refuse(CodeJobUnknown, "no job has the ID %q", id)
		}
		if j.State.Ended() {
			return refuse(CodeJobEnded, "job %s has already %s", id, j.State)
		}
		fn(d, d.editJob(j))
		return nil
	})
}
