// Package queue decides which jobs of a site may begin and says what each of the others waits for. It is arithmetic over
// what it is given: no clock, no records, no network.
package queue

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// State of a job as far as the queue is concerned.
type State int

const (
	// Absent waits, and its machine is not there to begin.
	Absent State = iota
	// Present waits, and its machine asks for it.
	Present
	// Called waits, has a place, and its machine is on its way: it was woken.
	Called
	// AtWork has a place and has begun.
	AtWork
	// Held waits for a person.
	Held
)

// Job is one job that has not ended.
type Job struct {
	ID      string
	Machine string
	// Groups are those of its machine that may have limits; Uplink is the link that its content crosses, "" if none is limited.
	Groups []string
	Uplink string
	// Priority orders jobs, higher first; inside a priority the one that is there longer comes first, then the lower ID.
	Priority int
	Since    time.Time
	// First says that it goes before the machine's other jobs whatever their priority: a capture, which a deployment would
	// destroy the source of.
	First bool
	// Begun says that its machine was at work on it before: it goes on before the machine's other jobs, outside windows too.
	Begun bool
	// Unadmitted says that its machine is not admitted, and is given nothing.
	Unadmitted bool
	// After is the time before which it does not begin; zero is none.
	After time.Time
	// Windows are the times in which it may begin, by the rules of its machine's groups: it begins when each group that has
	// any has one open.
	Windows [][]Window
	// Preload, where set, is a sentence about what has to be fetched by seed nodes first.
	Preload string
	State   State
}

// Limits bound how many jobs are at work at once. A name that is missing, and 0, is no limit.
type Limits struct {
	Site    int
	Groups  map[string]int
	Uplinks map[string]int
}

// Wait is what a job waits for.
type Wait struct {
	// Code is a short fixed word, one of the Waits constants.
	Code string
	// Text is a sentence for people, without the machine's name: "waits until Mon 18:00, when its maintenance window opens".
	Text string
	// Until is when that changes, where time alone changes it.
	Until time.Time
}

// Codes of waits.
const (
	WaitsMachine = "machine"      // it is not there
	WaitsTime    = "start-time"   // it starts at a time
	WaitsWindow  = "window"       // maintenance window
	WaitsPreload = "preload"      // seed nodes fetch first
	WaitsTurn    = "machine-busy" // another job of the same machine comes first
	WaitsSite    = "site-limit"   // as many as may are at work
	WaitsGroup   = "group-limit"  //
	WaitsUplink  = "uplink-limit" //
	WaitsPerson  = "person"       // paused
	WaitsAdmit   = "admission"    // its machine is not admitted
)

// Decision says what may happen now.
type Decision struct {
	// Begin are the waiting jobs that may begin, in the order of the queue; their machines are there. Each has a place.
	Begin []string
	// Call are jobs that might begin if their machines were there, in the order of the queue, as many as there are places left.
	Call []string
	// Waits is of every job that waits and may not begin.
	Waits map[string]Wait
	// Order is the place in the queue of every job that waits, from 1.
	Order map[string]int
	// Next is when time alone changes the decision next; zero is never.
	Next time.Time
}

// Decide orders the jobs and gives places to them. A job whose machine is not there takes no place from one whose machine is.
func Decide(now time.Time, jobs []Job, limits Limits) Decision {
	t := &table{now: now, limits: limits, groups: map[string]int{}, uplinks: map[string]int{}, busy: map[string]string{}, rules: map[*Window]opening{},
		decision: Decision{Waits: map[string]Wait{}, Order: map[string]int{}}}
	waiting := make([]*Job, 0, len(jobs))
	for i := range jobs {
		j := &jobs[i]
		switch j.State {
		case AtWork, Called:
			t.take(j)
			if j.State == Called {
				t.decision.Waits[j.ID] = Wait{Code: WaitsMachine, Text: "waits until the machine, which was woken, boots from the network"}
			}
		default:
			waiting = append(waiting, j)
		}
	}
	slices.SortFunc(waiting, before)
	turn := firsts(waiting)
	for i, j := range waiting {
		t.decision.Order[j.ID] = i + 1
	}
	for _, j := range waiting { // those whose machines are there first
		if j.State == Present {
			t.consider(j, turn)
		}
	}
	for _, j := range waiting {
		if j.State != Present {
			t.consider(j, turn)
		}
	}
	return t.decision
}

// before orders the queue.
func before(a, b *Job) int {
	if c := cmp.Compare(b.Priority, a.Priority); c != 0 {
		return c
	}
	if c := a.Since.Compare(b.Since); c != 0 {
		return c
	}
	return cmp.Compare(a.ID, b.ID)
}

