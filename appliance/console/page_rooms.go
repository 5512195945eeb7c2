package console

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"

	"seedbed/appliance/fleet"
	"seedbed/appliance/monitor"
)

// roomsPage is the main page: the machines in their seats, how each gets on, and what can be done with those that are chosen.
var roomsPage = &page{path: "/rooms", name: "rooms", nav: text("Rooms"), wide: true, data: roomsData, live: roomsLive, routes: []route{
	{pattern: "POST /rooms/admit", role: fleet.RoleOperator, serve: admitMachine},
}}

// room is a room with its machines, or the machines that stand in none.
type room struct {
	ID, Name      string // "" is no room
	Rows, Columns int
	Seats         []seat
	Course        *monitor.Course
}

// seat is a machine where it stands. Row and Column count from 1; 0 is no place in the plan.
type seat struct {
	ID, Name    string
	Row, Column int
	Groups      string // names, for the filter
	Progress    *monitor.Progress
}

type roomsView struct {
	Rooms   []*room
	Waiting []fleet.MachineView // that nobody admitted yet
	Count   int
	Groups  []fleet.GroupView
}

func roomsData(c *console, v *visit) (any, error) {
	p := c.picture()
	view, names, rooms, none := roomsView{Groups: c.Fleet.Groups()}, map[string]string{}, map[string]*room{}, &room{ID: "none"}
	for _, g := range view.Groups {
		names[g.ID] = g.Name
		if g.Kind == fleet.Room {
			r := &room{ID: g.ID, Name: g.Name, Rows: g.Rows, Columns: g.Columns, Course: p.Groups[g.ID]}
			rooms[g.ID], view.Rooms = r, append(view.Rooms, r)
		}
	}
	slices.SortFunc(view.Rooms, func(a, b *room) int { return strings.Compare(a.Name, b.Name) })
	for _, m := range c.Fleet.Machines() {
		if !m.Admitted {
			view.Waiting = append(view.Waiting, m)
			continue
		}
		view.Count++
		s, in := seat{ID: m.ID, Name: m.Name, Progress: p.Machines[m.ID]}, none
		for _, g := range m.Groups {
			s.Groups += names[g] + " "
			if r := rooms[g]; r != nil {
				in = r
				if m.Seat != nil && r.Columns > 0 && m.Seat.Column <= r.Columns {
					s.Row, s.Column = m.Seat.Row, m.Seat.Column
				}
			}
		}
		in.Seats = append(in.Seats, s)
	}
	if len(none.Seats) > 0 {
		view.Rooms = append(view.Rooms, none)
	}
	for _, r := range view.Rooms {
		slices.SortStableFunc(r.Seats, func(a, b seat) int {
			return cmp.Or(cmp.Compare(unplaced(a), unplaced(b)), cmp.Compare(a.Row, b.Row), cmp.Compare(a.Column, b.Column), strings.Compare(a.Name, b.Name))
		})
	}
	return view, nil
}

// unplaced sorts machines without a place in the plan behind those that have one.
func unplaced(s seat) int {
	if s.Row == 0 {
		return 1
	}
	return 0
}

// Word is how the machine gets on.
func (s seat) Word() monitor.Word {
	if s.Progress == nil {
		return monitor.Idle
	}
	return s.Progress.Word
}

// seatNow is what changes of a seat, in texts of the visit's language.
type seatNow struct {
	Word monitor.Word `json:"w"`
	Text string       `json:"t"` // the word
	// Done is in thousandths; the bar's length.
	Done int    `json:"d"`
	Rate string `json:"r,omitempty"`
	Left string `json:"l,omitempty"`
	Why  string `json:"y,omitempty"`
}

func (v *visit) seatNow(s seat) seatNow {
	n := seatNow{Word: s.Word(), Text: v.look.word(s.Word())}
	p := s.Progress
	if p == nil {
		return n
	}
	n.Done, n.Why = int(p.Share()*1000), v.t(p.Why)
	if p.Rate > 0 {
		n.Rate = Rate(p.Rate)
	}
	if p.Left >= 0 && (p.Word == monitor.Normal || p.Word == monitor.Slow) {
		n.Left = v.look.duration(p.Left)
	}
	return n
}

func roomsLive(c *console, v *visit) (*live, error) {
	data, err := roomsData(c, v)
	if err != nil {
		return nil, err
	}
	view := data.(roomsView)
	l := &live{data: make(map[string]any, view.Count)}
	for _, r := range view.Rooms {
		l.parts = append(l.parts, v.part("rooms", "strip-"+r.Key(), "", "strip", r))
		for _, s := range r.Seats {
			l.data[s.ID] = v.seatNow(s)
		}
	}
	return l, nil
}

// WordCount is how many machines of a room get on by one word.
type WordCount struct {
	Word  monitor.Word
	Count int
}

// Words counts the machines of a room by word, what needs a person first.
func (r *room) Words() (list []WordCount) {
	counts := map[monitor.Word]int{}
	for _, s := range r.Seats {
		counts[s.Word()]++
	}
	for _, w := range wordOrder {
		if counts[w] > 0 {
			list = append(list, WordCount{w, counts[w]})
		}
	}
	return list
}

// admitMachine admits the machine that shows a code, or that has a name.
func admitMachine(c *console, v *visit) (*answer, error) {
	m, err := c.Fleet.Admit(v.Context(), strings.TrimSpace(v.FormValue("code")))
	if err != nil {
		return nil, err
	}
	return again(v.t("%s is admitted.", m.Name)), nil
}

// Key names the room in the document: IDs of groups may have spaces.
func (r *room) Key() string {
	sum := fnv.New32a()
	_, _ = sum.Write([]byte(r.ID)) // never fails
	return fmt.Sprintf("%08x", sum.Sum32())
}
