package console

import (
	"slices"
	"strconv"
	"strings"

	"seedbed/appliance/api"
	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
	"seedbed/appliance/queue"
)

// deployRoutes put an image on machines: a form, what it would do, and the order.
var deployRoutes = []route{
	{pattern: "GET /orders/deploy", role: fleet.RoleOperator, serve: deployDialog},
	{pattern: "POST /orders/deploy/plan", role: fleet.RoleOperator, serve: planDialog},
	{pattern: "POST /orders/deploy", role: fleet.RoleOperator, serve: deploy},
}

// deployForm is what the dialog begins with.
type deployForm struct {
	Machines chosen
	Images   []api.ImageListing
	Image    string // that is chosen first
	Disks    []diskOption
}

func deployDialog(c *console, v *visit) (*answer, error) {
	machines, err := c.chosenMachines(v)
	if err != nil {
		return nil, err
	}
	list, err := c.imageOptions(v)
	if err != nil {
		return nil, err
	}
	return show("orders", "deploy", deployForm{machines, list, v.FormValue("image"), c.disksOf(machines)}), nil
}

// orderOf reads a deployment from the form.
func orderOf(v *visit) (o fleet.Order, err error) {
	o = fleet.Order{
		Image: v.FormValue("image"), Machines: machineIDs(v), After: v.FormValue("after"), Wake: v.FormValue("wake") != "", Windowless: v.FormValue("any") != "",
		Options: job.Options{Verify: job.Verify(v.FormValue("verify")), Free: job.Free(v.FormValue("free")), Disk: v.FormValue("disk")},
	}
	if o.Image == "" {
		return o, v.invalid(text("Choose an image."))
	}
	if o.Priority, err = v.number("priority"); err != nil {
		return o, err
	}
	if o.NotBefore, err = v.start(); err != nil {
		return o, err
	}
	for part := range strings.FieldsFuncSeq(v.FormValue("keep"), func(r rune) bool { return r == ',' || r == ' ' }) {
		n, err := strconv.Atoi(part)
		if err != nil {
			return o, v.invalid(text("%q is no number of a partition."), part)
		}
		o.Options.Keep = append(o.Options.Keep, n)
	}
	return o, nil
}

// plan is a dry run as the dialog shows it.
type plan struct {
	*fleet.Plan
	Written, Refused []planRow
	// Machines are the IDs of those that would be written, Fields the rest of the order.
	Machines string
	Fields   []field
	Warnings []string
}

// field is an input of a form that nobody sees.
type field struct{ Name, Value string }

// planRow is one machine of a dry run.
type planRow struct{ Name, Disk, Now, Fetched, Then, Refused string }

// Fetch is what all machines fetch.
func (p plan) Fetch() string { return Bytes(p.Fetched) }

func planDialog(c *console, v *visit) (*answer, error) {
	o, err := orderOf(v)
	if err != nil {
		return nil, err
	}
	if len(o.Machines) == 0 {
		return nil, v.invalid(text("No machine is chosen. Choose machines in the rooms first."))
	}
	dry, err := c.Fleet.Plan(v.Context(), o)
	if err != nil {
		return nil, err
	}
	p := plan{Plan: dry}
	var ids []string
	notes := map[string][]string{}
	for i := range dry.Machines {
		m := &dry.Machines[i]
		row := v.planRow(m)
		for _, n := range m.Notes {
			notes[n.Code] = append(notes[n.Code], m.Name)
		}
		if m.Refused != "" {
			p.Refused = append(p.Refused, row)
			continue
		}
		ids, p.Written = append(ids, m.ID), append(p.Written, row)
	}
	for _, code := range noteOrder {
		if names := notes[code]; len(names) > 0 {
			p.Warnings = append(p.Warnings, v.t(noteTexts[code])+" "+v.t("Machines: %s.", strings.Join(v.listText(names, mostNamed), ", ")))
		}
	}
	p.Machines = strings.Join(ids, ",")
	for _, name := range []string{"image", "disk", "verify", "keep", "free", "priority", "at", "wake", "any", "after"} {
		if value := v.FormValue(name); value != "" {
			p.Fields = append(p.Fields, field{name, value})
		}
	}
	v.w.Header().Set("HX-Retarget", "#plan")
	v.w.Header().Set("HX-Reswap", "innerHTML")
	return show("orders", "plan", p), nil
}

func (v *visit) planRow(m *fleet.PlannedMachine) planRow {
	row := planRow{Name: m.Name, Disk: v.t("not known yet"), Now: v.onDisk(m.Now), Fetched: Bytes(m.Fetched), Then: v.t("begins at once")}
	if m.Refused != "" {
		row.Refused = v.plain(m.Refused, refusalTexts[m.Code])
		return row
	}
	if m.Disk != nil {
		row.Disk = diskText(m.Disk)
	}
	if m.AtMost {
		row.Fetched = v.t("at most %s", row.Fetched)
	}
	if m.Wait != "" {
		row.Then = v.waits(m.Wait, m.Waits)
	}
	return row
}

