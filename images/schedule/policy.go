package schedule

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
)

// Policy says how the machines of a swarm may be linked: groups in the order of a chain or a mesh, edges, pins, budgets, weights.
// Immutable; safe for concurrent use.
type Policy struct {
	// MaxConnections bounds the links of one machine.
	MaxConnections int
	// MeasuredWeights takes machines that are much slower than the others of their group out of fetching from upstream.
	MeasuredWeights bool
	// Groups are in the order of the chain: each fetches from the one before, the first from the appliance. There is one
	// at least.
	Groups []Group
	// Others is the index of the group of machines that no group names.
	Others int

	edges   []edge
	pins    []pin
	weights []weight
	mesh    []int          // the groups of the mesh
	byName  map[string]int // group by what matches names
	byRange []rangeGroup   // the narrowest first
}

// Group is a switch or a room: machines that reach each other at full speed.
type Group struct {
	Name string
	// BytesPerSecond bounds what crosses its uplink in each direction; zero is no limit.
	BytesPerSecond int64
	// Images is how many times the content may cross its uplink in each direction; of more than one the groups are a mesh
	// that exchanges everything.
	Images int
	// Links bounds the links by which its machines fetch from upstream; zero is no limit.
	Links int

	members []party
	pin     int // index in pins, or none: it fetches from the group before
	line    int
}

// Bounds and defaults of a policy.
const (
	DefaultMaxConnections = 20
	minMaxConnections     = 6 // one seeder, one link upstream, two inside, two downstream
	maxMaxConnections     = 1000
	maxWeight             = 16
	maxRules              = 1000
	maxGroups             = 1000
)

// Who is what is known of a machine.
type Who struct {
	Address netip.Addr
	// Names are its ID, its name for people and its MACs, as far as they are known, in any case.
	Names []string
	// Part says that it wants, and holds, only some of the pieces: it fetches nothing for its group where others do, and is upstream
	// only of those who want the same. Same names which; two of the same name that is not empty want the same.
	Part bool
	Same string
}

// kind of a party.
type kind int

const (
	kindAppliance kind = iota
	kindGroup
	kindRange
	kindName
)

// party is what an edge, a pin or a member names.
type party struct {
	kind  kind
	group int
	in    netip.Prefix
	name  string // in lower case
	text  string // as the file has it
	line  int
}

// edge allows or forbids links between what its sides name, in both directions.
type edge struct {
	allow bool
	sides [2]party
	line  int
}

// pin makes a child fetch from its parent only.
type pin struct {
	child, parent party
	line          int
}

type weight struct {
	of     party
	weight int
}

type rangeGroup struct {
	in    netip.Prefix
	group int
}

// NoPolicy is the policy without a file: one group.
func NoPolicy() *Policy {
	p := &Policy{MaxConnections: DefaultMaxConnections, MeasuredWeights: true, Groups: []Group{{Name: "all", Images: 1, pin: noPin}}}
	p.index()
	return p
}

const noPin = -1

// index makes the tables by which groups are found.
func (p *Policy) index() {
	p.byName, p.byRange = map[string]int{}, nil
	for i, g := range p.Groups {
		for _, m := range g.members {
			if m.kind == kindName {
				p.byName[m.name] = i
			} else {
				p.byRange = append(p.byRange, rangeGroup{m.in, i})
			}
		}
	}
	slices.SortStableFunc(p.byRange, func(a, b rangeGroup) int { return cmp.Compare(b.in.Bits(), a.in.Bits()) })
}

// GroupOf returns the index of a machine's group. A name or MAC counts before an address, and a narrow range of
// addresses before a wide one.
func (p *Policy) GroupOf(w Who) int {
	for _, n := range w.Names {
		if g, ok := p.byName[strings.ToLower(n)]; ok {
			return g
		}
	}
	for _, r := range p.byRange {
		if r.in.Contains(w.Address) {
			return r.group
		}
	}
	return p.Others
}

// matches reports whether the party names the machine, which is of that group.
func (y party) matches(w Who, group int) bool {
	switch y.kind {
	case kindGroup:
		return y.group == group
	case kindRange:
		return y.in.Contains(w.Address)
	case kindName:
		return slices.ContainsFunc(w.Names, func(n string) bool { return strings.EqualFold(n, y.name) })
	}
	return false
}

// pinOf returns the index of the first pin whose child is this machine and not its whole group, or noPin.
func (p *Policy) pinOf(w Who, group int) int {
	return slices.IndexFunc(p.pins, func(n pin) bool { return n.child.kind != kindGroup && n.child.matches(w, group) })
}

// weightOf is how many shares of what its group fetches from upstream the machine takes.
func (p *Policy) weightOf(w Who, group int) int {
	for _, x := range p.weights {
		if x.of.matches(w, group) {
			return x.weight
		}
	}
	return 1
}

