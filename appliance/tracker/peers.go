package tracker

import (
	"hash/maphash"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"seedbed/images/announce"
	"seedbed/images/schedule"
)

// swarmPeers are the peers of one swarm.
type swarmPeers struct {
	seeds    []netip.AddrPort // the appliances' seeders; they do not announce
	machines map[netip.AddrPort]*machine
	byID     map[peerAt]*machine
	byNumber map[schedule.ID]*machine
	at       map[netip.Prefix]int // machines, by networkOf
	complete int                  // machines that hold everything
	next     schedule.ID
	top      *schedule.Topology // nil in an open swarm
	desk     *desk              // nil in an open swarm
	open     bool
	changed  time.Time // when a machine last came or left
	swept    time.Time // when silent machines were last looked for
}

// peerAt is a peer ID at an IP address.
type peerAt struct {
	address netip.Addr
	id      [20]byte
}

// machine is one that announced.
type machine struct {
	address netip.AddrPort
	id      [20]byte
	who     schedule.Who
	number  schedule.ID
	seed    bool // a seed node
	plain   bool // it came under an open swarm's plain v1 name, which others than ours do not know
	left    int64
	expires time.Time

	// When a rate was last taken, or when it came, and received then; and the rate in bytes a second, 0 if not known.
	seen       time.Time
	downloaded int64
	rate       float64

	told    uint64    // sum of what it was told of its neighbours
	changed time.Time // when that last changed
}

// everyone is up to how many machines all are asked to come again soon when one came or left; in a larger swarm it is
// those whose neighbours changed.
const everyone = 256

// sweep is how often silent machines are looked for.
const sweep = time.Second

func newSwarmPeers(p *schedule.Policy) *swarmPeers {
	s := &swarmPeers{
		machines: map[netip.AddrPort]*machine{}, byID: map[peerAt]*machine{}, byNumber: map[schedule.ID]*machine{}, at: map[netip.Prefix]int{},
		top: schedule.NewTopology(p, rand.Uint64()),
	}
	s.desk = newDesk(p, func() []netip.AddrPort { return s.seeds })
	return s
}

// expire forgets machines that were silent for long.
func (s *swarmPeers) expire(now time.Time) {
	if now.Sub(s.swept) < sweep {
		return
	}
	s.swept = now
	for _, m := range s.machines {
		if m.expires.Before(now) {
			s.remove(m, now)
		}
	}
}

// arrive returns the machine that announces, nil if it is new. One that booted again announces under a new ID: its old
// self is gone, whatever port it had.
func (s *swarmPeers) arrive(a netip.AddrPort, id [20]byte, now time.Time) *machine {
	m := s.machines[a]
	if m != nil && m.id != id {
		s.remove(m, now)
		m = nil
	}
	if o := s.byID[peerAt{a.Addr(), id}]; o != nil && o != m {
		s.remove(o, now)
	}
	return m
}

func (s *swarmPeers) add(a netip.AddrPort, w schedule.Who, seed bool, r announce.Request, now time.Time) *machine {
	m := &machine{address: a, id: r.PeerID, who: w, number: s.next, seed: seed, left: r.Left, downloaded: r.Downloaded, seen: now}
	s.next++
	s.machines[a], s.byID[peerAt{a.Addr(), r.PeerID}], s.byNumber[m.number] = m, m, m
	s.at[networkOf(a.Addr())]++
	if m.left == 0 {
		s.complete++
	}
	if s.top != nil {
		s.top.Join(m.number, w, m.seed)
		s.desk.lends(a, w, true, now) // it has what it needs to take part
	}
	s.changed = now
	return m
}

func (s *swarmPeers) remove(m *machine, now time.Time) {
	delete(s.machines, m.address)
	delete(s.byID, peerAt{m.address.Addr(), m.id})
	delete(s.byNumber, m.number)
	if n := networkOf(m.address.Addr()); s.at[n] == 1 {
		delete(s.at, n)
	} else {
		s.at[n]--
	}
	if m.left == 0 {
		s.complete--
	}
	if s.top != nil {
		s.top.Leave(m.number)
		s.desk.leaves(m.address)
	}
	s.changed = now
}

// progress takes what the machine says of itself. A rate is judged over an interval and more: shorter ones, above all that of the
// first seconds, made machines slow that were not, and who took over their shares fell behind.
func (s *swarmPeers) progress(m *machine, r announce.Request, interval time.Duration, now time.Time) {
	if took := now.Sub(m.seen); took >= interval {
		rate := max(1, float64(r.Downloaded-m.downloaded)/took.Seconds())
		if m.rate > 0 {
			rate = (m.rate + rate) / 2
		}
		m.rate, m.seen, m.downloaded = rate, now, r.Downloaded
	}
	if (m.left == 0) != (r.Left == 0) {
		s.complete += map[bool]int{true: 1, false: -1}[r.Left == 0]
	}
	m.left = r.Left
	if s.top != nil {
		s.top.Report(m.number, m.left == 0, m.rate)
	}
}

