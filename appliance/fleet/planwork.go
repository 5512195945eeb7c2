package fleet

import (
	"context"
	"errors"
	"slices"
	"strings"

	"seedbed/appliance/job"
)

// WorkPlan says what an order of work would do. Nothing was changed for it.
type WorkPlan struct {
	Kind     job.Kind      `json:"kind"`
	Machines []PlannedWork `json:"machines"` // by name
	// Unknown is how many of these machines have not told their disks yet, Refused how many would do nothing.
	Unknown int `json:"unknown"`
	Refused int `json:"refused"`
}

// PlannedWork is what an order of work would do with one machine.
type PlannedWork struct {
	ID   string `json:"id"`
	Name string `json:"name"`
	MAC  string `json:"mac"`
	// Disk is the one that the job would be about, as the last inventory told it; nil where that is not known, or none would be.
	Disk *job.Disk `json:"disk,omitempty"`
	// Now is what is on the disk: what a wipe destroys.
	Now   OnDisk `json:"now"`
	Image string `json:"image,omitempty"` // "name:version" that the disk is compared with, of a verify or a repair
	// Refused is a sentence about why nothing is done, Code its short fixed word; "" is nothing against it.
	Refused string `json:"refused,omitempty"`
	Code    string `json:"code,omitempty"`
}

// PlanWork says what Work would do with an order, and changes nothing: which disk of each machine it would be about and what is on it,
// and what is refused, by the agent's own rules. It goes by what machines told of themselves last. A wipe needs no confirmation here.
func (f *Fleet) PlanWork(ctx context.Context, o WorkOrder) (*WorkPlan, error) {
	if err := may(ctx, RoleOperator, string(o.Kind)+" disks"); err != nil {
		return nil, err
	}
	if o.Confirm = ""; o.Kind == job.WipeDisk {
		o.Confirm = string(job.WipeDisk)
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	found, err := f.imagesOf(ctx, o)
	if err != nil {
		return nil, err
	}
	needs := map[string]job.DiskNeed{}
	for _, image := range found {
		need := job.DiskNeed{Image: image.Name(), SectorLength: image.Manifest.SectorLength, Length: image.Manifest.EndOfPartitions()}
		if f.config.Needed != nil {
			if need.Length, err = f.config.Needed(ctx, image); err != nil {
				return nil, err
			}
		}
		needs[image.Name()] = need
	}
	f.writing.Lock() // a draft reads what is not to change meanwhile
	defer f.writing.Unlock()
	f.mu.RLock()
	defer f.mu.RUnlock()
	d := newPlan(f)
	machines, err := d.pick(d.machines(), o.Machines, o.Groups)
	if err != nil {
		return nil, err
	}
	p := &WorkPlan{Kind: o.Kind, Machines: make([]PlannedWork, 0, len(machines))}
	jobs := map[string][]*Job{} // of each machine, also those that have ended
	for _, j := range f.state.jobs {
		jobs[j.Machine] = append(jobs[j.Machine], j)
	}
	for _, m := range machines {
		x := d.planWork(ctx, o, m, jobs[m.ID], found, needs)
		switch {
		case x.Refused != "":
			p.Refused++
		case m.Inventory == nil:
			p.Unknown++
		}
		p.Machines = append(p.Machines, x)
	}
	slices.SortFunc(p.Machines, func(a, b PlannedWork) int { return strings.Compare(a.Name+"\x00"+a.ID, b.Name+"\x00"+b.ID) })
	return p, nil
}

// planWork gives one machine its job in a draft that is thrown away; jobs are those that the machine has.
func (d *draft) planWork(ctx context.Context, o WorkOrder, m *Machine, jobs []*Job, found map[string]*Image, needs map[string]job.DiskNeed) PlannedWork {
	w := PlannedWork{ID: m.ID, Name: m.Name, MAC: m.MAC(), Now: OnDisk{Kind: OnDiskUnknown}}
	refuse := func(err error) PlannedWork {
		w.Refused, w.Code, w.Disk = err.Error(), CodeInvalid, nil
		if r, ok := errors.AsType[*Refusal](err); ok {
			w.Code = r.Code
		}
		return w
	}
	if err := admitted([]*Machine{m}); err != nil {
		w = refuse(err)
		w.Code = CodeNotAdmitted
		return w
	}
	j, err := d.work(ctx, o, m, found)
	if err != nil {
		return refuse(err)
	}
	w.Image = j.ImageName
	if m.Inventory == nil || o.Kind == job.InventoryOf {
		return w
	}
	disk, refusal := job.ChooseWipe(m.Inventory.Disks, j.Work.DiskSerial)
	if o.Kind != job.WipeDisk {
		need := needs[j.ImageName]
		need.Serial = j.Work.DiskSerial
		disk, refusal = job.ChooseDisk(m.Inventory.Disks, need)
	}
	if refusal != nil {
		w.Refused, w.Code = refusal.Sentence, refusal.Code
		return w
	}
	x := &planned{PlannedMachine: PlannedMachine{Disk: &disk}, m: m}
	x.now(jobs)
	w.Disk, w.Now = &disk, x.Now
	return w
}
