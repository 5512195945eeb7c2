package console

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
	"seedbed/appliance/monitor"
)

// deploymentPage is one deployment: how its machines get on, what holds them back, what went wrong, what was proven.
var deploymentPage = &page{path: "/deployments/{deployment}", name: "deployment", under: "deployments", chart: true, data: deploymentData, live: deploymentLive,
	title: func(v *visit, data any) string { return v.t("Deployment of %s", data.(*deploymentView).ImageName) }, routes: []route{
		{pattern: "GET /deployments/{deployment}/cancel", role: fleet.RoleOperator, serve: cancelDialog},
		{pattern: "GET /deployments/{deployment}/close", role: fleet.RoleOperator, serve: closeDialog},
		{pattern: "GET /deployments/{deployment}/rollback", role: fleet.RoleOperator, serve: rollbackDialog},
		{pattern: "POST /deployments/{deployment}/{verb}", role: fleet.RoleOperator, serve: steerDeployment},
		{pattern: "GET /deployments/{deployment}/receipts/{job}", serve: receiptDialog},
		{pattern: "GET /deployments/{deployment}/receipts/{job}/download", serve: downloadReceipt},
	}}

// deploymentView is what the page shows.
type deploymentView struct {
	deploymentRow
	Course   *monitor.Course // nil is nothing known of
	LastName string          // of the machine that is expected to be done last
	LastAt   time.Time
	Shares   []byteShare
	Slow     []*monitor.Progress
	Errors   []errorGroup
	Receipts []receiptRow
	More     int // receipts that are not shown
	Samples  []monitor.Sample
	Failed   bool // there is something to try again
	Ended    bool
}

// byteShare is where bytes came from, and how many.
type byteShare struct {
	From  string
	Bytes int64
	Share float64 // 0 to 1
}

// Percent is the share for people, Thousandths for a bar.
func (s byteShare) Percent() string  { return percent(s.Share) }
func (s byteShare) Thousandths() int { return int(s.Share * 1000) }

// errorGroup are machines that failed of one thing.
type errorGroup struct {
	Code, Sentence string
	Machines       []named
	Count          int
}

// receiptRow is a machine whose disk was proven.
type receiptRow struct {
	Job, Deployment, Machine, Name, Serial string
	Level                                  job.Verify
	Unverified                             bool
	Verified                               int64 // bytes
	At                                     time.Time
}

// So many machines, errors, receipts and moments are shown one by one.
const (
	maxSlow     = 10
	maxReceipts = 200
	maxSamples  = 20
)

func deploymentData(c *console, v *visit) (any, error) {
	id := v.PathValue("deployment")
	list := c.Fleet.Deployments()
	at := slices.IndexFunc(list, func(d fleet.Deployment) bool { return d.ID == id })
	if at < 0 {
		return nil, &fleet.Refusal{Code: fleet.CodeDeploymentUnknown, Detail: v.t("There is no deployment %s, or it was too long ago.", id)}
	}
	p, jobs := c.picture(), c.jobsByDeployment()[id]
	w := &deploymentView{deploymentRow: c.deploymentRow(list[at], jobs, p), Course: p.Deployments[id]}
	w.Ended = !w.Open && !(w.All && !w.Closed)
	w.course(v, p)
	for i := range jobs {
		j := &jobs[i]
		switch j.State {
		case job.Failed:
			w.Failed = true
		case job.Succeeded:
			w.Receipts = append(w.Receipts, receiptRow{j.ID, id, j.Machine, j.MachineName, j.DiskSerial, cmp.Or(j.Options.Verify, job.VerifyFull), j.Unverified, j.Verified, j.Ended})
		}
		if m := p.Machines[j.Machine]; m != nil && m.Job == j.ID && (m.Word == monitor.Slow || m.Word == monitor.Silent || m.Word == monitor.Normal && m.Rate > 0) {
			w.Slow = append(w.Slow, m)
		}
	}
	w.Errors = v.errorGroups(jobs)
	slices.SortFunc(w.Receipts, func(a, b receiptRow) int { return cmp.Or(b.At.Compare(a.At), cmp.Compare(a.Name, b.Name)) })
	w.More = max(0, len(w.Receipts)-maxReceipts)
	w.Receipts = w.Receipts[:len(w.Receipts)-w.More]
	slices.SortFunc(w.Slow, func(a, b *monitor.Progress) int {
		return cmp.Or(cmp.Compare(slowness(a), slowness(b)), cmp.Compare(a.Rate, b.Rate), cmp.Compare(a.Name, b.Name))
	})
	w.Slow = w.Slow[:min(len(w.Slow), maxSlow)]
	return w, nil
}

// slowness orders machines by what people look at first.
func slowness(p *monitor.Progress) int { return slices.Index(wordOrder, p.Word) }

