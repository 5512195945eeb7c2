package schedule

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func mustPolicy(t testing.TB, text string) *Policy {
	t.Helper()
	p, err := ParsePolicy([]byte(text))
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return p
}

// at is the machine number n of group number g in 10.0.g.0/24.
func at(g, n int) Who {
	return Who{Address: netip.AddrFrom4([4]byte{10, 0, byte(g), byte(n)}), Names: []string{fmt.Sprintf("pc-%d-%d", g, n)}}
}

// chain is a policy of n groups, each a /24, with more behind it.
func chain(n int, more string) string {
	var b strings.Builder
	b.WriteString("groups:\n")
	for i := range n {
		fmt.Fprintf(&b, "  - {name: g%d, members: [10.0.%d.0/24]}\n", i, i)
	}
	return b.String() + more
}

type fatal interface{ Fatalf(string, ...any) }

// room checks everything that holds for any Topology at any time, and returns the answers.
func checkTopology(t fatal, top *Topology, who map[ID]Who) map[ID]Links {
	answers := map[ID]Links{}
	has := func(id, o ID, r Relation) bool { return slices.Contains(answers[id].Neighbours, Neighbour{o, r}) }
	for id := range who {
		l, ok := top.Links(id)
		if !ok || !l.Share.Valid() {
			t.Fatalf("no links of %d, or share %+v", id, l.Share)
		}
		answers[id] = l
		m := top.members[id]
		connections, seen := len(l.Neighbours), map[ID]bool{id: true}
		if l.Appliance {
			connections++
		}
		if connections > top.policy.MaxConnections {
			t.Fatalf("%d has %d connections of %d", id, connections, top.policy.MaxConnections)
		}
		for _, n := range l.Neighbours {
			o := top.members[n.ID]
			if o == nil || seen[n.ID] {
				t.Fatalf("%d has %d twice, or it is gone", id, n.ID)
			}
			seen[n.ID] = true
			if allow, ok := top.policy.verdict(m.class.sides, o.class.sides); ok && !allow {
				t.Fatalf("%v and %v are linked by a forbidden edge", who[id], who[n.ID])
			}
			if (n.Relation == Inside && !(m.gate && o.gate) || n.Relation == SeedNode) && o.group != m.group {
				t.Fatalf("%v is inside with %v", who[id], who[n.ID])
			}
		}
	}
	for id, l := range answers {
		for _, n := range l.Neighbours {
			m, o := top.members[id], top.members[n.ID]
			wrong := false
			switch n.Relation {
			case Inside:
				wrong = !has(n.ID, id, Inside) && !has(n.ID, id, SeedNode)
			case Upstream:
				wrong = !has(n.ID, id, Downstream) && !has(n.ID, id, SeedNode)
			case Downstream:
				wrong = !has(n.ID, id, Upstream)
			case SeedNode:
				wrong = !o.seed
			}
			if wrong {
				t.Fatalf("%+v has neighbour %+v (relation %d), which does not know it", m, o, n.Relation)
			}
		}
	}
	return answers
}

// checkShares fails unless each piece is imported exactly once into each group that has links upstream.
func checkShares(t fatal, top *Topology, answers map[ID]Links) {
	for g := range top.groups {
		importers := map[int]int{}
		linked := 0
		for id, l := range answers {
			up := slices.ContainsFunc(l.Neighbours, func(n Neighbour) bool { return n.Relation == Upstream })
			if top.members[id].pin != noPin || l.Group != g {
				continue
			}
			if up != (l.Share.Members > 0) {
				t.Fatalf("%d has share %v, links upstream: %v", id, l.Share, up)
			}
			if !up {
				continue
			}
			linked++
			for piece := range 240 {
				if l.Share.Imports(piece) {
					importers[piece]++
				}
			}
		}
		for piece := range 240 {
			if linked > 0 && importers[piece] != 1 {
				t.Fatalf("piece %d is fetched by %d machines of group %d, of which %d are linked", piece, importers[piece], g, linked)
			}
		}
	}
}

func TestWithoutPolicyThereIsOneGraph(t *testing.T) {
	top := NewTopology(NoPolicy(), 1)
	who := map[ID]Who{}
	for id := range ID(100) {
		who[id] = at(int(id)%5, int(id))
		top.Join(id, who[id], false)
	}
	for id, l := range checkTopology(t, top, who) {
		if len(l.Neighbours) != Degree || !l.Appliance || l.Grouped || l.Share != (Share{}) {
			t.Fatalf("%d is told %+v", id, l)
		}
	}
}

