package fleet_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
	"seedbed/appliance/store"
	"seedbed/images"
	"seedbed/test-vm/powercut"
)

// book is what machines and people were told: none of it may be otherwise after a crash. Safe for concurrent use.
type book struct {
	mu       sync.Mutex
	machines map[string]string          // IDs by MAC
	orders   map[time.Duration]*ordered // by mark
	jobs     map[string]*told
	edits    int // of the group that were acknowledged
	unsure   int // of which nobody knows
}

type ordered struct {
	machines     []string
	acknowledged bool
}

// told is what was said about a job.
type told struct {
	machine   string
	epochs    map[int64]string // the boot that was given each claim
	state     job.State        // how it ended; "" if nobody was told that it has
	receipt   []byte
	signature []byte
	frames    []images.Digest
}

func newBook() *book {
	return &book{machines: map[string]string{}, orders: map[time.Duration]*ordered{}, jobs: map[string]*told{}}
}

func (b *book) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	claims, ends := 0, map[job.State]int{}
	for _, j := range b.jobs {
		claims += len(j.epochs)
		ends[j.state]++
	}
	return fmt.Sprintf("%d orders, %d jobs, %d claims, told to have succeeded %d, failed %d, been cancelled %d, %d edits", len(b.orders), len(b.jobs), claims,
		ends[job.Succeeded], ends[job.Failed], ends[job.Cancelled], b.edits)
}

func (b *book) count(state job.State) (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, j := range b.jobs {
		if j.state == state {
			n++
		}
	}
	return n
}

// job returns what was told of a job. The caller holds mu.
func (b *book) job(id string) *told {
	if b.jobs[id] == nil {
		b.jobs[id] = &told{epochs: map[int64]string{}}
	}
	return b.jobs[id]
}

func (b *book) isMachine(mac, id string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.machines[mac] = id
}

func (b *book) someMachines(random *rand.Rand) (list []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, id := range b.machines {
		if random.IntN(3) == 0 {
			list = append(list, id)
		}
	}
	return list
}

func (b *book) ordering(mark time.Duration, machines []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.orders[mark] = &ordered{machines: machines}
}

func (b *book) ordered(mark time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.orders[mark].acknowledged = true
}

// ended returns the jobs that somebody was told to have ended.
func (b *book) ended() map[string]job.State {
	b.mu.Lock()
	defer b.mu.Unlock()
	list := map[string]job.State{}
	for id, j := range b.jobs {
		if j.state != "" {
			list[id] = j.state
		}
	}
	return list
}

// claimed notes a claim, which is one boot's alone.
func (b *book) claimed(id string, epoch int64, boot string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	j := b.job(id)
	if had, given := j.epochs[epoch]; given && had != boot {
		return fmt.Errorf("claim %d of job %s was given to two boots", epoch, id)
	}
	j.epochs[epoch] = boot
	return nil
}

func (b *book) end(id string, state job.State) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.job(id).state = state
}

func (b *book) framed(id string, digest images.Digest) {
	b.mu.Lock()
	defer b.mu.Unlock()
	j := b.job(id)
	j.frames = append(j.frames, digest)
}

func (b *book) receipted(id string, receipt, signature []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	j := b.job(id)
	j.receipt, j.signature = receipt, signature
}

func (b *book) editing() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.unsure++
}

func (b *book) edited(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err == nil {
		b.edits++
	}
	if _, refused := errors.AsType[*fleet.Refusal](err); err == nil || refused {
		b.unsure--
	}
}

// check compares what each appliance holds with what was told, while nobody asks anything.
func (w *world) check() {
	w.t.Helper()
	b := w.book
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, r := range w.rooms {
		jobs := map[string]fleet.JobView{}
		for _, j := range r.Jobs() {
			jobs[j.ID] = j
		}
		w.checkOrders(r, jobs)
		w.checkJobs(r, jobs)
		w.checkClaims(r, jobs)
		w.checkEdits(r)
	}
}

