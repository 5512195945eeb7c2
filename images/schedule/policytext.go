package schedule

import (
	"fmt"
	"strings"
)

// String says in sentences what the policy means.
func (p *Policy) String() string {
	var b strings.Builder
	line := func(format string, a ...any) { fmt.Fprintf(&b, format+"\n", a...) }
	grouped := len(p.Groups) > 1 || len(p.pins) > 0
	d := p.budget(grouped)
	if grouped {
		line("A machine has at most %d links: %d inside its group, %d to the group before, %d to the one behind, %d to seeders.",
			p.MaxConnections, d.degree, d.upstream, d.downstream, d.seeders)
	} else {
		line("A machine has at most %d links: %d to other machines, %d to seeders.", p.MaxConnections, d.degree, d.seeders)
	}
	for i, g := range p.Groups {
		line("%d. group %s: %s", i+1, g.Name, p.membersText(i))
		if in, first := p.meshed(i); !in || first {
			line("   fetches from %s%s", p.parentText(i), g.budgetText())
		}
		in, _ := p.meshed(i)
		if g.Images > 1 && !in {
			line("   its %d images do not count, it is in no mesh: that takes two groups at least, neither pinned nor kept apart by an edge, "+
				"and max_connections of 9, or 13 beside groups of a chain", g.Images)
		}
		if in {
			line("   exchanges everything with %s; up to %d of its machines have links there, so that its uplink carries about %d images each way",
				p.meshText(i), g.Images*(d.degree+meshLinks)/meshLinks, g.Images)
		}
	}
	for _, n := range p.pins {
		if n.child.kind != kindGroup {
			line("%s fetches everything from %s, and from nobody else", n.child.text, n.parent.text)
		}
	}
	if len(p.edges) > 0 {
		line("Links, where the first line that names both sides counts:")
	}
	for _, e := range p.edges {
		line("   %s and %s: %s", e.sides[0].text, e.sides[1].text, map[bool]string{true: "allowed", false: "forbidden"}[e.allow])
	}
	for _, w := range p.weights {
		switch w.weight {
		case 0:
			line("%s fetches nothing for its group as long as others can", w.of.text)
		default:
			line("%s takes %d shares of what its group fetches", w.of.text, w.weight)
		}
	}
	if p.MeasuredWeights && grouped {
		line("A machine with less than half of the median rate of its group fetches nothing for it.")
	}
	return b.String()
}

func (p *Policy) membersText(i int) string {
	var list []string
	for _, m := range p.Groups[i].members {
		list = append(list, m.text)
	}
	if i == p.Others {
		if len(list) == 0 {
			return "every machine that no other group names"
		}
		list = append(list, "and every machine that no other group names")
	}
	return strings.Join(list, ", ")
}

func (p *Policy) parentText(i int) string {
	switch own := p.Groups[i].pin; {
	case own != noPin:
		return p.pins[own].parent.text + ", and from nobody else"
	case i == 0:
		return "the appliance"
	default:
		return "group " + p.Groups[i-1].Name + ", or the next one before it that has machines; without any from the appliance"
	}
}

// meshText names the other groups of the mesh, some of many.
func (p *Policy) meshText(i int) string {
	var names []string
	for _, j := range p.mesh {
		if j != i {
			names = append(names, p.Groups[j].Name)
		}
	}
	if more := len(names) - 4; more > 1 {
		return fmt.Sprintf("groups %s and %d others", strings.Join(names[:4], ", "), more)
	}
	return "groups " + strings.Join(names, ", ")
}

func (g Group) budgetText() string {
	text := ""
	if g.BytesPerSecond > 0 {
		text += fmt.Sprintf("; at most %d Mbit/s over its uplink", g.BytesPerSecond/125000)
	}
	if g.Links > 0 {
		text += fmt.Sprintf("; by at most %d links", g.Links)
	}
	return text
}