// answer fills in the machine's links, and returns when it should come again.
func (s *swarmPeers) answer(m *machine, answer *announce.Response, interval time.Duration, now time.Time) time.Duration {
	links, _ := s.top.Links(m.number)
	told := &announce.Links{
		Group: links.Group, Grouped: links.Grouped, Share: announce.Share(links.Share), BytesPerSecond: links.BytesPerSecond,
		MaxConnections: s.top.MaxConnections(),
	}
	add := func(a netip.AddrPort, role announce.Role) {
		answer.Peers, told.Roles = append(answer.Peers, a), append(told.Roles, role)
	}
	seeders := s.top.MaxSeeders()
	for _, a := range s.seeds {
		if links.Appliance && seeders > 0 {
			seeders--
			add(a, announce.Appliance)
		}
	}
	for _, n := range links.Neighbours {
		if len(answer.Peers) < told.MaxConnections && (n.Relation != schedule.SeedNode || seeders > 0) {
			if n.Relation == schedule.SeedNode {
				seeders--
			}
			add(s.byNumber[n.ID].address, roleOf[n.Relation])
		}
	}
	for _, id := range s.top.Guests(m.number) {
		add(s.byNumber[id].address, announce.Downstream)
	}
	answer.Links = told
	if sum := sumOf(answer.Peers, told); sum != m.told {
		m.told, m.changed = sum, now
	}
	return s.again(m, interval, now)
}

// again returns when a machine should come again: soon while its neighbours change. In a small swarm it is as soon as a
// second after any machine came, then more and more rarely: machines that start together each take too large a share of
// what crosses an uplink until they have heard of each other.
func (s *swarmPeers) again(m *machine, interval time.Duration, now time.Time) time.Duration {
	often := max((interval / soon).Truncate(time.Second), time.Second)
	quiet := now.Sub(m.changed)
	if len(s.machines) <= everyone {
		quiet = min(quiet, now.Sub(s.changed))
		often = min(often, max((2*quiet).Truncate(time.Second), time.Second))
	}
	if quiet < interval {
		return often
	}
	return interval
}

// soon is the part of an interval after which a machine is asked to come again while its neighbours come and go.
const soon = 3

var roleOf = map[schedule.Relation]announce.Role{
	schedule.Inside: announce.Inside, schedule.Upstream: announce.Upstream, schedule.Downstream: announce.Downstream,
	schedule.SeedNode: announce.SeedNode,
}

var sumSeed = maphash.MakeSeed()

// sumOf names an answer: who is what, in any order, and the share.
func sumOf(peers []netip.AddrPort, l *announce.Links) (sum uint64) {
	for i, p := range peers {
		sum += maphash.Comparable(sumSeed, struct {
			netip.AddrPort
			announce.Role
		}{p, l.Roles[i]})
	}
	return sum + maphash.Comparable(sumSeed, l.Share) + 1
}

// SetPolicy makes another policy count from now on; machines learn of it when they announce next.
func (t *Tracker) SetPolicy(p *schedule.Policy) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cfg.Policy = p
	for _, s := range t.swarms {
		if s.top == nil {
			continue
		}
		s.top = schedule.NewTopology(p, rand.Uint64())
		s.desk = newDesk(p, func() []netip.AddrPort { return s.seeds }) // those who wait ask again
		list := make([]*machine, 0, len(s.machines))
		for _, m := range s.machines {
			list = append(list, m)
		}
		slices.SortFunc(list, func(a, b *machine) int { return int(a.number) - int(b.number) })
		for _, m := range list {
			s.top.Join(m.number, m.who, m.seed)
			s.top.Report(m.number, m.left == 0, m.rate)
			s.desk.lends(m.address, m.who, true, time.Now())
		}
		s.changed = time.Now()
	}
}

// MayReachAppliance reports whether a machine may be told of the appliance's seeders before it announced for the first
// time. names are those of schedule.Who.
func (t *Tracker) MayReachAppliance(names []string, a netip.Addr) bool {
	return t.policy().MayReachAppliance(schedule.Who{Address: bare(a), Names: names})
}

// MayReachSeedNode is the same for a seed node at an address.
func (t *Tracker) MayReachSeedNode(names []string, a, node netip.Addr) bool {
	return t.policy().MayReachSeedNode(schedule.Who{Address: bare(a), Names: names}, schedule.Who{Address: bare(node)})
}

func (t *Tracker) policy() *schedule.Policy {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.cfg.Policy
}

// networkOf is what one host has of addresses: one of IPv4, 64 bits of IPv6 (RFC 4291 §2.5.1).
func networkOf(a netip.Addr) netip.Prefix {
	bits := a.BitLen()
	if a.Is6() {
		bits = 64
	}
	p, _ := a.Prefix(bits) // zero for what is no address
	return p
}

// bare returns an address as policies have it.
func bare(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }
