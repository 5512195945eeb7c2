package monitor

import (
	"math"
	"slices"
	"time"

	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
)

const (
	shortWindow = 5 * time.Second  // of rates that people see
	longWindow  = 30 * time.Second // of forecasts, and of what is said of a disk
	tileWindow  = time.Minute
	// stale is how old the last report may be for rates to be those up to it: other appliances of the site pass reports on every 5 s.
	// Later they fall: nothing is known to be done since.
	stale = 8 * time.Second
)

// sample is what a report said.
type sample struct {
	at    time.Time
	phase job.Phase
	// inPhase counts the reports up to this one in the same phase, fetching those in which it was at work on the transfer and lacked
	// something; 0 is that it was not.
	inPhase, fetching   int
	done                int64 // see doneOf
	written, writeNanos int64
	app, peers, seeds   int64 // received
	to                  int64
	tiles, wrong        int64
}

func sampleOf(v *fleet.JobView) sample {
	s := sample{
		at: v.Reported, phase: v.Phase, inPhase: 1,
		done: doneOf(v), written: v.Written, writeNanos: v.WriteNanos, app: v.FromAppliance, peers: v.FromPeers, seeds: v.FromSeeds,
		to: v.ToPeers, tiles: v.Tiles, wrong: v.WrongTiles,
	}
	if v.Kind.Swarms() && v.State == job.Running && v.Phase == job.PhaseContent && v.Held < v.Total {
		s.fetching = 1
	}
	return s
}

// doneOf are the bytes of Total that are done in the job's phase.
func doneOf(v *fleet.JobView) int64 {
	switch {
	case v.State == job.Succeeded:
		return v.Total
	case v.Kind == job.Capture, v.Kind == job.WipeDisk:
		return v.Done
	case v.Kind == job.VerifyDisk, v.Phase == job.PhaseVerify:
		return v.Verified
	case v.Phase == job.PhaseTable, v.Phase == job.PhaseSeed, v.Phase == job.PhaseReboot:
		return v.Total
	}
	return v.Held
}

// transferOf is the phase in which a job of a kind moves its bytes.
func transferOf(k job.Kind) job.Phase {
	switch k {
	case job.Capture:
		return job.PhaseRead
	case job.VerifyDisk:
		return job.PhaseVerify
	case job.WipeDisk:
		return job.PhaseWipe
	}
	return job.PhaseContent
}

// track is what a job's machine reported lately, oldest first. Owned by the tracker.
type track struct {
	epoch   int64
	seen    time.Time // Reported when it was looked at last; at first that is no report that says how far it is now
	samples []sample
	from    int // samples before it are forgotten
}

// take keeps a report that was not seen yet, and forgets those that are older than keep.
func (t *track) take(v *fleet.JobView, keep time.Duration) {
	switch {
	case v.Reported.IsZero() || v.Reported.Equal(t.seen):
		return
	case t.seen.IsZero() || v.Epoch != t.epoch:
		t.epoch, t.seen, t.samples, t.from = v.Epoch, v.Reported, t.samples[:0], 0
		return
	}
	t.seen = v.Reported
	s := sampleOf(v)
	if n := len(t.samples); n > t.from {
		last := &t.samples[n-1]
		if s.app < last.app || s.peers < last.peers || s.written < last.written { // it counts from 0 again
			t.samples, t.from = t.samples[:0], 0
		} else if s.phase == last.phase {
			s.inPhase += last.inPhase
			if s.fetching > 0 {
				s.fetching += last.fetching
			}
		}
	}
	for t.from < len(t.samples) && s.at.Sub(t.samples[t.from].at) > keep {
		t.from++
	}
	if t.from > 0 && len(t.samples) == cap(t.samples) {
		t.samples, t.from = t.samples[:copy(t.samples, t.samples[t.from:])], 0
	}
	t.samples = append(t.samples, s)
}

// last is the last report, nil where none came.
func (t *track) last() *sample {
	if t.from >= len(t.samples) {
		return nil
	}
	return &t.samples[len(t.samples)-1]
}

// window is what lies between two reports, or between a report and now.
type window struct {
	first, last *sample
	seconds     float64 // 0 is that nothing can be said
}

// rate of what was counted.
func (w window) rate(of func(*sample) int64) float64 {
	if w.seconds <= 0 {
		return 0
	}
	return max(0, float64(of(w.last)-of(w.first))/w.seconds)
}

// over returns the window of the last d, or of what there is of it, over the last reports that a stretch says. Its first report is the
// last one before it.
func (t *track) over(now time.Time, d time.Duration, of stretch) window {
	last := t.last()
	if last == nil {
		return window{}
	}
	end := last.at
	if now.Sub(end) > stale {
		end = now
	}
	newest := len(t.samples) - 1
	oldest := max(t.from, newest+1-of(last))
	if oldest > newest {
		return window{}
	}
	begin := end.Add(-d)
	n, _ := slices.BinarySearchFunc(t.samples[oldest:newest+1], begin, func(s sample, at time.Time) int {
		if s.at.After(at) {
			return 1
		}
		return -1
	})
	first := &t.samples[oldest+max(0, n-1)]
	return window{first, last, end.Sub(first.at).Seconds()}
}

// stretch is how many reports, up to one and with it, have something in common.
type stretch func(*sample) int

func always(*sample) int { return math.MaxInt32 }

// inPhase are those of the phase.
func inPhase(s *sample) int { return s.inPhase }

// fetching are those in which something was fetched.
func fetching(s *sample) int { return s.fetching }

func done(s *sample) int64 { return s.done }
