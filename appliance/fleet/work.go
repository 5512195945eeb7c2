package fleet

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"seedbed/appliance/job"
	"seedbed/images"
)

// Work is what a job is to do that belongs to no deployment and is no capture. Never changed once it is in a record.
type Work struct {
	Method job.WipeMethod `json:"method,omitempty"` // of a wipe
	// DiskSerial is the serial number or WWN of the only disk that the job may be about; "" is the machine's only one that fits.
	DiskSerial string `json:"disk_serial,omitempty"`
	After      string `json:"after"` // "reboot", "poweroff", "stay"
	// Policy is the ID of the group whose policy had the job made; "" is a person's order.
	Policy string `json:"policy,omitempty"`
}

// WorkOrder asks for jobs that verify, repair or wipe disks, or have machines tell what they are.
type WorkOrder struct {
	Kind job.Kind `json:"kind"` // job.VerifyDisk, job.RepairDisk, job.WipeDisk, job.InventoryOf
	// Machines are IDs, names, MACs or serial numbers, Groups names of groups.
	Machines []string `json:"machines,omitempty"`
	Groups   []string `json:"groups,omitempty"`
	// Image is name, name:version or the beginning of a digest, for a verify or a repair; empty is what each machine holds by its
	// last receipt.
	Image string `json:"image,omitempty"`
	// Method is how disks are wiped; empty is job.WipeZero. Confirm is "wipe" in an order that wipes.
	Method  job.WipeMethod `json:"method,omitempty"`
	Confirm string         `json:"confirm,omitempty"`
	// DiskSerial names the disk, for one machine. Without it a verify or a repair is about the disk that was written last.
	DiskSerial string `json:"disk_serial,omitempty"`
	// After is "reboot" (also if empty), "poweroff" or "stay".
	After string `json:"after,omitempty"`
	// Priority, NotBefore and Windowless are as in Order.
	Priority   int       `json:"priority,omitempty"`
	NotBefore  time.Time `json:"not_before,omitzero"`
	Windowless bool      `json:"windowless,omitempty"`
}

// check completes an order, or says what is wrong with it.
func (o *WorkOrder) check() error {
	if err := o.checkKind(); err != nil {
		return err
	}
	switch {
	case len(o.Machines)+len(o.Groups) == 0:
		return refuse(CodeInvalid, "say which machines, by themselves or by groups")
	case o.DiskSerial != "" && (len(o.Machines) != 1 || len(o.Groups) > 0):
		return refuse(CodeInvalid, "a disk's serial number goes with one machine; order for each machine by itself")
	case o.Priority < -maxPriority || o.Priority > maxPriority:
		return refuse(CodeInvalid, "a priority is from %d to %d, not %d", -maxPriority, maxPriority, o.Priority)
	}
	if err := checkStart(o.NotBefore); err != nil {
		return err
	}
	return checkAfter(&o.After)
}

func (o *WorkOrder) checkKind() error {
	switch o.Kind {
	case job.VerifyDisk, job.RepairDisk, job.InventoryOf:
		if o.Method != "" {
			return refuse(CodeInvalid, "a method goes with a wipe, not with a job of kind %s", o.Kind)
		}
	case job.WipeDisk:
		if err := o.Method.Check(); err != nil {
			return refuse(CodeInvalid, "%v", err)
		}
	default:
		return refuse(CodeInvalid, "machines can verify, repair or wipe their disks, or tell their inventory; %q is none of these", o.Kind)
	}
	if o.Image != "" && !o.Kind.OfImage() {
		return refuse(CodeInvalid, "a job of kind %s is about no image", o.Kind)
	}
	return confirmed(o.Kind, o.Confirm)
}

// confirmed refuses what cannot be taken back without its word, and the word with what needs none.
func confirmed(kind job.Kind, word string) error {
	switch {
	case kind == job.WipeDisk && word != string(job.WipeDisk):
		return refuse(CodeUnconfirmed, "a wipe destroys everything on the disk and cannot be taken back; confirm it with the word %q", job.WipeDisk)
	case kind != job.WipeDisk && word != "":
		return refuse(CodeInvalid, "a confirmation goes with a wipe, not with a job of kind %s", kind)
	}
	return nil
}

