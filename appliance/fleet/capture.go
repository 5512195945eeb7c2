package fleet

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"seedbed/appliance/job"
	"seedbed/images"
	"seedbed/images/intake"
)

// Capture is what a job of kind job.Capture makes. Never changed once it is in a record.
type Capture struct {
	job.CaptureOrder
	// Counted says that Version is the next whole number: should another image take it first, the next one is taken.
	Counted bool `json:"counted,omitempty"`
	// DiskSerial is the disk to be captured, "" for the machine's only one.
	DiskSerial string `json:"disk_serial,omitempty"`
	After      string `json:"after"` // "reboot", "poweroff", "stay"
	// Intent is the image that a commit is about to publish: after a crash it tells whether that was done.
	Intent images.Digest `json:"intent,omitzero"`
}

// CaptureOrder asks for a capture.
type CaptureOrder struct {
	job.CaptureOrder        // Version "" is the next whole number
	Machine          string `json:"machine"` // ID, name, MAC or serial number
	DiskSerial       string `json:"disk_serial,omitempty"`
	// After is "reboot" (also if empty), "poweroff" or "stay".
	After string `json:"after,omitempty"`
}

// Capture gives a machine the job to make an image of its disk. It is refused at once where the version exists, where
// another capture makes it, and where the machine has something else to do first: a deployment would destroy what is to
// be captured.
func (f *Fleet) Capture(ctx context.Context, o CaptureOrder) (*JobView, error) {
	if err := o.Check(); err != nil {
		return nil, refuse(CodeInvalid, "%v", err)
	}
	switch o.After {
	case "":
		o.After = "reboot"
	case "reboot", "poweroff", "stay":
	default:
		return nil, refuse(CodeInvalid, "after a job a machine can reboot, poweroff or stay, not %q", o.After)
	}
	c := &Capture{CaptureOrder: *o.Clone(), Counted: o.Version == "", DiskSerial: o.DiskSerial, After: o.After}
	next, err := f.freeVersion(ctx, c)
	if err != nil {
		return nil, err
	}
	j := &Job{ID: newID(), Kind: job.Capture, State: job.Waiting, Created: f.now().UTC(), Reason: "waits until the machine boots from the network"}
	err = f.change(ctx, func(d *draft) error {
		m, err := find(d.machines(), o.Machine)
		if err != nil {
			return err
		}
		if !m.Admitted {
			return refuse(CodeInvalid, "%s is not admitted; admit it by the code on its screen first", m.Name)
		}
		for _, other := range d.openJobs() {
			if other.Machine == m.ID {
				return refuse(CodeMachineBusy, "%s has job %s (%s %s), which has not ended; wait for it, or end it with `seedbed job cancel %s`",
					m.Name, other.ID, other.Kind, other.ImageName, other.ID)
			}
		}
		own := *c // it may run again: what it was given stays
		if own.Version, err = d.reserve(c, next, j.ID); err != nil {
			return err
		}
		j.Machine, j.Capture, j.ImageName = m.ID, &own, own.Name+":"+own.Version
		d.add(j)
		d.jobEvent(j)
		return nil
	})
	if err != nil {
		return nil, err
	}
	f.mu.RLock()
	defer f.mu.RUnlock()
	view := f.jobView(f.state.jobs[j.ID])
	return &view, nil
}

// freeVersion returns the first whole number that no image has as its version, if c counts; else it refuses a version
// that exists.
func (f *Fleet) freeVersion(ctx context.Context, c *Capture) (next int64, err error) {
	if !c.Counted && f.config.FreeVersion != nil {
		return 0, f.config.FreeVersion(ctx, c.Name, c.Version)
	}
	if !c.Counted {
		_, err := f.config.Library.Image(ctx, c.Name+":"+c.Version)
		if err == nil {
			return 0, refuse(CodeVersionExists, "image %s:%s exists already, and versions never change; choose another version", c.Name, c.Version)
		}
		if r, ok := errors.AsType[*Refusal](err); ok && r.Code == CodeImageUnknown {
			return 0, nil
		}
		return 0, err
	}
	if f.config.NextVersion == nil {
		return 0, refuse(CodeInvalid, "the image needs a version")
	}
	text, err := f.config.NextVersion(ctx, c.Name)
	if err != nil {
		return 0, err
	}
	if next, err = strconv.ParseInt(text, 10, 64); err != nil {
		return 0, fmt.Errorf("next version of %s: %w", c.Name, err)
	}
	return next, nil
}

// reserve returns the version for a capture that no other capture makes: next or a higher one if c counts.
func (d *draft) reserve(c *Capture, next int64, own string) (string, error) {
	making := map[string]*Job{}
	for _, o := range d.openJobs() {
		if o.ID != own && o.Capture != nil && o.Capture.Name == c.Name && !o.State.Ended() {
			making[o.Capture.Version] = o
		}
	}
	if !c.Counted {
		if o := making[c.Version]; o != nil {
			return "", refuse(CodeCaptureBusy, "job %s makes %s:%s already; choose another version, or end it with `seedbed job cancel %s`",
				o.ID, c.Name, c.Version, o.ID)
		}
		return c.Version, nil
	}
	for making[strconv.FormatInt(next, 10)] != nil {
		next++
	}
	return strconv.FormatInt(next, 10), nil
}

