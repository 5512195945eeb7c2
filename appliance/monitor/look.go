package monitor

import (
	"time"

	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
)

// look is one look at all machines. It is made under Tracker.looking.
type look struct {
	t        *Tracker
	now      time.Time
	limits   Thresholds
	picture  *Picture
	jobs     []fleet.JobView
	machines map[string]*fleet.MachineView
	views    map[string]*fleet.JobView // by ID
	siblings map[string]string         // by machine, its room, else its line, else ""
	tracks   []*track                  // as jobs
	peers    map[string]*peers         // by room, or by deployment where a machine has none

	made     []*Progress          // as jobs
	swarming map[string]int       // by deployment, machines that take part in the swarm
	reads    map[string][]float64 // rates of verifications, by deployment
	// fromAppliance is what appliances send to all machines together, bytes a second.
	fromAppliance float64
}

// peers are machines that are compared with each other.
type peers struct {
	judged []float64
	median float64
	link   int
	busy   []float64 // shares of their processors, of those that are judged and tell them
	cpu    float64   // their lower median, 0 is that none can be compared
}

// gather takes in what was reported since the last look.
func (l *look) gather() {
	keep := max(tileWindow, longWindow, l.limits.SlowFor) + stale
	alive := make(map[string]*track, len(l.t.tracks))
	l.tracks = make([]*track, len(l.jobs))
	l.views = make(map[string]*fleet.JobView, len(l.jobs))
	for i := range l.jobs {
		v := &l.jobs[i]
		l.views[v.ID] = v
		if v.Reported.IsZero() || v.State.Ended() && l.now.Sub(v.Reported) > keep {
			continue
		}
		t := l.t.tracks[v.ID]
		if t == nil {
			t = &track{}
		}
		t.take(v, keep)
		alive[v.ID], l.tracks[i] = t, t
	}
	l.t.tracks = alive
}

// among returns what a job's machine is compared with.
func (l *look) among(v *fleet.JobView) string {
	if room := l.siblings[v.Machine]; room != "" {
		return room
	}
	return v.Deployment
}

// measure fills in all numbers of a job's progress but the forecast.
func (l *look) measure(i int) *Progress {
	v, t := &l.jobs[i], l.tracks[i]
	p := &Progress{
		Machine: v.Machine, Name: v.MachineName, Job: v.ID, Deployment: v.Deployment, Kind: v.Kind, ImageName: v.ImageName, State: v.State, Phase: v.Phase,
		Code: v.Code, Log: v.Log, Done: doneOf(v), Total: v.Total, Judged: -1, Left: -1, Peers: v.Peers, CPU: v.CPU, Reported: v.Reported, held: v.Held,
		BytesFromAppliance: v.FromAppliance, BytesFromPeers: v.FromPeers, BytesFromSeeds: v.FromSeeds, BytesToPeers: v.ToPeers, earlier: v.Earlier,
	}
	if v.State == job.Waiting && v.Wait != "" {
		p.Code = v.Wait
	}
	if m := l.machines[v.Machine]; m != nil {
		p.LinkMbit = linkOf(m)
	}
	if v.WriteNanos > 0 {
		p.DiskRate = float64(v.Written) / (float64(v.WriteNanos) / 1e9)
	}
	if t == nil {
		return p
	}
	short := t.over(l.now, shortWindow, always)
	p.FromAppliance = short.rate(func(s *sample) int64 { return s.app })
	p.FromPeers = short.rate(func(s *sample) int64 { return s.peers })
	p.FromSeeds = short.rate(func(s *sample) int64 { return s.seeds })
	p.ToPeers = short.rate(func(s *sample) int64 { return s.to })
	if v.State == job.Running && v.Phase == transferOf(v.Kind) {
		p.Rate = t.over(l.now, shortWindow, inPhase).rate(done)
	}
	if w := t.over(l.now, l.limits.SlowFor, fetching); p.atWork() && w.seconds >= l.limits.SlowFor.Seconds() {
		p.Judged = w.rate(done)
		of := l.peers[l.among(v)]
		of.judged = append(of.judged, p.Judged)
		if p.CPU > 0 {
			of.busy = append(of.busy, p.CPU)
		}
	}
	if w := t.over(l.now, tileWindow, always); w.seconds > 0 && l.now.Sub(v.Reported) < tileWindow {
		p.Tiles, p.WrongTiles = max(0, w.last.tiles-w.first.tiles), max(0, w.last.wrong-w.first.wrong)
	}
	if w := t.over(l.now, longWindow, always); w.seconds > 0 && w.last.writeNanos > w.first.writeNanos {
		p.DiskRate = max(0, float64(w.last.written-w.first.written)/(float64(w.last.writeNanos-w.first.writeNanos)/1e9))
	}
	if v.Phase == job.PhaseVerify && v.Kind.Swarms() {
		if r := t.over(l.now, longWindow, inPhase).rate(done); r > 0 {
			l.reads[v.Deployment] = append(l.reads[v.Deployment], r)
		}
	}
	return p
}

// linkOf is what the NIC negotiated that a machine boots from.
func linkOf(m *fleet.MachineView) int {
	if m.Inventory == nil {
		return 0
	}
	for _, n := range m.Inventory.NICs {
		if n.MAC == m.MAC {
			return n.Mbit
		}
	}
	return 0
}