// checkOrders demands that each order is there once, with one job for each of its machines, and no other.
func (w *world) checkOrders(r *room, jobs map[string]fleet.JobView) {
	w.t.Helper()
	marks := map[string]time.Duration{} // by deployment
	seen := map[time.Duration]bool{}
	for _, d := range r.Deployments() {
		if w.book.orders[d.SeedFor] == nil || seen[d.SeedFor] {
			w.t.Errorf("%s: deployment %s was not asked for, or once only", r.id, d.ID)
			continue
		}
		seen[d.SeedFor], marks[d.ID] = true, d.SeedFor
	}
	retries := map[string]bool{}
	for _, j := range jobs {
		if j.RetriedBy != "" {
			retries[j.RetriedBy] = true
		}
	}
	first := map[time.Duration][]string{} // the machines of jobs that are no second tries
	for id, j := range jobs {
		if _, asked := marks[j.Deployment]; !asked {
			w.t.Errorf("%s: job %s was not asked for", r.id, id)
		}
		if !retries[id] {
			first[marks[j.Deployment]] = append(first[marks[j.Deployment]], j.Machine)
		}
		delete(retries, id)
	}
	for id := range retries {
		w.t.Errorf("%s: job %s, which is the second try of another, is lost", r.id, id)
	}
	for mark, o := range w.book.orders {
		if o.acknowledged && !seen[mark] {
			w.t.Errorf("%s: an order that was acknowledged is lost", r.id)
		}
		want := slices.Sorted(slices.Values(o.machines))
		if got := slices.Sorted(slices.Values(first[mark])); seen[mark] && !slices.Equal(got, want) {
			w.t.Errorf("%s: jobs for machines %v of an order for %v", r.id, got, want)
		}
	}
}

// checkJobs demands that jobs are as somebody was told that they are, and remembers those that are new.
func (w *world) checkJobs(r *room, jobs map[string]fleet.JobView) {
	w.t.Helper()
	for id, j := range w.book.jobs {
		have, there := jobs[id]
		switch {
		case !there:
			w.t.Errorf("%s: job %s is lost", r.id, id)
			continue
		case j.state != "" && have.State != j.state:
			w.t.Errorf("%s: job %s is %s, and was said to be %s", r.id, id, have.State, j.state)
		case j.machine != "" && have.Machine != j.machine:
			w.t.Errorf("%s: job %s is another machine's", r.id, id)
		}
		for epoch := range j.epochs {
			if have.Epoch < epoch {
				w.t.Errorf("%s: job %s was claimed %d times, and knows of %d", r.id, id, epoch, have.Epoch)
			}
		}
		if j.receipt == nil {
			continue
		}
		stored, err := r.store.Receipt(w.t.Context(), id)
		if err != nil || stored == nil || !bytes.Equal(stored.Receipt, j.receipt) || !bytes.Equal(stored.Countersignature, j.signature) {
			w.t.Errorf("%s: the receipt of job %s is not the one that was acknowledged: %v", r.id, id, err)
		}
		if madeRoom(r, have.Machine, id) {
			continue
		}
		frames, err := r.store.Frames(w.t.Context(), id)
		for _, digest := range j.frames {
			if !slices.ContainsFunc(frames, func(f fleet.Frame) bool { return f.Digest == digest && images.Sum(f.Bytes) == digest }) {
				w.t.Errorf("%s: a saved frame of job %s is lost: %v", r.id, id, err)
			}
		}
	}
	for id, have := range jobs {
		w.book.job(id).machine = have.Machine
	}
}

// madeRoom reports whether the old tables of a job made room for those of as many later jobs of its machine as are kept.
func madeRoom(r *room, machine, id string) bool {
	m := fleet.MachinesByID(r.Fleet)[machine]
	return m != nil && len(m.Saved) == fleet.MaxSaved && !slices.ContainsFunc(m.Saved, func(s fleet.Saved) bool { return s.Job == id })
}

