package schedule

import (
	"math/rand/v2"
	"time"
)

// Puller decides which piece a machine asks of which link: what was handed out at once, else one whole piece on every
// link, begun pieces first, then the rarest. The caller says what happened, and asks Next for each link that may be free.
type Puller struct {
	picker
	pieces   int
	sources  []*Source
	fetching map[int]*fetching
	// Imports, where set, says which pieces this machine may fetch from sources upstream. Where machines take successive ones in
	// turn, one that starves takes more.
	Imports func(piece int) bool

	wasBusy  bool
	since    time.Time     // when it became so
	starving int           // how many pieces before each of ours are imported too
	usual    time.Duration // from asking for a piece to having it, a moving mean
}

// Source is a link as a Puller knows it. The exported fields are the caller's to set, except by the methods of Puller.
type Source struct {
	// HandsOut says that the other end shows pieces that are to be fetched at once; Upstream that it belongs to the
	// group before ours, of which only some pieces are fetched here. ServedOnly says that nothing is to be asked of it.
	HandsOut, Upstream, ServedOnly bool
	// Ready says that requests may be sent; Choking that the other end does not take them; Stalled that it was silent.
	Ready, Choking, Stalled bool
	// Has are the pieces that it announced.
	Has Set

	holds   int   // how many those are
	can     Set   // of the pieces we lack, those of which it can give something
	shown   []int // handed out, and not asked for yet
	asks    map[int]asked
	bytes   int64         // sum of asks
	usual   time.Duration // from asking it for a piece to having it, a moving mean
	refused map[int]bool
}

// asked is a piece that a link was asked for.
type asked struct {
	bytes int64
	at    time.Time
}

// fetching is a piece that was asked for.
type fetching struct {
	sources  int // that were asked and have not answered
	begun    time.Time
	progress time.Time // when it was last asked for or some of it came
	came     bool      // some of it
	done     bool      // all of it is here, and is being checked
}

// Limits of what is outstanding. With pieces of 256 KiB the pause between two requests costs, so two are asked for at
// once; of pieces of which only a little is lacking, eight.
const (
	smallPiece = 512 << 10 // bytes
	smallAsks  = 8
)

// endgameAfter is how long a piece makes no progress before another link is asked for the rest as well, late how many times
// as long as usual it may be on its way, in all at most longestLate: the last pieces are those that slow links have.
const (
	endgameAfter = time.Second
	late         = 2
	longestLate  = 4 * time.Second
)

// starvingAfter, and twice what a piece usually takes, is how long nothing can be fetched before a machine imports the piece
// before each of its own, and the one before that, and so on: who is to import them may be dead, and nobody has noticed
// yet. All of a group starve at the same time then, and each takes different pieces. To import any piece is quicker where
// uplinks are fat, and in a chain of 22 groups over thin ones it sent 3.5 images over each.
const starvingAfter = 2 * time.Second

// Tardy, and late times what a piece usually takes, is how long nothing may come of a piece that another link has too. Who hands out and
// is silent for as long does not send soon what was announced ahead.
const Tardy = time.Second

// behindShare is how many times as much as a neighbour one lacks who is far behind.
const behindShare = 2

// NewPuller returns a Puller that lacks every piece that is not in have. It keeps unseen: pieces that are lacking for now,
// and not fetched before See.
func NewPuller(have, unseen Set, pieces int, random *rand.Rand) *Puller {
	return &Puller{picker: *newPicker(have, unseen, pieces, random), pieces: pieces, fetching: map[int]*fetching{}}
}

// Join adds a link.
func (p *Puller) Join() *Source {
	s := &Source{Has: NewSet(p.pieces), can: NewSet(p.pieces), asks: map[int]asked{}, refused: map[int]bool{}}
	p.sources = append(p.sources, s)
	return s
}

// Leave removes a link. What is outstanding on it has to be given back by the caller: Answered, then GiveBack.
func (p *Puller) Leave(s *Source) {
	for i, o := range p.sources {
		if o == s {
			p.sources = append(p.sources[:i], p.sources[i+1:]...)
			p.gone(s.Has)
			return
		}
	}
}

