package fleet

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"seedbed/appliance/job"
	"seedbed/appliance/queue"
	"seedbed/images"
)

// Weight is what there is to fetch of one partition of an image, in bytes.
type Weight struct {
	Encoded int64 // as they travel
	Decoded int64 // as they are written
}

// Plan says what a deployment would do. Nothing was changed for it.
type Plan struct {
	Image     images.Digest `json:"image"`
	ImageName string        `json:"image_name"`
	// Needed is the length in bytes of the smallest disk that holds the image, SectorLength that of its sectors.
	Needed       int64 `json:"needed"`
	SectorLength int   `json:"sector_length"`
	// All says that machines that are seen later get the image too.
	All      bool             `json:"all,omitempty"`
	Machines []PlannedMachine `json:"machines"` // by name
	// Written is how many disks would be written, Unknown how many of these machines have not told their disks yet; Refused is how
	// many machines get nothing.
	Written int `json:"written"`
	Unknown int `json:"unknown"`
	Refused int `json:"refused"`
	// Fetched is the sum of what the machines would fetch, in bytes as they travel; AtMost says that some may hold more of it than
	// is known.
	Fetched int64 `json:"fetched"`
	AtMost  bool  `json:"at_most,omitempty"`
}

// PlannedMachine is what a deployment would do with one machine.
type PlannedMachine struct {
	ID   string `json:"id"`
	Name string `json:"name"`
	MAC  string `json:"mac"`
	// Disk is the one that would be written, as the last inventory told it; nil where that is not known, or none would be.
	Disk *job.Disk `json:"disk,omitempty"`
	Now  OnDisk    `json:"now"`
	// Fetched and Decoded are what it would fetch, in bytes as they travel and as they are written. AtMost says that it may hold
	// more of it than is known.
	Fetched int64 `json:"fetched"`
	Decoded int64 `json:"decoded"`
	AtMost  bool  `json:"at_most,omitempty"`
	// Refused is a sentence about why it is not written, Code its short fixed word; "" is nothing against it.
	Refused string `json:"refused,omitempty"`
	Code    string `json:"code,omitempty"`
	// Waits is a sentence about what it would wait for, Wait its short fixed word of package queue; "" begins at once.
	Waits string `json:"waits,omitempty"`
	Wait  string `json:"wait,omitempty"`
	// Notes are about what else a person should know before.
	Notes []PlanNote `json:"notes,omitempty"`
}

// PlanNote is one thing that a person should know before a deployment.
type PlanNote struct {
	Code string `json:"code"` // a short fixed word, one of the Note constants
	Text string `json:"text"` // a sentence without the machine's name
}

// Codes of notes.
const (
	NoteNoInventory = "no-inventory" // it has not told its disks yet
	NoteMakesWay    = "makes-way"    // a job that it has not begun makes way
	NoteFirmware    = "firmware"     // the image does not start by its firmware
	NoteSecureBoot  = "secure-boot"  // it checks the image's loader
	NoteKeep        = "keep"         // whether its disk has what is to be kept is not known
)

// What is on a disk, as far as its receipts tell.
const (
	OnDiskUnknown = "unknown" // nothing of it is known: the machine looks
	OnDiskImage   = "image"   // an image, by a receipt
	OnDiskPart    = "part"    // what a job left that did not come to its end
	OnDiskWiped   = "wiped"   // nothing, by the receipt of a wipe
)

// OnDisk says what is on a disk.
type OnDisk struct {
	Kind  string    `json:"kind"`
	Image string    `json:"image,omitempty"` // "name:version", of OnDiskImage and OnDiskPart
	Since time.Time `json:"since,omitzero"`
}

// String says it for people.
func (o OnDisk) String() string {
	at := o.Since.Format("2006-01-02 15:04")
	switch o.Kind {
	case OnDiskImage:
		return o.Image + ", since " + at
	case OnDiskPart:
		return "part of " + o.Image + ", of a job that began " + at + " and came to no end"
	case OnDiskWiped:
		return "nothing: wiped " + at
	}
	return "not known: it will be looked at"
}

// Codes of what a plan refuses, beside those of disks in package job.
const (
	CodeNotAdmitted = "not-admitted"
	CodeConflict    = "conflict"
	CodeWipeFirst   = "wipe-first"
	CodeKeepRefused = "keep-refused"
)

// planned is a machine of a plan while it is made.
type planned struct {
	PlannedMachine
	m    *Machine
	job  *Job // that it would get
	held images.Digest
	kept []int // of what it holds, the partitions that are not the image's
}

// Plan says what Deploy would do with an order, and changes nothing: which disk of each machine would be written and what is on it, what
// would be fetched, what is refused, and what would be waited for. It goes by what machines told of themselves last.
func (f *Fleet) Plan(ctx context.Context, o Order) (*Plan, error) {
	image, err := f.checked(ctx, &o)
	if err != nil {
		return nil, err
	}
	p := &Plan{Image: image.Digest, ImageName: image.Name(), Needed: image.Manifest.EndOfPartitions(), SectorLength: image.Manifest.SectorLength, All: o.All}
	if f.config.Needed != nil {
		if p.Needed, err = f.config.Needed(ctx, image); err != nil {
			return nil, err
		}
	}
	list, err := f.planMachines(ctx, o, image, p)
	if err != nil {
		return nil, err
	}
	if err := f.weigh(ctx, list, o, image); err != nil {
		return nil, err
	}
	p.sum(list)
	return p, nil
}