// onDisk says what is on a disk.
func (v *visit) onDisk(o fleet.OnDisk) string {
	at := o.Since.Local().Format("2006-01-02 15:04")
	switch o.Kind {
	case fleet.OnDiskImage:
		return v.t("%s, since %s", o.Image, at)
	case fleet.OnDiskPart:
		return v.t("part of %s, from a job of %s that came to no end", o.Image, at)
	case fleet.OnDiskWiped:
		return v.t("nothing, wiped %s", at)
	}
	return v.t("not known: the machine looks before it writes")
}

// plain returns a sentence of the fleet in the visit's language: where that one is not known in it, the general text that stands for it.
func (v *visit) plain(sentence, general string) string {
	said := v.look.say(sentence)
	if v.Language() == "en" || general == "" || said != sentence {
		return said
	}
	return v.t(general)
}

// waits says what a job waits for.
func (v *visit) waits(code, sentence string) string { return v.plain(sentence, waitTexts[code]) }

// waitTexts say what jobs wait for, by the codes of package queue.
var waitTexts = map[string]string{
	queue.WaitsMachine: text("waits until the machine boots from the network"), queue.WaitsCalled: text("was called and has not answered yet"),
	queue.WaitsSilent: text("was called and has not answered; switch the machine on"), queue.WaitsTime: text("waits for its time"),
	queue.WaitsWindow: text("waits until its maintenance window opens"), queue.WaitsPreload: text("waits for the seed nodes to fetch the image"),
	queue.WaitsTurn: text("waits for another job of the same machine"), queue.WaitsSite: text("waits for a place: as many machines of the site are at work as may be"),
	queue.WaitsGroup: text("waits for a place: as many machines of its group are at work as may be"), queue.WaitsUplink: text("waits for a place: as many machines behind its uplink are at work as may be"),
	queue.WaitsPerson: text("was paused by a person, who lets it go on"), queue.WaitsAdmit: text("waits until a person admits the machine by the code on its screen"),
	queue.WaitsLocal: text("waits, since the machine boots its own disk by a person's word"),
}

// refusalTexts say why a machine is not written, by the codes of plans.
var refusalTexts = map[string]string{
	job.CodeNoDisk:        text("No fixed disk was found in it. Check the disk's cable, and set the storage controller to AHCI or NVMe in the firmware if it is set to RAID."),
	job.CodeTooSmall:      text("Its disk is too small for the image. Put in a larger one."),
	job.CodeAmbiguousDisk: text("Several of its disks would do. Order it for this machine alone and choose the disk, or take the others out."),
	job.CodeSectorSize:    text("The sectors of its disk have another length than those of the image. Capture an image from a disk of this kind."),
	fleet.CodeNotAdmitted: text("It is not admitted. Admit it by the code on its screen first."),
	fleet.CodeConflict:    text("It says of itself what another machine says too. Look at its page, and say which it is."),
	fleet.CodeWipeFirst:   text("A wipe that was ordered before goes first and takes away the partitions that are to be kept. Cancel the wipe, or keep none."),
}

// noteTexts are what a person should know before, by the codes of notes.
var noteTexts = map[string]string{
	fleet.NoteFirmware:    text("The firmware of these machines is set to start in another way than the image can: they will not start it."),
	fleet.NoteKeep:        text("Whether these disks have the partitions that are to be kept is not known: the machines look, and write nothing if not."),
	fleet.NoteMakesWay:    text("A job that these machines have not begun makes way."),
	fleet.NoteSecureBoot:  text("Secure Boot is on: these machines start the image only if its loader is signed."),
	fleet.NoteNoInventory: text("These machines have not told their disks yet: they choose when they boot."),
}

// noteOrder is the order in which notes are told.
var noteOrder = []string{fleet.NoteFirmware, fleet.NoteKeep, fleet.NoteMakesWay, fleet.NoteSecureBoot, fleet.NoteNoInventory}

func deploy(c *console, v *visit) (*answer, error) {
	o, err := orderOf(v)
	if err != nil {
		return nil, err
	}
	if len(o.Machines) == 0 {
		return nil, v.invalid(text("No machine is chosen. Choose machines in the rooms first."))
	}
	made, err := c.Fleet.Deploy(v.Context(), o)
	if err != nil {
		return nil, err
	}
	r := result{Title: v.t("%s is being deployed", made.ImageName), Links: []link{{"/deployments/" + made.ID, v.t("See the deployment")}, {"/queue", v.t("See the queue")}}}
	r.Text = v.countText(len(o.Machines), text("1 machine gets it when it boots from the network."), text("%d machines get it when they boot from the network."))
	if o.Wake {
		r.Text += " " + v.t("Those that are off are woken.")
	}
	return v.ordered(r), nil
}

// firstOf returns the first image of a list, which a form chooses.
func (f deployForm) Chosen(i api.ImageListing) bool {
	at := slices.IndexFunc(f.Images, func(o api.ImageListing) bool { return o.Name+":"+o.Version == f.Image || o.Name == f.Image })
	return at >= 0 && f.Images[at].Digest == i.Digest
}
