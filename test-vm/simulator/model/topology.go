package model

import (
	"fmt"
	"net/netip"
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

// newTopology returns what a tracker keeps: one group for each switch, in a tree if Fanout says so, else a mesh or, where the
// switches' cables carry little, a chain.
func (m *model) newTopology() (*schedule.Topology, error) {
	var policy strings.Builder
	groups := m.groups()
	if groups > 1 {
		policy.WriteString("groups:\n")
	}
	for g := 0; g < groups && groups > 1; g++ {
		fmt.Fprintf(&policy, "  - {name: g%d, members: [%v/24], uplink: {images: %d}}\n", g, address(g, 0), m.images())
	}
	if groups > 1 && m.Fanout > 0 {
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
	if m.untracked {
		return
	}
	p.told = true
	m.topology.Report(schedule.ID(p.index), p.finished > 0, p.rate())
	links, ok := m.topology.Links(schedule.ID(p.index))
	if p.hand != nil || !ok {
		return
	}
	p.pull.Imports = links.Share.Imports
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
		if _, ok := wanted[l.other]; !ok {
			p.drop(l)
		}
	}
	p.feedAll()
}

// rate returns how fast the machine received since it last returned one, in bytes a second; 0 is not known, as of a shorter time
// than the tracker judges.
func (p *peer) rate() float64 {
	elapsed := p.m.now - p.rated
	if elapsed < int64(announceTime) {
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

// images is how many images the cable of a switch carries in the time in which a machine receives one, or what Images says.
func (m *model) images() int {
	if m.Images > 0 {
		return m.Images
	}
	return min(max(int(m.Uplink/m.Rate), 1), 1000)
}

// groups is how many switches there are.
func (m *model) groups() int { return (m.Peers + m.Ports - 1) / m.Ports }
