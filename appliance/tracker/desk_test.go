package tracker

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"seedbed/images/schedule"
)

// hall is a desk with machines that fetch, in a time of its own. A copy takes copyTime for each that its source gives at once.
type hall struct {
	t        *testing.T
	desk     *desk
	now      time.Time
	machines []*visitor
	seeder   *visitor
	web      *visitor                // the appliance's HTTPS
	dead     map[netip.AddrPort]bool // asked in vain
	// copies counts what each gave, by address; across those from one group to another.
	copies map[netip.AddrPort]int
	across int
}

// visitor is a machine of a hall, or what gives copies.
type visitor struct {
	at    netip.AddrPort
	who   schedule.Who
	from  *visitor
	left  time.Duration // of its copy, at full rate
	gives int
	done  bool
	alone bool // nobody was named: it fetched in another way
	asked *asker
	began time.Time
	ended time.Time
}

const (
	copyTime = 100 * time.Millisecond
	hallStep = 5 * time.Millisecond
)

func newHall(t *testing.T, policy string) *hall {
	t.Helper()
	p := schedule.NoPolicy()
	if policy != "" {
		var err error
		if p, err = schedule.ParsePolicy([]byte(policy)); err != nil {
			t.Fatal(err)
		}
	}
	h := &hall{t: t, now: time.Unix(1e9, 0), dead: map[netip.AddrPort]bool{}, copies: map[netip.AddrPort]int{},
		seeder: &visitor{at: seed}, web: &visitor{}}
	h.desk = newDesk(p, func() []netip.AddrPort { return []netip.AddrPort{seed} })
	return h
}

func (h *hall) enter(a netip.AddrPort) *visitor {
	v := &visitor{at: a, who: schedule.Who{Address: a.Addr(), Names: []string{a.String()}}, began: h.now}
	h.machines = append(h.machines, v)
	h.ask(v, nil)
	return v
}

func (h *hall) ask(v *visitor, failed []netip.AddrPort) {
	v.asked = h.desk.asker(v.at.String(), v.who, 1<<20, h.now)
	list, wait := h.desk.ask(v.asked, failed, h.now)
	if !wait {
		h.follow(v, list)
	}
}

// follow makes a machine fetch from the first of the list that lives.
func (h *hall) follow(v *visitor, list []netip.AddrPort) {
	v.asked = nil
	for _, a := range list {
		if h.dead[a] {
			continue
		}
		from := h.seeder
		if a != seed {
			from = h.machines[slices.IndexFunc(h.machines, func(o *visitor) bool { return o.at == a })]
			if !from.done || !h.desk.policy.MayFetch(v.who, from.who) {
				h.t.Fatalf("%v is sent to %v, which has nothing or is not allowed", v.at, a)
			}
		}
		if len(h.dead) == 0 && from.gives >= loansAtOnce && from != h.seeder {
			h.t.Errorf("%v gives %d copies at once", a, from.gives+1)
		}
		h.copies[a]++
		if from != h.seeder && h.desk.policy.GroupOf(v.who) != h.desk.policy.GroupOf(from.who) {
			h.across++
		}
		v.from, v.left = from, copyTime
		from.gives++
		return
	}
	if len(list) > 0 {
		h.ask(v, list)
		return
	}
	v.alone = true
	h.copies[h.web.at]++
	v.from, v.left = h.web, copyTime
	h.web.gives++
}

func (h *hall) finish(v *visitor) {
	v.done, v.ended = true, h.now
	h.desk.held(v.at.String(), v.at, v.who, h.now)
}

// run lets time pass until everyone is done.
func (h *hall) run() {
	h.t.Helper()
	second := h.now.Add(time.Second)
	for range 100_000 {
		busy := false
		again := h.now.After(second)
		if again {
			second = h.now.Add(time.Second)
		}
		for _, v := range h.machines {
			if v.done {
				continue
			}
			busy = true
			if q := v.asked; q != nil {
				select {
				case list := <-q.ready:
					h.follow(v, list)
				default:
					if again {
						h.ask(v, nil)
					}
				}
			}
			if f := v.from; f != nil {
				if v.left -= hallStep / time.Duration(f.gives); v.left <= 0 {
					v.from = nil
					f.gives--
					h.finish(v)
				}
			}
		}
		if !busy {
			return
		}
		h.now = h.now.Add(hallStep)
	}
	h.t.Fatal("not everyone is served")
}

