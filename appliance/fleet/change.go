package fleet

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"time"
)

// asked is one change that waits for its transaction.
type asked struct {
	fn   func(*draft) error
	done chan struct{} // closed when err is set
	err  error
	// office says that only the site's scheduler may make it, fenced that this appliance is not the one.
	office, fenced bool
}

// change runs fn and writes what it put into the draft; an error of fn, or of the transaction, leaves everything as it
// was. Changes that are asked for while a transaction is written share the next one. fn runs again where another
// appliance was faster, so it sets all that it returns each time; it must not block on anything but memory.
func (f *Fleet) change(ctx context.Context, fn func(d *draft) error) error {
	a := &asked{fn: fn, done: make(chan struct{})}
	f.asking.Lock()
	f.asked = append(f.asked, a)
	idle := !f.atWork
	f.atWork = true
	f.asking.Unlock()
	if idle {
		// The caller may be gone before the transaction ends; half of a change is no use to anyone else either.
		go f.work(context.WithoutCancel(ctx))
	}
	<-a.done
	return a.err
}

// work writes what is asked for until nothing is.
func (f *Fleet) work(ctx context.Context) {
	for {
		f.asking.Lock()
		batch := f.asked
		f.asked = nil
		f.atWork = len(batch) > 0
		f.asking.Unlock()
		if len(batch) == 0 {
			return
		}
		f.writing.Lock()
		err := f.write(ctx, batch)
		f.writing.Unlock()
		for _, a := range batch {
			if a.err == nil {
				a.err = err
			}
			close(a.done)
		}
	}
}

// maxConflicts is how often a transaction is tried while other appliances are faster. Each try knows what they wrote.
const maxConflicts = 50

// write runs the changes and writes what they make in one transaction. The caller holds writing.
func (f *Fleet) write(ctx context.Context, batch []*asked) error {
	looked := !f.config.Records.Shared()
	for range maxConflicts {
		d, refused := f.run(batch)
		if refused && !looked { // what it does not know yet may be what another appliance answered a moment ago
			looked = true
			before := f.number
			if err := f.catchUp(ctx); err != nil {
				return refuseNone(batch, err)
			}
			if f.number != before {
				continue
			}
		}
		err := f.commit(ctx, d)
		if errors.Is(err, ErrFenced) && fence(batch) {
			continue // without what only the scheduler may do
		}
		if !errors.Is(err, ErrConflict) {
			return err
		}
		if err := f.catchUp(ctx); err != nil {
			return err
		}
	}
	return fmt.Errorf("write the records: other appliances were faster %d times: %w", maxConflicts, ErrConflict)
}

// fence refuses the changes of a batch that only the site's scheduler may make, and reports whether there are others.
func fence(batch []*asked) (others bool) {
	for _, a := range batch {
		if a.office {
			a.fenced, a.err = true, ErrFenced
		}
		others = others || !a.fenced
	}
	return others
}

// run runs the changes of a batch, and reports whether one refused.
func (f *Fleet) run(batch []*asked) (d *draft, refused bool) {
	d = newDraft(f, nil)
	for _, a := range batch {
		if a.fenced {
			continue
		}
		child := newDraft(f, d)
		if a.err = f.try(a.fn, child); a.err == nil {
			d.absorb(child)
		}
		a.office = child.office
		refused = refused || a.err != nil
	}
	return d, refused
}

// try runs one change. What goes wrong in it for a reason that nobody thought of is the error of who asked for it: all others of the
// site ask on the same goroutine, and nothing but the draft is half changed.
func (f *Fleet) try(fn func(*draft) error, d *draft) (err error) {
	defer func() {
		if wrong := recover(); wrong != nil {
			f.log.Error("a change of the records went wrong inside", "err", wrong, "stack", string(debug.Stack()))
			err = fmt.Errorf("change the records: %v; this is an error of the program, and its log says more", wrong)
		}
	}()
	return fn(d)
}

// refuseNone takes refusals back that were made without the records.
func refuseNone(batch []*asked, err error) error {
	for _, a := range batch {
		a.err = err
	}
	return err
}

