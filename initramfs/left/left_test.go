package left

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"seedbed/appliance/job"
)

var noLink = job.Left{Code: job.LeftNoLink, Text: "no link on eth0", At: time.Date(2026, 5, 4, 8, 0, 0, 0, time.UTC)}

func keep(t *testing.T, s *Store, l job.Left, want bool) {
	t.Helper()
	if kept, err := s.Keep(l); kept != want || err != nil {
		t.Fatalf("keep %+v: %v, %v", l, kept, err)
	}
}

func TestTheNextBootFindsWhatStoppedThisOne(t *testing.T) {
	dir := t.TempDir()
	first := Open(dir)
	if first.Found() != nil {
		t.Fatalf("an empty folder holds %+v", first.Found())
	}
	keep(t, first, noLink, true)
	b, err := os.ReadFile(filepath.Join(dir, variable))
	if err != nil || binary.LittleEndian.Uint32(b) != 7 || len(b) > 200 {
		t.Fatalf("the variable is %q, %v", b, err)
	}
	next := Open(dir)
	if got := next.Found(); got == nil || *got != noLink {
		t.Fatalf("the next boot finds %+v", got)
	}
	if err := next.Told(); err != nil {
		t.Fatal(err)
	}
	if list, _ := os.ReadDir(dir); len(list) != 0 {
		t.Errorf("%v is still there after it was told", list)
	}
	if err := next.Told(); err != nil {
		t.Errorf("told twice: %v", err)
	}
	if Open(dir).Found() != nil {
		t.Error("what was told is found again")
	}
}

// TestAReasonIsWrittenOnceInABootAndOnlyWhereItChanged: the memory for variables wears.
func TestAReasonIsWrittenOnceInABootAndOnlyWhereItChanged(t *testing.T) {
	dir := t.TempDir()
	s := Open(dir)
	keep(t, s, noLink, true)
	keep(t, s, job.Left{Code: job.TroubleUnreachable, Text: "i/o timeout"}, false)
	if got := Open(dir).Found(); got == nil || *got != noLink {
		t.Errorf("the second reason of a boot was written: %+v", got)
	}
	file := filepath.Join(dir, variable)
	was := time.Now().Add(-time.Hour)
	if err := os.Chtimes(file, was, was); err != nil {
		t.Fatal(err)
	}
	again := noLink
	again.At = again.At.Add(time.Hour)
	keep(t, Open(dir), again, true)
	if info, err := os.Stat(file); err != nil || info.ModTime().After(was.Add(time.Minute)) {
		t.Errorf("the same reason was written again: %v", err)
	}
	other := job.Left{Code: job.LeftNoAddress, Text: "x", At: noLink.At}
	keep(t, Open(dir), other, true)
	if got := Open(dir).Found(); got == nil || *got != other {
		t.Errorf("another reason, shorter than the first, is found as %+v", got)
	}
}

// TestWhatWasTakenAwayIsWrittenAgain where the agent lost the appliance in the boot that had told it.
func TestWhatWasTakenAwayIsWrittenAgain(t *testing.T) {
	dir := t.TempDir()
	keep(t, Open(dir), noLink, true)
	s := Open(dir)
	if err := s.Told(); err != nil {
		t.Fatal(err)
	}
	keep(t, s, noLink, true)
	if got := Open(dir).Found(); got == nil || *got != noLink {
		t.Errorf("it says that the reason is kept, and the next boot finds %+v", got)
	}
}

func TestALongReasonIsCut(t *testing.T) {
	dir := t.TempDir()
	keep(t, Open(dir), job.Left{Code: job.LeftNoDriver, Text: strings.Repeat("ä", 1000)}, true)
	if got := Open(dir).Found(); got == nil || len(got.Text) > maxText || !strings.HasPrefix(got.Text, "ää") {
		t.Errorf("found %+v", got)
	}
	keep(t, Open(dir), job.Left{Code: job.LeftNoDriver, Text: strings.Repeat("ä", 1000)}, true)
}

func TestAMachineWithoutVariablesKeepsNothing(t *testing.T) {
	var none *Store
	missing := filepath.Join(t.TempDir(), "missing")
	for _, s := range []*Store{none, Open(missing)} {
		keep(t, s, noLink, false)
		if s.Found() != nil || s.Told() != nil {
			t.Error("something is found")
		}
	}
	if _, err := os.Stat(missing); err == nil {
		t.Error("the folder was made")
	}
}

// TestAFirmwareThatTakesNothingIsAskedOnce: a folder in the variable's place cannot be written, even by root.
func TestAFirmwareThatTakesNothingIsAskedOnce(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, variable, "x"), 0o755); err != nil {
		t.Fatal(err)
	}
	s := Open(dir)
	if kept, err := s.Keep(noLink); kept || err == nil {
		t.Fatalf("kept %v, %v", kept, err)
	}
	keep(t, s, noLink, false)
	if err := s.Told(); err == nil {
		t.Error("what cannot be taken away counts as taken away")
	}
}

func FuzzOpen(f *testing.F) {
	f.Add([]byte("\x07\x00\x00\x00{\"code\":\"no-link\",\"text\":\"no link on eth0\"}"))
	f.Add([]byte("\x07\x00\x00"))
	f.Add([]byte("\x07\x00\x00\x00[]"))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := os.WriteFile(filepath.Join(dir, variable), b, 0o600); err != nil {
			t.Fatal(err)
		}
		if l := Open(dir).Found(); l != nil && (l.Code == "" || len(l.Text) > maxBytes) {
			t.Errorf("found %+v", l)
		}
	})
}
