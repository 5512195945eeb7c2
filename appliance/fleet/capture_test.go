package fleet_test

import (
	"slices"
	"testing"
	"time"

	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
	"seedbed/images"
	"seedbed/images/intake"
)

// capture orders a capture of a version that is not there.
func (r *room) capture(machine, version string) (*fleet.JobView, error) {
	return r.Capture(r.t.Context(), fleet.CaptureOrder{Machine: machine, DiskSerial: "D1", After: "poweroff",
		CaptureOrder: job.CaptureOrder{Name: "golden", Version: version, Compress: "lz4:3", Partitions: []int{1, 2}, Full: true}})
}

func TestCaptureComesBeforeADeploymentThatWouldDestroyIt(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	r.powerOn(macA)
	order, err := r.capture(macA, "1")
	if err != nil {
		t.Fatal(err)
	}
	r.clock.add(time.Second)
	r.deployAll()
	r.kill()
	if next := r.powerOn(macA); !next.Agent {
		t.Fatal("a machine with a capture boots its own disk")
	}
	a := r.boot(macA, invA)
	j := a.claim()
	if j == nil || j.ID != order.ID || j.Kind != job.Capture || j.DiskSerial != "D1" || j.After != "poweroff" || j.Capture.Name != "golden" ||
		j.Capture.Version != "1" || j.Capture.Compress != "lz4:3" || !j.Capture.Full || !slices.Equal(j.Capture.Partitions, []int{1, 2}) || len(j.Seeds) != 0 {
		t.Fatalf("claimed %+v", j)
	}
	if swarms := r.Swarms(); len(swarms) != 1 || swarms[0].Image != r.lib.image.Digest {
		t.Errorf("swarms %+v: a capture needs none", swarms)
	}
	d, err := r.Report(t.Context(), a.caller, job.Report{Job: j.ID, Epoch: j.Epoch, Phase: job.PhaseRead, State: job.Running, Total: 100, Done: 40,
		Sent: 20, BytesPerSecond: 2, Left: 30 * time.Second})
	if err != nil || d.State != job.Running {
		t.Fatalf("%+v, %v", d, err)
	}
	if v := r.jobOf(macA); v.Done != 40 || v.Sent != 20 || v.Left != 30*time.Second || v.ImageName != "golden:1" {
		t.Errorf("job %+v", v)
	}
	published := &intake.Published{Digest: images.Sum([]byte("golden")), Name: "golden", Version: "1"}
	for range 2 { // the second time changes nothing
		if err := r.Captured(t.Context(), j.ID, published); err != nil {
			t.Fatal(err)
		}
	}
	if v := r.jobOf(macA); v.State != job.Succeeded || v.Image != published.Digest || v.Done != 40 || v.BytesPerSecond != 0 {
		t.Errorf("job %+v", v)
	}
	kinds := r.events()
	if n := len(slices.DeleteFunc(kinds, func(k string) bool { return k != "image.captured" })); n != 1 {
		t.Errorf("%d events of the captured image", n)
	}
	if next := a.claim(); next == nil || next.Kind != job.Deploy || len(next.Seeds) != 1 {
		t.Errorf("then %+v", next)
	}
}

func TestCaptureOfAMachineKnownByItsBootPacketsGoesWithItsRecord(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	known := r.boot(macA, invA)
	r.powerOn(macB) // the same machine by another adapter
	order, err := r.capture(macB, "1")
	if err != nil {
		t.Fatal(err)
	}
	both := invA
	both.NICs = []job.NIC{{Name: "eth0", MAC: macA}, {Name: "eth1", MAC: macB}}
	a := r.boot(macB, both)
	if err := r.MergeMachines(t.Context(), a.me.Machine, known.me.Machine); err != nil { // a person says that it is that one
		t.Fatal(err)
	}
	a.tells(both)
	if a.me.Machine != known.me.Machine {
		t.Fatalf("it is %s, not %s", a.me.Machine, known.me.Machine)
	}
	if j := a.claim(); j == nil || j.ID != order.ID {
		t.Errorf("claimed %+v", j)
	}
}

func TestCaptureOfAMachineThatIsNotAdmittedOrHasAJobIsRefused(t *testing.T) {
	r := newRoom(t, fleet.AdmitAsk)
	r.powerOn(macA)
	if _, err := r.capture(macA, "1"); code(t, err) != fleet.CodeInvalid {
		t.Errorf("not admitted: %v", err)
	}
	if _, err := r.Admit(t.Context(), macA); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Deploy(t.Context(), fleet.Order{Image: "debian", Machines: []string{macA}}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.capture(macA, "1"); code(t, err) != fleet.CodeMachineBusy {
		t.Errorf("a deployment comes first: %v", err)
	}
	if _, err := r.capture(macA, ""); code(t, err) != fleet.CodeInvalid {
		t.Errorf("no version, and nobody to count: %v", err)
	}
}
