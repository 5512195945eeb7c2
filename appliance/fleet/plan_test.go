package fleet_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
	"seedbed/appliance/queue"
	"seedbed/images"
)

// weighed has the image's two partitions weigh 100 and 1000 bytes encoded, 200 and 2000 decoded, and of what differs from the image
// itself nothing.
func weighed(_ context.Context, from, to images.Digest) ([]fleet.Weight, error) {
	switch from {
	case images.Digest{}:
		return []fleet.Weight{{Encoded: 100, Decoded: 200}, {Encoded: 1000, Decoded: 2000}}, nil
	case to:
		return []fleet.Weight{{}, {}}, nil
	}
	return nil, &fleet.Refusal{Code: fleet.CodeImageUnknown, Detail: "removed"}
}

// newWeighedRoom is a room whose image needs a disk of 1 MiB and is weighed.
func newWeighedRoom(t *testing.T, admit fleet.Admit) *room {
	r := newRoom(t, admit)
	r.lib.image.Manifest.SectorLength = 512
	r.needed, r.weigh = func(context.Context, *fleet.Image) (int64, error) { return 1 << 20, nil }, weighed
	r.kill()
	return r
}

// hasDisks is what a machine tells that has these disks.
func hasDisks(disks ...job.Disk) job.Inventory {
	inv := invA
	inv.Disks = disks
	return inv
}

// diskOf is a disk as a machine tells it.
func diskOf(name, serial, bus string, length int64) job.Disk {
	return job.Disk{Name: name, Serial: serial, Bus: bus, Length: length, SectorLength: 512, Model: "Fast"}
}

