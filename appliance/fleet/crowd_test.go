package fleet_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
)

// withDisks is an inventory of a machine with so many disks.
func withDisks(inv job.Inventory, n int) job.Inventory {
	for i := range n {
		inv.Disks = append(inv.Disks, job.Disk{Name: fmt.Sprint("sd", i), Serial: fmt.Sprint(inv.Serial, "-D", i), Length: 1 << 40})
	}
	return inv
}

func TestLongInventoriesOfStrangersHaveABoundTogether(t *testing.T) {
	for _, admit := range []fleet.Admit{fleet.AdmitAsk, fleet.AdmitAuto} {
		r := newRoom(t, admit)
		b := r.boot(macB, invB)
		server := withDisks(job.Inventory{Serial: "SN9"}, 30)
		told := r.boot("52:54:00:77:00:19", server)
		byItself := time.Time{}
		if admit == fleet.AdmitAuto {
			byItself = r.clock.now().Add(-2 * time.Hour)
		}
		fleet.Gather(r.Fleet, fleet.LongInventories/(60<<10)+1, 60<<10, byItself)
		long, short := withDisks(invB, 30), withDisks(invB, 3)
		if _, err := r.Inventory(t.Context(), b.caller, long); codeOf(err) != fleet.CodeTooMany || !strings.Contains(err.Error(), "seedbed machine admit "+macB) {
			t.Errorf("%s: a long one more: %v", admit, err)
		}
		if _, err := r.Inventory(t.Context(), b.caller, short); err != nil {
			t.Errorf("%s: one of a common computer: %v", admit, err)
		}
		server.Disks = server.Disks[:29]
		if _, err := r.Inventory(t.Context(), told.caller, server); err != nil {
			t.Errorf("%s: one of a server that told as much before: %v", admit, err)
		}
		if _, err := r.Admit(t.Context(), macB); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Inventory(t.Context(), b.caller, long); err != nil {
			t.Errorf("%s: a long one of a machine that a person admitted: %v", admit, err)
		}
	}
}

func TestMachinesThatAreAdmittedByThemselvesAreBounded(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	r.deployAll()
	fleet.Gather(r.Fleet, fleet.MaxByThemselvesHour, 0, r.clock.now())
	a := r.boot(macA, invA)
	if a.me.Admitted || a.me.Code == "" || a.claim() != nil {
		t.Fatalf("one machine more in an hour: %+v", a.me)
	}
	said, err := r.Events(t.Context(), fleet.EventQuery{Kind: "machine.crowded"})
	if err != nil || len(said) != 1 || said[0].Machine != a.me.Machine || !strings.Contains(said[0].Text, "seedbed machine admit "+a.me.Code) || !strings.Contains(said[0].Text, "in the last hour") {
		t.Fatalf("what the operator is told: %+v, %v", said, err)
	}
	if again := a.tells(invA); again.Admitted || again.Code != a.me.Code {
		t.Errorf("a moment later: %+v", again)
	}
	r.clock.add(time.Hour)
	if again := a.tells(invA); !again.Admitted || a.claim() == nil {
		t.Errorf("an hour later: %+v, job %+v", again, a.job)
	}
	fleet.Gather(r.Fleet, fleet.MaxByThemselves-fleet.MaxByThemselvesHour-1, 0, r.clock.now().Add(-2*time.Hour))
	b := r.boot(macB, invB)
	if b.me.Admitted {
		t.Fatalf("one machine more than may be: %+v", b.me)
	}
	r.clock.add(2 * time.Hour)
	if again := b.tells(invB); again.Admitted {
		t.Errorf("no time makes room for it: %+v", again)
	}
	if _, err := r.Admit(t.Context(), b.me.Code); err != nil {
		t.Fatal(err)
	}
	if again := b.tells(invB); !again.Admitted || b.claim() == nil {
		t.Errorf("a person admitted it: %+v", again)
	}
	if _, err := r.Admit(t.Context(), macA); err != nil { // which makes room for one
		t.Fatal(err)
	}
	if c := r.boot("52:54:00:77:00:12", job.Inventory{Serial: "SN3"}); !c.me.Admitted {
		t.Errorf("there is room for one: %+v", c.me)
	}
}

// TestWhatWaitsForAPersonIsNotAdmittedByItself, whatever room there is.
func TestWhatWaitsForAPersonIsNotAdmittedByItself(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	r.admitted(macA, invA)
	b := r.boot(macB, invA) // passes for the other one
	r.clock.add(time.Hour)
	if again := b.tells(invA); again.Admitted || again.Code == "" {
		t.Errorf("%+v", again)
	}
}

