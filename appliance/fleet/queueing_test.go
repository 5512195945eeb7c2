package fleet_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
)

// machines boots n machines as far as their inventory; all are in the group, if one is given.
func (r *room) machines(n int, group string) (list []*agent) {
	r.t.Helper()
	for i := range n {
		mac := fmt.Sprintf("52:54:00:00:01:%02x", i)
		a := r.boot(mac, job.Inventory{UUID: fmt.Sprintf("11111111-2222-3333-4444-5555555555%02x", i), Serial: fmt.Sprintf("SERIAL-%d", i),
			Firmware: "uefi", NICs: []job.NIC{{Name: "eth0", MAC: mac}}})
		if group != "" {
			if err := fleet.Join1(r.Fleet, r.t.Context(), a.me.Machine, group); err != nil {
				r.t.Fatal(err)
			}
		}
		list = append(list, a)
	}
	return list
}

func TestLimitsHoldWhileManyAskAtOnce(t *testing.T) {
	rooms, _ := newSite(t, 2)
	r := rooms[0]
	if err := fleet.Put(r.Fleet, t.Context(), &fleet.Group{ID: "room", Name: "Room", Kind: fleet.Room, Limit: 3}); err != nil {
		t.Fatal(err)
	}
	agents := r.machines(10, "room")
	r.deployAll()
	for _, other := range rooms {
		fleet.CatchUp(other.Fleet)
	}
	got := make([]*job.Job, len(agents))
	var all sync.WaitGroup
	for i, a := range agents {
		a.at(rooms[i%2])
		all.Go(func() { got[i] = a.claim() })
	}
	all.Wait()
	fleet.CatchUp(r.Fleet)
	var claimed []*agent
	for i, j := range got {
		if j != nil {
			claimed = append(claimed, agents[i])
		}
	}
	if len(claimed) != 3 {
		t.Fatalf("%d machines of a group of 3 at once have a job", len(claimed))
	}
	for _, v := range r.Jobs() {
		if v.State == job.Waiting && v.Wait != "group-limit" && v.Wait != "machine" {
			t.Errorf("job %s waits for %q: %s", v.ID, v.Wait, v.Reason)
		}
		if v.State == job.Waiting && v.Reason == "" {
			t.Errorf("job %s does not say what it waits for", v.ID)
		}
	}
	for _, a := range claimed { // who ends makes room, also for those that ask elsewhere
		a.mustReport(job.PhaseContent, 1000)
		a.finish()
	}
	next := 0
	for i, a := range agents {
		if got[i] == nil && next < 3 {
			a.mustClaim()
			next++
		}
	}
}

func TestQueueSaysWhatAJobWaitsFor(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	if err := fleet.Put(r.Fleet, t.Context(), &fleet.Group{ID: "room", Name: "Room", Kind: fleet.Room, Windows: []string{"daily 18:00-20:00 UTC"}}); err != nil {
		t.Fatal(err)
	}
	a := r.machines(1, "room")[0] // it is Monday, 8:00
	r.deployAll()
	if a.claim() != nil {
		t.Fatal("a job begins outside its window")
	}
	v := r.jobOf(a.mac)
	if v.Wait != "window" || !strings.Contains(v.Reason, "until 18:00") {
		t.Fatalf("waits for %s: %s", v.Wait, v.Reason)
	}
	if got := r.powerOn(a.mac); got.Agent {
		t.Fatal("a machine whose job begins in ten hours does not boot its own disk")
	}
	r.clock.add(10 * time.Hour)
	if got := r.powerOn(a.mac); !got.Agent {
		t.Fatal("a machine whose window is open boots its own disk")
	}
	a.mustClaim()
}