// firsts returns the job of each machine that is its next.
func firsts(waiting []*Job) map[string]*Job {
	next := make(map[string]*Job, len(waiting))
	for _, j := range waiting {
		if j.State == Held {
			continue
		}
		if have := next[j.Machine]; have == nil || j.Begun && !have.Begun || j.First && !have.First && j.Begun == have.Begun {
			next[j.Machine] = j
		}
	}
	return next
}

// opening is what Open returned.
type opening struct {
	open bool
	next time.Time
}

// table is where places are given.
type table struct {
	now      time.Time
	limits   Limits
	site     int
	groups   map[string]int
	uplinks  map[string]int
	busy     map[string]string // job that has the place of a machine
	rules    map[*Window]opening
	decision Decision
}

func (t *table) take(j *Job) {
	t.site++
	for _, g := range j.Groups {
		t.groups[g]++
	}
	if j.Uplink != "" {
		t.uplinks[j.Uplink]++
	}
	t.busy[j.Machine] = j.ID
}

// consider gives a place to a job, or says what it waits for.
func (t *table) consider(j *Job, turn map[string]*Job) {
	wait := t.wait(j, turn)
	if wait.Code != "" {
		t.decision.Waits[j.ID] = wait
		return
	}
	t.take(j)
	if j.State == Present {
		t.decision.Begin = append(t.decision.Begin, j.ID)
		return
	}
	t.decision.Call = append(t.decision.Call, j.ID)
	t.decision.Waits[j.ID] = Wait{Code: WaitsMachine, Text: "waits until the machine boots from the network"}
}

func (t *table) wait(j *Job, turn map[string]*Job) Wait {
	if j.State == Held {
		return Wait{Code: WaitsPerson, Text: "was paused by a person, who lets it go on"}
	}
	if j.Unadmitted {
		return Wait{Code: WaitsAdmit, Text: "waits until a person admits the machine by the code on its screen"}
	}
	if other := t.busy[j.Machine]; other != "" {
		return Wait{Code: WaitsTurn, Text: "waits for job " + other + " of the same machine"}
	}
	if next := turn[j.Machine]; next != nil && next != j {
		return Wait{Code: WaitsTurn, Text: "waits for job " + next.ID + " of the same machine"}
	}
	if j.After.After(t.now) {
		t.at(j.After)
		return Wait{Code: WaitsTime, Text: "starts at " + clockText(j.After, t.now), Until: j.After}
	}
	for _, rule := range j.Windows {
		if len(rule) == 0 || j.Begun {
			continue
		}
		open, next := t.open(rule)
		t.at(next)
		if !open && next.IsZero() {
			return Wait{Code: WaitsWindow, Text: "waits, since no maintenance window of its group ever opens: set another"}
		}
		if !open {
			return Wait{Code: WaitsWindow, Text: "waits until " + clockText(next, t.now) + ", when its maintenance window opens", Until: next}
		}
	}
	if j.Preload != "" {
		return Wait{Code: WaitsPreload, Text: j.Preload}
	}
	if full(t.site, t.limits.Site) {
		return Wait{Code: WaitsSite, Text: fmt.Sprintf("waits for a place: %d of %d machines of the site are at work", t.site, t.limits.Site)}
	}
	for _, g := range j.Groups {
		if most := t.limits.Groups[g]; full(t.groups[g], most) {
			return Wait{Code: WaitsGroup, Text: fmt.Sprintf("waits for a place: %d of %d machines of group %s are at work", t.groups[g], most, g)}
		}
	}
	if most := t.limits.Uplinks[j.Uplink]; j.Uplink != "" && full(t.uplinks[j.Uplink], most) {
		return Wait{Code: WaitsUplink, Text: fmt.Sprintf("waits for a place: %d of %d machines behind uplink %s are at work", t.uplinks[j.Uplink], most, j.Uplink)}
	}
	return Wait{}
}

// open is Open, looked up where many jobs share a rule.
func (t *table) open(rule []Window) (open bool, next time.Time) {
	o, known := t.rules[&rule[0]]
	if !known {
		o.open, o.next = Open(rule, t.now)
		t.rules[&rule[0]] = o
	}
	return o.open, o.next
}

func full(used, most int) bool { return most > 0 && used >= most }

// at notes a time at which the decision changes.
func (t *table) at(when time.Time) {
	if !when.IsZero() && (t.decision.Next.IsZero() || when.Before(t.decision.Next)) {
		t.decision.Next = when
	}
}

// clockText writes a time as people say it who stand at it.
func clockText(at, now time.Time) string {
	switch days := at.Sub(now) / (24 * time.Hour); {
	case days < 1 && at.Day() == now.In(at.Location()).Day():
		return at.Format("15:04")
	case days < 6:
		return at.Format("Mon 15:04")
	}
	return at.Format("2006-01-02 15:04")
}
