package tracker

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"seedbed/images/schedule"
)

// desk says from whom a machine of one swarm fetches what describes the image, before it takes part. Who has it serves a
// few at once, and each that has got it serves as well, so that the appliance gives a few copies however many machines
// there are: they come along a tree. Of each group of the policy few fetch from outside at once. Pure: the tracker guards it
// and tells it the time.
type desk struct {
	policy *schedule.Policy
	seeds  func() []netip.AddrPort // the appliances' seeders
	groups map[int]*deskGroup
	askers map[string]*asker
	swept  time.Time
}

// deskGroup is what a group of the policy has.
type deskGroup struct {
	lenders []*lender
	at      map[netip.AddrPort]*lender
	outside int      // loans from others than lenders
	queue   []*asker // oldest first
}

// lender is a machine that has what describes the image.
type lender struct {
	address   netip.AddrPort
	key       string // of whom it is, as an asker's; "" where it only takes part
	who       schedule.Who
	busy      int       // loans
	faults    int       // in a row
	announced bool      // it takes part in the swarm
	until     time.Time // else it counts until then
}

// asker is a machine that fetches, or waits for its turn.
type asker struct {
	key    string
	who    schedule.Who
	group  int
	length int64
	failed []netip.AddrPort
	since  time.Time // when it asked first
	loan   *loan
	queued bool
	ready  chan []netip.AddrPort // holds one answer
}

// loan is one copy on its way.
type loan struct {
	from    *lender    // nil is an appliance
	group   *deskGroup // of who fetches
	outside bool
	until   time.Time
}

// How the copies spread. Two at once from each who has it: a link gives two in the time of one after the other, but the wait
// for the next to ask falls away. Copies from outside are for the beginning, for those who waited, and for those whom
// machines failed.
const (
	loansAtOnce    = 2
	outsideAtOnce  = 2
	outsideFailed  = 8 // at once, where machines failed the one who asks
	enoughLenders  = 4 // of a group: nothing more comes from outside at first
	waitsForInside = time.Second
	askedInVain    = 2 // machines, until one is given what is outside
	alternatives   = 2 // named beside the one that is lent by
	maxFaults      = 3
	earlyLender    = 2 * time.Minute // it announces itself by then
	loanLeast      = 3 * time.Second
	loanRate       = 1 << 20 // bytes a second: what is slower counts as gone
	longestLoan    = 15 * 60 // seconds, beside loanLeast
	longestWait    = 30 * time.Second
	longestLoans   = 4 // beside longestWait
	deskSweep      = time.Second
	forgetAfter    = 10 * time.Minute
	maxTries       = 64 // of those who wait, when one place is free
)

func newDesk(p *schedule.Policy, seeds func() []netip.AddrPort) *desk {
	return &desk{policy: p, seeds: seeds, groups: map[int]*deskGroup{}, askers: map[string]*asker{}}
}

func (d *desk) group(i int) *deskGroup {
	g := d.groups[i]
	if g == nil {
		g = &deskGroup{at: map[netip.AddrPort]*lender{}}
		d.groups[i] = g
	}
	return g
}

// lends says that a machine has it: one that takes part, or for a while.
func (d *desk) lends(a netip.AddrPort, who schedule.Who, announced bool, now time.Time) {
	g := d.group(d.policy.GroupOf(who))
	l := g.at[a]
	if l == nil {
		l = &lender{address: a, who: who}
		g.lenders, g.at[a] = append(g.lenders, l), l
	}
	l.announced = l.announced || announced
	l.faults, l.until = 0, now.Add(earlyLender)
	d.dispatch(g, now)
}

// leaves says that a machine is gone.
func (d *desk) leaves(a netip.AddrPort) {
	for _, g := range d.groups {
		g.drop(a)
	}
}

func (g *deskGroup) drop(a netip.AddrPort) {
	if l := g.at[a]; l != nil {
		delete(g.at, a)
		g.lenders = slices.DeleteFunc(g.lenders, func(o *lender) bool { return o == l })
	}
}

