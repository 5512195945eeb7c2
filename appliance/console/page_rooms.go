package console

import (
	"cmp"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"sync"
	"time"

	"seedbed/appliance/fleet"
	"seedbed/appliance/monitor"
)

// roomsPage is the main page: the machines in their seats, how each gets on, and what can be done with those that are chosen.
var roomsPage = &page{path: "/rooms", name: "rooms", nav: text("Rooms"), wide: true, data: roomsData, live: roomsLive, scripts: []string{"news.js"}, routes: []route{
	{pattern: "POST /rooms/admit", role: fleet.RoleOperator, serve: admitMachine},
}}

// room is a room with its machines, or the machines that stand in none.
type room struct {
	ID, Name string // "none" and "" are no room
	// Rows and Columns are those of its plan; 0 is not drawn.
	Rows, Columns int
	Seats         []seat
	Course        *monitor.Course
}

// Planned reports whether a machine has a place in the room's plan.
func (r *room) Planned() bool { return len(r.Seats) > 0 && r.Seats[0].Row > 0 }

// seat is a machine where it stands. Row and Column count from 1; 0 is no place in the plan.
type seat struct {
	ID, Name    string
	Row, Column int
	Groups      string // IDs, one a line, for the filter
	Progress    *monitor.Progress
}

type roomsView struct {
	Rooms   []*room
	Waiting []fleet.MachineView // that nobody admitted yet, those that were seen first
	Count   int                 // machines that are admitted
	Groups  []fleet.GroupView
	// Trouble are the machines that need a person, the worst first, MoreTrouble how many more there are.
	Trouble                  []seat
	MoreTrouble, MoreWaiting int
	// Plan is the hash of which machine stands where under which name.
	Plan string
}

// So many machines that need a person, and that wait to be admitted, are told of one by one.
const maxTrouble, maxWaiting = 8, 30

// AllWords are the words by which machines can be found.
func (roomsView) AllWords() []monitor.Word { return wordOrder }

// roomsCache has the rooms as they were a moment ago, which is the same for all who look. Safe for concurrent use.
type roomsCache struct {
	mu      sync.Mutex // guards what follows
	at      time.Time
	picture *monitor.Picture
	view    *roomsView
	seats   map[string]map[string]any // by language: live data
}

func roomsData(c *console, _ *visit) (any, error) {
	r := &c.rooms
	r.mu.Lock()
	defer r.mu.Unlock()
	if p := c.picture(); p != r.picture || time.Since(r.at) > liveEvery*9/10 {
		r.at, r.picture, r.view, r.seats = time.Now(), p, c.roomsNow(p), map[string]map[string]any{}
	}
	return r.view, nil
}

