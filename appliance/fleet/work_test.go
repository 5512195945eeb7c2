package fleet_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
	"seedbed/images"
)

// holding returns a room with a machine that holds the image.
func holding(t *testing.T) (*room, *agent) {
	t.Helper()
	r := newRoom(t, fleet.AdmitAuto)
	r.deployAll()
	a := r.boot(macA, invA)
	a.claim()
	a.finish()
	for _, d := range r.Deployments() {
		if err := r.CloseDeployment(t.Context(), d.ID); err != nil {
			t.Fatal(err)
		}
	}
	r.clock.add(time.Minute)
	return r, a
}

func (r *room) work(o fleet.WorkOrder) fleet.JobView {
	r.t.Helper()
	list, err := r.Work(r.t.Context(), o)
	if err != nil || len(list) != 1 {
		r.t.Fatalf("%d jobs: %v", len(list), err)
	}
	return list[0]
}

// view is a job as it is shown now.
func (r *room) view(id string) fleet.JobView {
	r.t.Helper()
	for _, j := range r.Jobs() {
		if j.ID == id {
			return j
		}
	}
	r.t.Fatalf("no job %s", id)
	return fleet.JobView{}
}

func TestWorkIsRefusedWhereItCannotBeOrMustNotBe(t *testing.T) {
	r, _ := holding(t)
	r.boot(macB, invB) // holds nothing
	if _, err := r.NewGroup(t.Context(), fleet.GroupOrder{Name: "empty"}); err != nil {
		t.Fatal(err)
	}
	a, both := []string{macA}, []string{macA, macB}
	viewer := fleet.As(t.Context(), fleet.Actor{Name: "v", Role: fleet.RoleViewer})
	for name, c := range map[string]struct {
		ctx  context.Context
		o    fleet.WorkOrder
		code string
	}{
		"viewer":               {viewer, fleet.WorkOrder{Kind: job.VerifyDisk, Machines: a}, fleet.CodeForbidden},
		"viewer who wipes":     {viewer, fleet.WorkOrder{Kind: job.WipeDisk, Machines: a, Confirm: "wipe"}, fleet.CodeForbidden},
		"no such kind":         {nil, fleet.WorkOrder{Kind: "burn", Machines: a}, fleet.CodeInvalid},
		"deployment":           {nil, fleet.WorkOrder{Kind: job.Deploy, Machines: a}, fleet.CodeInvalid},
		"no machine":           {nil, fleet.WorkOrder{Kind: job.VerifyDisk}, fleet.CodeInvalid},
		"unknown machine":      {nil, fleet.WorkOrder{Kind: job.VerifyDisk, Machines: []string{"nobody"}}, fleet.CodeMachineUnknown},
		"empty group":          {nil, fleet.WorkOrder{Kind: job.VerifyDisk, Groups: []string{"empty"}}, fleet.CodeInvalid},
		"unconfirmed wipe":     {nil, fleet.WorkOrder{Kind: job.WipeDisk, Machines: a}, fleet.CodeUnconfirmed},
		"wrongly confirmed":    {nil, fleet.WorkOrder{Kind: job.WipeDisk, Machines: a, Confirm: "yes"}, fleet.CodeUnconfirmed},
		"no such method":       {nil, fleet.WorkOrder{Kind: job.WipeDisk, Machines: a, Confirm: "wipe", Method: "burn"}, fleet.CodeInvalid},
		"method of a verify":   {nil, fleet.WorkOrder{Kind: job.VerifyDisk, Machines: a, Method: job.WipeZero}, fleet.CodeInvalid},
		"image of a wipe":      {nil, fleet.WorkOrder{Kind: job.WipeDisk, Machines: a, Confirm: "wipe", Image: "debian"}, fleet.CodeInvalid},
		"one disk of two":      {nil, fleet.WorkOrder{Kind: job.WipeDisk, Machines: both, Confirm: "wipe", DiskSerial: "D1"}, fleet.CodeInvalid},
		"no such image":        {nil, fleet.WorkOrder{Kind: job.RepairDisk, Machines: a, Image: "windows"}, fleet.CodeImageUnknown},
		"one holds nothing":    {nil, fleet.WorkOrder{Kind: job.RepairDisk, Machines: both}, fleet.CodeInvalid},
		"no such after-action": {nil, fleet.WorkOrder{Kind: job.RepairDisk, Machines: a, After: "dance"}, fleet.CodeInvalid},
		"priority":             {nil, fleet.WorkOrder{Kind: job.RepairDisk, Machines: a, Priority: 1 << 20}, fleet.CodeInvalid},
	} {
		if c.ctx == nil {
			c.ctx = t.Context()
		}
		before := len(r.Jobs())
		if _, err := r.Work(c.ctx, c.o); code(t, err) != c.code {
			t.Errorf("%s: %v, not %s", name, err, c.code)
		}
		if len(r.Jobs()) != before {
			t.Errorf("%s: a job was made", name)
		}
	}
	r.work(fleet.WorkOrder{Kind: job.VerifyDisk, Machines: a})
	if _, err := r.Work(t.Context(), fleet.WorkOrder{Kind: job.WipeDisk, Machines: a, Confirm: "wipe"}); code(t, err) != fleet.CodeMachineBusy {
		t.Errorf("a machine with a job: %v", err)
	}
	unknown := newRoom(t, fleet.AdmitAsk)
	unknown.boot(macA, invA)
	if _, err := unknown.Work(t.Context(), fleet.WorkOrder{Kind: job.InventoryOf, Machines: a}); code(t, err) != fleet.CodeInvalid {
		t.Errorf("a machine that nobody admitted: %v", err)
	}
}

