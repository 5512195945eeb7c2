package model

import "slices"

// waiting is a request for a piece that was foretold and is not here yet.
type waiting struct {
	link   *link
	bursts uint64
}

// foretell announces a piece that was handed out when it is asked for, as foretell.go of the engine does.
func (p *peer) foretell(l *link, a *assembly) {
	if !l.HandsOut || p.hand != nil || a.from != nil {
		return
	}
	a.from = l
	for _, o := range p.links {
		if !o.HandsOut {
			a.told = append(a.told, o)
			p.m.announcePiece(o, a.piece)
		}
	}
}

// awaits takes a request for such a piece.
func (p *peer) awaits(l *link, msg message) bool {
	a := p.assembly(msg.piece)
	if a == nil || a.from == nil || !slices.Contains(a.told, l) {
		return false
	}
	a.waiting = append(a.waiting, waiting{l, msg.bursts})
	return true
}

// belie refuses what waits for a piece that does not come as it was to.
func (p *peer) belie(a *assembly) {
	list := a.waiting
	a.from, a.told, a.waiting = nil, nil, nil
	for _, w := range list {
		if w.bursts != 0 && !w.link.gone {
			p.m.tell(&w.link.out, message{reject, a.piece, w.bursts})
		}
	}
}

// fulfil serves what waits for a piece that is held now, and returns whom it need not be announced to.
func (p *peer) fulfil(a *assembly) []*link {
	for _, w := range a.waiting {
		if w.bursts != 0 && !w.link.gone {
			w.link.out.uploads = append(w.link.out.uploads, upload{a.piece, w.bursts})
			w.link.out.start()
		}
	}
	told := a.told
	a.from, a.told, a.waiting = nil, nil, nil
	return told
}
