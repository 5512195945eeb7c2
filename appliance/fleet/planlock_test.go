package fleet_test

import (
	"testing"
	"time"

	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
)

// TestADryRunDoesNotStandStillWhileMachinesReport: reports write in the memory that a dry run reads, and wait for it. The dry run is of
// machines with jobs that would make way.
func TestADryRunDoesNotStandStillWhileMachinesReport(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	a, b := r.boot(macA, invA), r.boot(macB, invB)
	if _, err := r.Deploy(t.Context(), fleet.Order{Image: "debian", Machines: []string{a.me.Machine}}); err != nil {
		t.Fatal(err)
	}
	policy := &fleet.Job{ID: "clean-1", Kind: job.RepairDisk, Machine: b.me.Machine, State: job.Waiting, Work: &fleet.Work{Policy: "Lab"}}
	if err := fleet.Put(r.Fleet, t.Context(), policy); err != nil {
		t.Fatal(err)
	}
	for what, plan := range map[string]func() error{
		"deployment": func() error {
			p, err := r.Plan(t.Context(), fleet.Order{Image: "debian", Machines: []string{a.me.Machine}})
			if err == nil && len(p.Machines) != 1 {
				t.Errorf("%+v", p)
			}
			return err
		},
		"wipe": func() error {
			p, err := r.PlanWork(as(t, "otto", fleet.RoleOperator), fleet.WorkOrder{Kind: job.WipeDisk, Machines: []string{b.me.Machine}})
			if err == nil && (len(p.Machines) != 1 || p.Machines[0].Code != job.CodeNoDisk) { // the policy's job made way
				t.Errorf("%+v", p)
			}
			return err
		},
	} {
		report := func() { fleet.WaitToWrite(r.Fleet) }
		r.clock.looked.Store(&report)
		done := make(chan error, 1)
		go func() { done <- plan() }()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("%s: %v", what, err)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("the dry run of a %s waits for itself", what)
		}
		r.clock.looked.Store(nil)
	}
}
