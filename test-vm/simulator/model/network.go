package model

import (
	"math/bits"

	"seedbed/images/schedule"
)

// pipe is one direction of a cable: first in, first out.
type pipe struct {
	rate    float64 // payload bytes a second
	busy    int64   // until when, in nanoseconds, with what is in it now
	carried int64   // bytes
}

// through returns when so many bytes that come at the given time are through.
func (p *pipe) through(at, length int64) int64 {
	p.busy = max(p.busy, at) + p.time(length)
	p.carried += length
	return p.busy
}

func (p *pipe) time(length int64) int64 { return int64(float64(length) / p.rate * 1e9) }

// uplink is what a computer sends on: its flows take turns, one burst each.
type uplink struct {
	pipe
	sending bool
	turns   []*flow // that have something to send and room in flight; a queue
	first   int
}

func (u *uplink) add(f *flow) {
	if u.first > 64 && 2*u.first > len(u.turns) {
		u.turns = u.turns[:copy(u.turns, u.turns[u.first:])]
		u.first = 0
	}
	u.turns = append(u.turns, f)
}

func (u *uplink) next() *flow {
	for u.first < len(u.turns) {
		f := u.turns[u.first]
		u.turns[u.first] = nil
		u.first++
		f.waits = false
		if f.eligible() {
			return f
		}
	}
	u.turns, u.first = u.turns[:0], 0
	return nil
}

// exchange is a switch as seen from the machines on it: the cable to the switch in the middle, up and down. All within
// one switch is at full speed.
type exchange struct{ up, down pipe }

// flow is one direction of a connection: bursts of pieces, and messages between them.
type flow struct {
	// Bytes since the beginning: sent and delivered.
	sent, delivered int64
	letters         []letter // messages behind bytes
	uploads         []upload
	closed          bool
	waits           bool // in the turns of the uplink
	number          int32
	receiver        *peer
	from            *peer
	to              *link   // as the receiver knows the connection
	air             []burst // on their way, the oldest first
}

// upload is a request that the sender serves.
type upload struct {
	piece  int32
	bursts uint64
}

// burst is a part of a piece on its way.
type burst struct {
	piece  int32
	index  uint8
	length int32
}

// letter is a message that waits until so many bytes of its flow are delivered, or until a time.
type letter struct {
	after int64
	message
}

// message is what one machine tells another.
type message struct {
	what   what
	piece  int32
	bursts uint64
}

type what uint8

const (
	have what = iota
	request
	cancel
	reject
	shown     // among those who hand out: piece, and the number of a guest in place of bursts
	takenBack // the same, piece only
)

func (f *flow) eligible() bool {
	return !f.closed && len(f.uploads) > 0 && len(f.air) < f.from.m.InFlight && f.from.alive
}

// start puts the flow into its uplink's turns if it may send.
func (f *flow) start() {
	if f.waits || !f.eligible() {
		return
	}
	f.waits = true
	f.from.up.add(f)
	if !f.from.up.sending {
		f.from.transmit()
	}
}

// transmit sends the next burst.
func (p *peer) transmit() {
	f := p.up.next()
	if f == nil {
		p.up.sending = false
		return
	}
	p.up.sending = true
	u := &f.uploads[0]
	b := burst{piece: u.piece, index: uint8(bits.TrailingZeros64(u.bursts))}
	b.length = int32(p.m.burstLength(int(b.piece), int(b.index)))
	u.bursts &= u.bursts - 1
	if u.bursts == 0 {
		f.uploads = f.uploads[:copy(f.uploads, f.uploads[1:])]
	}
	f.air = append(f.air, b)
	f.sent += int64(b.length)
	p.m.at(p.up.through(p.m.now, int64(b.length)), sent, p.index, f.number)
}

// onSent forwards the burst that the uplink is done with, and sends the next.
func (m *model) onSent(p *peer, f *flow) {
	if !p.alive {
		p.up.sending = false
		return
	}
	f.start()
	p.transmit()
	if f.closed {
		return
	}
	length := int64(f.air[len(f.air)-1].length)
	if p.group == f.receiver.group {
		m.at(f.receiver.down.through(m.now+m.delay, length), arrived, f.number, 0)
		return
	}
	m.at(m.exchanges[p.group].up.through(m.now, length), crossed, f.number, int32(length))
}

// onCrossed takes a burst that is through the sender's switch: length is negative behind the second one.
func (m *model) onCrossed(f *flow, length int32) {
	if f.closed {
		return
	}
	if length > 0 {
		m.at(m.exchanges[f.receiver.group].down.through(m.now, int64(length)), crossed, f.number, -length)
		return
	}
	m.at(f.receiver.down.through(m.now+m.delay, int64(-length)), arrived, f.number, 0)
}

// onArrived queues the oldest burst of a flow for a processor of the host.
func (m *model) onArrived(f *flow) {
	if m.host.rate == 0 || len(f.air) == 0 {
		m.onHandled(f)
		return
	}
	m.at(m.host.through(m.now, int64(f.air[0].length)), handled, f.number, 0)
}

