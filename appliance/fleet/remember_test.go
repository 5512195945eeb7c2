package fleet_test

import (
	"testing"
	"time"

	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
)

// moved is what the journal counts of a machine's job from its begin on.
func (r *room) moved(id string) int64 {
	r.t.Helper()
	list, err := r.History(r.t.Context(), fleet.JobQuery{})
	if err != nil {
		r.t.Fatal(err)
	}
	for _, j := range list {
		if j.ID == id {
			return j.Earlier.And(&j.Last).FromPeers
		}
	}
	v := r.view(id)
	return v.Earlier.FromPeers + v.FromPeers
}

// A machine that never reports again after the appliance was started anew has what it got since the last change of phase counted.
func TestBytesSinceTheLastChangeOfPhaseAreCounted(t *testing.T) {
	for what, restart := range map[string]func(*room){
		"the appliance goes on": func(*room) {},
		"it is killed":          func(r *room) { r.kill() },
		"it is killed twice":    func(r *room) { r.kill(); r.kill() },
	} {
		t.Run(what, func(t *testing.T) {
			r := newRoom(t, fleet.AdmitAuto)
			r.deployAll()
			a := r.boot(macA, invA)
			a.mustClaim()
			a.mustReport(job.PhaseContent, 10)
			a.mustReport(job.PhaseContent, 700)
			id := a.job.ID
			if err := fleet.Remember(r.Fleet, t.Context()); err != nil {
				t.Fatal(err)
			}
			restart(r)
			if got := r.moved(id); got != 700 {
				t.Fatalf("%d bytes of the claim are counted, want 700", got)
			}
			b := r.boot(macA, invA) // its agent is gone: the next boot counts from 0
			b.mustClaim()
			b.mustReport(job.PhaseContent, 30)
			b.mustReport(job.PhaseContent, 50)
			if got := r.moved(id); got != 750 {
				t.Fatalf("%d bytes of two claims are counted, want 750", got)
			}
			if err := fleet.Remember(r.Fleet, t.Context()); err != nil {
				t.Fatal(err)
			}
			restart(r)
			if err := r.Cancel(as(t, "otto", fleet.RoleOperator), id); err != nil {
				t.Fatal(err)
			}
			if got := r.moved(id); got != 750 {
				t.Errorf("%d bytes of a cancelled job are counted, want 750", got)
			}
			restart(r)
			if got := r.moved(id); got != 750 {
				t.Errorf("%d bytes are in its record, want 750", got)
			}
		})
	}
}

// What was told of an earlier claim, or of another phase, is not taken for the present one; what cannot be read is left out.
func TestOldWordsAreNotTakenForNewOnes(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	r.deployAll()
	a := r.boot(macA, invA)
	a.mustClaim()
	a.mustReport(job.PhaseContent, 700)
	if err := fleet.Remember(r.Fleet, t.Context()); err != nil {
		t.Fatal(err)
	}
	b := r.boot(macA, invA)
	b.mustClaim()
	b.mustReport(job.PhaseContent, 30)
	for _, p := range []fleet.Presence{{Appliance: "another"}, {Appliance: "appliance", Beat: 9, Doc: []byte("{")}} { // the second is its own
		r.kill()
		if got := r.moved(b.job.ID); got != 730 {
			t.Errorf("%d bytes are counted, want 730", got)
		}
		if err := r.store.Attend(t.Context(), p); err != nil {
			t.Fatal(err)
		}
	}
	r.kill()
	if got := r.moved(b.job.ID); got != 730 {
		t.Errorf("after damaged words %d bytes are counted, want 730", got)
	}
}

// Boots go with the machine whose card it was, and with the events of their time.
func TestBootsAreKeptAsLongAsEvents(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	r.powerOn(macA)
	r.powerOn(macB)
	at := r.clock.now()
	look := func(want int) {
		t.Helper()
		if err := fleet.Retain(r.Fleet, t.Context()); err != nil {
			t.Fatal(err)
		}
		if list, err := r.SeenBoots(t.Context(), []string{macA, macB, "52:54:00:00:00:99"}); err != nil || len(list) != want {
			t.Fatalf("%d boots are kept, want %d, %v", len(list), want, err)
		}
	}
	if err := r.KeepBoots(t.Context(), []fleet.SeenBoot{
		{MAC: macA, Began: at, Latest: at, Doc: []byte("{}")}, {MAC: macB, Began: at, Latest: at, Doc: []byte("{}")},
		{MAC: "52:54:00:00:00:99", Began: at, Latest: at, Doc: []byte("{}")}, // no machine's
	}); err != nil {
		t.Fatal(err)
	}
	look(2)
	if err := r.RemoveMachine(as(t, "otto", fleet.RoleOperator), macB); err != nil {
		t.Fatal(err)
	}
	look(1)
	r.clock.add(365*24*time.Hour - time.Hour)
	fleet.Tell(r.Fleet, t.Context(), 1, "test.young")
	look(1)
	r.clock.add(2 * time.Hour)
	look(0)
}