// checkClaims demands that claims are held by a boot that may, are as many as were recorded, and that nothing happens after an end.
func (w *world) checkClaims(r *room, jobs map[string]fleet.JobView) {
	w.t.Helper()
	events, err := r.store.Events(w.t.Context(), fleet.EventQuery{Kind: "job.", Limit: 1 << 20})
	if err != nil {
		w.t.Error(err)
	}
	claims, ends := map[string]int64{}, map[string]int{}
	for _, e := range events {
		if e.Kind == "job.frame" {
			continue
		}
		if ends[e.Job] > 0 {
			w.t.Errorf("%s: after the end of job %s: %s", r.id, e.Job, e.Text)
		}
		switch job.State(e.Kind[len("job."):]) {
		case job.Claimed:
			claims[e.Job]++
		case job.Succeeded, job.Failed, job.Cancelled:
			ends[e.Job]++
		}
	}
	busy := map[string]string{}
	for id, j := range jobs {
		if j.Epoch != claims[id] {
			w.t.Errorf("%s: job %s counts %d claims, recorded are %d", r.id, id, j.Epoch, claims[id])
		}
		if j.State.Ended() != (ends[id] == 1) {
			w.t.Errorf("%s: job %s is %s, and %d ends are recorded", r.id, id, j.State, ends[id])
		}
		if j.State != job.Claimed && j.State != job.Running {
			continue
		}
		if other := busy[j.Machine]; other != "" {
			w.t.Errorf("%s: jobs %s and %s are at work on one machine", r.id, id, other)
		}
		busy[j.Machine] = id
		if s := fleet.Holder(r.Fleet, id); s == nil || s.Machine != j.Machine || s.Redeemed.IsZero() {
			w.t.Errorf("%s: job %s is %s, and held by the boot %+v", r.id, id, j.State, s)
		}
	}
}

func (w *world) checkEdits(r *room) {
	w.t.Helper()
	g, err := r.Group("room")
	if err != nil {
		w.t.Error(err)
		return
	}
	n := 0
	if _, err := fmt.Sscan(g.Notes, &n); err != nil || n < w.book.edits || n > w.book.edits+w.book.unsure {
		w.t.Errorf("%s: %q edits are there, %d were acknowledged, and of %d nobody knows", r.id, g.Notes, w.book.edits, w.book.unsure)
	}
}

// commitLog is what records are to hold after each commit.
type commitLog struct {
	mu     sync.Mutex
	power  *powercut.Disk
	number int64 // of the last commit that was acknowledged
	rows   map[fleet.Key]string
	events map[int64]string
	// attempts are at the commit after it, since it was acknowledged: the last may have been cut off, those before were refused by
	// the disk. One of them may be there after a power cut.
	attempts []*attempt
	kept     *attempt // that what was compared last held; nil is none
	refused  int      // commits that failed though the power was on
}

// attempt is one commit.
type attempt struct {
	rows   map[fleet.Key]string // "" is one that it removes
	events []string
}

func (l *commitLog) onTheWay() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.attempts) > 0
}

// recovered takes what was compared last for what is there now, and reports whether it held a commit that was not acknowledged.
func (l *commitLog) recovered() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	kept := l.kept
	if kept != nil {
		l.number++
		l.take(kept, int64(len(l.events)+len(kept.events)))
	}
	l.attempts, l.kept = nil, nil
	return kept != nil
}

// take makes an attempt part of what is to be there.
func (l *commitLog) take(a *attempt, lastEvent int64) {
	if l.rows == nil {
		l.rows, l.events = map[fleet.Key]string{}, map[int64]string{}
	}
	for k, row := range a.rows {
		if l.rows[k] = row; row == "" {
			delete(l.rows, k)
		}
	}
	for i, e := range a.events {
		l.events[lastEvent-int64(len(a.events))+int64(i)+1] = e
	}
}

// loggedRecords notes what is committed before it is, and when it is acknowledged.
type loggedRecords struct {
	*store.Store
	log *commitLog
}

func (r *loggedRecords) Commit(ctx context.Context, c *fleet.Change) (int64, error) {
	l := r.log
	l.mu.Lock()
	defer l.mu.Unlock()
	a, err := attemptOf(c)
	if err != nil {
		return 0, err
	}
	on := !l.power.IsOff()
	number, err := r.Store.Commit(ctx, c)
	switch {
	case err != nil && on:
		if l.attempts = append(l.attempts, a); !l.power.IsOff() {
			l.refused++
		}
	case err == nil:
		last := int64(len(l.events))
		if n := len(c.Events); n > 0 {
			last = c.Events[n-1].ID
		}
		l.take(a, last)
		l.number, l.attempts = number, nil
	}
	return number, err
}

