package main

import (
	"strings"
	"testing"
	"time"

	"seedbed/appliance/api"
	"seedbed/appliance/bootdoctor"
	"seedbed/appliance/job"
)

// TestTheDoctorPrintsWhatAnEarlierBootLeft: with its time where that is known, below the verdict on the present boot, and no control character.
func TestTheDoctorPrintsWhatAnEarlierBootLeft(t *testing.T) {
	now := time.Date(2026, 5, 4, 8, 0, 0, 0, time.Local)
	print := func(l *job.Left) string {
		t.Helper()
		var b strings.Builder
		v := bootdoctor.Judge(bootdoctor.Input{Now: now, Name: "pc", Hello: now, Told: now, Admitted: true, Left: l})
		if err := printBoot(&b, &api.MachineBoot{Name: "pc", Verdict: v}); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	left := &job.Left{Code: job.LeftNoLink, Text: "no link on eth0\x1b[2J.", At: now.Add(-time.Hour)}
	out := print(left)
	if !strings.Contains(out, "\nbefore   2026-05-04 07:00:00: in a boot before this one the network card of pc had no link: no link on eth0") ||
		!strings.Contains(out, "\ndo       if it comes again, look at its cable") || strings.Contains(out, "\x1b") {
		t.Errorf("printed %q", out)
	}
	left.At = time.Time{}
	if out := print(left); !strings.Contains(out, "\nbefore   in a boot") {
		t.Errorf("without a time it prints %q", out)
	}
	if out := print(nil); strings.Contains(out, "before") {
		t.Errorf("of nothing that was left it prints %q", out)
	}
}
