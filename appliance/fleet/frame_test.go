package fleet_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
	"seedbed/images"
)

// frame is an old table of about so many bytes.
func (a *agent) frame(content string, length int) []byte {
	return encodeFrame(a.r.t, job.OldFrame{Job: a.job.ID, Disk: "vda", DiskSerial: strings.Repeat("S", 10000), DiskLength: 1 << 30,
		Regions: []job.OldFrameRegion{{Kind: "lba0", Bytes: append([]byte(content), bytes.Repeat([]byte{7}, length)...)}}})
}

func TestOldTablesOfOneJobAreBounded(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	r.deployAll()
	a := r.boot(macA, invA)
	a.claim()
	first := a.frame("first", 0)
	for i := range 20 {
		r.clock.add(time.Second)
		err := r.Frame(t.Context(), a.caller, a.frame(fmt.Sprint("table ", i), 0))
		if want := map[bool]string{true: fleet.CodeInvalid}[i >= 8]; codeOf(err) != want {
			t.Fatalf("table %d: %v", i, err)
		}
		if i == 0 {
			first = a.frame("table 0", 0)
		}
	}
	r.kill()
	a.authenticate()
	if err := r.Frame(t.Context(), a.caller, a.frame("one more", 0)); codeOf(err) != fleet.CodeInvalid {
		t.Errorf("after a restart: %v", err)
	}
	events := len(r.events())
	if err := r.Frame(t.Context(), a.caller, first); err != nil || len(r.events()) != events {
		t.Errorf("the first again, whose answer was lost: %v, %d events more", err, len(r.events())-events)
	}
	kept, err := r.store.Frames(t.Context(), a.job.ID)
	if err != nil || len(kept) != 8 || kept[0].Digest != images.Sum(first) {
		t.Errorf("%d tables are kept, %v", len(kept), err)
	}
	list, err := r.Events(t.Context(), fleet.EventQuery{Kind: "job.frame"})
	if err != nil || len(list) != 8 {
		t.Errorf("%d events, %v", len(list), err)
	}
	for _, e := range list {
		if len(e.Text) > 200 {
			t.Errorf("an event of %d bytes", len(e.Text))
		}
	}
}

func TestOldTablesOfOneJobHaveABoundOfBytes(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	r.deployAll()
	a := r.boot(macA, invA)
	a.claim()
	for i, c := range []struct {
		length int
		want   string
	}{{68 << 20, ""}, {69 << 20, fleet.CodeInvalid}, {1, ""}} {
		if err := r.Frame(t.Context(), a.caller, a.frame(fmt.Sprint("table ", i), c.length)); codeOf(err) != c.want {
			t.Fatalf("table %d: %v", i, err)
		}
	}
}

// TestOldTablesOfTheOldestJobsMakeRoom: a machine that is imaged again and again keeps those of its last jobs.
func TestOldTablesOfTheOldestJobsMakeRoom(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	var ids []string
	for range fleet.MaxSaved + 3 {
		r.deployAll()
		a := r.boot(macA, invA)
		a.mustClaim()
		if err := r.Frame(t.Context(), a.caller, a.frame("a table", 0)); err != nil {
			t.Fatal(err)
		}
		a.mustReport(job.PhaseContent, 1000)
		a.finish()
		ids = append(ids, a.job.ID)
		r.clock.add(time.Minute)
	}
	for i, id := range ids {
		kept, err := r.store.Frames(t.Context(), id)
		if err != nil || len(kept) != map[bool]int{true: 1}[i >= 3] {
			t.Errorf("job %d of %d: %d tables, %v", i, len(ids), len(kept), err)
		}
	}
}
