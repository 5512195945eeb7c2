package fleet_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
)

// revision is the version of a machine's record.
func (r *room) revision(machine string) int64 {
	r.t.Helper()
	m, err := r.Machine(machine)
	if err != nil {
		r.t.Fatal(err)
	}
	return m.Version
}

func TestTheSameInventoryAgainWritesNothing(t *testing.T) {
	r := newRoom(t, fleet.AdmitAsk)
	a := r.boot(macA, invA)
	before, changed := r.revision(macA), r.Changed()
	for range 5 {
		again, err := r.Inventory(t.Context(), a.caller, invA)
		if err != nil || again != a.me {
			t.Fatalf("%+v, %v", again, err)
		}
	}
	select {
	case <-changed:
		t.Error("a record changed")
	default:
	}
	if now := r.revision(macA); now != before {
		t.Errorf("the machine's record has version %d, it had %d", now, before)
	}
	if _, err := r.Admit(t.Context(), a.me.Code); err != nil {
		t.Fatal(err)
	}
	if again, err := r.Inventory(t.Context(), a.caller, invA); err != nil || !again.Admitted || again.Code != "" {
		t.Errorf("the machine is not told that it was admitted: %+v, %v", again, err)
	}
	other := invA
	other.MemoryBytes++
	if _, err := r.Inventory(t.Context(), a.caller, other); err != nil || r.revision(macA) == before {
		t.Errorf("another inventory is not kept: %v", err)
	}
}

func TestAMachineTellsWhatItIsInBounds(t *testing.T) {
	r := newRoom(t, fleet.AdmitAsk)
	a, b := r.boot(macA, invA), r.boot(macB, invB)
	refused := 0
	for i := range 200 {
		inv := invA
		inv.MemoryBytes = int64(i)
		switch _, err := r.Inventory(t.Context(), a.caller, inv); codeOf(err) {
		case "":
		case fleet.CodeTooMany:
			refused++
		default:
			t.Fatal(err)
		}
	}
	if refused < 150 {
		t.Errorf("of 200 at once %d were refused", refused)
	}
	if _, err := r.Inventory(t.Context(), b.caller, invB); err != nil {
		t.Errorf("another machine: %v", err)
	}
	for range 60 { // as often as an agent does that nobody admits
		r.clock.add(20 * time.Second)
		if _, err := r.Inventory(t.Context(), a.caller, invA); err != nil {
			t.Fatal(err)
		}
	}
}

func TestStrangersTellWhatTheyAreInBounds(t *testing.T) {
	r := newRoom(t, fleet.AdmitAsk)
	known := r.boot(macA, invA)
	if _, err := r.Admit(t.Context(), known.me.Code); err != nil {
		t.Fatal(err)
	}
	long := invB
	for i := range 900 {
		long.Disks = append(long.Disks, job.Disk{Name: fmt.Sprint("sd", i), Model: strings.Repeat("x", 60), Serial: fmt.Sprint("D", i)})
	}
	b := r.boot(macB, invB)
	if _, err := r.Inventory(t.Context(), b.caller, long); codeOf(err) != fleet.CodeInvalid || !strings.Contains(err.Error(), "seedbed machine admit "+macB) {
		t.Errorf("a long inventory of a stranger: %v", err)
	}
	fleet.DrainStrangers(r.Fleet)
	short := invB
	short.MemoryBytes = 7
	if _, err := r.Inventory(t.Context(), b.caller, short); codeOf(err) != fleet.CodeTooMany {
		t.Errorf("one more than all strangers may: %v", err)
	}
	if _, err := r.Inventory(t.Context(), b.caller, invB); err != nil {
		t.Errorf("the same again, which writes nothing: %v", err)
	}
	other := invA
	other.MemoryBytes = 7
	if _, err := r.Inventory(t.Context(), known.caller, other); err != nil {
		t.Errorf("a machine that is admitted: %v", err)
	}
	r.clock.add(time.Second)
	if _, err := r.Inventory(t.Context(), b.caller, short); err != nil {
		t.Errorf("a second later: %v", err)
	}
	if _, err := r.Admit(t.Context(), macB); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Inventory(t.Context(), b.caller, long); err != nil {
		t.Errorf("a long inventory of a machine that is admitted: %v", err)
	}
}

func TestClaimsThatWaitAreBounded(t *testing.T) {
	r := newRoom(t, fleet.AdmitAsk)
	r.poll = time.Hour
	r.kill()
	a, known := r.boot(macA, invA), r.boot(macB, invB)
	if _, err := r.Admit(t.Context(), known.me.Code); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	wait := func(a *agent, n int) {
		for range n {
			all.Go(func() { r.Claim(ctx, a.caller, job.Claim{Machine: a.me.Machine}) })
		}
	}
	wait(a, fleet.MaxClaims)
	for fleet.Asking(r.Fleet) < fleet.MaxClaims {
		time.Sleep(time.Millisecond)
	}
	if _, err := r.Claim(t.Context(), a.caller, job.Claim{Machine: a.me.Machine}); codeOf(err) != fleet.CodeTooMany {
		t.Errorf("one claim more of one machine: %v", err)
	}
	fleet.CrowdStrangers(r.Fleet)
	c := r.boot("52:54:00:77:00:12", job.Inventory{Serial: "SN3"})
	if _, err := r.Claim(t.Context(), c.caller, job.Claim{Machine: c.me.Machine}); codeOf(err) != fleet.CodeTooMany {
		t.Errorf("one claim more of all strangers: %v", err)
	}
	wait(known, 1)
	for fleet.Asking(r.Fleet) < fleet.MaxClaims+1 {
		time.Sleep(time.Millisecond)
	}
	cancel()
	all.Wait()
	if n := fleet.Asking(r.Fleet); n != 0 {
		t.Errorf("%d claims wait after all ended", n)
	}
}

// reboot boots a machine from a network card as far as its hello, with a key of its own.
func (r *room) reboot(mac string) *agent {
	r.t.Helper()
	r.powerOn(mac)
	return r.hello(mac, "10.77.0.100")
}

// hello redeems a boot token that was given to an address, with a key of its own.
func (r *room) hello(mac, address string) *agent {
	r.t.Helper()
	b, err := r.BootToken(r.t.Context(), mac, netip.MustParseAddr(address))
	if err != nil {
		r.t.Fatal(err)
	}
	a := &agent{r: r, mac: mac, token: b.Token}
	if a.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		r.t.Fatal(err)
	}
	if err := a.hello(); err != nil {
		r.t.Fatal(err)
	}
	return a
}

// tells has an agent tell an inventory.
func (a *agent) tells(inv job.Inventory) job.Admission {
	a.r.t.Helper()
	var err error
	if a.me, err = a.r.Inventory(a.r.t.Context(), a.caller, inv); err != nil {
		a.r.t.Fatal(err)
	}
	a.authenticate()
	return a.me
}

func TestOneBootMakesFewRecordsWhateverItTells(t *testing.T) {
	for _, admit := range []fleet.Admit{fleet.AdmitAsk, fleet.AdmitAuto} {
		r := newRoom(t, admit)
		r.boot(macA, invA)
		b := r.reboot(macB)
		for i := range 40 {
			r.clock.add(time.Second)
			inv := job.Inventory{UUID: fmt.Sprintf("22222222-2222-3333-4444-5555555555%02x", i), Serial: fmt.Sprint("X", i)}
			if i%3 == 0 {
				inv.UUID, inv.Serial = invA.UUID, invA.Serial
			}
			b.tells(inv)
		}
		if n := len(r.Machines()); n > 3 {
			t.Errorf("%s: %d machines", admit, n)
		}
	}
}
