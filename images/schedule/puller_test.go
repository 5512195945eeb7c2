package schedule

import (
	"math/rand/v2"
	"testing"
	"time"
)

// newPullers returns a Puller that lacks everything, and two links to ends that have everything.
func newPullers(pieces int) (p *Puller, a, b *Source) {
	p = NewPuller(NewSet(pieces), NewSet(pieces), pieces, rand.New(rand.NewPCG(1, 2)))
	a, b = p.Join(), p.Join()
	for _, s := range []*Source{a, b} {
		s.Ready = true
		p.Announced(s, allOf(pieces))
	}
	return p, a, b
}

func TestPullerAsksForWhatIsHandedOutAtOnce(t *testing.T) {
	p, a, hand := newPullers(10)
	hand.HandsOut = true
	first, _ := p.Next(a)
	p.Ask(a, first, 4<<20, noon)
	p.Ask(hand, (first+1)%10, 4<<20, noon) // busy
	for _, shown := range []int{first, (first + 2) % 10} {
		p.Have(hand, shown, false)
	}
	if got, ok := p.Next(hand); !ok || got != (first+2)%10 {
		t.Errorf("asked for %d, %v; want what was handed out and nobody fetches", got, ok)
	}
	p.Ask(hand, (first+2)%10, 4<<20, noon)
	if got, ok := p.Next(hand); ok {
		t.Errorf("a busy link is asked for %d", got)
	}
}

func TestPullerAsksForAsMuchAsALinkNeeds(t *testing.T) {
	for bytes, want := range map[int64]int{4 << 20: 1, 512 << 10: 1, 256 << 10: 2, 0: smallAsks, 16 << 10: smallAsks} {
		p, a, _ := newPullers(100)
		n := 0
		for piece, ok := p.Next(a); ok; piece, ok = p.Next(a) {
			p.Ask(a, piece, bytes, noon)
			n++
		}
		if bytes == 512<<10 {
			want = 2 // the second is asked for while half a MiB is outstanding
		}
		if n != want {
			t.Errorf("%d pieces of %d bytes outstanding on a link, want %d", n, bytes, want)
		}
	}
}

func TestPullerImportsOnlyItsShare(t *testing.T) {
	p, up, inside := newPullers(9)
	up.Upstream, p.Imports = true, func(piece int) bool { return piece%3 == 1 }
	if piece, ok := p.Next(up); ok {
		t.Errorf("piece %d from upstream, which a machine inside has", piece)
	}
	inside.Stalled = true
	for range 3 {
		piece, ok := p.Next(up)
		if !ok || piece%3 != 1 {
			t.Fatalf("piece %d, %v from upstream", piece, ok)
		}
		p.Ask(up, piece, 1, noon)
		p.Answered(up, piece)
		p.Hold(piece)
	}
	if piece, ok := p.Next(up); ok {
		t.Errorf("piece %d from upstream", piece)
	}
	if inside.Stalled, inside.ServedOnly = false, true; p.Others(up, 0) {
		t.Error("a machine that is served only could give a piece")
	}
	if piece, ok := p.Next(inside); ok {
		t.Errorf("piece %d from a machine that is served only", piece)
	}
}

func TestPullerImportsMoreWhereItStarves(t *testing.T) {
	p, up, inside := newPullers(9)
	p.Leave(inside)
	up.Upstream, p.Imports = true, func(piece int) bool { return piece%9 == 4 }
	at := noon
	later := func(d time.Duration) bool {
		at = at.Add(d)
		return p.Starve(at)
	}
	importable := func() (n int) {
		for piece := range 9 {
			if p.imports(piece) {
				n++
			}
		}
		return n
	}
	p.Ask(up, 4, 1, at)
	if later(0) || later(starvingAfter) || importable() != 1 {
		t.Errorf("%d pieces importable while something is fetched", importable())
	}
	p.Answered(up, 4)
	p.Hold(4)
	if later(1) || later(starvingAfter-1) || importable() != 1 {
		t.Errorf("%d pieces importable at once", importable())
	}
	if !later(1) || !p.imports(3) || importable() != 2 {
		t.Errorf("%d pieces importable by a machine that starves", importable())
	}
	if !later(starvingAfter) || !p.imports(2) || importable() != 3 {
		t.Errorf("%d pieces importable by a machine that starves for long", importable())
	}
	p.Ask(up, 3, 1, at)
	if later(1) || importable() != 3 {
		t.Error("one piece ends starving")
	}
	if later(starvingAfter); importable() != 1 {
		t.Errorf("%d pieces importable though something was fetched all the time", importable())
	}
}

