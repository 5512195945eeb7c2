package fleet

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"time"

	"seedbed/appliance/job"
)

// Tidy is what Run does each second.
func Tidy(f *Fleet, ctx context.Context) error { return f.tidy(ctx) }

// Add counts what a report says beyond the one before it.
func Add(t *Traffic, before, r job.Report) { t.add(before, r) }

// MaxStays is how many stays one user has.
const MaxStays = maxStays

// MaxUnknown is the bound of machines that were only seen in boot packets.
const MaxUnknown = maxUnknown

// Flood fills the memory with n machines that were only seen in boot packets.
func Flood(f *Fleet, n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for range n {
		id := newID()
		f.apply([]Record{&Machine{ID: id, MACs: []string{id}}}, nil)
	}
}

// Age fills the memory with n machines that had jobs ended jobs each.
func Age(f *Fleet, n, jobs int) {
	for range n {
		m := newID()
		f.state.machines[m] = &Machine{ID: m, MACs: []string{m}, Admitted: true}
		for range jobs {
			id := newID()
			f.state.jobs[id] = &Job{ID: id, Machine: m, State: job.Succeeded}
		}
	}
}

// Hints is the number of bitmaps kept.
func Hints(f *Fleet) int { return len(f.hints) }

// Watch is what an appliance saw of the one in office.
type Watch = watch

// AttendOffice is what Run does every few seconds.
func AttendOffice(f *Fleet, ctx context.Context, w *Watch) error { return f.attendOffice(ctx, w) }

// OfficeVacant is how long the one in office may be silent.
const OfficeVacant = officeVacant

// Follow is what Run does with others' changes.
func Follow(f *Fleet, ctx context.Context) { f.follow(ctx) }

// Break makes a change that panics.
func Break(f *Fleet, ctx context.Context) error {
	return f.change(ctx, func(d *draft) error {
		d.event(Event{Kind: "test.broken"})
		var m *Machine
		m.Name = "nobody"
		return nil
	})
}

// Schedule makes a change that only the site's scheduler may make.
func Schedule(f *Fleet, ctx context.Context) error {
	return f.schedule(ctx, func(d *draft) error {
		d.event(Event{Kind: "test.scheduled"})
		return nil
	})
}

// CatchUp is what Run does several times a second; Exchange every few seconds.
func CatchUp(f *Fleet) error                       { return f.refresh() }
func Exchange(f *Fleet, ctx context.Context) error { return f.exchange(ctx) }

// MachinesByID returns the records of all machines.
func MachinesByID(f *Fleet) map[string]*Machine { return f.state.machines }

// Put writes a record as it is.
func Put(f *Fleet, ctx context.Context, r Record) error {
	return f.change(ctx, func(d *draft) error {
		d.add(r)
		return nil
	})
}

// Join1 puts a machine into a group.
func Join1(f *Fleet, ctx context.Context, machine, group string) error {
	return f.change(ctx, func(d *draft) error {
		own := d.editMachine(d.machine(machine))
		own.Groups = append(own.Groups, group)
		return nil
	})
}

// Asking is how many agents wait for a job.
func Asking(f *Fleet) (n int) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	for _, c := range f.claims {
		n += c
	}
	return n
}

// Guess counts a wrong password.
func Guess(f *Fleet, now time.Time, keys ...string) { f.guesses.wrong(now, keys...) }

// Guesses is how many series of wrong passwords are kept.
func Guesses(f *Fleet) int { return len(f.guesses.seq) }

// Together runs functions that make one change each, all in one transaction, in their order.
func Together(f *Fleet, do ...func()) {
	var all sync.WaitGroup
	waiting := func(atWork bool, n int) {
		for {
			f.asking.Lock()
			done := f.atWork == atWork && len(f.asked) == n
			f.asking.Unlock()
			if done {
				return
			}
			time.Sleep(time.Millisecond)
		}
	}
	waiting(false, 0)
	f.writing.Lock()
	all.Go(func() { f.change(context.Background(), func(*draft) error { return nil }) })
	waiting(true, 0) // that one is on its way, and waits for writing
	for i, fn := range do {
		all.Go(fn)
		waiting(true, i+1)
	}
	f.writing.Unlock()
	all.Wait()
}

