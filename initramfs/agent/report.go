package agent

import (
	"context"
	"fmt"
	"time"

	"seedbed/appliance/job"
	"seedbed/images/swarm"
	"seedbed/initramfs/disk"
)

// bitmapEvery is how often a report carries the pieces held.
const bitmapEvery = 10 * time.Second

// status is what the reports say; what the sequence changes, the reporter reads.
type status struct {
	phase    job.Phase
	state    job.State
	code     string
	reason   string
	disk     disk.Disk
	released bool      // no machine needs this one
	heard    time.Time // when the appliance answered a report last
	past     swarm.Stats
	liars    []job.Liar // that were found before the swarm was joined
	alone    string     // why the machine reaches nobody who has its image; "" where it does
}

// set changes the status and has it reported at once.
func (d *deployment) set(change func(*status)) {
	d.mu.Lock()
	change(&d.status)
	d.mu.Unlock()
	select {
	case d.kick <- struct{}{}:
	default:
	}
}

// enter says that the sequence is in a new phase.
func (d *deployment) enter(p job.Phase, detail string) {
	d.set(func(s *status) { s.phase, s.state, s.code, s.reason = p, job.Running, "", "" })
	d.a.screen.Say("phase %s %s", p, detail)
}

// wait says why the job is paused.
func (d *deployment) wait(code, sentence string) {
	d.set(func(s *status) { s.state, s.code, s.reason = job.Paused, code, sentence })
}

// snapshot returns the report of this moment.
func (d *deployment) snapshot() job.Report {
	d.mu.Lock()
	s, sw, store, dev, found := d.status, d.swarm, d.store, d.dev, d.found
	d.mu.Unlock()
	r := job.Report{
		Found: found,
		Job:   d.j.ID, Epoch: d.j.Epoch, Phase: s.phase, State: s.state, Code: s.code, Reason: s.reason,
		Disk: s.disk.Name, DiskSerial: s.disk.Serial, BIOSDrive: s.disk.BIOSDrive, Verified: d.verified.Load(), Total: d.total.Load(),
	}
	if store != nil {
		r.Held, r.Resumed = store.Progress()
	}
	if dev != nil {
		written, busy := dev.Written()
		r.Written, r.WriteNanos = written, int64(busy)
	}
	if d.j.Kind == job.WipeDisk {
		r.Done = d.looked.Load()
	}
	if s.alone != "" {
		r.Warnings = []string{s.alone}
	}
	stats := s.past
	if sw != nil {
		now := sw.Stats()
		stats = sumStats(stats, now)
		stats.Peers = now.Peers
		for _, l := range sw.Liars() {
			r.Liars = append(r.Liars, job.Liar(l))
		}
		r.Congestion = now.Transports[0].Congestion
	}
	given, liars := d.given()
	stats.ToPeers += given
	r.Liars = append(r.Liars, liars...)
	r.FromAppliance, r.FromPeers, r.ToPeers, r.Peers = stats.FromAppliance, stats.FromPeers-stats.FromSeeds, stats.ToPeers, stats.Peers
	r.FromSeeds, r.Tiles, r.WrongTiles, r.CPU = stats.FromSeeds, stats.Tiles, stats.WrongTiles, d.a.processors.busy()
	return r
}

// sumStats adds up what a machine's stays in the swarm came to: what was received, sent and judged.
func sumStats(a, b swarm.Stats) swarm.Stats {
	a.FromAppliance, a.FromPeers, a.FromSeeds = a.FromAppliance+b.FromAppliance, a.FromPeers+b.FromPeers, a.FromSeeds+b.FromSeeds
	a.ToPeers, a.Tiles, a.WrongTiles = a.ToPeers+b.ToPeers, a.Tiles+b.Tiles, a.WrongTiles+b.WrongTiles
	return a
}

