package swarm

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"

	"seedbed/images"
	"seedbed/images/announce"
	"seedbed/images/peerwire"
	"seedbed/images/schedule"
)

// state is all that a swarm knows while it runs. Owned by the goroutine of Run; nothing here waits for anything.
type state struct {
	*Swarm
	ctx   context.Context
	group *sync.WaitGroup
	now   time.Time // of the event being handled
	err   error     // ends the swarm

	started    time.Time
	have       schedule.Set // pieces held whole; those without data from the start
	data       schedule.Set // pieces with data
	pull       *schedule.Puller
	looking    Looking                          // the storage, if it still finds out what it holds; else nil
	hand       *schedule.Handout                // nil unless we hand out
	belied     map[int]bool                     // pieces that were foretold and did not come
	fellows    []*link                          // others who hand out
	awaited    map[netip.AddrPort]bool          // Seeds that were not reached yet, nor tried in vain; while nothing is handed out
	books      []*book                          // by endpoint
	opening    int                              // connections without a link yet
	named      map[netip.AddrPort]announce.Role // all neighbours; nil where a peer may have any
	grouped    bool                             // see Neighbours
	maxNamed   int                              // links at most while named is set; 0 is no limit
	upward     *pacer                           // of what comes from upstream; nil is no limit
	all        map[int]*link
	byPeer     map[acquaintance]*link
	banned     map[[32]byte]bool // certificates of liars
	strikes    map[[32]byte]int  // breaks of the protocol, by certificate
	assemblies map[int]*assembly
	ready      []*assembly // waiting for a worker
	syncing    bool
	sentBefore int64     // bytes sent at the last tick
	sentRate   float64   // bytes a second, moving mean
	lastTick   time.Time // when sentBefore was taken
	lastSlow   time.Time // when the slow part of tick ran
}

// retryAfter is when pieces that a peer refused are asked for again.
const retryAfter = 10 * time.Second

// newState looks up what the storage holds.
func newState(s *Swarm, ctx context.Context, group *sync.WaitGroup) *state {
	n := s.cfg.Pieces.Count()
	st := &state{
		Swarm: s, ctx: ctx, group: group, started: time.Now(), have: schedule.NewSet(n), data: schedule.NewSet(n),
		all: map[int]*link{}, byPeer: map[acquaintance]*link{}, banned: map[[32]byte]bool{}, strikes: map[[32]byte]int{},
		assemblies: map[int]*assembly{}, belied: map[int]bool{},
	}
	for _, identity := range s.cfg.Barred {
		st.banned[identity] = true
		st.guests.bar(identity)
	}
	st.looking, _ = s.cfg.Storage.(Looking)
	unseen := schedule.NewSet(n)
	for i := range n {
		data := s.cfg.Pieces.Data(i)
		s.count.total.Add(s.lengthOf(i, data))
		if st.looking != nil && !data.IsEmpty() && st.looking.Unseen(i) {
			st.data.Add(i)
			unseen.Add(i)
			continue
		}
		held := s.cfg.Storage.Held(i).Intersect(data)
		s.count.held.Add(s.lengthOf(i, held))
		if !data.IsEmpty() {
			st.data.Add(i)
		}
		if held == data {
			st.have.Add(i)
		}
	}
	s.count.resumed.Store(s.count.held.Load())
	s.count.pieces.Store(int64(n))
	st.pull = schedule.NewPuller(st.have, unseen, n, rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())))
	if s.cfg.HandOut {
		st.handOut()
	}
	for range s.net.ends {
		b := newBook(s.cfg.timing)
		for _, a := range s.cfg.Seeds {
			b.add(a, true)
		}
		for _, e := range s.net.ends {
			for _, a := range e.at {
				b.add(a, false)
				b.self(a)
			}
		}
		st.books = append(st.books, b)
	}
	st.publish()
	return st
}

