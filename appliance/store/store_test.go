package store_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
	"seedbed/appliance/store"
	"seedbed/images"
	"seedbed/test-vm/postgres"
)

func open(t *testing.T, location string) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), location)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// bed is an empty database of one kind.
type bed struct {
	*testing.T
	location string
	*store.Store
}

// TestConformance runs the same tests on SQLite and on a real PostgreSQL server.
func TestConformance(t *testing.T) {
	tests := map[string]func(*bed){
		"records come back as they were": comeBack, "jobs that ended long ago are left out": leftOut,
		"jobs of an open deployment to all are there however old": openToAll, "a change of an old version writes nothing": oldVersion,
		"a change without knowledge of the last commit writes nothing": oldBase, "since returns what others wrote": since,
		"a removed record may come again": comeAgain, "removals are forgotten": forgotten, "the office has one holder": office,
		"attendance": attendance, "events by query": eventsByQuery, "jobs by query": jobsByQuery,
		"events are found by an index": eventsByIndex, "pages of jobs that ended at once lose none": jobsByPage,
		"writers at the same time lose nothing": writers, "what is old is deleted": deletions,
		"boots as appliances saw them": seenBoots,
	}
	server := postgres.Start(t)
	for what, test := range tests {
		t.Run("SQLite/"+what, func(t *testing.T) {
			location := filepath.Join(t.TempDir(), "with space?#.db")
			test(&bed{t, location, open(t, location)})
		})
		t.Run("PostgreSQL/"+what, func(t *testing.T) {
			location := server.Database()
			test(&bed{t, location, open(t, location)})
		})
	}
}

// write commits on top of everything before.
func (b *bed) write(c *fleet.Change) {
	b.Helper()
	snap, err := b.Load(b.Context(), time.Now())
	if err != nil {
		b.Fatal(err)
	}
	c.Base = snap.Number
	if _, err := b.Commit(b.Context(), c); err != nil {
		b.Fatal(err)
	}
}

func records(list ...fleet.Record) []fleet.Record { return list }

func keys(list []fleet.Record) string {
	var names []string
	for _, r := range list {
		names = append(names, string(r.Ref().Kind)+" "+r.Ref().ID)
	}
	return strings.Join(names, ", ")
}

func comeBack(b *bed) {
	at := time.Date(2026, 5, 4, 8, 0, 0, 123, time.UTC)
	m := &fleet.Machine{ID: "m", Name: "pc", MACs: []string{"a"}, FirstSeen: at, Inventory: &job.Inventory{Serial: "S"}}
	c := &fleet.Change{
		Put: records(m, &fleet.Job{ID: "j", Machine: "m", State: job.Running, Image: images.Sum(nil), Created: at},
			&fleet.Deployment{ID: "d", All: true, Created: at}, &fleet.Session{ID: "s", MAC: "a", Minted: at}, &fleet.Session{ID: "s2", MAC: "b"},
			&fleet.Token{ID: "t", Uses: 3}, &fleet.Settings{Limit: 7, Channels: fleet.Channels{MailTo: []string{"anna@example.org"}}},
			&fleet.Alert{ID: "a", Breach: fleet.Breach{Rule: fleet.RuleSlow, Subject: "m"}, Since: at, Ended: at}, &fleet.Message{ID: "e", Payload: []byte(`{"a":1}`), Created: at}),
		Events:   []fleet.Event{{At: at, Kind: "k", Text: "one"}, {At: at, Kind: "k", Text: "two", Actor: "alice", From: "10.0.0.1"}},
		Frames:   []fleet.Frame{{Job: "j", Digest: images.Sum([]byte("f")), At: at, Bytes: []byte("f\x00")}},
		Receipts: []fleet.Receipt{{Job: "j", At: at, Receipt: []byte("r"), Signature: []byte("x\xff"), Countersignature: []byte("y")}},
	}
	b.write(c)
	if m.Version != 1 || c.Events[1].ID != 2 {
		b.Fatalf("version %d, event %d", m.Version, c.Events[1].ID)
	}
	b.write(&fleet.Change{Remove: []fleet.Key{{Kind: fleet.KindSession, ID: "s2"}}})
	b.Close()
	if !b.Shared() {
		st, err := os.Stat(b.location)
		if err != nil || st.Mode().Perm() != 0o600 {
			b.Fatalf("mode %v, %v", st.Mode(), err)
		}
	}
	s := open(b.T, b.location)
	snap, err := s.Load(b.Context(), time.Now())
	if err != nil {
		b.Fatal(err)
	}
	if len(snap.Put) != 8 || len(snap.Remove) != 0 || snap.Number != 2 {
		b.Fatalf("snapshot %d with %s", snap.Number, keys(snap.Put))
	}
	for _, r := range snap.Put {
		switch r := r.(type) {
		case *fleet.Machine:
			if r.Version != 1 || !r.FirstSeen.Equal(at) || r.Inventory.Serial != "S" {
				b.Fatalf("machine %+v", r)
			}
		case *fleet.Job:
			if r.Image != images.Sum(nil) || r.State != job.Running {
				b.Fatalf("job %+v", r)
			}
		case *fleet.Settings:
			if r.Limit != 7 || r.SlowRate != 0 || len(r.MailTo) != 1 {
				b.Fatalf("settings %+v", r)
			}
		case *fleet.Alert:
			if r.Rule != fleet.RuleSlow || r.Subject != "m" || !r.Ended.Equal(at) {
				b.Fatalf("alert %+v", r)
			}
		case *fleet.Message:
			if string(r.Payload) != `{"a":1}` || !r.Waiting() {
				b.Fatalf("message %+v", r)
			}
		}
	}
	r, err := s.Receipt(b.Context(), "j")
	if err != nil || string(r.Receipt) != "r" || string(r.Signature) != "x\xff" || !r.At.Equal(at) {
		b.Fatalf("receipt %+v, %v", r, err)
	}
	if none, err := s.Receipt(b.Context(), "other"); none != nil || err != nil {
		b.Fatalf("receipt %+v, %v", none, err)
	}
	frames, err := s.Frames(b.Context(), "j")
	if err != nil || len(frames) != 1 || string(frames[0].Bytes) != "f\x00" {
		b.Fatalf("frames %+v, %v", frames, err)
	}
	events, err := s.Events(b.Context(), fleet.EventQuery{After: 1})
	if err != nil || len(events) != 1 || events[0].Text != "two" || events[0].ID != 2 || events[0].Actor != "alice" || events[0].From != "10.0.0.1" {
		b.Fatalf("events %+v, %v", events, err)
	}
}

