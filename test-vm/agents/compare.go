package agents

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"seedbed/appliance/api"
	"seedbed/appliance/client"
	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
)

// Compared is what the appliance's records say of a run.
type Compared struct {
	Done     int // transitions that the agents made and had acknowledged
	Recorded int // of those, how many the events tell once, and in their order
	// Wrong are sentences: each transition that was lost, told twice or out of order, and each record that is not as its machine is.
	Wrong []string
}

// Compare looks through the API at what became of a run of a deployment: each transition that an agent made is an event, once
// and in its order, and jobs and machines are as their agents left them.
func Compare(ctx context.Context, c *client.Client, deployment string, r *Result) (*Compared, error) {
	told, err := events(ctx, c)
	if err != nil {
		return nil, err
	}
	jobs, err := c.Jobs(ctx, api.JobQuery{})
	if err != nil {
		return nil, err
	}
	machines, err := c.Machines(ctx, api.MachineQuery{})
	if err != nil {
		return nil, err
	}
	of, what := map[string]api.Job{}, &Compared{}
	for _, j := range jobs {
		if j.Deployment == deployment {
			if _, twice := of[j.Machine]; twice {
				what.wrong("machine %s has two jobs of the deployment", j.Machine)
			}
			of[j.Machine] = j
		}
	}
	if len(of) != len(r.Stories) {
		what.wrong("the deployment has %d jobs of %d machines", len(of), len(r.Stories))
	}
	holds := map[string]api.Machine{}
	for _, m := range machines {
		holds[m.ID] = m
	}
	for i := range r.Stories {
		s := &r.Stories[i]
		what.steps(s, told[s.Machine])
		what.records(s, of[s.Machine], holds[s.Machine])
	}
	return what, nil
}

func (c *Compared) wrong(format string, args ...any) {
	c.Wrong = append(c.Wrong, fmt.Sprintf(format, args...))
}

// steps compares what a machine did with what the events tell of it.
func (c *Compared) steps(s *Story, told []string) {
	want := []string{"job.waiting"} // by the order that made the job
	for _, step := range s.Steps {
		want = append(want, step.What)
	}
	c.Done += len(want)
	var have []string
	for _, what := range told {
		if slices.Contains(want, what) || strings.HasPrefix(what, "job.") {
			have = append(have, what)
		}
	}
	if s.Problem != "" { // what it did last was perhaps not acknowledged, but done
		have = have[:min(len(have), len(want))]
	}
	c.Recorded += common(want, have)
	if !sameOrder(want, have) {
		c.wrong("machine %s (%s) did %s; the events tell %s", s.Machine, s.MAC, strings.Join(want, ", "), strings.Join(have, ", "))
	}
}

// sameOrder compares the steps. The job may have been ordered before or after the machine said hello and what it is.
func sameOrder(want, have []string) bool {
	order := func(list []string, own bool) (of []string) {
		for _, what := range list {
			if beginning := what == "machine.hello" || what == "machine.inventory"; beginning == own {
				of = append(of, what)
			}
		}
		return of
	}
	return slices.Equal(order(want, true), order(have, true)) && slices.Equal(order(want, false), order(have, false))
}

// common is how many steps are told once.
func common(want, have []string) (n int) {
	count := map[string]int{}
	for _, what := range have {
		count[what]++
	}
	for _, what := range want {
		if count[what] == 1 {
			n++
		}
	}
	return n
}

// records compares the records of a machine and its job with what the machine did.
func (c *Compared) records(s *Story, j api.Job, m api.Machine) {
	switch {
	case s.Problem != "":
		c.wrong("machine %s gave up: %s", s.MAC, s.Problem)
	case j.ID != s.Job:
		c.wrong("machine %s had job %s; the records have %q", s.Machine, s.Job, j.ID)
	case j.State != job.Succeeded || j.Epoch != 1:
		c.wrong("job %s is %s after %d claims", j.ID, j.State, j.Epoch)
	case m.Deployed == nil || m.Deployed.Job != j.ID || m.Deployed.Image != j.Image:
		c.wrong("machine %s holds the image of job %s; the records say %+v", s.Machine, j.ID, m.Deployed)
	}
}

// events returns what is told of each machine, in its order and as Step.What has it.
func events(ctx context.Context, c *client.Client) (map[string][]string, error) {
	told := map[string][]string{}
	const limit = 10000
	for after := int64(0); ; {
		list, err := c.Events(ctx, api.EventQuery{After: after, Limit: limit})
		if err != nil {
			return nil, err
		}
		for _, e := range list {
			told[e.Machine] = append(told[e.Machine], named(e))
		}
		if len(list) < limit {
			return told, nil
		}
		after = list[len(list)-1].ID
	}
}

// named is an event as Step.What has it.
func named(e fleet.Event) string {
	if e.Kind != "job.phase" {
		return e.Kind
	}
	return e.Kind + " " + e.Text[strings.LastIndexByte(e.Text, ' ')+1:]
}