// lengthOf returns the decoded length of tiles of a piece in bytes.
func (s *Swarm) lengthOf(piece int, tiles images.TileSet) (n int64) {
	for i := range tiles.All() {
		n += int64(s.cfg.Pieces.TileLength(piece, i))
	}
	return n
}

// handle deals with one event.
func (st *state) handle(event any) {
	switch e := event.(type) {
	case dialFailed:
		st.opening--
		if e.address.IsValid() {
			st.cfg.Log.Debug("peer not reached", "peer", e.address, "err", e.err)
		}
		st.books[e.end.index].freed(e.address, st.now)
		st.met(e.address)
	case linkUp:
		st.opening--
		st.join(e.l)
	case linkDown:
		if errors.As(e.err, new(misconduct)) {
			st.offend(e.l, e.err)
		}
		st.leave(e.l, "closed", e.err)
	case received:
		if st.all[e.l.id] == nil {
			return // cut; this was on its way
		}
		e.l.Stalled = false
		if err := st.receive(e); err != nil {
			st.offend(e.l, err)
		}
	case unreadable:
		if st.hand != nil {
			st.hand.Unreadable(e.l.id, e.piece)
		}
	case given:
		st.gave(e)
	case verdict:
		st.judge(e)
	case synced:
		st.finish(e.err)
	}
}

// take begins a link on a connection that came.
func (st *state) take(a arrived) {
	if len(st.all)+st.opening >= st.cfg.MaxLinks {
		a.conn.NetConn().Close()
		a.leave()
		return
	}
	st.opening++
	st.group.Go(func() {
		defer a.leave()
		st.runLink(st.ctx, a.end, a.conn, netip.AddrPort{})
	})
}

// connect dials addresses that are due.
func (st *state) connect() {
	each := st.cfg.MaxLinks / len(st.net.ends)
	for _, e := range st.net.ends {
		n := min(st.cfg.MaxLinks-len(st.all)-st.opening, each-int(e.links.Load()))
		for _, a := range st.books[e.index].due(st.now, n) {
			st.opening++
			st.group.Go(func() { st.dial(st.ctx, e, a) })
		}
	}
}

// acquaintance is a peer as one of our endpoints knows it.
type acquaintance struct {
	end  *endpoint
	peer [20]byte
}

func (l *link) acquaintance() acquaintance { return acquaintance{l.end, l.peer} }

// bookOf returns the addresses of the link's endpoint.
func (st *state) bookOf(l *link) *book { return st.books[l.end.index] }

// join takes up a link whose handshakes are done, and says what we hold.
func (st *state) join(l *link) {
	l.address = l.dialled
	other := st.byPeer[l.acquaintance()]
	switch {
	case st.net.own(l.peer):
		st.bookOf(l).self(l.dialled)
		st.met(l.dialled)
		l.close()
		return
	case other != nil && !st.preferred(l, other):
		if !other.address.IsValid() || other.unnamed {
			other.address = l.dialled
			st.relate(other)
			st.feed(other)
		}
		if l.dialled != other.address {
			st.bookOf(l).freed(l.dialled, st.now)
		}
		st.met(l.dialled)
		l.close()
		return
	case st.banned[l.identity]:
		st.bookOf(l).freed(l.dialled, st.now)
		l.close()
		return
	case st.stranger(l):
		l.close()
		return
	case other != nil:
		st.leave(other, "was replaced", nil)
	}
	if !st.makeRoom() {
		st.bookOf(l).freed(l.dialled, st.now)
		l.close()
		return
	}
	n := st.cfg.Pieces.Count()
	l.Source, l.partial, l.asks = st.pull.Join(), map[int]images.TileSet{}, map[int]*assembly{}
	l.Choking = true
	st.all[l.id], st.byPeer[l.acquaintance()] = l, l
	if l.address.IsValid() {
		st.bookOf(l).linked(l.address)
	}
	st.relate(l)
	switch {
	case st.cfg.Open != nil:
		l.out.send(st.openBits())
	case st.hand != nil && !l.part:
		l.out.send(peerwire.HaveNone)
	case st.hand != nil: // what it may be told its handshake says, see greetPart
	default:
		l.out.send(peerwire.Bitfield{Bits: st.claims().Bitfield(n)})
	}
	own := peerwire.ExtendedHandshake{Tile: tileKind, Version: "Seedbed", Part: st.cfg.Part && st.hand == nil}
	if l.end.mux != nil {
		own.Port = l.end.mux.Addr().Port()
	}
	st.cfg.Open.introduce(l, &own)
	if l.extended {
		l.out.send(own.Message())
	}
	l.out.send(peerwire.Unchoke)
	if st.pull.Lacking() > 0 {
		l.out.send(peerwire.Interested)
	}
	st.cfg.Log.Debug("link open", "peer", l.remote, "dialled", l.dialled.IsValid(), "appliance", l.appliance)
	if !l.extended {
		st.becomeStock(l)
	}
	st.publish()
}