func leftOut(b *bed) {
	now := time.Now()
	b.write(&fleet.Change{Put: records(&fleet.Job{ID: "old", State: job.Succeeded, Ended: now.Add(-time.Hour)},
		&fleet.Job{ID: "new", State: job.Failed, Ended: now}, &fleet.Job{ID: "open", State: job.Waiting})})
	snap, err := b.Load(b.Context(), now.Add(-time.Minute))
	if err != nil || len(snap.Put) != 2 {
		b.Fatalf("%s, %v", keys(snap.Put), err)
	}
}

func openToAll(b *bed) {
	old := time.Now().Add(-time.Hour)
	b.write(&fleet.Change{Put: records(&fleet.Deployment{ID: "all", All: true}, &fleet.Deployment{ID: "closed", All: true, Closed: true},
		&fleet.Job{ID: "one", Deployment: "all", State: job.Succeeded, Ended: old}, &fleet.Job{ID: "two", Deployment: "closed", State: job.Succeeded, Ended: old})})
	snap, err := b.Load(b.Context(), time.Now())
	if err != nil || len(snap.Put) != 3 || !strings.Contains(keys(snap.Put), "job one") {
		b.Fatalf("%s, %v", keys(snap.Put), err)
	}
}

func oldVersion(b *bed) {
	m := &fleet.Machine{ID: "m", Name: "one"}
	b.write(&fleet.Change{Put: records(m, &fleet.Job{ID: "j", Machine: "m"})})
	stale := *m
	m.Name = "two"
	b.write(&fleet.Change{Put: records(m)})
	stale.Name = "three"
	fresh := &fleet.Machine{ID: "n"}
	for what, put := range map[string][]fleet.Record{
		"an old version": records(fresh, &stale), "an ID that is taken": records(&fleet.Machine{ID: "m"}),
		"a job's ID, taken": records(&fleet.Job{ID: "j"}), "a job, an old version": records(&fleet.Job{ID: "j", Version: 7}),
	} {
		if _, err := b.Commit(b.Context(), &fleet.Change{Base: 2, Put: put, Events: []fleet.Event{{Text: "e"}}}); !errors.Is(err, fleet.ErrConflict) {
			b.Errorf("%s: %v", what, err)
		}
	}
	if fresh.Version != 0 {
		b.Errorf("version %d of a record that was not written", fresh.Version)
	}
	snap, err := b.Load(b.Context(), time.Time{})
	if err != nil || len(snap.Put) != 2 || snap.Number != 2 {
		b.Fatalf("%s at %d, %v", keys(snap.Put), snap.Number, err)
	}
	events, err := b.Events(b.Context(), fleet.EventQuery{})
	if err != nil || len(events) != 0 {
		b.Fatalf("events %+v, %v", events, err)
	}
}

