package fleet

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"seedbed/appliance/job"
	"seedbed/appliance/queue"
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

// GroupOrder asks for a group, or for changes to one: nil fields stay.
type GroupOrder struct {
	Name        string     `json:"name"`
	Kind        *GroupKind `json:"kind,omitempty"`
	Notes       *string    `json:"notes,omitempty"`
	Limit       *int       `json:"limit,omitempty"`
	Windows     *[]string  `json:"windows,omitempty"`
	Uplink      *string    `json:"uplink,omitempty"`
	UplinkLimit *int       `json:"uplink_limit,omitempty"`
	Broadcast   *string    `json:"broadcast,omitempty"`
	Rows        *int       `json:"rows,omitempty"`
	Columns     *int       `json:"columns,omitempty"`
	// KeepClean verifies and repairs its machines at every boot; CleanImage is KeepClean.Image.
	KeepClean  *bool   `json:"keep_clean,omitempty"`
	CleanImage *string `json:"clean_image,omitempty"`
}

// GroupView is a group as people and programs see it.
type GroupView struct {
	Group
	Machines int `json:"machines"`
	AtWork   int `json:"at_work"` // of them, now
}

// NewGroup makes a group.
func (f *Fleet) NewGroup(ctx context.Context, o GroupOrder) (*GroupView, error) {
	return f.editGroup(ctx, o.Name, 0, o, true)
}

// EditGroup changes a group, its name too where the order has another. version is that of the record it was decided by; 0 is any.
func (f *Fleet) EditGroup(ctx context.Context, name string, version int64, o GroupOrder) (*GroupView, error) {
	return f.editGroup(ctx, name, version, o, false)
}

func (f *Fleet) editGroup(ctx context.Context, name string, version int64, o GroupOrder, fresh bool) (*GroupView, error) {
	if err := may(ctx, RoleOperator, "change groups"); err != nil {
		return nil, err
	}
	if o.CleanImage != nil && *o.CleanImage != "" {
		if _, err := f.config.Library.Image(ctx, *o.CleanImage); err != nil {
			return nil, err
		}
	}
	var id string
	err := f.change(ctx, func(d *draft) error {
		var own *Group
		have := lookup[*Group](d, KindGroup, GroupID(name))
		switch {
		case fresh && have != nil:
			return refuse(CodeGroupExists, "there is a group %q already", have.Name)
		case fresh:
			var err error
			if own, err = d.newGroup(name); err != nil {
				return err
			}
			d.add(own)
		case have == nil:
			return refuse(CodeGroupUnknown, "there is no group %q; `seedbed group ls` lists them", name)
		case d.changed(have, version):
			return refuse(CodeChanged, "group %s was changed by somebody else meanwhile; look again", have.Name)
		default:
			own = edit(d, have)
		}
		id = own.ID
		was := *own
		if err := own.take(o); err != nil {
			return err
		}
		if own.Kind == Room && was.Kind != Room {
			if err := d.roomFor(own); err != nil {
				return err
			}
		}
		kind := map[bool]string{true: "group.created", false: "group.changed"}[fresh]
		d.event(by(ctx, Event{Kind: kind, Text: "group " + own.Name + map[bool]string{true: " was made", false: " was changed"}[fresh] + differences(was, *own)}))
		return nil
	})
	if err != nil {
		return nil, err
	}
	return f.Group(id)
}

// roomFor refuses to make a room of a group whose machines cannot all stand in it: some stand in another room, or at one seat.
func (d *draft) roomFor(g *Group) error {
	var elsewhere, sharing []string
	at := map[Seat]*Machine{}
	all := d.machines()
	slices.SortFunc(all, func(a, b *Machine) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID)) })
	for _, m := range all {
		if !slices.Contains(m.Groups, g.ID) {
			continue
		}
		for _, id := range m.Groups {
			if other := lookup[*Group](d, KindGroup, id); other != nil && other.ID != g.ID && other.Kind == Room {
				elsewhere = append(elsewhere, m.Name+" ("+other.Name+")")
			}
		}
		if m.Seat == nil {
			continue
		}
		if other := at[*m.Seat]; other != nil {
			sharing = append(sharing, fmt.Sprintf("%s and %s (row %d, column %d)", other.Name, m.Name, m.Seat.Row, m.Seat.Column))
		}
		at[*m.Seat] = m
	}
	switch {
	case len(elsewhere) > 0:
		return refuse(CodeAmbiguous, "a machine stands in one room, and these of group %s stand in another already: %s; take them out of one of the two (`seedbed group remove`)",
			g.Name, someOf(elsewhere))
	case len(sharing) > 0:
		return refuse(CodeAmbiguous, "in a room each seat is one machine's, and in group %s these have the same: %s; give them others (`seedbed machine edit --seat`)", g.Name, someOf(sharing))
	}
	return nil
}