func TestCountsOfStrangersAreThoseOfTheRecords(t *testing.T) {
	for _, admit := range []fleet.Admit{fleet.AdmitAsk, fleet.AdmitAuto} {
		r := newRoom(t, admit)
		step := 0
		look := func() {
			t.Helper()
			step++
			if kept, counted := fleet.CountsOfStrangers(r.Fleet); kept != counted {
				t.Fatalf("%s, step %d: %+v are kept, %+v are there", admit, step, kept, counted)
			}
		}
		a := r.boot(macA, withDisks(invA, 40))
		look()
		r.powerOn("52:54:00:77:00:20")
		r.powerOn("52:54:00:77:00:21")
		look()
		if _, err := r.Admit(t.Context(), macA); err != nil {
			t.Fatal(err)
		}
		look()
		b := r.boot(macB, withDisks(invB, 40))
		two := withDisks(invB, 50)
		two.NICs = []job.NIC{{MAC: macB}, {MAC: "52:54:00:77:00:20"}}
		b.tells(two)
		look()
		if _, err := r.ImportMachines(t.Context(), strings.NewReader("mac,name,admitted\n52:54:00:77:00:21,one,true\n52:54:00:77:00:22,two,false\n"), false); err != nil {
			t.Fatal(err)
		}
		look()
		c := r.boot("52:54:00:77:00:23", invA)
		look()
		if err := r.MergeMachines(t.Context(), c.me.Machine, a.me.Machine); err != nil {
			t.Fatal(err)
		}
		look()
		if err := fleet.Reload(r.Fleet, t.Context()); err != nil {
			t.Fatal(err)
		}
		look()
		r.kill()
		look()
		for _, m := range r.Machines() {
			if err := r.RemoveMachine(t.Context(), m.ID); err != nil {
				t.Fatal(err)
			}
			look()
		}
	}
}

// TestRecordsOfPacketsAreGoneWhenTheyTurnOutToBeAMachine: who makes up network cards, and then says that they are its own, fills neither
// memory nor records.
func TestRecordsOfPacketsAreGoneWhenTheyTurnOutToBeAMachine(t *testing.T) {
	for _, admit := range []fleet.Admit{fleet.AdmitAsk, fleet.AdmitAuto} {
		r := newRoom(t, admit)
		r.deployAll()
		b := r.boot(macB, invB)
		for round := range 5 {
			inv := invB
			inv.NICs = []job.NIC{{MAC: macB}}
			for i := range 10 {
				mac := fmt.Sprintf("02:00:00:00:%02x:%02x", round, i)
				r.powerOn(mac)
				inv.NICs = append(inv.NICs, job.NIC{MAC: mac})
			}
			r.clock.add(time.Minute)
			b.tells(inv)
		}
		if n, jobs := len(fleet.MachinesByID(r.Fleet)), len(r.Jobs()); n != 1 || jobs > 1 {
			t.Errorf("%s: %d records of machines, %d jobs", admit, n, jobs)
		}
		r.kill()
		if n, jobs := len(fleet.MachinesByID(r.Fleet)), len(r.Jobs()); n != 1 || jobs > 1 {
			t.Errorf("%s, after a restart: %d records of machines, %d jobs", admit, n, jobs)
		}
	}
}

func TestEventsAboutStrangersAreBounded(t *testing.T) {
	r := newRoom(t, fleet.AdmitAsk)
	known := r.admitted(macA, invA)
	fleet.DrainStrays(r.Fleet)
	before := len(r.events())
	for i := range 20 {
		r.reboot(fmt.Sprintf("52:54:00:77:01:%02x", i))
	}
	list, err := r.Events(t.Context(), fleet.EventQuery{Kind: "machine."})
	if err != nil || len(list) != before+1 || list[len(list)-1].Kind != "machine.untold" || !strings.Contains(list[len(list)-1].Text, "left out") {
		t.Fatalf("%d events were there, then %+v, %v", before, list[min(before, len(list)):], err)
	}
	r.reboot(known.mac)
	if kinds := r.events(); kinds[len(kinds)-1] != "machine.hello" {
		t.Errorf("the boot of a machine that a person admitted: %v", kinds[before:])
	}
	r.clock.add(time.Hour)
	r.powerOn("52:54:00:77:02:01")
	if kinds := r.events(); len(kinds) != before+4 { // its hello, the one that is new, and how many were left out meanwhile
		t.Errorf("an hour later: %v", kinds[before:])
	}
}

