package agent

import (
	"context"
	"strings"
	"testing"
	"time"

	"seedbed/appliance/job"
	"seedbed/initramfs/board"
	"seedbed/initramfs/disk/disktest"
)

func TestTheApplianceIsToldWhatTheScreenSaysWhenItChanges(t *testing.T) {
	s, now := NewScreen(), time.Now()
	s.Stand(board.Waiting, "no job", "There is no job.")
	first := s.news(now)
	if first == nil || *first != (job.Screen{Level: "waiting", Word: "no job", Message: "There is no job."}) {
		t.Fatalf("told %+v", first)
	}
	if again := s.news(now); again == nil {
		t.Error("what did not arrive is not told again")
	}
	s.knows(first, now)
	s.Show(func(b *board.Board) { b.Done, b.Total, b.BytesPerSecond, b.Facts = 5, 10, 1e6, "3 peers" })
	if more := s.news(now.Add(time.Second)); more != nil {
		t.Errorf("progress, which the reports tell, is told again as %+v", more)
	}
	if again := s.news(now.Add(tellAgain)); again == nil || *again != *first {
		t.Errorf("after %v the appliance, which may be another one, is told %+v", tellAgain, again)
	}
	s.Stand(board.Failed, "failed", strings.Repeat("ä", job.MaxScreenText))
	if long := s.news(now); long == nil || len(long.Message) > job.MaxScreenText || !strings.HasPrefix(long.Message, "ää") {
		t.Errorf("a long text is told as %+v", long)
	}
}

// TestReportsAndClaimsTellWhatTheScreenSays: of a job from its first report to what follows it when it is cancelled.
func TestReportsAndClaimsTellWhatTheScreenSays(t *testing.T) {
	a, c := newAppliance(t), newComputer(t)
	c.insert("vda", "SN1", disktest.DiskLength)
	release := a.seed.hold(a.img.Layout.DataLength() / 3)
	defer release()
	ctx, cancel := context.WithCancel(t.Context())
	out, _ := c.boot(ctx, a)
	told := a.await(func(r job.Report) bool { return r.Screen != nil && r.Screen.Word == "copying" })
	if !strings.Contains(told.Screen.Message, "Do not switch off") {
		t.Errorf("the screen says %+v", told.Screen)
	}
	a.await(func(r job.Report) bool { return r.Phase == job.PhaseContent && r.Screen == nil })
	a.mu.Lock()
	a.say = func(job.Report) job.Directive { return job.Directive{State: job.Cancelled} }
	a.mu.Unlock()
	a.awaitClaim(ctx, func(s *job.Screen) bool {
		return s != nil && s.Word == "stopped" && strings.Contains(s.Message, "was cancelled")
	})
	cancel()
	if r := wait(t, out); r.err == nil {
		t.Error("the agent ended without an error")
	}
}
