package api

import (
	"context"
	"strings"
	"time"

	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
	"seedbed/images"
)

// JobQuery says which jobs are asked for; empty fields ask for all.
type JobQuery struct {
	ID         string    `query:"id" maxLength:"65536" doc:"Only this job, or these, with commas between."`
	Machine    string    `query:"machine" maxLength:"128" doc:"Only jobs of this machine."`
	Deployment string    `query:"deployment" maxLength:"64" doc:"Only jobs of this deployment."`
	State      job.State `query:"state" maxLength:"32" doc:"Only jobs in this state, or in any that has not ended: open."`
	Kind       job.Kind  `query:"kind" maxLength:"32" doc:"Only jobs of this kind."`
}

// MaxJobIDs bounds the IDs of a JobQuery, in bytes; it is JobQuery.ID's maxLength.
const MaxJobIDs = 65536

// filter returns what says whether a job is asked for.
func (q JobQuery) filter() func(*fleet.JobView) bool {
	ids := map[string]bool{}
	if q.ID != "" {
		for id := range strings.SplitSeq(q.ID, ",") {
			ids[id] = true
		}
	}
	return func(j *fleet.JobView) bool {
		return (q.ID == "" || ids[j.ID]) && (q.Machine == "" || j.Machine == q.Machine) && (q.Deployment == "" || j.Deployment == q.Deployment) &&
			(q.Kind == "" || j.Kind == q.Kind) && (q.State == "" || j.State == q.State || q.State == "open" && !j.State.Ended())
	}
}

type JobPath struct {
	ID string `path:"id" maxLength:"64"`
}

// jobOf returns a job of those in memory. Its version is that of the record: what reports tell of it changes in between.
func (o *Operators) jobOf(id string) (*versioned[Job], error) {
	j, err := o.fleet.Job(id)
	if err != nil {
		return nil, err
	}
	return &versioned[Job]{etag(j.Version), viewJob(*j)}, nil
}

// jobVersion returns what looks up the version of a job.
func (o *Operators) jobVersion(id string) func() (int64, error) {
	return func() (int64, error) {
		j, err := o.fleet.Job(id)
		if err != nil {
			return 0, err
		}
		return j.Version, nil
	}
}

func (o *Operators) addJobs() {
	f := o.fleet
	add(o, "GET", "/jobs", "listJobs", "List the jobs that have not ended, and those of the last 30 days", func(_ context.Context, in *struct {
		Cut
		JobQuery
	}) (*paged[Job], error) {
		if in.Machine != "" {
			m, err := f.Machine(in.Machine)
			if err != nil {
				return nil, err
			}
			in.Machine = m.ID
		}
		list, fits := []Job{}, in.filter()
		for _, j := range f.Jobs() {
			if fits(&j) {
				list = append(list, viewJob(j))
			}
		}
		return page(list, in.Cut, func(j Job) string { return datedKey(j.Created, j.ID) })
	})
	add(o, "GET", "/jobs/{id}", "getJob", "Show a job", func(_ context.Context, in *JobPath) (*versioned[Job], error) {
		return o.jobOf(in.ID)
	})
	add(o, "GET", "/history", "jobHistory", "List jobs that have ended, the latest first, also those of more than 30 days ago", func(ctx context.Context, in *struct {
		Machine    string `query:"machine" maxLength:"128"`
		Deployment string `query:"deployment" maxLength:"64"`
		Cursor     string `query:"cursor" maxLength:"128" doc:"What the page before said as next; or a time, for jobs that ended before it."`
		Limit      int    `query:"limit" minimum:"1" maximum:"1000" default:"100"`
	}) (*answer[Page[Ended]], error) {
		return body(o.history(ctx, in.Machine, in.Deployment, in.Cursor, in.Limit))
	})
	for _, c := range []struct {
		verb        fleet.Verb
		id, summary string
	}{
		{fleet.CancelAll, "cancelJob", "End a job; the machine hears it with its next report"},
		{fleet.PauseAll, "pauseJob", "Hold a job until it is resumed"},
		{fleet.ResumeAll, "resumeJob", "Let a job that a person paused go on, when there is a place for it"},
	} {
		add(o, "POST", "/jobs/{id}/"+string(c.verb), c.id, c.summary, func(ctx context.Context, in *struct {
			JobPath
			Match
		}) (*versioned[Job], error) {
			version, err := in.wanted(o.jobVersion(in.ID))
			if err != nil {
				return nil, err
			}
			if err := f.Steer(ctx, in.ID, version, c.verb); err != nil {
				return nil, err
			}
			return o.jobOf(in.ID)
		}, matched)
	}
	add(o, "POST", "/jobs/{id}/retry", "retryJob", "Have a job that failed or was cancelled done again", func(ctx context.Context, in *struct {
		JobPath
		Match
		Confirm string `query:"confirm" maxLength:"32" doc:"wipe, where the job is one: it destroys everything on the disk."`
	}) (*answer[Job], error) {
		ctx, err := in.expecting(ctx, o.jobVersion(in.ID))
		if err != nil {
			return nil, err
		}
		j, err := f.RetryConfirmed(ctx, in.ID, in.Confirm)
		if err != nil {
			return nil, err
		}
		return body(viewJob(*j), nil)
	}, made, matched)
	add(o, "POST", "/jobs/{id}/priority", "prioritiseJob", "Give a job another priority", func(ctx context.Context, in *struct {
		JobPath
		Match
		Body Priority
	}) (*versioned[Job], error) {
		version, err := in.wanted(o.jobVersion(in.ID))
		if err != nil {
			return nil, err
		}
		if err := f.PrioritiseAt(ctx, in.ID, version, in.Body.Priority); err != nil {
			return nil, err
		}
		return o.jobOf(in.ID)
	}, matched)
	add(o, "POST", "/captures", "capture", "Give a machine the job to make an image of its disk", func(ctx context.Context, in *struct{ Body fleet.CaptureOrder }) (*answer[Job], error) {
		j, err := f.Capture(ctx, in.Body)
		if err != nil {
			return nil, err
		}
		return body(viewJob(*j), nil)
	}, made)
}

