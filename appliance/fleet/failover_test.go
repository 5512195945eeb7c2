package fleet_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
	"seedbed/appliance/site"
)

func TestClaimWhoseAnswerWasLostIsTheSameClaim(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	r.deployAll()
	a := r.boot(macA, invA)
	first := a.claim()
	if again := a.claim(); again == nil || again.ID != first.ID || again.Epoch != 1 {
		t.Fatalf("asked again: %+v", again)
	}
	a.mustReport(job.PhaseContent, 1)
	if n := strings.Count(strings.Join(r.events(), " "), "job.claimed"); n != 1 {
		t.Errorf("%d claims are recorded", n)
	}
	b := r.boot(macA, invA) // another boot is another claim
	if j := b.claim(); j == nil || j.Epoch != 2 {
		t.Fatalf("after another boot: %+v", j)
	}
}

func TestRecordsOfAnotherSiteAreRefused(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	if err := fleet.ClaimRecords(r.Fleet, t.Context()); err != nil {
		t.Fatal(err)
	}
	other, err := site.Open(filepath.Join(t.TempDir(), "site"))
	if err != nil {
		t.Fatal(err)
	}
	for want, authority := range map[bool]*site.Site{true: r.site, false: other} {
		_, err := fleet.New(t.Context(), fleet.Config{Records: r.store, Authority: authority, Library: r.lib})
		if (err == nil) != want || !want && !strings.Contains(err.Error(), "seedbed site import") {
			t.Errorf("same site %v: %v", want, err)
		}
	}
}

// TestTwoFirstStartsOfDifferentSitesLeaveOne has both read empty records before either writes.
func TestTwoFirstStartsOfDifferentSitesLeaveOne(t *testing.T) {
	rooms, _ := newSite(t, 1)
	one := rooms[0]
	other, err := site.Open(filepath.Join(t.TempDir(), "site"))
	if err != nil {
		t.Fatal(err)
	}
	two, err := fleet.New(t.Context(), fleet.Config{ID: "two", Records: one.store, Authority: other, Library: one.lib})
	if err != nil {
		t.Fatal(err)
	}
	if err := fleet.ClaimRecords(one.Fleet, t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := fleet.ClaimRecords(two, t.Context()); err == nil || !strings.Contains(err.Error(), "seedbed site import") {
		t.Errorf("the second: %v", err)
	}
}

// seedNode joins as a seed node and returns who it is to the appliances.
func seedNode(t *testing.T, r *room) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Join(t.Context(), nil, true, visitorAddr, job.Join{PublicKey: public, Role: job.RoleSeed, Name: "node"}); err != nil {
		t.Fatal(err)
	}
	return &x509.Certificate{RawSubjectPublicKeyInfo: public}
}

// nodeAsks reports as a seed node does, and does not wait for another order.
func nodeAsks(t *testing.T, r *room, cert *x509.Certificate) job.NodeOrder {
	t.Helper()
	c, err := r.AuthenticateReader(cert)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	order, err := r.NodeReport(ctx, c, visitorAddr, job.NodeReport{Name: "node", Port: 6881, All: true})
	if err != nil {
		t.Fatal(err)
	}
	return order
}

