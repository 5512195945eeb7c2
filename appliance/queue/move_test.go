package queue

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// placed reads "a:5 b:0 c:0": jobs in the order of the queue with their priorities. They came in the order of their names.
func placed(t testing.TB, text string) (list []Placed) {
	t.Helper()
	for part := range strings.FieldsSeq(text) {
		var p Placed
		name, priority, _ := strings.Cut(part, ":")
		if _, err := fmt.Sscan(priority, &p.Priority); err != nil {
			t.Fatal(err)
		}
		p.ID, p.Since = name, monday.Add(time.Duration(name[0])*time.Minute)
		list = append(list, p)
	}
	return list
}

func texted(list []Placed) string {
	var out []string
	for _, p := range list {
		out = append(out, fmt.Sprintf("%s:%d", p.ID, p.Priority))
	}
	return strings.Join(out, " ")
}

func TestMoveGivesPrioritiesBetweenNeighbours(t *testing.T) {
	for name, c := range map[string]struct {
		queue    string
		from, to int
		changed  string
	}{
		"to where it stands":                    {"a:0 b:0 c:0", 1, 1, ""},
		"the last one first":                    {"a:0 b:0 c:0", 2, 0, "c:1"},
		"the first one last":                    {"a:0 b:0 c:0", 0, 2, "a:-1"},
		"up by one among equals lowers another": {"a:0 b:0 c:0", 2, 1, "b:-1"},
		"down by one among equals":              {"a:0 b:0 c:0", 0, 1, "b:1"},
		"between two with room":                 {"c:100 b:50 a:0", 2, 1, "a:74"},
		"between two, as old as it may be":      {"a:2 b:1 c:1", 2, 1, "c:2"},
		"to the front of higher ones":           {"a:9 b:5 c:0", 2, 0, "c:10"},
		"behind lower ones":                     {"a:9 b:5 c:0", 0, 2, "a:-1"},
		"where its own priority will do":        {"a:5 c:5 b:3", 2, 0, "b:6"},
		"one alone":                             {"a:7", 0, 0, ""},
		"at the upper bound":                    {"a:1000 b:1000 c:999", 2, 0, "a:998 b:998"},
	} {
		t.Run(name, func(t *testing.T) {
			list := placed(t, c.queue)
			changed, err := Move(list, c.from, c.to)
			if err != nil || texted(list) != texted(placed(t, c.queue)) {
				t.Fatalf("%v, the queue is %s", err, texted(list))
			}
			stands(t, list, changed, c.from, c.to)
			if got := texted(changed); got != c.changed && c.changed != "*" {
				t.Errorf("changed %q, want %q", got, c.changed)
			}
		})
	}
}

// stands fails unless the queue with what changed is as somebody wants it.
func stands(t interface{ Fatalf(string, ...any) }, list, changed []Placed, from, to int) {
	want := slices.Clone(list)
	want = slices.Insert(slices.Delete(want, from, from+1), to, list[from])
	now := slices.Clone(list)
	for i := range now {
		if at := slices.IndexFunc(changed, func(p Placed) bool { return p.ID == now[i].ID }); at >= 0 {
			now[i].Priority = changed[at].Priority
		}
		if now[i].Priority < -MaxPriority || now[i].Priority > MaxPriority {
			t.Fatalf("%s is out of bounds", texted(now[i:i+1]))
		}
	}
	slices.SortFunc(now, func(a, b Placed) int {
		return before(&Job{ID: a.ID, Since: a.Since, Priority: a.Priority}, &Job{ID: b.ID, Since: b.Since, Priority: b.Priority})
	})
	for i := range now {
		if now[i].ID != want[i].ID {
			t.Fatalf("from %s, %d to %d: by %s the queue is %s", texted(list), from, to, texted(changed), texted(now))
		}
	}
}

// TestMoveBringsAnyJobAnywhere: whatever the queue is, the job stands where it was put and the others keep their order.
func TestMoveBringsAnyJobAnywhere(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 12).Draw(t, "jobs")
		var jobs []*Job
		for i := range n {
			jobs = append(jobs, &Job{ID: fmt.Sprint(i), Since: monday.Add(time.Duration(rapid.IntRange(0, 3).Draw(t, "since")) * time.Minute), Priority: rapid.IntRange(-3, 3).Draw(t, "priority")})
		}
		slices.SortFunc(jobs, before)
		var list []Placed
		for _, j := range jobs {
			list = append(list, Placed{j.ID, j.Priority, j.Since})
		}
		from, to := rapid.IntRange(0, n-1).Draw(t, "from"), rapid.IntRange(0, n-1).Draw(t, "to")
		changed, err := Move(list, from, to)
		if err != nil {
			t.Fatalf("%s, %d to %d: %v", texted(list), from, to, err)
		}
		stands(t, list, changed, from, to)
	})
}

func TestMoveSaysWhereNoPriorityIsLeft(t *testing.T) {
	var list []Placed
	for i := range 2*MaxPriority + 1 {
		list = append(list, Placed{fmt.Sprint(i), MaxPriority - i, monday.Add(-time.Duration(i) * time.Minute)})
	}
	list = append(list, Placed{"last", -MaxPriority, monday.Add(-999*time.Minute - 30*time.Second)})
	if _, err := Move(list, len(list)-1, 1000); !errors.Is(err, ErrCrowded) {
		t.Errorf("a place where none is: %v", err)
	}
}
