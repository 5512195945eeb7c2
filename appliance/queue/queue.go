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
	// Called waits, has a place, and its machine was woken a moment ago.
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
	// destroy the source of, or a wipe, which would destroy what a deployment wrote.
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
	// Elsewhere, where set, is a sentence about why its machine does not come: it boots something else by a person's word.
	Elsewhere string
	State     State
	// Until is when State, or whether the machine may be woken again, changes by time alone; zero is never.
	Until time.Time
	// Wake says that its machine is woken when it is its turn. Calls is how often it was, of at most MostCalls, CalledAt when last.
	Wake             bool
	Calls, MostCalls int
	CalledAt         time.Time
	// Uncalled, where set, is why no packet left at the last call.
	Uncalled string
}

// calls reports whether the machine of a job may still be woken.
func (j *Job) calls() bool {
	return j.Wake && j.State == Absent && j.Calls < j.MostCalls && j.Until.IsZero()
}

// NotYet ends the text of what a job waits for whose machine was called.
const NotYet = " and has not answered yet"

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
	WaitsCalled  = "called"       // it was woken and has not asked yet
	WaitsSilent  = "no-answer"    // it was woken as often as machines are, and never asked
	WaitsTime    = "start-time"   // it starts at a time
	WaitsWindow  = "window"       // maintenance window
	WaitsPreload = "preload"      // seed nodes fetch first
	WaitsTurn    = "machine-busy" // another job of the same machine comes first
	WaitsSite    = "site-limit"   // as many as may are at work
	WaitsGroup   = "group-limit"  //
	WaitsUplink  = "uplink-limit" //
	WaitsPerson  = "person"       // paused
	WaitsAdmit   = "admission"    // its machine is not admitted
	WaitsLocal   = "boots-local"  // its machine boots its own disk by a person's word
)

// Decision says what may happen now.
type Decision struct {
	// Begin are the waiting jobs that may begin, in the order of the queue; their machines are there. Each has a place.
	Begin []string
	// Call are the jobs whose machines are to be woken, as many as there are places left: those that were called less often first,
	// so that a machine that does not answer keeps none asleep that would, and else in the order of the queue.
	Call []string
	// Waits is of every job that waits and may not begin.
	Waits map[string]Wait
	// Order is the place in the queue of every job that waits, from 1.
	Order map[string]int
	// Next is when time alone changes the decision next; zero is never.
	Next time.Time
}