// onHandled gives the oldest burst of a flow to its receiver, and the messages behind it.
func (m *model) onHandled(f *flow) {
	p := f.receiver
	if !p.alive {
		return // what is sent to a machine without power is never acknowledged
	}
	if f.closed {
		p.drain()
		return
	}
	b := f.air[0]
	f.air = f.air[:copy(f.air, f.air[1:])]
	f.delivered += int64(b.length)
	m.delivered += int64(b.length)
	f.start()
	p.receive(f.to, b)
	for len(f.letters) > 0 && f.letters[0].after <= f.delivered && !f.closed {
		l := f.letters[0]
		f.letters = f.letters[:copy(f.letters, f.letters[1:])]
		p.hear(f.to, l.message)
	}
	p.drain()
}

// drain deals with messages that waited in the downlink's queue behind what is through now.
func (p *peer) drain() {
	for p.firstMail < len(p.mail) && p.mail[p.firstMail].after <= p.m.now {
		l := &p.mail[p.firstMail]
		p.firstMail++
		if !l.flow.closed {
			p.hear(l.flow.to, l.message)
		}
	}
	if p.firstMail > 256 && 2*p.firstMail > len(p.mail) {
		p.mail = p.mail[:copy(p.mail, p.mail[p.firstMail:])]
		p.firstMail = 0
	}
}

// mail is a message in the queue of a downlink.
type mail struct {
	flow *flow
	letter
}

// tell sends a message. It waits behind the bytes of its flow that are in the socket already, and in the queue of the
// receiver's downlink; what lies between two socket writes of the sender is not modelled.
func (m *model) tell(f *flow, msg message) {
	if f.closed || !f.from.alive {
		return
	}
	if len(f.letters) > 0 || f.sent > f.delivered || len(f.uploads) > 0 {
		after := f.socket()
		if n := len(f.letters); n > 0 {
			after = max(after, f.letters[n-1].after)
		}
		if after > f.delivered {
			f.letters = append(f.letters, letter{after, msg})
			return
		}
	}
	to := f.receiver
	if to.down.busy > m.now {
		to.mail = append(to.mail, mail{f, letter{to.down.busy, msg}})
		return
	}
	m.at(m.now+m.delay, told, m.post(f, msg), 0)
}

// shorten lets messages go that wait behind bytes which are not sent any more.
func (f *flow) shorten() {
	m, end := f.from.m, f.sent
	for _, u := range f.uploads {
		end += m.lengthOf(u.piece, u.bursts)
	}
	for i := range f.letters {
		f.letters[i].after = min(f.letters[i].after, end)
	}
	for len(f.letters) > 0 && f.letters[0].after <= f.delivered {
		m.at(m.now+m.delay, told, m.post(f, f.letters[0].message), 0)
		f.letters = f.letters[:copy(f.letters, f.letters[1:])]
	}
}

// socket returns the byte of the flow behind which a message goes: the sender has filled the socket's buffer, and writes
// on to the end of what it read from the storage at once.
func (f *flow) socket() int64 {
	filled := max(f.delivered+f.from.m.SendBuffer, f.sent)
	end := f.sent
	for _, u := range f.uploads {
		if end >= filled {
			return end
		}
		for left := u.bursts; left != 0 && end < filled; {
			for read := int64(0); read < readLength && left != 0; left &= left - 1 {
				n := int64(f.from.m.burstLength(int(u.piece), bits.TrailingZeros64(left)))
				read, end = read+n, end+n
			}
		}
	}
	return end
}

// readLength is how much the engine reads from its storage, and writes to a socket, before it looks for messages again.
const readLength = 1 << 20

// letters in flight, by number.
type posted struct {
	flow *flow
	message
}

func (m *model) post(f *flow, msg message) int32 {
	if n := len(m.freePosts); n > 0 {
		i := m.freePosts[n-1]
		m.freePosts = m.freePosts[:n-1]
		m.posts[i] = posted{f, msg}
		return i
	}
	m.posts = append(m.posts, posted{f, msg})
	return int32(len(m.posts) - 1)
}

func (m *model) onTold(i int32) {
	p := m.posts[i]
	m.posts[i].flow = nil
	m.freePosts = append(m.freePosts, i)
	if !p.flow.closed && p.flow.to.peer.alive {
		p.flow.to.peer.hear(p.flow.to, p.message)
	}
}

// connect makes a connection between two machines.
func (m *model) connect(a, b *peer) {
	if a == b || !a.alive || !b.alive || a.linkTo(b) != nil || a.barred[b] || b.barred[a] {
		return
	}
	la, lb := &link{peer: a, other: b}, &link{peer: b, other: a}
	la.far, lb.far = lb, la
	for _, l := range []*link{la, lb} {
		l.out = flow{number: int32(len(m.flows)), to: l.far, from: l.peer, receiver: l.other}
		m.flows = append(m.flows, &l.out)
	}
	la.open()
	lb.open()
	a.feed(la)
	b.feed(lb)
}

// open takes up a connection at one end.
func (l *link) open() {
	p, o := l.peer, l.other
	l.Source = p.pull.Join()
	l.Ready, l.HandsOut = true, o.hand != nil
	l.received, l.asked = p.m.now, p.m.now
	p.links = append(p.links, l)
	has := schedule.NewSet(p.m.pieces)
	if o.hand == nil {
		copy(has, o.have)
	}
	p.pull.Announced(l.Source, has)
	if p.hand == nil {
		return
	}
	p.byPeer[o] = l
	if o.hand != nil {
		p.hand.Meet(l.number(), o.name(), o.have)
		return
	}
	p.hand.Join(l.number(), o.have, p.m.time())
	p.show()
}