// someOf lists the first of many.
func someOf(list []string) string {
	const most = 10
	if more := len(list) - most; more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(list[:most], ", "), more)
	}
	return strings.Join(list, ", ")
}

// newGroup returns a group that is not in the draft yet, or says why there is none of that name.
func (d *draft) newGroup(name string) (*Group, error) {
	g := &Group{ID: GroupID(name), Name: strings.TrimSpace(name), Kind: Tag, Created: d.f.now().UTC()}
	switch {
	case g.ID == "" || len(g.Name) > maxName || !utf8.ValidString(g.Name) || strings.ContainsFunc(g.Name, notPrintable) || strings.ContainsAny(g.Name, ",;/"):
		return nil, refuse(CodeInvalid, "a group's name has 1 to %d bytes, without commas, semicolons and slashes; %q has not", maxName, name)
	case len(othersOf[*Group](d, KindGroup)) >= maxGroups:
		return nil, refuse(CodeInvalid, "there are %d groups, and no more are made", maxGroups)
	}
	return g, nil
}

// take takes over what an order says.
func (g *Group) take(o GroupOrder) error {
	set := func(to *int, from *int, what string) error {
		if from == nil {
			return nil
		}
		if *from < 0 || *from > 1000000 {
			return refuse(CodeInvalid, "%s is a number from 0, not %d", what, *from)
		}
		*to = *from
		return nil
	}
	for _, err := range []error{set(&g.Limit, o.Limit, "the limit of a group"), set(&g.UplinkLimit, o.UplinkLimit, "the limit of an uplink"),
		set(&g.Rows, o.Rows, "the number of rows"), set(&g.Columns, o.Columns, "the number of columns")} {
		if err != nil {
			return err
		}
	}
	if o.Kind != nil {
		if *o.Kind != Room && *o.Kind != Line && *o.Kind != Tag {
			return refuse(CodeInvalid, "a group is a room, a line or a tag, not %q", *o.Kind)
		}
		g.Kind = *o.Kind
	}
	if o.Notes != nil {
		if len(*o.Notes) > maxNotes {
			return refuse(CodeInvalid, "notes have at most %d bytes, these have %d", maxNotes, len(*o.Notes))
		}
		g.Notes = *o.Notes
	}
	if o.Windows != nil {
		for _, text := range *o.Windows {
			if _, err := queue.ParseWindow(text, time.UTC); err != nil {
				return refuse(CodeInvalid, "%v", err)
			}
		}
		g.Windows = slices.Clone(*o.Windows)
	}
	if o.Uplink != nil {
		g.Uplink = strings.TrimSpace(*o.Uplink)
	}
	if o.Broadcast != nil {
		if a, err := netip.ParseAddr(*o.Broadcast); *o.Broadcast != "" && (err != nil || !a.Is4()) {
			return refuse(CodeInvalid, "%q is no IPv4 address; wake packets go to the broadcast address of the machines' network, for example 10.1.2.255", *o.Broadcast)
		}
		g.Broadcast = *o.Broadcast
	}
	return g.takeClean(o)
}

// takeClean takes over what an order says of the policy, which only its own word sets: it overwrites what people wrote on disks.
func (g *Group) takeClean(o GroupOrder) error {
	switch {
	case o.KeepClean != nil && !*o.KeepClean:
		g.KeepClean = nil
		return nil
	case g.KeepClean == nil && o.KeepClean == nil && o.CleanImage != nil && *o.CleanImage != "":
		return refuse(CodeInvalid, "an image that machines are kept clean by goes with keeping them clean, which group %s does not; order that too", g.Name)
	case g.KeepClean == nil && o.KeepClean == nil:
		return nil
	}
	own := KeepClean{}
	if g.KeepClean != nil {
		own = *g.KeepClean
	}
	if o.CleanImage != nil {
		own.Image = *o.CleanImage
	}
	g.KeepClean = &own
	return nil
}