func TestWipeOfAMachineWithSeveralDisksNamesOne(t *testing.T) {
	one, two := job.Disk{Name: "sda", Serial: "D1", Bus: "nvme"}, job.Disk{Name: "sdb", Serial: "D9", Bus: "sata"}
	several, stick := invA, invA
	several.Disks = []job.Disk{one, two}
	two.Bus = "usb"
	stick.Disks = []job.Disk{one, two}
	for _, c := range []struct {
		inv    job.Inventory
		serial string
		code   string
	}{{several, "", fleet.CodeAmbiguous}, {several, "D9", ""}, {stick, "", ""}} {
		r := newRoom(t, fleet.AdmitAuto)
		r.boot(macA, c.inv)
		_, err := r.Work(t.Context(), fleet.WorkOrder{Kind: job.WipeDisk, Machines: []string{macA}, Confirm: "wipe", DiskSerial: c.serial})
		if err == nil && c.code != "" || err != nil && code(t, err) != c.code {
			t.Errorf("a wipe of disk %q of %d: %v, not %s", c.serial, len(c.inv.Disks), err, c.code)
		}
		if err != nil && !strings.Contains(err.Error(), "D9") {
			t.Errorf("the refusal does not name the disks: %v", err)
		}
	}
}

func TestVerifyOfWhatWasDeployedLast(t *testing.T) {
	r, _ := holding(t)
	v := r.work(fleet.WorkOrder{Kind: job.VerifyDisk, Machines: []string{macA}, After: "halt", Priority: 5})
	if v.Kind != job.VerifyDisk || v.ImageName != "debian:1" || v.Priority != 5 || v.Work.DiskSerial != "D1" {
		t.Fatalf("view %+v", v)
	}
	if got := r.powerOn(macA); !got.Agent {
		t.Fatal("the machine does not boot the agent")
	}
	a := r.boot(macA, invA)
	j := a.claim()
	if j == nil || j.Kind != job.VerifyDisk || j.DiskSerial != "D1" || j.After != "poweroff" || j.Image != r.lib.image.Digest || j.Seeds != nil {
		t.Fatalf("job %+v", j)
	}
	if got := r.Claimed(a.caller); !slices.Equal(got, []images.Digest{r.lib.image.Digest}) {
		t.Errorf("the machine may read %v", got)
	}
	if s := r.Swarms(); len(s) != 0 {
		t.Errorf("a job that reads has the swarms %v", s)
	}
	found := &job.Finding{Damage: []job.Damage{{Partition: 2, Tiles: 3, Bytes: 3 << 16, Of: 100}}}
	rep := job.Report{Job: j.ID, Epoch: j.Epoch, Phase: job.PhaseVerify, State: job.Failed, Code: job.CodeDamaged, Reason: "3 of 100 tiles differ", Found: found}
	d, err := r.Report(t.Context(), a.caller, rep)
	if err != nil || d.Again {
		t.Fatalf("directive %+v, %v", d, err)
	}
	if v = r.view(v.ID); v.State != job.Failed || v.Code != job.CodeDamaged || v.Found == nil || v.Found.Damage[0] != found.Damage[0] {
		t.Errorf("view %+v", v)
	}
	if got := r.powerOn(macA); got.Agent {
		t.Error("a machine whose verify has ended boots the agent")
	}
	r.kill()
	if v = r.view(v.ID); v.Found == nil || v.Found.Damage[0].Tiles != 3 {
		t.Errorf("after a restart: %+v", v.Found)
	}
}

