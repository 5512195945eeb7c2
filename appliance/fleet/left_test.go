package fleet_test

import (
	"strings"
	"testing"
	"time"

	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
)

// TestAHelloTellsOfAnEarlierBoot: with its time by the appliance's clock, whatever the machine's own says, in an event and for the doctor.
func TestAHelloTellsOfAnEarlierBoot(t *testing.T) {
	for name, c := range map[string]struct {
		left, clock time.Duration // by the machine's clock, from the appliance's now
		ago         time.Duration // as it is shown; -1 is no time
	}{
		"clock is right":         {-time.Hour, 0, time.Hour},
		"clock is 2 years off":   {-2*8760*time.Hour - time.Hour, -2 * 8760 * time.Hour, time.Hour},
		"clock began anew since": {-time.Hour, -50 * 8760 * time.Hour, -1},
		"long ago":               {-20 * 8760 * time.Hour, 0, -1},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRoom(t, fleet.AdmitAuto)
			now := r.clock.now()
			r.left, r.machineClock = &job.Left{Code: job.LeftNoLink, Text: "no link on eth0" + strings.Repeat("!", 1000), At: now.Add(c.left)}, now.Add(c.clock)
			a := r.boot(macA, invA)
			hello, left, told := r.Greeted(a.me.Machine)
			if !hello.Equal(now) || !told || left == nil || left.Code != job.LeftNoLink || len(left.Text) > 500 {
				t.Fatalf("greeted at %v, told %v, left %+v", hello, told, left)
			}
			want := time.Time{}
			if c.ago >= 0 {
				want = now.Add(-c.ago)
			}
			if !left.At.Equal(want) {
				t.Errorf("it was at %v, not %v", left.At, want)
			}
			events, err := r.Events(t.Context(), fleet.EventQuery{Kind: "machine.hello"})
			if err != nil || len(events) != 1 || !strings.Contains(events[0].Text, "; in a boot before this one") || !strings.Contains(events[0].Text, "no link on eth0") {
				t.Errorf("events %+v, %v", events, err)
			}
			r.left = nil
			r.clock.add(time.Hour)
			r.boot(macA, invA)
			if _, left, _ := r.Greeted(a.me.Machine); left != nil {
				t.Errorf("the boot after it tells %+v", left)
			}
		})
	}
}