// Announced takes the pieces that the other end has at its start.
func (p *Puller) Announced(s *Source, has Set) {
	s.Has, s.holds = has, has.Len()
	s.can.Union(has)
	p.announced(has)
}

// Have takes the announcement of one piece; held says that we have it.
func (p *Puller) Have(s *Source, piece int, held bool) {
	if !s.Has.Has(piece) {
		s.Has.Add(piece)
		s.holds++
		p.holders[piece]++
	}
	if held {
		return
	}
	s.can.Add(piece)
	if s.HandsOut {
		s.shown = append(s.shown, piece)
	}
}

// Shown returns how many pieces were handed out by the link and not asked for yet.
func (s *Source) Shown() int { return len(s.shown) }

// Asks returns how many pieces are outstanding on the link.
func (s *Source) Asks() int { return len(s.asks) }

// Partial says that the other end has some tiles of a piece.
func (s *Source) Partial(piece int) { s.can.Add(piece) }

// Useless says that the other end has nothing of the piece that we lack.
func (s *Source) Useless(piece int) { s.can.Remove(piece) }

// Refuse says that the other end does not give the piece; Retry lets it be asked again for all of those.
func (s *Source) Refuse(piece int) {
	s.can.Remove(piece)
	s.refused[piece] = true
}

// Refused reports whether the other end refused the piece lately.
func (s *Source) Refused(piece int) bool { return s.refused[piece] }

// Retry: see Refuse.
func (s *Source) Retry() {
	for piece := range s.refused {
		s.can.Add(piece)
	}
	clear(s.refused)
}

// Can reports whether the other end can give something of a piece that we lack, as far as is known.
func (s *Source) Can(piece int) bool { return s.can.Has(piece) }

// Next returns the piece to ask of the link now; ok is false when there is none, or enough is outstanding. The caller
// answers with Ask, or with Useless, and may call Next again.
func (p *Puller) Next(s *Source) (piece int, ok bool) {
	if !s.Ready || s.Choking || s.Stalled || s.ServedOnly || p.lacking == 0 {
		return 0, false
	}
	if piece, ok = p.nextShown(s); ok {
		return piece, true
	}
	if !s.idle() || len(s.asks) > 0 && p.behind() {
		return 0, false
	}
	return p.pick(s.can, p.crowd(), p.filter(s))
}

// behind reports whether a neighbour that goes on fetching lacks far less than we do: who comes late, or is slow, takes little
// of what the others give each other, until they are done.
func (p *Puller) behind() bool {
	for _, s := range p.sources {
		lacks := p.pieces - s.holds
		if !s.HandsOut && !s.Upstream && lacks > 0 && lacks < p.lacking/behindShare {
			return true
		}
	}
	return false
}

// crowd returns how many links announce what the other end holds and gives.
func (p *Puller) crowd() (n int32) {
	for _, s := range p.sources {
		if !s.HandsOut && !s.ServedOnly {
			n++
		}
	}
	return n
}

// filter returns what may be asked of the link; nil is everything.
func (p *Puller) filter(s *Source) func(int) bool {
	switch {
	case s.ServedOnly:
		return func(int) bool { return false }
	case s.Upstream:
		return p.imports
	}
	return nil
}

// imports reports whether a piece is to be fetched from upstream: it is in our share, or we starve, and nobody inside could
// give it.
func (p *Puller) imports(piece int) bool {
	if p.Imports != nil && !p.imported(piece) {
		return false
	}
	for _, o := range p.sources {
		if !o.Upstream && !o.ServedOnly && o.usable() && o.Has.Has(piece) && o.can.Has(piece) {
			return false
		}
	}
	return true
}

// usable reports whether requests may be sent and are answered.
func (s *Source) usable() bool { return s.Ready && !s.Choking && !s.Stalled }

// imported reports whether the piece is in our share, or where we starve one of those before: whose they are may be dead.
func (p *Puller) imported(piece int) bool {
	for beyond := 0; beyond <= p.starving; beyond++ {
		if p.Imports(piece + beyond) {
			return true
		}
	}
	return false
}