// Ended is a job of the history.
type Ended struct {
	ID          string        `json:"id"`
	Kind        job.Kind      `json:"kind"`
	Machine     string        `json:"machine"`
	MachineName string        `json:"machine_name" doc:"Empty where the machine was removed since."`
	Deployment  string        `json:"deployment,omitempty"`
	Image       images.Digest `json:"image"`
	ImageName   string        `json:"image_name"`
	State       job.State     `json:"state"`
	Code        string        `json:"code,omitempty"`
	Reason      string        `json:"reason,omitempty"`
	Log         string        `json:"log,omitempty"`
	Created     time.Time     `json:"created"`
	Started     time.Time     `json:"started,omitzero"`
	Ended       time.Time     `json:"ended"`
}

// history returns a page of jobs that have ended, the latest first. Its cursor is a time, or a time with the ID of a job.
func (o *Operators) history(ctx context.Context, machine, deployment, before string, limit int) (Page[Ended], error) {
	p := Page[Ended]{Items: []Ended{}}
	q := fleet.JobQuery{Deployment: deployment, Limit: limit}
	names := map[string]string{}
	for _, m := range o.fleet.Machines() {
		names[m.ID] = m.Name
	}
	if machine != "" {
		q.Machine = machine
		if m, err := o.fleet.Machine(machine); err == nil { // one that was removed has a history too, by its ID
			q.Machine = m.ID
		}
	}
	if before != "" {
		var at string
		var err error
		at, q.Behind, _ = strings.Cut(before, "/")
		if q.Before, err = time.Parse(time.RFC3339Nano, at); err != nil {
			return p, &fleet.Refusal{Code: fleet.CodeInvalid, Detail: "the cursor is what the page before said as next, or a time like 2026-01-31T18:00:00Z, not " + before}
		}
	}
	jobs, err := o.fleet.History(ctx, q)
	if err != nil {
		return p, err
	}
	for _, j := range jobs {
		p.Items = append(p.Items, Ended{j.ID, j.Kind, j.Machine, names[j.Machine], j.Deployment, j.Image, j.ImageName, j.State, j.Code, j.Reason, j.Log, j.Created, j.Started, j.Ended})
	}
	if n := len(jobs); n == limit {
		p.Next = jobs[n-1].Ended.UTC().Format(time.RFC3339) + "/" + jobs[n-1].ID
	}
	return p, nil
}
