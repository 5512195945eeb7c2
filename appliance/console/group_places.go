package console

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"seedbed/appliance/fleet"
)

// maxPlan is how many seats a plan has at most that is drawn with places to choose.
const maxPlan = 2500

// places is who belongs to a group, and in a room who sits where.
type places struct {
	*fleet.GroupView
	// Rows are those of the plan; none is no plan, TooLarge one that is not drawn.
	Rows     [][]chair
	TooLarge bool
	// Members belong to the group and have no place in the plan, Free may be put into it as they are.
	Members, Free []member
	// Choices are the machines that can get a seat, in parts of the list.
	Choices []memberPart
	Chosen  bool   // a machine is chosen
	Done    string // what was done, "" is nothing
	Refused string // why something was not
}

// chair is a seat of the plan, Row and Column count from 1.
type chair struct {
	Row, Column int
	Machine     *member // nil is a free one
	Chosen      bool
}

// Value is the place as the form sends it.
func (p chair) Value() string { return fmt.Sprintf("%d.%d", p.Row, p.Column) }

// member is a machine that belongs to a group, or may.
type member struct {
	ID, Name string
	Value    string // with what the page knows of it, see stillThere
	Where    string // the room and seat in words, "" is none
	New      bool   // nobody admitted it yet
	Chosen   bool
}

// memberPart is a part of the list of machines.
type memberPart struct {
	Name     string
	Machines []member
}

// Path is that of the group's page.
func (p *places) Path() string { return groupPath(p.ID) }

// IsRoom reports whether the group is a room.
func (p *places) IsRoom() bool { return p.Kind == fleet.Room }

// knownOf marks a machine's name, groups and seat, so that what somebody else did meanwhile is noticed.
func knownOf(m *fleet.MachineView) string { return m.ID + "." + saidOf(m)[:12] }

// places puts the machines into the group's seats and lists.
func (c *console) places(v *visit, g *fleet.GroupView) *places {
	p, rooms := &places{GroupView: g}, map[string]string{}
	for _, other := range c.Fleet.Groups() {
		if other.Kind == fleet.Room {
			rooms[other.ID] = other.Name
		}
	}
	drawn := p.IsRoom() && g.Rows > 0 && g.Columns > 0
	if p.TooLarge = drawn && (g.Rows > maxPlan || g.Columns > maxPlan || g.Rows*g.Columns > maxPlan); p.TooLarge {
		drawn = false
	}
	seats := map[fleet.Seat]*member{}
	var fresh, waiting, elsewhere, seated []member
	machines := c.Fleet.Machines()
	slices.SortFunc(machines, func(a, b fleet.MachineView) int { return strings.Compare(a.Name, b.Name) })
	for i := range machines {
		m := &machines[i]
		own := member{ID: m.ID, Name: m.Name, Value: knownOf(m), New: !m.Admitted}
		room := ""
		for _, id := range m.Groups {
			if name, ok := rooms[id]; ok {
				room = name
			}
		}
		if own.Where = room; room != "" && m.Seat != nil {
			own.Where = room + ", " + v.t("row %d, column %d", m.Seat.Row, m.Seat.Column)
		}
		switch {
		case slices.Contains(m.Groups, g.ID):
			if drawn && m.Seat != nil && m.Seat.Row <= g.Rows && m.Seat.Column <= g.Columns && seats[*m.Seat] == nil {
				seats[*m.Seat] = &own
				seated = append(seated, own)
				continue
			}
			p.Members = append(p.Members, own)
		case p.IsRoom() && room != "":
			elsewhere = append(elsewhere, own)
		default:
			p.Free = append(p.Free, own)
			if own.New {
				waiting = append(waiting, own)
			} else {
				fresh = append(fresh, own)
			}
		}
	}
	if !drawn {
		return p
	}
	for _, part := range []memberPart{{v.t("In this room, without a seat"), p.Members}, {v.t("In no room"), fresh}, {v.t("Waiting to be admitted"), waiting},
		{v.t("In this room, at another seat"), seated}, {v.t("In another room"), elsewhere}} {
		if len(part.Machines) > 0 {
			p.Choices = append(p.Choices, part)
		}
	}
	for row := 1; row <= g.Rows; row++ {
		line := make([]chair, g.Columns)
		for i := range line {
			line[i] = chair{Row: row, Column: i + 1, Machine: seats[fleet.Seat{Row: row, Column: i + 1}]}
		}
		p.Rows = append(p.Rows, line)
	}
	return p
}

// choose marks the first free seat after one, or else the first of all, and, if next, the machine that would be put there.
func (p *places) choose(after fleet.Seat, next bool) {
	var first, best *chair
	for _, line := range p.Rows {
		for i := range line {
			s := &line[i]
			if s.Machine != nil {
				continue
			}
			if first == nil {
				first = s
			}
			if best == nil && (s.Row > after.Row || s.Row == after.Row && s.Column > after.Column) {
				best = s
			}
		}
	}
	if best == nil {
		best = first
	}
	if best == nil {
		return
	}
	best.Chosen = true
	if next && len(p.Members)+len(p.Free) > 0 { // those come first
		p.Choices[0].Machines[0].Chosen, p.Chosen = true, true
	}
}

// keep marks the seat and the machine that were chosen in a form.
func (p *places) keep(seat fleet.Seat, machine string) {
	for _, line := range p.Rows {
		for i := range line {
			line[i].Chosen = line[i].Row == seat.Row && line[i].Column == seat.Column
		}
	}
	id, _, _ := strings.Cut(machine, ".")
	for _, part := range p.Choices {
		for i := range part.Machines {
			if part.Machines[i].ID == id {
				part.Machines[i].Chosen, p.Chosen = true, true
			}
		}
	}
}

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
	for _, m := range c.Fleet.Machines() {
		if !slices.Contains(m.Groups, g.ID) || m.Seat == nil || *m.Seat != seat {
			continue
		}
		if known := v.FormValue("at-" + fmt.Sprintf("%d.%d", seat.Row, seat.Column)); known != knownOf(&m) {
			return "", &fleet.Refusal{Code: fleet.CodeChanged, Detail: m.Name + " was changed by somebody else meanwhile; look again"}
		}
		if _, err := c.editPlace(v, &m, fleet.MachineOrder{Seat: &fleet.Seat{}}); err != nil {
			return "", err
		}
		return v.t("%s has no seat now; it stays in the room.", m.Name), nil
	}
	return "", v.invalid(text("No machine sits there."))
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
	} else if count, changeErr := c.Fleet.GroupMachines(v.Context(), g.ID, ids, in); changeErr != nil {
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
