package tracker

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"seedbed/appliance/job"
	"seedbed/images/announce"
	"seedbed/images/schedule"
	"seedbed/images/swarm"
)

// room is a tracker with machines that announce to one swarm, by address.
type room struct {
	t  testing.TB
	tr *Tracker
	// node is the one that is a seed node.
	node netip.AddrPort
}

func newRoom(t testing.TB, policy string, names func(string) []string) *room {
	p, err := schedule.ParsePolicy([]byte(policy))
	if err != nil {
		t.Fatal(err)
	}
	r := &room{t: t, tr: New(Config{Policy: p, Names: names})}
	r.tr.AddSeed(debian, seed)
	return r
}

// machineAt is machine n of group g.
func machineAt(g, n int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(g), byte(n >> 8), byte(n)}), 6881)
}

func (r *room) announce(a netip.AddrPort, change func(*announce.Request)) announce.Response {
	r.t.Helper()
	q := announce.Request{InfoHash: debian.Wire(), Port: a.Port(), Left: 100}
	copy(q.PeerID[:], a.String())
	if change != nil {
		change(&q)
	}
	answer, ok := r.tr.note(a, identity{machine: a.Addr().String(), seed: r.node == a}, q, time.Now())
	if !ok || answer.Links == nil && q.Event != announce.Stopped {
		r.t.Fatalf("%v is told %+v", a, answer)
	}
	return answer
}

// roles sorts what a machine is told.
func roles(r announce.Response) map[announce.Role][]netip.AddrPort {
	m := map[announce.Role][]netip.AddrPort{}
	for i, a := range r.Peers {
		m[r.Links.Roles[i]] = append(m[r.Links.Roles[i]], a)
	}
	return m
}

const twoGroups = `
groups:
  - {name: g0, members: [10.0.0.0/16]}
  - {name: g1, members: [10.1.0.0/16], uplink: {mbit: 80}}
edges:
  - forbid: [10.0.0.3, 10.1.0.0/16]
  - forbid: [10.1.0.8, appliance]
`

func TestTwoGroups(t *testing.T) {
	r := newRoom(t, twoGroups, nil)
	var all []netip.AddrPort
	for n := range 10 {
		all = append(all, machineAt(0, n), machineAt(1, n))
	}
	for _, a := range all {
		r.announce(a, nil)
	}
	if list := r.tr.Peers(debian); len(list) != len(all)-1 || slices.Contains(list, machineAt(1, 8)) {
		t.Errorf("the appliance may fetch from %v", list)
	}
	imported := map[int]int{}
	up, down := map[[2]netip.AddrPort]bool{}, map[[2]netip.AddrPort]bool{}
	for _, a := range all {
		answer := r.announce(a, nil)
		told, group := roles(answer), int(a.Addr().As4()[1])
		if first := group == 0; answer.Links.Group != group || !answer.Links.Grouped || len(told[announce.Appliance]) == 1 != first ||
			len(told[announce.Inside]) != 8 || len(told[announce.Upstream]) > 0 == first || (answer.Links.Share.Members > 0) == first {
			t.Errorf("%v is told %+v, %+v", a, answer.Peers, answer.Links)
		}
		if len(answer.Peers) > answer.Links.MaxConnections || answer.Links.MaxConnections != 20 {
			t.Errorf("%v has %d connections of %d", a, len(answer.Peers), answer.Links.MaxConnections)
		}
		if want := int64(80 * 125000 / 10); group == 1 && answer.Links.BytesPerSecond != want {
			t.Errorf("%v may fetch %d bytes a second from upstream, want %d", a, answer.Links.BytesPerSecond, want)
		}
		for piece := range 100 {
			if schedule.Share(answer.Links.Share).Imports(piece) {
				imported[piece]++
			}
		}
		for _, b := range told[announce.Upstream] {
			up[[2]netip.AddrPort{a, b}] = true
		}
		for _, b := range told[announce.Downstream] {
			down[[2]netip.AddrPort{b, a}] = true
		}
		for _, b := range answer.Peers {
			forbidden := netip.MustParseAddr("10.0.0.3")
			if b.Addr() == forbidden && group == 1 || a.Addr() == forbidden && b.Addr().As4()[1] == 1 {
				t.Errorf("%v is told of %v over a forbidden edge", a, b)
			}
		}
	}
	if fmt.Sprint(up) != fmt.Sprint(down) || len(up) != 36 { // nine machines may be linked, with four each
		t.Errorf("%d links upstream, %d downstream", len(up), len(down))
	}
	for piece := range 100 {
		if imported[piece] != 1 {
			t.Errorf("piece %d is fetched by %d machines of group 1", piece, imported[piece])
		}
	}
}

