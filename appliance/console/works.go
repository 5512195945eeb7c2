package console

import (
	"context"
	"slices"
	"sync"
	"time"

	"seedbed/appliance/api"
	"seedbed/appliance/fleet"
)

// Works is long work that people began on a page and that goes on while they look at others: the verification of an image, an upload's
// capture, a look at the network. Nothing of it outlasts the appliance. Safe for concurrent use.
type Works struct {
	ctx context.Context
	end context.CancelFunc
	all sync.WaitGroup

	mu   sync.Mutex // guards what follows
	next int
	list []*longWork
}

// Bounds of what is kept of work that is done, and of work at once.
const (
	worksKept    = 20
	worksKeptFor = time.Hour
	worksAtOnce  = 8
)

// NewWorks returns works that end with Run, or with the program where nobody calls it.
func NewWorks() *Works {
	w := &Works{}
	w.ctx, w.end = context.WithCancel(context.Background())
	return w
}

// Run ends all work when ctx ends, and waits for it.
func (w *Works) Run(ctx context.Context) error {
	<-ctx.Done()
	w.mu.Lock()
	w.end()
	w.mu.Unlock()
	w.all.Wait()
	return ctx.Err()
}

// longKind says what is done.
type longKind string

const (
	verifying longKind = "verify"
	taking    longKind = "upload"
	pruning   longKind = "prune"
	examining longKind = "examine"
)

// longWork is one piece of it. Its fields are copies in what Works returns.
type longWork struct {
	ID    int
	Kind  longKind
	About string // the image: "debian:1"; "" is all
	By    string // who began it
	Began time.Time
	// Done and Total are in bytes; a Total of 0 is not known yet.
	Done, Total int64
	Ended       time.Time // zero while it goes on
	// Cancelled says that a person ended it. Err is why it ended otherwise, nil is well; Result is what it returned.
	Cancelled bool
	Err       error
	Result    any

	cancel context.CancelFunc
}

// Share is how much of it is done, from 0 to 1.
func (w longWork) Share() float64 {
	if w.Total <= 0 {
		return 0
	}
	return min(1, float64(w.Done)/float64(w.Total))
}

// begin has work done in the name of who asks. Of one kind about one thing there is one at a time: a second is refused.
func (w *Works) begin(ctx context.Context, kind longKind, about string, fn func(ctx context.Context, progress func(api.Progress)) (any, error)) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	busy := 0
	for _, o := range w.list {
		if !o.Ended.IsZero() {
			continue
		}
		busy++
		if o.Kind == kind && o.About == about {
			return 0, &fleet.Refusal{Code: fleet.CodeMachineBusy, Detail: text("this is under way already; wait until it is done, or cancel it")}
		}
	}
	if busy >= worksAtOnce {
		return 0, &fleet.Refusal{Code: fleet.CodeTooMany, Detail: text("too much is under way at this moment; wait until something is done")}
	}
	if w.ctx.Err() != nil {
		return 0, &fleet.Refusal{Code: fleet.CodeTooMany, Detail: text("the appliance is stopping; try again when it is back")}
	}
	w.forget()
	w.next++
	o := &longWork{ID: w.next, Kind: kind, About: about, Began: time.Now()}
	own := w.ctx
	if a, known := fleet.ActorOf(ctx); known {
		o.By, own = a.Name, fleet.As(own, a)
	}
	own, o.cancel = context.WithCancel(own)
	w.list = append(w.list, o)
	w.all.Go(func() {
		defer o.cancel()
		result, err := fn(own, func(p api.Progress) {
			w.mu.Lock()
			o.Done, o.Total = p.Done, p.Total
			w.mu.Unlock()
		})
		w.mu.Lock()
		defer w.mu.Unlock()
		o.Result, o.Err, o.Ended = result, err, time.Now()
		o.Cancelled = o.Cancelled && err != nil
	})
	return o.ID, nil
}

// forget drops what ended long ago. The caller holds mu.
func (w *Works) forget() {
	w.list = slices.DeleteFunc(w.list, func(o *longWork) bool { return !o.Ended.IsZero() && time.Since(o.Ended) > worksKeptFor })
	for len(w.list) > worksKept {
		i := slices.IndexFunc(w.list, func(o *longWork) bool { return !o.Ended.IsZero() })
		if i < 0 {
			return
		}
		w.list = slices.Delete(w.list, i, i+1)
	}
}

// of returns the work of some kinds, the latest first.
func (w *Works) of(kinds ...longKind) (list []longWork) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.forget()
	for _, o := range slices.Backward(w.list) {
		if slices.Contains(kinds, o.Kind) {
			list = append(list, *o)
		}
	}
	return list
}

// last returns the last work of a kind about something.
func (w *Works) last(kind longKind, about string) (longWork, bool) {
	for _, o := range w.of(kind) {
		if o.About == about {
			return o, true
		}
	}
	return longWork{}, false
}

// stop cancels work. What has ended, or was never there, is left.
func (w *Works) stop(id int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, o := range w.list {
		if o.ID == id && o.Ended.IsZero() {
			o.Cancelled = true
			o.cancel()
		}
	}
}
