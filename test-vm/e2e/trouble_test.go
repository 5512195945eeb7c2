package e2e

import (
	"strconv"
	"testing"
	"time"

	"seedbed/appliance/job"
	"seedbed/test-vm/golden"
	"seedbed/test-vm/lab"
)

func TestMachinesFinishAfterTheApplianceWasKilledAndAfterAPowerCut(t *testing.T) {
	r := openRoom(t, "trouble", lab.Config{})
	a := r.serve()
	// Stored as they are, tiles weigh on the wire what they weigh on the disk, and what was fetched can be held against
	// what was lacking.
	_, err := a.Command(t.Context(), "image", "add", image(t, golden.Mini), "--name", "mini", "--compress", "none")
	must(t, err)
	_, err = a.Command(t.Context(), "deploy", "mini", "--all")
	must(t, err)
	steady := r.machine("steady", lab.BIOS, r.empty("steady", diskLength))
	cut := r.machine("cut", lab.BIOS, r.empty("cut", diskLength))
	steadyBoot := start(t, steady, lab.StartOptions{StopAtReboot: true})
	start(t, cut, lab.StartOptions{StopAtReboot: true})

	waitJob(t, a, cut, 4*time.Minute, heldShare(15))
	must(t, a.Kill())
	must(t, a.Start(t.Context()))
	middle := waitJob(t, a, cut, 3*time.Minute, heldShare(50))
	must(t, cut.Cut())
	if middle.State == job.Succeeded || middle.Held >= middle.Total {
		t.Fatalf("the machine was done before its power was cut: %d of %d bytes", middle.Held, middle.Total)
	}

	alone := start(t, cut, lab.StartOptions{Unplugged: true})
	_, err = alone.WaitFor(within(t, time.Minute), "No bootable device")
	must(t, err)
	if alone.Serial.Contains("GRUB") {
		t.Error("the disk of a machine whose power was cut in the middle boots")
	}
	must(t, alone.Cut())

	again := start(t, cut, lab.StartOptions{StopAtReboot: true})
	must(t, again.WaitEnd(within(t, 5*time.Minute)))
	j := waitJob(t, a, cut, 10*time.Second, succeeded)
	lacked, fetched := j.Total-j.Resumed, j.FromAppliance+j.FromPeers
	t.Logf("cut at %d bytes, %d were right after the cut, %d lacked, %d fetched", middle.Held, j.Resumed, lacked, fetched)
	if j.Resumed < middle.Held/2 {
		t.Errorf("after the power cut %d bytes were right, of %d before", j.Resumed, middle.Held)
	}
	if float64(fetched) >= 1.1*float64(lacked) {
		t.Errorf("after the power cut the machine fetched %d bytes, and lacked %d", fetched, lacked)
	}
	must(t, steadyBoot.WaitEnd(within(t, 3*time.Minute)))
	waitJob(t, a, steady, 10*time.Second, succeeded)
	checkEvents(t, a, steady, cut)
}

// checkEvents wants one job per machine, each with the events of its whole road, though the appliance was killed.
func checkEvents(t *testing.T, a *lab.Appliance, machines ...*lab.Machine) {
	t.Helper()
	jobs, err := a.Jobs(t.Context())
	must(t, err)
	if len(jobs) != len(machines) {
		t.Errorf("%d jobs for %d machines", len(jobs), len(machines))
	}
	events, err := a.Events(t.Context())
	must(t, err)
	ended := map[string]int{}
	for _, e := range events {
		if e.Kind == "job.succeeded" {
			ended[e.Job]++
		}
	}
	for _, j := range jobs {
		if ended[j.ID] != 1 {
			t.Errorf("job %s of %s: %d events say that it succeeded", j.ID, j.MachineName, ended[j.ID])
		}
	}
}

func digits(n int64) string { return strconv.FormatInt(n, 10) }