// checkAfter completes what follows a job.
func checkAfter(after *string) error {
	switch *after {
	case "":
		*after = "reboot"
	case "reboot", "poweroff", "stay":
	case "halt": // as other systems call it
		*after = "poweroff"
	default:
		return refuse(CodeInvalid, "after a job a machine can reboot, poweroff or stay, not %q", *after)
	}
	return nil
}

// Work gives machines jobs that verify, repair or wipe their disks, or have them tell what they are. All of them get one, or none:
// it is refused where a machine is not admitted, has another job, or holds no image that is known.
func (f *Fleet) Work(ctx context.Context, o WorkOrder) ([]JobView, error) {
	if err := may(ctx, RoleOperator, string(o.Kind)+" disks"); err != nil {
		return nil, err
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	found, err := f.imagesOf(ctx, o)
	if err != nil {
		return nil, err
	}
	var made []string
	err = f.change(ctx, func(d *draft) error {
		made = nil
		machines, err := d.pick(d.machines(), o.Machines, o.Groups)
		if err != nil {
			return err
		}
		slices.SortFunc(machines, func(a, b *Machine) int { return strings.Compare(a.ID, b.ID) })
		if err := admitted(machines); err != nil {
			return err
		}
		if err := d.allFree(machines); err != nil {
			return err
		}
		for _, m := range machines {
			j, err := d.work(ctx, o, m, found)
			if err != nil {
				return err
			}
			made = append(made, j.ID)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	f.mu.RLock()
	defer f.mu.RUnlock()
	list := make([]JobView, 0, len(made))
	for _, id := range made {
		list = append(list, f.jobView(f.state.jobs[id]))
	}
	return list, nil
}

// imagesOf finds the images that an order is about, by what Work asks for them with: the order's, or what its machines hold.
func (f *Fleet) imagesOf(ctx context.Context, o WorkOrder) (map[string]*Image, error) {
	found := map[string]*Image{}
	if !o.Kind.OfImage() {
		return found, nil
	}
	refs := []string{o.Image}
	if o.Image == "" {
		refs = nil
		f.mu.RLock()
		for _, m := range f.state.machines {
			if m.Deployed != nil && !slices.Contains(refs, m.Deployed.Image.String()) && f.meant(o, m) {
				refs = append(refs, m.Deployed.Image.String())
			}
		}
		f.mu.RUnlock()
	}
	for _, ref := range refs {
		image, err := f.config.Library.Image(ctx, ref)
		if err != nil {
			return nil, err
		}
		found[ref] = image
	}
	return found, nil
}

// meant reports whether an order may be for a machine. The caller holds mu.
func (f *Fleet) meant(o WorkOrder, m *Machine) bool {
	if slices.ContainsFunc(o.Groups, func(g string) bool { return slices.Contains(m.Groups, GroupID(g)) }) {
		return true
	}
	for _, name := range o.Machines {
		if _, err := find([]*Machine{m}, name); err == nil {
			return true
		}
	}
	return false
}

// work gives one machine its job.
func (d *draft) work(ctx context.Context, o WorkOrder, m *Machine, found map[string]*Image) (*Job, error) {
	if err := d.free(m); err != nil {
		return nil, err
	}
	j := &Job{
		ID: newID(), Kind: o.Kind, Machine: m.ID, State: job.Waiting, Created: d.f.now().UTC(), Reason: waitsForBoot,
		Priority: o.Priority, NotBefore: o.NotBefore.UTC(), Windowless: o.Windowless,
		Work: &Work{Method: o.Method, DiskSerial: o.DiskSerial, After: o.After},
	}
	if o.NotBefore.IsZero() {
		j.NotBefore = time.Time{}
	}
	if o.Kind.OfImage() {
		ref := o.Image
		if ref == "" && m.Deployed == nil {
			return nil, refuse(CodeInvalid, "%s holds no image that is known; name the image that its disk should have", m.Name)
		}
		if ref == "" {
			ref = m.Deployed.Image.String()
		}
		image := found[ref]
		if image == nil {
			return nil, refuse(CodeChanged, "%s holds another image since a moment ago; order again", m.Name)
		}
		j.Image, j.ImageName, j.InfoHash = image.Digest, image.Name(), image.InfoHash
		if j.Work.DiskSerial == "" && m.Deployed != nil {
			j.Work.DiskSerial = m.Deployed.DiskSerial
		}
		if err := j.keepWhatWasKept(m, image); err != nil {
			return nil, err
		}
	}
	if o.Kind == job.WipeDisk && o.DiskSerial == "" {
		if err := oneDisk(m); err != nil {
			return nil, err
		}
	}
	d.add(j)
	d.jobEventBy(ctx, j)
	return j, nil
}

// oneDisk refuses a wipe that names no disk where the machine told of several: on its next start a wrong one may be the only one
// that shows itself.
func oneDisk(m *Machine) error {
	if m.Inventory == nil {
		return nil
	}
	var fixed []string
	for _, d := range m.Inventory.Disks {
		if !d.Removable && !d.ReadOnly && d.Bus != "usb" {
			fixed = append(fixed, fmt.Sprintf("%s (serial number %s)", d.Name, quoteEmpty(d.Serial)))
		}
	}
	if len(fixed) < 2 {
		return nil
	}
	return refuse(CodeAmbiguous, "%s has several disks: %s; name the one that is to be wiped by its serial number, or have the machine tell its inventory "+
		"if it has others now", m.Name, strings.Join(fixed, ", "))
}

// keepWhatWasKept has a job leave the partitions alone that the machine's last deployment kept. An agent refuses to keep what its
// disk has at another place.
func (j *Job) keepWhatWasKept(m *Machine, image *Image) error {
	if m.Deployed == nil {
		return nil
	}
	for _, number := range m.Deployed.Kept {
		if !slices.ContainsFunc(image.Manifest.Partitions, func(p images.Partition) bool { return p.Number == number }) {
			return refuse(CodeInvalid, "the last deployment of %s kept partition %d of its disk, and image %s has no such partition: deploy it, with or without --keep",
				m.Name, number, image.Name())
		}
	}
	j.Options.Keep = slices.Clone(m.Deployed.Kept)
	return nil
}

// free returns a Refusal where a machine has a job that has not ended. One that a policy had made, and that it has not begun,
// makes way.
func (d *draft) free(m *Machine) error {
	for _, o := range d.jobsOf(m.ID) {
		switch {
		case o.State.Ended():
		case o.makesWay():
			d.end(d.editJob(o), job.Cancelled, "superseded", "an order of a person took its place")
		default:
			return refuse(CodeMachineBusy, "%s has job %s (%s %s), which has not ended; wait for it, or end it with `seedbed job cancel %s`",
				m.Name, o.ID, o.Kind, o.ImageName, o.ID)
		}
	}
	return nil
}

// makesWay reports whether a job is a policy's that was not begun.
func (j *Job) makesWay() bool {
	return j.Work != nil && j.Work.Policy != "" && j.State == job.Waiting && j.Epoch == 0
}

// allFree returns a Refusal that names the machines, where several have a job that has not ended; of one free tells more.
func (d *draft) allFree(machines []*Machine) error {
	var busy []string
	for _, m := range machines {
		if slices.ContainsFunc(d.jobsOf(m.ID), func(o *Job) bool { return !o.State.Ended() && !o.makesWay() }) {
			busy = append(busy, m.Name)
		}
	}
	if len(busy) < 2 {
		return nil
	}
	return refuse(CodeMachineBusy, "%d machines have a job that has not ended: %s; wait for these, or end them (`seedbed job ls --state open` lists them)", len(busy), someOf(busy))
}

// outcome says for people what a job has come to, where that is not said by its state alone.
func outcome(j *Job, r *job.Receipt, disk string) string {
	switch {
	case j.Kind == job.WipeDisk:
		text := fmt.Sprintf("disk %s (serial number %s) was wiped by %s; %d places all over it were read and are zero", disk, quoteEmpty(r.DiskSerial),
			r.Wiped.Done, r.Wiped.Samples)
		if r.Wiped.Why != "" {
			text += ", not by " + string(r.Wiped.Asked) + ": " + r.Wiped.Why
		}
		return text
	case j.Kind == job.VerifyDisk:
		return "the disk is as the image has it"
	case j.Kind == job.RepairDisk && r.Found.IsClean():
		return "nothing had to be repaired"
	case j.Kind == job.RepairDisk:
		tiles, bytes := r.Found.Sum()
		text := fmt.Sprintf("%d tiles (%d bytes) were repaired", tiles, bytes)
		if r.Found.Table {
			text += ", and the partition table"
		}
		return text
	case len(r.Unproven) > 0:
		return fmt.Sprintf("unverified: %d of its partitions were not read back as a whole (verify %s)", len(r.Unproven), r.Level)
	}
	return ""
}

// Clean says how far a group's policy has come that keeps machines clean at every boot.
type Clean struct {
	Job string `json:"job"` // the repair of the present or the last boot
	// Local is when the machine booted its own disk after that; zero is not yet.
	Local time.Time `json:"local,omitzero"`
}

// Waits of the policy. After a repair the machine boots its disk, however often it asks meanwhile: no machine boots its disk, shuts
// down and comes back within cleanAgain. One that was not seen to boot its disk is repaired again at a boot that begins later than
// cleanLost after the end of the repair.
const (
	cleanAgain = time.Minute
	cleanLost  = 15 * time.Minute
)

// cleanPolicy returns the group by whose policy a machine is to be repaired at this boot, or nil. j is the repair of Clean, of is
// what looks up groups.
func cleanPolicy(m *Machine, j *Job, now time.Time, of func(id string) *Group) *Group {
	if !m.Admitted || m.MergedInto != "" || m.Deployed == nil || m.Boot != nil {
		return nil
	}
	if c := m.Clean; c != nil && j != nil {
		switch {
		case !j.State.Ended():
			return nil
		case !c.Local.IsZero() && now.Sub(c.Local) < cleanAgain:
			return nil
		case c.Local.IsZero() && now.Sub(j.Ended) < cleanLost:
			return nil
		}
	}
	for _, id := range m.Groups {
		if g := of(id); g != nil && g.KeepClean != nil {
			return g
		}
	}
	return nil
}

// due returns the image by which a machine is to be repaired at this boot, "" for none. The caller holds mu.
func (f *Fleet) due(m *Machine) (ref string) {
	var last *Job
	if m.Clean != nil {
		last = f.state.jobs[m.Clean.Job]
	}
	g := cleanPolicy(m, last, f.now(), func(id string) *Group {
		g, _ := f.state.others[Key{KindGroup, id}].(*Group)
		return g
	})
	if g == nil {
		return ""
	}
	if len(f.todo[m.ID]) > 0 {
		return ""
	}
	if g.KeepClean.Image != "" {
		return g.KeepClean.Image
	}
	return m.Deployed.Image.String()
}

// keepClean gives a machine that boots the repair that its group's policy asks for.
func (f *Fleet) keepClean(ctx context.Context, m *Machine) error {
	f.mu.RLock()
	ref := f.due(m)
	f.mu.RUnlock()
	if ref == "" {
		return nil
	}
	image, err := f.config.Library.Image(ctx, ref)
	if err != nil {
		return err
	}
	return f.change(ctx, func(d *draft) error {
		m := d.machine(m.ID)
		if m == nil {
			return nil
		}
		var last *Job
		if m.Clean != nil {
			last = d.job(m.Clean.Job)
		}
		g := cleanPolicy(m, last, d.f.now(), func(id string) *Group { return lookup[*Group](d, KindGroup, id) })
		if g == nil || slices.ContainsFunc(d.jobsOf(m.ID), func(j *Job) bool { return !j.State.Ended() }) {
			return nil // another appliance of the site was faster
		}
		j := &Job{
			ID: newID(), Kind: job.RepairDisk, Machine: m.ID, State: job.Waiting, Created: d.f.now().UTC(),
			Reason: "is kept clean at every boot, as group " + g.Name + " says", Image: image.Digest, ImageName: image.Name(), InfoHash: image.InfoHash,
			Windowless: true, Work: &Work{DiskSerial: m.Deployed.DiskSerial, After: "reboot", Policy: g.ID},
		}
		if err := j.keepWhatWasKept(m, image); err != nil {
			return err
		}
		d.add(j)
		d.editMachine(m).Clean = &Clean{Job: j.ID}
		d.jobEvent(j)
		return nil
	})
}

// cleaned notes that a machine boots its own disk after it was repaired by a policy, and reports whether there was something to
// note.
func (d *draft) cleaned(m *Machine, stage string) bool {
	if stage != "local" || m.Clean == nil || !m.Clean.Local.IsZero() {
		return false
	}
	if j := d.job(m.Clean.Job); j != nil && !j.State.Ended() {
		return false
	}
	d.editMachine(m).Clean = &Clean{Job: m.Clean.Job, Local: d.f.now().UTC()}
	return true
}

// checkReceipt reports the first way in which a receipt does not prove what its job was to do; m is the manifest of its image, nil
// where the job is about none.
func checkReceipt(r *job.Receipt, j *Job, m *images.Manifest) error {
	kind := r.Kind
	if kind == "" {
		kind = job.Deploy
	}
	switch {
	case kind != j.Kind:
		return refuse(CodeReceiptWrong, "the receipt is for a job of kind %s, job %s is one of kind %s", kind, j.ID, j.Kind)
	case r.Image != j.Image:
		return refuse(CodeReceiptWrong, "the receipt is for image %s, job %s is for %s", r.Image.Short(), j.ID, j.Image.Short())
	case r.Found != nil && (m == nil || len(r.Found.Damage) > len(m.Partitions)), r.Wiped != nil && len(r.Wiped.Why) > maxWhy, len(r.DiskSerial) > maxWord:
		return refuse(CodeReceiptWrong, "the receipt says more than job %s can have come to", j.ID)
	case m != nil:
		return checkRoots(r, j, m)
	case len(r.Roots)+len(r.Unproven) > 0:
		return refuse(CodeReceiptWrong, "the receipt proves partitions, and job %s is about no image", j.ID)
	case kind == job.WipeDisk && (j.Work == nil || r.Wiped == nil || r.Wiped.Asked != j.Work.Method || r.Wiped.Samples < 1 || r.DiskLength < 1):
		return refuse(CodeReceiptWrong, "the receipt does not say that a disk was wiped as job %s asks for", j.ID)
	case kind == job.WipeDisk:
		done := r.Wiped.Done
		if err := done.Check(); err != nil {
			return refuse(CodeReceiptWrong, "the receipt: %v", err)
		}
	}
	return nil
}

// maxWhy bounds a sentence of a receipt, in bytes.
const maxWhy = 1024

// orFull completes a level.
func orFull(v job.Verify) job.Verify {
	if v == "" {
		return job.VerifyFull
	}
	return v
}

// checkRoots compares what a receipt proves with the manifest: each partition is kept as the job says, or has its root, or is named
// as unproven where the job does not ask for all.
func checkRoots(r *job.Receipt, j *Job, m *images.Manifest) error {
	level := orFull(j.Options.Verify)
	switch {
	case orFull(r.Level) != level:
		return refuse(CodeReceiptWrong, "the receipt is over a read-back of level %s, job %s asks for %s", orFull(r.Level), j.ID, level)
	case !slices.Equal(r.Kept, j.Options.Keep):
		return refuse(CodeReceiptWrong, "the receipt says that partitions %v were kept, job %s keeps %v", r.Kept, j.ID, j.Options.Keep)
	}
	roots, unproven := r.Roots, r.Unproven
	for i := range m.Partitions {
		p := &m.Partitions[i]
		switch {
		case slices.Contains(j.Options.Keep, p.Number):
		case len(roots) > 0 && roots[0].Number == p.Number:
			if roots[0].Root != p.Root {
				return refuse(CodeReceiptWrong, "partition %d of the disk is not partition %d of the image: root %s instead of %s",
					p.Number, p.Number, roots[0].Root.Short(), p.Root.Short())
			}
			roots = roots[1:]
		case level != job.VerifyFull && len(unproven) > 0 && unproven[0].Number == p.Number:
			unproven = unproven[1:]
		default:
			return refuse(CodeReceiptWrong, "the receipt does not prove partition %d of the image", p.Number)
		}
	}
	if len(roots)+len(unproven) > 0 {
		return refuse(CodeReceiptWrong, "the receipt names partitions that the image has not, or one twice")
	}
	return nil
}
