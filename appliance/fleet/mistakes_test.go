package fleet_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
	"seedbed/images"
)

// fail has the agent's job fail for good.
func (a *agent) fail() {
	a.r.t.Helper()
	d, err := a.r.Report(a.r.t.Context(), a.caller, job.Report{Job: a.job.ID, Epoch: a.job.Epoch, State: job.Failed, Code: "write-error", Reason: "x"})
	if err != nil || d.Again {
		a.r.t.Fatalf("%+v, %v", d, err)
	}
}

func (r *room) deploy(o fleet.Order) *fleet.Deployment {
	r.t.Helper()
	o.Image = "debian"
	d, err := r.Deploy(r.t.Context(), o)
	if err != nil {
		r.t.Fatal(err)
	}
	return d
}

func TestAJobOfAMachineThatBootsItsOwnDiskSaysSo(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	a := r.machines(1, "")[0]
	boots := func(o fleet.BootOverride) {
		t.Helper()
		if _, err := r.EditMachine(t.Context(), a.mac, 0, fleet.MachineOrder{Boot: &o}); err != nil {
			t.Fatal(err)
		}
	}
	boots(fleet.BootOverride{To: fleet.BootLocal})
	r.deploy(fleet.Order{Machines: []string{a.mac}, Wake: true})
	if v := r.jobOf(a.mac); v.Wait != "boots-local" || !strings.Contains(v.Reason, "machine edit "+a.me.Machine+" --boot jobs") {
		t.Errorf("waits for %s: %s", v.Wait, v.Reason)
	}
	for _, o := range []fleet.BootOverride{{To: fleet.BootLocal, Once: true}, {}} {
		boots(o)
		if v := r.jobOf(a.mac); v.Wait != "machine" {
			t.Errorf("waits for %s: %s", v.Wait, v.Reason)
		}
	}
	boots(fleet.BootOverride{To: fleet.BootLocal})
	a.mustClaim() // it came all the same
}

// TestARetryTakesNothingNewerAway: a job that failed is not done again over what the machine got since, which may be what a person had
// kept; a repair of what it held already is nothing newer.
func TestARetryTakesNothingNewerAway(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	a := r.machines(1, "")[0]
	only := []string{a.mac}
	finish := func() {
		t.Helper()
		a.mustClaim()
		a.mustReport(job.PhaseContent, 1000)
		a.finish()
		r.clock.add(time.Minute)
	}
	repaired := func(kept ...int) {
		t.Helper()
		a.mustClaim()
		if _, err := r.Receipt(t.Context(), a.caller, a.receipt(func(rec *job.Receipt) {
			rec.Kind, rec.Result, rec.Kept, rec.Roots = job.RepairDisk, "right", kept, rec.Roots[:2-len(kept)]
		})); err != nil {
			t.Fatal(err)
		}
		r.clock.add(time.Minute)
	}
	r.deploy(fleet.Order{Machines: only})
	finish()
	failed := r.deploy(fleet.Order{Machines: only, Retries: ptr(0)})
	a.mustClaim()
	a.fail()
	first := a.job.ID
	r.clock.add(time.Minute)
	r.work(fleet.WorkOrder{Kind: job.RepairDisk, Machines: only})
	repaired()
	if n, err := r.RetryFailed(t.Context(), failed.ID); err != nil || n != 1 {
		t.Fatalf("after a repair of what it held before: %d, %v", n, err)
	}
	finish()

	repair := r.work(fleet.WorkOrder{Kind: job.RepairDisk, Machines: only})
	a.mustClaim()
	a.fail()
	wipe := r.work(fleet.WorkOrder{Kind: job.WipeDisk, Machines: only, Confirm: "wipe"})
	a.mustClaim()
	a.fail()
	tell := r.work(fleet.WorkOrder{Kind: job.InventoryOf, Machines: only})
	a.mustClaim()
	a.fail()
	r.clock.add(time.Minute)
	r.deploy(fleet.Order{Machines: only, Options: job.Options{Keep: []int{2}}})
	a.mustClaim()
	if _, err := r.Receipt(t.Context(), a.caller, a.receipt(func(rec *job.Receipt) { rec.Kept, rec.Roots = []int{2}, rec.Roots[:1] })); err != nil {
		t.Fatal(err)
	}
	r.clock.add(time.Minute)
	r.work(fleet.WorkOrder{Kind: job.RepairDisk, Machines: only}) // which leaves alone what was kept, and is nothing newer
	repaired(2)
	for id, confirm := range map[string]string{repair.ID: "", wipe.ID: "wipe"} {
		if _, err := r.RetryConfirmed(t.Context(), id, confirm); codeOf(err) != fleet.CodeJobEnded || !strings.Contains(err.Error(), "order it anew") {
			t.Errorf("an old job is done again over what was kept: %v", err)
		}
	}
	if _, err := r.Retry(t.Context(), first); err == nil {
		t.Error("an old deployment is done again")
	}
	if _, err := r.Retry(t.Context(), tell.ID); err != nil {
		t.Errorf("a job that writes nothing: %v", err)
	}
}

