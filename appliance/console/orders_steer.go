package console

import (
	"strings"

	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
)

// steerRoutes wake machines, and end, hold or let go on what they have to do.
var steerRoutes = []route{
	{pattern: "GET /orders/wake", role: fleet.RoleOperator, serve: wakeDialog}, {pattern: "POST /orders/wake", role: fleet.RoleOperator, serve: wakeMachines},
	{pattern: "GET /orders/cancel", role: fleet.RoleOperator, serve: steerDialog}, {pattern: "POST /orders/cancel", role: fleet.RoleOperator, serve: steer},
	{pattern: "GET /orders/pause", role: fleet.RoleOperator, serve: steerDialog}, {pattern: "POST /orders/pause", role: fleet.RoleOperator, serve: steer},
	{pattern: "GET /orders/resume", role: fleet.RoleOperator, serve: steerDialog}, {pattern: "POST /orders/resume", role: fleet.RoleOperator, serve: steer},
}

func wakeDialog(c *console, v *visit) (*answer, error) {
	machines, err := c.chosenMachines(v)
	if err != nil {
		return nil, err
	}
	return show("orders", "wake", machines), nil
}

func wakeMachines(c *console, v *visit) (*answer, error) {
	machines, err := c.chosenMachines(v)
	if err != nil {
		return nil, err
	}
	woken, err := c.Fleet.Wake(v.Context(), machineIDs(v), nil)
	if err != nil {
		return nil, err
	}
	r := result{Title: v.countText(len(woken.Machines), text("1 machine was called"), text("%d machines were called")),
		Text: v.t("A machine that is set to wake over the network starts in a moment."), Links: []link{{"/rooms", v.t("See the rooms")}}}
	if len(woken.Failed) > 0 {
		r.Problems = []string{v.t("No packet could be sent to these: %s.", strings.Join(v.listText(woken.Failed, mostNamed), ", "))}
	}
	if len(machines) == 1 {
		r.Links = []link{{"/machines/" + machines[0].ID, v.t("See the machine")}}
	}
	return v.ordered(r), nil
}

// steerForm names the jobs that are to be ended, held or let go on.
type steerForm struct {
	Machines                  chosen
	Title, About, Order, Path string
	Danger                    bool
	Jobs                      []fleet.JobView
	IDs                       string // of the jobs
}

// steerVerb is what a path asks for.
func steerVerb(v *visit) fleet.Verb { return fleet.Verb(strings.TrimPrefix(v.URL.Path, "/orders/")) }

// steerable are the jobs of machines that a verb is for.
func (c *console) steerable(machines chosen, verb fleet.Verb) (list []fleet.JobView) {
	of := map[string]bool{}
	for _, m := range machines {
		of[m.ID] = true
	}
	for _, j := range c.Fleet.Jobs() {
		if !of[j.Machine] || j.State.Ended() || verb == fleet.ResumeAll && j.State != job.Paused || verb == fleet.PauseAll && j.State == job.Paused {
			continue
		}
		list = append(list, j)
	}
	return list
}

func steerDialog(c *console, v *visit) (*answer, error) {
	machines, err := c.chosenMachines(v)
	if err != nil {
		return nil, err
	}
	verb := steerVerb(v)
	f := steerForm{Machines: machines, Path: v.URL.Path, Danger: verb == fleet.CancelAll, Jobs: c.steerable(machines, verb)}
	ids := make([]string, len(f.Jobs))
	for i := range f.Jobs {
		ids[i] = f.Jobs[i].ID
	}
	f.IDs = strings.Join(ids, ",")
	switch n := len(f.Jobs); verb {
	case fleet.CancelAll:
		f.Title, f.Order = v.countText(n, text("Cancel 1 job"), text("Cancel %d jobs")), v.countText(n, text("Cancel 1 job"), text("Cancel %d jobs"))
		f.About = v.t("A machine at work stops with its next report. A disk that is half written starts nothing until it is deployed again.")
	case fleet.PauseAll:
		f.Title, f.Order = v.countText(n, text("Pause 1 job"), text("Pause %d jobs")), v.countText(n, text("Pause 1 job"), text("Pause %d jobs"))
		f.About = v.t("A job that is paused keeps what it has, and goes on when somebody resumes it.")
	default:
		f.Title, f.Order = v.countText(n, text("Resume 1 job"), text("Resume %d jobs")), v.countText(n, text("Resume 1 job"), text("Resume %d jobs"))
		f.About = v.t("These jobs go on where they stopped.")
	}
	return show("orders", "steer", f), nil
}

// steer does it for each job by itself: one that has ended meanwhile keeps no other from it.
func steer(c *console, v *visit) (*answer, error) {
	ids := strings.FieldsFunc(v.FormValue("jobs"), func(r rune) bool { return r == ',' })
	if len(ids) == 0 {
		return nil, v.invalid(text("These machines have no job for that."))
	}
	verb, done := steerVerb(v), 0
	var problems []string
	var last error
	for _, id := range ids {
		if err := c.Fleet.Steer(v.Context(), id, 0, verb); err != nil {
			problems, last = append(problems, v.sentence(err)), err
			continue
		}
		done++
	}
	if done == 0 {
		return nil, last
	}
	r := result{Problems: v.listText(problems, mostNamed), Links: []link{{"/queue", v.t("See the queue")}, {"/rooms", v.t("See the rooms")}}}
	switch verb {
	case fleet.CancelAll:
		r.Title = v.countText(done, text("1 job was cancelled"), text("%d jobs were cancelled"))
	case fleet.PauseAll:
		r.Title = v.countText(done, text("1 job was paused"), text("%d jobs were paused"))
	default:
		r.Title = v.countText(done, text("1 job goes on"), text("%d jobs go on"))
	}
	return v.ordered(r), nil
}