func (h *hall) last() (d time.Duration) {
	for _, v := range h.machines {
		d = max(d, v.ended.Sub(v.began))
	}
	return d
}

// nothingLeft fails if a loan or somebody who asked is left over.
func (h *hall) nothingLeft() {
	h.t.Helper()
	for _, g := range h.desk.groups {
		busy := 0
		for _, l := range g.lenders {
			busy += l.busy
		}
		if busy != 0 || g.outside != 0 || len(g.queue) != 0 || len(h.desk.askers) != 0 {
			h.t.Errorf("left over: %d loans, %d from outside, %d who wait, %d who asked", busy, g.outside, len(g.queue), len(h.desk.askers))
		}
	}
}

func TestTheApplianceGivesAFewCopies(t *testing.T) {
	for _, c := range []struct {
		machines, copies int
		took             time.Duration // of one copy after the other; the appliance alone takes one for each machine
	}{{1, 1, 1}, {2, 2, 2}, {8, 4, 5}, {16, 5, 7}, {100, 6, 10}, {1000, 8, 15}} {
		t.Run(fmt.Sprint(c.machines), func(t *testing.T) {
			h := newHall(t, "")
			for n := range c.machines {
				h.enter(machineAt(0, n))
			}
			h.run()
			t.Logf("%d machines: %d copies of the appliance, the last after %v", c.machines, h.copies[seed], h.last())
			if h.copies[seed] > c.copies || h.last() > c.took*copyTime {
				t.Errorf("%d copies, want %d at most; the last after %v, want %v", h.copies[seed], c.copies, h.last(), c.took*copyTime)
			}
			for _, v := range h.machines {
				if v.alone {
					t.Errorf("nobody is named to %v", v.at)
				}
			}
			h.nothingLeft()
		})
	}
}

func TestMachinesThatAreNotReachedCostLittle(t *testing.T) {
	h := newHall(t, "")
	for n := range 40 {
		a := machineAt(0, n)
		h.dead[a] = n%2 == 0 // it fetches, and nobody reaches it
		h.enter(a)
	}
	h.run()
	t.Logf("%d copies of the appliance, the last after %v", h.copies[seed], h.last())
	if h.copies[seed] > 20 || h.last() > 3*time.Second {
		t.Errorf("%d copies, the last after %v", h.copies[seed], h.last())
	}
	// Where no machine reaches another the appliance serves all of them, and nobody is left.
	h = newHall(t, "")
	for n := range 40 {
		h.dead[machineAt(0, n)] = true
		h.enter(machineAt(0, n))
	}
	h.run()
	if h.copies[seed] != 40 || h.last() > 12*time.Second {
		t.Errorf("%d copies, the last after %v", h.copies[seed], h.last())
	}
}

func TestWhoAskedAndWentAwayKeepsNobodyWaiting(t *testing.T) {
	h := newHall(t, "")
	for n := range 2 { // they are lent to, and never heard of again
		list, wait := h.desk.ask(h.desk.asker(fmt.Sprint("gone", n), schedule.Who{Address: machineAt(1, n).Addr()}, 1<<20, h.now), nil, h.now)
		if wait || !slices.Equal(list, []netip.AddrPort{seed}) {
			t.Fatal(list, wait)
		}
	}
	v := h.enter(machineAt(0, 1))
	if v.asked == nil {
		t.Fatal("it need not wait")
	}
	h.run()
	if v.alone || h.last() > 2*lease(1<<20) {
		t.Errorf("served after %v, alone %v", h.last(), v.alone)
	}
}

func TestCopiesKeepToThePolicy(t *testing.T) {
	h := newHall(t, twoGroups+"  - forbid: [10.1.0.5, 10.1.0.0/16]\n")
	for n := range 30 {
		h.enter(machineAt(1, n)) // the far group is there first
		h.enter(machineAt(0, n))
	}
	h.run() // follow checks each
	alone := 0
	for _, v := range h.machines {
		if v.alone {
			alone++
		}
	}
	t.Logf("%d copies of the appliance, %d over the uplink, %d in another way", h.copies[seed], h.across, alone)
	if h.copies[seed] > 6 || h.across+alone > 8 || alone > 4 {
		t.Errorf("%d copies of the appliance, %d over the uplink, %d machines were named nobody", h.copies[seed], h.across, alone)
	}
}

