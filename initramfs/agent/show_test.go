package agent

import (
	"bytes"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"seedbed/appliance/job"
	"seedbed/initramfs/board"
	"seedbed/initramfs/disk"
)

func TestWhatTheBoardSaysOfAReport(t *testing.T) {
	deploy := job.Job{Kind: job.Deploy, ImageName: "golden:3", After: Reboot}
	for name, c := range map[string]struct {
		j    job.Job
		r    job.Report
		want board.Board
	}{
		"copying": {deploy, job.Report{Phase: job.PhaseContent, State: job.Running, Disk: "sda", DiskSerial: "S1", Held: 40e9, Total: 100e9, Peers: 14, FromAppliance: 1e9, FromPeers: 39e9},
			board.Board{Level: board.Working, Word: "copying", Disk: "sda, serial S1", Done: 40e9, Total: 100e9, BytesPerSecond: 1e8, Left: 10 * time.Minute,
				Facts: "40.0 GB of 100.0 GB, 14 peers, from the appliance 1.0 GB, from peers 39.0 GB", Message: "Do not switch off: until this is done the disk starts no system."}},
		"paused": {deploy, job.Report{Phase: job.PhaseCheck, State: job.Paused, Code: "too-small", Reason: "put in a larger disk", Total: 100e9},
			board.Board{Level: board.Waiting, Word: "paused", Headline: "disk too small", Message: "put in a larger disk"}},
		"held": {deploy, job.Report{Phase: job.PhaseContent, State: job.Paused, Code: "operator", Reason: standsStill, Held: 5, Total: 10},
			board.Board{Level: board.Waiting, Word: "paused", Message: standsStill, Done: 5, Total: 10, Facts: "5 bytes of 10 bytes, 0 peers"}},
		"done": {deploy, job.Report{Phase: job.PhaseSeed, State: job.Running, Total: 10, Held: 10, Peers: 1, ToPeers: 2e9},
			board.Board{Level: board.Done, Word: "done", Facts: "1 peer, 2.0 GB sent to others",
				Message: "The system is installed. The machine helps the others and restarts when none needs it any more; you may switch it off."}},
		"done, unverified": {job.Job{Kind: job.Deploy, ImageName: "golden:3", After: PowerOff, Options: job.Options{Verify: job.VerifyNone}}, job.Report{Phase: job.PhaseReboot, State: job.Running},
			board.Board{Level: board.Done, Word: "done", Headline: "unverified", Message: "The job is done; the machine switches itself off."}},
		"comparing": {job.Job{Kind: job.VerifyDisk, ImageName: "golden:3"}, job.Report{Phase: job.PhaseVerify, State: job.Running, Verified: 1e9, Total: 4e9},
			board.Board{Level: board.Working, Word: "comparing", Done: 1e9, Total: 4e9, BytesPerSecond: 1e8, Left: 30 * time.Second, Facts: "1.0 GB of 4.0 GB right", Message: "The disk is only read."}},
		"capturing": {job.Job{Kind: job.Capture, ImageName: "golden:3"}, job.Report{Phase: job.PhaseRead, State: job.Running, Done: 1e9, Total: 4e9, Sent: 5e8},
			board.Board{Level: board.Working, Word: "capturing", Done: 1e9, Total: 4e9, BytesPerSecond: 1e8, Left: 30 * time.Second, Facts: "1.0 GB of 4.0 GB read, 500.0 MB sent",
				Message: "The disk is only read. Leave the machine on."}},
	} {
		c.want.Image = "golden:3"
		if got := boardOf(c.j, c.r, 1e8); got != c.want {
			t.Errorf("%s:\n%+v, not\n%+v", name, got, c.want)
		}
	}
}