func TestPlanSaysWhatADeploymentWouldDo(t *testing.T) {
	good := diskOf("sda", "D1", "sata", 1<<30)
	native := good
	native.SectorLength = 4096
	claimed := func(r *room, a *agent) { r.deployAll(); a.claim(); a.mustReport(job.PhaseContent, 10) }
	for name, c := range map[string]struct {
		inv    job.Inventory
		before func(*room, *agent)
		order  fleet.Order
		want   fleet.PlannedMachine // Refused and Waits: a part of them, Notes: their codes
	}{
		"a disk of which nothing is known": {inv: hasDisks(good), want: fleet.PlannedMachine{Disk: &good, Now: fleet.OnDisk{Kind: "unknown"}, Fetched: 1100, Decoded: 2200, AtMost: true, Wait: queue.WaitsMachine}},
		"no inventory of disks":            {inv: hasDisks(), want: fleet.PlannedMachine{Code: job.CodeNoDisk, Refused: "no fixed disk"}},
		"beside a stick":                   {inv: hasDisks(diskOf("sdb", "S", "usb", 1<<40), good), want: fleet.PlannedMachine{Disk: &good, Now: fleet.OnDisk{Kind: "unknown"}, Fetched: 1100, Decoded: 2200, AtMost: true, Wait: queue.WaitsMachine}},
		"too small":                        {inv: hasDisks(diskOf("sda", "D1", "sata", 1<<19)), want: fleet.PlannedMachine{Code: job.CodeTooSmall, Refused: "1048576"}},
		"two that would do, one of which is named": {inv: hasDisks(good, diskOf("sdb", "D2", "nvme", 1<<40)), order: fleet.Order{Options: job.Options{Disk: "D2"}},
			want: fleet.PlannedMachine{Disk: new(diskOf("sdb", "D2", "nvme", 1<<40)), Now: fleet.OnDisk{Kind: "unknown"}, Fetched: 1100, Decoded: 2200, AtMost: true, Wait: queue.WaitsMachine}},
		"none is the one that is named": {inv: hasDisks(good), order: fleet.Order{Options: job.Options{Disk: "D9"}}, want: fleet.PlannedMachine{Code: job.CodeNoDisk, Refused: "serial number D9"}},
		"two that would do":             {inv: hasDisks(good, diskOf("sdb", "D2", "nvme", 1<<40)), want: fleet.PlannedMachine{Code: job.CodeAmbiguousDisk, Refused: "serial D2"}},
		"other sectors":                 {inv: hasDisks(native), want: fleet.PlannedMachine{Code: job.CodeSectorSize, Refused: "4096"}},
		"it holds the image": {inv: hasDisks(good), before: func(r *room, a *agent) { r.deployAll(); a.claim(); a.finish() },
			want: fleet.PlannedMachine{Disk: &good, Now: fleet.OnDisk{Kind: "image", Image: "debian:1"}, Wait: queue.WaitsMachine}},
		"it holds the image and keeps half": {inv: hasDisks(good), order: fleet.Order{Options: job.Options{Keep: []int{2}}},
			want: fleet.PlannedMachine{Disk: &good, Now: fleet.OnDisk{Kind: "unknown"}, Fetched: 100, Decoded: 200, AtMost: true, Wait: queue.WaitsMachine, Notes: []fleet.PlanNote{{Code: fleet.NoteKeep}}}},
		"what it holds is of another disk": {inv: hasDisks(diskOf("sda", "D9", "sata", 1<<30)), before: func(r *room, a *agent) { r.deployAll(); a.claim(); a.finish() },
			want: fleet.PlannedMachine{Disk: new(diskOf("sda", "D9", "sata", 1<<30)), Now: fleet.OnDisk{Kind: "unknown"}, Fetched: 1100, Decoded: 2200, AtMost: true, Wait: queue.WaitsMachine}},
		"half of it was written": {inv: hasDisks(diskOf("vda", "", "virtio", 1<<30)), before: func(r *room, a *agent) {
			r.deployAll()
			a.claim()
			if _, err := r.Report(r.t.Context(), a.caller, job.Report{Job: a.job.ID, Epoch: a.job.Epoch, Phase: job.PhaseContent, State: job.Running, Written: 7, Disk: "vda"}); err != nil {
				r.t.Fatal(err)
			}
			r.clock.add(time.Second)
			if _, err := r.Report(r.t.Context(), a.caller, job.Report{Job: a.job.ID, Epoch: a.job.Epoch, State: job.Failed, Code: "write-error", Reason: "x", Written: 7, Disk: "vda"}); err != nil {
				r.t.Fatal(err)
			}
		}, want: fleet.PlannedMachine{Disk: new(diskOf("vda", "", "virtio", 1<<30)), Now: fleet.OnDisk{Kind: "part", Image: "debian:1"}, Fetched: 1100, Decoded: 2200, AtMost: true, Wait: queue.WaitsMachine}},
		"it is at work": {inv: hasDisks(good), before: claimed,
			want: fleet.PlannedMachine{Disk: &good, Now: fleet.OnDisk{Kind: "unknown"}, Fetched: 1100, Decoded: 2200, AtMost: true, Wait: queue.WaitsTurn, Waits: "of the same machine"}},
		"a job makes way": {inv: hasDisks(good), before: func(r *room, a *agent) { r.deployAll() },
			want: fleet.PlannedMachine{Disk: &good, Now: fleet.OnDisk{Kind: "unknown"}, Fetched: 1100, Decoded: 2200, AtMost: true, Wait: queue.WaitsMachine, Notes: []fleet.PlanNote{{Code: fleet.NoteMakesWay}}}},
		"a wipe would take away what is kept": {inv: hasDisks(good), order: fleet.Order{Options: job.Options{Keep: []int{2}}}, before: func(r *room, a *agent) {
			r.work(fleet.WorkOrder{Kind: job.WipeDisk, Machines: []string{a.mac}, Confirm: "wipe"})
		}, want: fleet.PlannedMachine{Code: fleet.CodeWipeFirst, Refused: "a wipe that was ordered before"}},
		"it boots its own disk": {inv: hasDisks(good), before: func(r *room, a *agent) {
			if _, err := r.EditMachine(r.t.Context(), a.mac, 0, fleet.MachineOrder{Boot: &fleet.BootOverride{To: fleet.BootLocal}}); err != nil {
				r.t.Fatal(err)
			}
		}, want: fleet.PlannedMachine{Disk: &good, Now: fleet.OnDisk{Kind: "unknown"}, Fetched: 1100, Decoded: 2200, AtMost: true, Wait: queue.WaitsLocal, Waits: "by a person's word"}},
		"a time": {inv: hasDisks(good), order: fleet.Order{NotBefore: time.Date(2026, 5, 4, 18, 0, 0, 0, time.UTC)},
			want: fleet.PlannedMachine{Disk: &good, Now: fleet.OnDisk{Kind: "unknown"}, Fetched: 1100, Decoded: 2200, AtMost: true, Wait: queue.WaitsTime, Waits: "18:00"}},
		"seed nodes first": {inv: hasDisks(good), order: fleet.Order{Preload: 0.2},
			want: fleet.PlannedMachine{Disk: &good, Now: fleet.OnDisk{Kind: "unknown"}, Fetched: 1100, Decoded: 2200, AtMost: true, Wait: queue.WaitsPreload, Waits: "20 %"}},
		"it is woken": {inv: hasDisks(good), order: fleet.Order{Wake: true},
			want: fleet.PlannedMachine{Disk: &good, Now: fleet.OnDisk{Kind: "unknown"}, Fetched: 1100, Decoded: 2200, AtMost: true, Wait: queue.WaitsMachine, Waits: "is woken"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newWeighedRoom(t, fleet.AdmitAuto)
			a := r.boot(macA, c.inv)
			if c.before != nil {
				c.before(r, a)
			}
			jobs, events := len(r.Jobs()), len(r.events())
			c.order.Image, c.order.Machines = "debian", []string{macA}
			p, err := r.Plan(t.Context(), c.order)
			if err != nil || len(p.Machines) != 1 {
				t.Fatalf("%+v, %v", p, err)
			}
			samePlan(t, p.Machines[0], c.want)
			if p.Written+p.Refused != 1 || (p.Refused == 1) != (c.want.Code != "") || p.Fetched != c.want.Fetched || p.AtMost != c.want.AtMost {
				t.Errorf("sums %+v", p)
			}
			if len(r.Jobs()) != jobs || len(r.events()) != events || len(r.Deployments()) > 1 {
				t.Error("the plan changed something")
			}
		})
	}
}

