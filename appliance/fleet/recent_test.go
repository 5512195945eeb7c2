package fleet_test

import (
	"reflect"
	"slices"
	"testing"
	"time"

	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
)

// Whoever looks twice a second sees all that is open, what ended since, and of each machine the job that it is shown with.
func TestJobsSince(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	a, b := r.boot(macA, invA), r.boot(macB, invB)
	ids := func(at time.Time) (list []string) {
		for _, v := range r.JobsSince(at) {
			one, err := r.Job(v.ID)
			if err != nil || !reflect.DeepEqual(*one, v) {
				t.Errorf("%v: %+v, not %+v", err, v, one)
			}
			list = append(list, v.ID)
		}
		return list
	}
	first := r.work(fleet.WorkOrder{Kind: job.InventoryOf, Machines: []string{macA}}).ID
	if err := r.Cancel(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	r.clock.add(time.Minute)
	now := r.clock.now()
	r.deployAll()
	a.claim()
	b.claim()
	of := r.jobOf(macA).ID
	if got := ids(now); slices.Contains(got, first) || !slices.Contains(got, of) || len(got) != 2 {
		t.Errorf("since now: %v", got)
	}
	if got := ids(now.Add(-time.Hour)); len(got) != 3 || got[0] != first {
		t.Errorf("since an hour ago: %v", got)
	}
	if got := ids(now.Add(time.Hour)); len(got) != 2 {
		t.Errorf("of a time to come: %v", got)
	}
}
