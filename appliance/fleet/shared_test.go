package fleet_test

import (
	"context"
	"crypto/x509"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
	"seedbed/appliance/site"
	"seedbed/test-vm/postgres"
)

// newSite returns n appliances of one site on one PostgreSQL database.
func newSite(t *testing.T, n int) (rooms []*room, server *postgres.Server) {
	t.Helper()
	server = postgres.Start(t)
	location, dir := server.Database(), t.TempDir()
	lib := newLibrary()
	at := &clock{t: time.Date(2026, 5, 4, 8, 0, 0, 0, time.UTC)}
	for i := range n {
		r := &room{t: t, dir: dir, id: fmt.Sprintf("appliance-%d", i), location: location, admit: fleet.AdmitAuto, lib: lib, clock: at}
		var err error
		if r.site, err = site.Open(dir); err != nil {
			t.Fatal(err)
		}
		r.start()
		t.Cleanup(func() { r.store.Close() })
		rooms = append(rooms, r)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var following sync.WaitGroup
	for _, r := range rooms {
		following.Go(func() { fleet.Follow(r.Fleet, ctx) })
	}
	t.Cleanup(func() { cancel(); following.Wait() })
	return rooms, server
}

// at has an agent talk to another appliance from now on.
func (a *agent) at(r *room) {
	a.r.t.Helper()
	a.r = r
	var err error
	if a.caller, err = r.Authenticate(&x509.Certificate{RawSubjectPublicKeyInfo: a.public()}); err != nil {
		a.r.t.Fatal(err)
	}
}

// mustClaim asks for the machine's job until it gets it, as agents do.
func (a *agent) mustClaim() {
	for a.claim() == nil {
	}
}

func TestAgentMayTalkToEachApplianceInTurn(t *testing.T) {
	rooms, _ := newSite(t, 2)
	one, two := rooms[0], rooms[1]
	one.deployAll()
	a := two.boot(macA, invA)
	a.at(one)
	a.mustClaim()
	a.at(two)
	a.mustReport(job.PhaseContent, 10)
	a.at(one)
	a.mustReport(job.PhaseVerify, 1000)
	a.at(two)
	a.finish()
	fleet.CatchUp(one.Fleet)
	if v := one.jobOf(macA); v.State != job.Succeeded || v.Epoch != 1 {
		t.Fatalf("%+v", v)
	}
	if got := one.powerOn(macA); got.Agent || got.ESPVolumeID != "ABCD-1234" {
		t.Fatalf("assignment %+v", got)
	}
}

// TestAppliancesAtTheSameTimeDoNothingTwice lets the agents of a room talk to a random appliance at each step, all at once.
func TestAppliancesAtTheSameTimeDoNothingTwice(t *testing.T) {
	const machines = 24
	rooms, _ := newSite(t, 3)
	rooms[0].deployAll()
	var all sync.WaitGroup
	for i := range machines {
		all.Go(func() {
			any := func() *room { return rooms[rand.IntN(len(rooms))] }
			mac := fmt.Sprintf("52:54:00:00:00:%02x", i)
			inv := job.Inventory{UUID: fmt.Sprintf("11111111-2222-3333-4444-5555555555%02x", i), Serial: fmt.Sprintf("SERIAL-%d", i), Firmware: "uefi",
				NICs: []job.NIC{{Name: "eth0", MAC: mac}}}
			for _, r := range []*room{any(), any()} { // DHCP is answered by all
				r.powerOn(mac)
			}
			a := any().boot(mac, inv)
			a.at(any())
			a.mustClaim()
			for held := int64(0); held <= 1000; held += 500 {
				a.at(any())
				a.mustReport(job.PhaseContent, held)
			}
			a.at(any())
			a.finish()
		})
	}
	all.Wait()
	for _, r := range rooms {
		fleet.CatchUp(r.Fleet)
		jobs := r.Jobs()
		if len(jobs) != machines {
			t.Fatalf("%d jobs of %d machines", len(jobs), machines)
		}
		for _, j := range jobs {
			if j.State != job.Succeeded || j.Epoch != 1 {
				t.Errorf("job %s is %s after %d claims: %s", j.ID, j.State, j.Epoch, j.Reason)
			}
		}
		if n := len(r.Machines()); n != machines {
			t.Errorf("%d machines, there are %d", n, machines)
		}
	}
	kinds := rooms[0].events()
	slices.Sort(kinds)
	for _, kind := range []string{"machine.seen", "machine.hello", "machine.inventory", "job.claimed", "job.succeeded"} {
		if n := len(slices.DeleteFunc(slices.Clone(kinds), func(k string) bool { return k != kind })); n != machines {
			t.Errorf("%d events %s for %d machines", n, kind, machines)
		}
	}
}

func TestApplianceTakesOverTheScheduleOfASilentOne(t *testing.T) {
	rooms, _ := newSite(t, 2)
	one, two := rooms[0], rooms[1]
	var seenByOne, seenByTwo fleet.Watch
	attend := func(r *room, w *fleet.Watch) {
		t.Helper()
		if err := fleet.AttendOffice(r.Fleet, t.Context(), w); err != nil {
			t.Fatal(err)
		}
	}
	attend(one, &seenByOne)
	attend(two, &seenByTwo)
	if !one.InOffice() || two.InOffice() {
		t.Fatalf("in office: %v and %v", one.InOffice(), two.InOffice())
	}
	for range 10 { // as long as it says that it is there, nobody else comes
		one.clock.add(fleet.OfficeVacant / 2)
		attend(one, &seenByOne)
		attend(two, &seenByTwo)
	}
	if two.InOffice() {
		t.Fatal("took over from one at work")
	}
	one.deployAll()
	a := one.boot(macA, invA)
	a.mustClaim()
	a.mustReport(job.PhaseContent, 10)
	one.clock.add(fleet.OfficeVacant + time.Second)
	attend(two, &seenByTwo)
	if !two.InOffice() {
		t.Fatal("nobody schedules the site")
	}
	// The old one sleeps on, wakes up when the claim has expired at the new one, and must not expire it again.
	fleet.CatchUp(two.Fleet)
	one.clock.add(2 * time.Minute)
	if err := fleet.Tidy(two.Fleet, t.Context()); err != nil {
		t.Fatal(err)
	}
	b := two.boot(macA, invA)
	b.mustClaim()
	if !one.InOffice() {
		t.Fatal("the old one knows already; the test tests nothing")
	}
	for _, do := range []func(*fleet.Fleet, context.Context) error{fleet.Tidy, fleet.Schedule} {
		if err := do(one.Fleet, t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if slices.Contains(two.events(), "test.scheduled") {
		t.Fatal("the old one scheduled")
	}
	if one.InOffice() {
		t.Fatal("the old one was not told that it is relieved")
	}
	fleet.CatchUp(one.Fleet)
	for _, r := range rooms {
		if v := r.jobOf(macA); v.State != job.Claimed || v.Epoch != 2 {
			t.Errorf("%s: job is %s after %d claims", r.id, v.State, v.Epoch)
		}
	}
	attend(one, &seenByOne)
	if one.InOffice() {
		t.Fatal("two in office")
	}
}

// TestAMachineThatReportsElsewhereIsNotSilent has the one in office learn from the other that a machine is at work.
func TestAMachineThatReportsElsewhereIsNotSilent(t *testing.T) {
	rooms, _ := newSite(t, 2)
	one, two := rooms[0], rooms[1]
	if err := fleet.AttendOffice(one.Fleet, t.Context(), new(fleet.Watch)); err != nil {
		t.Fatal(err)
	}
	one.deployAll()
	a := two.boot(macA, invA)
	a.mustClaim()
	for held := range int64(5) {
		one.clock.add(time.Minute)
		if held == 1 { // by the first exchange it is known that the other one is there
			a.says(&job.Screen{Level: "working", Word: "copying"})
		}
		a.mustReport(job.PhaseContent, held)
		for _, r := range rooms[1:] {
			if err := fleet.Exchange(r.Fleet, t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if err := fleet.Exchange(one.Fleet, t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := fleet.Tidy(one.Fleet, t.Context()); err != nil {
			t.Fatal(err)
		}
		if v := one.jobOf(macA); v.State != job.Running && held > 0 || v.Held != held {
			t.Fatalf("job is %s with %d held, want %d", v.State, v.Held, held)
		}
		if m, err := one.Machine(a.me.Machine); err != nil || held > 0 && (m.Screen == nil || m.Screen.Word != "copying") {
			t.Fatalf("its screen, which another appliance was told of, says %+v, %v", m.Screen, err)
		}
	}
	one.clock.add(2 * time.Minute)
	fleet.Exchange(one.Fleet, t.Context())
	if err := fleet.Tidy(one.Fleet, t.Context()); err != nil {
		t.Fatal(err)
	}
	if v := one.jobOf(macA); v.State != job.Waiting {
		t.Fatalf("job of a silent machine is %s", v.State)
	}
}

// TestAppliancesOutliveTheDatabase kills the database below two appliances; reports go on, and what was ordered in between
// is refused with a sentence and possible afterwards.
func TestAppliancesOutliveTheDatabase(t *testing.T) {
	rooms, server := newSite(t, 2)
	one, two := rooms[0], rooms[1]
	one.deployAll()
	a := two.boot(macA, invA)
	a.mustClaim()
	a.mustReport(job.PhaseContent, 1)
	server.Kill()
	a.mustReport(job.PhaseContent, 2)
	if _, err := one.Deploy(t.Context(), fleet.Order{Image: "debian", All: true}); err == nil {
		t.Fatal("ordered without a database")
	}
	server.Restart()
	a.mustReport(job.PhaseVerify, 1000)
	a.finish()
	fleet.CatchUp(one.Fleet)
	if v := one.jobOf(macA); v.State != job.Succeeded {
		t.Fatalf("job is %s", v.State)
	}
}
