package console

import (
	"context"
	"net/http"
	"strings"
	"time"

	"seedbed/appliance/api"
	"seedbed/appliance/doctor"
	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
)

// startPage leads to the first deployment in four steps, each of which knows by itself whether it is done.
var startPage = &page{path: "/start", name: "start", nav: text("First steps"), data: startData, live: startLive, scripts: []string{"upload.js"}, routes: []route{
	{pattern: "POST /start/check", role: fleet.RoleOperator, serve: checkNetwork},
	{pattern: "POST /start/admit", role: fleet.RoleOperator, serve: startAdmit},
}}

// Examine looks at the appliance from outside, and asks the network who answers machines that boot.
type Examine func(ctx context.Context) (*doctor.Report, error)

type startView struct {
	Steps []stepView
	// Now is the number of the first step that is not done, 0 if all are.
	Now     int
	Check   checkView
	Images  []imageRow
	Uploads bool
	// Waiting are machines that nobody admitted yet, Admitted one that a deployment can go to.
	Waiting  []fleet.MachineView
	Admitted *fleet.MachineView
	Machines int // admitted
	// Deploying is the deployment under way, Failed one whose jobs failed all.
	Deploying, Failed, Succeeded string // IDs of machines
	Host                         string
}

// stepView is one step. State is "done", "now" or "later".
type stepView struct {
	Number      int
	Name, State string
}

// checkView is the last look at the network.
type checkView struct {
	Can, Running bool
	By           string
	At           time.Time
	Err          string
	Wrong, Warns int
	Findings     []findingRow
	Fine         []findingRow
	ByMachines   bool // machines have booted: the network does its work
}

// findingRow is a finding as people read it.
type findingRow struct {
	What, Verdict, Text, Remedy string
	Word                        string // class of the shape: "failed", "slow", "done"
}

// checks are the checks of the doctor as people read them.
var checks = map[string]string{
	"configuration": text("Configuration"), "service": text("Service"), "data": text("Data folder"), "port": text("Ports"), "network": text("Network"),
	"dhcp": text("Who answers machines"), "boot files": text("Boot files"), "room": text("Room on disk"), "repository": text("Images"), "records": text("Records"),
	"clock": text("Clock"), "certificate": text("Certificates"), "secrets": text("Secrets"), "schedule": text("Schedule"), "images": text("Images"),
	"queue": text("Queue"), "machines": text("Machines"),
}

func startData(c *console, v *visit) (any, error) {
	view := &startView{Uploads: c.Spool != nil, Host: v.Host}
	list, err := c.recentList(v.Context())
	if err != nil {
		return nil, err
	}
	view.Images = c.imageRows(list)
	deployed := false
	for _, m := range c.Fleet.Machines() {
		switch {
		case !m.Admitted:
			view.Waiting = append(view.Waiting, m)
			continue
		case view.Admitted == nil:
			view.Admitted = &m
		}
		view.Machines++
		if m.Deployed != nil {
			deployed, view.Succeeded = true, m.ID
		}
	}
	for _, j := range c.Fleet.Jobs() {
		if j.Deployment == "" {
			continue
		}
		switch {
		case j.State == job.Succeeded:
			deployed, view.Succeeded = true, j.Machine
		case !j.State.Ended():
			view.Deploying = j.Deployment
		case j.State == job.Failed:
			view.Failed = j.Deployment
		}
	}
	view.Check = c.checkView(v, len(view.Waiting)+view.Machines > 0)
	done := []bool{view.Check.fine(), len(view.Images) > 0, view.Machines > 0, deployed}
	for i, name := range []string{text("Check the network"), text("Take the first image"), text("Connect the first machine"), text("Deploy the image")} {
		step := stepView{i + 1, v.t(name), "later"}
		switch {
		case done[i]:
			step.State = "done"
		case view.Now == 0:
			view.Now, step.State = i+1, "now"
		}
		view.Steps = append(view.Steps, step)
	}
	return view, nil
}

// fine reports whether machines reach the appliance, as far as is known.
func (k checkView) fine() bool {
	return k.ByMachines || !k.At.IsZero() && k.Err == "" && k.Wrong == 0 && !k.Running
}

// checkView says what the last look at the network found.
func (c *console) checkView(v *visit, seen bool) checkView {
	k := checkView{Can: c.Examine != nil, ByMachines: seen}
	o, ok := c.works.last(examining, "")
	if !ok {
		return k
	}
	k.By, k.At, k.Running = o.By, o.Ended, o.Ended.IsZero()
	if o.Err != nil {
		k.Err = v.sentence(o.Err)
	}
	r, ok := o.Result.(*doctor.Report)
	if !ok || r == nil {
		return k
	}
	for _, f := range r.Findings {
		row := findingRow{What: v.t(checks[f.Check]), Text: v.look.say(f.Text), Remedy: v.look.say(f.Remedy)}
		if checks[f.Check] == "" {
			row.What = f.Check
		}
		switch f.Verdict {
		case doctor.Wrong:
			k.Wrong++
			row.Word, row.Verdict = "failed", v.t("wrong")
			k.Findings = append(k.Findings, row)
		case doctor.Warning:
			k.Warns++
			row.Word, row.Verdict = "slow", v.t("look at this")
			k.Findings = append(k.Findings, row)
		default:
			row.Word, row.Verdict = "done", v.t("fine")
			k.Fine = append(k.Fine, row)
		}
	}
	return k
}

func startLive(c *console, v *visit) (*live, error) {
	data, err := startData(c, v)
	if err != nil {
		return nil, err
	}
	l := &live{}
	for _, block := range []string{"steps", "check", "image", "machine", "deploy"} {
		l.parts = append(l.parts, v.part("start", "start-"+block, "", block, data))
	}
	return l, nil
}

// checkNetwork begins a look at the network.
func checkNetwork(c *console, v *visit) (*answer, error) {
	if c.Examine == nil {
		return nil, &fleet.Refusal{Code: fleet.CodeInvalid, Detail: text("this appliance cannot look at its network from here; ask `seedbed doctor --probe` on its host")}
	}
	_, err := c.works.begin(v.Context(), examining, "", func(ctx context.Context, _ func(api.Progress)) (any, error) { return c.Examine(ctx) })
	if err != nil {
		return nil, err
	}
	return say(v.t("Looking; this takes some seconds.")), nil
}

// startAdmit admits a machine by the code on its screen.
func startAdmit(c *console, v *visit) (*answer, error) {
	code := strings.TrimSpace(v.FormValue("code"))
	if code == "" {
		return nil, &fleet.Refusal{Code: fleet.CodeInvalid, Detail: text("type the code that the machine shows on its screen")}
	}
	m, err := c.Fleet.Admit(v.Context(), code)
	if err != nil {
		return nil, err
	}
	return say(v.t("%s is admitted.", m.Name)), nil
}

// home sends who has nothing deployed yet to the first steps, and others to the rooms.
func (c *console) home(w http.ResponseWriter, r *http.Request) {
	v := c.visit(w, r, fleet.RoleViewer, "look")
	if v == nil {
		return
	}
	to := "/rooms"
	if v.May(fleet.RoleOperator) && !c.deployed() {
		to = "/start"
	}
	http.Redirect(w, v.Request, to, http.StatusSeeOther)
}

// deployed reports whether a deployment has ever succeeded, as far as the fleet remembers.
func (c *console) deployed() bool {
	for _, m := range c.Fleet.Machines() {
		if m.Deployed != nil {
			return true
		}
	}
	for _, j := range c.Fleet.Jobs() {
		if j.Deployment != "" && j.State == job.Succeeded {
			return true
		}
	}
	return false
}
