package schedule

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
)

// MaxPolicyLength bounds a policy file in bytes.
const MaxPolicyLength = 4 << 20

// file is a policy as YAML has it.
type file struct {
	MaxConnections  *number      `yaml:"max_connections"`
	MeasuredWeights *bool        `yaml:"measured_weights"`
	Others          *word        `yaml:"others"`
	Groups          []fileGroup  `yaml:"groups"`
	Edges           []fileEdge   `yaml:"edges"`
	Pins            []filePin    `yaml:"pins"`
	Weights         []fileWeight `yaml:"weights"`
}

type fileGroup struct {
	Name    word   `yaml:"name"`
	Members []word `yaml:"members"`
	Uplink  struct {
		Mbit   *number `yaml:"mbit"`
		Links  *number `yaml:"links"`
		Images *number `yaml:"images"`
	} `yaml:"uplink"`
}

type fileEdge struct {
	Allow  []word `yaml:"allow"`
	Forbid []word `yaml:"forbid"`
}

type filePin struct {
	Child  word `yaml:"child"`
	Parent word `yaml:"parent"`
}

type fileWeight struct {
	Members []word `yaml:"members"`
	Weight  number `yaml:"weight"`
}

// word is a scalar and the line it is in; line 0 says that it is missing.
type word struct {
	text string
	line int
}

func (w *word) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind != yaml.ScalarNode || n.Tag == "!!null" {
		return fmt.Errorf("line %d: a word is wanted here", n.Line)
	}
	w.text, w.line = n.Value, n.Line
	return nil
}

// number is a whole number and the line it is in.
type number struct {
	n    int64
	line int
}

func (v *number) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind != yaml.ScalarNode || n.Tag != "!!int" || n.Decode(&v.n) != nil {
		return fmt.Errorf("line %d: a whole number is wanted here, not %q", n.Line, n.Value)
	}
	v.line = n.Line
	return nil
}

// ParsePolicy reads a policy file. An empty one is NoPolicy. The error lists everything that is wrong, a line for each, and
// begins each with the line in the file.
func ParsePolicy(b []byte) (*Policy, error) {
	if len(b) > MaxPolicyLength {
		return nil, fmt.Errorf("a policy of %d bytes, more than %d", len(b), MaxPolicyLength)
	}
	var f file
	d := yaml.NewDecoder(bytes.NewReader(b))
	d.KnownFields(true)
	if err := d.Decode(&f); err != nil && !errors.Is(err, io.EOF) {
		return nil, readable(err)
	}
	if err := d.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, errors.New("a second document behind the policy; remove the line ---")
	}
	c := compiler{p: NoPolicy(), groups: map[string]int{}}
	c.compile(f)
	if len(c.errs) > 0 {
		return nil, errors.Join(c.errs...)
	}
	c.p.index()
	return c.p, nil
}

var (
	unknownKey = regexp.MustCompile(`field (.*) not found in type .*`)
	typeName   = regexp.MustCompile(` into (\[\])?schedule\.\w+`)
)

// readable takes the names of Go types out of the errors of the YAML library.
func readable(err error) error {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	lines := strings.Split(strings.TrimPrefix(text, "unmarshal errors:\n"), "\n")
	for i, l := range lines {
		l = unknownKey.ReplaceAllString(strings.TrimSpace(l), "the key $1 is not known here")
		lines[i] = typeName.ReplaceAllString(l, "")
	}
	return errors.New(strings.Join(lines, "\n"))
}

// compiler makes a Policy of a file, and keeps all errors.
type compiler struct {
	p      *Policy
	groups map[string]int
	errs   []error
}

func (c *compiler) fail(line int, format string, a ...any) {
	c.errs = append(c.errs, fmt.Errorf("line %d: "+format, append([]any{line}, a...)...))
}

// bounded returns the number, or otherwise where it is missing or outside of its bounds.
func (c *compiler) bounded(v *number, what string, low, high, otherwise int64) int64 {
	if v == nil {
		return otherwise
	}
	if v.n < low || v.n > high {
		c.fail(v.line, "%s is %d; it can be %d to %d, and left out", what, v.n, low, high)
		return otherwise
	}
	return v.n
}

func (c *compiler) compile(f file) {
	c.p.MaxConnections = int(c.bounded(f.MaxConnections, "max_connections", minMaxConnections, maxMaxConnections, DefaultMaxConnections))
	if f.MeasuredWeights != nil {
		c.p.MeasuredWeights = *f.MeasuredWeights
	}
	if len(f.Groups) > maxGroups || len(f.Edges)+len(f.Pins)+len(f.Weights) > maxRules {
		c.errs = append(c.errs, fmt.Errorf("%d groups and %d edges, pins and weights; %d and %d are the most: name ranges in place of machines",
			len(f.Groups), len(f.Edges)+len(f.Pins)+len(f.Weights), maxGroups, maxRules))
		return
	}
	c.names(f)
	c.members(f)
	for _, e := range f.Edges {
		c.edge(e)
	}
	for _, n := range f.Pins {
		c.pin(n)
	}
	for _, w := range f.Weights {
		c.weight(w)
	}
	if len(c.errs) == 0 {
		c.p.weave()
		c.circles()
		c.ways()
	}
}