func oldBase(b *bed) {
	b.write(&fleet.Change{Put: records(&fleet.Machine{ID: "m"})})
	for _, base := range []int64{0, 2, -1} {
		if _, err := b.Commit(b.Context(), &fleet.Change{Base: base, Put: records(&fleet.Machine{ID: "n"})}); !errors.Is(err, fleet.ErrConflict) {
			b.Errorf("base %d: %v", base, err)
		}
	}
	if _, err := b.Commit(b.Context(), &fleet.Change{Base: 1, Put: records(&fleet.Machine{ID: "n"})}); err != nil {
		b.Error(err)
	}
}

func since(b *bed) {
	m := &fleet.Machine{ID: "m"}
	b.write(&fleet.Change{Put: records(m, &fleet.Machine{ID: "n"})})
	b.write(&fleet.Change{Put: records(&fleet.Token{ID: "t"}), Remove: []fleet.Key{{Kind: fleet.KindMachine, ID: "n"}}})
	m.Name = "pc"
	b.write(&fleet.Change{Put: records(m)})
	for number, want := range map[int64]string{1: "token t, machine m", 2: "machine m", 3: ""} {
		got, err := b.Since(b.Context(), number)
		if err != nil || keys(got.Put) != want || got.Number != 3 {
			b.Errorf("since %d: %s at %d, %v", number, keys(got.Put), got.Number, err)
		}
		if removed := len(got.Remove) == 1 && got.Remove[0].ID == "n"; removed != (number == 1) {
			b.Errorf("since %d: removed %v", number, got.Remove)
		}
	}
	if _, err := b.Since(b.Context(), 4); !errors.Is(err, fleet.ErrStale) {
		b.Errorf("a number that was never given: %v", err)
	}
}

func comeAgain(b *bed) {
	b.write(&fleet.Change{Put: records(&fleet.Session{ID: "s", MAC: "a"})})
	b.write(&fleet.Change{Remove: []fleet.Key{{Kind: fleet.KindSession, ID: "s"}}})
	b.write(&fleet.Change{Put: records(&fleet.Session{ID: "s", MAC: "b"})})
	snap, err := b.Load(b.Context(), time.Now())
	if err != nil || len(snap.Put) != 1 || snap.Put[0].(*fleet.Session).MAC != "b" {
		b.Fatalf("%s, %v", keys(snap.Put), err)
	}
}

func forgotten(b *bed) {
	b.write(&fleet.Change{Put: records(&fleet.Session{ID: "s"})})
	b.write(&fleet.Change{Remove: []fleet.Key{{Kind: fleet.KindSession, ID: "s"}}})
	store.Age(b.Store, 48*time.Hour)
	for number := int64(2); number < 1024; number++ {
		if _, err := b.Commit(b.Context(), &fleet.Change{Base: number}); err != nil {
			b.Fatal(err)
		}
	}
	if _, err := b.Since(b.Context(), 1); !errors.Is(err, fleet.ErrStale) {
		b.Errorf("a removal that was forgotten: %v", err)
	}
	if got, err := b.Since(b.Context(), 2); err != nil || len(got.Put)+len(got.Remove) != 0 {
		b.Errorf("%+v, %v", got, err)
	}
}