// A machine that leaves, is silent, or boots again loses its place at once, and its share moves on.
func TestShareMovesOnWhenAMachineIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRoom(t, twoGroups, nil)
		shares := func(alive ...int) {
			t.Helper()
			for range 2 {
				r.announce(machineAt(0, 0), nil)
				for _, n := range alive {
					r.announce(machineAt(1, n), nil)
				}
			}
			imported := map[int]int{}
			for _, n := range alive {
				for piece := range 60 {
					if schedule.Share(r.announce(machineAt(1, n), nil).Links.Share).Imports(piece) {
						imported[piece]++
					}
				}
			}
			for piece := range 60 {
				if imported[piece] != 1 {
					t.Fatalf("piece %d is fetched by %d of the machines %v", piece, imported[piece], alive)
				}
			}
		}
		shares(0, 1, 2, 3)
		r.announce(machineAt(1, 1), func(q *announce.Request) { q.Event = announce.Stopped })
		shares(0, 2, 3)
		for range 10 { // 2 is silent
			time.Sleep(2 * time.Second)
			r.announce(machineAt(0, 0), nil)
			r.announce(machineAt(1, 0), nil)
			r.announce(machineAt(1, 3), nil)
		}
		shares(0, 3)
		if got := r.announce(machineAt(1, 3), func(q *announce.Request) { q.PeerID[19] = 'x' }); got.Leechers != 3 {
			t.Errorf("%d machines after one booted again", got.Leechers)
		}
	})
}

func TestMachinesAreKnownByTheirNames(t *testing.T) {
	r := newRoom(t, `
groups:
  - {name: a, members: ["machine:boss"]}
  - {name: b}
others: b
`, func(id string) []string {
		if id == "10.5.0.1" {
			return []string{id, "Boss", "52:54:00:00:00:01"}
		}
		return []string{id}
	})
	boss, other := machineAt(5, 1), machineAt(5, 2)
	r.announce(boss, nil)
	if told := roles(r.announce(other, nil)); len(told[announce.Appliance]) != 0 || !slices.Equal(told[announce.Upstream], []netip.AddrPort{boss}) {
		t.Errorf("the other one is told %v", told)
	}
	if !r.tr.MayReachAppliance([]string{"1", "BOSS"}, other.Addr()) || r.tr.MayReachAppliance([]string{"2"}, boss.Addr()) {
		t.Error("before the first announce a name does not count")
	}
}

func TestPolicyCanChange(t *testing.T) {
	r := newRoom(t, "", nil)
	for range 2 {
		r.announce(machineAt(0, 1), nil)
		r.announce(machineAt(1, 1), nil)
	}
	if told := roles(r.announce(machineAt(1, 1), nil)); len(told[announce.Appliance]) != 1 || len(told[announce.Inside]) != 1 {
		t.Errorf("without policy: %v", told)
	}
	p, err := schedule.ParsePolicy([]byte(twoGroups))
	if err != nil {
		t.Fatal(err)
	}
	r.tr.SetPolicy(p)
	if told := roles(r.announce(machineAt(1, 1), nil)); len(told[announce.Appliance]) != 0 || len(told[announce.Upstream]) != 1 {
		t.Errorf("with one: %v", told)
	}
}

func TestSeedNodesAreToldToTheirGroup(t *testing.T) {
	r := newRoom(t, twoGroups, nil)
	r.node = machineAt(1, 9)
	full := func(q *announce.Request) { q.Left = 0 }
	for range 2 {
		r.announce(machineAt(0, 1), nil)
		r.announce(machineAt(1, 1), nil)
		r.announce(machineAt(1, 2), nil)
		told := roles(r.announce(r.node, full))
		if len(told) != 1 || !slices.Equal(told[announce.Downstream], []netip.AddrPort{machineAt(1, 1), machineAt(1, 2)}) {
			t.Errorf("a seed node that holds everything is told %v, want the machines of its group", told)
		}
	}
	for _, n := range []int{1, 2} {
		told := roles(r.announce(machineAt(1, n), nil))
		if !slices.Equal(told[announce.SeedNode], []netip.AddrPort{r.node}) || len(told[announce.Upstream]) != 0 {
			t.Errorf("told %v", told)
		}
	}
	if told := roles(r.announce(machineAt(0, 1), nil)); len(told[announce.SeedNode]) != 0 {
		t.Errorf("a seed node of another group is told: %v", told)
	}
}

// BenchmarkAnnounce is one announce in a swarm of 10,000 machines, decoding and encoding included, HTTP and TLS not.
func BenchmarkAnnounce(b *testing.B) {
	for name, policy := range map[string]string{"one-group": "", "two-groups": twoGroups} {
		b.Run(name, func(b *testing.B) {
			r := newRoom(b, policy, nil)
			queries := make([]string, maxMachines)
			at := make([]netip.AddrPort, maxMachines)
			for n := range queries {
				at[n] = machineAt(n%2, n/2)
				q := announce.Request{InfoHash: debian.Wire(), Port: 6881, Left: 100}
				binary.BigEndian.PutUint32(q.PeerID[:], uint32(n))
				queries[n] = q.Query()
				if _, ok := r.tr.note(at[n], identity{}, q, time.Now()); !ok {
					b.Fatal("full")
				}
			}
			n := 0
			for b.Loop() {
				q, err := announce.ParseRequest(queries[n])
				if err != nil {
					b.Fatal(err)
				}
				answer, _ := r.tr.note(at[n], identity{}, q, time.Now())
				answer.Encode()
				n = (n + 1) % len(queries)
			}
		})
	}
}