func TestSeedNodesAreTheSitesWhicheverApplianceTheyReportTo(t *testing.T) {
	rooms, _ := newSite(t, 2)
	one, two := rooms[0], rooms[1]
	exchange := func() {
		t.Helper()
		for _, r := range []*room{one, two, one, two, one} { // they meet, and hear each other from then on
			if err := fleet.Exchange(r.Fleet, t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	a, b := seedNode(t, one), seedNode(t, one)
	nodeAsks(t, one, a)
	nodeAsks(t, two, b)
	exchange()
	one.clock.add(5 * time.Second) // until they have settled
	if n, err := one.Warm(t.Context(), "debian", 0.5); err != nil || n != 2 {
		t.Fatalf("%d nodes, %v", n, err)
	}
	if err := fleet.CatchUp(two.Fleet); err != nil {
		t.Fatal(err)
	}
	first, second := nodeAsks(t, one, a), nodeAsks(t, two, b)
	if first.Count != 2 || second.Count != 2 || first.Rank == second.Rank || len(first.Serve) != 1 || len(second.Serve) != 1 {
		t.Fatalf("orders %+v and %+v", first, second)
	}
	if moved := nodeAsks(t, two, a); moved.Number != first.Number {
		t.Errorf("the other appliance orders %+v, not %+v", moved, first)
	}
	if _, err := two.DropImage(t.Context(), "debian"); err != nil {
		t.Fatal(err)
	}
	if o := nodeAsks(t, two, b); len(o.Serve) != 0 || len(o.Drop) != 1 {
		t.Errorf("order after the drop: %+v", o)
	}
	later := &room{t: t, dir: one.dir, id: "later", location: one.location, admit: one.admit, lib: one.lib, clock: one.clock, site: one.site}
	later.start()
	defer later.store.Close()
	nodeAsks(t, later, b)
	later.clock.add(5 * time.Second)
	if o := nodeAsks(t, later, b); len(o.Drop) != 1 {
		t.Errorf("order of one that was started later: %+v", o)
	}
}

// insist does something until it is done: an agent asks for ever where no appliance can answer.
func insist(t *testing.T, what string, do func() error) {
	for end := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		err := do()
		if err == nil {
			return
		}
		if _, refused := errors.AsType[*fleet.Refusal](err); refused || time.Now().After(end) {
			t.Errorf("%s: %v", what, err)
			return
		}
	}
}

// TestNothingIsLostOrDoneTwiceThoughTheDatabaseIsKilledAtAnyMoment kills the server below two appliances at random moments, with
// SEEDBED_FULL=1 more often. Whether a commit was lost or only its answer, each step of each machine is recorded once.
func TestNothingIsLostOrDoneTwiceThoughTheDatabaseIsKilledAtAnyMoment(t *testing.T) {
	const machines = 12
	kills := 3
	if os.Getenv("SEEDBED_FULL") != "" {
		kills = 60
	}
	rooms, server := newSite(t, 2)
	rooms[0].deployAll()
	var steps atomic.Int64
	var over atomic.Bool
	var all sync.WaitGroup
	for i := range machines {
		all.Go(func() { workThroughKills(t, rooms, i, &over, &steps) })
	}
	made := func(n int) { // however slow the host is, kills meet machines at work
		t.Helper()
		for end := time.Now().Add(time.Minute); steps.Load() < int64(n*machines); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Errorf("%d steps of %d machines in a minute, not %d each", steps.Load(), machines, n)
				return
			}
		}
	}
	for i := range kills {
		made(2 * i)
		time.Sleep(time.Duration(20+mathrand.IntN(150)) * time.Millisecond) // at any moment
		server.Kill()
		server.Restart()
	}
	made(10)
	over.Store(true)
	all.Wait()
	for _, r := range rooms {
		insist(t, "catch up", func() error { return fleet.CatchUp(r.Fleet) })
		if n := len(r.Jobs()); n != machines {
			t.Errorf("%d jobs of %d machines", n, machines)
		}
		for _, j := range r.Jobs() {
			if j.State != job.Succeeded || j.Epoch != 1 {
				t.Errorf("job %s is %s after %d claims: %s", j.ID, j.State, j.Epoch, j.Reason)
			}
		}
	}
	for kind, want := range map[string]int64{"job.phase": steps.Load(), "job.claimed": machines, "job.succeeded": machines, "machine.hello": machines,
		"machine.seen": machines, "machine.inventory": machines, "job.running": machines} {
		list, err := rooms[0].Events(t.Context(), fleet.EventQuery{Kind: kind, Limit: 1 << 20})
		if err != nil {
			t.Fatal(err)
		}
		if int64(len(list)) != want {
			t.Errorf("%d events %s, want %d", len(list), kind, want)
		}
	}
	t.Logf("%d kills of the database, %d steps of %d machines, each recorded once", kills, steps.Load(), machines)
}

// workThroughKills is a machine from its boot to its receipt, whose steps go to a random appliance each, until over.
func workThroughKills(t *testing.T, rooms []*room, i int, over *atomic.Bool, steps *atomic.Int64) {
	ctx := t.Context()
	any := func() *room { return rooms[mathrand.IntN(len(rooms))] }
	mac := fmt.Sprintf("52:54:00:00:01:%02x", i)
	a := &agent{mac: mac, r: rooms[0]}
	insist(t, "be seen", func() error { return any().Sighted(ctx, fleet.Sighting{MAC: mac, Stage: "dhcp", Firmware: "uefi"}) })
	insist(t, "get a token", func() error {
		b, err := any().BootToken(ctx, mac, netip.MustParseAddr("10.77.0.100"))
		a.token = b.Token
		return err
	})
	var err error
	if a.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Error(err)
		return
	}
	at := func() error { // each request goes anywhere
		a.r = any()
		a.caller, err = a.r.Authenticate(&x509.Certificate{RawSubjectPublicKeyInfo: a.public()})
		return err
	}
	insist(t, "say hello", func() error { a.r = any(); return a.hello() })
	inv := job.Inventory{UUID: fmt.Sprintf("22222222-2222-3333-4444-5555555555%02x", i), Serial: fmt.Sprintf("KILL-%d", i), Firmware: "uefi",
		NICs: []job.NIC{{Name: "eth0", MAC: mac}}}
	insist(t, "tell the inventory", func() error {
		if err := at(); err != nil {
			return err
		}
		a.me, err = a.r.Inventory(ctx, a.caller, inv)
		return err
	})
	for end := time.Now().Add(time.Minute); a.job == nil && time.Now().Before(end); {
		insist(t, "claim", func() error {
			if err := at(); err != nil {
				return err
			}
			if a.job, err = a.r.Claim(ctx, a.caller, job.Claim{Machine: a.me.Machine}); a.job != nil && a.job.Waits != "" {
				a.job = nil // it is told what its job waits for
			}
			return err
		})
	}
	if a.job == nil {
		t.Errorf("%s got no job", mac)
		return
	}
	for n := 0; !over.Load() || n < 4; n++ {
		phase := job.Phase(fmt.Sprintf("step %d", n))
		insist(t, "report", func() error {
			if err := at(); err != nil {
				return err
			}
			_, err := a.report(phase, int64(n))
			return err
		})
		steps.Add(1)
	}
	signed := a.receipt(nil)
	insist(t, "give the receipt", func() error {
		if err := at(); err != nil {
			return err
		}
		_, err := a.r.Receipt(ctx, a.caller, signed)
		return err
	})
}