// TestEveryPhaseAndCodeHasAWordThatFitsTheSmallestScreen: 13 large letters are what 80 columns hold.
func TestEveryPhaseAndCodeHasAWordThatFitsTheSmallestScreen(t *testing.T) {
	for _, p := range []job.Phase{job.PhaseStart, job.PhaseCheck, job.PhaseFrame, job.PhaseHash, job.PhaseContent, job.PhaseFree, job.PhaseVerify, job.PhaseTable, job.PhaseSeed,
		job.PhaseReboot, job.PhaseMap, job.PhaseRead, job.PhaseCommit, job.PhaseWipe} {
		if w := words[p]; w == "" || len(w) > 13 || board.Dots(w) == nil {
			t.Errorf("phase %s is %q", p, w)
		}
	}
	for _, code := range []string{disk.CodeNoDisk, disk.CodeTooSmall, disk.CodeAmbiguous, "disk-error", "image-error", "receipt-unsigned"} {
		if h := headline(code); h == "" || len(h) > 16 || board.Dots(h) == nil {
			t.Errorf("code %s is %q", code, h)
		}
	}
}

// shared is a buffer that a display writes to.
type shared struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *shared) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(b)
}

func (s *shared) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func TestSerialLinesGetLinesAloneAndScreensTheBoardToo(t *testing.T) {
	var serial, display shared
	s := NewScreen(&serial)
	s.AddDisplay(&display, func() (int, int) { return 80, 25 })
	s.Show(func(b *board.Board) { b.Name, b.ID, b.About = "room-7", "86ecd2a47a31", "52:54:00:77:00:10" })
	s.Say("phase content disk sda")
	(&workBoard{screen: s, j: job.Job{Kind: job.Deploy, ImageName: "golden:3"}}).show(job.Report{Phase: job.PhaseContent, State: job.Running, Held: 1, Total: 2})
	s.notice("The appliance does not answer")
	s.Close(5 * time.Second)
	if got := serial.String(); got != "seedbed: phase content disk sda\r\n" {
		t.Errorf("the serial line has %q", got)
	}
	for _, want := range []string{"█", "golden:3", "52:54:00:77:00:10", "copying", "The appliance does not answer", "seedbed: phase content disk sda", "\x1b[?25h"} {
		if !strings.Contains(display.String(), want) {
			t.Errorf("the screen lacks %q", want)
		}
	}
}

func TestTheBoardOfAFailureSaysWhatToDo(t *testing.T) {
	s := NewScreen()
	s.Show(func(b *board.Board) { b.Name, b.Done, b.Total, b.Code = "room-7", 1, 2, "4711" })
	s.showFailure(job.Job{ImageName: "golden:3"}, &Failure{Code: "disk-error", Sentence: "write sda: input/output error. Replace it.", Err: errors.New("eio")}, "Then type \"reboot\".")
	want := board.Board{Name: "room-7", Level: board.Failed, Word: "failed", Headline: "disk error", Image: "golden:3", Message: "write sda: input/output error. Replace it. Then type \"reboot\"."}
	if s.board != want {
		t.Errorf("%+v, not %+v", s.board, want)
	}
}

func TestAMachineWithoutWorkSaysThatNobodyAnswers(t *testing.T) {
	s := NewScreen()
	s.Show(func(b *board.Board) { b.Name = "room-7" })
	s.Stand(board.Working, "starting", "")
	s.unanswered("10.77.0.1:443: no route to host")
	if want := (board.Board{Name: "room-7", Level: board.Waiting, Word: "no answer", Notice: "10.77.0.1:443: no route to host"}); s.board != want {
		t.Errorf("without work: %+v", s.board)
	}
	s.answered()
	if want := (board.Board{Name: "room-7", Level: board.Waiting, Word: "waiting"}); s.board != want {
		t.Errorf("after the answer: %+v", s.board)
	}
	s.stand(board.Board{Word: "copying", Image: "golden:3", Done: 1, Total: 2})
	s.unanswered("away")
	if want := (board.Board{Name: "room-7", Word: "copying", Image: "golden:3", Done: 1, Total: 2, Notice: "away"}); s.board != want {
		t.Errorf("at work: %+v", s.board)
	}
}
