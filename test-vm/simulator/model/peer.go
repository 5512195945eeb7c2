package model

import (
	"fmt"
	"slices"
	"time"

	"seedbed/images/schedule"
)

// peer is a machine, or a seeder that hands out. It does what the engine does in images/swarm with the same Puller and
// Handout, bursts taking the place of tiles.
type peer struct {
	m         *model
	down      pipe
	mail      []mail // in the queue of down
	firstMail int
	index     int32
	alive     bool
	stayed    bool // was there from the first moment, and did not crash
	group     int
	have      schedule.Set
	pull      *schedule.Puller
	hand      *schedule.Handout // of seeders
	links     []*link           // in the order in which they came
	up        uplink

	told       bool // by the tracker, of others
	lies       bool
	barred     map[*peer]bool  // who lied
	byPeer     map[*peer]*link // of seeders
	coming     []int32         // pieces of assemblies
	assemblies []*assembly
	reserved   int64
	workers    []int64 // when each is free

	started, finished int64 // finished is 0 before
	received, wasted  int64 // bytes
	bySeeder          int64 // bytes of received
	sentBefore        int64
	sentRate          float64
	retried           int64
	announced         int64
	rated, ratedAt    int64 // when rate was last asked for, and received then
}

// link is a connection as the peer at one end knows it.
type link struct {
	peer, other *peer
	*schedule.Source
	asked      int64 // when the last request went
	received   int64 // when the last byte came
	out        flow  // what this end sends
	gone       bool
	waitMemory bool
	asks       []*assembly // of which something is outstanding
	far        *link
}

// assembly is a piece on its way in.
type assembly struct {
	piece     int32
	need, got uint64 // bursts
	wrong     []lie
	asked     []outstanding
	checking  bool
	reserved  int64
}

// lie is a burst of got that is wrong.
type lie struct {
	from *link
	bit  uint64
}

// outstanding are the bursts that one link was asked for and has not sent.
type outstanding struct {
	link   *link
	bursts uint64
}

func (p *peer) name() string { return fmt.Sprintf("%08d", p.index) }

// number names the other end to a Handout.
func (l *link) number() int { return int(l.other.index) + 1 }

func (p *peer) linkTo(o *peer) *link {
	if p.hand != nil {
		return p.byPeer[o]
	}
	for _, l := range p.links {
		if l.other == o {
			return l
		}
	}
	return nil
}

func (p *peer) assembly(piece int32) *assembly {
	if i := slices.Index(p.coming, piece); i >= 0 {
		return p.assemblies[i]
	}
	return nil
}

func (p *peer) feedAll() {
	for i := 0; i < len(p.links); i++ {
		p.feed(p.links[i])
	}
}

// feed asks a link for pieces, as fetch.go of the engine does.
func (p *peer) feed(l *link) {
	l.waitMemory = false
	for !l.gone {
		piece, ok := p.pull.Next(l.Source)
		if !ok {
			p.endgame(l)
			return
		}
		if !p.ask(l, int32(piece)) {
			return
		}
	}
}

// endgame lets an idle link fetch what another one is slow to send.
func (p *peer) endgame(l *link) {
	if piece, ok := p.pull.Endgame(l.Source, p.m.time(), stallTime); ok {
		p.ask(l, int32(piece))
	}
}

// ask requests what is lacking of a piece; false says that there is no memory.
func (p *peer) ask(l *link, piece int32) bool {
	a := p.assembly(piece)
	if a == nil {
		n := int64(p.m.pieceLength(int(piece)))
		for p.reserved > 0 && p.reserved+n > p.m.Memory/2 {
			if !p.abandon() {
				l.waitMemory = true
				return false
			}
		}
		p.reserved += n
		a = p.m.newAssembly(piece)
		p.assemblies, p.coming = append(p.assemblies, a), append(p.coming, piece)
	}
	lacks := a.need &^ a.got
	if lacks == 0 || !l.Has.Has(int(piece)) {
		l.Useless(int(piece))
		if len(a.asked) == 0 {
			p.giveBack(l, a)
		}
		return true
	}
	a.asked = append(a.asked, outstanding{l, lacks})
	l.asks = append(l.asks, a)
	l.asked = p.m.now
	p.pull.Ask(l.Source, int(piece), a.reserved, p.m.time())
	p.m.tell(&l.out, message{request, piece, lacks})
	return true
}

