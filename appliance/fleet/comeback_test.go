package fleet_test

import (
	"slices"
	"testing"
	"time"

	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
)

// obey reports as an agent does that stands still since the appliance said so, else as one at work.
func (a *agent) obey(last job.Directive, held int64) job.Directive {
	a.r.t.Helper()
	rep := job.Report{Job: a.job.ID, Epoch: a.job.Epoch, Phase: job.PhaseContent, State: job.Running, Total: 1000, Held: held}
	if last.State == job.Paused {
		rep.State, rep.Code, rep.Reason = job.Paused, "operator", "a person paused the job"
	}
	d, err := a.r.Report(a.r.t.Context(), a.caller, rep)
	if err != nil {
		a.r.t.Fatal(err)
	}
	return d
}

// TestWhoComesBackWaitsForAPlace: the limit holds for a machine that was silent, that a person paused, and that paused itself.
func TestWhoComesBackWaitsForAPlace(t *testing.T) {
	for what, leave := range map[string]struct {
		go_, come func(t *testing.T, r *room, a *agent)
	}{
		"silent": {func(t *testing.T, r *room, _ *agent) {
			r.clock.add(2 * time.Minute)
			r.tidy()
		}, nil},
		"paused by a person": {func(t *testing.T, r *room, a *agent) {
			if err := r.Pause(t.Context(), a.job.ID); err != nil {
				t.Fatal(err)
			}
		}, func(t *testing.T, r *room, a *agent) {
			if err := r.Resume(t.Context(), a.job.ID); err != nil {
				t.Fatal(err)
			}
		}},
		"paused by itself": {func(t *testing.T, r *room, a *agent) {
			rep := job.Report{Job: a.job.ID, Epoch: 1, Phase: job.PhaseCheck, State: job.Paused, Code: "too-small", Reason: "put in a larger disk"}
			if _, err := r.Report(t.Context(), a.caller, rep); err != nil {
				t.Fatal(err)
			}
		}, nil},
	} {
		t.Run(what, func(t *testing.T) {
			r := newRoom(t, fleet.AdmitAuto)
			if err := fleet.Put(r.Fleet, t.Context(), &fleet.Settings{Limit: 1}); err != nil {
				t.Fatal(err)
			}
			agents := r.machines(3, "")
			a, b, c := agents[0], agents[1], agents[2]
			r.deployAll()
			a.mustClaim()
			if err := r.Prioritise(t.Context(), a.job.ID, 1); err != nil {
				t.Fatal(err)
			}
			d := a.obey(job.Directive{}, 1)
			if b.claim() != nil {
				t.Fatal("two at work")
			}
			leave.go_(t, r, a)
			b.mustClaim()
			b.mustReport(job.PhaseContent, 1)
			if leave.come != nil {
				d = a.obey(d, 1)
				leave.come(t, r, a)
			}
			atWork := func(want *agent) {
				t.Helper()
				for _, v := range r.Jobs() {
					if is := v.State == job.Running || v.State == job.Claimed; is != (want != nil && v.MAC == want.mac) {
						t.Fatalf("job of %s is %s: %s", v.MAC, v.State, v.Reason)
					}
				}
			}
			for range 3 {
				if d = a.obey(d, 1); d.State != job.Paused {
					t.Fatalf("told to be %s where there is no place", d.State)
				}
				atWork(b)
			}
			fleet.Settle(r.Fleet)
			if v := r.jobOf(a.mac); v.State != job.Waiting || v.Wait != "site-limit" || v.Place != 1 {
				t.Fatalf("%s, waits for %s at place %d: %s", v.State, v.Wait, v.Place, v.Reason)
			}
			b.finish()
			if c.claim() != nil {
				t.Fatal("the next one takes the place of who was at work before it")
			}
			if d = a.obey(d, 2); d.State != job.Running {
				t.Fatalf("told to be %s where there is a place", d.State)
			}
			atWork(a)
			a.obey(job.Directive{State: job.Paused}, 2) // was on its way
			atWork(a)
			a.obey(d, 3)
			a.finish()
			c.mustClaim()
		})
	}
}

// TestAPlaceIsNotKeptForWhoIsGoneAgain: who came back, stands still for lack of a place, and is switched off keeps none.
func TestAPlaceIsNotKeptForWhoIsGoneAgain(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	if err := fleet.Put(r.Fleet, t.Context(), &fleet.Settings{Limit: 1}); err != nil {
		t.Fatal(err)
	}
	agents := r.machines(3, "")
	a, b, c := agents[0], agents[1], agents[2]
	r.deployAll()
	a.mustClaim()
	if err := r.Prioritise(t.Context(), a.job.ID, 1); err != nil {
		t.Fatal(err)
	}
	r.clock.add(2 * time.Minute)
	r.tidy()
	b.mustClaim()
	b.mustReport(job.PhaseContent, 1)
	a.obey(job.Directive{}, 1)
	b.finish()
	if c.claim() != nil {
		t.Fatal("the place was free at once")
	}
	r.clock.add(time.Minute)
	c.mustClaim()
}

// TestTheLastWordsOfADeadApplianceAreNotNews: what lies in the records at the start may be of long ago.
func TestTheLastWordsOfADeadApplianceAreNotNews(t *testing.T) {
	rooms, _ := newSite(t, 1)
	one := rooms[0]
	start := func(id string) *room {
		r := &room{t: t, dir: one.dir, id: id, location: one.location, admit: one.admit, lib: one.lib, site: one.site, clock: one.clock}
		r.start()
		t.Cleanup(func() { r.store.Close() })
		return r
	}
	exchange := func(r *room) {
		t.Helper()
		if err := fleet.Exchange(r.Fleet, t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := fleet.Put(one.Fleet, t.Context(), &fleet.Appliance{ID: one.id, Name: "one", URL: "https://10.77.0.1:443"}); err != nil {
		t.Fatal(err)
	}
	one.deployAll()
	a := one.boot(macA, invA)
	a.mustClaim()
	a.mustReport(job.PhaseContent, 1)
	a.mustReport(job.PhaseContent, 500)
	exchange(one) // and dies
	one.clock.add(time.Hour)
	two := start("two")
	for range 2 {
		exchange(two)
		list := two.Appliances()
		if i := slices.IndexFunc(list, func(v fleet.ApplianceView) bool { return v.ID == one.id }); i < 0 || list[i].Present || !list[i].Heard.IsZero() {
			t.Fatalf("an appliance that is dead: %+v", list)
		}
		if v := two.jobOf(macA); v.Held == 500 {
			t.Fatalf("its last words are taken for news: %+v", v)
		}
	}
	exchange(one) // it was only slow
	exchange(two)
	list := two.Appliances()
	if i := slices.IndexFunc(list, func(v fleet.ApplianceView) bool { return v.ID == one.id }); i < 0 || !list[i].Present {
		t.Fatalf("an appliance that is there: %+v", list)
	}
}
