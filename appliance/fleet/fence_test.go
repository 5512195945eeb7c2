package fleet_test

import (
	"errors"
	"testing"

	"seedbed/appliance/fleet"
)

// An appliance that does not schedule the site any more is refused what the scheduler does, and nothing that shares its
// transaction.
func TestOnlyWhatTheSchedulerMayDoIsFenced(t *testing.T) {
	for _, inOffice := range []bool{true, false} {
		r := newRoom(t, fleet.AdmitAuto)
		if !inOffice {
			fleet.LeaveOffice(r.Fleet)
		}
		errs := fleet.Mixed(r.Fleet, t.Context(), fleet.Event{Kind: "test.scheduled", Text: "of the scheduler"}, fleet.Event{Kind: "test.other", Text: "of anybody"})
		if fenced := errors.Is(errs[0], fleet.ErrFenced); fenced == inOffice || !fenced && errs[0] != nil || errs[1] != nil {
			t.Errorf("in office %v: %v", inOffice, errs)
		}
		list, err := r.Events(t.Context(), fleet.EventQuery{Limit: 1000})
		if err != nil {
			t.Fatal(err)
		}
		told := map[string]int{}
		for _, e := range list {
			told[e.Kind]++
		}
		if (told["test.scheduled"] == 1) != inOffice || told["test.other"] != 1 {
			t.Errorf("in office %v: %v", inOffice, told)
		}
	}
}
