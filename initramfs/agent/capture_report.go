package agent

import (
	"context"
	"fmt"
	"time"

	"seedbed/appliance/job"
	"seedbed/initramfs/disk"
)

// reports tells the appliance each second where the capture stands, shows it on the screen, and does what the appliance
// answers. end is called with why, when the job is over by the appliance's word.
func (c *capturing) reports(ctx context.Context, end context.CancelCauseFunc) {
	every := c.j.ReportEvery
	if every <= 0 {
		every = time.Second
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	var rate rate
	board := &workBoard{screen: c.a.screen, j: c.j}
	var shown time.Time
	for {
		r := c.report(&rate)
		board.show(r)
		if time.Since(shown) >= c.a.cfg.timing.progress {
			c.show(r)
			shown = time.Now()
		}
		if err := c.tell(ctx, r); err != nil {
			end(err)
			return
		}
		select {
		case <-tick.C:
		case <-c.kick:
		case <-ctx.Done():
			return
		}
	}
}

// report returns the report of this moment.
func (c *capturing) report(rate *rate) job.Report {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := job.Report{
		Job: c.j.ID, Epoch: c.j.Epoch, Phase: c.phase, State: c.state, Code: c.code, Reason: c.reason, Warnings: c.warnings,
		Disk: c.disk.Name, DiskSerial: c.disk.Serial, BIOSDrive: c.disk.BIOSDrive,
		Total: c.total.Load(), Done: c.done.Load(), Sent: c.sent.Load(), CPU: c.a.processors.busy(),
	}
	if c.phase == job.PhaseRead {
		r.BytesPerSecond = rate.at(time.Now(), r.Done)
		r.Left = timeLeft(r.Total-r.Done, r.BytesPerSecond)
	}
	return r
}

// tell sends one report. The error says that the job is over.
func (c *capturing) tell(ctx context.Context, r job.Report) error {
	attempt, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	var answer job.Directive
	err := c.a.report(attempt, r, &answer)
	if p := refused(err); p != nil {
		if f := c.over(p); f != nil {
			return f
		}
	}
	if err != nil {
		if ctx.Err() == nil {
			c.a.screen.SayOnce("report", "the appliance does not answer: %v; the work goes on", plain(err))
			c.a.screen.notice("The appliance does not answer; the work goes on.")
		}
		return nil
	}
	c.a.screen.Forget("report")
	c.a.screen.notice("")
	if answer.State == job.Cancelled {
		return &Failure{Code: "cancelled", over: true, Sentence: "job " + c.j.ID + " was cancelled; the disk was only read"}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	// A job that this machine said is paused comes back as paused: only one that it said is at work is held by a person.
	if held := answer.State == job.Paused && (c.held || r.State == job.Running); c.held != held {
		c.held = held
		close(c.changed)
		c.changed = make(chan struct{})
	}
	return nil
}

// over returns the failure that a refusal means where it ends the job, else nil.
func (c *capturing) over(p *problem) *Failure {
	switch p.Code {
	case codeEnded:
		return &Failure{Code: "cancelled", over: true, Sentence: "job " + c.j.ID + " is over: " + p.Error() + "; the disk was only read", Err: p}
	case "claim-lost", "job-unknown", "revoked":
		return &Failure{Code: p.Code, Sentence: "the appliance took job " + c.j.ID + " back: " + p.Error(), Err: p}
	}
	return nil
}

// show writes where the capture stands.
func (c *capturing) show(r job.Report) {
	switch {
	case r.State == job.Paused:
		c.a.screen.SayOnce("paused", "paused: %s", r.Reason)
	case r.Phase == job.PhaseMap:
		c.a.screen.Say("the file systems are mapped")
	case r.Phase == job.PhaseRead && r.Total > 0:
		left := ""
		if r.BytesPerSecond > 0 {
			left = fmt.Sprintf(", %.1f MB/s, %v left", r.BytesPerSecond/1e6, r.Left)
		}
		c.a.screen.Say("%3d %% of %s read%s, %s sent", r.Done*100/r.Total, disk.Size(r.Total), left, disk.Size(r.Sent))
	case r.Phase == job.PhaseCommit:
		c.a.screen.Say("the appliance puts the image together, %s sent", disk.Size(r.Sent))
	}
}

// rate is a rate over the last seconds. The zero value is ready.
type rate struct {
	samples []sample
}

type sample struct {
	at   time.Time
	done int64
}

// rateOver is how far back a rate looks.
const rateOver = 10 * time.Second

// at takes down how much is done, and returns the bytes a second, 0 until it is known.
func (r *rate) at(now time.Time, done int64) float64 {
	if n := len(r.samples); n > 0 && done < r.samples[n-1].done {
		r.samples = nil // it began anew
	}
	r.samples = append(r.samples, sample{now, done})
	for len(r.samples) > 2 && now.Sub(r.samples[1].at) >= rateOver {
		r.samples = r.samples[1:]
	}
	first := r.samples[0]
	seconds := now.Sub(first.at).Seconds()
	if seconds < 0.5 {
		return 0
	}
	return float64(done-first.done) / seconds
}