// What a peer is, its certificate says: a seed node hands out, and who takes a part of the content fetches nothing for others.
func TestCertificatesSayWhatAPeerIs(t *testing.T) {
	p, err := schedule.ParsePolicy([]byte("groups:\n  - {name: a, members: ['machine:m0']}\n  - {name: b}\nothers: b\n"))
	if err != nil {
		t.Fatal(err)
	}
	tr := New(Config{Policy: p})
	say := func(n byte, left int64, uris ...string) announce.Response {
		c := client(t, tr, append(uris, swarm.InfoHashURI(debian))...)
		answer, err := c.Announce(t.Context(), request(debian, n, left, announce.Started))
		if err != nil || answer.Links == nil {
			t.Fatalf("%+v, %v", answer, err)
		}
		return answer
	}
	machine := func(n byte) string { return fmt.Sprintf("%sm%d", job.URIMachine, n) }
	say(0, 1, machine(0))
	say(1, 1, swarm.URIRolePart)
	say(2, 1, machine(2))
	if a, b := say(1, 1, swarm.URIRolePart), say(2, 1, machine(2)); a.Links.Share.Members != 0 || b.Links.Share != (announce.Share{Members: 1}) {
		t.Errorf("the part's share is %+v, the machine's %+v", a.Links.Share, b.Links.Share)
	}
	say(3, 0, swarm.URIRoleSeed)
	if b := say(2, 1, machine(2)); len(roles(b)[announce.SeedNode]) != 1 || b.Links.Share.Members != 0 {
		t.Errorf("beside a seed node a machine is told %+v", b)
	}
}

func TestRateOfTheFirstSecondsMakesNobodySlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRoom(t, twoGroups, nil)
		importing := func(downloaded int64) bool {
			for n := range 5 {
				r.announce(machineAt(0, n), nil)
				r.announce(machineAt(1, n), func(q *announce.Request) {
					if q.Downloaded = downloaded; n == 2 {
						q.Downloaded /= 100
					}
				})
			}
			return r.announce(machineAt(1, 2), func(q *announce.Request) { q.Downloaded = downloaded / 100 }).Links.Share.Members > 0
		}
		importing(0)
		time.Sleep(5 * time.Second)
		if !importing(5e8) {
			t.Error("a machine lost its share by what it received in its first 5 s")
		}
		time.Sleep(10 * time.Second)
		if importing(15e8) {
			t.Error("a machine at a hundredth of the others' rate keeps its share")
		}
	})
}

// Machines that keep the same partitions of their disks fetch from each other across groups; from one that keeps others nobody does.
func TestMachinesThatKeepTheSameAreEachOthersUpstream(t *testing.T) {
	for name, c := range map[string]struct {
		above, below string // what the machines of the two groups keep
		linked       bool
	}{"the same": {"3", "3", true}, "other partitions": {"1", "3", false}, "it is not known which": {"", "", false}} {
		t.Run(name, func(t *testing.T) {
			p, err := schedule.ParsePolicy([]byte("groups:\n  - {name: g0, members: [10.0.0.0/16]}\n  - {name: g1, members: [10.1.0.0/16]}\n"))
			if err != nil {
				t.Fatal(err)
			}
			tr := New(Config{Policy: p})
			tr.AddSeed(debian, seed)
			say := func(g, n int) announce.Response {
				q := announce.Request{InfoHash: debian.Wire(), Port: 6881, Left: 100, PeerID: [20]byte{byte(g), byte(n)}}
				kept := []string{c.above, c.below}[g]
				answer, ok := tr.note(machineAt(g, n), identity{machine: machineAt(g, n).String(), part: true, kept: kept}, q, time.Now())
				if !ok || answer.Links == nil {
					t.Fatalf("%+v", answer)
				}
				return answer
			}
			for n := range 4 {
				say(0, n)
				say(1, n)
			}
			shares := 0
			for n := range 4 {
				answer := say(1, n)
				if up := roles(answer)[announce.Upstream]; (len(up) > 0) != c.linked {
					t.Errorf("machine %d is told of %d upstream", n, len(up))
				}
				if answer.Links.Share.Members > 0 {
					shares++
				}
			}
			if (shares == 4) != c.linked {
				t.Errorf("%d of 4 machines fetch a share for their group", shares)
			}
		})
	}
}
