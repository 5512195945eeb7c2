package fleet_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
)

func TestGroups(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	agents := r.machines(3, "")
	ctx := as(t, "otto", fleet.RoleOperator)
	room := fleet.Room
	if _, err := r.NewGroup(ctx, fleet.GroupOrder{Name: "Room 12", Kind: &room, Rows: ptr(5), Columns: ptr(8), Limit: ptr(2),
		Windows: &[]string{"mon-fri 18:00-07:00"}, Broadcast: ptr("10.1.2.255"), KeepClean: ptr(true)}); err != nil {
		t.Fatal(err)
	}
	for what, o := range map[string]fleet.GroupOrder{
		"the same name in other letters": {Name: "room 12"}, "no name": {Name: " "}, "a comma": {Name: "a,b"}, "a strange kind": {Name: "x", Kind: ptr(fleet.GroupKind("herd"))},
		"a window that cannot be": {Name: "x", Windows: &[]string{"soon"}}, "a broadcast that is none": {Name: "x", Broadcast: ptr("here")},
		"a limit below zero": {Name: "x", Limit: ptr(-1)}, "an image that is not there": {Name: "x", CleanImage: ptr("nothing")},
		"an image by which nothing is kept clean": {Name: "x", CleanImage: ptr("debian")},
	} {
		if g, err := r.NewGroup(ctx, o); err == nil {
			t.Errorf("%s: %+v", what, g)
		}
	}
	if _, err := r.NewGroup(ctx, fleet.GroupOrder{Name: "Room 13", Kind: &room}); err != nil {
		t.Fatal(err)
	}
	n, err := r.GroupMachines(ctx, "ROOM 12", []string{agents[0].me.Name, agents[1].mac, agents[1].me.Machine}, true)
	if err != nil || n != 2 {
		t.Fatalf("%d machines, %v", n, err)
	}
	if _, err := r.GroupMachines(ctx, "Room 13", []string{agents[0].me.Name}, true); err == nil {
		t.Error("a machine stands in two rooms")
	}
	g, err := r.EditGroup(ctx, "room 12", 0, fleet.GroupOrder{Limit: ptr(1)})
	if err != nil || g.Limit != 1 || g.Machines != 2 || len(g.Windows) != 1 || g.KeepClean == nil {
		t.Fatalf("%+v, %v", g, err)
	}
	if _, err := r.EditGroup(ctx, "room 12", g.Version-1, fleet.GroupOrder{Limit: ptr(3)}); codeOf(err) != fleet.CodeChanged {
		t.Errorf("changed by an old version: %v", err)
	}
	d, err := r.Deploy(ctx, fleet.Order{Image: "debian", Groups: []string{"room 12"}})
	if err != nil || d.By != "otto" || len(r.Jobs()) != 2 {
		t.Fatalf("%+v, %d jobs, %v", d, len(r.Jobs()), err)
	}
	if _, err := r.Deploy(ctx, fleet.Order{Image: "debian", Groups: []string{"room 13"}}); err == nil || !strings.Contains(err.Error(), "no machine belongs to group Room 13") {
		t.Errorf("a deployment to nobody: %v", err)
	}
	if err := r.RemoveGroup(ctx, "room 12"); err != nil {
		t.Fatal(err)
	}
	r.kill()
	if m, err := r.Machine(agents[0].mac); err != nil || len(m.Groups) != 0 {
		t.Fatalf("%+v, %v", m, err)
	}
	if list := r.Groups(); len(list) != 1 || list[0].Name != "Room 13" {
		t.Fatalf("%+v", list)
	}
}