func office(b *bed) {
	ctx := b.Context()
	vacant, err := b.Office(ctx)
	if err != nil || vacant.Holder != "" {
		b.Fatalf("%+v, %v", vacant, err)
	}
	one, err := b.Seize(ctx, "one", vacant)
	if err != nil || one.Holder != "one" || one.Epoch != vacant.Epoch+1 {
		b.Fatalf("%+v, %v", one, err)
	}
	if _, err := b.Seize(ctx, "two", vacant); !errors.Is(err, fleet.ErrFenced) {
		b.Errorf("an office that is held: %v", err)
	}
	if err := b.Beat(ctx, "one", one.Epoch); err != nil {
		b.Error(err)
	}
	if _, err := b.Seize(ctx, "two", one); !errors.Is(err, fleet.ErrFenced) {
		b.Errorf("an office whose holder beat since: %v", err)
	}
	seen, err := b.Office(ctx)
	if err != nil || seen.Beat != 1 {
		b.Fatalf("%+v, %v", seen, err)
	}
	two, err := b.Seize(ctx, "two", seen)
	if err != nil {
		b.Fatal(err)
	}
	if err := b.Beat(ctx, "one", one.Epoch); !errors.Is(err, fleet.ErrFenced) {
		b.Errorf("a holder that was relieved: %v", err)
	}
	for _, base := range []int64{0, 7} {
		c := &fleet.Change{Base: base, Epoch: one.Epoch, Put: records(&fleet.Machine{ID: "m"})}
		if _, err := b.Commit(ctx, c); !errors.Is(err, fleet.ErrFenced) {
			b.Errorf("the decision of a holder that was relieved, on base %d: %v", base, err)
		}
	}
	if _, err := b.Commit(ctx, &fleet.Change{Epoch: two.Epoch, Put: records(&fleet.Machine{ID: "m"})}); err != nil {
		b.Error(err)
	}
}

func attendance(b *bed) {
	for beat := range int64(3) {
		if err := b.Attend(b.Context(), fleet.Presence{Appliance: "one", Beat: beat, Doc: []byte("{}")}); err != nil {
			b.Fatal(err)
		}
	}
	if err := b.Attend(b.Context(), fleet.Presence{Appliance: "two", Doc: []byte("[]")}); err != nil {
		b.Fatal(err)
	}
	list, err := b.Attendance(b.Context())
	if err != nil || len(list) != 2 || list[0].Beat != 2 || string(list[1].Doc) != "[]" {
		b.Fatalf("%+v, %v", list, err)
	}
}

func eventsByQuery(b *bed) {
	b.write(&fleet.Change{Events: []fleet.Event{
		{Kind: "machine.seen", Machine: "m"}, {Kind: "machine.merged", Machine: "n"}, {Kind: "machines", Machine: "m"},
		{Kind: "job.running", Machine: "m", Job: "j", Deployment: "d"}, {Kind: "job.failed", Job: "k", Deployment: "d", Actor: "alice"},
	}})
	for want, q := range map[string]fleet.EventQuery{
		"1 2 3 4 5": {}, "3 4 5": {After: 2}, "1 2": {Before: 3}, "2 3": {Before: 4, Limit: 2}, "1 3 4": {Machine: "m"}, "4": {Job: "j"},
		"4 5": {Deployment: "d"}, "1 2 ": {Kind: "machine."}, "3": {Kind: "machines"}, "5": {Actor: "alice"}, "": {Machine: "m", Job: "k"},
	} {
		list, err := b.Events(b.Context(), q)
		if err != nil {
			b.Fatal(err)
		}
		var got []string
		for _, e := range list {
			got = append(got, fmt.Sprint(e.ID))
		}
		if strings.Join(got, " ") != strings.TrimSpace(want) {
			b.Errorf("%+v: %v, want %s", q, got, want)
		}
	}
}

func eventsByIndex(b *bed) {
	c := &fleet.Change{}
	for i := range 3000 {
		c.Events = append(c.Events, fleet.Event{Kind: []string{"job.running", "job.phase", "machine.seen"}[i%3], Machine: fmt.Sprint(i)})
	}
	c.Events = append(c.Events, fleet.Event{Kind: "user.created", Actor: "alice"})
	b.write(c)
	for index, q := range map[string]fleet.EventQuery{"events_kind": {Kind: "user.created"}, "events_topic": {Kind: "user."}, "events_actor": {Actor: "alice"},
		"events_machine": {Machine: "7"}} {
		for _, q := range []fleet.EventQuery{q, {Kind: q.Kind, Actor: q.Actor, Machine: q.Machine, Before: 1e6, Limit: 100}} {
			plan, err := store.EventsPlan(b.Context(), b.Store, q)
			if err != nil {
				b.Fatal(err)
			}
			if !strings.Contains(plan, index) || strings.Contains(plan, "SCAN events") {
				b.Errorf("%+v: %s", q, plan)
			}
		}
	}
}

