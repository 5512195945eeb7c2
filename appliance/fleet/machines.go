package fleet

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"unicode/utf8"

	"seedbed/appliance/job"
)

// Bounds of what people write about machines and groups.
const (
	maxName   = 64
	maxNotes  = 4096
	maxGroups = 10000
	maxSeats  = 1000 // rows, columns
)

// BootTo says what a machine boots whatever its jobs are.
type BootTo string

const (
	BootByJobs BootTo = ""      // the agent where there is a job, else its own disk
	BootAgent  BootTo = "agent" // the agent
	BootLocal  BootTo = "local" // its own disk: jobs wait
)

// BootOverride is a person's word about what a machine boots.
type BootOverride struct {
	To BootTo `json:"to"`
	// Once is for the next boot alone.
	Once bool `json:"once,omitempty"`
}

// MachineOrder asks for changes to a machine: nil fields stay.
type MachineOrder struct {
	Name   *string       `json:"name,omitempty"`
	Groups *[]string     `json:"groups,omitempty"` // names; they take the place of those before
	Seat   *Seat         `json:"seat,omitempty"`   // row 0 is none
	Notes  *string       `json:"notes,omitempty"`
	Boot   *BootOverride `json:"boot,omitempty"`
}

// EditMachine changes what people say of a machine. version is that of the record it was decided by; 0 is any.
func (f *Fleet) EditMachine(ctx context.Context, name string, version int64, o MachineOrder) (*MachineView, error) {
	if err := may(ctx, RoleOperator, "change machines"); err != nil {
		return nil, err
	}
	var id string
	err := f.change(ctx, func(d *draft) error {
		all := d.machines()
		m, err := find(all, name)
		if err != nil {
			return err
		}
		if d.changed(m, version) {
			return refuse(CodeChanged, "%s was changed by somebody else meanwhile; look again", m.Name)
		}
		id = m.ID
		what, err := d.alter(d.editMachine(m), o, all)
		if err != nil {
			return err
		}
		if len(what) > 0 {
			d.event(by(ctx, Event{Kind: "machine.changed", Machine: m.ID, Text: m.Name + ": " + strings.Join(what, ", ")}))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return f.Machine(id)
}

// alter changes the draft's own copy of a machine and says what.
func (d *draft) alter(own *Machine, o MachineOrder, all []*Machine) (what []string, err error) {
	if o.Name != nil && *o.Name != own.Name {
		name := strings.TrimSpace(*o.Name)
		switch {
		case name == "" || len(name) > maxName || !utf8.ValidString(name) || strings.ContainsFunc(name, notPrintable):
			return nil, refuse(CodeInvalid, "a machine's name has 1 to %d bytes of letters, digits and signs; %q has not", maxName, *o.Name)
		case slices.ContainsFunc(all, func(m *Machine) bool { return m.ID != own.ID && m.Name == name }):
			return nil, refuse(CodeAmbiguous, "there is a machine %q already", name)
		}
		what = append(what, "is named "+name)
		own.Name = name
	}
	if o.Notes != nil {
		notes := strings.TrimSpace(oneLineEnd.Replace(*o.Notes))
		if len(notes) > maxNotes {
			return nil, refuse(CodeInvalid, "notes have at most %d bytes, these have %d", maxNotes, len(notes))
		}
		if notes != own.Notes {
			own.Notes = notes
			what = append(what, "has other notes")
		}
	}
	if o.Groups != nil {
		groups, err := d.groupIDs(*o.Groups)
		if err != nil {
			return nil, err
		}
		if !slices.Equal(groups, own.Groups) {
			own.Groups = groups
			what = append(what, "belongs to "+orEmpty(strings.Join(groups, ", "), "no group"))
		}
	}
	if o.Seat != nil {
		if o.Seat.Row < 0 || o.Seat.Column < 0 || o.Seat.Row > maxSeats || o.Seat.Column > maxSeats || (o.Seat.Row == 0) != (o.Seat.Column == 0) {
			return nil, refuse(CodeInvalid, "a seat is a row and a column from 1 to %d, or 0 and 0 for none", maxSeats)
		}
		had := own.Seat
		if own.Seat = o.Seat; o.Seat.Row == 0 {
			own.Seat = nil
		}
		if (had == nil) != (own.Seat == nil) || had != nil && *had != *own.Seat {
			what = append(what, "has another seat")
		}
	}
	if o.Groups != nil || o.Seat != nil {
		if other := d.seated(own, all); other != nil {
			return nil, refuse(CodeAmbiguous, "%s stands at row %d, column %d of that room already", other.Name, own.Seat.Row, own.Seat.Column)
		}
	}
	if o.Boot != nil {
		switch o.Boot.To {
		case BootByJobs, BootAgent, BootLocal:
		default:
			return nil, refuse(CodeInvalid, "a machine boots the agent, its local disk, or by its jobs (agent, local, or nothing), not %q", o.Boot.To)
		}
		if own.Boot = o.Boot; o.Boot.To == BootByJobs {
			own.Boot = nil
		}
		what = append(what, "boots "+orEmpty(string(o.Boot.To), "by its jobs"))
	}
	return what, nil
}

// oneLineEnd makes of every end of a line that of Unix: tables and browsers have others.
var oneLineEnd = strings.NewReplacer("\r\n", "\n", "\r", "\n")

func notPrintable(r rune) bool { return r < ' ' || r == 0x7f }

// seated returns another machine at the same seat of the same room.
func (d *draft) seated(own *Machine, all []*Machine) *Machine {
	if own.Seat == nil {
		return nil
	}
	for _, m := range all {
		if m.ID == own.ID || m.Seat == nil || *m.Seat != *own.Seat {
			continue
		}
		if now := d.machine(m.ID); now != nil {
			m = now // it may have come into the room in this change
		}
		for _, id := range m.Groups {
			if g := lookup[*Group](d, KindGroup, id); g != nil && g.Kind == Room && slices.Contains(own.Groups, id) {
				return m
			}
		}
	}
	return nil
}

// groupIDs returns the IDs of groups by their names, sorted. A machine has one room at most.
func (d *draft) groupIDs(names []string) (ids []string, err error) {
	room := ""
	for _, name := range names {
		g, err := d.group(name)
		if err != nil {
			return nil, err
		}
		if slices.Contains(ids, g.ID) {
			continue
		}
		if g.Kind == Room {
			if room != "" {
				return nil, refuse(CodeInvalid, "a machine stands in one room, not in %s and %s", room, g.Name)
			}
			room = g.Name
		}
		ids = append(ids, g.ID)
	}
	slices.Sort(ids)
	return ids, nil
}

// group returns the group with a name.
func (d *draft) group(name string) (*Group, error) {
	g := lookup[*Group](d, KindGroup, GroupID(name))
	if g == nil {
		return nil, refuse(CodeGroupUnknown, "there is no group %q; `seedbed group ls` lists them", name)
	}
	return g, nil
}

// Machine returns a machine by its ID, name, MAC or serial number.
func (f *Fleet) Machine(name string) (*MachineView, error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	all := make([]*Machine, 0, len(f.state.machines))
	for _, m := range f.state.machines {
		if m.MergedInto == "" {
			all = append(all, m)
		}
	}
	m := f.state.machines[name]
	if m == nil {
		var err error
		if m, err = find(all, name); err != nil {
			return nil, err
		}
	}
	v := f.machineView(m)
	for _, j := range f.state.jobs {
		if j.Machine != m.ID {
			continue
		}
		if have := f.state.jobs[v.JobID]; have == nil || before(j, have) {
			v.State, v.JobID = j.State, j.ID
		}
	}
	return &v, nil
}

// RemoveMachine forgets a machine that has no job at work; where it is seen again, it is new. Its history stays in the events.
func (f *Fleet) RemoveMachine(ctx context.Context, name string) error {
	if err := may(ctx, RoleOperator, "remove machines"); err != nil {
		return err
	}
	return f.change(ctx, func(d *draft) error {
		m, err := find(d.machines(), name)
		if err == nil {
			err = d.expected(ctx, m, m.Name)
		}
		if err != nil {
			return err
		}
		for _, j := range d.openJobs() {
			switch {
			case j.Machine != m.ID || j.State.Ended():
			case j.State == job.Claimed || j.State == job.Running:
				return refuse(CodeMachineBusy, "%s is at work on job %s; wait for it, or end it with `seedbed job cancel %s`", m.Name, j.ID, j.ID)
			default:
				d.endBy(ctx, d.editJob(j), job.Cancelled, "removed", "the machine was removed")
			}
		}
		for _, s := range d.sessions() {
			if s.Machine == m.ID && !s.Revoked {
				d.editSession(s).Revoked = true
			}
		}
		d.remove(m.Ref())
		d.event(by(ctx, Event{Kind: "machine.removed", Machine: m.ID, Text: m.Name + " (" + m.MAC() + ") was removed"}))
		return nil
	})
}

// MergeMachines says that two records are one computer: from ends, its MACs and jobs go over to into.
func (f *Fleet) MergeMachines(ctx context.Context, from, into string) error {
	if err := may(ctx, RoleOperator, "merge machines"); err != nil {
		return err
	}
	return f.change(ctx, func(d *draft) error {
		all := d.machines()
		a, err := find(all, from)
		if err == nil {
			err = d.expected(ctx, a, a.Name)
		}
		if err != nil {
			return err
		}
		b, err := find(all, into)
		if err != nil {
			return err
		}
		if a.ID == b.ID {
			return refuse(CodeInvalid, "%s cannot be merged into itself", a.Name)
		}
		for _, j := range d.openJobs() {
			if j.Machine == a.ID && (j.State == job.Claimed || j.State == job.Running) {
				return refuse(CodeMachineBusy, "%s is at work on job %s; wait for it, or end it with `seedbed job cancel %s`", a.Name, j.ID, j.ID)
			}
		}
		own := d.editMachine(b)
		for _, mac := range a.MACs {
			if !slices.Contains(own.MACs, mac) {
				own.MACs = append(own.MACs, mac)
			}
		}
		d.merge(a, own)
		own.retell(a)
		if i := slices.Index(own.Like, a.ID); i >= 0 {
			if own.Like = slices.Delete(slices.Clone(own.Like), i, i+1); len(own.Like) == 0 {
				own.Conflict = ""
			}
		}
		if d.machine(a.ID) != nil {
			d.editMachine(a).MACs = nil
		}
		d.event(by(ctx, Event{Kind: "machine.merged", Machine: b.ID, Text: "a person said that " + a.Name + " is " + b.Name}))
		return nil
	})
}

// retell takes over what a later record of the same computer told: it has another board now, or another card. What that one was not let
// have, as it was this one's, stays.
func (m *Machine) retell(later *Machine) {
	if m.Inventory == nil || later.Inventory == nil || !later.FirstSeen.After(m.FirstSeen) {
		return
	}
	inv, had := *later.Inventory, m.Inventory
	inv.UUID, inv.Serial = cmp.Or(inv.UUID, had.UUID), cmp.Or(inv.Serial, had.Serial)
	m.Inventory = &inv
	m.UUID = cmp.Or(later.UUID, m.UUID)
}
