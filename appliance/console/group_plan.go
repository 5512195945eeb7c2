package console

import (
	"fmt"
	"slices"
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
		room := roomOf(m, rooms)
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
	p.draw(seats)
	return p
}

// draw makes the plan of the machines by their seats.
func (p *places) draw(seats map[fleet.Seat]*member) {
	for row := 1; row <= p.GroupView.Rows; row++ {
		line := make([]chair, p.Columns)
		for i := range line {
			line[i] = chair{Row: row, Column: i + 1, Machine: seats[fleet.Seat{Row: row, Column: i + 1}]}
		}
		p.Rows = append(p.Rows, line)
	}
}

// roomOf returns the name of the machine's room by the names of all rooms; "" is none.
func roomOf(m *fleet.MachineView, rooms map[string]string) string {
	for _, id := range m.Groups {
		if name, ok := rooms[id]; ok {
			return name
		}
	}
	return ""
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
