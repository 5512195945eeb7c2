package fleet

import (
	"context"

	"seedbed/appliance/job"
)

// Tidy is what Run does each second.
func Tidy(f *Fleet, ctx context.Context) error { return f.tidy(ctx) }

// MaxUnknown is the bound of machines that were only seen in boot packets.
const MaxUnknown = maxUnknown

// Flood fills the memory with n machines that were only seen in boot packets.
func Flood(f *Fleet, n int) {
	for range n {
		id := newID()
		f.state.machines[id] = &Machine{ID: id, MACs: []string{id}}
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

// CatchUp is what Run does several times a second; Exchange every few seconds.
func CatchUp(f *Fleet)                             { f.refresh() }
func Exchange(f *Fleet, ctx context.Context) error { return f.exchange(ctx) }

// MachinesByID returns the records of all machines.
func MachinesByID(f *Fleet) map[string]*Machine { return f.state.machines }

// Together asks for two changes in one transaction, each of which tells of an event; the first is the scheduler's alone.
func Together(f *Fleet, ctx context.Context, scheduled, other Event) (errs [2]error) {
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