// Starve takes the time, several times a second. It reports whether the machine begins to starve, or does so even more: Next
// is to be asked again for every link. It is over when the machine was busy for as long without a pause.
func (p *Puller) Starve(now time.Time) bool {
	if p.lacking == 0 || p.Imports == nil {
		return false
	}
	after := max(starvingAfter, 2*p.usual)
	if busy := p.busy(); busy != p.wasBusy || p.since.IsZero() {
		p.wasBusy, p.since = busy, now
	}
	if now.Sub(p.since) < after {
		return false
	}
	p.since = now
	if p.wasBusy {
		p.starving = 0
		return false
	}
	p.starving = min(p.starving+1, p.pieces)
	return true
}

// busy reports whether something is being fetched or checked; a piece that was begun and given back is not.
func (p *Puller) busy() bool {
	for _, f := range p.fetching {
		if f.sources > 0 || f.done {
			return true
		}
	}
	return false
}

// nextShown returns the first piece that was handed out and nobody is fetching; those that were not looked at wait.
func (p *Puller) nextShown(s *Source) (piece int, ok bool) {
	wait := s.shown[:0]
	for i, piece := range s.shown {
		switch {
		case p.unseen.Has(piece):
			wait = append(wait, piece)
		case p.missing.Has(piece) && s.can.Has(piece):
			s.shown = append(wait, s.shown[i:]...)
			return piece, true
		}
	}
	s.shown = wait
	return 0, false
}

// awaited reports whether one link was asked for a piece and nothing came since.
func (p *Puller) awaited(piece int) bool {
	f := p.fetching[piece]
	return f != nil && !f.done && f.sources == 1 && !f.came
}

// Tardy returns the piece that the link alone was asked for longest ago, and too long, and of which nothing came, where another link
// could send it now: the caller takes it back. The other end may wait itself, for one that is gone. Upstream, where cables may be
// thin, what was asked for may be on its way for long; and who hands out knows by itself what does not come.
func (p *Puller) Tardy(s *Source, now time.Time) (piece int, ok bool) {
	if s.Upstream || s.HandsOut {
		return 0, false
	}
	for i, a := range s.asks {
		if now.Sub(a.at) <= max(Tardy, late*p.usual) || !p.awaited(i) || !p.free(s, i) {
			continue
		}
		if b := s.asks[piece]; !ok || a.at.Before(b.at) || a.at.Equal(b.at) && i < piece {
			piece, ok = i, true
		}
	}
	return piece, ok
}

// free reports whether a link other than s has the piece and may be asked for it now.
func (p *Puller) free(s *Source, piece int) bool {
	for _, o := range p.sources {
		if allowed := p.filter(o); o != s && o.usable() && (o.HandsOut || o.idle()) && o.can.Has(piece) && (allowed == nil || allowed(piece)) {
			return true
		}
	}
	return false
}

// idle reports whether the link may be asked for one more piece.
func (s *Source) idle() bool {
	n := len(s.asks)
	return n == 0 || n < 2 && s.bytes <= smallPiece || n < smallAsks && s.bytes <= smallPiece/2
}

// Ask says that so many bytes of a piece were asked of the link.
func (p *Puller) Ask(s *Source, piece int, bytes int64, now time.Time) {
	f := p.fetching[piece]
	if f == nil {
		f = &fetching{begun: now}
		p.fetching[piece] = f
	}
	if _, asked := s.asks[piece]; !asked {
		f.sources++
	}
	s.bytes += bytes - s.asks[piece].bytes
	s.asks[piece] = asked{bytes, now}
	f.progress = now
	p.begin(piece)
}

// Asked reports whether the piece is outstanding on the link.
func (s *Source) Asked(piece int) bool {
	_, asked := s.asks[piece]
	return asked
}

// Answered says that nothing more of a piece is outstanding on the link. It returns how many links are still asked.
func (p *Puller) Answered(s *Source, piece int) (others int) {
	f := p.fetching[piece]
	if a, asked := s.asks[piece]; asked {
		s.bytes -= a.bytes
		delete(s.asks, piece)
		if f.sources--; f.progress.After(a.at) {
			s.usual = mean(s.usual, f.progress.Sub(a.at))
		}
	}
	if f == nil {
		return 0
	}
	return f.sources
}

