package schedule

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// meshOf is a policy of groups, each a /24, by how many images their uplinks carry.
func meshOf(more string, images ...int) string {
	var b strings.Builder
	b.WriteString("groups:\n")
	for i, n := range images {
		fmt.Fprintf(&b, "  - {name: g%d, members: [10.0.%d.0/24], uplink: {images: %d}}\n", i, i, n)
	}
	return b.String() + more
}

// fill joins so many machines of each group, and returns who they are.
func fillGroups(top *Topology, groups, each int) map[ID]Who {
	who := map[ID]Who{}
	for i := range groups * each {
		id := ID(i + 1)
		who[id] = at(i%groups, i/groups)
		top.Join(id, who[id], false)
	}
	return who
}

// abroad counts the links of a group's machines into other groups, and the machines that have any.
func abroad(top *Topology, answers map[ID]Links, group int) (links, machines int) {
	for _, l := range answers {
		n := 0
		for _, o := range l.Neighbours {
			if top.members[o.ID].group != l.Group {
				n++
			}
		}
		if l.Group == group && n > 0 {
			links += n
			machines++
		}
	}
	return links, machines
}

func TestMeshKeepsToTheUplinks(t *testing.T) {
	top := NewTopology(mustPolicy(t, meshOf("", 10, 10, 3, 10)), 1)
	who := fillGroups(top, 4, 47)
	answers := checkTopology(t, top, who)
	for group, want := range []int{47, 47, 15, 47} {
		if links, machines := abroad(top, answers, group); machines != want || links != meshLinks*want {
			t.Errorf("group %d: %d machines have %d links into other groups, want %d machines", group, machines, links, want)
		}
	}
	for id, l := range answers {
		if l.Appliance != (l.Group == 0) || l.Share.Members != 0 {
			t.Fatalf("%d of group %d is told %+v", id, l.Group, l)
		}
	}
}

func TestAnotherMachineTakesTheLinksOfOneThatLeft(t *testing.T) {
	top := NewTopology(mustPolicy(t, meshOf("weights: [{members: [10.0.2.0], weight: 0}]\n", 2, 2, 2)), 1)
	who := fillGroups(top, 3, 30)
	for id := range ID(90) {
		if m := top.members[id]; m != nil && m.gate && id%2 == 0 {
			top.Leave(id)
			delete(who, id)
		}
	}
	answers := checkTopology(t, top, who)
	for group := range 3 { // a circle that closes a gap may leave one without
		if _, machines := abroad(top, answers, group); machines < 8 || top.groups[group].gates != 10 {
			t.Errorf("group %d: %d machines have links into other groups, %d may, want 10", group, machines, top.groups[group].gates)
		}
	}
	if zero := ID(3); top.members[zero].gate {
		t.Error("a machine of weight 0 has links into other groups")
	}
}

func TestFirstOfTheMeshThatIsThereReachesTheAppliance(t *testing.T) {
	top := NewTopology(mustPolicy(t, meshOf("", 4, 4, 4)), 1)
	who := fillGroups(top, 3, 20)
	for id := range who {
		if top.members[id].group == 0 {
			top.Leave(id)
			delete(who, id)
		}
	}
	for id, l := range checkTopology(t, top, who) {
		if l.Appliance != (l.Group == 1) {
			t.Errorf("%d of group %d: appliance %v", id, l.Group, l.Appliance)
		}
	}
}

func TestMeshLeavesOutThinPinnedAndForbidden(t *testing.T) {
	for text, want := range map[string]string{
		meshOf("", 1, 1):    "[]",
		meshOf("", 1, 9):    "[]",
		meshOf("", 2, 1, 9): "[0 2]",
		meshOf("pins: [{child: g2, parent: g0}]\n", 9, 9, 9):                              "[0 1]",
		meshOf("edges: [{forbid: [g1, g2]}]\npins: [{child: g2, parent: g0}]\n", 9, 9, 9): "[0 1]",
		meshOf("max_connections: 8\n", 9, 9):                                              "[]",
		meshOf("max_connections: 12\n", 9, 1, 9):                                          "[]",
		meshOf("max_connections: 13\n", 9, 1, 9):                                          "[0 2]",
	} {
		if p := mustPolicy(t, text); fmt.Sprint(p.mesh) != want {
			t.Errorf("%s: mesh of %v, want %s", text, p.mesh, want)
		}
	}
	// a chain from group 0 through the thin one, whose machines the mesh does not reach
	top := NewTopology(mustPolicy(t, meshOf("", 9, 1, 9)), 1)
	who := fillGroups(top, 3, 12)
	answers := checkTopology(t, top, who)
	checkShares(t, top, answers)
	up := map[int]map[int]bool{}
	for _, l := range answers {
		for _, n := range l.Neighbours {
			if n.Relation == Upstream {
				up[l.Group] = map[int]bool{top.members[n.ID].group: true}
			}
		}
	}
	if fmt.Sprint(up) != "map[1:map[0:true]]" {
		t.Errorf("upstream of each group: %v", up)
	}
}