// held says that a machine has got it, and lends it at an address from now on, unless that has no port: at one, until it takes
// part.
func (d *desk) held(key string, a netip.AddrPort, who schedule.Who, now time.Time) {
	if q := d.askers[key]; q != nil {
		if q.loan != nil && q.loan.from != nil {
			q.loan.from.faults = 0
		}
		d.forget(q, now)
	}
	if a.Port() == 0 {
		return
	}
	g := d.group(d.policy.GroupOf(who))
	for _, l := range slices.Clone(g.lenders) {
		if l.key == key && !l.announced && l.address != a {
			g.drop(l.address)
		}
	}
	d.lends(a, who, false, now)
	g.at[a].key = key
}

// forget takes back what one who asked was lent, or waits for.
func (d *desk) forget(q *asker, now time.Time) {
	delete(d.askers, q.key)
	d.group(q.group).unqueue(q)
	d.endLoan(q, now)
}

func (g *deskGroup) unqueue(q *asker) {
	if q.queued {
		q.queued = false
		g.queue = slices.DeleteFunc(g.queue, func(o *asker) bool { return o == q })
	}
}

func (d *desk) endLoan(q *asker, now time.Time) {
	l := q.loan
	if l == nil {
		return
	}
	q.loan = nil
	if l.from != nil {
		l.from.busy--
	}
	if l.outside {
		l.group.outside--
	}
	for _, g := range d.groups {
		d.dispatch(g, now)
	}
}

// ask returns whom to fetch from. With none, wait says that one has to wait: for what comes out of q.ready, or to ask again;
// without wait it is to come from the appliance over HTTPS.
func (d *desk) ask(q *asker, failed []netip.AddrPort, now time.Time) (list []netip.AddrPort, wait bool) {
	select {
	case list = <-q.ready:
		return list, false
	default:
	}
	d.sweep(now)
	if lent := q.loan; lent != nil {
		if lent.from != nil && slices.Contains(failed, lent.from.address) {
			d.fault(lent.from)
		}
		d.endLoan(q, now)
	}
	for _, a := range failed {
		if !slices.Contains(q.failed, a) && len(q.failed) < 64 {
			q.failed = append(q.failed, a)
		}
	}
	list, wait = d.serve(q, now)
	if g := d.group(q.group); wait && !q.queued {
		g.queue, q.queued = append(g.queue, q), true
	} else if !wait {
		g.unqueue(q)
	}
	return list, wait
}

// asker returns the one who asks under a key, which stands for one machine; nil when there are too many.
func (d *desk) asker(key string, who schedule.Who, length int64, now time.Time) *asker {
	q := d.askers[key]
	if q == nil {
		if len(d.askers) >= maxMachines {
			return nil
		}
		q = &asker{key: key, who: who, group: d.policy.GroupOf(who), since: now, ready: make(chan []netip.AddrPort, 1)}
		d.askers[key] = q
	}
	q.length = length
	return q
}

// fault notes that a machine did not give what it has.
func (d *desk) fault(l *lender) {
	if l.faults++; l.faults >= maxFaults {
		d.leaves(l.address)
	}
}

// serve is ask, for one who is lent nothing.
func (d *desk) serve(q *asker, now time.Time) (list []netip.AddrPort, wait bool) {
	g := d.group(q.group)
	if l := d.pick(g, q, true); l != nil {
		return d.lend(q, l, false, now), false
	}
	most, waited := outsideAtOnce, now.Sub(q.since)
	if len(q.failed) >= askedInVain {
		most = outsideFailed
	}
	early := len(g.lenders) < enoughLenders || waited >= waitsForInside || len(q.failed) >= askedInVain
	switch {
	case waited > longestWait+longestLoans*lease(q.length):
		return nil, false
	case g.outside >= most || !early:
		return nil, true
	}
	seeder, other := d.outside(q)
	switch {
	case seeder.IsValid():
		d.borrow(q, nil, true, now)
		return []netip.AddrPort{seeder}, false
	case other == nil && d.pick(g, q, false) != nil:
		return nil, true
	case other == nil: // it comes from the appliance over HTTPS, and is a copy from outside like another
		d.borrow(q, nil, true, now)
		return nil, false
	case other.busy >= loansAtOnce:
		return nil, true
	}
	return d.lend(q, other, true, now), false
}