func TestMachinesAreNamedSeatedAndNoted(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	agents := r.machines(2, "")
	ctx := as(t, "otto", fleet.RoleOperator)
	room := fleet.Room
	if _, err := r.NewGroup(ctx, fleet.GroupOrder{Name: "lab", Kind: &room}); err != nil {
		t.Fatal(err)
	}
	m, err := r.EditMachine(ctx, agents[0].mac, 0, fleet.MachineOrder{Name: ptr("desk-1"), Groups: &[]string{"Lab"}, Seat: &fleet.Seat{Row: 1, Column: 2}, Notes: ptr("fan is loud")})
	if err != nil || m.Name != "desk-1" || !slices.Equal(m.Groups, []string{"lab"}) || *m.Seat != (fleet.Seat{Row: 1, Column: 2}) || m.Notes != "fan is loud" {
		t.Fatalf("%+v, %v", m, err)
	}
	for what, o := range map[string]fleet.MachineOrder{
		"another's name": {Name: ptr("desk-1")}, "an empty name": {Name: ptr("")}, "a bell in the name": {Name: ptr("a\a")}, "another's seat": {Groups: &[]string{"lab"}, Seat: &fleet.Seat{Row: 1, Column: 2}},
		"half a seat": {Seat: &fleet.Seat{Row: 1}}, "a group that is not there": {Groups: &[]string{"nowhere"}}, "long notes": {Notes: ptr(strings.Repeat("x", 5000))},
		"a strange boot": {Boot: &fleet.BootOverride{To: "floppy"}},
	} {
		if m, err := r.EditMachine(ctx, agents[1].mac, 0, o); err == nil {
			t.Errorf("%s: %+v", what, m)
		}
	}
	if _, err := r.EditMachine(ctx, "desk-1", m.Version-1, fleet.MachineOrder{Notes: ptr("x")}); codeOf(err) != fleet.CodeChanged {
		t.Errorf("changed by an old version: %v", err)
	}
	if _, err := r.EditMachine(as(t, "vera", fleet.RoleViewer), "desk-1", 0, fleet.MachineOrder{Notes: ptr("x")}); codeOf(err) != fleet.CodeForbidden {
		t.Errorf("a viewer writes notes: %v", err)
	}
}

func TestBootOverride(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	a := r.machines(1, "")[0]
	ctx := as(t, "otto", fleet.RoleOperator)
	set := func(to fleet.BootTo, once bool) {
		t.Helper()
		if _, err := r.EditMachine(ctx, a.mac, 0, fleet.MachineOrder{Boot: &fleet.BootOverride{To: to, Once: once}}); err != nil {
			t.Fatal(err)
		}
	}
	boots := func(agent bool, stage string) {
		t.Helper()
		if got := r.powerOn(a.mac); got.Agent != agent {
			t.Fatalf("boots the agent: %v", got.Agent)
		}
		r.clock.add(time.Minute)
		if err := r.Sighted(t.Context(), fleet.Sighting{MAC: a.mac, Stage: stage}); err != nil {
			t.Fatal(err)
		}
		r.clock.add(3 * time.Minute)
	}
	boots(false, "local")
	set(fleet.BootAgent, false)
	boots(true, "kernel")
	boots(true, "kernel")
	set(fleet.BootAgent, true)
	boots(true, "kernel")
	boots(false, "local")
	r.deployAll()
	set(fleet.BootLocal, true)
	boots(false, "local")
	boots(true, "kernel")
	set(fleet.BootLocal, false)
	boots(false, "local")
	boots(false, "local")
	set(fleet.BootByJobs, false)
	boots(true, "kernel")
}

func TestMachinesAreRemovedAndMerged(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	agents := r.machines(2, "")
	ctx := as(t, "otto", fleet.RoleOperator)
	r.deployAll()
	agents[0].claim()
	if err := r.RemoveMachine(ctx, agents[0].mac); codeOf(err) != fleet.CodeMachineBusy {
		t.Fatalf("a machine at work is removed: %v", err)
	}
	if err := r.RemoveMachine(ctx, agents[1].mac); err != nil {
		t.Fatal(err)
	}
	r.kill()
	if _, err := r.Machine(agents[1].mac); codeOf(err) != fleet.CodeMachineUnknown {
		t.Fatalf("a machine that was removed: %v", err)
	}
	agents[0].authenticate()
	agents[0].mustReport(job.PhaseContent, 1000)
	agents[0].finish()
	other := r.boot("52:54:00:00:09:09", job.Inventory{UUID: "99999999-2222-3333-4444-555555555509", Serial: "OTHER"})
	if err := r.MergeMachines(ctx, other.mac, agents[0].mac); err != nil {
		t.Fatal(err)
	}
	m, err := r.Machine("52:54:00:00:09:09")
	if err != nil || m.ID != agents[0].me.Machine {
		t.Fatalf("%+v, %v", m, err)
	}
	if err := r.MergeMachines(ctx, agents[0].mac, agents[0].mac); err == nil {
		t.Error("a machine is merged into itself")
	}
}