func TestRepairIsProvenAndCounted(t *testing.T) {
	r, _ := holding(t)
	v := r.work(fleet.WorkOrder{Kind: job.RepairDisk, Machines: []string{macA}})
	a := r.boot(macA, invA)
	j := a.claim()
	if j == nil || len(j.Seeds) != 1 || j.SeedFor != time.Minute || len(r.Swarms()) != 1 {
		t.Fatalf("job %+v, swarms %v", j, r.Swarms())
	}
	repaired := func(rec *job.Receipt) {
		rec.Kind, rec.Result, rec.Found = job.RepairDisk, "repaired", &job.Finding{Table: true, Damage: []job.Damage{{Partition: 2, Tiles: 7, Bytes: 70, Of: 9}}}
	}
	for name, change := range map[string]func(*job.Receipt){
		"of a deployment": nil,
		"of a wipe":       func(rec *job.Receipt) { rec.Kind = job.WipeDisk },
		"other root":      func(rec *job.Receipt) { repaired(rec); rec.Roots[1].Root[0] ^= 1 },
		"less":            func(rec *job.Receipt) { repaired(rec); rec.Roots = rec.Roots[:1] },
		"unproven": func(rec *job.Receipt) {
			repaired(rec)
			rec.Roots = rec.Roots[:1]
			rec.Unproven = []job.Unproven{{Number: 2}}
		},
	} {
		if _, err := r.Receipt(t.Context(), a.caller, a.receipt(change)); code(t, err) != fleet.CodeReceiptWrong {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := r.Receipt(t.Context(), a.caller, a.receipt(repaired)); err != nil {
		t.Fatal(err)
	}
	v = r.view(v.ID)
	if v.State != job.Succeeded || v.Found == nil || !v.Found.Table || !strings.Contains(v.Reason, "7 tiles (70 bytes) were repaired, and the partition table") {
		t.Errorf("view %+v", v)
	}
	if m, err := r.Machine(macA); err != nil || m.Deployed == nil || m.Deployed.Job != v.ID {
		t.Errorf("the machine holds %+v, %v", m.Deployed, err)
	}
	a.mustReport(job.PhaseReboot, 1)
	if v = r.view(v.ID); v.Found == nil || v.Found.Damage[0].Tiles != 7 {
		t.Errorf("when the machine reported on, what it had repaired was %+v", v.Found)
	}
}

func TestWipedMachineHoldsNothing(t *testing.T) {
	r, _ := holding(t)
	v := r.work(fleet.WorkOrder{Kind: job.WipeDisk, Machines: []string{macA}, Confirm: "wipe", Method: job.WipeDiscard, DiskSerial: "D1", After: "stay"})
	a := r.boot(macA, invA)
	j := a.claim()
	if j == nil || j.Method != job.WipeDiscard || j.DiskSerial != "D1" || j.After != "stay" || !j.Image.IsZero() || len(r.Claimed(a.caller)) != 0 {
		t.Fatalf("job %+v", j)
	}
	wiped := func(rec *job.Receipt) {
		rec.Kind, rec.Result, rec.Roots = job.WipeDisk, "wiped", nil
		rec.Wiped = &job.Wiped{Asked: job.WipeDiscard, Done: job.WipeZero, Why: "the disk does not know the request", Samples: 1026, Bytes: 1}
	}
	for name, change := range map[string]func(*job.Receipt){
		"nothing done":   func(rec *job.Receipt) { wiped(rec); rec.Wiped = nil },
		"nothing read":   func(rec *job.Receipt) { wiped(rec); rec.Wiped.Samples = 0 },
		"other method":   func(rec *job.Receipt) { wiped(rec); rec.Wiped.Asked = job.WipeZero },
		"unknown method": func(rec *job.Receipt) { wiped(rec); rec.Wiped.Done = "burn" },
		"with roots":     func(rec *job.Receipt) { wiped(rec); rec.Roots = []job.PartitionRoot{{Number: 1}} },
		"of an image":    func(rec *job.Receipt) { wiped(rec); rec.Image = r.lib.image.Digest },
	} {
		if _, err := r.Receipt(t.Context(), a.caller, a.receipt(change)); code(t, err) != fleet.CodeReceiptWrong {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := r.Receipt(t.Context(), a.caller, a.receipt(wiped)); err != nil {
		t.Fatal(err)
	}
	v = r.view(v.ID)
	if v.State != job.Succeeded || v.Wiped == nil || v.Wiped.Done != job.WipeZero || !strings.Contains(v.Reason, "was wiped by zero") ||
		!strings.Contains(v.Reason, "not by discard") {
		t.Errorf("view %+v", v)
	}
	if m, err := r.Machine(macA); err != nil || m.Deployed != nil {
		t.Errorf("the machine holds %+v, %v", m.Deployed, err)
	}
	if _, err := r.Work(t.Context(), fleet.WorkOrder{Kind: job.VerifyDisk, Machines: []string{macA}}); code(t, err) != fleet.CodeInvalid {
		t.Errorf("a wiped disk is compared with nothing: %v", err)
	}
}

func TestInventoryEndsWithItsReceipt(t *testing.T) {
	r, _ := holding(t)
	v := r.work(fleet.WorkOrder{Kind: job.InventoryOf, Machines: []string{macA}})
	a := r.boot(macA, invA)
	if j := a.claim(); j == nil || j.Kind != job.InventoryOf {
		t.Fatalf("job %+v", j)
	}
	if _, err := r.Receipt(t.Context(), a.caller, a.receipt(func(rec *job.Receipt) { rec.Kind, rec.Roots, rec.DiskLength = job.InventoryOf, nil, 0 })); err != nil {
		t.Fatal(err)
	}
	if v = r.view(v.ID); v.State != job.Succeeded {
		t.Errorf("view %+v", v)
	}
	if m, err := r.Machine(macA); err != nil || m.Deployed == nil || m.Deployed.Job == v.ID {
		t.Errorf("the machine holds %+v, %v", m.Deployed, err)
	}
}

// TestReceiptProvesWhatTheDeploymentAsksFor: the roots of what was read back, and the names of the rest.
func TestReceiptProvesWhatTheDeploymentAsksFor(t *testing.T) {
	first := func(rec *job.Receipt) { rec.Roots = rec.Roots[:1] }
	none := func(rec *job.Receipt) {
		rec.Level, rec.Roots, rec.Unproven = job.VerifyNone, nil, []job.Unproven{{Number: 1, Total: 10}, {Number: 2, Total: 20}}
	}
	for _, c := range []struct {
		name       string
		options    job.Options
		change     func(*job.Receipt)
		refused    bool
		unverified bool
	}{
		{"all of a full one", job.Options{}, nil, false, false},
		{"half of a full one", job.Options{}, func(rec *job.Receipt) { first(rec); rec.Unproven = []job.Unproven{{Number: 2}} }, true, false},
		{"none in place of full", job.Options{}, none, true, false},
		{"none", job.Options{Verify: job.VerifyNone}, none, false, true},
		{"none that proves all", job.Options{Verify: job.VerifyNone}, func(rec *job.Receipt) { rec.Level = job.VerifyNone }, false, false},
		{"none that says full", job.Options{Verify: job.VerifyNone}, nil, true, false},
		{"none that leaves one out", job.Options{Verify: job.VerifyNone}, func(rec *job.Receipt) { none(rec); rec.Unproven = rec.Unproven[:1] }, true, false},
		{"sample with a wrong root", job.Options{Verify: job.VerifySample}, func(rec *job.Receipt) {
			first(rec)
			rec.Level, rec.Roots[0].Root[3], rec.Unproven = job.VerifySample, 9, []job.Unproven{{Number: 2}}
		}, true, false},
		{"sample", job.Options{Verify: job.VerifySample}, func(rec *job.Receipt) {
			first(rec)
			rec.Level, rec.Unproven = job.VerifySample, []job.Unproven{{Number: 2, Proven: 1, Total: 16}}
		}, false, true},
		{"kept", job.Options{Keep: []int{2}}, func(rec *job.Receipt) { first(rec); rec.Kept = []int{2} }, false, false},
		{"kept and not said", job.Options{Keep: []int{2}}, first, true, false},
		{"kept and written", job.Options{Keep: []int{2}}, func(rec *job.Receipt) { rec.Kept = []int{2} }, true, false},
		{"written in place of kept", job.Options{}, func(rec *job.Receipt) { first(rec); rec.Kept = []int{2} }, true, false},
		{"one twice", job.Options{}, func(rec *job.Receipt) { rec.Roots = append(rec.Roots, rec.Roots[1]) }, true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRoom(t, fleet.AdmitAuto)
			r.powerOn(macA)
			if _, err := r.Deploy(t.Context(), fleet.Order{Image: "debian", Machines: []string{macA}, Options: c.options}); err != nil {
				t.Fatal(err)
			}
			a := r.boot(macA, invA)
			if j := a.claim(); j == nil || !slices.Equal(j.Options.Keep, c.options.Keep) {
				t.Fatalf("job %+v", j)
			}
			_, err := r.Receipt(t.Context(), a.caller, a.receipt(c.change))
			if got := code(t, err); got != map[bool]string{true: fleet.CodeReceiptWrong}[c.refused] {
				t.Fatal(err)
			}
			if c.refused {
				return
			}
			v := r.jobOf(macA)
			m, err := r.Machine(macA)
			if err != nil || v.Unverified != c.unverified || m.Deployed.Unverified != c.unverified || strings.Contains(v.Reason, "unverified") != c.unverified {
				t.Errorf("view %+v, machine holds %+v, %v", v, m.Deployed, err)
			}
			if c.unverified && !r.said("unverified") {
				t.Error("no event says that the disk is unverified")
			}
		})
	}
}

// said reports whether an event has a text.
func (r *room) said(text string) bool {
	r.t.Helper()
	list, err := r.Events(r.t.Context(), fleet.EventQuery{})
	if err != nil {
		r.t.Fatal(err)
	}
	return slices.ContainsFunc(list, func(e fleet.Event) bool { return strings.Contains(e.Text, text) })
}

func TestRetryOfADeploymentKeepsWhatItIsToKeep(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	r.powerOn(macA)
	if _, err := r.Deploy(t.Context(), fleet.Order{Image: "debian", Machines: []string{macA}, Options: job.Options{Keep: []int{2}}}); err != nil {
		t.Fatal(err)
	}
	a := r.boot(macA, invA)
	a.claim()
	if _, err := r.Report(t.Context(), a.caller, job.Report{Job: a.job.ID, Epoch: 1, Phase: job.PhaseContent, State: job.Failed, Code: "disk-error", Reason: "x"}); err != nil {
		t.Fatal(err)
	}
	v, err := r.Retry(t.Context(), a.job.ID)
	if err != nil || !slices.Equal(v.Options.Keep, []int{2}) {
		t.Fatalf("a retry that would write everything: %+v, %v", v, err)
	}
	w := r.boot(macA, invA)
	if j := w.claim(); j == nil || !slices.Equal(j.Options.Keep, []int{2}) {
		t.Fatalf("job %+v", j)
	}
}

func TestMachineServesUntilTheLastOfItsDeploymentIsDone(t *testing.T) {
	for _, until := range []bool{false, true} {
		r := newRoom(t, fleet.AdmitAuto)
		r.powerOn(macA)
		r.powerOn(macB)
		if _, err := r.Deploy(t.Context(), fleet.Order{Image: "debian", Machines: []string{macA, macB}, SeedUntilDone: until}); err != nil {
			t.Fatal(err)
		}
		a := r.boot(macA, invA)
		if j := a.claim(); (j.SeedFor > time.Hour) != until {
			t.Errorf("until done %v: a machine serves for %v", until, j.SeedFor)
		}
		a.finish()
		r.clock.add(time.Hour) // the other one is not switched on
		if d := a.mustReport(job.PhaseSeed, 1000); d.Release == until {
			t.Errorf("until done %v: %+v while the other machine is away", until, d)
		}
		b := r.boot(macB, invB)
		b.claim()
		if d := a.mustReport(job.PhaseSeed, 1000); d.Release {
			t.Errorf("until done %v: %+v while the other machine is at work", until, d)
		}
		b.mustReport(job.PhaseVerify, 1000)
		if d := a.mustReport(job.PhaseSeed, 1000); d.Release == until {
			t.Errorf("until done %v: %+v while the other machine verifies", until, d)
		}
		b.finish()
		if d := a.mustReport(job.PhaseSeed, 1000); !d.Release {
			t.Errorf("until done %v: %+v when all are done", until, d)
		}
	}
}

func TestMachineThatAsksIsToldWhatItsJobWaitsFor(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	limit := 1
	if _, err := r.EditSettings(t.Context(), 0, fleet.SettingsOrder{Limit: &limit}); err != nil {
		t.Fatal(err)
	}
	r.deployAll()
	a, b := r.boot(macA, invA), r.boot(macB, invB)
	a.claim()
	if b.claim(); b.job != nil || !strings.Contains(b.waits, "1 of 1 machines of the site are at work") {
		t.Fatalf("job %+v, waits %q", b.job, b.waits)
	}
	id := r.jobOf(macB).ID
	if err := r.Pause(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if b.claim(); b.job != nil || b.waits != "" {
		t.Errorf("a machine whose job a person paused waits for %q", b.waits)
	}
	if err := r.Cancel(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if b.claim(); b.job != nil || b.waits != "" {
		t.Errorf("a machine without a job waits for %q", b.waits)
	}
}

// TestGroupThatIsKeptCleanIsRepairedOnceAtEveryBoot and boots its disk between.
func TestGroupThatIsKeptCleanIsRepairedOnceAtEveryBoot(t *testing.T) {
	r, _ := holding(t)
	yes := true
	if _, err := r.NewGroup(t.Context(), fleet.GroupOrder{Name: "Lab", KeepClean: &yes}); err != nil {
		t.Fatal(err)
	}
	r.boot(macB, invB) // holds nothing: it is never written by a policy
	if _, err := r.GroupMachines(t.Context(), "lab", []string{macA, macB}, true); err != nil {
		t.Fatal(err)
	}
	local := func() {
		t.Helper()
		if err := r.Sighted(t.Context(), fleet.Sighting{MAC: macA, Stage: "local"}); err != nil {
			t.Fatal(err)
		}
	}
	repairs := func() (list []fleet.JobView) {
		for _, j := range r.Jobs() {
			if j.Kind == job.RepairDisk {
				list = append(list, j)
			}
		}
		return list
	}
	for boot := 1; boot <= 3; boot++ {
		r.clock.add(10 * time.Minute)
		for range 3 { // loader, script, token
			if got := r.powerOn(macA); !got.Agent {
				t.Fatalf("boot %d: the machine boots %+v", boot, got)
			}
		}
		if n := len(repairs()); n != boot {
			t.Fatalf("boot %d: %d repairs", boot, n)
		}
		a := r.boot(macA, invA)
		j := a.claim()
		if j == nil || j.Kind != job.RepairDisk || j.DiskSerial != "D1" || j.After != "reboot" || j.Image != r.lib.image.Digest {
			t.Fatalf("boot %d: job %+v", boot, j)
		}
		if boot == 2 {
			if _, err := r.Report(t.Context(), a.caller, job.Report{Job: j.ID, Epoch: 1, Phase: job.PhaseContent, State: job.Failed, Code: "disk-error", Reason: "x"}); err != nil {
				t.Fatal(err)
			}
		} else if _, err := r.Receipt(t.Context(), a.caller, a.receipt(func(rec *job.Receipt) { rec.Kind = job.RepairDisk })); err != nil {
			t.Fatal(err)
		}
		r.kill() // what was done is remembered
		for range 3 {
			r.clock.add(10 * time.Second)
			if got := r.powerOn(macA); got.Agent {
				t.Fatalf("boot %d: the machine is repaired again and again", boot)
			}
			local() // a loader may ask again in the same boot
		}
	}
	r.clock.add(10 * time.Minute)
	if err := func() error {
		_, err := r.EditMachine(t.Context(), macA, 0, fleet.MachineOrder{Boot: &fleet.BootOverride{To: fleet.BootLocal}})
		return err
	}(); err != nil {
		t.Fatal(err)
	}
	if got := r.powerOn(macA); got.Agent || len(repairs()) != 3 {
		t.Errorf("a machine that is to boot its disk: %+v, %d repairs", got, len(repairs()))
	}
	if got := r.powerOn(macB); got.Agent || len(repairs()) != 3 {
		t.Errorf("a machine that holds nothing: %+v, %d repairs", got, len(repairs()))
	}
}

// TestOnlyItsOwnWordKeepsAGroupClean: the policy overwrites what people wrote on their disks.
func TestOnlyItsOwnWordKeepsAGroupClean(t *testing.T) {
	r, _ := holding(t)
	if _, err := r.NewGroup(t.Context(), fleet.GroupOrder{Name: "Lab"}); err != nil {
		t.Fatal(err)
	}
	yes, no, none, image := true, false, "", "debian"
	for _, c := range []struct {
		o    fleet.GroupOrder
		code string
		want string // "" is off, "-" on without an image
	}{
		{fleet.GroupOrder{CleanImage: &none}, "", ""},
		{fleet.GroupOrder{CleanImage: &image}, fleet.CodeInvalid, ""},
		{fleet.GroupOrder{KeepClean: &yes, CleanImage: &image}, "", "debian"},
		{fleet.GroupOrder{KeepClean: &yes}, "", "debian"},
		{fleet.GroupOrder{CleanImage: &none}, "", "-"},
		{fleet.GroupOrder{CleanImage: &image}, "", "debian"},
		{fleet.GroupOrder{KeepClean: &no, CleanImage: &image}, "", ""},
	} {
		if _, err := r.EditGroup(t.Context(), "lab", 0, c.o); err == nil && c.code != "" || err != nil && code(t, err) != c.code {
			t.Errorf("%+v: %v, not %s", c.o, err, c.code)
		}
		g, err := r.Group("lab")
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		if g.KeepClean != nil {
			if got = g.KeepClean.Image; got == "" {
				got = "-"
			}
		}
		if got != c.want {
			t.Errorf("kept clean by %q, not %q", got, c.want)
		}
	}
}

// TestOrderOfAPersonTakesThePlaceOfAPolicysRepair that has not begun.
func TestOrderOfAPersonTakesThePlaceOfAPolicysRepair(t *testing.T) {
	r, _ := holding(t)
	yes, image := true, "debian"
	if _, err := r.NewGroup(t.Context(), fleet.GroupOrder{Name: "Lab", KeepClean: &yes, CleanImage: &image}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.GroupMachines(t.Context(), "lab", []string{macA}, true); err != nil {
		t.Fatal(err)
	}
	if got := r.powerOn(macA); !got.Agent {
		t.Fatal("the machine is not repaired")
	}
	policy := r.jobOf(macA)
	for _, j := range r.Jobs() {
		if j.Kind == job.RepairDisk {
			policy = j
		}
	}
	v := r.work(fleet.WorkOrder{Kind: job.WipeDisk, Machines: []string{macA}, Confirm: "wipe"})
	if policy = r.view(policy.ID); policy.State != job.Cancelled || v.State != job.Waiting {
		t.Errorf("the policy's job is %s, the order's %s", policy.State, v.State)
	}
	a := r.boot(macA, invA)
	if j := a.claim(); j == nil || j.Kind != job.WipeDisk {
		t.Errorf("job %+v", j)
	}
}

// TestRepairKeepsWhatTheDeploymentKept: a policy or a person that repairs a machine never writes people's data.
func TestRepairKeepsWhatTheDeploymentKept(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	r.powerOn(macA)
	if _, err := r.Deploy(t.Context(), fleet.Order{Image: "debian", Machines: []string{macA}, Options: job.Options{Keep: []int{2}}}); err != nil {
		t.Fatal(err)
	}
	kept := func(rec *job.Receipt) { rec.Roots, rec.Kept = rec.Roots[:1], []int{2} }
	a := r.boot(macA, invA)
	a.claim()
	if _, err := r.Receipt(t.Context(), a.caller, a.receipt(kept)); err != nil {
		t.Fatal(err)
	}
	yes := true
	if _, err := r.NewGroup(t.Context(), fleet.GroupOrder{Name: "Lab", KeepClean: &yes}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.GroupMachines(t.Context(), "lab", []string{macA}, true); err != nil {
		t.Fatal(err)
	}
	for range 2 { // by the policy, and again by it, from what the repair left in the records
		r.clock.add(time.Hour)
		a = r.boot(macA, invA)
		if j := a.claim(); j == nil || j.Kind != job.RepairDisk || !slices.Equal(j.Options.Keep, []int{2}) {
			t.Fatalf("job %+v", j)
		}
		if _, err := r.Receipt(t.Context(), a.caller, a.receipt(func(rec *job.Receipt) { rec.Kind = job.RepairDisk })); code(t, err) != fleet.CodeReceiptWrong {
			t.Errorf("a receipt of what was to be kept: %v", err)
		}
		if _, err := r.Receipt(t.Context(), a.caller, a.receipt(func(rec *job.Receipt) { kept(rec); rec.Kind = job.RepairDisk })); err != nil {
			t.Fatal(err)
		}
	}
	if v := r.work(fleet.WorkOrder{Kind: job.VerifyDisk, Machines: []string{macA}, Image: "debian"}); !slices.Equal(v.Options.Keep, []int{2}) {
		t.Errorf("a verify of what is kept: %+v", v)
	}
}