// Progress says that some of a piece came.
func (p *Puller) Progress(piece int, now time.Time) {
	if f := p.fetching[piece]; f != nil {
		f.progress, f.came = now, true
	}
}

// Complete says that all of a piece is here and is being checked: nobody is asked for it, also if it was given back and what
// was lacking came late.
func (p *Puller) Complete(piece int) {
	p.begin(piece)
	if f := p.fetching[piece]; f != nil {
		f.done = true
		p.usual = mean(p.usual, f.progress.Sub(f.begun))
	}
}

// GiveBack says that nobody is fetching the piece any more: it is missing again. begun says that some of it is here.
func (p *Puller) GiveBack(piece int, begun bool) {
	if f := p.fetching[piece]; f != nil {
		if begun {
			f.done = false
		} else {
			delete(p.fetching, piece)
		}
	}
	p.giveBack(piece, begun)
}

// Hold says that a piece is held now, whether it was fetched or found.
func (p *Puller) Hold(piece int) {
	delete(p.fetching, piece)
	p.hold()
}

// See says that a piece was looked at; held that all of it is there, and then Hold has to follow.
func (p *Puller) See(piece int, held bool) {
	p.see(piece)
	if held {
		p.missing.Remove(piece)
	}
}

// Unseen reports whether the piece was not looked at yet, Missing whether it is lacking and nobody is fetching it.
func (p *Puller) Unseen(piece int) bool  { return p.unseen.Has(piece) }
func (p *Puller) Missing(piece int) bool { return p.missing.Has(piece) }

// Lacking returns how many pieces are not held, being fetched or not.
func (p *Puller) Lacking() int { return p.lacking }

// AllBegun reports whether every lacking piece is being fetched: the endgame.
func (p *Puller) AllBegun() bool { return p.allBegun() }

// Oldest returns the piece that was begun longest ago and that nobody is asked for.
func (p *Puller) Oldest() (piece int, ok bool) {
	if len(p.orphans) == 0 {
		return 0, false
	}
	return p.orphans[0], true
}

// Endgame returns a piece to ask of an idle link as well, which another one is slow to send; of a link upstream, where cables may
// be thin, only one that makes no progress. stall is how long a piece may make none before more than two links are asked.
func (p *Puller) Endgame(s *Source, now time.Time, stall time.Duration) (piece int, ok bool) {
	if !s.Ready || s.Choking || s.Stalled || len(s.asks) > 0 || p.lacking == 0 || !p.allBegun() {
		return 0, false
	}
	var oldest time.Time
	for i, f := range p.fetching {
		stuck := now.Sub(f.progress) > endgameAfter
		slow := stuck || !s.Upstream && !p.slow(s) && (now.Sub(f.begun) > p.lateAfter() || p.askedOfSlow(i))
		few := f.sources == 1 || now.Sub(f.progress) > stall // links that live and never answer
		allowed := p.filter(s)
		if !slow || !few || f.done || f.sources == 0 || !s.can.Has(i) || allowed != nil && !allowed(i) {
			continue
		}
		if !ok || f.begun.Before(oldest) || f.begun.Equal(oldest) && i < piece {
			piece, oldest, ok = i, f.begun, true
		}
	}
	return piece, ok
}

// slow reports whether the link takes far longer for a piece than others.
func (p *Puller) slow(s *Source) bool { return p.usual > 0 && s.usual > late*p.usual }

// askedOfSlow reports whether only slow links are asked for a piece.
func (p *Puller) askedOfSlow(piece int) bool {
	for _, s := range p.sources {
		if s.Asked(piece) && !p.slow(s) {
			return false
		}
	}
	return true
}

// lateAfter returns how long a piece may be on its way.
func (p *Puller) lateAfter() time.Duration {
	if p.usual == 0 {
		return longestLate
	}
	return min(late*p.usual, longestLate)
}

// Others reports whether a link other than s could give the piece now.
func (p *Puller) Others(s *Source, piece int) bool {
	for _, o := range p.sources {
		if allowed := p.filter(o); o != s && o.usable() && o.can.Has(piece) && (allowed == nil || allowed(piece)) {
			return true
		}
	}
	return false
}
