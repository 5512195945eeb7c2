package console

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"seedbed/appliance/api"
	"seedbed/appliance/bootdoctor"
	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
	"seedbed/appliance/monitor"
)

// machinePage is one machine: how it gets on and boots, what it is, what it did, and what people say of it.
var machinePage = &page{path: "/machines/{machine}", name: "machine", under: "rooms", title: machineTitle, data: machineData, live: machineLive, routes: []route{
	{pattern: "POST /machines/{machine}/edit", role: fleet.RoleOperator, serve: editMachine},
	{pattern: "POST /machines/{machine}/admit", role: fleet.RoleOperator, serve: admitThis},
	{pattern: "GET /machines/{machine}/merge", role: fleet.RoleOperator, serve: mergeDialog},
	{pattern: "POST /machines/{machine}/merge", role: fleet.RoleOperator, serve: mergeMachine},
	{pattern: "GET /machines/{machine}/remove", role: fleet.RoleOperator, serve: removeMachineDialog},
	{pattern: "POST /machines/{machine}/remove", role: fleet.RoleOperator, serve: removeMachine},
}}

// machineView is what the page shows.
type machineView struct {
	*fleet.MachineView
	Progress *monitor.Progress // nil is nothing known
	Boot     *api.MachineBoot
	Now      *courseView // nil is nothing seen
	Last     *courseView
	Earlier  []*courseView
	Jobs     []machineJob
	Log      string // the last lines of its screen that are known
	InGroups []string
	Rooms    []groupChoice // of which it may stand in one
	Groups   []groupChoice // that are no rooms
}

// Thousandths are how much of its job is done.
func (w machineView) Thousandths() int {
	if w.Progress == nil {
		return 0
	}
	return int(w.Progress.Share() * 1000)
}

// Memory is what the machine has, in the units in which memory is sold.
func (w machineView) Memory() string {
	return fmt.Sprintf("%.0f GiB", math.Ceil(float64(w.Inventory.MemoryBytes)/(1<<30)))
}

// groupChoice is a group that the machine may belong to.
type groupChoice struct {
	ID, Name string
	In       bool
}

// Path is that of the group's page.
func (g groupChoice) Path() string { return groupPath(g.ID) }

// machineJob is a job of the machine.
type machineJob struct {
	ID, Image, Reason string // Reason in the visit's language
	Kind              job.Kind
	State             job.State
	Deployment        string
	Created           time.Time
	Began, Ended      time.Time
}

// Took is how long it was at work; negative is not known.
func (j machineJob) Took() time.Duration {
	if j.Began.IsZero() || j.Ended.IsZero() {
		return -1
	}
	return j.Ended.Sub(j.Began)
}

// maxHistory is how many jobs of a machine are shown.
const maxHistory = 20

func machineTitle(v *visit, data any) string {
	if m, ok := data.(machineView); ok {
		return m.Name
	}
	return v.t("Machine")
}

func machineData(c *console, v *visit) (any, error) {
	m, err := c.Fleet.Machine(v.PathValue("machine"))
	if err != nil {
		return nil, err
	}
	view := machineView{MachineView: m, Progress: c.picture().Machines[m.ID]}
	if view.Boot, err = c.Operators.MachineBoot(m.ID); err != nil {
		return nil, err
	}
	view.Now, view.Last = v.course(view.Boot.Now), v.course(view.Boot.Last)
	for _, b := range view.Boot.Earlier {
		if course := v.course(b); course != nil {
			view.Earlier = append(view.Earlier, course)
		}
	}
	for _, g := range c.Fleet.Groups() {
		in := slices.Contains(m.Groups, g.ID)
		if own := (groupChoice{g.ID, g.Name, in}); g.Kind == fleet.Room {
			view.Rooms = append(view.Rooms, own)
		} else {
			view.Groups = append(view.Groups, own)
		}
		if in {
			view.InGroups = append(view.InGroups, g.Name)
		}
	}
	if err := view.jobs(v.Context(), c, v); err != nil {
		return nil, err
	}
	return view, nil
}

