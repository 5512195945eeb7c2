package fleet

import (
	"maps"
	"slices"
)

// draft collects what one change writes. Its readers see what it already holds; what it reads it must not change but
// through edit.
type draft struct {
	f      *Fleet
	parent *draft // of earlier changes in the same transaction, or nil
	put    map[Key]Record
	gone   map[Key]bool
	order  []Key // of put, as they were put first
	// jobsOfMachine has the IDs of the jobs in put by the machines that they are, or were, of.
	jobsOfMachine map[string][]string
	facts         facts
	// office says that only the site's scheduler may make this change.
	office bool
	// plan says that the draft is thrown away, and that its maker holds mu to read: a second lock would wait for who waits to write.
	plan bool
}

// facts are what is written once.
type facts struct {
	events   []Event
	frames   []Frame
	receipts []Receipt
	unframe  []string
	forget   Deletion
}

func newDraft(f *Fleet, parent *draft) *draft {
	return &draft{f: f, parent: parent, put: map[Key]Record{}, gone: map[Key]bool{}, jobsOfMachine: map[string][]string{}}
}

// newPlan returns a draft that is thrown away. The caller holds writing, and mu to read.
func newPlan(f *Fleet) *draft {
	d := newDraft(f, nil)
	d.plan = true
	return d
}

// reset empties the draft.
func (d *draft) reset() {
	*d = *newDraft(d.f, d.parent)
}

// absorb takes over what a child of the draft holds.
func (d *draft) absorb(child *draft) {
	for _, k := range child.order {
		if r := child.put[k]; r != nil {
			d.add(r)
		}
	}
	for k := range child.gone {
		d.remove(k)
	}
	d.facts.events = append(d.facts.events, child.facts.events...)
	d.facts.frames = append(d.facts.frames, child.facts.frames...)
	d.facts.receipts = append(d.facts.receipts, child.facts.receipts...)
	d.facts.unframe = append(d.facts.unframe, child.facts.unframe...)
	d.facts.forget.Jobs = append(d.facts.forget.Jobs, child.facts.forget.Jobs...)
	d.facts.forget.Events = max(d.facts.forget.Events, child.facts.forget.Events)
	d.office = d.office || child.office
}

// change returns what is to be written.
func (d *draft) change() *Change {
	c := &Change{Events: d.facts.events, Frames: d.facts.frames, Receipts: d.facts.receipts, Unframe: d.facts.unframe, Delete: d.facts.forget}
	for _, k := range d.order {
		if r := d.put[k]; r != nil {
			c.Put = append(c.Put, r)
		}
	}
	for k := range d.gone {
		if d.f.state.get(k) != nil {
			c.Remove = append(c.Remove, k)
		}
	}
	return c
}

// add puts a record that is new, or the draft's own. One of an ID that the same transaction removes takes the place of that row.
func (d *draft) add(r Record) {
	k := r.Ref()
	if have := d.f.state.get(k); *r.Row() == 0 && have != nil && d.removes(k) {
		*r.Row() = *have.Row()
	}
	if _, had := d.put[k]; !had {
		d.order = append(d.order, k)
	}
	if j, is := r.(*Job); is && !slices.Contains(d.jobsOfMachine[j.Machine], j.ID) {
		d.jobsOfMachine[j.Machine] = append(d.jobsOfMachine[j.Machine], j.ID)
	}
	d.put[k] = r
	delete(d.gone, k)
}

func (d *draft) remove(k Key) {
	if _, had := d.put[k]; had {
		d.put[k] = nil // its place in the order stays
	}
	d.gone[k] = true
}

// removes reports whether the transaction removed a record so far.
func (d *draft) removes(k Key) bool {
	for p := d; p != nil; p = p.parent {
		if p.gone[k] {
			return true
		}
		if p.put[k] != nil {
			return false
		}
	}
	return false
}

// Unmade is the version of a record that was not there yet when somebody decided by it: what holds then is a default.
const Unmade = -1

// changed reports whether a record is not the one of a version that somebody decided by; 0 is any. What an earlier change of
// the same transaction did to it, which its row does not tell yet, is a change too.
func (d *draft) changed(r Record, version int64) bool {
	if version == 0 {
		return false
	}
	if version == Unmade {
		version = 0
	}
	k := r.Ref()
	for p := d.parent; p != nil; p = p.parent {
		if p.put[k] != nil || p.gone[k] {
			return true
		}
	}
	return *r.Row() != version
}

