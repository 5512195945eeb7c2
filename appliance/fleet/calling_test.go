package fleet_test

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
	"seedbed/appliance/wake"
)

// ear hears the packets that wake machines at an address of the loopback network.
type ear struct {
	t testing.TB
	*net.UDPConn
	at netip.Addr
}

func listen(t testing.TB, at string) *ear {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.ParseIP(at), Port: wake.Port})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &ear{t, c, netip.MustParseAddr(at)}
}

// heard returns the addresses of the cards that were woken since it was called last, in order.
func (e *ear) heard() (macs []string) {
	e.t.Helper()
	end := net.HardwareAddr{2, 0, 0, 0, 0, 0xee} // loopback keeps the order: what was sent before this one comes before it
	if err := wake.Send(end, []netip.Addr{e.at}, ""); err != nil {
		e.t.Fatal(err)
	}
	got := make([]byte, 200)
	for {
		e.SetReadDeadline(time.Now().Add(10 * time.Second))
		n, _, err := e.ReadFrom(got)
		if err != nil {
			e.t.Fatal(err)
		}
		mac := net.HardwareAddr(slices.Clone(got[6:12]))
		if want, err := wake.Packet(mac); err != nil || !bytes.Equal(got[:n], want) {
			e.t.Fatalf("% x, %v", got[:n], err)
		}
		if mac.String() == end.String() {
			slices.Sort(macs)
			return macs
		}
		macs = append(macs, mac.String())
	}
}

func (e *ear) hears(what string, agents ...*agent) {
	e.t.Helper()
	var want []string
	for _, a := range agents {
		want = append(want, a.mac)
	}
	slices.Sort(want)
	if got := e.heard(); !slices.Equal(got, want) {
		e.t.Fatalf("%s: %v were woken, want %v", what, got, want)
	}
}

func sendsOnLoopback(mac net.HardwareAddr, to []netip.Addr) error {
	if len(to) == 0 {
		return errors.New("no network")
	}
	return wake.Send(mac, to, "")
}

