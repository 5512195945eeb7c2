package fleet_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
)

// says has the agent report where its job stands and what its screen says; nil is what it said before.
func (a *agent) says(said *job.Screen) {
	a.r.t.Helper()
	_, err := a.r.Report(a.r.t.Context(), a.caller, job.Report{Job: a.job.ID, Epoch: a.job.Epoch, Phase: job.PhaseContent, State: job.Running, Screen: said})
	if err != nil {
		a.r.t.Fatal(err)
	}
}

// TestAMachineShowsWhatItsScreenSays: as its agent told it last, while that is heard of, and nothing of an earlier boot.
func TestAMachineShowsWhatItsScreenSays(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	a := r.boot(macA, invA)
	shown := func() job.Screen {
		t.Helper()
		m, err := r.Machine(a.me.Machine)
		if err != nil {
			t.Fatal(err)
		}
		if m.Screen == nil {
			return job.Screen{}
		}
		return *m.Screen
	}
	if got := shown(); got != (job.Screen{}) {
		t.Errorf("before the agent said anything, its screen says %+v", got)
	}
	idle := job.Screen{Level: "waiting", Word: "no job", Message: "There is no job for this machine yet."}
	if _, err := r.Claim(t.Context(), a.caller, job.Claim{Machine: a.me.Machine, Screen: &idle}); err != nil {
		t.Fatal(err)
	}
	if got := shown(); got != idle {
		t.Errorf("its screen says %+v", got)
	}
	r.deployAll()
	a.claim()
	busy := job.Screen{Level: "working", Word: "copying", Message: "Do not switch off."}
	a.says(&busy)
	a.says(nil)
	if got := shown(); got != busy {
		t.Errorf("its screen says %+v", got)
	}
	long := job.Screen{Level: "failed", Word: "failed", Message: strings.Repeat("ä", job.MaxScreenText)}
	a.says(&long)
	if got := shown(); len(got.Message) > job.MaxScreenText || !strings.HasPrefix(long.Message, got.Message) || got.Message == "" {
		t.Errorf("a text of %d bytes is kept as %d", len(long.Message), len(got.Message))
	}
	r.clock.add(2 * time.Minute)
	if got := shown(); got != (job.Screen{}) {
		t.Errorf("of a machine that was not heard of for 2 minutes: %+v", got)
	}
	a.says(nil)
	if shown() == (job.Screen{}) {
		t.Error("its agent is heard of again, and nothing is known of its screen")
	}
	r.clock.add(time.Second)
	r.powerOn(macA)
	if got := shown(); got != (job.Screen{}) {
		t.Errorf("of a machine that starts anew: %+v", got)
	}
	a = r.boot(macA, invA)
	a.claim()
	if got := shown(); got != (job.Screen{}) {
		t.Errorf("of an agent that said nothing in this boot: %+v", got)
	}
	a.says(&busy)
	r.kill()
	b, err := json.Marshal(r.jobOf(macA))
	if err != nil || strings.Contains(string(b), "Do not switch off") {
		t.Errorf("what the screen says is in the records: %s, %v", b, err)
	}
}

// TestNothingIsKeptOfTheScreenOfARemovedMachine: what an agent says that does not know of it yet is dropped too.
func TestNothingIsKeptOfTheScreenOfARemovedMachine(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	a := r.boot(macA, invA)
	idle := job.Screen{Level: "waiting", Word: "no job"}
	said := job.Claim{Machine: a.me.Machine, Screen: &idle}
	if _, err := r.Claim(t.Context(), a.caller, said); err != nil || fleet.Screens(r.Fleet) != 1 {
		t.Fatalf("%d screens are known, %v", fleet.Screens(r.Fleet), err)
	}
	if err := r.RemoveMachine(as(t, "anna", fleet.RoleAdmin), a.me.Machine); err != nil {
		t.Fatal(err)
	}
	if n := fleet.Screens(r.Fleet); n != 0 {
		t.Errorf("%d screens are kept of a machine that was removed", n)
	}
	_, _ = r.Claim(t.Context(), a.caller, said) // whatever it is answered
	if n := fleet.Screens(r.Fleet); n != 0 {
		t.Errorf("%d screens are kept of a machine that was removed, as its agent claims on", n)
	}
}
