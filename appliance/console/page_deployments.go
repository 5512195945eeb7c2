package console

import (
	"cmp"
	"slices"
	"strconv"

	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
	"seedbed/appliance/monitor"
)

// deploymentsPage lists the deployments, the latest first. It has the dialogs of all orders, too.
var deploymentsPage = &page{path: "/deployments", name: "deployments", nav: text("Deployments"), data: deploymentsData, live: deploymentsLive, routes: orderRoutes}

// deploymentsLength is how many deployments the page shows at once.
const deploymentsLength = 50

// deploymentRow is a deployment with how its machines get on.
type deploymentRow struct {
	fleet.Deployment
	Machines int
	Open     bool // it has jobs that have not ended
	Words    []WordCount
	Done     float64 // share of all its machines, 0 to 1
	Rate     float64 // bytes a second
}

type deploymentsView struct {
	Rows           []deploymentRow
	Earlier, Later string
}

func deploymentsData(c *console, v *visit) (any, error) {
	from, _ := strconv.Atoi(v.FormValue("from"))
	return c.deploymentsFrom(from), nil
}

func deploymentsLive(c *console, v *visit) (*live, error) {
	from, _ := strconv.Atoi(v.FormValue("from"))
	return &live{parts: []part{v.part("deployments", "deployments", "", "deployments", c.deploymentsFrom(from))}}, nil
}

func (c *console) deploymentsFrom(from int) deploymentsView {
	list := c.Fleet.Deployments()
	slices.Reverse(list)
	from = max(0, min(from, len(list)-1))
	to := min(len(list), from+deploymentsLength)
	w := deploymentsView{}
	jobs, p := c.jobsByDeployment(), c.picture()
	for _, d := range list[from:to] {
		w.Rows = append(w.Rows, c.deploymentRow(d, jobs[d.ID], p))
	}
	if from > 0 {
		w.Later = "/deployments?from=" + strconv.Itoa(max(0, from-deploymentsLength))
	}
	if to < len(list) {
		w.Earlier = "/deployments?from=" + strconv.Itoa(to)
	}
	return w
}

// jobsByDeployment are the jobs of each deployment, without those that were done again.
func (c *console) jobsByDeployment() map[string][]fleet.JobView {
	jobs := map[string][]fleet.JobView{}
	for _, j := range c.Fleet.Jobs() {
		if j.Deployment != "" && j.RetriedBy == "" {
			jobs[j.Deployment] = append(jobs[j.Deployment], j)
		}
	}
	return jobs
}

func (c *console) deploymentRow(d fleet.Deployment, jobs []fleet.JobView, p *monitor.Picture) deploymentRow {
	r := deploymentRow{Deployment: d, Machines: len(jobs)}
	counts, done := map[monitor.Word]int{}, 0.0
	for _, j := range jobs {
		word := jobWord(&j, p)
		counts[word]++
		switch at := p.Machines[j.Machine]; {
		case j.State == job.Succeeded:
			done++
		case at != nil && at.Job == j.ID && !j.State.Ended():
			done += at.Share()
		}
		r.Open = r.Open || !j.State.Ended()
	}
	if len(jobs) > 0 {
		r.Done = done / float64(len(jobs))
	}
	for _, w := range wordOrder {
		if counts[w] > 0 {
			r.Words = append(r.Words, WordCount{w, counts[w]})
		}
	}
	if course := p.Deployments[d.ID]; course != nil {
		r.Rate = course.Rate
	}
	return r
}

// jobWord is how a machine gets on with a job: what the monitor says, where that is its job now.
func jobWord(j *fleet.JobView, p *monitor.Picture) monitor.Word {
	if at := p.Machines[j.Machine]; at != nil && at.Job == j.ID {
		return at.Word
	}
	return cmp.Or(stateWords[j.State], monitor.Normal)
}

// stateWords are the words for jobs of which the monitor says nothing.
var stateWords = map[job.State]monitor.Word{
	job.Waiting: monitor.Waiting, job.Paused: monitor.Paused, job.Succeeded: monitor.Done, job.Failed: monitor.Failed, job.Cancelled: monitor.Cancelled,
}

// Percent is the share of all machines that is done.
func (r deploymentRow) Percent() string { return percent(r.Done) }

// Thousandths is the same for a bar.
func (r deploymentRow) Thousandths() int { return int(r.Done * 1000) }
