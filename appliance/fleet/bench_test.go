package fleet_test

import (
	"fmt"
	"testing"

	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
)

// BenchmarkReport is one report of one of 1,000 machines at work, half of which are done and ask whether they may go.
func BenchmarkReport(b *testing.B) {
	r := newRoom(b, fleet.AdmitAuto)
	r.deployAll()
	var agents []*agent
	for i := range 1000 {
		mac := fmt.Sprintf("52:54:00:78:%02x:%02x", i>>8, i&255)
		a := r.boot(mac, job.Inventory{Firmware: "uefi", NICs: []job.NIC{{MAC: mac}}})
		a.claim()
		phase, held := job.PhaseContent, int64(1)
		if i%2 == 0 {
			phase, held = job.PhaseVerify, 1000
		}
		a.mustReport(phase, held)
		agents = append(agents, a)
	}
	for i := 0; b.Loop(); i++ {
		a := agents[i%len(agents)]
		if i%2 == 0 {
			a.mustReport(job.PhaseVerify, 1000)
		} else {
			a.mustReport(job.PhaseContent, 2)
		}
	}
}

// BenchmarkMachines lists 1,000 machines with 30 jobs each, which holds up every report meanwhile.
func BenchmarkMachines(b *testing.B) {
	r := newRoom(b, fleet.AdmitAuto)
	fleet.Age(r.Fleet, 1000, 30)
	for b.Loop() {
		r.Machines()
	}
}

// BenchmarkDeploy makes the jobs of a deployment to 1,000 machines with 30 jobs each, which holds up every change of a record
// meanwhile.
func BenchmarkDeploy(b *testing.B) {
	for b.Loop() {
		b.StopTimer()
		r := newRoom(b, fleet.AdmitAuto)
		fleet.Age(r.Fleet, 1000, 30)
		b.StartTimer()
		r.deployAll()
	}
}

// BenchmarkDecide5000 is one decision over 5,000 jobs in rooms with limits, uplinks and windows, half of whose machines ask for theirs.
func BenchmarkDecide5000(b *testing.B) {
	r := newRoom(b, fleet.AdmitAuto)
	fleet.Crowd(r.Fleet, 5000, 40)
	r.deployAll()
	if _, err := r.EditSettings(as(b, "root", fleet.RoleAdmin), 0, fleet.SettingsOrder{Limit: new(400)}); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if begin, waits := fleet.DecideAnew(r.Fleet); begin == 0 || waits < 4000 {
			b.Fatalf("%d jobs begin and %d wait", begin, waits)
		}
	}
}