func TestChainOfGroups(t *testing.T) {
	top := NewTopology(mustPolicy(t, chain(3, "")), 1)
	who := map[ID]Who{}
	for i := range 60 {
		who[ID(i)] = at(i%3, i)
		top.Join(ID(i), who[ID(i)], false)
	}
	answers := checkTopology(t, top, who)
	checkShares(t, top, answers)
	for id, l := range answers {
		count := map[Relation]int{}
		for _, n := range l.Neighbours {
			count[n.Relation]++
		}
		want := map[int]map[Relation]int{0: {Inside: 8, Downstream: 4}, 1: {Inside: 8, Upstream: 4, Downstream: 4}, 2: {Inside: 8, Upstream: 4}}
		if !reflect.DeepEqual(count, want[l.Group]) || l.Appliance != (l.Group == 0) || !l.Grouped {
			t.Errorf("%d of group %d: %v, appliance %v", id, l.Group, count, l.Appliance)
		}
	}
}

// A machine that leaves gives its share to the next one; no other share changes.
func TestShareMovesOn(t *testing.T) {
	top := NewTopology(mustPolicy(t, chain(2, "")), 1)
	who := map[ID]Who{}
	for i := range 20 {
		who[ID(i)] = at(i%2, i)
		top.Join(ID(i), who[ID(i)], false)
	}
	before := checkTopology(t, top, who)
	top.Leave(7)
	delete(who, 7)
	after := checkTopology(t, top, who)
	checkShares(t, top, after)
	changed := 0
	for id := range who {
		if before[id].Share != after[id].Share {
			if changed++; id != 9 || !after[id].Share.Imports(before[7].Share.Member) {
				t.Errorf("share of %d went from %v to %v", id, before[id].Share, after[id].Share)
			}
		}
	}
	if changed != 1 {
		t.Errorf("%d shares changed", changed)
	}
	who[99] = at(1, 99)
	top.Join(99, who[99], false)
	now := checkTopology(t, top, who)
	checkShares(t, top, now)
	if now[99].Share != before[7].Share || now[9].Share != before[9].Share {
		t.Errorf("the newcomer has %v, want the free share %v", now[99].Share, before[7].Share)
	}
}

func TestGroupsWithoutMachinesArePassedOver(t *testing.T) {
	top := NewTopology(mustPolicy(t, chain(3, "")), 1)
	who := map[ID]Who{1: at(2, 1), 2: at(2, 2)}
	for id, w := range who {
		top.Join(id, w, false)
	}
	if l := checkTopology(t, top, who)[1]; !l.Appliance || l.Share.Members != 0 {
		t.Errorf("first in the swarm: %+v", l)
	}
	who[3] = at(0, 3)
	top.Join(3, who[3], false)
	answers := checkTopology(t, top, who)
	checkShares(t, top, answers)
	if l := answers[1]; l.Appliance || l.Share.Members != 2 || !answers[3].Appliance {
		t.Errorf("behind another group: %+v", l)
	}
	top.Leave(3)
	delete(who, 3)
	if l := checkTopology(t, top, who)[1]; !l.Appliance {
		t.Errorf("alone again: %+v", l)
	}
}