func TestARetryOfAWipeNamesNoDiskOfSeveral(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	a := r.boot(macA, invA)
	v := r.work(fleet.WorkOrder{Kind: job.WipeDisk, Machines: []string{macA}, Confirm: "wipe"})
	a.mustClaim()
	a.fail()
	several := invA
	several.Disks = []job.Disk{{Name: "sda", Serial: "D1", Bus: "nvme"}, {Name: "sdb", Serial: "D9", Bus: "sata"}}
	r.boot(macA, several)
	if _, err := r.RetryConfirmed(t.Context(), v.ID, "wipe"); codeOf(err) != fleet.CodeAmbiguous {
		t.Errorf("a wipe that names no disk is done again on a machine that has two by now: %v", err)
	}
}

// TestAWipeComesBeforeALaterDeployment: whoever has a room wiped and then deployed gets both, in this order, whatever is more urgent.
func TestAWipeComesBeforeALaterDeployment(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	a := r.machines(1, "")[0]
	wipe := r.work(fleet.WorkOrder{Kind: job.WipeDisk, Machines: []string{a.mac}, Confirm: "wipe"})
	r.clock.add(time.Minute)
	d := r.deploy(fleet.Order{All: true, Priority: 100})
	if j := a.claim(); j == nil || j.ID != wipe.ID {
		t.Fatalf("the first is %+v", j)
	}
	if _, err := r.Receipt(t.Context(), a.caller, a.receipt(func(rec *job.Receipt) {
		rec.Kind, rec.Result, rec.Roots = job.WipeDisk, "wiped", nil
		rec.Wiped = &job.Wiped{Asked: job.WipeZero, Done: job.WipeZero, Samples: 1026, Bytes: 1}
	})); err != nil {
		t.Fatal(err)
	}
	if j := a.claim(); j == nil || j.Deployment != d.ID {
		t.Fatalf("the second is %+v", j)
	}
	verify := r.machines(2, "")[1]
	if _, err := r.Deploy(t.Context(), fleet.Order{Image: "debian", Machines: []string{verify.mac}}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Work(t.Context(), fleet.WorkOrder{Kind: job.WipeDisk, Machines: []string{verify.mac}, Confirm: "wipe"}); codeOf(err) != fleet.CodeMachineBusy {
		t.Errorf("a wipe behind a deployment, which would take it away again: %v", err)
	}
}

// TestAWipeForTonightLeavesTheMachineItsDiskUntilThen, though a deployment waits behind it; and one that was paused meanwhile does not
// take away what the machine got.
func TestAWipeForTonightLeavesTheMachineItsDiskUntilThen(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	a := r.machines(1, "")[0]
	tonight := r.clock.now().Add(10 * time.Hour)
	wipe := r.work(fleet.WorkOrder{Kind: job.WipeDisk, Machines: []string{a.mac}, Confirm: "wipe", NotBefore: tonight})
	r.deploy(fleet.Order{Machines: []string{a.mac}})
	if v := r.view(wipe.ID); v.Wait != "start-time" {
		t.Errorf("the wipe waits for %s: %s", v.Wait, v.Reason)
	}
	if got := r.powerOn(a.mac); got.Agent {
		t.Error("the machine stands in its agent all day")
	}
	if a.claim() != nil || a.waits != "" {
		t.Errorf("it is told to wait: %q", a.waits)
	}
	if err := r.Pause(t.Context(), wipe.ID); err != nil {
		t.Fatal(err)
	}
	if got := r.powerOn(a.mac); !got.Agent {
		t.Error("a wipe that was paused keeps the deployment")
	}
	r.clock.add(time.Minute)
	a.mustClaim()
	a.finish()
	if err := r.Resume(t.Context(), wipe.ID); codeOf(err) != fleet.CodeInvalid {
		t.Errorf("a wipe that was forgotten goes on over what the machine got since: %v", err)
	}
	if err := r.Cancel(t.Context(), wipe.ID); err != nil {
		t.Fatal(err)
	}
}

// TestARestartForgetsNoPreload: seed nodes are heard of again some seconds after an appliance was started.
func TestARestartForgetsNoPreload(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	a := r.machines(1, "")[0]
	d := r.deploy(fleet.Order{All: true, Preload: 0.2})
	if v := r.jobOf(a.mac); v.Wait != "preload" || !strings.Contains(v.Reason, "none is there") {
		t.Errorf("waits for %s: %s", v.Wait, v.Reason)
	}
	r.clock.add(time.Hour)
	r.kill()
	a.authenticate()
	for range 3 {
		r.clock.add(9 * time.Second)
		r.tidy()
		if a.claim() != nil {
			t.Fatal("machines begin before the seed nodes could be heard of again")
		}
	}
	r.clock.add(9 * time.Second)
	r.tidy()
	a.mustClaim()
	list, err := r.Events(t.Context(), fleet.EventQuery{Deployment: d.ID, Kind: "deployment.preloaded"})
	if err != nil || len(list) != 1 || !strings.Contains(list[0].Text, "no seed node fetches debian:1 first") {
		t.Errorf("%+v, %v", list, err)
	}
	r.deploy(fleet.Order{All: true, Preload: 0.2}) // where none was there to begin with, none is waited for
	r.tidy()
	a.finish()
	a.mustClaim()
}

func TestARollbackLeavesAloneWhoGotAnotherImageSince(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	list := r.machines(2, "")
	var d *fleet.Deployment
	for range 2 {
		d = r.deploy(fleet.Order{All: true})
		for _, a := range list {
			a.mustClaim()
			a.finish()
		}
		r.clock.add(time.Minute)
	}
	m := *fleet.MachinesByID(r.Fleet)[list[0].me.Machine]
	newer := *m.Deployed
	newer.Image, newer.At, newer.Written = images.Sum([]byte("another")), r.clock.now(), r.clock.now()
	m.Deployed = &newer
	if err := fleet.Put(r.Fleet, t.Context(), &m); err != nil {
		t.Fatal(err)
	}
	made, left, err := r.Rollback(t.Context(), d.ID)
	if err != nil || left != 1 || len(made) != 1 {
		t.Fatalf("%d deployments, %d left, %v", len(made), left, err)
	}
	for _, v := range r.Jobs() {
		if v.Deployment == made[0].ID && v.Machine != list[1].me.Machine {
			t.Errorf("%s goes back though it holds something newer", v.MachineName)
		}
	}
}

// TestARefusalNamesAllThatStandInTheWay: a room of eighty is not looked through one machine at a time.
func TestARefusalNamesAllThatStandInTheWay(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	var all []string
	for _, a := range r.machines(14, "") {
		all = append(all, a.me.Machine)
	}
	r.deploy(fleet.Order{Machines: all[:2]})
	_, err := r.Work(t.Context(), fleet.WorkOrder{Kind: job.InventoryOf, Machines: all})
	if codeOf(err) != fleet.CodeMachineBusy || !strings.Contains(fmt.Sprint(err), "2 machines have a job that has not ended: ") {
		t.Errorf("%v", err)
	}
	for _, id := range all[2:] {
		m := *fleet.MachinesByID(r.Fleet)[id]
		m.Admitted = false
		if err := fleet.Put(r.Fleet, t.Context(), &m); err != nil {
			t.Fatal(err)
		}
	}
	for _, do := range []func() error{
		func() error {
			_, err := r.Deploy(t.Context(), fleet.Order{Image: "debian", Machines: all})
			return err
		},
		func() error {
			_, err := r.Work(t.Context(), fleet.WorkOrder{Kind: job.InventoryOf, Machines: all})
			return err
		},
	} {
		if err := do(); codeOf(err) != fleet.CodeInvalid || !strings.Contains(fmt.Sprint(err), "12 machines are not admitted: pc-") || !strings.Contains(fmt.Sprint(err), "and 2 more") {
			t.Errorf("%v", err)
		}
	}
}

// TestAWipeThatWasHeldTakesNothingAwayThatIsOnItsWay: the machine is at work on a later deployment, or got it after the wipe had begun.
func TestAWipeThatWasHeldTakesNothingAwayThatIsOnItsWay(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	a := r.machines(1, "")[0]
	only := []string{a.mac}
	held := func() string {
		t.Helper()
		wipe := r.work(fleet.WorkOrder{Kind: job.WipeDisk, Machines: only, Confirm: "wipe"})
		if a.claim() == nil {
			t.Fatal("no wipe to begin")
		}
		a.mustReport(job.PhaseWipe, 1)
		if err := r.Pause(t.Context(), wipe.ID); err != nil {
			t.Fatal(err)
		}
		a = r.machines(1, "")[0]
		return wipe.ID
	}
	wipe := held()
	if err := r.Resume(t.Context(), wipe); err != nil {
		t.Fatalf("a wipe that nothing overtook: %v", err)
	}
	if err := r.Pause(t.Context(), wipe); err != nil {
		t.Fatal(err)
	}
	r.clock.add(time.Minute)
	d := r.deploy(fleet.Order{Machines: only})
	if err := r.Resume(t.Context(), wipe); err != nil {
		t.Fatalf("a wipe before a deployment that has not begun: %v", err)
	}
	if err := r.Pause(t.Context(), wipe); err != nil {
		t.Fatal(err)
	}
	if j := a.claim(); j == nil || j.Deployment != d.ID {
		t.Fatalf("job %+v", j)
	}
	if err := r.Resume(t.Context(), wipe); codeOf(err) != fleet.CodeInvalid || !strings.Contains(err.Error(), "cancel the wipe") {
		t.Errorf("while the machine is at the deployment: %v", err)
	}
	a.finish()
	if err := r.Resume(t.Context(), wipe); codeOf(err) != fleet.CodeInvalid {
		t.Errorf("after the deployment: %v", err)
	}
}

// TestAWipeThatGoesFirstTakesNothingAwayThatIsToBeKept: it was ordered before, and whoever orders the deployment has forgotten it.
func TestAWipeThatGoesFirstTakesNothingAwayThatIsToBeKept(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	a := r.machines(1, "")[0]
	wipe := r.work(fleet.WorkOrder{Kind: job.WipeDisk, Machines: []string{a.mac}, Confirm: "wipe"})
	for name, o := range map[string]fleet.Order{"named": {Machines: []string{a.mac}}, "all": {All: true}} {
		o.Image, o.Options = "debian", job.Options{Keep: []int{2}}
		if _, err := r.Deploy(t.Context(), o); codeOf(err) != fleet.CodeInvalid || !strings.Contains(err.Error(), "job cancel "+wipe.ID) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := r.Pause(t.Context(), wipe.ID); err != nil {
		t.Fatal(err)
	}
	r.deploy(fleet.Order{Machines: []string{a.mac}, Options: job.Options{Keep: []int{2}}})
}