// names takes the groups' names and budgets.
func (c *compiler) names(f file) {
	if len(f.Groups) > 0 {
		c.p.Groups = nil
	}
	for i, g := range f.Groups {
		own := Group{Name: g.Name.text, pin: noPin, line: g.Name.line}
		earlier, twice := c.groups[own.Name]
		switch {
		case own.line == 0:
			c.errs = append(c.errs, fmt.Errorf("group %d of the list has no name; give it that of its switch or room", i+1))
		case !groupName.MatchString(own.Name) || own.Name == "appliance" || isAddress(own.Name):
			c.fail(own.line, "%q cannot be the name of a group; use letters, digits, - _ and ., and neither an address nor appliance", own.Name)
		case twice:
			c.fail(own.line, "group %s is there already, in line %d; name it otherwise or join the two", own.Name, c.p.Groups[earlier].line)
		default:
			c.groups[own.Name] = i
		}
		own.BytesPerSecond = c.bounded(g.Uplink.Mbit, "the uplink's mbit of group "+own.Name, 1, 1e7, 0) * 125000
		own.Links = int(c.bounded(g.Uplink.Links, "the uplink's links of group "+own.Name, 1, 1e6, 0))
		own.Images = int(c.bounded(g.Uplink.Images, "the uplink's images of group "+own.Name, 1, 1000, 1))
		if own.Images > 1 && own.BytesPerSecond+int64(own.Links) > 0 {
			c.fail(g.Uplink.Images.line, "the uplink of group %s has images, and mbit or links: these bound what a chain fetches, leave them out "+
				"or say images: 1", own.Name)
		}
		c.p.Groups = append(c.p.Groups, own)
	}
	if f.Others != nil {
		g, ok := c.groups[f.Others.text]
		if !ok {
			c.fail(f.Others.line, "others names %q, which is no group%s", f.Others.text, knownGroups(c.groups))
		}
		c.p.Others = g
	}
}

var groupName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

func isAddress(s string) bool {
	_, notAddress := netip.ParseAddr(s)
	_, notMAC := net.ParseMAC(s)
	return notAddress == nil || notMAC == nil
}

// members takes the groups' members; each belongs to one group.
func (c *compiler) members(f file) {
	type owner struct{ group, line int }
	owners := map[string]owner{}
	for i, g := range f.Groups {
		own := &c.p.Groups[i]
		if len(g.Members) == 0 && i != c.p.Others && own.line > 0 {
			c.fail(own.line, "group %s has no members; list addresses, ranges, MACs or machine:NAME, or make it the one of others", own.Name)
		}
		for _, w := range g.Members {
			y, err := parseParty(w.text, w.line, c.groups)
			if err != nil {
				c.errs = append(c.errs, err)
				continue
			}
			if y.kind == kindGroup || y.kind == kindAppliance {
				c.fail(w.line, "%s cannot be a member of group %s; list its machines", w.text, own.Name)
				continue
			}
			key := y.name + y.in.String()
			if o, ok := owners[key]; ok {
				c.fail(w.line, "%s belongs to group %s already, by line %d; remove one of the two", w.text, c.p.Groups[o.group].Name, o.line)
				continue
			}
			owners[key] = owner{i, w.line}
			own.members = append(own.members, y)
		}
	}
}

// party reads a party; ok is false after an error.
func (c *compiler) party(w word) (y party, ok bool) {
	y, err := parseParty(w.text, w.line, c.groups)
	if err != nil {
		c.errs = append(c.errs, err)
	}
	return y, err == nil
}

func (c *compiler) edge(f fileEdge) {
	list := append(append([]word(nil), f.Allow...), f.Forbid...)
	if len(list) == 0 {
		c.errs = append(c.errs, errors.New("an edge without sides; write forbid: [lab-a, lab-b] or allow: [appliance, lab-b]"))
		return
	}
	line := list[0].line
	if len(list) != 2 || len(f.Allow)*len(f.Forbid) > 0 {
		c.fail(line, "an edge has two sides, under allow or under forbid; write forbid: [lab-a, lab-b]")
		return
	}
	e := edge{allow: len(f.Allow) > 0, line: line}
	for i, w := range list {
		var ok bool
		if e.sides[i], ok = c.party(w); !ok {
			return
		}
	}
	if e.sides[0].kind == kindAppliance && e.sides[1].kind == kindAppliance {
		c.fail(line, "both sides are the appliance; name a group or a machine")
		return
	}
	c.p.edges = append(c.p.edges, e)
}

