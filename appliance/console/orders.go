package console

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"seedbed/appliance/api"
	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
)

// orderRoutes are the dialogs in which machines that were chosen get something to do. Each is opened by GET with the IDs of the machines in
// "machines" (with commas between, or several times), and ordered by POST.
var orderRoutes = slices.Concat(deployRoutes, machinesRoutes, captureRoutes, workRoutes, steerRoutes)

// named is a machine as dialogs name it.
type named struct{ ID, Name string }

// chosen are the machines that a dialog is about.
type chosen []named

// IDs are the machines' IDs with commas between.
func (c chosen) IDs() string {
	ids := make([]string, len(c))
	for i, m := range c {
		ids[i] = m.ID
	}
	return strings.Join(ids, ",")
}

// mostNamed is how many machines a dialog names.
const mostNamed = 12

// First are the names that are shown, More how many are not.
func (c chosen) First() string {
	names := make([]string, 0, mostNamed)
	for _, m := range c[:min(len(c), mostNamed)] {
		names = append(names, m.Name)
	}
	return strings.Join(names, ", ")
}

// More is how many machines First leaves out.
func (c chosen) More() int { return max(0, len(c)-mostNamed) }

// machineIDs are those that a request names.
func machineIDs(v *visit) (ids []string) {
	_ = v.ParseForm() // what is no form names none
	for _, list := range v.Form["machines"] {
		for id := range strings.SplitSeq(list, ",") {
			if id = strings.TrimSpace(id); id != "" && !slices.Contains(ids, id) {
				ids = append(ids, id)
			}
		}
	}
	return ids
}

// chosenMachines are the machines that a request names; those that are gone are left out.
func (c *console) chosenMachines(v *visit) (chosen, error) {
	ids := map[string]bool{}
	for _, id := range machineIDs(v) {
		ids[id] = true
	}
	list := chosen{}
	for _, m := range c.Fleet.Machines() {
		if ids[m.ID] {
			list = append(list, named{m.ID, m.Name})
		}
	}
	if len(list) == 0 {
		return nil, &fleet.Refusal{Code: fleet.CodeInvalid, Detail: v.t("No machine is chosen. Choose machines in the rooms first.")}
	}
	slices.SortFunc(list, func(a, b named) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}

// imageOptions lists the images that can be chosen, the latest version of a name first.
func (c *console) imageOptions(v *visit) (list []api.ImageListing, err error) {
	if c.Images == nil {
		return nil, nil
	}
	if list, err = c.Images.List(v.Context()); err != nil {
		return nil, err
	}
	list = slices.DeleteFunc(list, func(i api.ImageListing) bool { return i.Problem != "" })
	slices.SortStableFunc(list, func(a, b api.ImageListing) int {
		if n := strings.Compare(a.Name, b.Name); n != 0 {
			return n
		}
		return b.Created.Compare(a.Created)
	})
	return list, nil
}

// result is what the dialog shows when something was ordered.
type result struct {
	Title, Text string
	Problems    []string // sentences about what was not done
	Links       []link
}

type link struct{ Path, Text string }

// ordered shows a result in place of the dialog.
func (v *visit) ordered(r result) *answer {
	v.w.Header().Set("HX-Retarget", "#dialog")
	v.w.Header().Set("HX-Reswap", "innerHTML")
	return show("orders", "ordered", r)
}

// invalid is a refusal of a form.
func (v *visit) invalid(format string, args ...any) error {
	return &fleet.Refusal{Code: fleet.CodeInvalid, Detail: v.t(format, args...)}
}

// number returns a whole number of a form; what is empty is 0.
func (v *visit) number(field string) (int, error) {
	typed := strings.TrimSpace(v.FormValue(field))
	if typed == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(typed)
	if err != nil {
		return 0, v.invalid(text("%q is no whole number."), typed)
	}
	return n, nil
}

// start returns the time of a form at which machines may begin, by the appliance's clock; zero is at once.
func (v *visit) start() (time.Time, error) {
	typed := strings.TrimSpace(v.FormValue("at"))
	if typed == "" {
		return time.Time{}, nil
	}
	at, err := time.ParseInLocation("2006-01-02T15:04", typed, time.Local)
	if err != nil {
		return time.Time{}, v.invalid(text("%q is no date with a time."), typed)
	}
	return at, nil
}

// jobKinds are what jobs are called in the console.
var jobKinds = map[job.Kind]string{
	job.Deploy: text("Deployment"), job.Capture: text("Capture"), job.VerifyDisk: text("Verification"), job.RepairDisk: text("Repair"),
	job.WipeDisk: text("Wipe"), job.InventoryOf: text("Inventory"),
}

// kind returns the name of a kind of job in the visit's language.
func (v *visit) kind(k job.Kind) string { return v.t(jobKinds[k]) }

// Kind is kind, for templates.
func (v *visit) Kind(k job.Kind) string { return v.kind(k) }

// diskText is a disk as people know it: "nvme0n1, Samsung PM9A1, S4GXNX000001, 512 GB, nvme".
func diskText(d *job.Disk) string {
	parts := []string{d.Name}
	for _, s := range []string{d.Model, d.Serial} {
		if s != "" {
			parts = append(parts, s)
		}
	}
	parts = append(parts, Bytes(d.Length), d.Bus)
	return strings.Join(parts, ", ")
}

// countText writes a number of machines or jobs by a text for one and one for more.
func (v *visit) countText(n int, one, more string) string {
	if n == 1 {
		return v.t(one)
	}
	return v.t(more, n)
}

// listText joins sentences, and says how many are left out.
func (v *visit) listText(list []string, most int) []string {
	if len(list) > most {
		return append(slices.Clone(list[:most]), v.t("and %d more", len(list)-most))
	}
	return list
}

// states are what states of jobs are called in the console.
var states = map[job.State]string{
	job.Waiting: text("waiting"), job.Claimed: text("begins"), job.Running: text("at work"), job.Paused: text("paused"),
	job.Succeeded: text("done"), job.Failed: text("failed"), job.Cancelled: text("cancelled"),
}

// State returns the name of a job's state in the visit's language.
func (v *visit) State(s job.State) string { return v.t(states[s]) }