// Decide orders the jobs and gives places to them. A job whose machine is not there takes no place from one whose machine is, nor
// one whose machine is not woken from one whose machine is.
func Decide(now time.Time, jobs []Job, limits Limits) Decision {
	t := &table{now: now, limits: limits, groups: map[string]int{}, uplinks: map[string]int{}, busy: make(map[string]string, len(jobs)),
		rules: map[*Window]opening{}, full: map[place]Wait{},
		decision: Decision{Waits: make(map[string]Wait, len(jobs)), Order: make(map[string]int, len(jobs))}}
	waiting := make([]*Job, 0, len(jobs))
	for i := range jobs {
		j := &jobs[i]
		t.at(j.Until)
		switch j.State {
		case AtWork, Called:
			t.take(j)
			if j.State == Called {
				t.decision.Waits[j.ID] = Wait{Code: WaitsCalled, Text: "was called at " + clockText(j.CalledAt, now) + NotYet}
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
	for _, j := range callable(waiting) {
		t.consider(j, turn)
	}
	for _, j := range waiting {
		if j.State != Present && !j.calls() {
			t.consider(j, turn)
		}
	}
	return t.decision
}

// callable returns the jobs whose machines may be woken, in the order of Decision.Call.
func callable(waiting []*Job) []*Job {
	var list []*Job
	for _, j := range waiting {
		if j.calls() {
			list = append(list, j)
		}
	}
	slices.SortStableFunc(list, func(a, b *Job) int { return cmp.Compare(a.Calls, b.Calls) })
	return list
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

// opening is what Open returned, and what jobs wait for that it keeps from beginning.
type opening struct {
	open bool
	next time.Time
	wait Wait
}

// place is what has a limit: the site, a group or an uplink of that name.
type place struct{ code, name string }

// table is where places are given.
type table struct {
	now      time.Time
	limits   Limits
	site     int
	groups   map[string]int
	uplinks  map[string]int
	busy     map[string]string // job that has the place of a machine
	rules    map[*Window]opening
	full     map[place]Wait // what jobs wait for where all places are taken: that stays, since none is given back
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
	if j.calls() {
		t.decision.Call = append(t.decision.Call, j.ID)
	}
	t.decision.Waits[j.ID] = t.absent(j)
}

// absent says how it stands with a machine that is not there.
func (t *table) absent(j *Job) Wait {
	w := Wait{Code: WaitsMachine, Text: "waits until the machine boots from the network"}
	if !j.Wake || j.Calls == 0 {
		return w
	}
	at, again := clockText(j.CalledAt, t.now), j.Calls < j.MostCalls
	switch {
	case j.Uncalled != "":
		w.Text = "could not be called at " + at + ": " + j.Uncalled
	case again:
		w.Text = "was called at " + at + " and has not answered"
	case j.Calls == 1:
		w.Text = "was called at " + at + " and has not answered; switch the machine on"
	default:
		w.Text = fmt.Sprintf("was called %d times, at last at %s, and has not answered; switch the machine on", j.Calls, at)
	}
	if again {
		w.Text += "; it is called again"
		return w
	}
	w.Code = WaitsSilent
	return w
}

func (t *table) wait(j *Job, turn map[string]*Job) Wait {
	if j.State == Held {
		return Wait{Code: WaitsPerson, Text: "was paused by a person, who lets it go on"}
	}
	if j.Unadmitted {
		return Wait{Code: WaitsAdmit, Text: "waits until a person admits the machine by the code on its screen"}
	}
	if j.State == Absent && j.Elsewhere != "" {
		return Wait{Code: WaitsLocal, Text: j.Elsewhere}
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
		if o := t.open(rule); !o.open {
			return o.wait
		}
	}
	if j.Preload != "" {
		return Wait{Code: WaitsPreload, Text: j.Preload}
	}
	if j.Wake && j.Calls > 0 && j.State == Absent && !j.calls() { // it would get no further with a place
		return t.absent(j)
	}
	if most := t.limits.Site; isFull(t.site, most) {
		return t.waitsFor(WaitsSite, "", t.site, most, "of the site")
	}
	for _, g := range j.Groups {
		if most := t.limits.Groups[g]; isFull(t.groups[g], most) {
			return t.waitsFor(WaitsGroup, g, t.groups[g], most, "of group ")
		}
	}
	if most := t.limits.Uplinks[j.Uplink]; j.Uplink != "" && isFull(t.uplinks[j.Uplink], most) {
		return t.waitsFor(WaitsUplink, j.Uplink, t.uplinks[j.Uplink], most, "behind uplink ")
	}
	return Wait{}
}

// waitsFor says that a place is waited for; where is put before the name.
func (t *table) waitsFor(code, name string, used, most int, where string) Wait {
	of := place{code, name}
	w, known := t.full[of]
	if !known {
		w = Wait{Code: code, Text: fmt.Sprintf("waits for a place: %d of %d machines %s%s are at work", used, most, where, name)}
		t.full[of] = w
	}
	return w
}

// open is Open, looked up where many jobs share a rule.
func (t *table) open(rule []Window) opening {
	o, known := t.rules[&rule[0]]
	if known {
		return o
	}
	o.open, o.next = Open(rule, t.now)
	t.at(o.next)
	switch {
	case o.open:
	case o.next.IsZero():
		o.wait = Wait{Code: WaitsWindow, Text: "waits, since no maintenance window of its group ever opens: set another"}
	default:
		o.wait = Wait{Code: WaitsWindow, Text: "waits until " + clockText(o.next, t.now) + ", when its maintenance window opens", Until: o.next}
	}
	t.rules[&rule[0]] = o
	return o
}

func isFull(used, most int) bool { return most > 0 && used >= most }

// at notes a time at which the decision changes.
func (t *table) at(when time.Time) {
	if !when.IsZero() && (t.decision.Next.IsZero() || when.Before(t.decision.Next)) {
		t.decision.Next = when
	}
}

// clockText writes a time as people say it who stand at it.
func clockText(at, now time.Time) string {
	switch days := at.Sub(now) / (24 * time.Hour); {
	case days > -1 && days < 1 && at.Day() == now.In(at.Location()).Day():
		return at.Format("15:04")
	case days > -6 && days < 6:
		return at.Format("Mon 15:04")
	}
	return at.Format("2006-01-02 15:04")
}