func TestHigherPriorityGoesFirst(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	if err := fleet.Put(r.Fleet, t.Context(), &fleet.Settings{Limit: 1}); err != nil {
		t.Fatal(err)
	}
	agents := r.machines(3, "")
	r.deployAll()
	if agents[0].claim() == nil {
		t.Fatal("no job for the first")
	}
	urgent := r.jobOf(agents[2].mac).ID
	if err := r.Prioritise(t.Context(), urgent, 10); err != nil {
		t.Fatal(err)
	}
	// The two others ask, and are both there when the place becomes free.
	jobs := make([]*job.Job, 3)
	var all sync.WaitGroup
	var given atomic.Bool
	for _, i := range []int{1, 2} {
		all.Go(func() {
			for deadline := time.Now().Add(10 * time.Second); !given.Load() && time.Now().Before(deadline); {
				if jobs[i] = agents[i].claim(); jobs[i] != nil {
					given.Store(true)
				}
			}
		})
	}
	for fleet.Asking(r.Fleet) < 2 {
		time.Sleep(time.Millisecond)
	}
	agents[0].mustReport(job.PhaseContent, 1000)
	agents[0].finish()
	all.Wait()
	if jobs[1] != nil || jobs[2] == nil || jobs[2].ID != urgent {
		t.Fatalf("jobs %v and %v", jobs[1], jobs[2])
	}
}

func TestJobThatFailsIsTriedAgainSoOften(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	r.deployAll()
	a := r.boot(macA, invA)
	for try := 1; try <= 3; try++ {
		a.mustClaim()
		d, err := r.Report(t.Context(), a.caller, job.Report{Job: a.job.ID, Epoch: a.job.Epoch, Phase: job.PhaseContent, State: job.Failed,
			Code: "swarm-error", Reason: "no machine answers"})
		if err != nil {
			t.Fatal(err)
		}
		v := r.jobOf(macA)
		if last := try == 3; d.Again == last || (v.State == job.Failed) != last {
			t.Fatalf("after %d failures: %+v, %+v", try, d, v)
		}
		if try < 3 {
			if a.claim() != nil {
				t.Fatal("tried again at once")
			}
			if v := r.jobOf(macA); v.Wait != "start-time" || !strings.Contains(v.Reason, "no machine answers") {
				t.Fatalf("waits for %s: %s", v.Wait, v.Reason)
			}
			r.clock.add(time.Minute)
		}
	}
	again, err := r.Retry(t.Context(), a.job.ID)
	if err != nil || again.State != job.Waiting {
		t.Fatalf("%+v, %v", again, err)
	}
	if _, err := r.Retry(t.Context(), a.job.ID); err == nil {
		t.Fatal("tried again twice")
	}
	a.mustClaim()
	a.mustReport(job.PhaseContent, 1000)
	a.finish()
}

func TestRolesBoundWhatAPersonMayOrder(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	a := r.machines(1, "")[0]
	r.deployAll()
	viewer := fleet.As(t.Context(), fleet.Actor{Name: "vera", Role: fleet.RoleViewer, From: "10.0.0.9"})
	if err := r.Prioritise(viewer, r.jobOf(a.mac).ID, 5); err == nil || !strings.Contains(err.Error(), "vera has the role viewer") {
		t.Fatalf("a viewer orders: %v", err)
	}
	operator := fleet.As(t.Context(), fleet.Actor{Name: "otto", Role: fleet.RoleOperator, From: "10.0.0.9"})
	if err := r.Prioritise(operator, r.jobOf(a.mac).ID, 5); err != nil {
		t.Fatal(err)
	}
	list, err := r.Events(t.Context(), fleet.EventQuery{Actor: "otto"})
	if err != nil || len(list) != 1 || list[0].From != "10.0.0.9" || list[0].Kind != "job.priority" {
		t.Fatalf("%+v, %v", list, err)
	}
}

func TestAJobThatTheQueueHasNotSeenDoesNotBegin(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	a := r.machines(1, "")[0]
	fleet.Stall(r.Fleet)
	if _, err := r.Deploy(t.Context(), fleet.Order{Image: "debian", All: true, NotBefore: r.clock.now().Add(10 * time.Hour)}); err != nil {
		t.Fatal(err)
	}
	if j := a.claim(); j != nil {
		t.Fatalf("a job begins ten hours early: %+v", j)
	}
}