// planMachines makes the deployment in a draft that is thrown away.
func (f *Fleet) planMachines(ctx context.Context, o Order, image *Image, p *Plan) (list []*planned, err error) {
	f.writing.Lock() // a draft reads what is not to change meanwhile
	defer f.writing.Unlock()
	f.mu.RLock()
	defer f.mu.RUnlock()
	d := newPlan(f)
	machines, err := d.chosen(o)
	if err != nil {
		return nil, err
	}
	dep := f.newDeployment(ctx, o, image)
	dep.ID = newID()
	d.add(dep)
	jobs := map[string][]*Job{} // of each machine, also those that have ended
	for _, j := range f.state.jobs {
		jobs[j.Machine] = append(jobs[j.Machine], j)
	}
	need := job.DiskNeed{Image: p.ImageName, Serial: o.Options.Disk, SectorLength: p.SectorLength, Length: p.Needed}
	for _, m := range machines {
		x := &planned{PlannedMachine: PlannedMachine{ID: m.ID, Name: m.Name, MAC: m.MAC()}, m: m}
		x.choose(need)
		x.now(jobs[m.ID])
		x.refuse(d, o)
		if list = append(list, x); m.Admitted {
			x.job = d.addJob(dep, m)
		}
		x.note(d, o, image)
	}
	f.planWaits(d, dep, list)
	return list, nil
}

// choose finds the disk as the machine will, from what its inventory told.
func (x *planned) choose(need job.DiskNeed) {
	if x.m.Inventory == nil {
		x.add(NoteNoInventory, "it has not told its disks yet: it chooses when it boots")
		return
	}
	disk, refusal := job.ChooseDisk(x.m.Inventory.Disks, need)
	if refusal != nil {
		x.Refused, x.Code = refusal.Sentence, refusal.Code
		return
	}
	x.Disk = &disk
}

// now says what is on the disk, by the machine's receipts and jobs.
func (x *planned) now(jobs []*Job) {
	x.Now.Kind = OnDiskUnknown
	if x.m.Inventory != nil && x.Disk == nil {
		return
	}
	held := x.m.Deployed
	if held != nil && (x.Disk == nil || held.DiskSerial == x.Disk.Serial && (held.DiskSerial != "" || held.Disk == x.Disk.Name)) {
		x.Now = OnDisk{OnDiskImage, held.ImageName, held.written()}
		x.held, x.kept = held.Image, held.Kept
	}
	slices.SortFunc(jobs, func(a, b *Job) int { return a.Started.Compare(b.Started) })
	for _, j := range jobs { // what was begun since
		if !j.begun() || !j.Started.After(x.Now.Since) || x.Disk != nil && j.Last.DiskSerial != x.Disk.Serial {
			continue
		}
		switch {
		case j.State == job.Succeeded && j.Kind == job.WipeDisk:
			x.Now = OnDisk{OnDiskWiped, "", j.Ended}
		case j.State != job.Succeeded && j.Last.Written > 0:
			x.Now = OnDisk{OnDiskPart, orEmpty(j.ImageName, string(j.Kind)), j.Started}
		default:
			continue
		}
		x.held, x.kept = images.Digest{}, nil
	}
}

// refuse says why Deploy gives the machine nothing.
func (x *planned) refuse(d *draft, o Order) {
	switch {
	case !x.m.Admitted && x.m.Conflict != "":
		x.Refused, x.Code = "it is not admitted: "+x.m.Conflict, CodeConflict
	case !x.m.Admitted:
		x.Refused, x.Code = "it is not admitted; admit it by the code on its screen first", CodeNotAdmitted
	default:
		if err := d.kept([]*Machine{x.m}, o.Options); err != nil {
			x.Refused, x.Code = err.Error(), CodeWipeFirst
		}
	}
	if x.Refused != "" {
		x.Disk = nil
	}
}

// note says what else a person should know.
func (x *planned) note(d *draft, o Order, image *Image) {
	for _, j := range d.jobsOf(x.m.ID) {
		if j.Code == "superseded" && d.put[j.Ref()] != nil {
			x.add(NoteMakesWay, fmt.Sprintf("its job %s (%s), which it has not begun, makes way", j.ID, orEmpty(j.ImageName, string(j.Kind))))
		}
	}
	if i := x.m.Inventory; i != nil {
		if boots := image.Manifest.Firmware; len(boots) > 0 && i.Firmware != "" && !slices.Contains(boots, i.Firmware) {
			x.add(NoteFirmware, fmt.Sprintf("the image boots by %s, and this machine's firmware is set to %s: it will not start the image", strings.Join(boots, ", "), i.Firmware))
		}
		if i.SecureBoot == "on" {
			x.add(NoteSecureBoot, "Secure Boot is on: it starts the image only if the image's loader is signed")
		}
	}
	if len(o.Options.Keep) > 0 && x.Now.Kind != OnDiskImage && x.Refused == "" {
		x.add(NoteKeep, "whether its disk has the partitions that are to be kept is not known: the machine looks, and writes nothing if it has not")
	}
}