func jobsByPage(b *bed) {
	c := &fleet.Change{}
	want := map[string]bool{}
	for i := range 50 { // 20 and more in one second, at different parts of it
		id := fmt.Sprintf("j%02d", i*7%50)
		want[id] = true
		c.Put = append(c.Put, &fleet.Job{ID: id, Machine: "m", State: job.Succeeded, Ended: time.Unix(1e9+int64(i/20), int64(i)*1e6)})
	}
	b.write(c)
	q := fleet.JobQuery{Machine: "m", Limit: 3}
	for pages := 0; ; pages++ {
		list, err := b.Jobs(b.Context(), q)
		if err != nil || pages > 20 {
			b.Fatal(pages, err)
		}
		for _, j := range list {
			if !want[j.ID] {
				b.Errorf("%s is on two pages", j.ID)
			}
			delete(want, j.ID)
		}
		if len(list) < q.Limit {
			break
		}
		q.Before, q.Behind = list[len(list)-1].Ended, list[len(list)-1].ID
	}
	if len(want) > 0 {
		b.Errorf("on no page: %v", want)
	}
}

func jobsByQuery(b *bed) {
	at := time.Unix(1e9, 0)
	b.write(&fleet.Change{Put: records(
		&fleet.Job{ID: "a", Machine: "m", Deployment: "d", State: job.Succeeded, Ended: at},
		&fleet.Job{ID: "b", Machine: "m", Deployment: "e", State: job.Failed, Ended: at.Add(time.Second)},
		&fleet.Job{ID: "c", Machine: "n", Deployment: "d", State: job.Cancelled, Ended: at.Add(2 * time.Second)},
		&fleet.Job{ID: "d", Machine: "m", Deployment: "d", State: job.Running},
	)})
	for want, q := range map[string]fleet.JobQuery{
		"c b a": {}, "b a": {Machine: "m"}, "c a": {Deployment: "d"}, "a": {Before: at.Add(time.Second)}, "c": {Limit: 1},
	} {
		list, err := b.Jobs(b.Context(), q)
		if err != nil {
			b.Fatal(err)
		}
		var got []string
		for _, j := range list {
			got = append(got, j.ID)
		}
		if strings.Join(got, " ") != want {
			b.Errorf("%+v: %v, want %s", q, got, want)
		}
	}
}

