package fleet_test

import (
	"fmt"
	"strings"
	"sync"
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
	for _, i := range []int{1, 2} {
		all.Go(func() {
			for deadline := time.Now().Add(10 * time.Second); jobs[i] == nil && time.Now().Before(deadline); {
				jobs[i] = agents[i].claim()
				if jobs[2] != nil || jobs[1] != nil {
					return
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