// abandon forgets the oldest piece that was begun and that nobody is asked for.
func (p *peer) abandon() bool {
	piece, ok := p.pull.Oldest()
	if !ok {
		return false
	}
	a := p.assembly(int32(piece))
	p.wasted += p.m.lengthOf(a.piece, a.got)
	p.pull.GiveBack(piece, false)
	p.forget(a)
	return true
}

func (p *peer) forget(a *assembly) {
	p.assemblies, p.coming = remove(p.assemblies, a), remove(p.coming, a.piece)
	p.reserved -= a.reserved
	p.m.freeAssemblies = append(p.m.freeAssemblies, a)
}

// remove takes one element out, without keeping the order.
func remove[T comparable](list []T, what T) []T {
	if i := slices.Index(list, what); i >= 0 {
		last := len(list) - 1
		list[i] = list[last]
		return list[:last]
	}
	return list
}

// answered says that nothing more of a piece is outstanding on a link.
func (p *peer) answered(l *link, a *assembly) {
	a.asked = slices.DeleteFunc(a.asked, func(o outstanding) bool { return o.link == l })
	l.asks = remove(l.asks, a)
	p.pull.Answered(l.Source, int(a.piece))
}

func (p *peer) giveBack(l *link, a *assembly) {
	p.answered(l, a)
	if a.checking || len(a.asked) > 0 {
		return
	}
	p.pull.GiveBack(int(a.piece), a.got != 0)
	if a.got == 0 {
		p.forget(a)
	}
}

// receive takes in a burst.
func (p *peer) receive(l *link, b burst) {
	l.received, l.Stalled = p.m.now, false
	p.received += int64(b.length)
	if l.other.hand != nil {
		p.bySeeder += int64(b.length)
	}
	a, bit := p.assembly(b.piece), uint64(1)<<b.index
	if a == nil || a.checking || a.got&bit != 0 {
		p.wasted += int64(b.length)
		if a == nil {
			return
		}
	} else {
		if a.got |= bit; l.other.lies && p.m.random.Float64() < p.m.Lies {
			a.wrong = append(a.wrong, lie{l, bit})
		}
	}
	p.pull.Progress(int(b.piece), p.m.time())
	for i := range a.asked {
		if o := &a.asked[i]; o.link == l {
			if o.bursts &^= bit; o.bursts == 0 {
				p.answered(l, a)
			}
			break
		}
	}
	switch {
	case a.checking:
	case a.got == a.need:
		p.complete(a)
	case len(a.asked) == 0:
		p.pull.GiveBack(int(a.piece), true)
		p.feedAll()
	}
	p.feed(l)
}

// complete gives a piece to the worker that is free first.
func (p *peer) complete(a *assembly) {
	a.checking = true
	p.pull.Complete(int(a.piece))
	for len(a.asked) > 0 {
		o := a.asked[0]
		p.answered(o.link, a)
		p.m.tell(&o.link.out, message{cancel, a.piece, o.bursts})
		p.feed(o.link)
	}
	first := 0
	for i, free := range p.workers {
		if free < p.workers[first] {
			first = i
		}
	}
	took := int64(float64(a.reserved) / p.m.CheckRate * 1e9)
	p.workers[first] = max(p.workers[first], p.m.now) + took
	p.m.at(p.workers[first], checked, p.index, a.piece)
}