func (x *planned) add(code, text string) { x.Notes = append(x.Notes, PlanNote{code, text}) }

// planWaits says what the machines would wait for, by the queue's own decision.
func (f *Fleet) planWaits(d *draft, dep *Deployment, list []*planned) {
	jobs, limits := f.queuedOf(planQueue(d, list), len(f.open)+len(list), f.now())
	ours := map[string]*planned{}
	for _, x := range list {
		if x.job != nil {
			ours[x.job.ID] = x
		}
	}
	for i := range jobs {
		if ours[jobs[i].ID] == nil {
			continue
		}
		if dep.Preload > 0 {
			jobs[i].Preload = fmt.Sprintf("waits for the seed nodes to fetch %.0f %% of %s", 100*dep.Preload, dep.ImageName)
		}
		if dep.Wake && jobs[i].Elsewhere == "" {
			jobs[i].Wake, jobs[i].MostCalls = true, maxCalls
		}
	}
	decision := queue.Decide(f.now(), jobs, limits)
	for id, x := range ours {
		if w := decision.Waits[id]; x.Refused == "" {
			x.Waits, x.Wait = w.Text, w.Code
		}
		if slices.Contains(decision.Call, id) && x.Wait == queue.WaitsMachine {
			x.Waits = "is woken, and begins when it has booted from the network"
		}
	}
}

// planQueue are the jobs that have not ended as the draft has them, without those of machines that are refused.
func planQueue(d *draft, list []*planned) iter.Seq[*Job] {
	refused := map[string]bool{}
	for _, x := range list {
		if x.job != nil && x.Refused != "" {
			refused[x.job.ID] = true
		}
	}
	return func(yield func(*Job) bool) {
		for _, j := range d.openJobs() {
			if !j.State.Ended() && !refused[j.ID] && !yield(j) {
				return
			}
		}
	}
}

// weigh says what machines would fetch. The content of images is not read, but what describes them is.
func (f *Fleet) weigh(ctx context.Context, list []*planned, o Order, image *Image) error {
	known := map[images.Digest][]Weight{}
	of := func(held images.Digest) (weights []Weight, err error) {
		weights, looked := known[held]
		if !looked {
			weights, err = f.weights(ctx, held, image)
			if refusal, is := errors.AsType[*Refusal](err); is && refusal.Code == CodeImageUnknown && held != (images.Digest{}) {
				weights, err = nil, nil // it was removed since
			}
			known[held] = weights
		}
		return weights, err
	}
	for _, x := range list {
		if x.Refused != "" {
			continue
		}
		all, err := of(images.Digest{})
		if err != nil {
			return err
		}
		weights, err := of(x.held)
		if err != nil {
			return err
		}
		x.AtMost = weights == nil || x.held == images.Digest{}
		for i, p := range image.Manifest.Partitions {
			w := all[i]
			if weights != nil && !slices.Contains(x.kept, p.Number) {
				w = weights[i]
			}
			if !slices.Contains(o.Options.Keep, p.Number) {
				x.Fetched, x.Decoded = x.Fetched+w.Encoded, x.Decoded+w.Decoded
			}
		}
	}
	return nil
}

// weights says what there is to fetch for a machine that holds another image, or none.
func (f *Fleet) weights(ctx context.Context, from images.Digest, image *Image) (list []Weight, err error) {
	if f.config.Weigh != nil {
		if list, err = f.config.Weigh(ctx, from, image.Digest); err != nil {
			return nil, err
		}
		if len(list) != len(image.Manifest.Partitions) {
			return nil, fmt.Errorf("weigh image %s: %d partitions of %d", image.Name(), len(list), len(image.Manifest.Partitions))
		}
		return list, nil
	}
	for _, p := range image.Manifest.Partitions {
		n := min(p.DataTiles*images.TileLength, p.Length)
		if from == image.Digest {
			n = 0
		}
		list = append(list, Weight{n, n})
	}
	return list, nil
}

// sum completes a plan.
func (p *Plan) sum(list []*planned) {
	p.Machines = make([]PlannedMachine, 0, len(list))
	for _, x := range list {
		p.Machines = append(p.Machines, x.PlannedMachine)
		if x.Refused != "" {
			p.Refused++
			continue
		}
		p.Written++
		if x.Disk == nil {
			p.Unknown++
		}
		p.Fetched, p.AtMost = p.Fetched+x.Fetched, p.AtMost || x.AtMost
	}
	slices.SortFunc(p.Machines, func(a, b PlannedMachine) int {
		return strings.Compare(a.Name+"\x00"+a.ID, b.Name+"\x00"+b.ID)
	})
}
