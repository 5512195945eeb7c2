package monitor

import (
	"fmt"
	"time"

	"seedbed/appliance/job"
)

// facts are what a job's word is judged by. Rates are bytes a second.
type facts struct {
	state  job.State
	reason string // the fleet's

	// quiet is how long no report came, since the claim at most. gone says that the fleet gave the job back to the queue for that.
	quiet time.Duration
	gone  bool
	// judged is Progress.Judged, wire what was received a second in the same time.
	judged, wire float64
	median       float64 // of those that are judged in its room; 0 is that too few are
	limit        float64 // of what it may receive; 0 is none
	// served says that the appliance sends as much as it may, and hardly anybody else sends to this machine.
	served bool

	link, siblings      int     // Mbit/s, 0 is not known
	diskBusy, diskRate  float64 // share of the time, bytes a second
	cpu, siblingsCPU    float64 // busy shares; siblingsCPU is of those at the same work, the lower median, 0 is not known
	peers, others       int     // links; other machines that take part in the swarm
	fromPeers, fromSeed float64 // rates of what is received, as wire
}

// verdict is what they come to.
type verdict struct {
	word  Word
	cause Cause
	why   string
}

// Bounds of causes, as shares.
const (
	nearLimit = 0.8 // of a limit that was set: pacers let bursts wait
	nearLink  = 0.6 // of a link: TCP and TLS leave some 94 % of it at best, and the sum of many senders less
	diskBusy  = 0.7 // of the time at least one write or flush is under way
	cpuBusy   = 0.9
	busier    = 0.1 // more than its siblings: what all have alike does not tell why one is slow
	hardly    = 0.1 // of what is received
	level     = 0.7 // of the median of the room: no slower than the others
)

// judge says how a machine gets on.
func judge(f facts, t Thresholds) verdict {
	switch f.state {
	case job.Waiting:
		if !f.gone {
			return verdict{Waiting, CauseNone, f.reason}
		}
	case job.Paused:
		return verdict{Paused, CauseNone, f.reason}
	case job.Failed:
		return verdict{Failed, CauseNone, f.reason}
	case job.Succeeded:
		return verdict{Done, CauseNone, f.reason}
	case job.Cancelled:
		return verdict{Cancelled, CauseNone, f.reason}
	}
	if f.quiet >= t.Silence {
		return verdict{Silent, CauseNone, fmt.Sprintf("nothing was heard of it for %s: look whether it is switched on, what its screen says, and its network cable", round(f.quiet))}
	}
	if f.gone {
		return verdict{Slow, CauseNone, fmt.Sprintf("nothing was heard of it for %s", round(f.quiet))}
	}
	limited := f.judged >= 0 && (f.limit > 0 && f.wire >= nearLimit*f.limit || f.served)
	switch {
	case f.judged < 0, f.judged >= t.SlowRate && f.judged >= t.SlowShare*f.median:
		return verdict{Normal, CauseNone, f.reason}
	case limited && f.served:
		return verdict{Normal, CauseCap, "the appliance sends as much as its limit allows"}
	case limited:
		return verdict{Normal, CauseCap, fmt.Sprintf("it receives as much as its limit of %s allows", rateText(f.limit))}
	case f.quiet > stale:
		return verdict{Slow, CauseNone, fmt.Sprintf("nothing was heard of it for %s", round(f.quiet))}
	}
	v := verdict{word: Slow}
	v.cause, v.why = cause(f)
	return v
}

// cause says what holds a slow machine back.
func cause(f facts) (Cause, string) {
	lower := f.link > 0 && (f.link <= 100 || f.link < f.siblings)
	link := fmt.Sprintf("its network card has negotiated %d Mbit/s", f.link)
	if f.siblings > f.link {
		link += fmt.Sprintf("; its siblings have %d: check cable and switch port", f.siblings)
	}
	switch {
	case lower && f.wire >= nearLink*float64(f.link)*1e6/8:
		return CauseLink, link
	case f.diskBusy >= diskBusy:
		return CauseDisk, fmt.Sprintf("its disk takes no more than %s", rateText(f.diskRate))
	case f.cpu > cpuBusy && f.siblingsCPU == 0:
		return CauseCPU, fmt.Sprintf("its processors are busy to %.0f %%", 100*f.cpu)
	case f.cpu > cpuBusy && f.cpu-f.siblingsCPU >= busier:
		return CauseCPU, fmt.Sprintf("its processors are busy to %.0f %%, those of its siblings to %.0f %%", 100*f.cpu, 100*f.siblingsCPU)
	case lower && f.siblings > f.link:
		return CauseLink, link
	case f.peers == 0:
		return CauseAlone, "it has no connection to the appliance's seeder or to another machine: check that TCP port 6881 is open between them"
	case f.peers == 1 && f.others > 0 && f.fromPeers+f.fromSeed <= hardly*f.wire:
		return CauseAlone, "it is connected to the appliance alone and to none of its siblings: check that TCP port 6881 is open between machines"
	case f.fromPeers+f.fromSeed <= hardly*f.wire:
		return CauseSource, "no other machine has what it lacks: the appliance alone sends, at " + rateText(f.wire)
	case f.cpu > cpuBusy && f.judged >= level*f.median: // nothing else explains it, and it gets on as its siblings do
		return CauseCPU, fmt.Sprintf("its processors are busy to %.0f %%, and so are those of its siblings", 100*f.cpu)
	}
	return CausePeers, fmt.Sprintf("its %d peers send it %s together: check cable, switch port and the network between them", f.peers, rateText(f.wire))
}

func rateText(bytesPerSecond float64) string { return fmt.Sprintf("%.1f MB/s", bytesPerSecond/1e6) }

func round(d time.Duration) string {
	if d < 2*time.Minute {
		return fmt.Sprintf("%d s", int(d.Seconds()))
	}
	return fmt.Sprintf("%d min", int(d.Minutes()))
}