// reports tells the appliance each second where the job stands, shows it on the screen, and does what the appliance
// answers. end is called when the job is over by the appliance's word.
func (d *deployment) reports(ctx context.Context, end func(error)) {
	every := d.j.ReportEvery
	if every <= 0 {
		every = time.Second
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	progress, shown := &progressLine{d: d}, &workBoard{screen: d.a.screen, j: d.j}
	var lastBitmap time.Time
	say := func() error {
		d.telling.Lock()
		defer d.telling.Unlock()
		if d.parted {
			return nil
		}
		r := d.snapshot()
		progress.show(r)
		shown.show(r)
		if store := d.storage(); store != nil && time.Since(lastBitmap) > bitmapEvery {
			r.Bitmap, lastBitmap = store.Bitmap(), time.Now()
		}
		return d.report(ctx, r)
	}
	for {
		if err := say(); err != nil {
			end(err)
			return
		}
		select {
		case <-tick.C:
		case <-d.kick:
		case <-ctx.Done():
			return
		}
	}
}

// report sends one report; the caller holds telling. The error says that the job is over.
func (d *deployment) report(ctx context.Context, r job.Report) error {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	var answer job.Directive
	err := d.a.report(ctx, r, &answer)
	if p := refused(err); p != nil {
		switch p.Code {
		case "claim-lost", "job-ended", "job-unknown", "revoked":
			return &Failure{Code: p.Code, Sentence: "the appliance took job " + d.j.ID + " back: " + p.Detail, Err: err}
		}
	}
	if err != nil {
		if ctx.Err() == nil || context.Cause(ctx) == context.DeadlineExceeded {
			d.a.screen.SayOnce("report", "the appliance does not answer: %v; the work goes on", plain(err))
			d.a.screen.notice("The appliance does not answer; the work goes on.")
		}
		return nil
	}
	d.a.screen.Forget("report")
	d.a.screen.notice("")
	if answer.State == job.Cancelled {
		return d.ended("was cancelled", nil)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.status.heard = time.Now()
	// A job that this machine said is paused comes back as paused: only one that it said is at work is held by a person.
	held := answer.State == job.Paused && (d.held || r.State == job.Running)
	if d.held != held || d.status.released != answer.Release {
		d.held, d.status.released = held, answer.Release
		close(d.changed)
		d.changed = make(chan struct{})
	}
	return nil
}

// progressLine shows where the job stands every few seconds.
type progressLine struct {
	d    *deployment
	at   time.Time
	last job.Report
}

func (p *progressLine) show(r job.Report) {
	now := time.Now()
	if now.Sub(p.at) < p.d.a.cfg.timing.progress {
		return
	}
	seconds := now.Sub(p.at).Seconds()
	rate := func(now, before int64) string {
		if p.at.IsZero() || p.last.Phase != r.Phase {
			return ""
		}
		return fmt.Sprintf(", %.1f MB/s", float64(now-before)/seconds/1e6)
	}
	percent := func(n int64) int64 {
		if r.Total == 0 {
			return 100
		}
		return n * 100 / r.Total
	}
	switch {
	case r.State == job.Paused:
		p.d.a.screen.SayOnce("paused", "paused: %s", r.Reason)
	case r.Phase == job.PhaseHash:
		p.d.a.screen.Say("looking whether the disk holds some of the %s of the image", disk.Size(r.Total))
	case r.Phase == job.PhaseContent && r.Resumed > 0:
		p.d.a.screen.Say("%3d %% of %s%s, %s of it were on the disk, from the appliance %s, from %d peers %s", percent(r.Held),
			disk.Size(r.Total), rate(r.Held, p.last.Held), disk.Size(r.Resumed), disk.Size(r.FromAppliance), r.Peers, disk.Size(r.FromPeers))
	case r.Phase == job.PhaseContent && r.Held == r.Total:
		p.d.a.screen.Say("%s of the disk looked at or zeroed", disk.Size(p.d.looked.Load()))
	case r.Phase == job.PhaseContent:
		p.d.a.screen.Say("%3d %% of %s%s, from the appliance %s, from %d peers %s", percent(r.Held), disk.Size(r.Total),
			rate(r.Held, p.last.Held), disk.Size(r.FromAppliance), r.Peers, disk.Size(r.FromPeers))
	case r.Phase == job.PhaseWipe:
		p.d.a.screen.Say("%3d %% of %s wiped%s", percent(r.Done), disk.Size(r.Total), rate(r.Done, p.last.Done))
	case r.Phase == job.PhaseFree:
		p.d.a.screen.Say("%s of the disk looked at or zeroed", disk.Size(p.d.looked.Load()))
	case r.Phase == job.PhaseVerify && p.d.j.Kind == job.WipeDisk:
	case r.Phase == job.PhaseVerify:
		p.d.a.screen.Say("%3d %% of %s read back and right%s", percent(r.Verified), disk.Size(r.Total), rate(r.Verified, p.last.Verified))
	case r.Phase == job.PhaseSeed:
		p.d.a.screen.SayOnce("seed", "the system is installed; this machine helps the others and restarts when they need it no more")
	}
	p.at, p.last = now, r
}