func TestEdgesPinsBudgetsAndWeights(t *testing.T) {
	count := func(l Links, r Relation) (n int) {
		for _, x := range l.Neighbours {
			if x.Relation == r {
				n++
			}
		}
		return n
	}
	build := func(more string, groups, each int) (*Topology, map[ID]Who) {
		top, who := NewTopology(mustPolicy(t, chain(groups, more)), 1), map[ID]Who{}
		for i := range groups * each {
			who[ID(i)] = at(i%groups, i/groups)
			top.Join(ID(i), who[ID(i)], false)
		}
		return top, who
	}
	t.Run("an edge lets a later group reach the appliance", func(t *testing.T) {
		top, who := build("edges:\n  - allow: [appliance, g1]\n  - forbid: [appliance, 10.0.0.3]\n", 2, 10)
		for id, l := range checkTopology(t, top, who) {
			if l.Appliance != (id != 6) {
				t.Errorf("%v reaches the appliance: %v", who[id], l.Appliance)
			}
		}
	})
	t.Run("a machine that may not reach a group", func(t *testing.T) {
		top, who := build("edges: [{forbid: ['machine:PC-1-4', g0]}]\n", 2, 10)
		answers := checkTopology(t, top, who)
		checkShares(t, top, answers)
		if l := answers[9]; l.Share.Members != 0 || count(l, Upstream) != 0 {
			t.Errorf("it is told %+v", l)
		}
	})
	t.Run("a group pinned past the one before", func(t *testing.T) {
		top, who := build("pins: [{child: g2, parent: g0}]\n", 3, 10)
		answers := checkTopology(t, top, who)
		checkShares(t, top, answers)
		for _, n := range answers[2].Neighbours {
			if n.Relation == Upstream && top.members[n.ID].group != 0 {
				t.Errorf("upstream of g2 is %v", who[n.ID])
			}
		}
	})
	t.Run("a machine pinned to another", func(t *testing.T) {
		top, who := build("pins: [{child: 10.0.1.3, parent: 'machine:pc-0-5'}, {child: 10.0.1.4, parent: appliance}]\n", 2, 10)
		answers := checkTopology(t, top, who)
		checkShares(t, top, answers)
		if l := answers[7]; !reflect.DeepEqual(l.Neighbours, []Neighbour{{10, Upstream}}) || l.Appliance || !l.Share.Imports(3) || l.Share.Members != 1 {
			t.Errorf("it is told %+v", l)
		}
		if l := answers[9]; len(l.Neighbours) != 0 || !l.Appliance {
			t.Errorf("pinned to the appliance, told %+v", l)
		}
	})
	t.Run("budgets", func(t *testing.T) {
		top := NewTopology(mustPolicy(t, `
groups:
  - {name: a, members: [10.0.0.0/24], uplink: {mbit: 100}}
  - {name: b, members: [10.0.1.0/24], uplink: {links: 6, mbit: 1000}}
`), 1)
		who := map[ID]Who{}
		for i := range 20 {
			who[ID(i)] = at(i%2, i)
			top.Join(ID(i), who[ID(i)], false)
		}
		answers := checkTopology(t, top, who)
		checkShares(t, top, answers)
		links, importers := 0, 0
		for _, l := range answers {
			if n := count(l, Upstream); n > 0 {
				links += n
				importers++
				if l.BytesPerSecond != 100*125000/6 {
					t.Errorf("limit of %d bytes a second", l.BytesPerSecond)
				}
			}
		}
		if links != 6 || importers != 6 {
			t.Errorf("%d links of %d machines", links, importers)
		}
	})
	t.Run("weights", func(t *testing.T) {
		top, who := build("weights: [{members: [10.0.1.0], weight: 3}, {members: [10.0.1.1], weight: 0}]\n", 2, 5)
		answers := checkTopology(t, top, who)
		checkShares(t, top, answers)
		if a, b, c := answers[1].Share, answers[3].Share, answers[5].Share; a.More != 2 || a.Members != 6 || b.Members != 0 || c.More != 0 {
			t.Errorf("shares %v, %v, %v", a, b, c)
		}
	})
	t.Run("a slow machine", func(t *testing.T) {
		top, who := build("", 2, 5)
		for range 2 {
			for id := range ID(10) {
				rate := 1e7
				if id == 3 {
					rate = 1e6
				}
				top.Report(id, false, rate)
			}
		}
		answers := checkTopology(t, top, who)
		checkShares(t, top, answers)
		if answers[3].Share.Members != 0 || answers[5].Share.More != 1 {
			t.Errorf("the slow one has %v, the next %v", answers[3].Share, answers[5].Share)
		}
		for range 2 {
			for id := range ID(10) {
				top.Report(id, false, 1e7)
			}
		}
		if answers := checkTopology(t, top, who); answers[3].Share.Members == 0 {
			t.Error("it is quick now and still fetches nothing")
		}
	})
	t.Run("seed nodes", func(t *testing.T) {
		top, who := build("", 2, 10)
		who[90] = at(1, 90)
		top.Join(90, who[90], true)
		answers := checkTopology(t, top, who)
		checkShares(t, top, answers)
		if answers[90].Share.Members == 0 || count(answers[1], SeedNode) != 1 || count(answers[2], SeedNode) != 0 {
			t.Errorf("an empty seed node is told %+v, its group %+v", answers[90], answers[1])
		}
		top.Report(90, true, 0)
		answers = checkTopology(t, top, who)
		for id, l := range answers {
			if id == 90 && len(l.Neighbours) > 0 || l.Share.Members > 0 || count(l, Upstream) > 0 || id%2 == 1 && count(l, SeedNode) != 1 {
				t.Errorf("with a full seed node %d is told %+v", id, l)
			}
		}
		top.Leave(90)
		delete(who, 90)
		if l := checkTopology(t, top, who)[1]; l.Share.Members == 0 {
			t.Error("without the seed node nobody fetches")
		}
	})
}