// jobs fills in the jobs, the last first, and what the latest of them says.
func (w *machineView) jobs(ctx context.Context, c *console, v *visit) error {
	known := map[string]bool{}
	for _, j := range slices.Backward(c.Fleet.Jobs()) {
		if j.Machine != w.ID || len(w.Jobs) >= maxHistory {
			continue
		}
		known[j.ID] = true
		w.Jobs = append(w.Jobs, machineJob{ID: j.ID, Image: j.ImageName, Kind: j.Kind, State: j.State, Reason: v.reason(cmp.Or(j.Wait, j.Code), j.Reason), Deployment: j.Deployment, Created: j.Created, Began: j.Claimed, Ended: j.Ended})
		if w.Log == "" {
			w.Log = j.Log
		}
	}
	history, err := fromRecords(c, v, "jobs of "+w.ID, func() ([]*fleet.Job, error) {
		return c.Fleet.History(ctx, fleet.JobQuery{Machine: w.ID, Limit: maxHistory})
	})
	if err != nil {
		return err
	}
	for _, j := range history {
		if known[j.ID] || len(w.Jobs) >= maxHistory {
			continue
		}
		w.Jobs = append(w.Jobs, machineJob{ID: j.ID, Image: j.ImageName, Kind: j.Kind, State: j.State, Reason: v.reason(j.Code, j.Reason), Deployment: j.Deployment, Created: j.Created, Began: j.Claimed, Ended: j.Ended})
		if w.Log == "" {
			w.Log = j.Log
		}
	}
	return nil
}

// machineParts are the parts of the page that change, by ID and block.
var machineParts = []string{"state", "verdict", "timeline", "hardware", "jobs", "log"}

// goneGrace is how long a page of a machine that was removed or merged stays: who did that is led to another page meanwhile.
const goneGrace = 3 * time.Second

func machineLive(c *console, v *visit) (*live, error) {
	data, err := machineData(c, v)
	if err != nil {
		grace := time.NewTimer(goneGrace)
		defer grace.Stop()
		select {
		case <-grace.C:
		case <-v.Context().Done():
		}
		return nil, err
	}
	l := &live{}
	for _, name := range machineParts {
		l.parts = append(l.parts, v.part("machine", name, "", name, data))
	}
	return l, nil
}

// admitThis admits the machine of the page.
func admitThis(c *console, v *visit) (*answer, error) {
	m, err := c.Fleet.Admit(v.Context(), v.PathValue("machine"))
	if err != nil {
		return nil, err
	}
	return again(v.t("%s is admitted.", m.Name)), nil
}

// Said is what people say of a machine, but for what it boots, as a form compares it: the appliance itself changes its record all the time.
func (w machineView) Said() string { return saidOf(w.MachineView) }

func saidOf(m *fleet.MachineView) string {
	b, err := json.Marshal([]any{m.Name, m.Notes, m.Groups, m.Seat})
	if err != nil {
		panic(err) // plain types
	}
	return fmt.Sprintf("%x", sha256.Sum256(b))
}

// editTries is how often an edit is tried where the appliance itself changes the record meanwhile.
const editTries = 5

