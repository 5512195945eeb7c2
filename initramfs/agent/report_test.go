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
	d.looked.Store(3e9)
	p.show(job.Report{Phase: job.PhaseHash, State: job.Running, Total: 8e9})
	if got := screen.Tail(); !strings.Contains(got, "3.0 GB") || !strings.Contains(got, "8.0 GB") {
		t.Errorf("while hashing: %s", got)
	}
	d.zeroed.Store(5e9)
	p.show(job.Report{Phase: job.PhaseContent, State: job.Running})
	if got := screen.Tail(); !strings.Contains(got, "5.0 GB of zeros") {
		t.Errorf("while zeroing: %s", got)
	}
}
