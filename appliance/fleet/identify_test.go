package fleet_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
)

const macC = "52:54:00:77:00:12"

// computer is an inventory with network cards and a disk.
func computer(uuid, serial, disk string, macs ...string) job.Inventory {
	inv := job.Inventory{UUID: uuid, Serial: serial, Firmware: "uefi"}
	for _, mac := range macs {
		inv.NICs = append(inv.NICs, job.NIC{MAC: mac})
	}
	if disk != "" {
		inv.Disks = []job.Disk{{Name: "sda", Serial: disk, Length: 1 << 30}}
	}
	return inv
}

const (
	uuidV = "00000001-1111-2222-3333-444455556610"
	uuidE = "00000002-1111-2222-3333-444455556611"
)

// admitted boots a machine and admits it.
func (r *room) admitted(mac string, inv job.Inventory) *agent {
	r.t.Helper()
	a := r.boot(mac, inv)
	if _, err := r.Admit(r.t.Context(), a.me.Machine); err != nil {
		r.t.Fatal(err)
	}
	return a
}

func (r *room) machine(name string) *fleet.MachineView {
	r.t.Helper()
	m, err := r.Machine(name)
	if err != nil {
		r.t.Fatal(err)
	}
	return m
}

// TestAMachinePassesForNoOther: whatever of another machine an inventory tells, its own boot proves a network card, and that alone.
func TestAMachinePassesForNoOther(t *testing.T) {
	victim := computer(uuidV, "SN-V", "DISK-V", macA)
	for what, inv := range map[string]job.Inventory{
		"all of it":             computer(uuidV, "SN-V", "DISK-V", macB, macA),
		"without its card":      computer(uuidV, "SN-V", "DISK-V", macB),
		"UUID and disk":         computer(uuidV, "", "DISK-V", macB),
		"its card and its disk": computer("", "", "DISK-V", macB, macA),
	} {
		for _, admit := range []fleet.Admit{fleet.AdmitAsk, fleet.AdmitAuto} {
			t.Run(what+", "+string(admit), func(t *testing.T) {
				r := newRoom(t, admit)
				v := r.admitted(macA, victim)
				if _, err := r.Deploy(t.Context(), fleet.Order{Image: "debian", Machines: []string{v.me.Machine}}); err != nil {
					t.Fatal(err)
				}
				before := *r.machine(v.me.Machine)
				e := r.boot(macB, inv)
				if e.me.Machine == v.me.Machine || e.me.Admitted || e.me.Code == "" {
					t.Fatalf("it is %+v", e.me)
				}
				if j := e.claim(); j != nil {
					t.Fatalf("it got job %s of machine %s", j.ID, j.Machine)
				}
				now := r.machine(v.me.Machine)
				if now.Version != before.Version || !slices.Equal(now.MACs, before.MACs) {
					t.Errorf("the victim's record changed: %+v", now.Machine)
				}
				own := r.machine(e.me.Machine)
				if own.UUID != "" || own.Inventory.UUID != "" || own.Inventory.Serial != "" || own.Inventory.Disks[0].Serial != "" || !slices.Equal(own.MACs, []string{macB}) {
					t.Errorf("it took %+v %+v", own.Machine, own.Inventory)
				}
				if !strings.Contains(own.Conflict, v.me.Machine) || !slices.Contains(r.events(), "machine.conflict") {
					t.Errorf("conflict %q, events %v", own.Conflict, r.events())
				}
				if m := r.machine("SN-V"); m.ID != v.me.Machine {
					t.Errorf("the serial number names %+v", m.Machine)
				}
				again := r.boot(macA, victim)
				if again.me.Machine != v.me.Machine || !again.me.Admitted || again.claim() == nil {
					t.Errorf("the victim is %+v", again.me)
				}
			})
		}
	}
}

// TestAStrangerIsNoOtherBeforeThatOneIsSeen: what a machine tells that nobody admitted keeps no other machine's place.
func TestAStrangerIsNoOtherBeforeThatOneIsSeen(t *testing.T) {
	r := newRoom(t, fleet.AdmitAsk)
	e := r.boot(macB, computer(uuidV, "SN-V", "DISK-V", macB, macA))
	v := r.boot(macA, computer(uuidV, "SN-V", "DISK-V", macA))
	if v.me.Machine == e.me.Machine || v.me.Code == e.me.Code {
		t.Fatalf("the machine is the stranger: %+v", v.me)
	}
	if _, err := r.Admit(t.Context(), v.me.Code); err != nil {
		t.Fatal(err)
	}
	if m := r.machine(e.me.Machine); m.Admitted || slices.Contains(m.MACs, macA) {
		t.Errorf("the stranger is %+v", m.Machine)
	}
	r.clock.add(20 * time.Second)
	if me := e.tells(computer(uuidV, "SN-V", "DISK-V", macB, macA, macC)); me.Admitted || me.Machine == v.me.Machine {
		t.Errorf("later the stranger is %+v", me)
	}
}

