package fleet_test

import (
	"strings"
	"testing"
	"time"

	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
	"seedbed/images"
)

// TestWhatWasKeptLongEnoughIsDeleted but for what a disk holds now and what an open deployment to all needs.
func TestWhatWasKeptLongEnoughIsDeleted(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	put := func(list ...fleet.Record) {
		t.Helper()
		for _, record := range list {
			if err := fleet.Put(r.Fleet, t.Context(), record); err != nil {
				t.Fatal(err)
			}
		}
	}
	began := r.clock.now()
	put(&fleet.Machine{ID: "m1", Name: "one", Admitted: true, Deployed: &fleet.Deployed{Job: "holds"}, Saved: []fleet.Saved{{Job: "old", Length: 5}, {Job: "holds", Length: 6}}},
		&fleet.Deployment{ID: "gone", Created: began}, &fleet.Deployment{ID: "kept", Created: began},
		&fleet.Deployment{ID: "open", All: true, Created: began}, &fleet.Deployment{ID: "shut", All: true, Closed: true, Created: began})
	for id, deployment := range map[string]string{"old": "gone", "holds": "kept", "first": "open", "last": "shut"} {
		put(&fleet.Job{ID: id, Machine: "m1", Deployment: deployment, State: job.Succeeded, Created: began, Ended: began.Add(time.Minute)})
	}
	fleet.Facts(r.Fleet, t.Context(), []fleet.Receipt{receiptOf("old"), receiptOf("holds")},
		[]fleet.Frame{{Job: "old", Digest: images.Sum(nil), Bytes: []byte("f")}, {Job: "holds", Digest: images.Sum(nil), Bytes: []byte("f")}})
	events := func() []fleet.Event {
		t.Helper()
		list, err := r.Events(t.Context(), fleet.EventQuery{Limit: 100000})
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	fleet.Tell(r.Fleet, t.Context(), 2500, "test.old")
	r.clock.add(365*24*time.Hour - time.Hour)
	fleet.Tell(r.Fleet, t.Context(), 3, "test.young")
	before := len(events())
	retain := func() {
		t.Helper()
		if err := fleet.Retain(r.Fleet, t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	retain()
	if n := len(events()); n != before {
		t.Fatalf("%d of %d events are left within the year", n, before)
	}
	r.clock.add(2 * time.Hour)
	retain()
	list := events()
	if len(list) != 4 || list[0].Kind != "test.young" || list[3].Kind != "records.deleted" ||
		!strings.HasPrefix(list[3].Text, "2500 events, 2 jobs and 2 deployments were deleted") {
		t.Fatalf("%d events are left: %+v", len(list), list)
	}
	retain()
	if n := len(events()); n != 4 {
		t.Errorf("a look that deleted nothing is an event: %d", n)
	}
	r.kill() // what is durable is what was shown
	ended, err := r.History(t.Context(), fleet.JobQuery{})
	if err != nil || len(ended) != 2 || ended[0].ID != "first" || ended[1].ID != "holds" {
		t.Errorf("ended jobs %v, %v", ended, err)
	}
	for id, want := range map[string]bool{"old": false, "holds": true} {
		receipt, err := r.ReceiptOf(t.Context(), id)
		frames, err2 := r.store.Frames(t.Context(), id)
		if err != nil || err2 != nil || (receipt != nil) != want || (len(frames) == 1) != want {
			t.Errorf("job %s: receipt %v, %d frames, %v, %v", id, receipt, len(frames), err, err2)
		}
	}
	if m, err := r.Machine("one"); err != nil || len(m.Saved) != 1 || m.Saved[0].Job != "holds" {
		t.Errorf("machine %+v, %v", m, err)
	}
	var left []string
	for _, d := range r.Deployments() {
		left = append(left, d.ID)
	}
	if got := strings.Join(left, " "); got != "kept open" {
		t.Errorf("deployments %s", got)
	}
}

func TestHowLongThingsAreKeptIsSet(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	day := func(n int) *int { return &n }
	for n, ok := range map[int]bool{0: false, -1: true, 30: true, 400: true, 29: false, 1: false, -2: false, 1 << 40: false} {
		_, err := r.EditSettings(t.Context(), 0, fleet.SettingsOrder{KeepEvents: day(n)})
		if (err == nil) != ok {
			t.Errorf("%d days: %v", n, err)
		}
	}
	s, err := r.EditSettings(t.Context(), 0, fleet.SettingsOrder{KeepEvents: day(-1), KeepJobs: day(40)})
	if err != nil || s.KeepEvents != fleet.KeepForever || s.KeepJobs != 40 {
		t.Fatalf("%+v, %v", s, err)
	}
	fleet.Tell(r.Fleet, t.Context(), 1, "test.old")
	r.clock.add(50 * 365 * 24 * time.Hour)
	if err := fleet.Retain(r.Fleet, t.Context()); err != nil {
		t.Fatal(err)
	}
	if list, err := r.Events(t.Context(), fleet.EventQuery{Kind: "test.old"}); err != nil || len(list) != 1 {
		t.Errorf("what is kept for ever is gone: %+v, %v", list, err)
	}
}

// A clock that jumped ahead deletes nothing.
func TestAWrongClockDeletesNothing(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	fleet.Tell(r.Fleet, t.Context(), 2, "test.old")
	check := func(want int) {
		t.Helper()
		if err := fleet.Retain(r.Fleet, t.Context()); err != nil {
			t.Fatal(err)
		}
		if list, err := r.Events(t.Context(), fleet.EventQuery{Kind: "test.old"}); err != nil || len(list) != want {
			t.Errorf("%d events are left, %v; want %d", len(list), err, want)
		}
	}
	r.clock.add(3 * 365 * 24 * time.Hour)
	check(2)
	fleet.Tell(r.Fleet, t.Context(), 1, "test.young")
	check(0)
}

func receiptOf(id string) fleet.Receipt {
	return fleet.Receipt{Job: id, Receipt: []byte("{}"), Signature: []byte("s"), Countersignature: []byte("c")}
}
