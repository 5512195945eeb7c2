package model

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"seedbed/images/schedule"
)

// announceTime is how often a machine hears whom to link with. A machine that was not heard of for three of these is
// forgotten.
const (
	announceTime = 15 * time.Second
	forgetTime   = 3 * announceTime
)

// newTopology returns what a tracker keeps: one group for each switch, in a chain or, where Fanout is more than one, in a tree.
func (m *model) newTopology() (*schedule.Topology, error) {
	var policy strings.Builder
	groups := m.groups()
	if groups > 1 {
		policy.WriteString("groups:\n")
	}
	for g := 0; g < groups && groups > 1; g++ {
		fmt.Fprintf(&policy, "  - {name: g%d, members: [%v/24]}\n", g, address(g, 0))
	}
	if groups > 1 && m.Fanout > 1 && !m.Stripes {
		policy.WriteString("pins:\n")
		for g := 1; g < groups; g++ {
			fmt.Fprintf(&policy, "  - {child: g%d, parent: g%d}\n", g, (g-1)/m.Fanout)
		}
	}
	p, err := schedule.ParsePolicy([]byte(policy.String()))
	if err != nil {
		return nil, fmt.Errorf("policy of %d groups: %w", groups, err)
	}
	if m.Connections > 0 {
		p.MaxConnections = m.Connections
	}
	return schedule.NewTopology(p, m.Seed), nil
}

// address returns the address of machine i on switch g.
func address(g, i int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, byte(g >> 8), byte(g), byte(i)})
}

// announce makes a machine dial those that it is told of, and leave those that it is not.
func (m *model) announce(p *peer) {
	m.topology.Report(schedule.ID(p.index), p.finished > 0, p.rate())
	links, ok := m.topology.Links(schedule.ID(p.index))
	if p.hand != nil || !ok {
		return
	}
	p.pull.Imports = links.Share.Imports
	if m.Stripes {
		m.stripe(p, &links)
		p.pull.Imports = links.Share.Imports
	}
	wanted := map[*peer]schedule.Relation{}
	if links.Appliance {
		for _, s := range m.peers[:m.Seeders] {
			wanted[s] = schedule.Inside
			m.connect(p, s)
		}
	}
	for _, n := range links.Neighbours {
		o := m.peers[n.ID]
		wanted[o] = n.Relation
		m.connect(p, o)
		if l := p.linkTo(o); l != nil {
			l.relation(n.Relation)
		}
	}
	for i := len(p.links) - 1; i >= 0; i-- {
		l := p.links[i]
		if _, ok := wanted[l.other]; !ok && !(m.Stripes && l.far.Upstream && l.other.alive) {
			p.drop(l)
		}
	}
	p.feedAll()
}

// rate returns how fast the machine received since it was last asked, in bytes a second; 0 is not known.
func (p *peer) rate() float64 {
	elapsed := p.m.now - p.rated
	if elapsed <= 0 {
		return 0
	}
	rate := float64(p.received-p.ratedAt) / float64(elapsed) * 1e9
	p.rated, p.ratedAt = p.m.now, p.received
	return rate
}

// relation sets what may be asked of a link, at both of its ends.
func (l *link) relation(r schedule.Relation) {
	l.Upstream, l.far.Upstream = r == schedule.Upstream, r == schedule.Downstream
	l.ServedOnly, l.far.ServedOnly = r == schedule.Downstream, r == schedule.Upstream
}

// upstreamLinks is over how many links a machine fetches the pieces of one tree, trees is how many there are.
const (
	upstreamLinks = 4
	trees         = 8
)

// stripe replaces the links between groups by those of the trees of schedule.ParentGroup. Residues are those of a full
// group; where there are fewer machines each takes several, and those of the dead one before it.
func (m *model) stripe(p *peer, l *schedule.Links) {
	l.Neighbours = slices.DeleteFunc(l.Neighbours, func(n schedule.Neighbour) bool { return n.Relation != schedule.Inside })
	l.Share = schedule.Share{}
	if p.group == 0 {
		return
	}
	slots := m.slots[p.group]
	at := slices.Index(slots, p)
	end := (at + 1) * m.Ports / len(slots)
	seats := 1
	for seats < len(slots) && !slots[(at-seats+len(slots))%len(slots)].alive {
		seats++
	}
	begin := (at - seats + 1) * m.Ports / len(slots)
	if at-seats+1 < 0 {
		begin = (at-seats+1+len(slots))*m.Ports/len(slots) - m.Ports
	}
	l.Share = schedule.Share{Member: (begin + m.Ports) % m.Ports, Members: m.Ports, More: end - begin - 1}
	done := map[int]bool{}
	for residue := begin; residue < end; residue++ {
		tree := (residue + m.Ports) % m.Ports * trees / m.Ports
		if done[tree] {
			continue
		}
		done[tree] = true
		parent := m.slots[schedule.ParentGroup(p.group, m.groups(), tree, trees, m.Fanout)]
		first, found := at*len(parent)/len(slots), 0
		for i := range parent {
			if o := parent[(first+i)%len(parent)]; o.alive && found < upstreamLinks {
				l.Neighbours = append(l.Neighbours, schedule.Neighbour{ID: schedule.ID(o.index), Relation: schedule.Upstream})
				found++
			}
		}
	}
}

// groups is how many switches there are.
func (m *model) groups() int { return (m.Peers + m.Ports - 1) / m.Ports }