// borrow makes a loan; from nil is an appliance's, by whichever way.
func (d *desk) borrow(q *asker, from *lender, outside bool, now time.Time) {
	g := d.group(q.group)
	if outside {
		g.outside++
	}
	if from != nil {
		from.busy++
	}
	q.loan = &loan{from: from, group: g, outside: outside, until: now.Add(lease(q.length))}
}

// outside returns where a group may fetch from but from its own: an appliance's seeder, or a machine of another group.
func (d *desk) outside(q *asker) (seeder netip.AddrPort, other *lender) {
	if d.policy.MayReachAppliance(q.who) {
		for _, a := range d.seeds() {
			if !slices.Contains(q.failed, a) {
				return a, nil
			}
		}
		return seeder, nil
	}
	for i, g := range d.groups {
		if i == q.group {
			continue
		}
		if l := d.pick(g, q, true); l != nil {
			return seeder, l
		}
		if l := d.pick(g, q, false); l != nil {
			other = l
		}
	}
	return seeder, other
}

// pick returns a machine of the group that may lend, at random, or nil; with free set one that lends to few now.
func (d *desk) pick(g *deskGroup, q *asker, free bool) *lender {
	n := len(g.lenders)
	if n == 0 {
		return nil
	}
	start := rand.IntN(n)
	for i := range n {
		l := g.lenders[(start+i)%n]
		if (!free || l.busy < loansAtOnce) && d.may(q, l) {
			return l
		}
	}
	return nil
}

func (d *desk) may(q *asker, l *lender) bool {
	return !slices.Contains(q.failed, l.address) && d.policy.MayFetch(q.who, l.who)
}

// lend makes a loan, and returns its lender with others of the group to turn to if that fails.
func (d *desk) lend(q *asker, l *lender, outside bool, now time.Time) []netip.AddrPort {
	d.borrow(q, l, outside, now)
	list, g := []netip.AddrPort{l.address}, d.group(q.group)
	for range alternatives {
		if len(g.lenders) == 0 {
			break
		}
		if o := g.lenders[rand.IntN(len(g.lenders))]; d.may(q, o) && !slices.Contains(list, o.address) {
			list = append(list, o.address)
		}
	}
	return list
}

// lease is after how long a copy of so many bytes counts as lost.
func lease(length int64) time.Duration {
	return loanLeast + time.Duration(min(length, longestLoan*loanRate))*time.Second/loanRate
}

// dispatch gives those who wait what is free, the oldest first.
func (d *desk) dispatch(g *deskGroup, now time.Time) {
	tries := 0
	for i := 0; i < len(g.queue) && tries < maxTries; {
		q := g.queue[i]
		list, wait := d.serve(q, now)
		if wait {
			if tries++; !g.hasRoom() {
				return
			}
			i++
			continue
		}
		g.queue = slices.Delete(g.queue, i, i+1)
		q.queued = false
		q.ready <- list // it was empty: q was in the queue
	}
}

// hasRoom reports whether somebody may be lent to.
func (g *deskGroup) hasRoom() bool {
	return slices.ContainsFunc(g.lenders, func(l *lender) bool { return l.busy < loansAtOnce })
}

// sweep ends loans that were lost, and forgets machines that do not take part after all.
func (d *desk) sweep(now time.Time) {
	if now.Sub(d.swept) < deskSweep {
		return
	}
	d.swept = now
	for _, g := range d.groups {
		g.lenders = slices.DeleteFunc(g.lenders, func(l *lender) bool {
			gone := !l.announced && l.until.Before(now)
			if gone {
				delete(g.at, l.address)
			}
			return gone
		})
	}
	for _, q := range d.askers {
		lost := q.loan != nil && q.loan.until.Before(now)
		if lost || q.loan == nil && !q.queued && now.Sub(q.since) > forgetAfter {
			d.forget(q, now)
		}
	}
}