func samePlan(t *testing.T, got, want fleet.PlannedMachine) {
	t.Helper()
	if (got.Disk == nil) != (want.Disk == nil) || got.Disk != nil && *got.Disk != *want.Disk {
		t.Errorf("disk %+v, want %+v", got.Disk, want.Disk)
	}
	if want.Code == "" && (got.Now.Kind != want.Now.Kind || got.Now.Image != want.Now.Image || got.Now.Since.IsZero() != (want.Now.Kind == "unknown")) {
		t.Errorf("on the disk %+v, want %+v", got.Now, want.Now)
	}
	if got.Fetched != want.Fetched || got.Decoded != want.Decoded || got.AtMost != want.AtMost {
		t.Errorf("fetched %d (%d decoded, at most: %v), want %d (%d, %v)", got.Fetched, got.Decoded, got.AtMost, want.Fetched, want.Decoded, want.AtMost)
	}
	if got.Code != want.Code || got.Wait != want.Wait || !strings.Contains(got.Refused, want.Refused) || (got.Refused == "") != (want.Refused == "") || !strings.Contains(got.Waits, want.Waits) {
		t.Errorf("refused %q (%s), waits %q (%s); want %q (%s), %q (%s)", got.Refused, got.Code, got.Waits, got.Wait, want.Refused, want.Code, want.Waits, want.Wait)
	}
	for _, n := range want.Notes {
		if !slices.ContainsFunc(got.Notes, func(o fleet.PlanNote) bool { return o.Code == n.Code && o.Text != "" }) {
			t.Errorf("notes %+v, want %s", got.Notes, n.Code)
		}
	}
}