// RemoveGroup removes a group; its machines stay.
func (f *Fleet) RemoveGroup(ctx context.Context, name string) error {
	if err := may(ctx, RoleOperator, "remove groups"); err != nil {
		return err
	}
	return f.change(ctx, func(d *draft) error {
		g, err := d.group(name)
		if err == nil {
			err = d.expected(ctx, g, "group "+g.Name)
		}
		if err != nil {
			return err
		}
		for _, m := range d.machines() {
			if slices.Contains(m.Groups, g.ID) {
				own := d.editMachine(m)
				own.Groups = slices.DeleteFunc(own.Groups, func(id string) bool { return id == g.ID })
			}
		}
		d.remove(g.Ref())
		d.event(by(ctx, Event{Kind: "group.removed", Text: "group " + g.Name + " was removed"}))
		return nil
	})
}

// GroupMachines puts machines into a group, or takes them out, and returns how many changed.
func (f *Fleet) GroupMachines(ctx context.Context, name string, machines []string, in bool) (count int, err error) {
	if err := may(ctx, RoleOperator, "change groups"); err != nil {
		return 0, err
	}
	err = f.change(ctx, func(d *draft) error {
		count = 0
		g, err := d.group(name)
		if err == nil {
			err = d.expected(ctx, g, "group "+g.Name)
		}
		if err != nil {
			return err
		}
		all := d.machines()
		list, err := d.pick(all, machines, nil)
		if err != nil {
			return err
		}
		for _, m := range list {
			if slices.Contains(m.Groups, g.ID) == in {
				continue
			}
			own := d.editMachine(m)
			if own.Groups = slices.DeleteFunc(own.Groups, func(id string) bool { return id == g.ID }); in {
				if own.Groups, err = d.groupIDs(append(own.Groups, g.ID)); err != nil {
					return err
				}
				if other := d.seated(own, all); other != nil {
					return refuse(CodeAmbiguous, "%s and %s have the same seat, row %d, column %d, and %s is a room; give one another seat (`seedbed machine edit --seat`)",
						m.Name, other.Name, own.Seat.Row, own.Seat.Column, g.Name)
				}
			}
			count++
		}
		if count > 0 {
			d.event(by(ctx, Event{Kind: "group.machines", Text: fmt.Sprintf("%d machines %s group %s", count, map[bool]string{true: "came into", false: "left"}[in], g.Name)}))
		}
		return nil
	})
	return count, err
}

// Groups returns the groups by name.
func (f *Fleet) Groups() []GroupView {
	f.mu.RLock()
	defer f.mu.RUnlock()
	list := []GroupView{}
	for _, g := range ofKind[*Group](&f.state, KindGroup) {
		list = append(list, f.groupView(g))
	}
	slices.SortFunc(list, func(a, b GroupView) int { return cmp.Compare(a.ID, b.ID) })
	return list
}

// Group returns the group with a name.
func (f *Fleet) Group(name string) (*GroupView, error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	g, _ := f.state.others[Key{KindGroup, GroupID(name)}].(*Group)
	if g == nil {
		return nil, refuse(CodeGroupUnknown, "there is no group %q; `seedbed group ls` lists them", name)
	}
	v := f.groupView(g)
	return &v, nil
}

// groupView counts a group's machines. The caller holds mu.
func (f *Fleet) groupView(g *Group) GroupView {
	v := GroupView{Group: *g}
	busy := map[string]bool{}
	for _, j := range f.open {
		if j.State == job.Claimed || j.State == job.Running {
			busy[j.Machine] = true
		}
	}
	for _, m := range f.state.machines {
		if m.MergedInto == "" && slices.Contains(m.Groups, g.ID) {
			v.Machines++
			if busy[m.ID] {
				v.AtWork++
			}
		}
	}
	return v
}

// SettingsOrder asks for other settings: nil fields stay.
type SettingsOrder struct {
	Limit    *int    `json:"limit,omitempty"`
	TimeZone *string `json:"time_zone,omitempty"`
	Retries  *int    `json:"retries,omitempty"`
}

// Settings returns what is set for the whole site.
func (f *Fleet) Settings() Settings {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return *f.state.settings()
}