// editMachine changes what people say of a machine, unless somebody changed it since the page was loaded.
func editMachine(c *console, v *visit) (*answer, error) {
	m, err := c.Fleet.Machine(v.PathValue("machine"))
	if err != nil {
		return nil, err
	}
	said, boots := v.FormValue("said"), v.FormValue("boots")
	if said == "" {
		return nil, v.invalid(text("Load the page again: the form is not whole."))
	}
	var seat fleet.Seat
	if seat.Row, err = v.number("row"); err != nil {
		return nil, err
	}
	if seat.Column, err = v.number("column"); err != nil {
		return nil, err
	}
	name, notes, groups := v.FormValue("name"), v.FormValue("notes"), v.Form["groups"]
	if groups == nil {
		groups = []string{}
	}
	if room := v.FormValue("room"); room != "" {
		groups = append(groups, room)
	}
	o := fleet.MachineOrder{Name: &name, Notes: &notes, Groups: &groups, Seat: &seat}
	to, once := strings.CutSuffix(v.FormValue("boot"), "-once")
	if boot := (fleet.BootOverride{To: fleet.BootTo(to), Once: once}); v.FormValue("boot") != boots {
		o.Boot = &boot
	}
	for try := 1; ; try++ {
		if saidOf(m) != said || o.Boot != nil && (machineView{MachineView: m}).Boots() != boots {
			return nil, &fleet.Refusal{Code: fleet.CodeChanged, Detail: m.Name + " was changed by somebody else meanwhile; look again"}
		}
		edited, err := c.Fleet.EditMachine(v.Context(), m.ID, m.Version, o)
		if err == nil {
			return again(v.t("%s is changed.", edited.Name)), nil
		}
		if refusal := (*fleet.Refusal)(nil); !errors.As(err, &refusal) || refusal.Code != fleet.CodeChanged || try == editTries {
			return nil, err
		}
		if m, err = c.Fleet.Machine(m.ID); err != nil {
			return nil, err
		}
	}
}

// Boots is the machine's boot override as the form has it: "", "agent", "agent-once", "local", "local-once".
func (w machineView) Boots() string {
	if w.MachineView.Boot == nil {
		return ""
	}
	if w.MachineView.Boot.Once {
		return string(w.MachineView.Boot.To) + "-once"
	}
	return string(w.MachineView.Boot.To)
}

// twoMachines is what the dialogs of merging and removing show.
type twoMachines struct {
	*fleet.MachineView
	Others []named
}

func (c *console) thisMachine(v *visit) (*twoMachines, error) {
	m, err := c.Fleet.Machine(v.PathValue("machine"))
	if err != nil {
		return nil, err
	}
	list := &twoMachines{MachineView: m}
	for _, o := range c.Fleet.Machines() {
		if o.ID != m.ID {
			list.Others = append(list.Others, named{o.ID, o.Name})
		}
	}
	slices.SortFunc(list.Others, func(a, b named) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}

func mergeDialog(c *console, v *visit) (*answer, error) {
	m, err := c.thisMachine(v)
	if err != nil {
		return nil, err
	}
	return show("machine", "merge", m), nil
}

func mergeMachine(c *console, v *visit) (*answer, error) {
	ctx, err := v.expecting()
	if err != nil {
		return nil, err
	}
	into, err := c.Fleet.Machine(v.FormValue("into"))
	if err != nil {
		return nil, err
	}
	if err := c.Fleet.MergeMachines(ctx, v.PathValue("machine"), into.ID); err != nil {
		return nil, err
	}
	return goTo("/machines/"+into.ID, v.t("Both records are %s now.", into.Name)), nil
}

func removeMachineDialog(c *console, v *visit) (*answer, error) {
	m, err := c.thisMachine(v)
	if err != nil {
		return nil, err
	}
	return show("machine", "remove", m), nil
}

func removeMachine(c *console, v *visit) (*answer, error) {
	m, err := c.Fleet.Machine(v.PathValue("machine"))
	if err != nil {
		return nil, err
	}
	ctx, err := v.expecting()
	if err != nil {
		return nil, err
	}
	if err := c.Fleet.RemoveMachine(ctx, m.ID); err != nil {
		return nil, err
	}
	return goTo("/rooms", v.t("%s is removed.", m.Name)), nil
}

// expecting returns a context in which only the version of the record is changed that the form was made of.
func (v *visit) expecting() (context.Context, error) {
	version, err := strconv.ParseInt(v.FormValue("version"), 10, 64)
	if err != nil {
		return nil, v.invalid(text("Load the page again: the form is not whole."))
	}
	return fleet.Expecting(v.Context(), version), nil
}

// said returns a text of the boot doctor with its facts, in the visit's language.
func (v *visit) said(english string, facts map[string]string) string {
	own := make(map[string]string, len(facts))
	for name, fact := range facts {
		own[name] = v.look.say(fact)
	}
	return bootdoctor.Fill(v.t(english), own)
}
