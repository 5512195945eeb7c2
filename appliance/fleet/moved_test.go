package fleet_test

import (
	"testing"

	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
)

// The bytes of a claim count on in the next one, each once.
func TestTheBytesOfEarlierClaimsAreKept(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	r.deployAll()
	a := r.boot(macA, invA)
	check := func(want int64) {
		t.Helper()
		if v, err := r.Job(a.job.ID); err != nil || v.Earlier.FromPeers != want {
			t.Fatalf("%+v, %v; want %d", v, err, want)
		}
	}
	a.claim()
	a.claim() // the answer was lost
	check(0)
	a.mustReport(job.PhaseContent, 300)
	a.mustReport(job.PhaseContent, 400)
	a = r.boot(macA, invA)
	a.claim()
	check(400)
	a.claim()
	check(400)
	a = r.boot(macA, invA) // before any report
	a.claim()
	check(400)
	a.mustReport(job.PhaseContent, 50)
	check(400)
	a = r.boot(macA, invA)
	a.claim()
	check(450)
}