// Before machines take part they fetch from those whom the mesh links them with.
func TestMachinesOfTheMeshFetchFromEachOther(t *testing.T) {
	p := mustPolicy(t, meshOf("edges: [{forbid: [10.0.3.1, g0]}]\npins: [{child: g4, parent: g1}]\n", 9, 1, 9, 9, 9))
	for _, c := range []struct {
		who, from Who
		want      bool
	}{
		{at(2, 1), at(0, 1), true}, {at(0, 1), at(3, 1), false}, {at(0, 1), at(3, 2), true}, {at(3, 1), at(0, 1), false},
		{at(1, 1), at(0, 1), true}, {at(1, 1), at(2, 1), false}, {at(4, 1), at(0, 1), false}, {at(4, 1), at(1, 1), true},
	} {
		if got := p.MayFetch(c.who, c.from); got != c.want {
			t.Errorf("%v may fetch from %v: %v", c.who.Address, c.from.Address, got)
		}
	}
}

func TestMeshSpeaks(t *testing.T) {
	if text := mustPolicy(t, meshOf("", 9, 1)).String(); !strings.Contains(text, "\n   its 9 images do not count, it is in no mesh: ") {
		t.Error(text)
	}
	text := mustPolicy(t, meshOf("", 10, 10, 1)).String()
	for _, want := range []string{
		"1. group g0: 10.0.0.0/24, and every machine that no other group names\n   fetches from the appliance\n" +
			"   exchanges everything with groups g1; up to 50 of its machines have links there, so that its uplink carries about 10 images each way\n" +
			"2. group g1: 10.0.1.0/24\n   exchanges everything with groups g0; up to 50",
		"3. group g2: 10.0.2.0/24\n   fetches from group g1, or",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%s\nwant %s", text, want)
		}
	}
}

// No group fetches from one that fetches from it, whichever groups have machines.
func TestContentComesFromTheAppliance(t *testing.T) {
	for _, c := range []struct {
		text  string
		empty int
	}{
		{chain(4, "pins: [{child: g1, parent: g3}, {child: g2, parent: g0}]\n"), 2},
		{chain(4, "pins: [{child: g1, parent: 10.0.3.7}, {child: g2, parent: g0}]\n"), 2},
		{chain(6, "pins: [{child: g1, parent: g5}, {child: g2, parent: g1}, {child: g3, parent: g0}]\n"), 3},
		{meshOf("pins: [{child: g1, parent: g2}]\n", 9, 9, 9, 9), 0},
		{meshOf("pins: [{child: g1, parent: g3}]\n", 9, 9, 9, 9), 0},
	} {
		p := mustPolicy(t, c.text)
		top, who := NewTopology(p, 1), map[ID]Who{}
		for id := range ID(12 * len(p.Groups)) {
			if group := int(id) % len(p.Groups); group != c.empty {
				who[id] = at(group, int(id)/len(p.Groups))
				top.Join(id, who[id], false)
			}
		}
		answers := checkTopology(t, top, who)
		reached := map[ID]bool{}
		for more := true; more; {
			more = false
			for id, l := range answers {
				from := l.Appliance || slices.ContainsFunc(l.Neighbours, func(n Neighbour) bool { return n.Relation != Downstream && reached[n.ID] })
				if from && !reached[id] {
					reached[id], more = true, true
				}
			}
		}
		if len(reached) != len(who) {
			t.Errorf("the content reaches %d of %d machines where group %d is empty:\n%s", len(reached), len(who), c.empty, c.text)
		}
	}
}