// Capturing returns the capture that the caller holds the claim of. One that has succeeded is returned too, since the
// answer to its commit may be lost; one that ended otherwise is refused.
func (f *Fleet) Capturing(c Caller, id string, epoch int64) (*Job, error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return capturing(f.state.jobs[id], f.state.sessions[c.session.ID], c, id, epoch)
}

// capturing is Capturing with the records of the job and of the caller's boot, or nil.
func capturing(j *Job, s *Session, c Caller, id string, epoch int64) (*Job, error) {
	switch {
	case s == nil || s.Revoked:
		return nil, refuse(CodeRevoked, "the certificate of this boot was revoked; start the machine again")
	case j == nil || j.Machine != c.session.Machine || j.Capture == nil:
		return nil, refuse(CodeJobUnknown, "this machine has no capture %q", id)
	case j.Epoch != epoch || j.Session != c.session.ID:
		return nil, refuse(CodeClaimLost, "job %s was claimed by a later boot of this machine", id)
	case j.State.Ended() && j.State != job.Succeeded:
		return nil, refuse(CodeJobEnded, "job %s has already %s", id, j.State)
	}
	return j, nil
}

// Renumber gives a capture whose version was taken by another image the next free one. Only where the version is counted.
func (f *Fleet) Renumber(ctx context.Context, c Caller, id string, epoch int64) (*Job, error) {
	j, err := f.Capturing(c, id, epoch)
	if err != nil {
		return nil, err
	}
	if !j.Capture.Counted {
		return nil, refuse(CodeVersionExists, "image %s exists already, and versions never change; capture again under another version", j.ImageName)
	}
	next, err := f.freeVersion(ctx, j.Capture)
	if err != nil {
		return nil, err
	}
	return f.editCapture(ctx, c, id, epoch, func(d *draft, own *Capture) error {
		own.Intent = images.Digest{}
		own.Version, err = d.reserve(own, next, id)
		return err
	})
}

// Intend records which image the commit of a capture is about to publish.
func (f *Fleet) Intend(ctx context.Context, c Caller, id string, epoch int64, intent images.Digest) (*Job, error) {
	return f.editCapture(ctx, c, id, epoch, func(_ *draft, own *Capture) error {
		own.Intent = intent
		return nil
	})
}

func (f *Fleet) editCapture(ctx context.Context, c Caller, id string, epoch int64, fn func(*draft, *Capture) error) (edited *Job, err error) {
	err = f.change(ctx, func(d *draft) error {
		j, err := capturing(d.job(id), d.session(c.session.ID), c, id, epoch)
		if err != nil {
			return err
		}
		if j.State.Ended() {
			return refuse(CodeJobEnded, "job %s has already %s", id, j.State)
		}
		capture := *j.Capture
		if err := fn(d, &capture); err != nil {
			return err
		}
		edited = d.editJob(j)
		edited.Capture, edited.ImageName = &capture, capture.Name+":"+capture.Version
		return nil
	})
	return edited, err
}

// Captured ends a capture with the image that it published. Saying it again changes nothing.
func (f *Fleet) Captured(ctx context.Context, id string, p *intake.Published) error {
	err := f.change(ctx, func(d *draft) error {
		j := d.job(id)
		if j == nil || j.Capture == nil {
			return refuse(CodeJobUnknown, "no capture has the ID %q", id)
		}
		if j.State == job.Succeeded {
			return nil
		}
		name := j.Machine
		if m := d.machine(j.Machine); m != nil {
			name = m.Name
		}
		d.event(Event{Kind: "image.captured", Machine: j.Machine, Job: j.ID, Text: "captured " + p.Name + ":" + p.Version + " from " + name})
		if j.State.Ended() {
			return nil // a person cancelled it while it was published
		}
		own := d.editJob(j)
		f.mu.RLock()
		if l, ok := f.live[id]; ok {
			own.Last = l.report
		}
		f.mu.RUnlock()
		own.Last.Log, own.Last.Bitmap, own.Last.BytesPerSecond, own.Last.Left = "", nil, 0, 0
		own.Image, own.ImageName, own.HeldByOperator = p.Digest, p.Name+":"+p.Version, false
		d.end(own, job.Succeeded, "", "")
		return nil
	})
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.live[id] = live{report: f.state.jobs[id].Last, at: f.now()}
	return nil
}

// OpenCaptures returns the captures that have not ended, by job ID.
func (f *Fleet) OpenCaptures() (list []string) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	for id, j := range f.open {
		if j.Capture != nil {
			list = append(list, id)
		}
	}
	slices.Sort(list)
	return list
}
