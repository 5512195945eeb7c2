package fleet_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
	"seedbed/appliance/site"
	"seedbed/appliance/store"
	"seedbed/test-vm/postgres"
	"seedbed/test-vm/powercut"
)

// worldLength is how many crashes one fleet lives through, before another one begins: what it looks through after each grows.
const worldLength = 100

// TestABusyFleetOutlivesPowerCutsAtAnyMoment lets a room work on an appliance whose disk loses power at random operations, and with
// it a random part of what was not synced; with SEEDBED_FULL=1 two thousand times. Now and then the disk is full for a while. After
// each cut the records are those of after the last commit that was acknowledged, or of after one that was not, byte for byte; and
// machines, jobs, claims and what people did are as they were told.
func TestABusyFleetOutlivesPowerCutsAtAnyMoment(t *testing.T) {
	t.Parallel()
	worlds, length := 1, worldLength/2
	if os.Getenv("SEEDBED_FULL") != "" {
		worlds, length = 20, worldLength
	}
	for i := range worlds {
		t.Run(fmt.Sprint("fleet ", i), func(t *testing.T) {
			w := newWorld(t, uint64(i))
			lost := w.losePower(length)
			w.comeToAnEnd()
			if w.book.count(job.Failed)+w.book.count(job.Cancelled) == 0 || lost.onTheWay == 0 || w.log.refused == 0 {
				t.Errorf("%s: the test tests nothing", w.book)
			}
			t.Logf("%d power cuts, %d of them with a commit on its way, %d of which were there afterwards; %d commits that a full disk refused: %s",
				length, lost.onTheWay, lost.kept, w.log.refused, w.book)
		})
	}
}

type losses struct{ onTheWay, kept int }

// losePower has the room work while the power is cut many times.
func (w *world) losePower(times int) (seen losses) {
	w.t.Helper()
	disk := w.power(w.dirs())
	w.begin()
	for range times {
		cut := disk.Cut
		if w.random.IntN(3) == 0 {
			cut = disk.CutAtSync
		}
		if w.random.IntN(6) == 0 {
			disk.Fail(1+w.random.Int64N(60), 1+w.random.Int64N(40)) // the disk is full for a while
		}
		cut(1 + w.random.Int64N(1+w.random.Int64N(240)))
		select {
		case <-disk.Off():
		case <-time.After(time.Minute):
			w.t.Fatal("a busy fleet writes nothing")
		}
		disk = w.restart(disk, &seen)
		if w.t.Failed() {
			w.t.FailNow()
		}
	}
	return seen
}

// restart starts the appliance on what a power cut left, and looks at it.
func (w *world) restart(disk *powercut.Disk, seen *losses) *powercut.Disk {
	w.t.Helper()
	w.gate.Lock() // what is on its way fails at once
	defer w.gate.Unlock()
	w.rooms[0].store.Close()
	next := filepath.Dir(w.rooms[0].location)
	var used []string
	for range 1 + w.random.IntN(2) { // of what may be left, one or two are looked at, and the fleet goes on with the last
		used, next = append(used, next), w.dirs()
		if err := disk.Restore(next, powercut.Loss(w.random.IntN(int(powercut.Losses))), w.random); err != nil {
			w.t.Fatal(err)
		}
		w.compare(filepath.Join(next, "records.db"))
	}
	if w.log.onTheWay() {
		seen.onTheWay++
	}
	if w.log.recovered() {
		seen.kept++
	}
	disk.Unmount()
	disk = w.power(next)
	w.check()
	for _, dir := range used {
		os.RemoveAll(dir)
	}
	return disk
}

// dirs makes a folder for one disk.
func (w *world) dirs() string {
	dir, err := os.MkdirTemp(w.dir, "disk")
	if err != nil {
		w.t.Fatal(err)
	}
	return dir
}

