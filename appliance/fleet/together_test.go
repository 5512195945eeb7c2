package fleet_test

import (
	"errors"
	"testing"
	"time"

	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
)

func TestTwoEditorsOfOneVersionInOneTransaction(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	a := r.machines(1, "")[0]
	if _, err := r.FirstAdmin(t.Context()); err != nil {
		t.Fatal(err)
	}
	admin := as(t, "admin", fleet.RoleAdmin)
	g, err := r.NewGroup(admin, fleet.GroupOrder{Name: "lab"})
	if err != nil {
		t.Fatal(err)
	}
	set, err := r.EditSettings(admin, 0, fleet.SettingsOrder{Limit: ptr(3)})
	if err != nil {
		t.Fatal(err)
	}
	u, err := r.NewUser(admin, fleet.UserOrder{Name: "otto", Role: ptr(fleet.RoleViewer), Password: ptr("correct horse")})
	if err != nil {
		t.Fatal(err)
	}
	m, err := r.Machine(a.mac)
	if err != nil {
		t.Fatal(err)
	}
	for what, edit := range map[string]func(n int) error{
		"group": func(n int) error {
			_, err := r.EditGroup(admin, "lab", g.Version, fleet.GroupOrder{Limit: ptr(n)})
			return err
		},
		"settings": func(n int) error {
			_, err := r.EditSettings(admin, set.Version, fleet.SettingsOrder{Limit: ptr(n)})
			return err
		},
		"user": func(n int) error {
			_, err := r.EditUser(admin, "otto", u.Version, fleet.UserOrder{Role: ptr([]fleet.Role{fleet.RoleOperator, fleet.RoleAdmin}[n])})
			return err
		},
		"machine": func(n int) error {
			_, err := r.EditMachine(admin, a.mac, m.Version, fleet.MachineOrder{Notes: ptr([]string{"one", "two"}[n])})
			return err
		},
	} {
		var first, second error
		fleet.Together(r.Fleet, func() { first = edit(0) }, func() { second = edit(1) })
		if first != nil || codeOf(second) != fleet.CodeChanged {
			t.Errorf("%s: %v, %v", what, first, second)
		}
	}
}

func TestWhatIsRemovedAndMadeAgainInOneTransaction(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	admin := as(t, "admin", fleet.RoleAdmin)
	if _, err := r.NewGroup(admin, fleet.GroupOrder{Name: "lab", Limit: ptr(3)}); err != nil {
		t.Fatal(err)
	}
	errs := make([]error, 4)
	fleet.Together(r.Fleet,
		func() { errs[0] = r.RemoveGroup(admin, "lab") },
		func() { _, errs[1] = r.NewGroup(admin, fleet.GroupOrder{Name: "lab"}) },
		func() { _, errs[2] = r.EditGroup(admin, "lab", 0, fleet.GroupOrder{Limit: ptr(7)}) },
		func() { errs[3] = r.Note(admin, "test.note", "another's change") },
	)
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	r.kill()
	if g, err := r.Group("lab"); err != nil || g.Limit != 7 {
		t.Fatalf("%+v, %v", g, err)
	}
}

func TestAnApplianceThatWasRelievedLeavesOthersChangesAlone(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	seen, err := r.store.Office(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.store.Seize(t.Context(), "another", seen); err != nil {
		t.Fatal(err)
	}
	var before, scheduled, after error
	fleet.Together(r.Fleet,
		func() { before = r.Note(t.Context(), "test.before", "x") },
		func() { scheduled = fleet.Schedule(r.Fleet, t.Context()) },
		func() { _, after = r.Deploy(t.Context(), fleet.Order{Image: "debian", All: true}) },
	)
	if before != nil || scheduled != nil || after != nil {
		t.Fatal(before, scheduled, after)
	}
	kinds := r.events()
	if len(kinds) != 2 || kinds[0] != "test.before" || kinds[1] != "deployment.created" {
		t.Fatalf("%v", kinds)
	}
	if r.InOffice() {
		t.Error("it was not told that it is relieved")
	}
}

func TestAClaimIsJudgedByTheClockOfTheOneThatLooks(t *testing.T) {
	rooms, _ := newSite(t, 1)
	one := rooms[0]
	if err := fleet.AttendOffice(one.Fleet, t.Context(), new(fleet.Watch)); err != nil {
		t.Fatal(err)
	}
	one.deployAll()
	two := &room{t: t, dir: one.dir, id: "appliance-slow", location: one.location, admit: one.admit, lib: one.lib, site: one.site,
		clock: &clock{t: one.clock.now().Add(-10 * time.Minute)}}
	two.start()
	t.Cleanup(func() { two.store.Close() })
	a := two.boot(macA, invA)
	a.mustClaim()
	a.mustReport(job.PhaseContent, 10)
	fleet.CatchUp(one.Fleet)
	if err := fleet.Tidy(one.Fleet, t.Context()); err != nil {
		t.Fatal(err)
	}
	if v := one.jobOf(macA); v.State != job.Running {
		t.Fatalf("the job of a machine that reports is %s: %s", v.State, v.Reason)
	}
	one.clock.add(2 * time.Minute)
	if err := fleet.Tidy(one.Fleet, t.Context()); err != nil {
		t.Fatal(err)
	}
	if v := one.jobOf(macA); v.State != job.Waiting {
		t.Fatalf("the job of a machine that nothing is heard of is %s", v.State)
	}
}

func TestWhoLogsInAtOneApplianceIsKnownAtTheOther(t *testing.T) {
	rooms, _ := newSite(t, 1)
	one := rooms[0]
	two := &room{t: t, dir: one.dir, id: "appliance-late", location: one.location, admit: one.admit, lib: one.lib, site: one.site, clock: one.clock}
	two.start() // and does not follow
	t.Cleanup(func() { two.store.Close() })
	password, err := one.FirstAdmin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	stay, err := two.Login(t.Context(), "admin", password, "10.0.0.7")
	if err != nil {
		t.Fatal(err)
	}
	if a, _, err := one.Stayed(stay.Cookie, "10.0.0.7"); err != nil || a.Name != "admin" {
		t.Errorf("%+v, %v", a, err)
	}
	_, secret, err := one.NewKey(as(t, "admin", fleet.RoleAdmin), fleet.KeyOrder{Name: "ci", Expires: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	if a, err := two.KeyActor(secret, "10.0.0.8"); err != nil || a.Name != "admin" {
		t.Errorf("%+v, %v", a, err)
	}
	if _, _, err := two.Stayed("nothing", ""); codeOf(err) != fleet.CodeUnauthorised {
		t.Error(err)
	}
}
