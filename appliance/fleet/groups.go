package fleet

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"seedbed/appliance/job"
	"seedbed/appliance/queue"
)

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

// maxWindows bounds the windows of a group.
const maxWindows = 100

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
		if len(*o.Windows) > maxWindows {
			return refuse(CodeInvalid, "a group has at most %d windows, these are %d; one window can be of several days, as mon-fri 18:00-07:00", maxWindows, len(*o.Windows))
		}
		for _, text := range *o.Windows {
			if _, err := queue.ParseWindow(text, time.UTC); err != nil {
				return refuse(CodeInvalid, "%v", err)
			}
		}
		g.Windows = slices.Clone(*o.Windows)
	}
	if o.Uplink != nil {
		uplink := strings.TrimSpace(*o.Uplink)
		if len(uplink) > maxName || !utf8.ValidString(uplink) || strings.ContainsFunc(uplink, notPrintable) {
			return refuse(CodeInvalid, "the name of an uplink has at most %d bytes, in one line; %.50q has not", maxName, uplink)
		}
		g.Uplink = uplink
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
