package swarm

import (
	"maps"
	"slices"

	"seedbed/images/peerwire"
)

// A machine announces a piece that was handed out to it when it asks for it: it is the only one to have it soon. Requests that
// come before the piece is whole and right wait for that, so that it goes on at once when it is: the way of an announcement and
// a request through cables that are full is what a room loses else with each piece at its start. Who waits for whom is no
// circle: an appliance waits for no machine.

// foretold is what is known of such a piece.
type foretold struct {
	from    *link              // who handed it out, and sends it
	told    map[*link]bool     // whom it was announced to
	waiting map[*link]*waiting // who asked for it since
	order   []*waiting         // in the order in which they came
}

type waiting struct {
	l *link
	upload
}

// open reports whether something of the request is wanted still; it may be the hashes alone.
func (w *waiting) open() bool { return w.hashes || !w.tiles.IsEmpty() }

// foretell announces a piece that the link was asked for, if the other end may hand out. Of what did not come once nothing is
// foretold again: neighbours count what they are told.
func (st *state) foretell(l *link, a *assembly) {
	if !l.HandsOut || !l.appliance && !l.seed || st.hand != nil || st.cfg.Part || a.early || a.foretold != nil || l.asks[a.piece] != a || st.belied[a.piece] {
		return
	}
	a.foretold = &foretold{from: l, told: map[*link]bool{}, waiting: map[*link]*waiting{}}
	for _, o := range st.all {
		if o != l && o.Ready && o.stock == nil && !o.HandsOut && !o.part && !o.content(st.have, a.piece) {
			a.foretold.told[o] = true
		}
	}
	for _, o := range slices.Collect(maps.Keys(a.foretold.told)) {
		st.send(o, peerwire.Have(a.piece))
	}
}

// awaits takes a request for a piece that was foretold to the link; false says that it was not, or is not on its way any more.
func (st *state) awaits(l *link, m peerwire.Request) bool {
	a := st.assemblies[m.Piece]
	if a == nil || a.foretold == nil || !a.foretold.told[l] {
		return false
	}
	w := a.foretold.waiting[l]
	if w == nil {
		w = &waiting{l: l, upload: upload{piece: m.Piece}}
		a.foretold.waiting[l] = w
		a.foretold.order = append(a.foretold.order, w)
	}
	w.hashes = w.hashes || m.Hashes
	w.tiles = w.tiles.Union(m.Tiles)
	return true
}

// cancelled takes back what a link waits for.
func (st *state) cancelled(l *link, m peerwire.Cancel) {
	if a := st.assemblies[m.Piece]; a != nil && a.foretold != nil {
		if w := a.foretold.waiting[l]; w != nil {
			if w.tiles = w.tiles.Minus(m.Tiles); w.tiles.IsEmpty() {
				w.hashes = false
				delete(a.foretold.told, l) // who asks elsewhere is told again when it is here
			}
		}
	}
}

// belie refuses what waits for a piece that does not come as it was to.
func (st *state) belie(a *assembly) {
	f := a.foretold
	if f == nil {
		return
	}
	a.foretold, st.belied[a.piece] = nil, true
	for _, w := range f.order {
		if st.linked(w.l) && w.open() {
			st.sendTile(w.l, peerwire.Reject{Piece: a.piece, Tiles: w.tiles})
		}
	}
}

// fulfil serves what waits for a piece that is held now, and returns whom it need not be announced to.
func (st *state) fulfil(f *foretold) map[*link]bool {
	if f == nil {
		return nil
	}
	for _, w := range f.order {
		if st.linked(w.l) && w.open() && !w.l.out.serve(w.upload) {
			st.leave(w.l, "asks for more than it reads", nil)
		}
	}
	return f.told
}