// writers commit from several stores at once, each again where another was faster: all are there in the end, each once.
func writers(b *bed) {
	const each = 20
	stores := []*store.Store{b.Store, b.Store}
	if b.Shared() {
		stores = append(stores, open(b.T, b.location), open(b.T, b.location))
	}
	var all sync.WaitGroup
	for w, s := range stores {
		all.Go(func() {
			number := int64(0)
			for i := 0; i < each; {
				c := &fleet.Change{Base: number, Put: records(&fleet.Machine{ID: fmt.Sprintf("%d-%d", w, i)}), Events: []fleet.Event{{Text: "e"}}}
				n, err := s.Commit(b.Context(), c)
				switch {
				case err == nil:
					number, i = n, i+1
				case errors.Is(err, fleet.ErrConflict):
					snap, err := s.Since(b.Context(), number)
					if err != nil {
						b.Error(err)
						return
					}
					number = snap.Number
				default:
					b.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	snap, err := b.Load(b.Context(), time.Now())
	if err != nil || len(snap.Put) != each*len(stores) || snap.Number != int64(each*len(stores)) {
		b.Fatalf("%d records at %d, %v", len(snap.Put), snap.Number, err)
	}
	events, err := b.Events(b.Context(), fleet.EventQuery{Limit: 10000})
	if err != nil || len(events) != len(snap.Put) || events[len(events)-1].ID != int64(len(events)) {
		b.Fatalf("%d events, %v", len(events), err)
	}
}

// TestWhatPostgresAcknowledgedSurvivesItsKill kills the server below a store that commits, and looks for the last event that
// was acknowledged. The store goes on by itself when the server is back.
func TestWhatPostgresAcknowledgedSurvivesItsKill(t *testing.T) {
	server := postgres.Start(t)
	location := server.Database()
	s := open(t, location)
	var said int64
	for ; said < 20; said++ {
		if _, err := s.Commit(t.Context(), &fleet.Change{Base: said, Events: []fleet.Event{{Text: "event"}}}); err != nil {
			t.Fatal(err)
		}
	}
	server.Kill()
	if _, err := s.Commit(t.Context(), &fleet.Change{Base: said}); err == nil || errors.Is(err, fleet.ErrConflict) {
		t.Fatalf("commit without a server: %v", err)
	}
	server.Restart()
	// Connections that idle are of the server before, whether something is written or read first, and however soon.
	for range 3 {
		for range 3 {
			if _, err := s.Commit(t.Context(), &fleet.Change{Base: said, Events: []fleet.Event{{Text: "event"}}}); err != nil {
				t.Fatal(err)
			}
			said++
		}
		server.Kill()
		server.Restart()
	}
	events, err := s.Events(t.Context(), fleet.EventQuery{})
	if err != nil || len(events) != int(said) {
		t.Fatalf("%d events, %d were acknowledged, %v", len(events), said, err)
	}
	if _, err := s.Commit(t.Context(), &fleet.Change{Base: said, Events: []fleet.Event{{Text: "event"}}}); err != nil {
		t.Fatal(err)
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
	events, err := s.Events(t.Context(), fleet.EventQuery{Limit: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	if len(events) < said || !strings.HasPrefix(events[said-1].Text, "event") {
		t.Fatalf("%d events, %d were acknowledged", len(events), said)
	}
}

func commitForEver(path string) {
	s, err := store.Open(context.Background(), path)
	var number int64
	for err == nil {
		c := &fleet.Change{Base: number, Events: []fleet.Event{{Text: "event"}}}
		if number, err = s.Commit(context.Background(), c); err == nil {
			fmt.Println(c.Events[0].ID)
		}
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// earlier are statements that put the same records into the tables of an earlier version.
func earlier(version int64, shared bool) []string {
	blob := func(hex string) string {
		if shared {
			return `'\x` + hex + `'`
		}
		return "x'" + hex + "'"
	}
	docs := map[string]string{
		"machine": `'{"id":"m","version":3,"name":"pc"}'`, "deployment": `'{"id":"d","version":1,"all":true}'`, "session": `'{"id":"s","version":2}'`, "token": `'{"id":"t","version":1}'`,
		"job": `'{"id":"j","version":4,"machine":"m","deployment":"d","state":"succeeded"}'`, "event": `'{"kind":"machine.seen","machine":"m","text":"seen"}'`,
	}
	receipt := `INSERT INTO receipts VALUES ('j', 1, ` + blob("00") + `, ` + blob("01") + `, ` + blob("02") + `)`
	if version < 3 {
		list := []string{
			`INSERT INTO machines VALUES ('m', 3, ` + docs["machine"] + `)`, `INSERT INTO deployments VALUES ('d', 1, ` + docs["deployment"] + `)`,
			`INSERT INTO sessions VALUES ('s', 2, ` + docs["session"] + `)`, `INSERT INTO jobs VALUES ('j', 4, 'm', 1000, ` + docs["job"] + `)`,
			`INSERT INTO events VALUES (7, ` + docs["event"] + `)`, `UPDATE epoch SET epoch = 5`, receipt,
		}
		if version > 1 {
			list = append(list, `INSERT INTO tokens VALUES ('t', 1, `+docs["token"]+`)`)
		}
		return list
	}
	parent, kind, machine := `''`, `''`, `''`
	if version > 3 { // which the fourth fills
		parent, kind, machine = `'d'`, `'machine.seen'`, `'m'`
	}
	return []string{
		`INSERT INTO records VALUES ('machine', 'm', 3, 9, '', '', 0, ` + docs["machine"] + `), ('deployment', 'd', 1, 9, '', '', 0, ` + docs["deployment"] + `),
			('session', 's', 2, 9, '', '', 0, ` + docs["session"] + `), ('token', 't', 1, 9, '', '', 0, ` + docs["token"] + `), ('job', 'j', 4, 9, 'm', ` + parent + `, 1000, ` + docs["job"] + `)`,
		`INSERT INTO events (id, kind, machine, doc) VALUES (7, ` + kind + `, ` + machine + `, ` + docs["event"] + `)`,
		`UPDATE site SET epoch = 5, event = 7, commit_number = 9`, receipt,
	}
}

// TestRecordsOfEachEarlierVersionAreTakenOver fills the tables of each version that there was, and goes on with them.
func TestRecordsOfEachEarlierVersionAreTakenOver(t *testing.T) {
	server := postgres.Start(t)
	newest, err := store.Newest(t.Context(), open(t, filepath.Join(t.TempDir(), "r.db")))
	if err != nil || newest < 6 {
		t.Fatalf("version %d, %v", newest, err)
	}
	for version := int64(1); version <= newest; version++ {
		for kind, location := range map[string]string{"SQLite": filepath.Join(t.TempDir(), "r.db"), "PostgreSQL": server.Database()} {
			t.Run(fmt.Sprintf("%s, version %d", kind, version), func(t *testing.T) {
				if err := store.OpenAs(t.Context(), location, version, earlier(version, kind == "PostgreSQL")...); err != nil {
					t.Fatal(err)
				}
				takenOver(t, open(t, location), 4+min(int(version)-1, 1))
			})
		}
	}
}

// takenOver looks at the records of earlier, of which there are so many.
func takenOver(t *testing.T, s *store.Store, count int) {
	t.Helper()
	snap, err := s.Load(t.Context(), time.Now())
	if err != nil || len(snap.Put) != count { // the job is of an open deployment to all
		t.Fatalf("%s, %v", keys(snap.Put), err)
	}
	for _, r := range snap.Put {
		if m, ok := r.(*fleet.Machine); ok {
			m.Name = "pc2"
			if _, err := s.Commit(t.Context(), &fleet.Change{Base: snap.Number, Put: records(m), Events: []fleet.Event{{Text: "next"}}}); err != nil || m.Version != 4 {
				t.Fatalf("version %d, %v", m.Version, err)
			}
		}
	}
	events, err := s.Events(t.Context(), fleet.EventQuery{})
	if err != nil || len(events) != 2 || events[0].ID != 7 || events[1].ID != 8 {
		t.Fatalf("%+v, %v", events, err)
	}
	if events, err = s.Events(t.Context(), fleet.EventQuery{Machine: "m", Kind: "machine."}); err != nil || len(events) != 1 {
		t.Fatalf("%+v, %v", events, err)
	}
	if jobs, err := s.Jobs(t.Context(), fleet.JobQuery{Deployment: "d", Machine: "m"}); err != nil || len(jobs) != 1 {
		t.Fatalf("%+v, %v", jobs, err)
	}
	if o, err := s.Office(t.Context()); err != nil || o.Epoch != 5 {
		t.Fatalf("%+v, %v", o, err)
	}
	if r, err := s.Receipt(t.Context(), "j"); err != nil || r.Signature[0] != 1 {
		t.Fatalf("%+v, %v", r, err)
	}
}

// TestRecordsOfANewerProgramAreLeftAlone: an appliance that was put back to an older version does not write into tables that it does
// not know.
func TestRecordsOfANewerProgramAreLeftAlone(t *testing.T) {
	server := postgres.Start(t)
	for kind, location := range map[string]string{"SQLite": filepath.Join(t.TempDir(), "r.db"), "PostgreSQL": server.Database()} {
		open(t, location).Close()
		if err := store.OpenAs(t.Context(), location, 1, "INSERT INTO goose_db_version (version_id, is_applied) VALUES (99, "+map[string]string{"SQLite": "1", "PostgreSQL": "true"}[kind]+")"); err != nil {
			t.Fatal(err)
		}
		s, err := store.Open(t.Context(), location)
		if err == nil || !strings.Contains(err.Error(), "version 99") || !strings.Contains(err.Error(), "start the newer program") {
			t.Errorf("%s: %v", kind, err)
		}
		if err == nil {
			s.Close()
		}
	}
}

// deletions are of jobs with all that is kept for them, and of the oldest events; what is not there is no error.
func deletions(b *bed) {
	at := time.Date(2026, 5, 4, 8, 0, 0, 0, time.UTC)
	c := &fleet.Change{}
	for _, id := range []string{"a", "b"} {
		c.Put = append(c.Put, &fleet.Job{ID: id, Machine: "m", Deployment: "d", State: job.Succeeded, Ended: at})
		c.Receipts = append(c.Receipts, fleet.Receipt{Job: id, At: at, Receipt: []byte("r"), Signature: []byte("s"), Countersignature: []byte("c")})
		c.Frames = append(c.Frames, fleet.Frame{Job: id, Digest: images.Sum(nil), At: at, Bytes: []byte("f")})
		c.Events = append(c.Events, fleet.Event{At: at, Kind: "job.x", Job: id}, fleet.Event{At: at, Kind: "job.y", Job: id})
	}
	b.write(c)
	before, err := b.Load(b.Context(), at.Add(-time.Hour))
	if err != nil {
		b.Fatal(err)
	}
	b.write(&fleet.Change{Delete: fleet.Deletion{Jobs: []string{"a", "never"}, Events: 3}})
	after, err := b.Since(b.Context(), before.Number)
	if err != nil || len(after.Put) != 0 || len(after.Remove) != 1 || after.Remove[0] != (fleet.Key{Kind: fleet.KindJob, ID: "a"}) {
		b.Errorf("other appliances learn %+v, %v", after, err)
	}
	if list, err := b.Jobs(b.Context(), fleet.JobQuery{}); err != nil || len(list) != 1 || list[0].ID != "b" {
		b.Errorf("jobs %v, %v", list, err)
	}
	for id, want := range map[string]int{"a": 0, "b": 1} {
		r, err := b.Receipt(b.Context(), id)
		frames, err2 := b.Frames(b.Context(), id)
		if err != nil || err2 != nil || (r != nil) != (want == 1) || len(frames) != want {
			b.Errorf("job %s: receipt %v, frames %v, %v, %v", id, r, frames, err, err2)
		}
	}
	if list, err := b.Events(b.Context(), fleet.EventQuery{}); err != nil || len(list) != 1 || list[0].ID != 4 {
		b.Errorf("events %+v, %v", list, err)
	}
	b.write(&fleet.Change{Delete: fleet.Deletion{Events: 4}})
	last := &fleet.Change{Events: []fleet.Event{{At: at, Kind: "job.z"}}}
	b.write(last)
	if last.Events[0].ID != 5 {
		b.Errorf("an event after all were deleted has the ID %d: IDs never come again", last.Events[0].ID)
	}
}

// seenBoots are written anew as they go on; of each machine the last few are kept, for each appliance.
func seenBoots(b *bed) {
	at := time.Date(2026, 5, 4, 8, 0, 0, 123, time.UTC)
	keep := func(appliance string, list ...fleet.SeenBoot) {
		b.Helper()
		for i := range list {
			list[i].Appliance = appliance
		}
		if err := b.KeepBoots(b.Context(), list); err != nil {
			b.Fatal(err)
		}
	}
	boot := func(mac string, minute int, doc string) fleet.SeenBoot {
		began := at.Add(time.Duration(minute) * time.Minute)
		return fleet.SeenBoot{MAC: mac, Began: began, Latest: began.Add(time.Second), Doc: []byte(doc)}
	}
	look := func(want string, q fleet.BootQuery) {
		b.Helper()
		list, err := b.Boots(b.Context(), q)
		if err != nil {
			b.Fatal(err)
		}
		var got []string
		for _, s := range list {
			got = append(got, s.MAC+s.Appliance+string(s.Doc))
			if s.Began.Nanosecond() != 123 || !s.Latest.Equal(s.Began.Add(time.Second)) {
				b.Errorf("%+v", s)
			}
		}
		if strings.Join(got, " ") != want {
			b.Errorf("%+v: %q, want %q", q, got, want)
		}
	}
	keep("A", boot("m", 0, "begun"), boot("n", 1, "n"))
	keep("A", boot("m", 0, "ended"))
	keep("B", boot("m", 2, "b"))
	look("mBb nAn mAended", fleet.BootQuery{})
	look("mBb mAended", fleet.BootQuery{MACs: []string{"m", "other"}})
	look("nAn", fleet.BootQuery{Appliance: "A", Since: at.Add(time.Minute)})
	look("mBb", fleet.BootQuery{Limit: 1})
	for minute := 3; minute < 3+fleet.KeptBoots; minute++ {
		keep("A", boot("m", minute, fmt.Sprint(minute)))
	}
	look("mA7 mA6 mA5 mA4 mA3 mBb", fleet.BootQuery{MACs: []string{"m"}})
	var crowd []fleet.SeenBoot // of more than one statement
	for i := range 250 {
		crowd = append(crowd, boot(fmt.Sprintf("%03d", i), 30, "c"))
	}
	keep("C", crowd...)
	if macs, err := b.BootMACs(b.Context()); err != nil || len(macs) != 252 {
		b.Errorf("%d cards, %v", len(macs), err)
	}
	gone := make([]string, len(crowd))
	for i := range crowd {
		gone[i] = crowd[i].MAC
	}
	if n, err := b.ForgetBoots(b.Context(), at.Add(5*time.Minute), time.Time{}, gone); err != nil || n != 250+4 {
		b.Errorf("%d deleted, %v", n, err)
	}
	if n, err := b.ForgetBoots(b.Context(), time.Time{}, time.Time{}, nil); err != nil || n != 0 {
		b.Errorf("%d deleted, %v", n, err)
	}
	look("mA7 mA6 mA5", fleet.BootQuery{})
}
