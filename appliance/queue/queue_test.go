package queue

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var monday = time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)

func window(t testing.TB, text string) Window {
	t.Helper()
	w, err := ParseWindow(text, time.UTC)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func TestDecide(t *testing.T) {
	at := func(minutes int) time.Time { return monday.Add(time.Duration(minutes) * time.Minute) }
	night := [][]Window{{window(t, "mon-fri 18:00-07:00")}}
	noon := [][]Window{{window(t, "daily 11:00-13:00")}}
	tests := map[string]struct {
		jobs   []Job
		limits Limits
		begin  string
		call   string
		waits  map[string]string // job: code, or a part of the text
		next   time.Time
	}{
		"first in, first out": {jobs: []Job{{ID: "b", Machine: "2", Since: at(1), State: Present}, {ID: "a", Machine: "1", Since: at(0), State: Present}}, begin: "a b"},
		"higher priority first": {jobs: []Job{{ID: "a", Machine: "1", State: Present}, {ID: "b", Machine: "2", Since: at(1), Priority: 5, State: Present},
			{ID: "c", Machine: "3", Priority: -5, State: Present}}, begin: "b a c"},
		"the site's limit": {jobs: []Job{{ID: "a", Machine: "1", State: AtWork}, {ID: "b", Machine: "2", State: Present}, {ID: "c", Machine: "3", State: Present}},
			limits: Limits{Site: 2}, begin: "b", waits: map[string]string{"c": "2 of 2 machines of the site"}},
		"a group's limit leaves others alone": {jobs: []Job{{ID: "a", Machine: "1", Groups: []string{"room1"}, State: AtWork},
			{ID: "b", Machine: "2", Groups: []string{"room1", "line"}, State: Present}, {ID: "c", Machine: "3", Groups: []string{"room2"}, State: Present}},
			limits: Limits{Groups: map[string]int{"room1": 1}}, begin: "c", waits: map[string]string{"b": "1 of 1 machines of group room1"}},
		"an uplink's limit": {jobs: []Job{{ID: "a", Machine: "1", Uplink: "sw1", State: Present}, {ID: "b", Machine: "2", Uplink: "sw1", State: Present}},
			limits: Limits{Uplinks: map[string]int{"sw1": 1}}, begin: "a", waits: map[string]string{"b": "behind uplink sw1"}},
		"who is not there takes no place from who is": {jobs: []Job{{ID: "a", Machine: "1", Priority: 9}, {ID: "b", Machine: "2", State: Present}},
			limits: Limits{Site: 1}, begin: "b", waits: map[string]string{"a": WaitsSite}},
		"who is not there is called while there are places": {jobs: []Job{{ID: "a", Machine: "1", Wake: true, MostCalls: 3},
			{ID: "b", Machine: "2", Priority: 1, Wake: true, MostCalls: 3}, {ID: "c", Machine: "3", State: Present}},
			limits: Limits{Site: 2}, begin: "c", call: "b", waits: map[string]string{"a": WaitsSite, "b": WaitsMachine}},
		"who is not to be woken is not called, and takes no place from who is": {jobs: []Job{{ID: "a", Machine: "1", Priority: 9},
			{ID: "b", Machine: "2", Wake: true, MostCalls: 3}}, limits: Limits{Site: 1}, call: "b", waits: map[string]string{"a": WaitsSite, "b": WaitsMachine}},
		"nobody is called without a place, outside a window, before a time, before the preload, or without admission": {jobs: []Job{
			{ID: "a", Machine: "1", State: AtWork, Groups: []string{"room"}}, {ID: "b", Machine: "2", Groups: []string{"room"}, Wake: true, MostCalls: 3},
			{ID: "c", Machine: "3", Windows: night, Wake: true, MostCalls: 3}, {ID: "d", Machine: "4", After: at(400), Wake: true, MostCalls: 3},
			{ID: "e", Machine: "5", Preload: "waits for the seed nodes", Wake: true, MostCalls: 3}, {ID: "f", Machine: "6", Unadmitted: true, Wake: true, MostCalls: 3},
			{ID: "g", Machine: "7", State: Held, Wake: true, MostCalls: 3}, {ID: "h", Machine: "1", Wake: true, MostCalls: 3}},
			limits: Limits{Groups: map[string]int{"room": 1}}, next: at(360), call: "-",
			waits: map[string]string{"b": WaitsGroup, "c": WaitsWindow, "d": WaitsTime, "e": WaitsPreload, "f": WaitsAdmit, "g": WaitsPerson, "h": WaitsTurn}},
		"who was called keeps its place for a time": {jobs: []Job{{ID: "a", Machine: "1", State: Called, Wake: true, Calls: 1, MostCalls: 3, CalledAt: at(-2), Until: at(3)},
			{ID: "b", Machine: "2", State: Present}}, limits: Limits{Site: 1}, call: "-",
			waits: map[string]string{"a": "was called at 11:58 and has not answered yet", "b": WaitsSite}, next: at(3)},
		"who did not answer is called again, after those that were called less often": {jobs: []Job{
			{ID: "a", Machine: "1", Priority: 9, Wake: true, Calls: 2, MostCalls: 3, CalledAt: at(-9)}, {ID: "b", Machine: "2", Wake: true, Calls: 1, MostCalls: 3, CalledAt: at(-9)},
			{ID: "c", Machine: "3", Wake: true, MostCalls: 3}}, limits: Limits{Site: 2}, call: "c b",
			waits: map[string]string{"a": WaitsSite, "b": "was called at 11:51 and has not answered; it is called again", "c": "waits until the machine boots"}},
		"who never answered is called no more, keeps no place, and that is said": {jobs: []Job{
			{ID: "a", Machine: "1", Priority: 9, Wake: true, Calls: 3, MostCalls: 3, CalledAt: at(-26 * 60)}, {ID: "b", Machine: "2", Wake: true, MostCalls: 3}},
			call: "b", waits: map[string]string{"a": "was called 3 times, at last at Sun 10:00, and has not answered; switch the machine on"}},
		"who could not be called": {jobs: []Job{{ID: "a", Machine: "1", Wake: true, Calls: 1, MostCalls: 3, CalledAt: at(-1), Uncalled: "network is unreachable"}},
			call: "a", waits: map[string]string{"a": "could not be called at 11:59: network is unreachable; it is called again"}},
		"who could not be called a moment ago keeps no place": {jobs: []Job{{ID: "a", Machine: "1", Wake: true, Calls: 1, MostCalls: 3, CalledAt: at(-1), Until: at(4),
			Uncalled: "network is unreachable"}, {ID: "b", Machine: "2", Wake: true, MostCalls: 3}}, limits: Limits{Site: 1}, call: "b", next: at(4)},
		"a start time": {jobs: []Job{{ID: "a", Machine: "1", After: at(30), State: Present}}, waits: map[string]string{"a": "starts at 12:30"}, next: at(30)},
		"a window that is shut": {jobs: []Job{{ID: "a", Machine: "1", Windows: night, State: Present}},
			waits: map[string]string{"a": "waits until 18:00, when its maintenance window opens"}, next: at(360)},
		"a window that is open": {jobs: []Job{{ID: "a", Machine: "1", Windows: noon, State: Present}}, begin: "a", next: at(60)},
		"all groups' windows": {jobs: []Job{{ID: "a", Machine: "1", Windows: append(slices.Clone(noon), night...), State: Present}},
			waits: map[string]string{"a": WaitsWindow}, next: at(60)},
		"preload": {jobs: []Job{{ID: "a", Machine: "1", Preload: "waits for the seed nodes: 10 % of 20 %", State: Present}}, waits: map[string]string{"a": "10 % of 20 %"}},
		"one job of a machine at a time": {jobs: []Job{{ID: "a", Machine: "1", State: AtWork}, {ID: "b", Machine: "1", Priority: 9, State: Present}},
			waits: map[string]string{"b": "waits for job a of the same machine"}},
		"a capture before a deployment": {jobs: []Job{{ID: "a", Machine: "1", Priority: 9, State: Present}, {ID: "b", Machine: "1", First: true, State: Present}},
			begin: "b", waits: map[string]string{"a": WaitsTurn}},
		"a held job lets the next one of its machine begin": {jobs: []Job{{ID: "a", Machine: "1", Priority: 9, State: Held}, {ID: "b", Machine: "1", State: Present}},
			begin: "b", waits: map[string]string{"a": WaitsPerson}},
		"who is not admitted takes no place": {jobs: []Job{{ID: "a", Machine: "1", Priority: 9, Unadmitted: true, State: Present}, {ID: "b", Machine: "2", State: Present}},
			limits: Limits{Site: 1}, begin: "b", waits: map[string]string{"a": WaitsAdmit}},
		"who boots its own disk by a person's word": {jobs: []Job{{ID: "a", Machine: "1", Elsewhere: "boots its own disk", Wake: true, MostCalls: 3}}, call: "-",
			waits: map[string]string{"a": WaitsLocal}},
		"who was to boot its own disk and is there all the same": {jobs: []Job{{ID: "a", Machine: "1", Elsewhere: "boots its own disk", State: Present}}, begin: "a"},
		"what has begun goes on outside its window":              {jobs: []Job{{ID: "a", Machine: "1", Windows: night, Begun: true, State: Present}}, begin: "a"},
		"what has begun goes before the machine's other jobs": {jobs: []Job{{ID: "a", Machine: "1", Begun: true, State: Present},
			{ID: "b", Machine: "1", Priority: 9, After: at(600), State: Present}}, begin: "a", waits: map[string]string{"b": WaitsTurn}},
		"a window that never opens": {jobs: []Job{{ID: "a", Machine: "1", Windows: [][]Window{{{}}}, State: Present}}, waits: map[string]string{"a": "no maintenance window"}},
	}
	for what, test := range tests {
		d := Decide(monday, test.jobs, test.limits)
		if got := strings.Join(d.Begin, " "); got != test.begin {
			t.Errorf("%s: %q begin, want %q", what, got, test.begin)
		}
		if got := or(strings.Join(d.Call, " "), "-"); got != or(test.call, "-") {
			t.Errorf("%s: %q are called, want %q", what, got, test.call)
		}
		for id, want := range test.waits {
			if w := d.Waits[id]; w.Code != want && !strings.Contains(w.Text, want) {
				t.Errorf("%s: %s %s (%s), want %s", what, id, w.Text, w.Code, want)
			}
		}
		if !d.Next.Equal(test.next) {
			t.Errorf("%s: next at %v, want %v", what, d.Next, test.next)
		}
	}
}

func or(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// TestDecisionsKeepTheRules makes random queues and checks what must hold of each decision.
func TestDecisionsKeepTheRules(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limits := Limits{Site: rapid.IntRange(0, 6).Draw(t, "site"), Groups: map[string]int{}, Uplinks: map[string]int{}}
		for g := range 3 {
			limits.Groups[fmt.Sprint("g", g)] = rapid.IntRange(0, 3).Draw(t, "group")
			limits.Uplinks[fmt.Sprint("u", g)] = rapid.IntRange(0, 3).Draw(t, "uplink")
		}
		var jobs []Job
		atWork := map[string]bool{}
		for i := range rapid.IntRange(0, 30).Draw(t, "jobs") {
			j := Job{ID: fmt.Sprintf("j%02d", i), Machine: fmt.Sprint("m", rapid.IntRange(0, 20).Draw(t, "machine")), Since: monday.Add(time.Duration(i)),
				Priority: rapid.IntRange(-1, 1).Draw(t, "priority"), First: rapid.Bool().Draw(t, "first"), State: State(rapid.IntRange(0, 4).Draw(t, "state"))}
			if j.State == AtWork || j.State == Called {
				if atWork[j.Machine] {
					j.State = Present
				}
				atWork[j.Machine] = true
			}
			for g := range 3 {
				if rapid.Bool().Draw(t, "member") {
					j.Groups = append(j.Groups, fmt.Sprint("g", g))
				}
			}
			j.Wake, j.Calls, j.MostCalls = rapid.Bool().Draw(t, "wake"), rapid.IntRange(0, 3).Draw(t, "calls"), 3
			if u := rapid.IntRange(0, 3).Draw(t, "behind"); u < 3 {
				j.Uplink = fmt.Sprint("u", u)
			}
			jobs = append(jobs, j)
		}
		d := Decide(monday, jobs, limits)
		check(t, jobs, limits, d)
		slices.Reverse(jobs)
		again := Decide(monday, jobs, limits)
		if !slices.Equal(d.Begin, again.Begin) || !slices.Equal(d.Call, again.Call) {
			t.Fatalf("the order of the list matters: %v and %v", d, again)
		}
	})
}