// get returns a record as the draft has it, or nil.
func (d *draft) get(k Key) Record {
	for p := d; p != nil; p = p.parent {
		if p.gone[k] {
			return nil
		}
		if r := p.put[k]; r != nil {
			return r
		}
	}
	return d.f.state.get(k)
}

// edit returns the draft's own copy of a record, to be changed.
func edit[T Record](d *draft, r T) T {
	k := r.Ref()
	if own := d.put[k]; own != nil {
		return own.(T)
	}
	own := r.copy().(T)
	d.add(own)
	return own
}

// lookup returns a record as the draft has it, or the zero T.
func lookup[T Record](d *draft, kind Kind, id string) (r T) {
	if have := d.get(Key{kind, id}); have != nil {
		r = have.(T)
	}
	return r
}

// every returns the records of a kind as the draft has them, in no order. of is the fleet's own.
func every[T Record](d *draft, kind Kind, of map[string]T) []T {
	over := map[string]Record{}
	for _, p := range d.line() {
		for k := range p.gone {
			if k.Kind == kind {
				over[k.ID] = nil
			}
		}
		for k, r := range p.put {
			if k.Kind == kind && r != nil {
				over[k.ID] = r
			}
		}
	}
	list := make([]T, 0, len(of)+len(over))
	for id, r := range of {
		if _, changed := over[id]; !changed {
			list = append(list, r)
		}
	}
	for r := range maps.Values(over) {
		if r != nil {
			list = append(list, r.(T))
		}
	}
	return list
}

// line returns the draft and those before it, the oldest first.
func (d *draft) line() []*draft {
	if d == nil {
		return nil
	}
	return append(d.parent.line(), d)
}

func (d *draft) machine(id string) *Machine       { return lookup[*Machine](d, KindMachine, id) }
func (d *draft) job(id string) *Job               { return lookup[*Job](d, KindJob, id) }
func (d *draft) deployment(id string) *Deployment { return lookup[*Deployment](d, KindDeployment, id) }
func (d *draft) session(id string) *Session       { return lookup[*Session](d, KindSession, id) }
func (d *draft) token(id string) *Token           { return lookup[*Token](d, KindToken, id) }

func (d *draft) editMachine(m *Machine) *Machine           { return edit(d, m) }
func (d *draft) editJob(j *Job) *Job                       { return edit(d, j) }
func (d *draft) editDeployment(of *Deployment) *Deployment { return edit(d, of) }
func (d *draft) editSession(s *Session) *Session           { return edit(d, s) }
func (d *draft) editToken(t *Token) *Token                 { return edit(d, t) }

func (d *draft) deployments() []*Deployment {
	return every(d, KindDeployment, d.f.state.deployments)
}
func (d *draft) sessions() []*Session { return every(d, KindSession, d.f.state.sessions) }
func (d *draft) tokens() []*Token     { return every(d, KindToken, d.f.state.tokens) }

// jobs returns all jobs; openJobs leaves out those that had ended before the draft.
func (d *draft) jobs() []*Job     { return every(d, KindJob, d.f.state.jobs) }
func (d *draft) openJobs() []*Job { return every(d, KindJob, d.f.open) }

// machines returns all machines that were not merged into another.
func (d *draft) machines() []*Machine {
	all := every(d, KindMachine, d.f.state.machines)
	list := all[:0]
	for _, m := range all {
		if m.MergedInto == "" {
			list = append(list, m)
		}
	}
	return list
}

// sessionOf returns the boot or guest with this public key, or nil.
func (d *draft) sessionOf(key string) *Session {
	for p := d; p != nil; p = p.parent {
		for k, r := range p.put {
			if s, ok := r.(*Session); ok && s != nil && k.Kind == KindSession && s.Key == key {
				return s
			}
		}
	}
	if id := d.f.keys[key]; id != "" {
		if s := d.session(id); s != nil && s.Key == key {
			return s
		}
	}
	return nil
}

// event adds a dated fact.
func (d *draft) event(e Event) {
	e.At = d.f.now().UTC()
	d.facts.events = append(d.facts.events, e)
}

// othersOf returns the records of a kind that has no map of its own, as the draft has them, in no order.
func othersOf[T Record](d *draft, kind Kind) []T {
	return every(d, kind, ofKind[T](&d.f.state, kind))
}

// ofKind returns the records of a kind by ID. The caller holds mu, or writing.
func ofKind[T Record](s *records, kind Kind) map[string]T {
	all := map[string]T{}
	for k, r := range s.others {
		if k.Kind == kind {
			all[k.ID] = r.(T)
		}
	}
	return all
}