// onChecked tells everyone of a piece that is whole.
func (m *model) onChecked(p *peer, piece int32) {
	a := p.assembly(piece)
	if !p.alive || a == nil || !a.checking {
		return
	}
	if len(a.wrong) > 0 {
		p.blame(a)
		return
	}
	p.forget(a)
	if p.have.Has(int(piece)) {
		m.err = fmt.Errorf("peer %d fetched piece %d twice", p.index, piece)
		return
	}
	p.have.Add(int(piece))
	p.pull.Hold(int(piece))
	for _, l := range p.links {
		m.announcePiece(l, piece)
	}
	for i := 0; i < len(p.links); i++ {
		if p.links[i].waitMemory {
			p.feed(p.links[i])
		}
	}
	if p.pull.Lacking() == 0 {
		p.finished = m.now
		m.finished(p)
	}
}

// blame throws away what is wrong of a piece and bars who sent it.
func (p *peer) blame(a *assembly) {
	wrong := a.wrong
	a.wrong, a.checking = nil, false
	for _, w := range wrong {
		a.got &^= w.bit
		p.wasted += p.m.lengthOf(a.piece, w.bit)
		p.barred[w.from.other] = true
		p.drop(w.from)
	}
	p.pull.GiveBack(int(a.piece), a.got != 0)
	if a.got == 0 {
		p.forget(a)
	}
	p.feedAll()
}

// announcePiece tells the other end of a piece. If it holds that as well nothing but its books can change, and they do so at
// once: half of all messages are such.
func (m *model) announcePiece(l *link, piece int32) {
	o := l.other
	if !o.alive || o.hand != nil || l.far.gone || !o.have.Has(int(piece)) {
		m.tell(&l.out, message{have, piece, 0})
		return
	}
	l.far.received, l.far.Stalled = m.now, false
	o.pull.Have(l.far.Source, int(piece), true)
}

// hear takes a message.
func (p *peer) hear(l *link, msg message) {
	if l.gone {
		return
	}
	l.received, l.Stalled = p.m.now, false
	piece := int(msg.piece)
	switch msg.what {
	case have:
		held := p.have.Has(piece)
		p.pull.Have(l.Source, piece, held)
		if p.hand != nil {
			p.hand.Have(l.number(), piece, p.m.time())
			p.show()
		}
		if !held {
			p.feed(l)
		}
	case request:
		if !p.have.Has(piece) {
			p.m.tell(&l.out, message{reject, msg.piece, msg.bursts})
			return
		}
		l.out.uploads = append(l.out.uploads, upload{msg.piece, msg.bursts})
		l.out.start()
	case cancel:
		for i := range l.out.uploads {
			if u := &l.out.uploads[i]; u.piece == msg.piece {
				u.bursts &^= msg.bursts
			}
		}
		l.out.uploads = slices.DeleteFunc(l.out.uploads, func(u upload) bool { return u.bursts == 0 })
		l.out.shorten()
	case shown:
		p.hand.Promised(l.number(), piece, int(msg.bursts), p.m.time())
	case takenBack:
		p.hand.TookBack(l.number(), piece)
		p.show()
	case reject:
		if a := p.assembly(msg.piece); a != nil && slices.Contains(l.asks, a) {
			l.Refuse(piece)
			p.giveBack(l, a)
			p.feedAll()
		}
	}
}

// drop ends a connection at this end.
func (p *peer) drop(l *link) {
	if l.gone {
		return
	}
	l.gone = true
	l.out.closed = true
	p.links = slices.DeleteFunc(p.links, func(o *link) bool { return o == l })
	delete(p.byPeer, l.other)
	p.pull.Leave(l.Source)
	if p.hand != nil {
		p.hand.Leave(l.number())
		p.hand.Part(l.number())
	}
	for len(l.asks) > 0 {
		p.giveBack(l, l.asks[0])
	}
	p.feedAll()
	p.show()
	if l.other.alive {
		l.other.drop(l.far)
	}
}