// TestAMergedMachineKeepsWhatWasKnownOfEither: what people said of a record, and what its disk holds, are not lost with it.
func TestAMergedMachineKeepsWhatWasKnownOfEither(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	ctx := as(t, "otto", fleet.RoleOperator)
	agents := r.machines(3, "")
	for _, g := range []fleet.GroupOrder{{Name: "lab", Kind: ptr(fleet.Room)}, {Name: "hall", Kind: ptr(fleet.Room)}, {Name: "red"}, {Name: "blue"}} {
		if _, err := r.NewGroup(ctx, g); err != nil {
			t.Fatal(err)
		}
	}
	edit := func(a *agent, o fleet.MachineOrder) {
		t.Helper()
		if _, err := r.EditMachine(ctx, a.me.Machine, 0, o); err != nil {
			t.Fatal(err)
		}
	}
	edit(agents[0], fleet.MachineOrder{Groups: &[]string{"lab", "red"}, Seat: &fleet.Seat{Row: 2, Column: 3}, Notes: ptr("by the door")})
	edit(agents[1], fleet.MachineOrder{Groups: &[]string{"blue"}})
	edit(agents[2], fleet.MachineOrder{Groups: &[]string{"hall"}, Seat: &fleet.Seat{Row: 9, Column: 9}, Notes: ptr("the other")})
	r.deployAll()
	agents[0].mustClaim()
	agents[0].mustReport(job.PhaseContent, 1000)
	agents[0].finish()
	if err := r.MergeMachines(ctx, agents[0].mac, agents[1].mac); err != nil {
		t.Fatal(err)
	}
	check := func(a *agent, groups, notes string, seat fleet.Seat) {
		t.Helper()
		m, err := r.Machine(a.me.Machine)
		if err != nil || strings.Join(m.Groups, " ") != groups || m.Notes != notes || m.Seat == nil || *m.Seat != seat || m.Deployed == nil || m.Deployed.ImageName != "debian:1" {
			t.Fatalf("%+v, %v", m, err)
		}
	}
	check(agents[1], "blue lab red", "by the door", fleet.Seat{Row: 2, Column: 3})
	if err := r.MergeMachines(ctx, agents[1].me.Machine, agents[2].me.Machine); err != nil {
		t.Fatal(err)
	}
	r.kill()
	check(agents[2], "blue hall red", "the other", fleet.Seat{Row: 9, Column: 9}) // it stands in one room
}