// claims returns the pieces that are announced: of a part of the content, those with data that is wanted.
func (st *state) claims() schedule.Set {
	if !st.cfg.Part {
		return st.have
	}
	held := schedule.NewSet(st.cfg.Pieces.Count())
	for i := range st.data.All() {
		if st.have.Has(i) {
			held.Add(i)
		}
	}
	return held
}

// preferred reports whether a new link to a peer takes the place of one that there is: of two that were dialled from
// both ends, both ends keep the one that the lower peer ID dialled; of two from one end, the newer.
func (st *state) preferred(l, other *link) bool {
	mine, theirs := l.dialled.IsValid(), other.dialled.IsValid()
	if mine == theirs {
		return true
	}
	return mine == (string(l.end.peerID[:]) < string(l.peer[:]))
}

// leave drops a link and gives back what it was asked for. Nothing happens if it was dropped before.
func (st *state) leave(l *link, why string, err error) {
	if st.all[l.id] == nil {
		return
	}
	l.close()
	delete(st.all, l.id)
	delete(st.byPeer, l.acquaintance())
	st.pull.Leave(l.Source)
	st.part(l)
	st.bookOf(l).freed(l.address, st.now)
	if l.stock != nil && st.pull.Lacking() == 0 && !l.Has.Lacks(st.have) {
		st.bookOf(l).self(l.address) // stock seeds hang up on seeds
	}
	for _, a := range l.asks {
		st.giveBack(l, a)
	}
	st.cfg.Log.Debug("link gone", "peer", l.remote, "why", why, "err", err)
	st.feedAll()
	st.show()
	st.publish()
}

// send queues a message to a peer, and drops the link of one that does not read.
func (st *state) send(l *link, m peerwire.Message) {
	if !l.out.send(m) {
		st.leave(l, "does not read", nil)
	}
}

// Bounds of the messages that wait for others to go with. Who hands out is to know soon how much each machine holds.
const (
	maxLate         = 16
	maxLateHandsOut = 4
)

// sendLate is send for what can wait until the next tick.
func (st *state) sendLate(l *link, m peerwire.Message) {
	n := maxLate
	if l.HandsOut {
		n = maxLateHandsOut
	}
	if !l.out.sendLate(m, n) {
		st.leave(l, "does not read", nil)
	}
}

// sendTile is send for sb_tile messages.
func (st *state) sendTile(l *link, m peerwire.TileMessage) {
	if l.stock != nil {
		if r, ok := m.(peerwire.Request); ok {
			st.requestStock(l, r)
		}
		return
	}
	if !l.sendTile(m) {
		st.leave(l, "does not read", nil)
	}
}

// show hands out pieces as far as the hand-out's rules allow.
func (st *state) show() {
	if st.hand == nil {
		return
	}
	st.takeBack()
	for {
		id, piece, ok := st.hand.Next(st.now)
		if !ok {
			return
		}
		guest := st.all[id]
		st.promise(guest, piece)
		st.send(guest, peerwire.Have(piece))
	}
}