// course takes over how the deployment as a whole gets on.
func (w *deploymentView) course(v *visit, p *monitor.Picture) {
	if w.Course == nil {
		return
	}
	c := w.Course
	sum := c.BytesFromAppliance + c.BytesFromPeers + c.BytesFromSeeds
	for _, s := range []byteShare{{v.t("the appliance"), c.BytesFromAppliance, 0}, {v.t("other machines"), c.BytesFromPeers, 0}, {v.t("seed nodes"), c.BytesFromSeeds, 0}} {
		if sum > 0 {
			s.Share = float64(s.Bytes) / float64(sum)
		}
		w.Shares = append(w.Shares, s)
	}
	if at := p.Machines[c.Last]; at != nil && !c.LastAt.IsZero() {
		w.LastName, w.LastAt = at.Name, c.LastAt
	}
	step := max(1, len(c.Series)/maxSamples)
	for i := 0; i < len(c.Series); i += step {
		w.Samples = append(w.Samples, c.Series[i])
	}
}

// errorGroups are the failures of a deployment, what most machines have first.
func (v *visit) errorGroups(jobs []fleet.JobView) (list []errorGroup) {
	at := map[string]int{}
	jobs = slices.SortedFunc(slices.Values(jobs), func(a, b fleet.JobView) int { return strings.Compare(a.MachineName, b.MachineName) })
	for _, j := range jobs {
		if j.State != job.Failed {
			continue
		}
		i, known := at[j.Code]
		if !known {
			i = len(list)
			at[j.Code] = i
			list = append(list, errorGroup{Code: j.Code, Sentence: v.plain(j.Reason, errorTexts[j.Code])})
		}
		if g := &list[i]; g.Count < mostNamed {
			g.Machines = append(g.Machines, named{j.Machine, j.MachineName})
		}
		list[i].Count++
	}
	slices.SortStableFunc(list, func(a, b errorGroup) int { return cmp.Compare(b.Count, a.Count) })
	return list
}

// More is how many machines a group does not name.
func (g errorGroup) More() int { return g.Count - len(g.Machines) }

// why says what holds a machine back, in the visit's language.
func (v *visit) why(p *monitor.Progress) string {
	if p.Cause == monitor.CauseNone {
		return v.reason(p.Code, p.Why)
	}
	return v.plain(p.Why, causeTexts[p.Cause])
}

// Why is why, for templates.
func (v *visit) Why(p *monitor.Progress) string { return v.why(p) }

// causeTexts say what holds machines back.
var causeTexts = map[monitor.Cause]string{
	monitor.CauseLink: text("its network card has negotiated too little: check cable and switch port"), monitor.CauseDisk: text("its disk takes no more"),
	monitor.CauseCPU: text("its processors are busy"), monitor.CauseAlone: text("it has no connection to other machines: check that TCP port 6881 is open between them"),
	monitor.CausePeers: text("other machines send it little: check cable, switch port and the network between them"), monitor.CauseSource: text("the appliance alone sends what it lacks"),
	monitor.CauseCap: text("a limit that somebody set"),
}

func deploymentLive(c *console, v *visit) (*live, error) {
	data, err := deploymentData(c, v)
	if err != nil {
		return nil, err
	}
	w := data.(*deploymentView)
	l := &live{data: map[string]any{}}
	for _, block := range []string{"head", "figures", "samples", "slowest", "errors", "receipts"} {
		l.parts = append(l.parts, v.part("deployment", block, "", block, w))
	}
	if w.Course != nil {
		for _, s := range w.Course.Series {
			l.data[fmt.Sprintf("%d", s.At.UnixMilli())] = [4]int64{int64(s.Rate), int64(s.FromAppliance), int64(s.FromPeers), int64(s.FromSeeds)}
		}
	}
	return l, nil
}

// LastIn is how long the last machine takes.
func (w *deploymentView) LastIn() time.Duration { return max(0, time.Until(w.LastAt)) }

// Efficiency is what machines receive against what their links could, for people.
func (w *deploymentView) Efficiency() string {
	if w.Course == nil || w.Course.Efficiency < 0 {
		return "–"
	}
	return percent(w.Course.Efficiency)
}

// OptionTexts say how disks are written, where that is not as usual.
func (v *visit) OptionTexts(d fleet.Deployment) (list []string) {
	switch d.Options.Verify {
	case job.VerifySample:
		list = append(list, v.t("a sample is read back"))
	case job.VerifyNone:
		list = append(list, v.t("nothing is read back (unverified)"))
	}
	switch d.Options.Free {
	case job.FreeDiscard:
		list = append(list, v.t("free space is given back to the disk (TRIM)"))
	case job.FreeZero:
		list = append(list, v.t("free space is overwritten with zeros"))
	}
	if len(d.Options.Keep) > 0 {
		list = append(list, v.t("partitions %s stay as they are", fmt.Sprint(d.Options.Keep)))
	}
	if !d.NotBefore.IsZero() {
		list = append(list, v.t("not before %s", v.look.time(d.NotBefore)))
	}
	if d.Wake {
		list = append(list, v.t("machines that are off are woken"))
	}
	return list
}