// power starts the appliance on the records in dir, on a disk that can lose power.
func (w *world) power(dir string) *powercut.Disk {
	w.t.Helper()
	disk := powercut.New(w.t, dir)
	w.disk = disk
	w.start(0, filepath.Join(dir, "records.db"))
	return disk
}

// TestAFirstStartOutlivesAPowerCutAtAnyMoment cuts the power while the records are made and while the first administrator is.
func TestAFirstStartOutlivesAPowerCutAtAnyMoment(t *testing.T) {
	t.Parallel()
	every := int64(37)
	if os.Getenv("SEEDBED_FULL") != "" {
		every = 1
	}
	authority, err := site.Open(filepath.Join(t.TempDir(), "site"))
	if err != nil {
		t.Fatal(err)
	}
	begin := func(location string) error {
		s, err := store.Open(t.Context(), location)
		if err != nil {
			return err
		}
		defer s.Close()
		f, err := fleet.New(t.Context(), fleet.Config{Records: s, Authority: authority, Library: newLibrary()})
		if err != nil {
			return err
		}
		return fleet.ClaimRecords(f, t.Context())
	}
	cuts := 0
	for n := int64(1); ; n += every {
		dir := t.TempDir()
		disk := powercut.New(t, dir)
		disk.Cut(n)
		err := begin(filepath.Join(dir, "records.db"))
		if !disk.IsOff() {
			if err != nil {
				t.Fatal(err)
			}
			break
		}
		cuts++
		for loss := range powercut.Losses {
			next := t.TempDir()
			powercut.New(t, next) // whose syncs cost nothing
			if err := disk.Restore(next, loss, rand.New(rand.NewPCG(uint64(n), uint64(loss)))); err != nil {
				t.Fatal(err)
			}
			if err := begin(filepath.Join(next, "records.db")); err != nil {
				t.Fatalf("after a power cut at operation %d, loss %d: %v", n, loss, err)
			}
		}
	}
	if cuts < 4 {
		t.Errorf("%d power cuts: the test tests nothing", cuts)
	}
	t.Logf("%d power cuts", cuts)
}

// TestABusySiteOutlivesItsDatabaseAndItsAppliances is the same room at two appliances on PostgreSQL, of which the server is
// killed, or an appliance, or both, at random moments; with SEEDBED_FULL=1 a hundred times.
func TestABusySiteOutlivesItsDatabaseAndItsAppliances(t *testing.T) {
	kills := 5
	if os.Getenv("SEEDBED_FULL") != "" {
		kills = 100
	}
	w := newWorld(t, 1)
	server := postgres.Start(t)
	location := server.Database()
	for i := range 2 {
		w.start(i, location)
	}
	w.begin()
	for n := range kills {
		before := w.steps.Load()
		wanted := before + 1 + w.random.Int64N(120)
		for end := time.Now().Add(time.Minute); w.steps.Load() < wanted; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("the room stands still after %d steps", w.steps.Load())
			}
		}
		if n%3 != 2 {
			server.Kill() // in the middle of what is on its way
		}
		w.recover(server, location, n%3 != 2, n%3 != 0)
		if t.Failed() {
			t.FailNow()
		}
	}
	w.comeToAnEnd()
	t.Logf("%d kills: %s", kills, w.book)
}

// recover starts the server and the appliances again that were killed, and looks at what is there.
func (w *world) recover(server *postgres.Server, location string, killed, forgets bool) {
	w.t.Helper()
	w.gate.Lock()
	defer w.gate.Unlock()
	if forgets {
		for _, r := range w.rooms { // what they held in memory is gone
			r.store.Close()
		}
	}
	if killed {
		server.Restart()
	}
	for i, r := range w.rooms {
		if forgets {
			w.start(i, location)
			continue
		}
		for end := time.Now().Add(20 * time.Second); ; { // the connections from before are broken
			err := fleet.CatchUp(r.Fleet)
			if err == nil {
				break
			}
			if time.Now().After(end) {
				w.t.Fatal(err)
			}
		}
	}
	w.check()
}