func TestNewMachinesAreBoundedInTime(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	r.powerOn(macA)
	fleet.DrainSights(r.Fleet)
	see := func(mac string) string {
		return codeOf(r.Sighted(t.Context(), fleet.Sighting{MAC: mac, Stage: "dhcp"}))
	}
	if got := see(macB); got != fleet.CodeTooMany {
		t.Errorf("one more at once: %q", got)
	}
	if got := see(macA); got != "" {
		t.Errorf("one that is known: %q", got)
	}
	if b := r.hello(macB, "10.77.0.100"); !b.tells(invB).Admitted {
		t.Errorf("a machine whose agent says hello: %+v", b.me)
	}
	r.clock.add(time.Second)
	if got := see("52:54:00:77:00:12"); got != "" {
		t.Errorf("a second later: %q", got)
	}
}

func TestReportsThatChangeAJobAreBounded(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	r.deployAll()
	a := r.boot(macA, invA)
	a.mustClaim()
	says := func(i int) string {
		_, err := r.Report(t.Context(), a.caller, job.Report{Job: a.job.ID, Epoch: a.job.Epoch, Phase: job.PhaseContent, State: job.Paused, Reason: fmt.Sprint("stuck ", i), Code: "x"})
		return codeOf(err)
	}
	refused := 0
	for i := range 400 {
		switch got := says(i); got {
		case "":
		case fleet.CodeTooMany:
			refused++
		default:
			t.Fatal(got)
		}
	}
	if refused < 90 || refused > 110 {
		t.Errorf("of 400 at once %d were refused", refused)
	}
	r.clock.add(time.Second)
	if got := says(1000); got != "" || r.view(a.job.ID).Reason != "stuck 1000" {
		t.Errorf("a second later: %q, %q", got, r.view(a.job.ID).Reason)
	}
}

func TestWordsOfAnInventoryAreBounded(t *testing.T) {
	r := newRoom(t, fleet.AdmitAsk)
	inv := invA
	inv.Product, inv.Serial = strings.Repeat("p", 10000), strings.Repeat("s", 10000)
	inv.Disks = []job.Disk{{Name: "sda", Model: strings.Repeat("m", 10000)}}
	a := r.boot(macA, inv)
	kept := r.machine(a.me.Machine).Inventory
	if len(kept.Product) > 256 || len(kept.Serial) > 256 || len(kept.Disks[0].Model) > 256 {
		t.Errorf("%d, %d, %d bytes are kept", len(kept.Product), len(kept.Serial), len(kept.Disks[0].Model))
	}
	list, err := r.Events(t.Context(), fleet.EventQuery{Kind: "machine.inventory"})
	if err != nil || len(list) != 1 || len(list[0].Text) > 1000 {
		t.Errorf("%+v, %v", list, err)
	}
	if inv.Disks[0].Model != strings.Repeat("m", 10000) {
		t.Error("the caller's inventory was changed")
	}
}

// TestAHelloFromElsewhereIsTold: a token travels in clear, and who reads it on the wire may be faster than the machine.
func TestAHelloFromElsewhereIsTold(t *testing.T) {
	r := newRoom(t, fleet.AdmitAsk)
	r.powerOn(macA)
	r.hello(macA, "10.77.0.55")
	list, err := r.Events(t.Context(), fleet.EventQuery{Kind: "machine.hello"})
	if err != nil || len(list) != 1 || !strings.HasSuffix(list[0].Text, "at 10.77.0.100; its boot script was given to 10.77.0.55") {
		t.Errorf("%+v, %v", list, err)
	}
}

// TestCardsThatAnEarlierVersionSawAreTheirMachines: it did not write who had admitted a machine.
func TestCardsThatAnEarlierVersionSawAreTheirMachines(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	r.deployAll()
	r.powerOn(macB)
	card, err := r.Machine(macB)
	if err != nil {
		t.Fatal(err)
	}
	earlier := card.Machine
	earlier.ByItself = time.Time{}
	if err := fleet.Put(r.Fleet, t.Context(), &earlier); err != nil {
		t.Fatal(err)
	}
	r.boot(macA, job.Inventory{Serial: "SN1", NICs: []job.NIC{{Name: "eth0", MAC: macA}, {Name: "eth1", MAC: macB}}})
	m, err := r.Machine(macB)
	if err != nil || m.MAC != macA || m.Conflict != "" || len(r.Machines()) != 1 {
		t.Errorf("the card is of %+v, %v", m, err)
	}
}