func TestWake(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	type packet struct {
		mac string
		to  []netip.Addr
	}
	var sent []packet
	r.wake = func(mac net.HardwareAddr, to []netip.Addr) error {
		sent = append(sent, packet{mac.String(), to})
		return nil
	}
	r.kill()
	agents := r.machines(2, "")
	ctx := as(t, "otto", fleet.RoleOperator)
	if _, err := r.NewGroup(ctx, fleet.GroupOrder{Name: "lab", Broadcast: ptr("10.1.2.255")}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.GroupMachines(ctx, "lab", []string{agents[0].mac}, true); err != nil {
		t.Fatal(err)
	}
	w, err := r.Wake(ctx, []string{agents[1].mac}, []string{"lab"})
	if err != nil || len(w.Machines) != 2 || w.Packets != 2 {
		t.Fatalf("%+v, %v", w, err)
	}
	for _, p := range sent {
		if p.mac == agents[0].mac && !slices.Equal(p.to, []netip.Addr{netip.MustParseAddr("10.1.2.255")}) || p.mac == agents[1].mac && p.to != nil {
			t.Errorf("packet for %s to %v", p.mac, p.to)
		}
	}
	if _, err := r.Wake(as(t, "vera", fleet.RoleViewer), []string{agents[1].mac}, nil); codeOf(err) != fleet.CodeForbidden {
		t.Errorf("a viewer wakes: %v", err)
	}
}

func TestDeploymentsAreCancelledPausedResumedAndTriedAgainAsAWhole(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	agents := r.machines(3, "")
	ctx := as(t, "otto", fleet.RoleOperator)
	d, err := r.Deploy(ctx, fleet.Order{Image: "debian", All: true, Retries: ptr(0)})
	if err != nil {
		t.Fatal(err)
	}
	if n, err := r.OperateDeployment(ctx, d.ID, fleet.PauseAll); err != nil || n != 3 {
		t.Fatalf("%d, %v", n, err)
	}
	if agents[0].claim() != nil {
		t.Fatal("a paused job begins")
	}
	if n, err := r.OperateDeployment(ctx, d.ID, fleet.ResumeAll); err != nil || n != 3 {
		t.Fatalf("%d, %v", n, err)
	}
	for _, a := range agents[:2] {
		a.mustClaim()
		if _, err := r.Report(t.Context(), a.caller, job.Report{Job: a.job.ID, Epoch: a.job.Epoch, State: job.Failed, Code: "swarm-error", Reason: "x"}); err != nil {
			t.Fatal(err)
		}
	}
	agents[2].mustClaim() // two failed, and the third goes on
	agents[2].mustReport(job.PhaseContent, 1000)
	agents[2].finish()
	if n, err := r.RetryFailed(ctx, d.ID); err != nil || n != 2 {
		t.Fatalf("%d tried again, %v", n, err)
	}
	if n, err := r.RetryFailed(ctx, d.ID); err != nil || n != 0 {
		t.Fatalf("%d tried again twice, %v", n, err)
	}
	if n, err := r.OperateDeployment(ctx, d.ID, fleet.CancelAll); err != nil || n != 2 {
		t.Fatalf("%d cancelled, %v", n, err)
	}
	for _, dep := range r.Deployments() {
		if !dep.Closed {
			t.Error("a cancelled deployment to all is open")
		}
	}
	if _, err := r.OperateDeployment(ctx, "nothing", fleet.CancelAll); codeOf(err) != fleet.CodeDeploymentUnknown {
		t.Error(err)
	}
	if _, err := r.OperateDeployment(ctx, d.ID, "bless"); codeOf(err) != fleet.CodeInvalid {
		t.Error(err)
	}
}

func TestRollbackGivesEachMachineWhatItHeldBefore(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	a := r.machines(2, "")
	ctx := as(t, "otto", fleet.RoleOperator)
	deploy := func(image string, who ...*agent) *fleet.Deployment {
		t.Helper()
		var names []string
		for _, w := range who {
			names = append(names, w.me.Machine)
		}
		d, err := r.Deploy(ctx, fleet.Order{Image: image, Machines: names})
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range who {
			w.mustClaim()
			w.mustReport(job.PhaseContent, 1000)
			w.finish()
		}
		return d
	}
	first := deploy("debian", a[0])
	if _, _, err := r.Rollback(ctx, first.ID); err == nil {
		t.Fatal("rolled back to nothing")
	}
	second := deploy("debian", a[0], a[1])
	made, left, err := r.Rollback(ctx, second.ID)
	if err != nil || left != 1 || len(made) != 1 || made[0].Instead != second.ID || made[0].Image != first.Image {
		t.Fatalf("%+v, %d left, %v", made, left, err)
	}
	if v := r.jobOf(a[0].mac); v.Deployment != first.ID {
		for _, j := range r.Jobs() {
			if j.Deployment == made[0].ID && j.Machine != a[0].me.Machine {
				t.Fatalf("a machine that held nothing is written: %+v", j)
			}
		}
	}
	third := deploy("debian", a[0], a[1])
	if err := r.RemoveMachine(ctx, a[1].me.Machine); err != nil {
		t.Fatal(err)
	}
	if made, left, err = r.Rollback(ctx, third.ID); err != nil || left != 1 || len(made) != 1 {
		t.Fatalf("with a machine that was removed: %+v, %d left, %v", made, left, err)
	}
	if _, _, err := r.Rollback(ctx, "nothing"); codeOf(err) != fleet.CodeDeploymentUnknown {
		t.Error(err)
	}
}

func TestOrdersThatCannotBe(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	r.machines(1, "")
	for what, o := range map[string]fleet.Order{
		"nobody": {}, "all and some": {All: true, Machines: []string{"x"}}, "a negative time": {All: true, SeedFor: -1}, "a strange end": {All: true, After: "dance"},
		"a high priority": {All: true, Priority: 5000}, "many tries": {All: true, Retries: ptr(1000)}, "more than all": {All: true, Preload: 1.5},
		"a strange verification": {All: true, Options: job.Options{Verify: "maybe"}}, "strange free space": {All: true, Options: job.Options{Free: "paint"}},
		"a partition that is not there": {All: true, Options: job.Options{Keep: []int{77}}}, "a machine that is not there": {Machines: []string{"x"}},
		"a group that is not there": {Groups: []string{"x"}}, "the end of time": {All: true, NotBefore: time.Date(9999, 12, 31, 23, 59, 59, 0, time.FixedZone("", -3600))},
	} {
		o.Image = "debian"
		if d, err := r.Deploy(t.Context(), o); err == nil || codeOf(err) == "" {
			t.Errorf("%s: %+v, %v", what, d, err)
		}
	}
	if len(r.Jobs()) != 0 || len(r.Deployments()) != 0 {
		t.Error("an order that was refused left something")
	}
}

func TestAPausedDeploymentPausesMachinesSeenLater(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	ctx := as(t, "otto", fleet.RoleOperator)
	d, err := r.Deploy(ctx, fleet.Order{Image: "debian", All: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.OperateDeployment(ctx, d.ID, fleet.PauseAll); err != nil {
		t.Fatal(err)
	}
	a := r.machines(1, "")[0]
	if a.claim() != nil {
		t.Fatal("a machine begins a deployment that is paused")
	}
	if n, err := r.OperateDeployment(ctx, d.ID, fleet.ResumeAll); err != nil || n != 1 {
		t.Fatalf("%d, %v", n, err)
	}
	a.mustClaim()
}

func TestWhatAMachineSaysTakesNoOthersName(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	a := r.boot(macA, invA)
	for i, serial := range []string{a.me.Machine, a.me.Name, macA} {
		mac := fmt.Sprintf("52:54:00:00:02:%02x", i)
		r.boot(mac, job.Inventory{UUID: fmt.Sprintf("22222222-2222-3333-4444-5555555555%02x", i), Serial: serial, NICs: []job.NIC{{MAC: mac}}})
		if m, err := r.Machine(serial); err != nil || m.ID != a.me.Machine {
			t.Errorf("%s is %+v, %v", serial, m, err)
		}
	}
}

func TestAnInventoryIsBounded(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	inv := invA
	inv.NICs = append(inv.NICs[:1:1], job.NIC{MAC: "not an address"}, job.NIC{MAC: strings.Repeat("52:", 1000)}, job.NIC{MAC: "52-54-00-00-00-AA"})
	a := r.boot(macA, inv)
	if m, err := r.Machine(macA); err != nil || !slices.Equal(m.MACs, []string{macA, "52:54:00:00:00:aa"}) {
		t.Fatalf("%+v, %v", m, err)
	}
	for round := range 20 {
		inv.NICs = nil
		for i := range 60 {
			inv.NICs = append(inv.NICs, job.NIC{MAC: fmt.Sprintf("52:54:01:00:%02x:%02x", round, i)})
		}
		if _, err := r.Inventory(t.Context(), a.caller, inv); err != nil {
			t.Fatal(err)
		}
	}
	if m, err := r.Machine(macA); err != nil || len(m.MACs) > 256 {
		t.Fatalf("%d cards, %v", len(m.MACs), err)
	}
	inv.NICs = make([]job.NIC, 1000)
	if _, err := r.Inventory(t.Context(), a.caller, inv); codeOf(err) != fleet.CodeInvalid {
		t.Error(err)
	}
}

func TestWakeGoesOnWhereOneCannotBeReached(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	agents := r.machines(3, "")
	r.wake = func(mac net.HardwareAddr, _ []netip.Addr) error {
		if mac.String() == agents[0].mac {
			return errors.New("network is unreachable")
		}
		return nil
	}
	r.kill()
	w, err := r.Wake(as(t, "otto", fleet.RoleOperator), []string{agents[0].mac, agents[1].mac, agents[2].mac}, nil)
	if err != nil || len(w.Machines) != 2 || !slices.Equal(w.Failed, []string{agents[0].me.Name}) {
		t.Fatalf("%+v, %v", w, err)
	}
	if _, err := r.Wake(as(t, "otto", fleet.RoleOperator), []string{agents[0].mac}, nil); err == nil || !strings.Contains(err.Error(), "unreachable") {
		t.Error(err)
	}
}

func TestAGroupBecomesARoomWhereItsMachinesCanStandInIt(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	agents := r.machines(3, "")
	ctx := as(t, "otto", fleet.RoleOperator)
	for _, g := range []fleet.GroupOrder{{Name: "hall", Kind: ptr(fleet.Room)}, {Name: "lab"}} {
		if _, err := r.NewGroup(ctx, g); err != nil {
			t.Fatal(err)
		}
	}
	edit := func(a *agent, o fleet.MachineOrder) {
		t.Helper()
		if _, err := r.EditMachine(ctx, a.me.Machine, 0, o); err != nil {
			t.Fatal(err)
		}
	}
	become := func() error {
		_, err := r.EditGroup(ctx, "lab", 0, fleet.GroupOrder{Kind: ptr(fleet.Room)})
		return err
	}
	edit(agents[0], fleet.MachineOrder{Name: ptr("one"), Groups: &[]string{"lab", "hall"}, Seat: &fleet.Seat{Row: 1, Column: 1}})
	edit(agents[1], fleet.MachineOrder{Name: ptr("two"), Groups: &[]string{"lab"}, Seat: &fleet.Seat{Row: 1, Column: 1}})
	edit(agents[2], fleet.MachineOrder{Name: ptr("three"), Groups: &[]string{"lab"}})
	if err := become(); codeOf(err) != fleet.CodeAmbiguous || !strings.Contains(err.Error(), "one (hall)") || strings.Contains(err.Error(), "one (hall), ") {
		t.Errorf("with a machine in another room: %v", err)
	}
	edit(agents[0], fleet.MachineOrder{Groups: &[]string{"lab"}})
	if err := become(); codeOf(err) != fleet.CodeAmbiguous || !strings.Contains(err.Error(), "one and two (row 1, column 1)") {
		t.Errorf("with two machines at one seat: %v", err)
	}
	if g, err := r.Group("lab"); err != nil || g.Kind != fleet.Tag {
		t.Fatalf("%+v, %v", g, err)
	}
	edit(agents[1], fleet.MachineOrder{Seat: &fleet.Seat{Row: 1, Column: 2}})
	if err := become(); err != nil {
		t.Fatal(err)
	}
	edit(agents[2], fleet.MachineOrder{Groups: &[]string{}, Seat: &fleet.Seat{Row: 1, Column: 2}})
	if _, err := r.GroupMachines(ctx, "lab", []string{"three"}, true); codeOf(err) != fleet.CodeAmbiguous || !strings.Contains(err.Error(), "three and two") {
		t.Errorf("a machine that comes to a seat that is taken: %v", err)
	}
	if _, err := r.EditMachine(ctx, "three", 0, fleet.MachineOrder{Groups: &[]string{"lab"}}); codeOf(err) != fleet.CodeAmbiguous {
		t.Errorf("a machine that is edited to a seat that is taken: %v", err)
	}
	if _, err := r.GroupMachines(ctx, "lab", []string{"one", "two"}, false); err != nil {
		t.Fatal(err)
	}
	edit(agents[0], fleet.MachineOrder{Seat: &fleet.Seat{Row: 1, Column: 2}})
	if n, err := r.GroupMachines(ctx, "lab", []string{"one", "two"}, true); codeOf(err) != fleet.CodeAmbiguous {
		t.Errorf("%d machines came to one seat at once: %v", n, err)
	}
}