// policies to draw from.
var policies = []string{
	"", chain(1, ""), chain(3, ""), chain(3, "max_connections: 6\n"), chain(3, "max_connections: 9\n"),
	chain(4, "pins: [{child: g3, parent: g0}, {child: g2, parent: 10.0.1.4}, {child: 10.0.0.7, parent: 10.0.0.8}]\n"),
	chain(3, "edges: [{allow: [10.0.0.1, 10.0.1.1]}, {forbid: [10.0.0.0/30, 10.0.1.0/24]}, {forbid: [10.0.1.3, 10.0.1.4]}, {forbid: [appliance, 10.0.0.5]}]\n"),
	chain(3, "weights: [{members: [10.0.1.0/30], weight: 0}, {members: [g2], weight: 2}]\nmax_connections: 12\n"),
	"groups:\n  - {name: a, members: [10.0.0.0/24], uplink: {mbit: 10}}\n  - {name: b, uplink: {links: 3}}\nothers: b\n",
	meshOf("", 2, 3), meshOf("edges: [{forbid: [10.0.0.0/30, 10.0.2.0/24]}]\n", 4, 1, 4), meshOf("max_connections: 9\n", 1, 2, 2, 9),
	meshOf("max_connections: 9\n", 1, 2, 1, 2), meshOf("max_connections: 13\n", 1, 2, 1, 2), meshOf("", 1, 2, 1, 2),
}

func TestTopologyHoldsUnderChurn(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, err := ParsePolicy([]byte(rapid.SampledFrom(policies).Draw(t, "policy")))
		if err != nil {
			t.Fatal(err)
		}
		top := NewTopology(p, rapid.Uint64().Draw(t, "seed"))
		who := map[ID]Who{}
		var ids []ID
		steps := rapid.IntRange(1, 120).Draw(t, "steps")
		for step := range steps {
			switch what := rapid.IntRange(0, 9).Draw(t, "what"); {
			case what < 6 || len(ids) == 0:
				id := ID(step + 1)
				who[id] = at(rapid.IntRange(0, 4).Draw(t, "group"), rapid.IntRange(0, 40).Draw(t, "number"))
				top.Join(id, who[id], rapid.IntRange(0, 9).Draw(t, "seed node") == 0)
				ids = append(ids, id)
			case what < 8:
				i := rapid.IntRange(0, len(ids)-1).Draw(t, "leaves")
				top.Leave(ids[i])
				delete(who, ids[i])
				ids = slices.Delete(ids, i, i+1)
			default:
				id := rapid.SampledFrom(ids).Draw(t, "reports")
				top.Report(id, rapid.Bool().Draw(t, "complete"), float64(rapid.IntRange(0, 100).Draw(t, "rate")))
			}
			if step%8 == 7 || step == steps-1 {
				checkShares(t, top, checkTopology(t, top, who))
			}
		}
	})
}

func TestTopologyIsTheSameBySeed(t *testing.T) {
	build := func() string {
		top := NewTopology(mustPolicy(t, policies[5]), 7)
		all := ""
		for id := range ID(150) {
			top.Join(id, at(int(id)%4, int(id)), id%20 == 0)
			if id%4 == 3 {
				top.Leave(id / 2)
			}
			l, _ := top.Links(id)
			all += fmt.Sprint(l)
		}
		return all
	}
	if build() != build() {
		t.Error("the same calls gave different answers")
	}
}

func TestShareCoversItsResidues(t *testing.T) {
	for _, c := range []struct {
		s    Share
		want string
	}{
		{Share{}, "[]"}, {Share{Members: 1}, "[0 1 2 3 4 5 6 7]"}, {Share{Member: 1, Members: 4}, "[1 5]"},
		{Share{Member: 3, Members: 4, More: 1}, "[0 3 4 7]"},
	} {
		list := []int{}
		for piece := range 8 {
			if c.s.Imports(piece) {
				list = append(list, piece)
			}
		}
		if fmt.Sprint(list) != c.want {
			t.Errorf("%v: %v, want %s", c.s, list, c.want)
		}
	}
	for _, s := range []Share{{Member: 1}, {Member: 4, Members: 4}, {Members: 4, More: 4}, {Member: -1, Members: 4}, {Members: -1}} {
		if s.Valid() {
			t.Errorf("%+v is valid", s)
		}
	}
}

func BenchmarkTopologyLinks(b *testing.B) {
	for name, text := range map[string]string{"one group": "", "groups": chain(200, "edges: [{forbid: [10.0.0.1, 10.0.1.1]}]\n")} {
		b.Run(name, func(b *testing.B) {
			top := NewTopology(mustPolicy(b, text), 1)
			const n = 10000
			for id := range ID(n) {
				top.Join(id, at(int(id)%200, int(id)/200), false)
			}
			id := ID(0)
			for b.Loop() {
				top.Links(id)
				id = (id + 1) % n
			}
		})
	}
}
