package agent

import (
	"strings"
	"testing"

	"seedbed/appliance/job"
)

// TestLongStepsShowThatTheyGoOn: hashing and zeroing a large disk take an hour, in which nothing else is said.
func TestLongStepsShowThatTheyGoOn(t *testing.T) {
	screen := NewScreen()
	d := newDeployment(&Agent{screen: screen}, job.Job{})
	p := &progressLine{d: d}
	p.show(job.Report{Phase: job.PhaseHash, State: job.Running, Total: 8e9})
	if got := screen.Tail(); !strings.Contains(got, "8.0 GB") {
		t.Errorf("while probing: %s", got)
	}
	p.show(job.Report{Phase: job.PhaseContent, State: job.Running, Total: 8e9, Held: 4e9, Resumed: 3e9})
	if got := screen.Tail(); !strings.Contains(got, "50 %") || !strings.Contains(got, "3.0 GB of it were on the disk") {
		t.Errorf("while looking at the disk: %s", got)
	}
	d.looked.Store(5e9)
	p.show(job.Report{Phase: job.PhaseContent, State: job.Running, Total: 8e9, Held: 8e9})
	if got := screen.Tail(); !strings.Contains(got, "5.0 GB of the disk looked at or zeroed") {
		t.Errorf("while zeroing: %s", got)
	}
}