// roomsNow puts the machines into their rooms.
func (c *console) roomsNow(p *monitor.Picture) *roomsView {
	view, rooms, none := &roomsView{Groups: c.Fleet.Groups()}, map[string]*room{}, &room{ID: "none"}
	for _, g := range view.Groups {
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
		s, in := seat{ID: m.ID, Name: m.Name, Groups: strings.Join(m.Groups, "\n"), Progress: p.Machines[m.ID]}, none
		for _, g := range m.Groups {
			if r := rooms[g]; r != nil {
				in = r
				if m.Seat != nil && m.Seat.Row > 0 && m.Seat.Column > 0 && m.Seat.Column <= r.Columns {
					s.Row, s.Column = m.Seat.Row, m.Seat.Column
				}
			}
		}
		in.Seats = append(in.Seats, s)
		if s.Progress != nil && (s.Progress.Word == monitor.Failed || s.Progress.Word == monitor.Silent || s.Progress.Word == monitor.Slow) {
			view.Trouble = append(view.Trouble, s)
		}
	}
	if len(none.Seats) > 0 {
		view.Rooms = append(view.Rooms, none)
	}
	plan := fnv.New64a()
	for _, r := range view.Rooms {
		slices.SortStableFunc(r.Seats, func(a, b seat) int {
			return cmp.Or(cmp.Compare(unplaced(a), unplaced(b)), cmp.Compare(a.Row, b.Row), cmp.Compare(a.Column, b.Column), strings.Compare(a.Name, b.Name))
		})
		fmt.Fprintln(plan, r.ID, r.Name, r.Rows, r.Columns)
		for _, s := range r.Seats {
			fmt.Fprintln(plan, s.ID, s.Name, s.Row, s.Column, s.Groups)
		}
	}
	view.Plan = fmt.Sprintf("%016x", plan.Sum64())
	slices.SortStableFunc(view.Trouble, func(a, b seat) int {
		return cmp.Compare(slices.Index(wordOrder, a.Progress.Word), slices.Index(wordOrder, b.Progress.Word))
	})
	if more := len(view.Trouble) - maxTrouble; more > 0 {
		view.Trouble, view.MoreTrouble = view.Trouble[:maxTrouble], more
	}
	if more := len(view.Waiting) - maxWaiting; more > 0 {
		view.Waiting, view.MoreWaiting = view.Waiting[:maxWaiting], more
	}
	return view
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
	// Done is in thousandths; the bar's length. Percent is the same for people, "" where there is nothing to do.
	Done    int    `json:"d"`
	Percent string `json:"p,omitempty"`
	Rate    string `json:"r,omitempty"`
	Left    string `json:"l,omitempty"`
	Why     string `json:"y,omitempty"`
}

func (v *visit) seatNow(s seat) seatNow {
	n := seatNow{Word: s.Word(), Text: v.look.word(s.Word())}
	p := s.Progress
	if p == nil {
		return n
	}
	n.Done, n.Why = int(p.Share()*1000), v.look.say(p.Why)
	if p.Total > 0 && p.Word != monitor.Done && p.Word != monitor.Cancelled {
		n.Percent = percent(p.Share())
	}
	if p.Rate > 0 {
		n.Rate = Rate(p.Rate)
	}
	if p.Left >= 0 && (p.Word == monitor.Normal || p.Word == monitor.Slow) {
		n.Left = v.look.about(p.Left)
	}
	return n
}

func roomsLive(c *console, v *visit) (*live, error) {
	data, err := roomsData(c, v)
	if err != nil {
		return nil, err
	}
	view := data.(*roomsView)
	l := &live{data: c.seatsNow(v, view), parts: []part{v.part("rooms", "waiting", "", "waiting", view), v.part("rooms", "attention", "", "attention", view)}}
	for _, r := range view.Rooms {
		l.parts = append(l.parts, v.part("rooms", "strip-"+r.Key(), "", "strip", r))
	}
	return l, nil
}

// seatsNow returns the live data of all seats, by machine ID, and the plan's hash: the same map for all who look in one language.
func (c *console) seatsNow(v *visit, view *roomsView) map[string]any {
	r := &c.rooms
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.view == view && r.seats[v.Language()] != nil {
		return r.seats[v.Language()]
	}
	data := make(map[string]any, view.Count+1)
	data["plan"] = view.Plan
	for _, room := range view.Rooms {
		for _, s := range room.Seats {
			b, err := json.Marshal(v.seatNow(s))
			if err != nil {
				panic(err) // plain types
			}
			data[s.ID] = json.RawMessage(b)
		}
	}
	if r.view == view {
		r.seats[v.Language()] = data
	}
	return data
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

// Path is that of the room's page; "" is no room.
func (r *room) Path() string {
	if r.Name == "" {
		return ""
	}
	return groupPath(r.ID)
}

// Others are the groups that are no rooms.
func (w *roomsView) Others() []fleet.GroupView { return otherGroups(w.Groups) }

// Key names the room in the document: IDs of groups may have spaces.
func (r *room) Key() string {
	sum := fnv.New32a()
	_, _ = sum.Write([]byte(r.ID)) // never fails
	return fmt.Sprintf("%08x", sum.Sum32())
}
