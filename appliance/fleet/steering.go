package fleet

import (
	"context"
	"fmt"

	"seedbed/appliance/job"
)

// Cancel ends a job before its end; the machine hears it with its next report.
func (f *Fleet) Cancel(ctx context.Context, id string) error {
	return f.Steer(ctx, id, 0, CancelAll)
}

func (d *draft) cancel(ctx context.Context, own *Job) {
	d.endBy(ctx, own, job.Cancelled, "operator", "a person cancelled the job")
}

// Pause holds a job until Resume.
func (f *Fleet) Pause(ctx context.Context, id string) error {
	return f.Steer(ctx, id, 0, PauseAll)
}

func (d *draft) pause(ctx context.Context, own *Job) {
	own.HeldByOperator, own.State, own.Code, own.Reason = true, job.Paused, "operator", "a person paused the job; resume it to go on"
	d.jobEventBy(ctx, own)
}

// Resume lets a job that Pause holds go on.
func (f *Fleet) Resume(ctx context.Context, id string) error {
	return f.Steer(ctx, id, 0, ResumeAll)
}

func (d *draft) resume(ctx context.Context, own *Job) {
	if !own.HeldByOperator {
		return
	}
	own.HeldByOperator, own.State, own.Code, own.Reason = false, job.Waiting, "", ""
	own.uncall()
	d.jobEventBy(ctx, own)
}

// Steer cancels, pauses or resumes one job. version is that of the record it was decided by; 0 is any.
func (f *Fleet) Steer(ctx context.Context, id string, version int64, verb Verb) error {
	if err := may(ctx, RoleOperator, string(verb)+" jobs"); err != nil {
		return err
	}
	do := verb.do()
	if do == nil {
		return refuse(CodeInvalid, "a job can be cancelled, paused and resumed; %q is none of these", verb)
	}
	return f.change(ctx, func(d *draft) error {
		j := d.job(id)
		if j == nil {
			return refuse(CodeJobUnknown, "no job has the ID %q", id)
		}
		if j.State.Ended() {
			return refuse(CodeJobEnded, "job %s has already %s", id, j.State)
		}
		if d.changed(j, version) {
			return refuse(CodeChanged, "job %s is %s, and was changed meanwhile; look again", id, j.State)
		}
		if m := d.today(j.Machine); verb == ResumeAll && j.Kind == job.WipeDisk && m != nil {
			if image := d.overtook(j, m); image != "" {
				return refuse(CodeInvalid, "%s got %s since the wipe %s was ordered, or is at it, and the wipe would take it away; cancel the wipe, and order it anew if it is to be", m.Name, image, id)
			}
		}
		do(d, ctx, d.editJob(j))
		return nil
	})
}

// overtook returns the name of the image that came onto a machine's disk, or began to, while a wipe that was ordered before was held; "" is
// none.
func (d *draft) overtook(wipe *Job, m *Machine) (image string) {
	if m.Deployed != nil && m.Deployed.written().After(wipe.Created) {
		return m.Deployed.ImageName
	}
	for _, o := range d.jobsOf(m.ID) {
		if o.Kind == job.Deploy && o.Epoch > 0 && !o.State.Ended() {
			return o.ImageName
		}
	}
	return ""
}

// Verb is what can be done with a job, or with all jobs of a deployment, that have not ended.
type Verb string

const (
	CancelAll Verb = "cancel"
	PauseAll  Verb = "pause"
	ResumeAll Verb = "resume"
)

// do is what is done with one job, nil for what is no verb.
func (v Verb) do() func(*draft, context.Context, *Job) {
	return map[Verb]func(*draft, context.Context, *Job){CancelAll: (*draft).cancel, PauseAll: (*draft).pause, ResumeAll: (*draft).resume}[v]
}

// OperateDeployment cancels, pauses or resumes all jobs of a deployment that have not ended, and returns how many. A
// cancelled deployment to all machines is closed too.
func (f *Fleet) OperateDeployment(ctx context.Context, id string, verb Verb) (count int, err error) {
	if err := may(ctx, RoleOperator, string(verb)+" deployments"); err != nil {
		return 0, err
	}
	do := verb.do()
	if do == nil {
		return 0, refuse(CodeInvalid, "a deployment can be cancelled, paused and resumed; %q is none of these", verb)
	}
	err = f.change(ctx, func(d *draft) error {
		count = 0
		dep, err := d.known(ctx, id)
		if err != nil {
			return err
		}
		if own := d.editDeployment(dep); verb == CancelAll {
			own.Closed = own.Closed || own.All
		} else {
			own.Paused = verb == PauseAll
		}
		for _, j := range d.openJobs() {
			if j.Deployment != id || j.State.Ended() || verb == ResumeAll && !j.HeldByOperator || verb == PauseAll && j.HeldByOperator {
				continue
			}
			do(d, ctx, d.editJob(j))
			count++
		}
		d.event(by(ctx, Event{Kind: "deployment." + string(verb), Deployment: id,
			Text: fmt.Sprintf("deployment of %s: %s, %d jobs", dep.ImageName, verb, count)}))
		return nil
	})
	return count, err
}