func check(t *rapid.T, jobs []Job, limits Limits, d Decision) {
	site, groups, uplinks, machines := 0, map[string]int{}, map[string]int{}, map[string]int{}
	before := map[string]int{} // places that were taken already
	byID := map[string]*Job{}
	count := func(j *Job) {
		site++
		machines[j.Machine]++
		for _, g := range j.Groups {
			groups[g]++
		}
		uplinks[j.Uplink]++
	}
	for i := range jobs {
		j := &jobs[i]
		byID[j.ID] = j
		if j.State == AtWork || j.State == Called {
			count(j)
		}
	}
	for g, n := range groups {
		before[g] = n
	}
	taken := site
	for _, id := range append(slices.Clone(d.Begin), d.Call...) {
		count(byID[id])
	}
	if limits.Site > 0 && site > max(limits.Site, taken) {
		t.Fatalf("%d places of %d", site, limits.Site)
	}
	for g, most := range limits.Groups {
		if most > 0 && groups[g] > max(most, before[g]) {
			t.Fatalf("group %s: %d places of %d", g, groups[g], most)
		}
	}
	for m, n := range machines {
		if n > 1 {
			t.Fatalf("machine %s does %d jobs at once", m, n)
		}
	}
	for i := range jobs {
		j := &jobs[i]
		begins := slices.Contains(d.Begin, j.ID)
		if begins && j.State != Present {
			t.Fatalf("%s begins without its machine", j.ID)
		}
		if called := slices.Contains(d.Call, j.ID); called && (j.State != Absent || !j.Wake || j.Calls == j.MostCalls) {
			t.Fatalf("%s is called: %+v", j.ID, j)
		}
		if wait := d.Waits[j.ID]; j.State != AtWork && begins == (wait.Text != "") {
			t.Fatalf("%s begins: %v, waits: %q", j.ID, begins, wait.Text)
		}
	}
	for i := 1; i < len(d.Begin); i++ {
		if d.Order[d.Begin[i-1]] >= d.Order[d.Begin[i]] {
			t.Fatalf("%v out of order", d.Begin)
		}
	}
}