// Where all rooms start together nobody of the room before has anything, and an empty room never will: what is fetched in another
// way crosses the uplink as well.
func TestEachGroupTakesFewCopiesFromOutside(t *testing.T) {
	const policy = "groups: [{name: g0, members: [10.0.0.0/16]}, {name: g1, members: [10.1.0.0/16]}, {name: g2, members: [10.2.0.0/16]}]\n"
	for name, groups := range map[string][]int{"all rooms": {0, 1, 2}, "one behind an empty one": {2}} {
		t.Run(name, func(t *testing.T) {
			h := newHall(t, policy)
			for n := range 30 {
				for _, g := range groups {
					h.enter(machineAt(g, n))
				}
			}
			h.run()
			got := h.copies[seed] + h.copies[h.web.at] + h.across
			t.Logf("%d copies by seeders, %d over HTTPS, %d across; the last after %v", h.copies[seed], h.copies[h.web.at], h.across, h.last())
			if got > 6*len(groups) || h.last() > 2*time.Second {
				t.Errorf("%d copies from outside of %d groups; the last after %v", got, len(groups), h.last())
			}
			h.nothingLeft()
		})
	}
}

func TestALeaseIsBounded(t *testing.T) {
	for length, want := range map[int64]time.Duration{0: loanLeast, 1 << 20: loanLeast + time.Second, 1 << 62: loanLeast + longestLoan*time.Second} {
		if got := lease(length); got != want {
			t.Errorf("%d bytes: %v, want %v", length, got, want)
		}
	}
}

// A machine that names itself again and again is one lender.
func TestAMachineLendsAtOneAddress(t *testing.T) {
	h := newHall(t, "")
	for port := range uint16(100) {
		a := netip.AddrPortFrom(machineAt(0, 1).Addr(), 1000+port)
		h.desk.held("one", a, schedule.Who{Address: a.Addr()}, h.now)
	}
	h.desk.held("two", machineAt(0, 2), schedule.Who{Address: machineAt(0, 2).Addr()}, h.now)
	g := h.desk.group(0)
	if len(g.lenders) != 2 || len(g.at) != 2 || g.lenders[0].address.Port() != 1099 {
		t.Errorf("%d lenders, %d addresses", len(g.lenders), len(g.at))
	}
	// where it takes part it lends too
	h.desk.lends(machineAt(0, 1), schedule.Who{Address: machineAt(0, 1).Addr()}, true, h.now)
	h.desk.held("one", machineAt(0, 1), schedule.Who{Address: machineAt(0, 1).Addr()}, h.now)
	h.desk.held("one", netip.AddrPortFrom(machineAt(0, 1).Addr(), 7), schedule.Who{Address: machineAt(0, 1).Addr()}, h.now)
	if l := g.at[machineAt(0, 1)]; l == nil || len(g.lenders) != 3 {
		t.Errorf("%d lenders, where it takes part: %+v", len(g.lenders), l)
	}
}

func TestMachinesThatTakePartLend(t *testing.T) {
	h := newHall(t, "")
	for n := range 8 {
		v := &visitor{at: machineAt(0, n), who: schedule.Who{Address: machineAt(0, n).Addr()}, done: true, began: h.now, ended: h.now}
		h.machines = append(h.machines, v)
		h.desk.lends(v.at, v.who, true, h.now)
	}
	h.now = h.now.Add(time.Hour)
	late := h.enter(machineAt(0, 100))
	h.run()
	if h.copies[seed] != 0 || !late.done {
		t.Error("the appliance serves a late machine that others could serve")
	}
	for n := range 8 {
		h.desk.leaves(machineAt(0, n))
	}
	h.desk.leaves(late.at)
	h.enter(machineAt(0, 101))
	h.run()
	if h.copies[seed] != 1 {
		t.Error("machines that left are named")
	}
}