// TestAStrangerTakesNoRecordThatAPersonMade: a table of machines names them before they are seen.
func TestAStrangerTakesNoRecordThatAPersonMade(t *testing.T) {
	r := newRoom(t, fleet.AdmitAsk)
	if _, err := r.ImportMachines(t.Context(), strings.NewReader("mac,name,groups,notes,admitted\n"+macA+",desk-1,lab,by the door,true\n"+macC+",desk-2,,,false\n"), false); err != nil {
		t.Fatal(err)
	}
	e := r.boot(macB, computer(uuidE, "SN-E", "", macB, macA, macC))
	if e.me.Admitted || e.me.Name == "desk-1" {
		t.Fatalf("it is %+v", e.me)
	}
	own := r.machine(e.me.Machine)
	if len(own.Groups) > 0 || own.Notes != "" || slices.Contains(own.MACs, macA) || slices.Contains(own.MACs, macC) || !strings.Contains(own.Conflict, "desk-1") {
		t.Errorf("it took %+v", own.Machine)
	}
	if v := r.boot(macA, computer(uuidV, "SN-V", "", macA)); v.me.Name != "desk-1" || !v.me.Admitted {
		t.Errorf("the machine that the table names is %+v", v.me)
	}
}

// TestHonestMachinesAreKnownAgain: cards, docks and boards change; where nothing proves which machine it is, a person says so.
func TestHonestMachinesAreKnownAgain(t *testing.T) {
	const dock = "00:e0:4c:00:00:01"
	for what, c := range map[string]func(*testing.T, *room){
		"from its second card": func(t *testing.T, r *room) {
			v := r.admitted(macA, computer(uuidV, "SN-V", "", macA, macB))
			if again := r.boot(macB, computer(uuidV, "SN-V", "", macA, macB)); again.me.Machine != v.me.Machine || !again.me.Admitted {
				t.Errorf("it is %+v", again.me)
			}
		},
		"its second card asked the network before": func(t *testing.T, r *room) {
			r.powerOn(macB)
			v := r.boot(macA, computer(uuidV, "SN-V", "", macA, macB))
			if list := r.Machines(); len(list) != 1 || list[0].ID != v.me.Machine || list[0].Conflict != "" || !slices.Equal(list[0].MACs, []string{macA, macB}) {
				t.Errorf("%d machines: %+v", len(list), list[0].Machine)
			}
		},
		"two that share a dock": func(t *testing.T, r *room) {
			one := computer(uuidV, "SN-V", "DISK-V", dock)
			two := computer(uuidE, "SN-E", "DISK-E", dock)
			a, b := r.admitted(dock, one), r.admitted(dock, two)
			if a.me.Machine == b.me.Machine {
				t.Fatal("they are one")
			}
			for uuid, want := range map[string]bool{uuidV: true, uuidE: false, "": false} { // the packets tell the UUID
				if _, err := r.EditMachine(t.Context(), a.me.Machine, 0, fleet.MachineOrder{Boot: &fleet.BootOverride{To: fleet.BootAgent}}); err != nil {
					t.Fatal(err)
				}
				if next := r.NextBoot(t.Context(), dock, uuid); next.Agent != want {
					t.Errorf("a boot of UUID %q boots the agent: %v", uuid, next.Agent)
				}
			}
			for range 2 {
				if m := r.boot(dock, one); m.me.Machine != a.me.Machine || !m.me.Admitted {
					t.Errorf("the first is %+v", m.me)
				}
				if m := r.boot(dock, two); m.me.Machine != b.me.Machine || !m.me.Admitted {
					t.Errorf("the second is %+v", m.me)
				}
			}
		},
		"a new card, and a person says so": func(t *testing.T, r *room) {
			v := r.admitted(macA, computer(uuidV, "SN-V", "DISK-V", macA))
			r.deployAll()
			inv := computer(uuidV, "SN-V", "DISK-V", macB)
			again := r.boot(macB, inv)
			if again.me.Admitted || again.claim() != nil {
				t.Fatalf("it is %+v before a person said anything", again.me)
			}
			if err := r.MergeMachines(t.Context(), again.me.Machine, v.me.Machine); err != nil {
				t.Fatal(err)
			}
			if me := again.tells(inv); me.Machine != v.me.Machine || !me.Admitted || again.claim() == nil {
				t.Errorf("it is %+v", me)
			}
			if later := r.boot(macB, inv); later.me.Machine != v.me.Machine || !later.me.Admitted {
				t.Errorf("at its next boot it is %+v", later.me)
			}
			if m := r.machine(v.me.Machine); m.Conflict != "" {
				t.Errorf("conflict %q", m.Conflict)
			}
		},
		"another one with the same UUID and serial number, and a person says so": func(t *testing.T, r *room) {
			v := r.admitted(macA, computer(uuidV, "SN-V", "", macA))
			inv := computer(uuidV, "SN-V", "", macB)
			twin := r.boot(macB, inv)
			if _, err := r.Admit(t.Context(), twin.me.Code); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if m := r.boot(macB, inv); m.me.Machine != twin.me.Machine || !m.me.Admitted {
					t.Errorf("the twin is %+v", m.me)
				}
				if m := r.boot(macA, computer(uuidV, "SN-V", "", macA)); m.me.Machine != v.me.Machine || !m.me.Admitted {
					t.Errorf("the first is %+v", m.me)
				}
			}
			if m := r.machine(twin.me.Machine); m.Conflict != "" {
				t.Errorf("conflict %q", m.Conflict)
			}
		},
		"another board behind the same card": func(t *testing.T, r *room) {
			v := r.admitted(macA, computer(uuidV, "SN-V", "DISK-V", macA))
			r.clock.add(time.Minute)
			board := r.boot(macA, computer(uuidE, "SN-E", "DISK-V", macA))
			if board.me.Machine == v.me.Machine || board.me.Admitted {
				t.Fatalf("it is %+v before a person said anything", board.me)
			}
			if err := r.MergeMachines(t.Context(), board.me.Machine, v.me.Machine); err != nil {
				t.Fatal(err)
			}
			if again := r.boot(macA, computer(uuidE, "SN-E", "DISK-V", macA)); again.me.Machine != v.me.Machine || !again.me.Admitted {
				t.Errorf("it is %+v after a person said that it is the old one", again.me)
			}
		},
		"a card of another machine inside": func(t *testing.T, r *room) {
			v := r.admitted(macA, computer(uuidV, "SN-V", "DISK-V", macA))
			e := r.admitted(macB, computer(uuidE, "SN-E", "DISK-E", macB))
			moved := r.boot(macB, computer(uuidE, "SN-E", "DISK-E", macB, macA))
			if moved.me.Machine != e.me.Machine || !moved.me.Admitted {
				t.Errorf("it is %+v", moved.me)
			}
			m := r.machine(e.me.Machine)
			if !strings.Contains(m.Conflict, macA) || slices.Contains(m.MACs, macA) || !slices.Contains(r.machine(v.me.Machine).MACs, macA) {
				t.Errorf("conflict %q, cards %v", m.Conflict, m.MACs)
			}
			if back := r.boot(macB, computer(uuidE, "SN-E", "DISK-E", macB)); back.me.Machine != e.me.Machine || r.machine(e.me.Machine).Conflict != "" {
				t.Errorf("without it: %+v", back.me)
			}
		},
	} {
		t.Run(what, func(t *testing.T) { c(t, newRoom(t, fleet.AdmitAsk)) })
	}
}