func attemptOf(c *fleet.Change) (*attempt, error) {
	a := &attempt{rows: map[fleet.Key]string{}}
	for _, r := range c.Put {
		*r.Row()++
		doc, err := json.Marshal(r)
		*r.Row()--
		if err != nil {
			return nil, err
		}
		a.rows[r.Ref()] = string(doc)
	}
	for _, k := range c.Remove {
		a.rows[k] = ""
	}
	for _, e := range c.Events {
		e.ID = 0
		doc, err := json.Marshal(e)
		if err != nil {
			return nil, err
		}
		a.events = append(a.events, string(doc))
	}
	return a, nil
}

// compare demands of the records at a location that they are those after the last commit, or after the one on its way.
func (w *world) compare(location string) {
	w.t.Helper()
	defer powercut.New(w.t, filepath.Dir(location)).Unmount() // there syncs cost nothing
	s, err := store.Open(w.t.Context(), location)
	if err != nil {
		w.t.Fatal(err)
	}
	defer s.Close()
	snap, err := s.Load(w.t.Context(), time.Time{})
	if err != nil {
		w.t.Fatal(err)
	}
	l := w.log
	l.mu.Lock()
	defer l.mu.Unlock()
	l.kept = nil
	candidates := []*attempt{nil}
	switch {
	case snap.Number == l.number:
	case snap.Number == l.number+1 && len(l.attempts) > 0:
		candidates = l.attempts
	default:
		w.t.Fatalf("after a power cut the records are those of commit %d; %d was acknowledged (%d on their way)", snap.Number, l.number, len(l.attempts))
	}
	after := max(0, len(l.events)-50) // from time to time all events are looked at
	if w.random.IntN(10) == 0 {
		after = 0
	}
	events, err := s.Events(w.t.Context(), fleet.EventQuery{After: int64(after), Limit: 1 << 20})
	if err != nil {
		w.t.Fatal(err)
	}
	var wrong []string
	for _, a := range candidates {
		l.kept, wrong = a, append(l.differences(snap, a), l.otherEvents(events, after, a)...)
		if len(wrong) == 0 {
			break
		}
	}
	for _, sentence := range wrong {
		w.t.Error(sentence)
	}
}

// differences says what of the records is not as after the last commit, and the attempt if there is one.
func (l *commitLog) differences(snap *fleet.Snapshot, a *attempt) (wrong []string) {
	want := map[fleet.Key]string{}
	maps.Copy(want, l.rows)
	if a != nil {
		for k, row := range a.rows {
			if want[k] = row; row == "" {
				delete(want, k)
			}
		}
	}
	for _, r := range snap.Put {
		doc, err := json.Marshal(r)
		if k := r.Ref(); err != nil || string(doc) != want[k] {
			wrong = append(wrong, fmt.Sprintf("%s %s is\n%s, and not\n%s (%v)", k.Kind, k.ID, doc, want[k], err))
		}
	}
	if len(snap.Put) != len(want) {
		wrong = append(wrong, fmt.Sprintf("%d records, want %d", len(snap.Put), len(want)))
	}
	return wrong
}

// otherEvents says what of the events after that number is not as after the last commit, and the attempt if there is one.
func (l *commitLog) otherEvents(list []fleet.Event, after int, a *attempt) (wrong []string) {
	var more []string
	if a != nil {
		more = a.events
	}
	if want := len(l.events) + len(more) - after; len(list) != want {
		return []string{fmt.Sprintf("%d events after %d, want %d", len(list), after, want)}
	}
	for i, e := range list {
		number := after + i + 1
		id := e.ID
		e.ID = 0
		doc, err := json.Marshal(e)
		want := ""
		if number <= len(l.events) {
			want = l.events[int64(number)]
		} else {
			want = more[number-len(l.events)-1]
		}
		if err != nil || string(doc) != want || id != int64(number) {
			wrong = append(wrong, fmt.Sprintf("event %d is %s, and not %s (%v)", id, doc, want, err))
		}
	}
	return wrong
}
