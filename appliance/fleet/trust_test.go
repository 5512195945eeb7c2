package fleet_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"

	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
)

func encodeFrame(t testing.TB, f job.OldFrame) []byte {
	t.Helper()
	b, err := cbor.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestTokenIsRedeemedOnce(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	r.deployAll()
	a := r.boot(macA, invA)
	if err := a.hello(); err != nil {
		t.Fatalf("the same key again, since the answer was lost: %v", err)
	}
	honest := a.key
	thief := *a
	thief.key, _ = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err := thief.hello(); code(t, err) != fleet.CodeTokenUsed {
		t.Fatalf("another key: %v", err)
	}
	der, _ := x509.MarshalPKIXPublicKey(&honest.PublicKey)
	if _, err := r.Authenticate(&x509.Certificate{RawSubjectPublicKeyInfo: der}); code(t, err) != fleet.CodeRevoked {
		t.Fatalf("the first key after the second redemption: %v", err)
	}
	if !slices.Contains(r.events(), "machine.impersonation") {
		t.Fatalf("events %v", r.events())
	}
	r.kill()
	if _, err := r.Authenticate(&x509.Certificate{RawSubjectPublicKeyInfo: der}); code(t, err) != fleet.CodeRevoked {
		t.Fatalf("after a restart: %v", err)
	}
}

func TestTokenThatCannotBeRedeemed(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	mint := func() string {
		b, err := r.BootToken(t.Context(), macA, netip.MustParseAddr("10.77.0.100"))
		if err != nil {
			t.Fatal(err)
		}
		if len(b.Token) != 64 || b.Fingerprint != r.site.Fingerprint() || b.MAC != macA {
			t.Fatalf("boot %+v", b)
		}
		return b.Token
	}
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	a := &agent{r: r, mac: macA, key: key}
	for what, c := range map[string]struct {
		prepare func()
		code    string
	}{
		"made up":        {func() { a.token = "00" }, fleet.CodeTokenUnknown},
		"of another MAC": {func() { a.token, a.mac = mint(), macB }, fleet.CodeTokenUnknown},
		"too old":        {func() { a.token = mint(); r.clock.add(16 * time.Minute) }, fleet.CodeTokenUnknown},
		"replaced":       {func() { a.token = mint(); mint() }, fleet.CodeRevoked},
		"without a key":  {func() { a.token = mint() }, fleet.CodeInvalid},
	} {
		a.mac = macA
		c.prepare()
		h := job.Hello{Token: a.token, MAC: a.mac, PublicKey: a.public()}
		if c.code == fleet.CodeInvalid {
			h.PublicKey = []byte("junk")
		}
		if _, err := r.Hello(t.Context(), netip.Addr{}, h); code(t, err) != c.code {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestMachineSpeaksForItselfOnly(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	r.deployAll()
	a, b := r.boot(macA, invA), r.boot(macB, invB)
	a.claim()
	b.claim()
	if _, err := r.Claim(t.Context(), b.caller, job.Claim{Machine: a.me.Machine}); code(t, err) != fleet.CodeMachineUnknown {
		t.Fatalf("claim for another machine: %v", err)
	}
	if _, err := r.Report(t.Context(), b.caller, job.Report{Job: a.job.ID, Epoch: 1, State: job.Running}); code(t, err) != fleet.CodeJobUnknown {
		t.Fatalf("report for another machine: %v", err)
	}
	if _, err := r.Receipt(t.Context(), b.caller, a.receipt(nil)); code(t, err) != fleet.CodeReceiptWrong {
		t.Fatalf("receipt for another machine: %v", err)
	}
	stranger := x509.Certificate{RawSubjectPublicKeyInfo: []byte("other")}
	if _, err := r.Authenticate(&stranger); code(t, err) != fleet.CodeUnauthorised {
		t.Fatal(err)
	}
}

func TestRecordOfBootPacketsIsMergedIntoTheKnownMachine(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	a := r.boot(macA, invA)
	// The NIC is exchanged: the machine says that it is known by UUID and serial number, and a person that this is so.
	inv := invA
	inv.NICs = []job.NIC{{Name: "eth0", MAC: macB}}
	r.deployAll()
	b := r.boot(macB, inv)
	if err := r.MergeMachines(t.Context(), b.me.Machine, a.me.Machine); err != nil {
		t.Fatal(err)
	}
	b.tells(inv)
	if b.me.Machine != a.me.Machine {
		t.Fatalf("machine %s, want %s", b.me.Machine, a.me.Machine)
	}
	if n := len(r.Machines()); n != 1 {
		t.Fatalf("%d machines", n)
	}
	if j := b.claim(); j == nil {
		t.Fatal("no job")
	}
	if n := len(r.Swarms()); n != 1 {
		t.Fatalf("%d swarms", n)
	}
}

func TestAdapterThatMovesTakesNoIdentityWithIt(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	dongle := "00:e0:4c:00:00:01"
	a := r.boot(dongle, job.Inventory{UUID: invA.UUID, Serial: "SN1", Firmware: "uefi"})
	b := r.boot(dongle, job.Inventory{UUID: invB.UUID, Serial: "SN2", Firmware: "uefi"})
	if a.me.Machine == b.me.Machine {
		t.Fatal("two machines became one")
	}
	if again := r.boot(dongle, job.Inventory{UUID: invA.UUID, Serial: "SN1", Firmware: "uefi"}); again.me.Machine != a.me.Machine {
		t.Fatal("the first machine is not known again")
	}
}

func TestMachineThatFitsTwoKnownOnesGetsTheJobOfNeither(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	junk := func(macs ...string) (inv job.Inventory) {
		for _, m := range macs {
			inv.NICs = append(inv.NICs, job.NIC{MAC: m})
		}
		return inv
	}
	a, b := r.boot(macA, junk(macA)), r.boot(macB, junk(macB))
	r.deployAll()
	c := r.boot(macA, junk(macA, macB))
	if c.me.Machine == a.me.Machine || c.me.Machine == b.me.Machine || c.me.Admitted || c.me.Code == "" {
		t.Fatalf("admission %+v", c.me)
	}
	if j := c.claim(); j != nil {
		t.Fatalf("job %s of machine %s", j.ID, j.Machine)
	}
	if !slices.Contains(r.events(), "machine.conflict") {
		t.Fatalf("events %v", r.events())
	}
	if _, err := r.Admit(t.Context(), c.me.Code); err != nil {
		t.Fatal(err)
	}
	if j := c.claim(); j == nil || j.Machine != c.me.Machine {
		t.Fatalf("job %+v after its admission", j)
	}
}

func TestKeyOfAnotherBootIsNotTaken(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	r.deployAll()
	a := r.boot(macA, invA)
	a.claim()
	b, err := r.BootToken(t.Context(), macB, netip.MustParseAddr("10.77.0.101"))
	if err != nil {
		t.Fatal(err)
	}
	// Machines of one swarm see each other's keys.
	_, err = r.Hello(t.Context(), netip.Addr{}, job.Hello{Token: b.Token, MAC: macB, PublicKey: a.public()})
	if code(t, err) != fleet.CodeInvalid {
		t.Fatalf("hello with another boot's key: %v", err)
	}
	a.authenticate()
	a.mustReport(job.PhaseContent, 1)
}

func TestForgedPacketsKeepNoMachineOut(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	r.deployAll()
	fleet.Flood(r.Fleet, fleet.MaxUnknown)
	err := r.Sighted(t.Context(), fleet.Sighting{MAC: macB, Stage: "dhcp"})
	if code(t, err) != fleet.CodeInvalid {
		t.Fatalf("one packet more: %v", err)
	}
	b, err := r.BootToken(t.Context(), macA, netip.MustParseAddr("10.77.0.100"))
	if err != nil {
		t.Fatal(err)
	}
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	a := &agent{r: r, mac: macA, key: key, token: b.Token}
	if err := a.hello(); err != nil {
		t.Fatalf("a machine that boots the agent: %v", err)
	}
	if a.me, err = r.Inventory(t.Context(), a.caller, invA); err != nil || !a.me.Admitted {
		t.Fatalf("admission %+v, %v", a.me, err)
	}
	a.authenticate()
	if a.claim() == nil {
		t.Fatal("no job")
	}
}

// TestAChangeThatGoesWrongInsideIsRefusedAlone: the site goes on.
func TestAChangeThatGoesWrongInsideIsRefusedAlone(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	var wg sync.WaitGroup
	for range 20 { // some of them in one transaction
		wg.Go(func() {
			if err := fleet.Break(r.Fleet, t.Context()); err == nil {
				t.Error("a change that went wrong was made")
			}
		})
		wg.Go(func() {
			if err := r.Note(t.Context(), "test.right", "x"); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	right, err := r.Events(t.Context(), fleet.EventQuery{Kind: "test."})
	if err != nil || len(right) != 20 {
		t.Errorf("%d events: %v", len(right), err)
	}
}
