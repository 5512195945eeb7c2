package model

import (
	"fmt"
	"slices"
)

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
	p.foretell(l, a)
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
	p.belie(a)
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
	if a.from == l && a.got != a.need {
		p.belie(a)
	}
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
	told := p.fulfil(a)
	p.forget(a)
	if p.have.Has(int(piece)) {
		m.err = fmt.Errorf("peer %d fetched piece %d twice", p.index, piece)
		return
	}
	p.have.Add(int(piece))
	p.pull.Hold(int(piece))
	for _, l := range p.links {
		if !slices.Contains(told, l) {
			m.announcePiece(l, piece)
		}
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
	p.belie(a)
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