// tell gives a job its word and its forecast.
func (l *look) tell(i int) {
	v, t, p := &l.jobs[i], l.tracks[i], l.made[i]
	of := l.peers[l.among(v)]
	p.SiblingsMbit = of.link
	f := facts{
		state: v.State, reason: v.Reason, judged: p.Judged, median: of.median, limit: float64(v.DownloadLimit), link: p.LinkMbit, siblings: of.link,
		diskRate: p.DiskRate, cpu: v.CPU, siblingsCPU: of.cpu, peers: v.Peers, others: l.others(v.Deployment),
	}
	f.quiet, f.gone = l.quiet(v)
	if t != nil && p.Judged >= 0 {
		w := t.over(l.now, l.limits.SlowFor, always)
		f.fromPeers = w.rate(func(s *sample) int64 { return s.peers })
		f.fromSeed = w.rate(func(s *sample) int64 { return s.seeds })
		f.wire = f.fromPeers + f.fromSeed + w.rate(func(s *sample) int64 { return s.app })
		f.diskBusy = w.rate(func(s *sample) int64 { return s.writeNanos }) / 1e9
		f.served = l.served(f)
	}
	verdict := judge(f, l.limits)
	p.Word, p.Cause, p.Why = verdict.word, verdict.cause, verdict.why
	p.Left = l.left(v, t, p)
}

// served reports whether the appliance sends all that its limit allows, or this machine its share of it, and nobody else sends.
func (l *look) served(f facts) bool {
	if f.fromPeers+f.fromSeed > hardly*f.wire {
		return false
	}
	c := &l.t.config
	if c.MachineLimit > 0 && f.wire >= nearLimit*c.MachineLimit {
		return true
	}
	if c.UploadLimit <= 0 {
		return false
	}
	return l.fromAppliance >= nearLimit*c.UploadLimit
}

// quiet is how long nothing was heard of a machine that is at work, or was until the fleet gave its job back for that.
func (l *look) quiet(v *fleet.JobView) (since time.Duration, gone bool) {
	last := v.Reported
	switch {
	case v.State == job.Waiting && v.Code == codeSilent:
		if m := l.machines[v.Machine]; m != nil && m.LastSeen.After(last) {
			last = m.LastSeen
		}
		if last.IsZero() { // before this run of the appliance
			return l.limits.Silence, true
		}
		since = l.now.Sub(last)
		return since, since >= longWindow // it is on its way back if something was heard just now
	case v.State != job.Claimed && v.State != job.Running:
		return 0, false
	case last.IsZero():
		last = l.t.began
	}
	if v.Claimed.After(last) {
		last = v.Claimed
	}
	return l.now.Sub(last), false
}

// codeSilent is that of jobs that the fleet gave back to the queue since nothing was heard of their machine.
const codeSilent = "silent"

// others counts the machines that take part in a deployment beside one.
func (l *look) others(deployment string) int {
	if deployment == "" {
		return 0
	}
	return max(0, l.swarming[deployment]-1)
}

// left forecasts how long the rest of a job takes, -1 where that is not known.
func (l *look) left(v *fleet.JobView, t *track, p *Progress) time.Duration {
	switch {
	case v.State == job.Succeeded:
		return 0
	case v.State != job.Running || t == nil:
		return -1
	case v.Kind == job.Capture && v.Left > 0:
		return v.Left
	case v.Kind.Swarms() && (v.Phase == job.PhaseTable || v.Phase == job.PhaseSeed || v.Phase == job.PhaseReboot):
		return 0
	}
	w := t.over(l.now, longWindow, inPhase)
	rate := w.rate(done)
	switch {
	case v.Phase != transferOf(v.Kind) && !(v.Kind.Swarms() && v.Phase == job.PhaseVerify):
		return -1
	case v.Phase == job.PhaseContent && p.Done >= p.Total:
		return l.verification(v, p)
	case rate <= 0 || p.Total <= 0:
		return -1
	}
	total := p.Total
	if v.Phase == job.PhaseVerify {
		total = l.toVerify(v)
	}
	rest := seconds(float64(max(0, total-p.Done)) / rate)
	if v.Phase == job.PhaseContent {
		rest += l.verification(v, p)
	}
	return rest
}

// sampled is of how many pieces one is verified by sample, see job.VerifySample.
const sampled = 16

// toVerify are the bytes that a job's verification reads.
func (l *look) toVerify(v *fleet.JobView) int64 {
	switch v.Options.Verify {
	case job.VerifyNone:
		return 0
	case job.VerifySample:
		return v.Total / sampled
	}
	return v.Total
}

// usualRead is at what disks are read where nothing tells, bytes a second: an older disk's rate.
const usualRead = 100e6

// verification forecasts how long a job's verification takes, at the rate of those of its deployment that are at it or were, else at
// that of its disk.
func (l *look) verification(v *fleet.JobView, p *Progress) time.Duration {
	rate := l.t.reads[v.Deployment]
	if rate <= 0 {
		rate = p.DiskRate
	}
	if rate <= 0 {
		rate = usualRead
	}
	return seconds(float64(l.toVerify(v)) / rate)
}

func seconds(s float64) time.Duration {
	return time.Duration(min(s, 1e6) * float64(time.Second)).Round(time.Second)
}
