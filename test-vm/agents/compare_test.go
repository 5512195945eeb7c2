package agents

import (
	"slices"
	"testing"

	"seedbed/appliance/fleet"
)

func TestATransitionThatIsNotToldOnceAndInOrderIsFound(t *testing.T) {
	did := []string{"machine.hello", "job.claimed", "job.running", "job.phase content", "job.succeeded", "machine.local-boot"}
	right := append([]string{"job.waiting"}, did...)
	told := func(change func(list []string) []string) []string { return change(slices.Clone(right)) }
	for _, c := range []struct {
		what     string
		told     []string
		recorded int
		wrong    bool
	}{
		{"all of it", right, 7, false},
		{"ordered after the hello", append([]string{"machine.hello", "job.waiting"}, did[1:]...), 7, false},
		{"other events of the machine beside", append([]string{"machine.seen"}, right...), 7, false},
		{"one is lost", told(func(l []string) []string { return slices.Delete(l, 4, 5) }), 6, true},
		{"one is told twice", told(func(l []string) []string { return append(l, "job.running") }), 6, true},
		{"two are out of order", told(func(l []string) []string { l[3], l[4] = l[4], l[3]; return l }), 7, true},
		{"the job did something else too", append(slices.Clone(right), "job.failed"), 7, true},
		{"nothing", nil, 0, true},
	} {
		s := &Story{Machine: "m", Job: "j"}
		for _, what := range did {
			s.Steps = append(s.Steps, Step{What: what})
		}
		compared := new(Compared)
		compared.steps(s, c.told)
		if compared.Done != 7 || compared.Recorded != c.recorded || (len(compared.Wrong) > 0) != c.wrong {
			t.Errorf("%s: %+v, want %d recorded", c.what, compared, c.recorded)
		}
	}
}

func TestEventsAreNamedAsSteps(t *testing.T) {
	for _, c := range []struct {
		event fleet.Event
		want  string
	}{
		{fleet.Event{Kind: "job.claimed", Text: "seat-0001: job 12 is claimed"}, "job.claimed"},
		{fleet.Event{Kind: "job.phase", Text: "seat-0001: job 12 is in phase content"}, "job.phase content"},
	} {
		if got := named(c.event); got != c.want {
			t.Errorf("%+v is %q, want %q", c.event, got, c.want)
		}
	}
}
