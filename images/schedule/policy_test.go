package schedule

import (
	"net/netip"
	"strings"
	"testing"
)

func TestPolicyRefusesWithLineAndRemedy(t *testing.T) {
	for text, want := range map[string]string{
		"groups: [{nam: a}]":                                          "line 1: the key nam is not known here",
		"max_conections: 4\n":                                         "line 1: the key max_conections is not known here",
		"max_connections: 5":                                          "line 1: max_connections is 5; it can be 6 to 1000",
		"max_connections: many":                                       `line 1: a whole number is wanted here, not "many"`,
		"groups:\n  - members: [1.2.3.4]":                             "group 1 of the list has no name; give it that of its switch or room",
		"groups:\n  - {name: a}\n  - {name: b}\n":                     "line 3: group b has no members; list addresses, ranges, MACs or machine:NAME, or make it the one of others",
		"groups:\n  - {name: a}\n  - {name: a, members: [1.2.3.4]}\n": "line 3: group a is there already, in line 2; name it otherwise or join the two",
		"groups: [{name: appliance}]":                                 `line 1: "appliance" cannot be the name of a group`,
		"groups: [{name: 10.0.0.1}]":                                  `line 1: "10.0.0.1" cannot be the name of a group`,
		"groups: [{name: a, members: [10.0.0.1/8]}]":                  "line 1: 10.0.0.1/8 has bits behind its prefix; write 10.0.0.0/8",
		"groups: [{name: a, members: [pc-7]}]":                        `line 1: "pc-7" is no group, address, range or MAC (groups: a); a machine is written machine:pc-7`,
		"groups:\n- {name: a, members: [1.2.3.4]}\n- {name: b,\n   members: [1.2.3.4/32]}": "line 4: 1.2.3.4/32 belongs to group a already, by line 2; remove one of the two",
		"groups: [{name: a, members: [a]}]":                                                "line 1: a cannot be a member of group a; list its machines",
		"groups: [{name: a, uplink: {mbit: 0}}]":                                           "line 1: the uplink's mbit of group a is 0; it can be 1 to 10000000, and left out",
		"groups: [{name: a, uplink: {mbit: 9, images: 4}}]":                                "line 1: the uplink of group a has images, and mbit or links: ",
		"others: b\ngroups: [{name: a}]":                                                   `line 1: others names "b", which is no group (groups: a)`,
		"edges: [{forbid: [appliance]}]":                                                   "line 1: an edge has two sides, under allow or under forbid; write forbid: [lab-a, lab-b]",
		"edges: [{forbid: [appliance, lab-b]}]":                                            `line 1: "lab-b" is no group, address, range or MAC; a machine is written machine:lab-b`,
		"edges: [{allow: [appliance, appliance]}]":                                         "line 1: both sides are the appliance; name a group or a machine",
		"edges: [{}]":              "an edge without sides",
		"pins: [{child: 1.2.3.4}]": "line 1: a pin needs child and parent; write {child: lab-b, parent: lab-a}",
		"pins: [{child: 1.2.3.4, parent: 1.2.3.4/32}]":                                      "line 1: 1.2.3.4 cannot fetch from itself; name another parent",
		"pins: [{child: appliance, parent: 1.2.3.4}]":                                       "line 1: the appliance has no parent; name a group or a machine as child",
		"pins:\n- {child: 1.2.3.4, parent: appliance}\n- {child: 1.2.3.4, parent: 1.1.1.1}": "line 3: 1.2.3.4 is pinned already, in line 2; remove one of the two",
		"pins:\n- {child: 1.1.1.1, parent: 2.2.2.2}\n- {child: 2.2.2.2, parent: 1.1.1.1}":   "line 2: 1.1.1.1 gets its content from itself by way of line 3; remove one of the pins",
		chain(2, "pins: [{child: g0, parent: g1}]"):                                         "line 2: group g0 gets its content from itself by way of pins; pin g0 to a group before it in the list, or to appliance",
		chain(2, "pins: [{child: g1, parent: 10.0.1.7}]"):                                   "line 3: group g1 gets its content from itself by way of pins",
		chain(2, "edges:\n  - forbid: [g1, g0]"):                                            "line 5: group g1 has no way to the content: it fetches from group g0, which this edge forbids; remove the edge, or pin g1 to another parent",
		chain(2, "edges:\n  - forbid: [appliance, g0]"):                                     "line 5: group g0 has no way to the content: it fetches from the appliance, which",
		"weights: [{members: [1.2.3.4], weight: 17}]":                                       "line 1: a weight is 17; it can be 0 to 16",
		"weights: [{weight: 1}]":                                                            "line 1: a weight needs members and weight",
		"weights: [{members: [appliance], weight: 1}]":                                      "line 1: the appliance has no weight; name machines or groups",
		"---\n{}\n---\n{}\n":                                                                "a second document behind the policy; remove the line ---",
		"max_connections: 9\nmax_connections: 8":                                            `line 2: mapping key "max_connections" already defined at line 1`,
		"groups: 7":                                                                         "line 1: cannot unmarshal !!int `7`",
		"groups: [{name: [a]}]":                                                             "line 1: a word is wanted here",
	} {
		_, err := ParsePolicy([]byte(text))
		if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s\n got %v\nwant %s", text, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "schedule.") {
			t.Errorf("%v speaks of a type", err)
		}
	}
	_, err := ParsePolicy([]byte("max_connections: 1\ngroups: [{name: a, members: [x]}]\nweights: [{members: [y], weight: 1}]\n"))
	if err == nil || strings.Count(err.Error(), "\n") != 2 {
		t.Errorf("want three errors at once, got %v", err)
	}
}