// show hands out pieces as far as the rules allow.
func (p *peer) show() {
	if p.hand == nil {
		return
	}
	for _, piece := range p.hand.TakenBack() {
		p.tellFellows(message{takenBack, int32(piece), 0})
	}
	for {
		id, piece, ok := p.hand.Next(p.m.time())
		if !ok {
			return
		}
		p.tellFellows(message{shown, int32(piece), uint64(id)})
		p.m.tell(&p.linkTo(p.m.peers[id-1]).out, message{have, int32(piece), 0})
	}
}

// tellFellows tells the others who hand out.
func (p *peer) tellFellows(msg message) {
	for _, o := range p.m.peers[:p.m.Seeders] {
		if o != p && o.alive {
			if l := p.linkTo(o); l != nil {
				p.m.tell(&l.out, msg)
			}
		}
	}
}

// Waits of the engine: see timing in images/swarm/config.go.
const (
	tickTime     = 250 * time.Millisecond
	rareTick     = time.Second // of machines in rooms of more than manyPeers, for speed
	manyPeers    = 1000
	stallTime    = 5 * time.Second
	silenceTime  = 20 * time.Second
	retryTime    = 10 * time.Second
	isolatedTime = 8 * time.Second
)

func (p *peer) tick() time.Duration {
	if p.hand == nil && p.m.Peers > manyPeers {
		return rareTick
	}
	return tickTime
}

// onTick does what time alone makes due, as tick.go of the engine does.
func (m *model) onTick(p *peer) {
	if !p.alive {
		return
	}
	m.at(m.now+int64(p.tick()), ticked, p.index, 0)
	for i := 0; i < len(p.links); i++ {
		p.watch(p.links[i])
	}
	if p.pull.Starve(m.time()) {
		p.feedAll()
	}
	if p.pull.Lacking() > 0 && p.pull.AllBegun() {
		for i := 0; i < len(p.links); i++ {
			p.endgame(p.links[i])
		}
	}
	if p.hand != nil {
		p.pace()
		p.hand.Expire(m.time())
		p.show()
	}
	if m.now-p.retried >= int64(retryTime) {
		p.retried = m.now
		for i := 0; i < len(p.links); i++ {
			p.links[i].Retry()
			p.feed(p.links[i])
		}
		if p.hand != nil {
			p.hand.Retry()
			p.show()
		}
	}
	if m.now-p.announced >= int64(announceTime) {
		p.announced = m.now
		m.announce(p)
	}
}

// watch deals with silence on a link.
func (p *peer) watch(l *link) {
	now := p.m.now
	if !l.other.alive && now-l.received > int64(silenceTime) {
		p.drop(l) // a machine that lives sends keep-alives
		return
	}
	if keepAlive := int64(silenceTime / 5); l.other.alive && len(l.far.out.air) == 0 && now-l.received > keepAlive {
		l.received = now
	}
	switch silent := now - max(l.received, l.asked); {
	case l.Stalled && silent < int64(stallTime):
		l.Stalled = false
		p.feed(l)
	case len(l.asks) > 0 && silent > int64(stallTime):
		l.Stalled = true
		for _, a := range slices.Clone(l.asks) {
			if p.pull.Others(l.Source, int(a.piece)) {
				for _, o := range a.asked {
					if o.link == l {
						p.m.tell(&l.out, message{cancel, a.piece, o.bursts})
					}
				}
				p.giveBack(l, a)
			}
		}
		p.feedAll()
	}
}

// pace adapts the hand-out's window to the rate of sending.
func (p *peer) pace() {
	sent := p.up.carried
	rate := float64(sent-p.sentBefore) / tickTime.Seconds()
	p.sentRate += (rate - p.sentRate) / 4
	p.sentBefore = sent
	mean := p.m.Length / int64(p.m.pieces)
	if announced := p.hand.Announced(); announced >= schedule.MinWindow {
		mean = min(mean, sent/int64(announced))
	}
	p.hand.Pace(p.sentRate, mean)
}