func (c *compiler) pin(f filePin) {
	if f.Child.line == 0 || f.Parent.line == 0 {
		c.fail(max(f.Child.line, f.Parent.line), "a pin needs child and parent; write {child: lab-b, parent: lab-a}")
		return
	}
	child, ok := c.party(f.Child)
	parent, ok2 := c.party(f.Parent)
	if !ok || !ok2 {
		return
	}
	if child.kind == kindAppliance {
		c.fail(child.line, "the appliance has no parent; name a group or a machine as child")
		return
	}
	if child.same(parent) {
		c.fail(child.line, "%s cannot fetch from itself; name another parent", child.text)
		return
	}
	for _, o := range c.p.pins {
		if o.child.same(child) {
			c.fail(child.line, "%s is pinned already, in line %d; remove one of the two", child.text, o.line)
			return
		}
	}
	if child.kind == kindGroup {
		c.p.Groups[child.group].pin = len(c.p.pins)
	}
	c.p.pins = append(c.p.pins, pin{child, parent, child.line})
}

// same reports whether two parties name the same.
func (y party) same(o party) bool {
	return y.kind == o.kind && y.name == o.name && y.in == o.in && (y.kind != kindGroup || y.group == o.group)
}

func (c *compiler) weight(f fileWeight) {
	if len(f.Members) == 0 || f.Weight.line == 0 {
		c.fail(f.Weight.line, "a weight needs members and weight; write {members: [machine:pc-7], weight: 2}")
		return
	}
	n := int(c.bounded(&f.Weight, "a weight", 0, maxWeight, 1))
	for _, w := range f.Members {
		if y, ok := c.party(w); ok && y.kind == kindAppliance {
			c.fail(w.line, "the appliance has no weight; name machines or groups")
		} else if ok {
			c.p.weights = append(c.p.weights, weight{y, n})
		}
	}
}

// circles refuses pins by which the content cannot come from the appliance.
func (c *compiler) circles() {
	for i := range c.p.Groups {
		at, steps := i, 0
		for steps = 0; at >= 0 && steps <= len(c.p.Groups); steps++ {
			at = c.parentGroup(at)
		}
		if at >= 0 {
			own := c.p.Groups[i]
			c.fail(own.line, "group %s gets its content from itself by way of pins; pin %s to a group before it in the list, or to appliance", own.Name, own.Name)
		}
	}
	for _, n := range c.p.pins {
		at := n
		for range len(c.p.pins) {
			next := -1
			for j, o := range c.p.pins {
				if o.child.kind != kindGroup && o.child.same(at.parent) {
					next = j
				}
			}
			if next < 0 {
				break
			}
			if at = c.p.pins[next]; at.parent.same(n.child) {
				c.fail(n.line, "%s gets its content from itself by way of line %d; remove one of the pins", n.child.text, at.line)
				break
			}
		}
	}
}

// parentGroup returns the group that a group fetches from, -1 for the appliance.
func (c *compiler) parentGroup(i int) int {
	own := c.p.Groups[i].pin
	if in, first := c.p.meshed(i); in && !first {
		return c.p.mesh[0]
	}
	if own == noPin {
		return i - 1
	}
	return c.p.groupOfParty(c.p.pins[own].parent)
}

// groupOfParty returns the group of what a policy names; -1 for the appliance, and for a machine of which only its name is known
// before it is there.
func (p *Policy) groupOfParty(y party) int {
	switch y.kind {
	case kindGroup:
		return y.group
	case kindAppliance:
		return -1
	}
	for j, g := range p.Groups {
		for _, m := range g.members {
			named := m.kind == kindName && m.name == y.name
			inside := m.kind == kindRange && m.in.Bits() <= y.in.Bits() && m.in.Contains(y.in.Addr())
			if y.kind == kindName && named || y.kind == kindRange && inside {
				return j
			}
		}
	}
	if y.kind == kindName {
		return -1
	}
	return p.Others
}

// ways refuses edges that leave a group without a way to the content.
func (c *compiler) ways() {
	for i, g := range c.p.Groups {
		if in, first := c.p.meshed(i); in && !first {
			continue
		}
		parent := party{kind: kindAppliance, text: "the appliance"}
		if own := g.pin; own != noPin {
			parent = c.p.pins[own].parent
		} else if i > 0 {
			parent = party{kind: kindGroup, group: i - 1, text: "group " + c.p.Groups[i-1].Name}
		}
		child := party{kind: kindGroup, group: i}
		for _, e := range c.p.edges {
			if a, b := e.sides[0], e.sides[1]; !(a.same(child) && b.same(parent)) && !(a.same(parent) && b.same(child)) {
				continue
			}
			if !e.allow && !c.applianceAllowed(child) {
				c.fail(e.line, "group %s has no way to the content: it fetches from %s, which this edge forbids; remove the edge, "+
					"or pin %s to another parent", g.Name, parent.text, g.Name)
			}
			break
		}
	}
}

// applianceAllowed reports whether an edge lets the group reach the appliance.
func (c *compiler) applianceAllowed(child party) bool {
	for _, e := range c.p.edges {
		for i := range 2 {
			if e.sides[i].kind == kindAppliance && e.sides[1-i].same(child) {
				return e.allow
			}
		}
	}
	return false
}