func TestPullerEndgame(t *testing.T) {
	p, a, b := newPullers(1)
	p.Ask(a, 0, 1, noon)
	if _, ok := p.Next(b); ok {
		t.Error("a piece that is being fetched was picked")
	}
	if _, ok := p.Endgame(b, noon.Add(endgameAfter), time.Minute); ok {
		t.Error("endgame for a piece that makes progress")
	}
	late := noon.Add(endgameAfter + 1)
	if piece, ok := p.Endgame(b, late, time.Minute); !ok || piece != 0 {
		t.Error("no endgame for a piece that makes no progress")
	}
	if _, ok := p.Endgame(a, late, time.Minute); ok {
		t.Error("endgame on the link that is asked already")
	}
	p.Progress(0, late)
	if _, ok := p.Endgame(b, late, time.Minute); ok {
		t.Error("endgame for a piece that made progress")
	}
	p.Complete(0)
	if _, ok := p.Endgame(b, late.Add(time.Hour), time.Minute); ok {
		t.Error("endgame for a piece that is here")
	}
}

func TestPullerGivesBack(t *testing.T) {
	p, a, b := newPullers(2)
	first, _ := p.Next(a)
	p.Ask(a, first, 1, noon)
	if n := p.Answered(a, first); n != 0 {
		t.Errorf("%d links are asked", n)
	}
	p.GiveBack(first, true)
	if got, ok := p.Next(b); !ok || got != first {
		t.Errorf("picked %d before the piece that was begun", got)
	}
	if oldest, ok := p.Oldest(); !ok || oldest != first {
		t.Error("the piece that was begun is not known")
	}
	b.Refuse(first)
	if got, _ := p.Next(b); got == first || b.Can(first) || !b.Refused(first) || !p.Others(b, first) {
		t.Error("a piece that was refused is asked for again")
	}
	b.Retry()
	if got, _ := p.Next(b); got != first {
		t.Error("what was refused is never asked for again")
	}
	p.Leave(a)
	if p.Others(b, first) {
		t.Error("a link that is gone could give a piece")
	}
}

// A piece that one who died gave in part is not being fetched.
func TestPullerStarvesWithAPieceInPart(t *testing.T) {
	p, up, inside := newPullers(9)
	up.Upstream, p.Imports = true, func(piece int) bool { return piece == 2 }
	p.Ask(inside, 1, 1<<20, noon)
	p.Leave(inside)
	p.Answered(inside, 1)
	p.GiveBack(1, true)
	p.Starve(noon)
	if !p.Starve(noon.Add(starvingAfter)) {
		t.Error("not starving though nothing is fetched")
	}
	if piece, ok := p.Next(up); !ok || piece != 1 {
		t.Errorf("%d, %v imported, want the rest of the piece", piece, ok)
	}
}

// What was asked of a link that gave it back may come late and complete the piece.
func TestPullerForgetsAPieceThatIsCompletedLate(t *testing.T) {
	p, a, b := newPullers(1)
	p.Ask(a, 0, 1, noon)
	p.Answered(a, 0)
	p.GiveBack(0, true)
	p.Complete(0)
	if piece, ok := p.Next(b); ok || !p.AllBegun() {
		t.Errorf("piece %d is asked for while it is checked", piece)
	}
	p.Hold(0)
	if _, ok := p.Oldest(); ok || p.Missing(0) || p.Lacking() != 0 {
		t.Error("a piece that is held is missing")
	}
}

// A piece that makes progress, on a slow link, is fetched elsewhere as well once it took twice as long as pieces usually do.
func TestPullerDoesNotWaitForASlowLinkAtTheEnd(t *testing.T) {
	p, a, b := newPullers(2)
	p.Ask(a, 0, 1, noon)
	p.Progress(0, noon.Add(100*time.Millisecond))
	p.Answered(a, 0)
	p.Complete(0)
	p.Hold(0)
	p.Ask(a, 1, 1, noon)
	p.Progress(1, noon.Add(200*time.Millisecond))
	if _, ok := p.Endgame(b, noon.Add(200*time.Millisecond), time.Minute); ok {
		t.Error("endgame for a piece that takes as long as others")
	}
	if piece, ok := p.Endgame(b, noon.Add(200*time.Millisecond+1), time.Minute); !ok || piece != 1 {
		t.Error("no endgame for a piece that takes longer than usual")
	}
}