// TestRetryOfARoomGoesBackToNothingOlder: a machine that failed and has got something newer since is left alone.
func TestRetryOfARoomGoesBackToNothingOlder(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	list := r.machines(2, "")
	first, err := r.Deploy(t.Context(), fleet.Order{Image: "debian", All: true, Retries: ptr(0)})
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range list {
		a.mustClaim()
		if _, err := r.Report(t.Context(), a.caller, job.Report{Job: a.job.ID, Epoch: a.job.Epoch, State: job.Failed, Code: "write-error", Reason: "x"}); err != nil {
			t.Fatal(err)
		}
	}
	r.clock.add(time.Minute)
	if _, err := r.Deploy(t.Context(), fleet.Order{Image: "debian", Machines: []string{list[0].mac}}); err != nil {
		t.Fatal(err)
	}
	list[0].mustClaim()
	list[0].finish()
	if n, err := r.RetryFailed(t.Context(), first.ID); err != nil || n != 1 {
		t.Fatalf("%d jobs are tried again: %v", n, err)
	}
	if j := list[0].claim(); j != nil {
		t.Errorf("the machine that is done gets the older image: %+v", j)
	}
}

func TestRetryKeepsHowTheDiskIsWritten(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	a := r.machines(1, "")[0]
	options := job.Options{Keep: []int{1}, Verify: job.VerifySample, Free: job.FreeZero}
	d, err := r.Deploy(t.Context(), fleet.Order{Image: "debian", All: true, Retries: ptr(0), Options: options, Windowless: true})
	if err != nil {
		t.Fatal(err)
	}
	fail := func() {
		t.Helper()
		a.mustClaim()
		if got := fmt.Sprint(a.job.Options); got != fmt.Sprint(options) {
			t.Fatalf("the disk is written by %s", got)
		}
		directive, err := r.Report(t.Context(), a.caller, job.Report{Job: a.job.ID, Epoch: a.job.Epoch, State: job.Failed, Code: "write-error", Reason: "x"})
		if err != nil || directive.Again {
			t.Fatalf("%+v, %v", directive, err)
		}
	}
	fail()
	failed := *a.job
	if _, err := r.Retry(t.Context(), a.job.ID); err != nil {
		t.Fatal(err)
	}
	// The machine shows its failure and asks: it goes on without being started again.
	directive, err := r.Report(t.Context(), a.caller, job.Report{Job: failed.ID, Epoch: failed.Epoch, State: job.Failed, Code: "write-error", Reason: "x"})
	if err != nil || !directive.Again {
		t.Fatalf("%+v, %v", directive, err)
	}
	fail()
	if err := r.RemoveMachine(t.Context(), a.mac); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Retry(t.Context(), a.job.ID); codeOf(err) != fleet.CodeMachineUnknown {
		t.Errorf("tried again on a machine that is not there: %v", err)
	}
	if n, err := r.RetryFailed(t.Context(), d.ID); n != 0 || codeOf(err) != fleet.CodeInvalid || !strings.Contains(err.Error(), "was removed") {
		t.Errorf("%d, %v", n, err)
	}
}

func TestAFailureWhoseAnswerWasLostCountsOnce(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	r.deployAll()
	a := r.boot(macA, invA)
	a.mustClaim()
	for range 5 {
		d, err := r.Report(t.Context(), a.caller, job.Report{Job: a.job.ID, Epoch: a.job.Epoch, Phase: job.PhaseContent, State: job.Failed, Code: "swarm-error", Reason: "x"})
		if err != nil || !d.Again {
			t.Fatalf("%+v, %v", d, err)
		}
	}
	if v := r.jobOf(macA); v.State != job.Waiting || !strings.Contains(v.Reason, "1 of 2") {
		t.Fatalf("%s: %s", v.State, v.Reason)
	}
}

func TestADiskThatIsHalfWrittenIsFinishedOutsideTheWindow(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	if err := fleet.Put(r.Fleet, t.Context(), &fleet.Group{ID: "room", Name: "Room", Kind: fleet.Room, Windows: []string{"daily 08:00-09:00 UTC"}}); err != nil {
		t.Fatal(err)
	}
	a := r.machines(1, "room")[0] // it is Monday, 8:00
	r.deployAll()
	a.mustClaim()
	a.mustReport(job.PhaseContent, 500)
	r.clock.add(3 * time.Hour)
	if err := fleet.Tidy(r.Fleet, t.Context()); err != nil {
		t.Fatal(err)
	}
	if v := r.jobOf(a.mac); v.State != job.Waiting {
		t.Fatalf("job of a silent machine is %s", v.State)
	}
	if got := r.powerOn(a.mac); !got.Agent {
		t.Fatal("the machine boots half an image")
	}
	a.mustClaim()
}