func TestPlanOfMachinesThatAreNotAdmitted(t *testing.T) {
	r := newWeighedRoom(t, fleet.AdmitAsk)
	r.admitted(macA, hasDisks(diskOf("sda", "D1", "sata", 1<<30)))
	r.boot(macB, invB)
	p, err := r.Plan(t.Context(), fleet.Order{Image: "debian", Machines: []string{macA, macB}})
	if err != nil || p.Written != 1 || p.Refused != 1 || p.Fetched != 1100 {
		t.Fatalf("%+v, %v", p, err)
	}
	for _, m := range p.Machines {
		if m.MAC == macB && (m.Code != fleet.CodeNotAdmitted || m.Disk != nil || m.Waits != "") {
			t.Errorf("%+v", m)
		}
	}
	if _, err := r.Plan(fleet.As(t.Context(), fleet.Actor{Name: "v", Role: fleet.RoleViewer}), fleet.Order{Image: "debian", All: true}); code(t, err) != fleet.CodeForbidden {
		t.Errorf("a viewer: %v", err)
	}
	if _, err := r.Plan(t.Context(), fleet.Order{Image: "debian", Machines: []string{"nobody"}}); code(t, err) != fleet.CodeMachineUnknown {
		t.Errorf("an unknown machine: %v", err)
	}
}

// TestPlanKnowsTheLimits: of two machines that are there one begins, since the site lets one be at work.
func TestPlanKnowsTheLimits(t *testing.T) {
	r := newWeighedRoom(t, fleet.AdmitAuto)
	if _, err := r.EditSettings(t.Context(), 0, fleet.SettingsOrder{Limit: new(1)}); err != nil {
		t.Fatal(err)
	}
	r.machines(2, "")
	p, err := r.Plan(t.Context(), fleet.Order{Image: "debian", All: true, Wake: true})
	if err != nil || p.Refused != 2 {
		t.Fatalf("machines without disks: %+v, %v", p, err)
	}
	for i, mac := range []string{macA, macB} {
		inv := hasDisks(diskOf("sda", "D1", "sata", 1<<30))
		inv.UUID, inv.Serial, inv.NICs = []string{invA.UUID, invB.UUID}[i], mac, []job.NIC{{MAC: mac}}
		inv.Disks[0].Serial = mac
		r.boot(mac, inv)
	}
	if p, err = r.Plan(t.Context(), fleet.Order{Image: "debian", Machines: []string{macA, macB}, Wake: true}); err != nil {
		t.Fatal(err)
	}
	waits := map[string]int{}
	for _, m := range p.Machines {
		waits[m.Wait]++
	}
	if waits[queue.WaitsMachine] != 1 || waits[queue.WaitsSite] != 1 || p.Written != 2 || p.Fetched != 2200 {
		t.Errorf("%v, %+v", waits, p)
	}
}

func TestADeploymentToOneMachineNamesTheDisk(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	a := r.boot(macA, hasDisks(diskOf("sda", "D1", "sata", 1<<30), diskOf("sdb", "D2", "nvme", 1<<40)))
	other := hasDisks(diskOf("sda", "D3", "sata", 1<<30))
	other.UUID, other.Serial, other.NICs = "11111111-2222-3333-4444-555555555501", "SERIAL-B", []job.NIC{{Name: "eth0", MAC: macB}}
	b := r.boot(macB, other)
	for name, o := range map[string]fleet.Order{"all": {All: true}, "two machines": {Machines: []string{macA, macB}}, "a serial number that is none": {Machines: []string{macA}, Options: job.Options{Disk: strings.Repeat("x", 300)}}} {
		if o.Image = "debian"; o.Options.Disk == "" {
			o.Options.Disk = "D2"
		}
		if _, err := r.Deploy(t.Context(), o); err == nil {
			t.Errorf("%s: a disk is named and the order is taken", name)
		}
	}
	r.deploy(fleet.Order{Machines: []string{macA}, Options: job.Options{Disk: "D2"}})
	r.deploy(fleet.Order{Machines: []string{macB}})
	if j := a.claim(); j.DiskSerial != "D2" {
		t.Errorf("the job names disk %q", j.DiskSerial)
	}
	if j := b.claim(); j.DiskSerial != "" {
		t.Errorf("the job of the other machine names disk %q", j.DiskSerial)
	}
}