// commit writes a draft and makes it visible. The caller holds writing.
func (f *Fleet) commit(ctx context.Context, d *draft) (err error) {
	c := d.change()
	if c.empty() {
		return nil
	}
	before := f.strays
	defer func() {
		if err != nil {
			f.strays = before // nothing was told
		}
	}()
	c.Events = f.strays.keep(d, c.Events, f.now())
	if c.empty() { // it was nothing but what is left out
		return nil
	}
	c.Base = f.number
	if d.office {
		if c.Epoch = f.office.Load().Epoch; c.Epoch == 0 || !f.InOffice() {
			return ErrFenced
		}
	}
	number, err := f.config.Records.Commit(ctx, c)
	if errors.Is(err, ErrConflict) && f.config.Records.Shared() {
		return err
	}
	if err != nil {
		return fmt.Errorf("write the records: %w", err)
	}
	f.mu.Lock()
	f.number = number
	f.apply(c.Put, c.Remove)
	for _, id := range c.Delete.Jobs {
		f.forgetJob(id)
	}
	f.wake()
	f.mu.Unlock()
	for _, e := range c.Events {
		f.log.Log(ctx, levelOf(e.Kind), e.Text, "event", e.Kind, "machine", e.Machine, "job", e.Job)
	}
	return nil
}

// catchUp takes over what other appliances wrote. The caller holds writing.
func (f *Fleet) catchUp(ctx context.Context) error {
	news, err := f.config.Records.Since(ctx, f.number)
	if errors.Is(err, ErrStale) {
		return f.reload(ctx)
	}
	if err != nil {
		return fmt.Errorf("read what other appliances wrote: %w", err)
	}
	if news.Number == f.number {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.number = news.Number
	f.apply(news.Put, news.Remove)
	f.wake()
	return nil
}

// refresh takes over what other appliances wrote before a caller is refused for what this one does not know. An error says
// that the records cannot be read: then nobody is refused, but told to ask again.
func (f *Fleet) refresh() error {
	ctx, cancel := context.WithTimeout(context.Background(), refreshTimeout)
	defer cancel()
	f.writing.Lock()
	defer f.writing.Unlock()
	return f.catchUp(ctx)
}

// knowing calls fn, and where it refuses, with one of the codes if there are any, once more after a look at what other
// appliances wrote: what was answered at another one a moment ago holds here too.
func knowing[T any](f *Fleet, fn func() (T, error), codes ...string) (T, error) {
	answer, err := fn()
	refusal, refused := errors.AsType[*Refusal](err)
	if !refused || len(codes) > 0 && !slices.Contains(codes, refusal.Code) || !f.config.Records.Shared() {
		return answer, err
	}
	if err := f.refresh(); err != nil {
		return answer, err
	}
	return fn()
}

// refreshTimeout bounds how long a caller waits for it.
const refreshTimeout = 5 * time.Second

// reload begins again with all records. The caller holds writing.
func (f *Fleet) reload(ctx context.Context) error {
	snap, err := f.config.Records.Load(ctx, f.now().Add(-jobHistory))
	if err != nil {
		return fmt.Errorf("load the records: %w", err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.state, f.open, f.todo, f.keys = newRecords(), map[string]*Job{}, map[string][]*Job{}, map[string]string{}
	f.traits, f.crowd = traits{}, crowd{}
	f.number = snap.Number
	f.apply(snap.Put, snap.Remove)
	f.wake()
	return nil
}

// followEvery is how often an appliance looks for what the others wrote.
const followEvery = 250 * time.Millisecond

// follow takes over what other appliances write until ctx is done.
func (f *Fleet) follow(ctx context.Context) error {
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	failed := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		f.writing.Lock()
		err := f.catchUp(ctx)
		f.writing.Unlock()
		switch {
		case ctx.Err() != nil:
		case err != nil && !failed:
			f.log.Error("the records cannot be read; machines at work go on, nothing new begins", "err", err)
		case err == nil && failed:
			f.log.Info("the records can be read again")
		}
		failed = err != nil
	}
}
