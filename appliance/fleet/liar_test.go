package fleet_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
)

// What machines say of one that lied is told of that machine, each of them once, and after three no more.
func TestAMachineThatLiedIsNamed(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	macs := []string{macA, macB, "52:54:00:00:00:0c", "52:54:00:00:00:0d", "52:54:00:00:00:0e"}
	r.deployAll()
	var room []*agent
	for i, mac := range macs {
		a := r.boot(mac, job.Inventory{UUID: fmt.Sprintf("0000000%d-1111-2222-3333-444455556677", i+1), Serial: fmt.Sprintf("SN%d", i), Firmware: "bios",
			NICs: []job.NIC{{Name: "eth0", MAC: mac}}})
		a.claim()
		a.mustReport(job.PhaseContent, 0)
		room = append(room, a)
	}
	liar := job.Liar{Peer: netip.MustParseAddrPort("10.77.0.9:6881"), What: "sent a wrong tile",
		Names: []string{job.URIMachine + room[0].me.Machine, job.URIJob + room[0].job.ID}}
	stranger := job.Liar{Peer: netip.MustParseAddrPort("10.77.0.66:6881"), What: "floods us" + strings.Repeat("!", 1000),
		Names: []string{job.URIMachine + "no such machine"}}
	for range 3 {
		for _, a := range room[1:] {
			if _, err := r.Report(t.Context(), a.caller, job.Report{Job: a.job.ID, Epoch: a.job.Epoch, Phase: job.PhaseContent, State: job.Running,
				Liars: []job.Liar{liar, stranger}}); err != nil {
				t.Fatal(err)
			}
		}
	}
	list, err := r.Events(t.Context(), fleet.EventQuery{Limit: 1000})
	if err != nil {
		t.Fatal(err)
	}
	named, strangers := 0, 0
	for _, e := range list {
		switch {
		case e.Kind != "swarm.barred":
		case e.Machine == room[0].me.Machine && e.Job == room[0].job.ID && strings.Contains(e.Text, "sent a wrong tile of debian:1 to "):
			named++
		case e.Machine == "" && strings.HasPrefix(e.Text, "10.77.0.66 ") && len(e.Text) < 400:
			strangers++
		default:
			t.Errorf("%+v", e)
		}
	}
	if named != 3 || strangers != 3 {
		t.Errorf("%d events about the liar, %d about a stranger", named, strangers)
	}
	if v := r.jobOf(macA); len(v.Barred) != 1 || !strings.Contains(v.Barred[0], "wrong tile") {
		t.Errorf("its job says %q", v.Barred)
	}
	if v := r.jobOf(macB); len(v.Barred) != 0 {
		t.Errorf("another's job says %q", v.Barred)
	}
}

// A report may name anything as the peer that it barred.
func TestWhatIsSaidOfAPeerThatIsNoGuestHarmsNobody(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	r.deployAll()
	a := r.boot(macA, invA)
	a.claim()
	if _, err := r.Report(t.Context(), a.caller, job.Report{Job: a.job.ID, Epoch: a.job.Epoch, Phase: job.PhaseContent, State: job.Running,
		Liars: []job.Liar{{What: "sent a wrong tile", Names: []string{job.URIGuest + fleet.SessionOf(a.caller)}}}}); err != nil {
		t.Fatal(err)
	}
}

// What a machine says of others neither stops the appliance nor keeps it from hearing the next one.
func TestAMachineAccusesOthersInBounds(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	r.deployAll()
	var room []*agent
	for i, mac := range []string{macA, macB} {
		a := r.boot(mac, job.Inventory{UUID: fmt.Sprintf("0000000%d-1111-2222-3333-444455556677", i+1), Serial: fmt.Sprintf("SN%d", i), Firmware: "bios",
			NICs: []job.NIC{{Name: "eth0", MAC: mac}}})
		a.claim()
		a.mustReport(job.PhaseContent, 0)
		room = append(room, a)
	}
	say := func(a *agent, list ...job.Liar) {
		t.Helper()
		if _, err := r.Report(t.Context(), a.caller, job.Report{Job: a.job.ID, Epoch: a.job.Epoch, Phase: job.PhaseContent, State: job.Running, Liars: list}); err != nil {
			t.Fatal(err)
		}
	}
	boot := sha256.Sum256([]byte(room[0].token)) // a session that is no guest's, of which the machine knows the ID
	for n := range 10 {
		var list []job.Liar
		for i := range 60 {
			list = append(list, job.Liar{Peer: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 99, byte(n), byte(i)}), 6881), What: "floods us",
				Names: []string{job.URIGuest + hex.EncodeToString(boot[:])}})
		}
		say(room[0], list...)
	}
	say(room[1], job.Liar{Peer: netip.MustParseAddrPort("10.77.0.9:6881"), What: "sent a wrong tile"})
	list, err := r.Events(t.Context(), fleet.EventQuery{Limit: 1000})
	if err != nil {
		t.Fatal(err)
	}
	invented, told := 0, 0
	for _, e := range list {
		switch {
		case e.Kind != "swarm.barred":
		case strings.Contains(e.Text, "sent a wrong tile"):
			told++
		default:
			invented++
		}
	}
	if invented != 256 || told != 1 {
		t.Errorf("%d events by one who accuses everybody, %d by the other", invented, told)
	}
}

// TestAListOfJobsIsNoSlowerForWhatIsSaidOfMachines: ten thousand accusations are not walked for each job.
func TestAListOfJobsIsNoSlowerForWhatIsSaidOfMachines(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	fleet.Age(r.Fleet, 100, 30)
	list := func() time.Duration {
		best := time.Hour
		for range 3 {
			began := time.Now()
			if n := len(r.Jobs()); n != 3000 {
				t.Fatalf("%d jobs", n)
			}
			best = min(best, time.Since(began))
		}
		return best
	}
	before := list()
	fleet.Accuse(r.Fleet, 10000)
	if after := list(); after > 5*before+50*time.Millisecond {
		t.Errorf("a list of jobs takes %v, it took %v before anybody was accused", after, before)
	}
}

func TestWhatIsSaidOfOneMachineIsBounded(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	r.deployAll()
	a, b := r.boot(macA, invA), r.boot(macB, invB)
	a.claim()
	b.claim()
	var list []job.Liar
	for i := range 60 {
		list = append(list, job.Liar{Peer: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 99, 0, byte(i)}), 6881), What: "floods us", Names: []string{job.URIJob + a.job.ID}})
	}
	if _, err := r.Report(t.Context(), b.caller, job.Report{Job: b.job.ID, Epoch: b.job.Epoch, Phase: job.PhaseContent, State: job.Running, Liars: list}); err != nil {
		t.Fatal(err)
	}
	if v := r.jobOf(macA); len(v.Barred) == 0 || len(v.Barred) > 16 || !slices.IsSorted(v.Barred) {
		t.Errorf("%d sentences about one machine", len(v.Barred))
	}
}