// sides are the sides of each edge that name a machine: bit 0 the first, bit 1 the second. Two machines of equal sides
// are the same to all edges.
type sides string

// applianceSides returns the sides that name the appliance.
func (p *Policy) applianceSides() sides {
	return p.sidesBy(func(y party) bool { return y.kind == kindAppliance })
}

func (p *Policy) sidesOf(w Who, group int) sides {
	return p.sidesBy(func(y party) bool { return y.matches(w, group) })
}

func (p *Policy) sidesBy(is func(party) bool) sides {
	b := make([]byte, len(p.edges))
	for i, e := range p.edges {
		if is(e.sides[0]) {
			b[i] |= 1
		}
		if is(e.sides[1]) {
			b[i] |= 2
		}
	}
	return sides(b)
}

// verdict returns what the first edge that concerns the two says; ok is false where none does.
func (p *Policy) verdict(a, b sides) (allow, ok bool) {
	for i := range a {
		if a[i]&1 != 0 && b[i]&2 != 0 || a[i]&2 != 0 && b[i]&1 != 0 {
			return p.edges[i].allow, true
		}
	}
	return false, false
}

// MayLink reports whether no edge forbids a link between two machines.
func (p *Policy) MayLink(a, b Who) bool {
	if len(p.edges) == 0 {
		return true
	}
	allow, ok := p.verdict(p.sidesOf(a, p.GroupOf(a)), p.sidesOf(b, p.GroupOf(b)))
	return allow || !ok
}

// MayLinkAppliance reports whether no edge forbids a link between the machine and the appliance.
func (p *Policy) MayLinkAppliance(w Who) bool {
	allow, ok := p.verdict(p.applianceSides(), p.sidesOf(w, p.GroupOf(w)))
	return allow || !ok
}

// MayReachSeedNode reports whether a machine may be told of a seed node: one of its group, unless it is pinned.
func (p *Policy) MayReachSeedNode(w, node Who) bool {
	group := p.GroupOf(w)
	return group == p.GroupOf(node) && p.pinOf(w, group) == noPin && p.MayLink(w, node)
}

// MayReachAppliance reports whether a machine may be told of the appliance's seeders before it is known which other
// machines take part: those of the group that is first in the chain, or that is pinned to the appliance or allowed.
func (p *Policy) MayReachAppliance(w Who) bool {
	group := p.GroupOf(w)
	if allow, ok := p.verdict(p.applianceSides(), p.sidesOf(w, group)); ok && !allow {
		return false
	} else if pinned := p.pinOf(w, group); pinned != noPin {
		return p.pins[pinned].parent.kind == kindAppliance
	} else if ok {
		return true
	}
	if own := p.Groups[group].pin; own != noPin {
		return p.pins[own].parent.kind == kindAppliance
	}
	return group == 0
}

// parseParty reads what a policy names: "appliance", the name of a group, an address, a range of addresses (CIDR), a MAC,
// or "machine:" and a machine's name or ID.
func parseParty(text string, line int, groups map[string]int) (party, error) {
	y := party{text: text, line: line}
	if name, ok := strings.CutPrefix(text, "machine:"); ok {
		if name == "" {
			return y, fmt.Errorf("line %d: machine: without a name; write machine:pc-7", line)
		}
		y.kind, y.name = kindName, strings.ToLower(name)
		return y, nil
	}
	if g, ok := groups[text]; ok {
		y.kind, y.group = kindGroup, g
		return y, nil
	}
	if text == "appliance" {
		y.kind = kindAppliance
		return y, nil
	}
	if a, err := netip.ParseAddr(text); err == nil && a.Zone() == "" {
		a = a.Unmap()
		y.kind, y.in = kindRange, netip.PrefixFrom(a, a.BitLen())
		return y, nil
	}
	if in, err := netip.ParsePrefix(text); err == nil {
		if in != in.Masked() {
			return y, fmt.Errorf("line %d: %s has bits behind its prefix; write %s", line, text, in.Masked())
		}
		y.kind, y.in = kindRange, in
		return y, nil
	}
	if mac, err := net.ParseMAC(text); err == nil {
		y.kind, y.name = kindName, mac.String()
		return y, nil
	}
	return y, fmt.Errorf("line %d: %q is no group, address, range or MAC%s; a machine is written machine:%s", line, text, knownGroups(groups), text)
}

// knownGroups lists the groups in the order of the chain, for an error.
func knownGroups(groups map[string]int) string {
	names := make([]string, 0, len(groups))
	for n := range groups {
		names = append(names, n)
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Compare(groups[a], groups[b]) })
	if len(names) == 0 {
		return ""
	}
	if len(names) > 8 {
		names = append(names[:8], "...")
	}
	return " (groups: " + strings.Join(names, ", ") + ")"
}
