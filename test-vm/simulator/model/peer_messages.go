package model

import "slices"

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
			if p.awaits(l, msg) {
				return
			}
			p.m.tell(&l.out, message{reject, msg.piece, msg.bursts})
			return
		}
		l.out.uploads = append(l.out.uploads, upload{msg.piece, msg.bursts})
		l.out.start()
	case cancel:
		if a := p.assembly(msg.piece); a != nil {
			for i := range a.waiting {
				if a.waiting[i].link == l {
					a.waiting[i].bursts &^= msg.bursts
				}
			}
		}
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