func TestAMachineThatIsNotAdmittedTakesNoPlace(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	if err := fleet.Put(r.Fleet, t.Context(), &fleet.Settings{Limit: 1}); err != nil {
		t.Fatal(err)
	}
	agents := r.machines(2, "")
	r.deployAll()
	m := *fleet.MachinesByID(r.Fleet)[agents[0].me.Machine]
	m.Admitted, m.Code = false, "K7PQ-4XWM"
	if err := fleet.Put(r.Fleet, t.Context(), &m); err != nil {
		t.Fatal(err)
	}
	if err := r.Prioritise(t.Context(), r.jobOf(agents[0].mac).ID, 10); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	done := make(chan struct{})
	all.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			if agents[0].claim() != nil {
				t.Error("a machine that is not admitted begins")
			}
		}
	})
	for fleet.Asking(r.Fleet) == 0 {
		time.Sleep(time.Millisecond)
	}
	deadline := time.Now().Add(10 * time.Second)
	for agents[1].claim() == nil && time.Now().Before(deadline) {
	}
	close(done)
	all.Wait()
	if agents[1].job == nil {
		t.Error("the place is kept for a machine that may not take it")
	}
	if v := r.jobOf(agents[0].mac); v.Wait != "admission" {
		t.Errorf("it waits for %s: %s", v.Wait, v.Reason)
	}
}

func TestADeploymentWaitsForWhatSeedNodesFetchFirst(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	v := newVisitor(r)
	if err := v.join(newToken(r, job.RoleSeed, "", 1), job.RoleSeed, "debian"); err != nil {
		t.Fatal(err)
	}
	node, err := r.AuthenticateReader(v.cert)
	if err != nil {
		t.Fatal(err)
	}
	tell := func(held int64) {
		t.Helper()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		report := job.NodeReport{Name: "node", Port: 6881}
		if held >= 0 {
			report.Images = []job.NodeImage{{Image: r.lib.image.Digest, ImageName: "debian:1", InfoHash: r.lib.image.InfoHash, Total: 1000, Wanted: 100, Held: held}}
		}
		if _, err := r.NodeReport(ctx, node, visitorAddr, report); err != nil {
			t.Fatal(err)
		}
		if err := fleet.Tidy(r.Fleet, t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	a := r.machines(1, "")[0]
	tell(-1)
	if _, err := r.Deploy(t.Context(), fleet.Order{Image: "debian", All: true, Preload: 0.1}); err != nil {
		t.Fatal(err)
	}
	for _, held := range []int64{-1, 0, 99} {
		tell(held)
		if a.claim() != nil {
			t.Fatalf("begins while the node holds %d of 100", held)
		}
		if v := r.jobOf(a.mac); v.Wait != "preload" {
			t.Fatalf("waits for %s: %s", v.Wait, v.Reason)
		}
	}
	tell(100)
	a.mustClaim()
}

func TestOldJobsLeaveTheMemory(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	agents := r.machines(2, "")
	if _, err := r.Deploy(t.Context(), fleet.Order{Image: "debian", Machines: []string{agents[0].mac}}); err != nil {
		t.Fatal(err)
	}
	agents[0].mustClaim()
	agents[0].finish()
	r.deployAll() // open: its jobs say who had it
	agents[1].mustClaim()
	agents[1].finish()
	r.clock.add(31 * 24 * time.Hour)
	fleet.Forget(r.Fleet, r.clock.now())
	list := r.Jobs()
	if len(list) != 2 || list[0].Machine == list[1].Machine {
		t.Fatalf("%d jobs: %+v", len(list), list)
	}
	r.kill()
	if n := len(r.Jobs()); n != 2 {
		t.Errorf("%d jobs after a restart", n)
	}
}
