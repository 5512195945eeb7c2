package store_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
	"seedbed/appliance/store"
	"seedbed/images"
)

func open(t *testing.T, path string) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestRecordsComeBackAsTheyWere(t *testing.T) {
	path := filepath.Join(t.TempDir(), "with space?#.db")
	s := open(t, path)
	at := time.Date(2026, 5, 4, 8, 0, 0, 123, time.UTC)
	c := &fleet.Change{
		Epoch:       1,
		Machines:    []*fleet.Machine{{ID: "m", Name: "pc", MACs: []string{"a"}, FirstSeen: at, Inventory: &job.Inventory{Serial: "S"}}},
		Jobs:        []*fleet.Job{{ID: "j", Machine: "m", State: job.Running, Image: images.Sum(nil), Created: at}},
		Deployments: []*fleet.Deployment{{ID: "d", All: true, Created: at}},
		Sessions:    []*fleet.Session{{ID: "s", MAC: "a", Minted: at}, {ID: "s2", MAC: "b"}},
		Events:      []fleet.Event{{At: at, Kind: "k", Text: "one"}, {At: at, Kind: "k", Text: "two"}},
		Frames:      []fleet.Frame{{Job: "j", Digest: images.Sum([]byte("f")), At: at, Bytes: []byte("f")}},
		Receipts:    []fleet.Receipt{{Job: "j", At: at, Receipt: []byte("r"), Signature: []byte("x"), Countersignature: []byte("y")}},
	}
	if err := s.Commit(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if c.Machines[0].Version != 1 || c.Events[1].ID != 2 {
		t.Fatalf("version %d, event %d", c.Machines[0].Version, c.Events[1].ID)
	}
	if err := s.Commit(t.Context(), &fleet.Change{Epoch: 1, Forget: []string{"s2"}}); err != nil {
		t.Fatal(err)
	}
	s.Close()
	st, err := os.Stat(path)
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Fatalf("mode %v, %v", st.Mode(), err)
	}
	s = open(t, path)
	snap, err := s.Load(t.Context(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if len(snap.Machines) != 1 || len(snap.Jobs) != 1 || len(snap.Deployments) != 1 || len(snap.Sessions) != 1 || snap.Epoch != 1 {
		t.Fatalf("snapshot %+v", snap)
	}
	if m := snap.Machines[0]; m.Version != 1 || !m.FirstSeen.Equal(at) || m.Inventory.Serial != "S" {
		t.Fatalf("machine %+v", m)
	}
	if j := snap.Jobs[0]; j.Image != images.Sum(nil) || j.State != job.Running {
		t.Fatalf("job %+v", j)
	}
	r, err := s.Receipt(t.Context(), "j")
	if err != nil || string(r.Receipt) != "r" || string(r.Countersignature) != "y" || !r.At.Equal(at) {
		t.Fatalf("receipt %+v, %v", r, err)
	}
	if none, err := s.Receipt(t.Context(), "other"); none != nil || err != nil {
		t.Fatalf("receipt %+v, %v", none, err)
	}
	frames, err := s.Frames(t.Context(), "j")
	if err != nil || len(frames) != 1 || string(frames[0].Bytes) != "f" {
		t.Fatalf("frames %+v, %v", frames, err)
	}
	events, err := s.Events(t.Context(), 1, 10)
	if err != nil || len(events) != 1 || events[0].Text != "two" || events[0].ID != 2 {
		t.Fatalf("events %+v, %v", events, err)
	}
}

func TestJobsThatEndedLongAgoAreLeftOut(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "r.db"))
	now := time.Now()
	c := &fleet.Change{Epoch: 1, Jobs: []*fleet.Job{
		{ID: "old", State: job.Succeeded, Ended: now.Add(-time.Hour)}, {ID: "new", State: job.Failed, Ended: now}, {ID: "open", State: job.Waiting},
	}}
	if err := s.Commit(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	snap, err := s.Load(t.Context(), now.Add(-time.Minute))
	if err != nil || len(snap.Jobs) != 2 {
		t.Fatalf("%d jobs, %v", len(snap.Jobs), err)
	}
}

func TestChangeOfAnOldVersionWritesNothing(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "r.db"))
	m := &fleet.Machine{ID: "m", Name: "one"}
	j := &fleet.Job{ID: "j", Machine: "m"}
	if err := s.Commit(t.Context(), &fleet.Change{Epoch: 1, Machines: []*fleet.Machine{m}, Jobs: []*fleet.Job{j}}); err != nil {
		t.Fatal(err)
	}
	stale := *m
	m.Name = "two"
	if err := s.Commit(t.Context(), &fleet.Change{Epoch: 1, Machines: []*fleet.Machine{m}}); err != nil {
		t.Fatal(err)
	}
	stale.Name = "three"
	fresh := &fleet.Machine{ID: "n"}
	for what, c := range map[string]*fleet.Change{
		"an old version":        {Epoch: 1, Machines: []*fleet.Machine{fresh, &stale}, Events: []fleet.Event{{Text: "e"}}},
		"an ID that is taken":   {Epoch: 1, Machines: []*fleet.Machine{{ID: "m"}}, Events: []fleet.Event{{Text: "e"}}},
		"a job's ID, taken":     {Epoch: 1, Jobs: []*fleet.Job{{ID: "j"}}, Events: []fleet.Event{{Text: "e"}}},
		"a job, an old version": {Epoch: 1, Jobs: []*fleet.Job{{ID: "j", Version: 7}}, Events: []fleet.Event{{Text: "e"}}},
	} {
		if err := s.Commit(t.Context(), c); !errors.Is(err, fleet.ErrConflict) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := s.Commit(t.Context(), &fleet.Change{Epoch: 2, Machines: []*fleet.Machine{m}}); !errors.Is(err, fleet.ErrFenced) {
		t.Errorf("another epoch: %v", err)
	}
	if fresh.Version != 0 {
		t.Errorf("version %d of a record that was not written", fresh.Version)
	}
	snap, err := s.Load(t.Context(), time.Time{})
	if err != nil || len(snap.Machines) != 1 || snap.Machines[0].Name != "two" {
		t.Fatalf("machines %+v, %v", snap.Machines, err)
	}
	events, err := s.Events(t.Context(), 0, 10)
	if err != nil || len(events) != 0 {
		t.Fatalf("events %+v, %v", events, err)
	}
}

// TestWhatCommitAcknowledgedSurvivesSIGKILL kills a process that commits as fast as it can, and looks for the last event
// that it said was durable.
func TestWhatCommitAcknowledgedSurvivesSIGKILL(t *testing.T) {
	path := os.Getenv("STORE_TEST_COMMIT")
	if path != "" {
		commitForEver(path)
	}
	path = filepath.Join(t.TempDir(), "r.db")
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), "STORE_TEST_COMMIT="+path)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var said int
	for said < 50 {
		if _, err := fmt.Fscanln(out, &said); err != nil {
			t.Fatal(err)
		}
	}
	if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := fmt.Fscanln(out, &said); err != nil {
			break
		}
	}
	cmd.Wait()
	s := open(t, path)
	events, err := s.Events(t.Context(), 0, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	if len(events) < said || !strings.HasPrefix(events[said-1].Text, "event") {
		t.Fatalf("%d events, %d were acknowledged", len(events), said)
	}
}

func commitForEver(path string) {
	s, err := store.Open(context.Background(), path)
	for err == nil {
		c := &fleet.Change{Epoch: 1, Events: []fleet.Event{{Text: "event"}}}
		if err = s.Commit(context.Background(), c); err == nil {
			fmt.Println(c.Events[0].ID)
		}
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