func TestPullerOfWhoIsFarBehindTakesLittle(t *testing.T) {
	p, a, b := newPullers(100)
	second := func() bool {
		first, ok := p.Next(a)
		if !ok {
			t.Fatal("an idle link is asked for nothing")
		}
		p.Ask(a, first, 1, noon)
		defer func() { p.Answered(a, first); p.GiveBack(first, false) }()
		_, ok = p.Next(a)
		return ok
	}
	if !second() {
		t.Error("one piece at a time beside those who hold everything")
	}
	for name, c := range map[string]struct {
		lacks int
		want  bool
	}{"half": {50, true}, "less": {49, false}} {
		p.Leave(b)
		b = p.Join()
		p.Announced(b, NewSet(100))
		for i := range 100 - c.lacks {
			p.Have(b, i, false)
		}
		if got := second(); got != c.want {
			t.Errorf("beside one that lacks %s: a second piece %v, want %v", name, got, c.want)
		}
	}
	b.HandsOut = true
	if !second() {
		t.Error("one piece at a time beside one that hands out")
	}
}

// A link that takes far longer than others is not waited for at the end, nor asked for what another is about to send.
func TestPullerKnowsSlowLinksAtTheEnd(t *testing.T) {
	p, a, b := newPullers(12)
	fetch := func(s *Source, piece int, took time.Duration) {
		p.Ask(s, piece, 1, noon)
		p.Progress(piece, noon.Add(took))
		p.Answered(s, piece)
		p.Complete(piece)
		p.Hold(piece)
	}
	for piece := range 9 {
		fetch(a, piece, 100*time.Millisecond)
	}
	fetch(b, 9, time.Second)
	p.Ask(a, 10, 1, noon)
	p.Ask(a, 11, 1, noon)
	if piece, ok := p.Endgame(b, noon.Add(endgameAfter), time.Minute); ok {
		t.Errorf("a slow link is asked for piece %d, which makes progress", piece)
	}
	if _, ok := p.Endgame(b, noon.Add(endgameAfter+1), time.Minute); !ok {
		t.Error("a slow link is not asked for a piece that makes no progress")
	}
	p.Answered(a, 10)
	p.Answered(a, 11)
	p.Ask(b, 10, 1, noon)
	p.Ask(b, 11, 1, noon)
	if piece, ok := p.Endgame(a, noon.Add(time.Millisecond), time.Minute); !ok || piece != 10 {
		t.Error("a slow link is waited for")
	}
}

func TestPullerTakesBackWhatComesFromNobody(t *testing.T) {
	p, a, b := newPullers(10)
	p.Ask(a, 3, 256<<10, noon)
	p.Ask(a, 4, 256<<10, noon)
	p.Progress(4, noon.Add(time.Millisecond))
	b.Useless(5)
	p.Ask(a, 5, 256<<10, noon.Add(-time.Second))
	late1 := noon.Add(Tardy + 1)
	if got, ok := p.Tardy(a, noon.Add(Tardy)); ok {
		t.Errorf("too early: %v", got)
	}
	if got, ok := p.Tardy(a, late1); !ok || got != 3 {
		t.Errorf("%v %v; of 4 something came, and 5 nobody else has", got, ok)
	}
	for name, change := range map[string]func() func(){
		"over a thin cable":       func() func() { a.Upstream = true; return func() { a.Upstream = false } },
		"from who hands out":      func() func() { a.HandsOut = true; return func() { a.HandsOut = false } },
		"where pieces take long":  func() func() { p.usual = time.Minute; return func() { p.usual = 0 } },
		"where the other is busy": func() func() { p.Ask(b, 7, 1<<20, noon); return func() { p.Answered(b, 7) } },
		"where two were asked":    func() func() { p.Ask(b, 3, 256<<10, noon); return func() { p.Answered(b, 3) } },
	} {
		back := change()
		if got, ok := p.Tardy(a, late1); ok {
			t.Errorf("%d %s", got, name)
		}
		back()
	}
	if got, ok := p.Tardy(a, late1); !ok || got != 3 {
		t.Errorf("%v %v in the end", got, ok)
	}
}
