//go:build full

package e2e

import (
	"strings"
	"testing"
	"time"

	"seedbed/appliance/api"
	"seedbed/appliance/job"
	"seedbed/test-vm/golden"
	"seedbed/test-vm/lab"
)

// TestTheNextBootTellsWhatStoppedTheOneBefore: a machine whose agent gets no answer is switched off, and started again with the same
// firmware when the appliance can be reached; the doctor names what stopped it before, and at the boot after that nothing any more.
func TestTheNextBootTellsWhatStoppedTheOneBefore(t *testing.T) {
	r := openRoom(t, "doctor-left", lab.Config{})
	a := r.serve()
	_, err := a.AddImage(t.Context(), "mini", image(t, golden.Mini))
	must(t, err)
	_, err = a.Command(t.Context(), "deploy", "mini", "--all")
	must(t, err)
	must(t, r.Block(t.Context(), lab.Agents))
	m := r.machine("left", lab.UEFI)
	began := time.Now()
	_, err = start(t, m, lab.StartOptions{}).WaitFor(within(t, verdictLimit), "this reason is kept in the firmware")
	must(t, err)
	t.Logf("the reason is kept %v after power on", time.Since(began).Round(time.Second))
	must(t, m.Cut())
	must(t, r.Unblock(t.Context()))
	start(t, m, lab.StartOptions{})
	b := greeted(t, a, m, began)
	e := b.Verdict.Left
	if e == nil || e.Code != job.TroubleUnreachable || !strings.Contains(e.Sentence, "got no answer of this appliance") || !strings.Contains(e.Sentence, "10.77.0.1:443") {
		t.Fatalf("of the boot before the doctor says %+v, beside %s", e, b.Verdict.Sentence)
	}
	if e.At.Before(began.Add(-time.Minute)) || e.At.After(time.Now()) {
		t.Errorf("that was at %v, and the machine was switched on at %v", e.At, began)
	}
	out, _ := a.Command(t.Context(), "doctor", m.MAC.String()) // its exit code says that something is wrong
	if !strings.Contains(string(out), e.Sentence) {
		t.Errorf("seedbed doctor says\n%s\nwithout %q", out, e.Sentence)
	}
	must(t, m.Cut())
	again := time.Now()
	start(t, m, lab.StartOptions{})
	if b := greeted(t, a, m, again); b.Verdict.Left != nil {
		t.Errorf("after it was told the doctor says %+v", b.Verdict.Left)
	}
}

// greeted waits until a machine's agent said hello after a moment, and returns what the doctor says then.
func greeted(t *testing.T, a *lab.Appliance, m *lab.Machine, after time.Time) *api.MachineBoot {
	t.Helper()
	ctx := within(t, verdictLimit)
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("the agent of %s said no hello within %v", m.Config.Name, verdictLimit)
		}
		b, err := a.Boot(ctx, m)
		if err != nil || b.Now == nil { // nobody saw it yet
			continue
		}
		for _, s := range b.Now.Steps {
			if s.Kind == "hello" && s.At.After(after) {
				return b
			}
		}
	}
}