func TestPolicyFindsTheGroup(t *testing.T) {
	p := mustPolicy(t, `
groups:
  - {name: wide, members: [10.0.0.0/8]}
  - {name: narrow, members: [10.0.1.0/24, "2001:db8::/64"]}
  - {name: named, members: ["machine:Boss", "52:54:00:AA:00:01", "52:54:00:00:00:09"]}
  - {name: rest}
others: rest
`)
	for _, c := range []struct {
		address, name, want string
	}{
		{"10.9.9.9", "", "wide"}, {"10.0.1.9", "", "narrow"}, {"2001:db8::7", "", "narrow"}, {"192.0.2.1", "", "rest"},
		{"10.0.1.9", "boss", "named"}, {"10.0.1.9", "52:54:00:aa:00:01", "named"}, {"10.0.1.9", "52:54:00:AA:00:02", "narrow"},
		{"10.0.1.9", "52:54:00:00:00:09", "named"},
	} {
		w := Who{Address: netip.MustParseAddr(c.address)}
		if c.name != "" {
			w.Names = []string{"x", c.name}
		}
		if got := p.Groups[p.GroupOf(w)].Name; got != c.want {
			t.Errorf("%s %s is of group %s, want %s", c.address, c.name, got, c.want)
		}
	}
}

func TestPolicySaysWhoMayReachTheAppliance(t *testing.T) {
	p := mustPolicy(t, chain(4, `
edges:
  - forbid: [appliance, 10.0.0.9]
  - allow: [g2, appliance]
pins:
  - {child: 10.0.1.5, parent: appliance}
  - {child: 10.0.0.5, parent: 10.0.0.6}
  - {child: g3, parent: appliance}
`))
	for _, c := range []struct {
		who  Who
		want bool
	}{
		{at(0, 1), true}, {at(0, 9), false}, {at(0, 5), false}, {at(1, 1), false}, {at(1, 5), true}, {at(2, 1), true}, {at(3, 1), true},
	} {
		if got := p.MayReachAppliance(c.who); got != c.want {
			t.Errorf("%v may reach the appliance: %v", c.who.Address, got)
		}
	}
	if !NoPolicy().MayReachAppliance(Who{}) {
		t.Error("without a policy nobody may")
	}
}

func TestPolicySpeaks(t *testing.T) {
	p := mustPolicy(t, `
groups:
  - {name: lab-a, members: [10.0.0.0/24]}
  - {name: lab-b, members: [10.0.1.0/24], uplink: {mbit: 100, links: 8}}
  - {name: lab-c, members: [10.0.2.0/24]}
edges: [{forbid: [lab-b, 10.0.0.7]}]
pins: [{child: lab-c, parent: lab-a}, {child: "machine:x", parent: appliance}]
weights: [{members: [10.0.1.9], weight: 0}]
`)
	const want = `A machine has at most 20 links: 8 inside its group, 4 to the group before, 4 to the one behind, 4 to seeders.
1. group lab-a: 10.0.0.0/24, and every machine that no other group names
   fetches from the appliance
2. group lab-b: 10.0.1.0/24
   fetches from group lab-a, or the next one before it that has machines; without any from the appliance; at most 100 Mbit/s over its uplink; by at most 8 links
3. group lab-c: 10.0.2.0/24
   fetches from lab-a, and from nobody else
machine:x fetches everything from appliance, and from nobody else
Links, where the first line that names both sides counts:
   lab-b and 10.0.0.7: forbidden
10.0.1.9 fetches nothing for its group as long as others can
A machine with less than half of the median rate of its group fetches nothing for it.
`
	if got := p.String(); got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
}

func FuzzParsePolicy(f *testing.F) {
	for _, text := range policies {
		f.Add([]byte(text))
	}
	f.Add([]byte("groups: &a [*a]"))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := ParsePolicy(b)
		if err != nil {
			return
		}
		top, who := NewTopology(p, 1), map[ID]Who{}
		for i := range 12 {
			who[ID(i)] = at(i%3, i)
			top.Join(ID(i), who[ID(i)], i == 5)
			p.MayReachAppliance(who[ID(i)])
		}
		checkShares(t, top, checkTopology(t, top, who))
		if p.String() == "" {
			t.Error("a policy without words")
		}
	})
}
