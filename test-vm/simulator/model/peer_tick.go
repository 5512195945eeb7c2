package model

import (
	"slices"
	"time"

	"seedbed/images/schedule"
)

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
	if piece, ok := p.pull.Tardy(l.Source, p.m.time()); ok && p.hand == nil {
		a := p.assembly(int32(piece))
		for _, o := range a.asked {
			if o.link == l {
				p.m.tell(&l.out, message{cancel, a.piece, o.bursts})
			}
		}
		l.Refuse(piece)
		p.giveBack(l, a)
		p.feedAll()
	}
	silent := now - max(l.received, l.asked)
	if silent > int64(schedule.Tardy) {
		for _, a := range l.asks {
			if a.from == l {
				p.belie(a)
			}
		}
	}
	switch {
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
