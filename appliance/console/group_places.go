package console

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"seedbed/appliance/fleet"
)

// stillThere returns the machine of a form, unless somebody changed what the page knew of it.
func (c *console) stillThere(value string) (*fleet.MachineView, error) {
	id, _, _ := strings.Cut(value, ".")
	m, err := c.Fleet.Machine(id)
	if err == nil && knownOf(m) != value {
		return nil, &fleet.Refusal{Code: fleet.CodeChanged, Detail: m.Name + " was changed by somebody else meanwhile; look again"}
	}
	return m, err
}

// seatOf reads a seat that a form names: "2.5".
func (v *visit) seatOf(value string) (s fleet.Seat, err error) {
	row, column, _ := strings.Cut(value, ".")
	if s.Row, err = strconv.Atoi(row); err == nil {
		s.Column, err = strconv.Atoi(column)
	}
	if err != nil || s.Row < 1 || s.Column < 1 {
		return fleet.Seat{}, v.invalid(text("Choose a seat in the plan first."))
	}
	return s, nil
}

// seatMachine puts a machine into a seat of the room, or takes the one that sits there off it, and answers with the plan as it is then.
func seatMachine(c *console, v *visit) (*answer, error) {
	g, err := c.Fleet.Group(v.PathValue("group"))
	if err != nil {
		return nil, err
	}
	said, seat, err := "", fleet.Seat{}, error(nil)
	if seat, err = v.seatOf(v.FormValue("seat")); err == nil {
		if v.FormValue("do") == "off" {
			said, err = c.takeOff(v, g, seat)
		} else {
			said, err = c.putInto(v, g, seat, v.FormValue("machine"))
		}
	}
	p, known := c.places(v, g), v.FormValue("machine")
	switch {
	case err != nil:
		p.Refused = v.formSentence(err)
		p.keep(seat, known)
	case v.FormValue("do") == "off":
		p.Done = said
		p.keep(seat, "")
	default:
		p.Done = said
		p.choose(seat, true)
	}
	return v.placed(p, err)
}

// placed shows the plan, or without a script the page again.
func (v *visit) placed(p *places, err error) (*answer, error) {
	refusal := (*fleet.Refusal)(nil)
	switch {
	case err != nil && (!v.htmx() || !errors.As(err, &refusal) || refusal.Code == fleet.CodeForbidden):
		return nil, err
	case !v.htmx():
		return goTo(p.Path(), p.Done), nil
	}
	return show("group", "places", p), nil
}

// putInto has a machine sit in a seat of a room, from wherever it was.
func (c *console) putInto(v *visit, g *fleet.GroupView, seat fleet.Seat, machine string) (string, error) {
	if machine == "" {
		return "", v.invalid(text("Choose a machine first."))
	}
	m, err := c.stillThere(machine)
	if err != nil {
		return "", err
	}
	if seat.Row > g.Rows || seat.Column > g.Columns {
		return "", v.invalid(text("The plan has no such seat any more; load the page again."))
	}
	if other := c.sitter(g, seat); other != nil && other.ID != m.ID {
		return "", v.invalid(text("%s sits there already: choose another seat, or take it off first."), other.Name)
	}
	groups := slices.Clone(m.Groups)
	if !slices.Contains(groups, g.ID) {
		groups = append(slices.DeleteFunc(groups, func(id string) bool { return c.isRoom(id) }), g.ID)
	}
	if m, err = c.editPlace(v, m, fleet.MachineOrder{Groups: &groups, Seat: &seat}); err != nil {
		return "", err
	}
	return v.t("%s sits at row %d, column %d.", m.Name, seat.Row, seat.Column), nil
}

// takeOff takes the machine that sits in a seat off it; it stays in the room.
func (c *console) takeOff(v *visit, g *fleet.GroupView, seat fleet.Seat) (string, error) {
	m := c.sitter(g, seat)
	if m == nil {
		return "", v.invalid(text("No machine sits there."))
	}
	if known := v.FormValue("at-" + fmt.Sprintf("%d.%d", seat.Row, seat.Column)); known != knownOf(m) {
		return "", &fleet.Refusal{Code: fleet.CodeChanged, Detail: m.Name + " was changed by somebody else meanwhile; look again"}
	}
	if _, err := c.editPlace(v, m, fleet.MachineOrder{Seat: &fleet.Seat{}}); err != nil {
		return "", err
	}
	return v.t("%s has no seat now; it stays in the room.", m.Name), nil
}

// sitter is the machine that sits in a seat of the room; nil is none.
func (c *console) sitter(g *fleet.GroupView, seat fleet.Seat) *fleet.MachineView {
	for _, m := range c.Fleet.Machines() {
		if slices.Contains(m.Groups, g.ID) && m.Seat != nil && *m.Seat == seat {
			return &m
		}
	}
	return nil
}

// editPlace changes where a machine belongs, as long as only the appliance itself changes its record meanwhile.
func (c *console) editPlace(v *visit, m *fleet.MachineView, o fleet.MachineOrder) (*fleet.MachineView, error) {
	known := knownOf(m)
	for try := 1; ; try++ {
		edited, err := c.Fleet.EditMachine(v.Context(), m.ID, m.Version, o)
		if refusal := (*fleet.Refusal)(nil); err == nil || !errors.As(err, &refusal) || refusal.Code != fleet.CodeChanged || try == editTries {
			return edited, err
		}
		if m, err = c.stillThere(known); err != nil {
			return nil, err
		}
	}
}

// isRoom reports whether a group is a room.
func (c *console) isRoom(id string) bool {
	g, err := c.Fleet.Group(id)
	return err == nil && g.Kind == fleet.Room
}

// groupMachines puts machines into the group without a seat, or takes them out.
func groupMachines(c *console, v *visit) (*answer, error) {
	g, err := c.Fleet.Group(v.PathValue("group"))
	if err != nil {
		return nil, err
	}
	in, ids, said := v.FormValue("do") != "out", machineIDs(v), ""
	if len(ids) == 0 {
		err = v.invalid(text("Choose machines first."))
	} else if count, changeErr := c.moveMachines(v, g, ids, in); changeErr != nil {
		err = changeErr
	} else if in {
		said = v.countText(count, text("1 machine came in."), text("%d machines came in."))
	} else {
		said = v.countText(count, text("1 machine left."), text("%d machines left."))
	}
	if now, goneErr := c.Fleet.Group(g.ID); goneErr == nil {
		g = now
	}
	p := c.places(v, g)
	p.Done = said
	if err != nil {
		p.Refused = v.formSentence(err)
	}
	p.choose(fleet.Seat{}, false)
	return v.placed(p, err)
}

// moveMachines puts machines into a group or takes them out, and returns how many changed. Into a room they come without the seat that they
// had in another one; an error leaves those before it changed.
func (c *console) moveMachines(v *visit, g *fleet.GroupView, ids []string, in bool) (count int, err error) {
	if !in || g.Kind != fleet.Room {
		return c.Fleet.GroupMachines(v.Context(), g.ID, ids, in)
	}
	for _, id := range ids {
		m, err := c.Fleet.Machine(id)
		if err != nil {
			return count, err
		}
		if slices.Contains(m.Groups, g.ID) {
			continue
		}
		groups := append(slices.Clone(m.Groups), g.ID)
		if _, err := c.editPlace(v, m, fleet.MachineOrder{Groups: &groups, Seat: &fleet.Seat{}}); err != nil {
			return count, err
		}
		count++
	}
	return count, nil
}