func (r *room) tidy() {
	r.t.Helper()
	fleet.Settle(r.Fleet)
	if err := fleet.Tidy(r.Fleet, r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
	fleet.Settle(r.Fleet)
}

// callRoom has two rooms of machines that are switched off, each with a network of its own, and a limit of two at once.
func callRoom(t *testing.T) (r *room, lab, hall []*agent, labEar, hallEar *ear) {
	r = newRoom(t, fleet.AdmitAuto)
	r.wake = sendsOnLoopback
	r.kill()
	for _, g := range []*fleet.Group{
		{ID: "lab", Name: "Lab", Kind: fleet.Room, Broadcast: "127.9.0.1"},
		{ID: "hall", Name: "Hall", Kind: fleet.Room, Broadcast: "127.9.0.2", Windows: []string{"daily 18:00-20:00 UTC"}},
	} {
		if err := fleet.Put(r.Fleet, t.Context(), g); err != nil {
			t.Fatal(err)
		}
	}
	if err := fleet.Put(r.Fleet, t.Context(), &fleet.Settings{Limit: 2, TimeZone: "UTC"}); err != nil {
		t.Fatal(err)
	}
	all := r.machines(4, "")
	for i, a := range all {
		if err := fleet.Join1(r.Fleet, t.Context(), a.me.Machine, []string{"lab", "hall"}[i/3]); err != nil {
			t.Fatal(err)
		}
	}
	r.clock.add(10 * time.Minute) // nothing is heard of them any more
	return r, all[:3], all[3:], listen(t, "127.9.0.1"), listen(t, "127.9.0.2")
}

func TestMachinesAreWokenWhenItIsTheirTurn(t *testing.T) {
	r, lab, hall, labEar, hallEar := callRoom(t)
	r.tidy()
	labEar.hears("without a deployment")
	d, err := r.Deploy(t.Context(), fleet.Order{Image: "debian", Groups: []string{"lab", "hall"}, Wake: true})
	if err != nil {
		t.Fatal(err)
	}
	byJob := func() (list []*agent) { // in the order of the queue: all were made in one moment
		for _, v := range r.Jobs() {
			for _, a := range lab {
				if v.Deployment == d.ID && v.MAC == a.mac {
					list = append(list, a)
				}
			}
		}
		return list
	}()
	first, second, third := byJob[0], byJob[1], byJob[2]
	waits := func(a *agent, code, text string) {
		t.Helper()
		fleet.Settle(r.Fleet)
		if v := r.jobOf(a.mac); v.State != job.Waiting || v.Wait != code || !strings.Contains(v.Reason, text) {
			t.Fatalf("waits for %s: %s, want %s: %s", v.Wait, v.Reason, code, text)
		}
	}
	r.tidy()
	labEar.hears("two places", first, second)
	hallEar.hears("outside the window")
	waits(first, "called", "was called at 08:10 and has not answered yet")
	waits(third, "site-limit", "2 of 2")
	waits(hall[0], "window", "18:00")
	if v := r.jobOf(first.mac); v.Calls != 1 || !v.Called.Equal(r.clock.now()) {
		t.Fatalf("%d calls, at %v", v.Calls, v.Called)
	}
	r.clock.add(time.Minute)
	r.tidy()
	labEar.hears("again at once")
	r.kill() // what was called is remembered
	r.tidy()
	labEar.hears("after a restart")
	if got := r.powerOn(first.mac); !got.Agent {
		t.Fatal("a machine that was woken boots its own disk")
	}
	waits(first, "called", "was called at 08:10 and is on its way")
	first = r.boot(first.mac, job.Inventory{UUID: "x", NICs: []job.NIC{{MAC: first.mac}}})
	first.mustClaim()
	if v := r.jobOf(first.mac); v.Calls != 0 || v.State != job.Claimed {
		t.Fatalf("%+v", v)
	}
	r.clock.add(5 * time.Minute)
	first.mustReport(job.PhaseContent, 10)
	r.tidy()
	labEar.hears("one that does not answer gives way to one that was not called yet", third)
	waits(second, "site-limit", "2 of 2")
	first.finish()
	r.tidy()
	labEar.hears("a second time", second)
	waits(second, "called", "was called at 08:16 and has not answered yet")
	r.clock.add(5 * time.Minute)
	r.tidy()
	labEar.hears("a second time, and a third", second, third)
	r.clock.add(5 * time.Minute)
	r.tidy()
	waits(second, "no-answer", "was called 3 times, at last at 08:21, and has not answered; switch the machine on")
	labEar.hears("a third time", third)
	r.clock.add(5 * time.Minute)
	r.tidy()
	r.clock.add(24 * time.Hour)
	r.tidy()
	labEar.hears("no more")
	waits(third, "no-answer", "at last at Mon 08:26")
	if n := len(slices.DeleteFunc(r.events(), func(k string) bool { return k != "job.no-answer" })); n != 2 {
		t.Fatalf("%d events say that a machine did not answer", n)
	}
	hallEar.hears("a day later, outside the window")
	r.clock.add(10 * time.Hour)
	r.tidy()
	hallEar.hears("inside the window", hall[0])
	// A person looks after one, and switches another one on by hand.
	if _, err := r.Wake(as(t, "otto", fleet.RoleOperator), []string{second.mac}, nil); err != nil {
		t.Fatal(err)
	}
	labEar.hears("by a person", second)
	r.tidy()
	labEar.hears("anew", second)
	third = r.boot(third.mac, job.Inventory{UUID: "y", NICs: []job.NIC{{MAC: third.mac}}})
	r.clock.add(time.Hour)
	third.mustClaim()
}

func TestNobodyIsWokenWhoIsThereOrHasNoOrderToBe(t *testing.T) {
	r, lab, _, labEar, _ := callRoom(t)
	if _, err := r.Deploy(t.Context(), fleet.Order{Image: "debian", Machines: []string{lab[0].mac}}); err != nil {
		t.Fatal(err)
	}
	r.tidy()
	labEar.hears("without --wake")
	d, err := r.Deploy(t.Context(), fleet.Order{Image: "debian", Groups: []string{"lab"}, Wake: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.OperateDeployment(t.Context(), d.ID, fleet.PauseAll); err != nil {
		t.Fatal(err)
	}
	r.tidy()
	labEar.hears("while the deployment is paused")
	if _, err := r.EditMachine(t.Context(), lab[0].mac, 0, fleet.MachineOrder{Boot: &fleet.BootOverride{To: fleet.BootLocal}}); err != nil {
		t.Fatal(err)
	}
	r.powerOn(lab[1].mac) // it is on its way
	r.clock.add(callGapAndMore)
	if _, err := r.OperateDeployment(t.Context(), d.ID, fleet.ResumeAll); err != nil {
		t.Fatal(err)
	}
	r.tidy()
	labEar.hears("one boots its own disk as a person said, one boots already", lab[2])
	r.clock.add(2 * time.Minute)
	r.tidy()
	labEar.hears("one that came to nothing on its way", lab[1])
	if err := r.CancelDeployment(d.ID); err != nil {
		t.Fatal(err)
	}
	r.clock.add(time.Hour)
	r.tidy()
	labEar.hears("after the end")
}

// callGapAndMore is longer than a machine is left alone after it was heard of, and shorter than a boot takes.
const callGapAndMore = time.Minute

func (r *room) CancelDeployment(id string) error {
	_, err := r.OperateDeployment(r.t.Context(), id, fleet.CancelAll)
	return err
}

func TestAMachineThatCannotBeWokenSaysWhyAndKeepsNoPlace(t *testing.T) {
	r, lab, _, labEar, _ := callRoom(t)
	stranded := r.machines(5, "")[4] // in no group, and so in no network
	r.clock.add(10 * time.Minute)
	if _, err := r.Deploy(t.Context(), fleet.Order{Image: "debian", Machines: []string{stranded.mac}, Priority: 5, Wake: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Deploy(t.Context(), fleet.Order{Image: "debian", Machines: []string{lab[0].mac, lab[1].mac, lab[2].mac}, Wake: true}); err != nil {
		t.Fatal(err)
	}
	r.tidy()
	if v := r.jobOf(stranded.mac); v.Calls != 1 || v.Wait != "machine" || !strings.Contains(v.Reason, "could not be called at 08:20: ") || !strings.Contains(v.Reason, "no network") {
		t.Fatalf("%d calls: waits for %s: %s", v.Calls, v.Wait, v.Reason)
	}
	r.tidy()
	if got := labEar.heard(); len(got) != 2 {
		t.Fatalf("it keeps others asleep: %v are woken", got)
	}
	for range 10 { // it is called no more often than the others
		r.clock.add(5 * time.Minute)
		r.tidy()
	}
	if v := r.jobOf(stranded.mac); v.Calls != 3 || v.Wait != "no-answer" || !strings.Contains(v.Reason, "no network") {
		t.Fatalf("%d calls: waits for %s: %s", v.Calls, v.Wait, v.Reason)
	}
}

// TestTwoAppliancesDoNotBothWake has both of a site at it at the same time, and one that does not know yet that it was relieved.
func TestTwoAppliancesDoNotBothWake(t *testing.T) {
	rooms, _ := newSite(t, 1)
	first := rooms[0]
	var mu sync.Mutex
	sent := map[string]int{}
	start := func(id string) *room {
		r := &room{t: t, dir: first.dir, id: id, location: first.location, admit: first.admit, lib: first.lib, site: first.site, clock: first.clock,
			wake: func(mac net.HardwareAddr, _ []netip.Addr) error {
				mu.Lock()
				defer mu.Unlock()
				sent[id+" "+mac.String()]++
				return nil
			}}
		r.start()
		t.Cleanup(func() { r.store.Close() })
		return r
	}
	one, two := start("one"), start("two")
	if err := fleet.AttendOffice(one.Fleet, t.Context(), new(fleet.Watch)); err != nil {
		t.Fatal(err)
	}
	agents := one.machines(8, "")
	one.clock.add(10 * time.Minute)
	if _, err := one.Deploy(t.Context(), fleet.Order{Image: "debian", All: true, Wake: true}); err != nil {
		t.Fatal(err)
	}
	both := func() {
		t.Helper()
		var all sync.WaitGroup
		for range 5 {
			for _, r := range []*room{one, two} {
				all.Go(func() {
					fleet.Settle(r.Fleet)
					if err := errors.Join(fleet.CatchUp(r.Fleet), fleet.Tidy(r.Fleet, t.Context())); err != nil {
						t.Error(err)
					}
				})
			}
		}
		all.Wait()
	}
	woken := func(by string) {
		t.Helper()
		if len(sent) != len(agents) {
			t.Fatalf("%d packets: %v", len(sent), sent)
		}
		for _, a := range agents {
			if sent[by+" "+a.mac] != 1 {
				t.Fatalf("%v", sent)
			}
		}
		clear(sent)
	}
	both()
	woken("one")
	both()
	if len(sent) != 0 {
		t.Fatalf("again at once: %v", sent)
	}
	seen, err := two.store.Office(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := two.store.Seize(t.Context(), "two", seen); err != nil {
		t.Fatal(err)
	}
	if err := fleet.AttendOffice(two.Fleet, t.Context(), new(fleet.Watch)); err != nil {
		t.Fatal(err)
	}
	if !one.InOffice() || !two.InOffice() {
		t.Fatal("the one that was relieved knows it already")
	}
	one.clock.add(10 * time.Minute)
	both()
	woken("two")
}
