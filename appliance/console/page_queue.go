package console

import (
	"cmp"
	"maps"
	"net/url"
	"slices"
	"strconv"

	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
	"seedbed/appliance/queue"
)

// queuePage is what waits, and for what, in the order in which it begins.
var queuePage = &page{path: "/queue", name: "queue", nav: text("Queue"), data: queueData, live: queueLive, routes: []route{
	{pattern: "POST /queue/move", role: fleet.RoleOperator, serve: moveInQueue},
}}

// queueLength is how many jobs the page shows at once.
const queueLength = 100

// queueRow is a job that waits. Before and After are the jobs around it in the whole queue, "" at its ends; the pairs of Up and Down are
// those between which it stands when it was moved by one.
type queueRow struct {
	fleet.JobView
	Waits           string
	Previous, Next  string
	Up, Down        place
	IsFirst, IsLast bool
}

// place is one in the queue: between two jobs, "" being its ends.
type place struct{ After, Before string }

// queueView is what the page shows.
type queueView struct {
	Rows           []queueRow
	Total, Held    int
	From, To       int // places that are shown
	Earlier, Later string
	Reasons        []reason
	Said, Refused  string // of what somebody just did
}

// reason is what jobs wait for, and how many.
type reason struct {
	Text  string
	Count int
}

// waitingJobs are the jobs that wait in the order of the queue, and how many a person holds.
func (c *console) waitingJobs() (list []fleet.JobView, held int) {
	for _, j := range c.Fleet.Jobs() {
		switch {
		case j.State == job.Waiting && j.Place > 0:
			list = append(list, j)
		case j.State == job.Paused:
			held++
		}
	}
	slices.SortFunc(list, func(a, b fleet.JobView) int { return cmp.Compare(a.Place, b.Place) })
	return list, held
}

func queueData(c *console, v *visit) (any, error) {
	from, _ := strconv.Atoi(v.FormValue("from"))
	return c.queueFrom(v, from), nil
}

// queueFrom is the view from a place on.
func (c *console) queueFrom(v *visit, from int) queueView {
	list, held := c.waitingJobs()
	from = max(1, min(from, len(list)))
	from -= (from - 1) % queueLength
	w := queueView{Total: len(list), Held: held, From: from, To: min(len(list), from+queueLength-1)}
	at := func(i int) string {
		if i < 0 || i >= len(list) {
			return ""
		}
		return list[i].ID
	}
	for i := from - 1; i < w.To; i++ {
		j := list[i]
		r := queueRow{JobView: j, Waits: v.waits(j.Wait, j.Reason), Previous: at(i - 1), Next: at(i + 1), IsFirst: i == 0, IsLast: i == len(list)-1}
		r.Place = i + 1 // jobs that are held are counted by the queue, and not shown
		r.Up, r.Down = place{at(i - 2), at(i - 1)}, place{at(i + 1), at(i + 2)}
		w.Rows = append(w.Rows, r)
	}
	if from > 1 {
		w.Earlier = "/queue?from=" + strconv.Itoa(from-queueLength)
	}
	if w.To < w.Total {
		w.Later = "/queue?from=" + strconv.Itoa(w.To+1)
	}
	w.Reasons = reasons(v, list)
	return w
}

// reasons counts what jobs wait for, what most wait for first.
func reasons(v *visit, list []fleet.JobView) (out []reason) {
	count := map[string]int{}
	for _, j := range list {
		count[j.Wait]++
	}
	for _, code := range slices.SortedFunc(maps.Keys(count), func(a, b string) int { return cmp.Or(cmp.Compare(count[b], count[a]), cmp.Compare(a, b)) }) {
		general := v.t(waitTexts[code])
		if waitTexts[code] == "" {
			general = v.t("begins at once")
		}
		out = append(out, reason{general, count[code]})
	}
	return out
}

func queueLive(c *console, v *visit) (*live, error) {
	from, _ := strconv.Atoi(v.FormValue("from"))
	return &live{parts: []part{v.part("queue", "queue", "", "queue", c.queueFrom(v, from))}}, nil
}

// moveInQueue has a job stand between two others, as the person saw them. It changes nothing where they do not stand side by side any
// more, or where the job itself was changed; either way the list is shown anew.
func moveInQueue(c *console, v *visit) (*answer, error) {
	said, err := c.move(v, v.FormValue("job"), place{v.FormValue("after"), v.FormValue("before")})
	from := 1
	if at, e := url.Parse(v.Header.Get("HX-Current-URL")); e == nil {
		from, _ = strconv.Atoi(at.Query().Get("from"))
	}
	view := c.queueFrom(v, from)
	if view.Said = said; err != nil {
		view.Refused = v.sentence(err)
	}
	return show("queue", "queue", view), nil
}

func (c *console) move(v *visit, id string, to place) (said string, err error) {
	list, _ := c.waitingJobs()
	at := slices.IndexFunc(list, func(j fleet.JobView) bool { return j.ID == id })
	changed := &fleet.Refusal{Code: fleet.CodeChanged, Detail: v.t("The queue was changed meanwhile, and nothing was moved. This is how it stands now.")}
	if at < 0 {
		return "", changed
	}
	moved := list[at]
	if v.FormValue("version") != strconv.FormatInt(moved.Version, 10) {
		return "", changed
	}
	others := slices.Delete(slices.Clone(list), at, at+1)
	target := len(others)
	if to.Before != "" {
		target = slices.IndexFunc(others, func(j fleet.JobView) bool { return j.ID == to.Before })
	}
	if target < 0 || target > 0 && others[target-1].ID != to.After || target == 0 && to.After != "" {
		return "", changed
	}
	placed := make([]queue.Placed, len(list))
	versions := map[string]int64{}
	for i, j := range list {
		placed[i] = queue.Placed{ID: j.ID, Priority: j.Priority, Since: j.Created}
		versions[j.ID] = j.Version
	}
	other, err := queue.Move(placed, at, target)
	if err != nil {
		return "", &fleet.Refusal{Code: fleet.CodeInvalid, Detail: v.t("There is no room between these two: their priorities are as far apart as priorities go.")}
	}
	orders := make([]fleet.Prioritised, len(other))
	for i, p := range other {
		orders[i] = fleet.Prioritised{Job: p.ID, Version: versions[p.ID], Priority: p.Priority}
	}
	if err := c.Fleet.PrioritiseAll(v.Context(), orders); err != nil {
		return "", err
	}
	return v.t("%s is at place %d now.", moved.MachineName, target+1), nil
}