func TestWindows(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	havana, err := time.LoadLocation("America/Havana")
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		windows string // separated by ";"
		now     time.Time
		open    bool
		next    time.Time
	}{
		{"mon-fri 18:00-07:00", monday, false, monday.Add(6 * time.Hour)},
		{"mon-fri 18:00-07:00", monday.Add(6 * time.Hour), true, monday.Add(19 * time.Hour)},
		{"mon-fri 18:00-07:00", monday.Add(-6 * time.Hour), false, monday.Add(6 * time.Hour)}, // Monday 6:00: Sunday has none
		{"fri-mon 18:00-07:00", monday.Add(-6 * time.Hour), true, monday.Add(-5 * time.Hour)},
		{"daily 00:00-24:00", monday, true, monday.Add(12 * time.Hour)},
		{"sun 12:00-12:01", monday, false, monday.AddDate(0, 0, 6)},
		{"mon 12:00-13:00", monday.Add(time.Hour), false, monday.AddDate(0, 0, 7)}, // a window ends before its last minute's end
		{"mon 11:00-13:00; mon 12:30-15:00", monday, true, monday.Add(time.Hour)},
		{"tue 10:00-11:00; mon 14:00-15:00", monday, false, monday.Add(2 * time.Hour)},
		{"mon 14:00-15:00 Europe/Berlin", monday, true, time.Date(2026, 5, 4, 15, 0, 0, 0, berlin)},
		// Clocks are set forward from 2:00 to 3:00 on 2026-03-29, back from 3:00 to 2:00 on 2026-10-25.
		{"sun 02:30-04:00 Europe/Berlin", time.Date(2026, 3, 29, 0, 0, 0, 0, berlin), false, time.Date(2026, 3, 29, 3, 0, 0, 0, berlin)},
		{"sun 02:30-03:15 Europe/Berlin", time.Date(2026, 3, 29, 3, 5, 0, 0, berlin), true, time.Date(2026, 3, 29, 3, 15, 0, 0, berlin)},
		{"sun 01:00-02:30 Europe/Berlin", time.Date(2026, 3, 29, 1, 30, 0, 0, berlin), true, time.Date(2026, 3, 29, 3, 0, 0, 0, berlin)},
		{"sun 02:10-02:50 Europe/Berlin", time.Date(2026, 3, 29, 1, 0, 0, 0, berlin), false, time.Date(2026, 4, 5, 2, 10, 0, 0, berlin)}, // there is no such time that day
		// Clocks are set forward at midnight on 2026-03-08.
		{"sun 00:00-06:00 America/Havana", time.Date(2026, 3, 7, 0, 30, 0, 0, havana), false, time.Date(2026, 3, 8, 1, 0, 0, 0, havana)},
		{"sat 22:00-24:00 America/Havana", time.Date(2026, 3, 7, 23, 0, 0, 0, havana), true, time.Date(2026, 3, 8, 1, 0, 0, 0, havana)},
		{"sat 22:00-02:30 Europe/Berlin", time.Date(2026, 3, 29, 1, 59, 0, 0, berlin), true, time.Date(2026, 3, 29, 3, 0, 0, 0, berlin)},
		{"sat 22:00-06:00 Europe/Berlin", time.Date(2026, 10, 25, 5, 0, 0, 0, berlin), true, time.Date(2026, 10, 25, 6, 0, 0, 0, berlin)},
	} {
		var list []Window
		for _, text := range strings.Split(test.windows, ";") {
			list = append(list, window(t, text))
		}
		open, next := Open(list, test.now)
		if open != test.open || !next.Equal(test.next) {
			t.Errorf("%s at %v: open %v until %v, want %v until %v", test.windows, test.now, open, next, test.open, test.next)
		}
	}
	for _, text := range []string{"", "mon", "mon 18:00", "mon 18:00-18:00", "mun 18:00-19:00", "mon 25:00-26:00", "mon 24:00-01:00", "mon 18:00-19:00 Mars/Base", "mon-xyz 1:00-2:00"} {
		if w, err := ParseWindow(text, nil); err == nil {
			t.Errorf("%q is read as %v", text, w)
		}
	}
	for _, text := range []string{"daily 00:00-24:00 UTC", "mon,tue,fri 07:40-12:00 Europe/Berlin", "fri-mon 18:00-07:00"} {
		w := window(t, text)
		again := window(t, w.String())
		if again.String() != w.String() || again.Days != w.Days || again.From != w.From || again.To != w.To {
			t.Errorf("%s became %s", w, again)
		}
	}
}

func BenchmarkDecide5000(b *testing.B) {
	limits := Limits{Site: 400, Groups: map[string]int{}, Uplinks: map[string]int{"sw3": 20}}
	night := [][]Window{{window(b, "mon-fri 18:00-07:00")}}
	var jobs []Job
	for i := range 5000 {
		room := fmt.Sprint("room", i/40)
		limits.Groups[room] = 20
		j := Job{ID: fmt.Sprintf("job%06d", i), Machine: fmt.Sprint("m", i), Groups: []string{room, "all"}, Uplink: fmt.Sprint("sw", i/48),
			Priority: i % 3, Since: monday.Add(time.Duration(i*7919%5000) * time.Second), State: State(i % 3)}
		if i%5 == 0 {
			j.Windows = night
		}
		jobs = append(jobs, j)
	}
	for b.Loop() {
		Decide(monday, jobs, limits)
	}
}