// TestAJobWaitsForAMachineThatComesWithAnotherCard: where machines are admitted by themselves, one that nobody knows boots its disk, unless
// a job waits for one with its UUID. It may be that one, and says so.
func TestAJobWaitsForAMachineThatComesWithAnotherCard(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	v := r.boot(macA, computer(uuidV, "SN-V", "DISK-V", macA))
	for _, waits := range []bool{false, true} {
		if waits {
			if _, err := r.Work(t.Context(), fleet.WorkOrder{Kind: job.InventoryOf, Machines: []string{v.me.Machine}}); err != nil {
				t.Fatal(err)
			}
		}
		for uuid, want := range map[string]bool{uuidV: waits, uuidE: false, "": false, "00000000-0000-0000-0000-000000000000": false} {
			if next := r.NextBoot(t.Context(), macB, uuid); next.Agent != want {
				t.Errorf("a job waits: %v; an unknown card with UUID %q boots the agent: %v", waits, uuid, next.Agent)
			}
		}
	}
	e := r.boot(macB, computer(uuidV, "SN-V", "DISK-V", macB))
	if e.me.Admitted || e.me.Machine == v.me.Machine || r.machine(e.me.Machine).Conflict == "" {
		t.Fatalf("it is %+v", e.me)
	}
	if err := r.MergeMachines(t.Context(), e.me.Machine, v.me.Machine); err != nil {
		t.Fatal(err)
	}
	if me := e.tells(computer(uuidV, "SN-V", "DISK-V", macB)); me.Machine != v.me.Machine || !me.Admitted {
		t.Fatalf("after the merge it is %+v", me)
	}
	if j := e.claim(); j == nil || j.Kind != job.InventoryOf {
		t.Errorf("its job is %+v", j)
	}
}