// Stall has the queue go on with its last decision, as it does for a moment where it is long.
func Stall(f *Fleet) {
	f.decide()
	f.deciding.Lock()
	defer f.deciding.Unlock()
	f.turns.took, f.turns.taken = time.Hour, time.Now()
}

// Settle waits until the queue has decided by what is there now: where it is busy, it lets a moment pass between two decisions.
func Settle(f *Fleet) {
	for {
		t, _ := f.decide()
		f.mu.RLock()
		done := t.revision == f.revision && (t.Next.IsZero() || f.now().Before(t.Next))
		f.mu.RUnlock()
		if done {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// Forget is what Run does each hour.
func Forget(f *Fleet, now time.Time) { f.forgetOld(now) }

// SessionOf is the ID of a caller's boot.
func SessionOf(c Caller) string { return c.session.ID }

// LimitPending bounds the boot tokens that nobody redeemed.
func LimitPending(f *Fleet, n int) { f.maxPending = n }

// ClaimRecords is what Run does first.
func ClaimRecords(f *Fleet, ctx context.Context) error { return f.claimRecords(ctx) }

// Crowd fills the memory with n machines in rooms of so many, which have limits, uplinks and, one in five, a window that is shut; every
// other machine asks for a job.
func Crowd(f *Fleet, n, room int) {
	for i := range n {
		number := i / room
		g := &Group{ID: fmt.Sprint("room-", number), Name: fmt.Sprint("room-", number), Kind: Room, Limit: room / 2, Uplink: fmt.Sprint("switch-", number/2), UplinkLimit: room / 2}
		if number%5 == 0 {
			g.Windows = []string{"daily 22:00-23:00"}
		}
		f.state.others[g.Ref()] = g
		m := &Machine{ID: newID(), Name: fmt.Sprint("seat-", i), Admitted: true, Groups: []string{g.ID}}
		m.MACs = []string{m.ID}
		f.state.machines[m.ID] = m
		if i%2 == 0 {
			f.claims[m.ID]++
		}
	}
}

// DecideAnew has the queue decide though nothing has changed, and returns how many jobs may begin and how many wait for something.
func DecideAnew(f *Fleet) (begin, waits int) {
	f.mu.Lock()
	f.revision++
	f.mu.Unlock()
	f.deciding.Lock()
	f.turns = nil
	f.deciding.Unlock()
	t, _ := f.decide()
	return len(t.Begin), len(t.Waits)
}

// Holder is the boot that holds the claim of a job, or nil.
func Holder(f *Fleet, id string) *Session {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if j := f.state.jobs[id]; j != nil {
		return f.state.sessions[j.Session]
	}
	return nil
}

// Mixed asks for two changes in one transaction, each of which tells of an event; the first is the scheduler's alone.
func Mixed(f *Fleet, ctx context.Context, scheduled, other Event) (errs [2]error) {
	batch := []*asked{
		{fn: func(d *draft) error { d.office = true; d.event(scheduled); return nil }},
		{fn: func(d *draft) error { d.event(other); return nil }},
	}
	f.writing.Lock()
	defer f.writing.Unlock()
	err := f.write(ctx, batch)
	for i, a := range batch {
		if errs[i] = a.err; a.err == nil {
			errs[i] = err
		}
	}
	return errs
}

// LeaveOffice makes the appliance one that does not schedule the site.
func LeaveOffice(f *Fleet) { f.office.Store(&Office{}) }

// MaxClaims is how many claims of one machine wait at once.
const MaxClaims = maxClaims

// DrainStrangers uses up what machines may tell that nobody admitted.
func DrainStrangers(f *Fleet) {
	for f.tellers.strangers.AllowN(f.now(), 1) {
	}
}

// CrowdStrangers has as many claims of strangers wait as may.
func CrowdStrangers(f *Fleet) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.strangers = maxStrangeClaims
}

// Accuse has somebody say n times that peers lied, each of a job of its own.
func Accuse(f *Fleet, n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range n {
		id := fmt.Sprint("no-job-", i)
		f.accused[id] = &accused{}
		f.bar(id, "lied")
	}
}

// Hear takes over what another appliance tells.
func Hear(f *Fleet, p Presence) error { return f.hear(p) }

// MaxSaved is of how many jobs of one machine the old tables are kept.
const MaxSaved = maxSaved

// Bounds of machines that no person admitted.
const (
	MaxByThemselves     = maxByThemselves
	MaxByThemselvesHour = maxByThemselvesHour
	LongInventories     = longInventories
)

// Gather fills the memory with n machines that told an inventory of some length; byItself is when they were admitted at first sight,
// zero not at all.
func Gather(f *Fleet, n, length int, byItself time.Time) {
	inv := &job.Inventory{Product: strings.Repeat("x", length)}
	f.mu.Lock()
	defer f.mu.Unlock()
	for range n {
		id := newID()
		f.apply([]Record{&Machine{ID: id, MACs: []string{id}, Inventory: inv, ByItself: byItself, Admitted: !byItself.IsZero()}}, nil)
	}
}

// CountsOfStrangers returns the counts of machines that no person admitted as the fleet keeps them, and as its records are.
func CountsOfStrangers(f *Fleet) (kept, counted any) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	var c crowd
	for _, m := range f.state.machines {
		c.count(m, 1)
	}
	return f.crowd, c
}

// DrainSights and DrainStrays use up the machines that may be seen for the first time, and the events about strangers.
func DrainSights(f *Fleet) {
	for f.tellers.sights.AllowN(f.now(), 1) {
	}
}

func DrainStrays(f *Fleet) {
	f.writing.Lock()
	defer f.writing.Unlock()
	for f.strays.may.AllowN(f.now(), 1) {
	}
}

// Reload begins again with all records, as an appliance does that was away for long.
func Reload(f *Fleet, ctx context.Context) error {
	f.writing.Lock()
	defer f.writing.Unlock()
	return f.reload(ctx)
}

// Retain is what Run does each hour with what was kept long enough.
func Retain(f *Fleet, ctx context.Context) error { return f.retain(ctx) }

// Facts writes receipts and frames.
func Facts(f *Fleet, ctx context.Context, receipts []Receipt, frames []Frame) {
	err := f.change(ctx, func(d *draft) error {
		d.facts.receipts, d.facts.frames = receipts, frames
		return nil
	})
	if err != nil {
		panic(err)
	}
}

// Tell writes n events of a kind.
func Tell(f *Fleet, ctx context.Context, n int, kind string) {
	err := f.change(ctx, func(d *draft) error {
		for range n {
			d.event(Event{Kind: kind, Text: "x"})
		}
		return nil
	})
	if err != nil {
		panic(err)
	}
}

// Remember writes how far the machines are.
func Remember(f *Fleet, ctx context.Context) error { return f.tellIfAny(ctx) }

// Screens is of how many machines it is kept what their screens say.
func Screens(f *Fleet) int {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return len(f.screens)
}

// WaitToWrite has somebody wait to write in the memory where others read it now. Who reads and asks to read again waits for ever then.
func WaitToWrite(f *Fleet) {
	if f.mu.TryLock() {
		f.mu.Unlock()
		return
	}
	go func() {
		f.mu.Lock()
		defer f.mu.Unlock()
	}()
	for f.mu.TryRLock() {
		f.mu.RUnlock()
		runtime.Gosched()
	}
}