// EditSettings changes the settings. version is that of the record it was decided by; 0 is any.
func (f *Fleet) EditSettings(ctx context.Context, version int64, o SettingsOrder) (*Settings, error) {
	if err := may(ctx, RoleAdmin, "change the settings"); err != nil {
		return nil, err
	}
	switch {
	case o.Limit != nil && *o.Limit < 0:
		return nil, refuse(CodeInvalid, "the limit of the site is a number from 0, not %d", *o.Limit)
	case o.Retries != nil && (*o.Retries < 0 || *o.Retries > maxRetries):
		return nil, refuse(CodeInvalid, "a job is tried again 0 to %d times, not %d", maxRetries, *o.Retries)
	}
	if o.TimeZone != nil && *o.TimeZone != "" {
		if _, err := queue.Zone(*o.TimeZone); err != nil {
			return nil, refuse(CodeInvalid, "there is no time zone %q; they are named as in Europe/Berlin", *o.TimeZone)
		}
	}
	var made Settings
	err := f.change(ctx, func(d *draft) error {
		have := lookup[*Settings](d, KindSettings, "site")
		if have == nil {
			set := defaultSettings
			have = &set
		}
		if d.changed(have, version) {
			return refuse(CodeChanged, "the settings were changed by somebody else meanwhile; look again")
		}
		own := edit(d, have)
		was := *own
		if o.Limit != nil {
			own.Limit = *o.Limit
		}
		if o.TimeZone != nil {
			own.TimeZone = *o.TimeZone
		}
		if o.Retries != nil {
			own.Retries = *o.Retries
		}
		d.event(by(ctx, Event{Kind: "settings.changed", Text: "the settings of the site were changed" + differences(was, *own)}))
		made = *own
		made.Version++
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &made, nil
}

// Woken says which machines were sent a packet that wakes them.
type Woken struct {
	Machines []string `json:"machines"`         // names
	Failed   []string `json:"failed,omitempty"` // names of those that no packet could be sent to
	Packets  int      `json:"packets"`
}

// Wake sends machines the packet that wakes them, at every network card that they have.
func (f *Fleet) Wake(ctx context.Context, machines, groups []string) (*Woken, error) {
	if err := may(ctx, RoleOperator, "wake machines"); err != nil {
		return nil, err
	}
	var list []*Machine
	err := f.change(ctx, func(d *draft) (err error) {
		if list, err = d.pick(d.machines(), machines, groups); err != nil {
			return err
		}
		woken := map[string]bool{}
		for _, m := range list {
			woken[m.ID] = true
			d.event(by(ctx, Event{Kind: "machine.wake", Machine: m.ID, Text: m.Name + " is woken over the network"}))
		}
		for _, j := range d.openJobs() {
			if woken[j.Machine] && j.State == job.Waiting && j.Calls >= maxCalls { // a person has looked after it: it is called anew
				d.editJob(j).uncall()
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	w := &Woken{}
	var failed error
	for _, m := range list { // one that cannot be reached does not keep the others asleep
		n, err := f.wakeMachine(m)
		if w.Packets += n; n == 0 {
			failed = err
			w.Failed = append(w.Failed, m.Name)
			f.log.Warn("a machine was not woken", "machine", m.Name, "err", err)
			continue
		}
		w.Machines = append(w.Machines, m.Name)
	}
	if len(w.Machines) == 0 {
		return w, failed
	}
	return w, nil
}

// wakeMachine sends the packets for one machine.
func (f *Fleet) wakeMachine(m *Machine) (packets int, err error) {
	if f.config.Wake == nil {
		return 0, refuse(CodeInvalid, "this appliance sends no packets that wake machines")
	}
	f.mu.RLock()
	var to []netip.Addr
	for _, id := range m.Groups {
		if g, ok := f.state.others[Key{KindGroup, id}].(*Group); ok && g.Broadcast != "" {
			if a, err := netip.ParseAddr(g.Broadcast); err == nil && !slices.Contains(to, a) {
				to = append(to, a)
			}
		}
	}
	f.mu.RUnlock()
	for _, text := range m.MACs {
		mac, failed := net.ParseMAC(text)
		if failed != nil || len(mac) != 6 {
			continue
		}
		if failed = f.config.Wake(mac, to); failed != nil {
			err = fmt.Errorf("wake %s: %w", m.Name, failed)
			continue
		}
		packets++
	}
	if packets == 0 && err != nil {
		return 0, err
	}
	if packets == 0 {
		return 0, refuse(CodeInvalid, "%s has no network card that is known", m.Name)
	}
	return packets, nil // one card is enough
}
