package repository

import (
	"context"
	"slices"
	"sync"
)

// advice tells the operating system what of an image will be read soon, where it keeps what it read: the rest of a piece of
// which the first tiles are wanted, and the groups behind two pieces that were read one after the other, by whomever. Nothing
// is told twice in a row. Safe for concurrent use.
type advice struct {
	ahead *readAhead

	mu     sync.Mutex
	pieces lately // that were read; guarded by mu
	groups lately // that were told; guarded by mu
}

const (
	// groupsTold is how many groups behind the one that is read the system is told of: 8 MiB, some 70 ms of a 1 Gbit/s link.
	groupsTold = 2
	// piecesLately and groupsLately are how many pieces that were read, and groups that were told, are remembered.
	piecesLately, groupsLately = 256, 64
	// emptyBetween is how many pieces without data may lie between two that follow one another.
	emptyBetween = 16
)

func newAdvice(ahead *readAhead) *advice {
	return &advice{ahead: ahead, pieces: lately{length: piecesLately}, groups: lately{length: groupsLately}}
}

// want says that tiles of a piece are wanted now.
func (a *advice) want(piece int) {
	alone, groups := a.news(piece)
	if !alone && len(groups) == 0 {
		return
	}
	r := a.ahead.x.r
	finished, err := r.begin()
	if err != nil {
		return
	}
	go func() { // ends with the advice, which Close waits for
		defer finished()
		if alone {
			a.tell(r.ctx, piece, piece+1)
		}
		for _, g := range groups {
			first := int(a.ahead.first[g])
			a.tell(r.ctx, max(first, piece), first+a.ahead.pieces) // what lies before was read, or told when it was
		}
	}()
}

// news returns what the system does not know yet: the piece itself, and groups.
func (a *advice) news(piece int) (alone bool, groups []int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.pieces.has(piece) {
		return false, nil
	}
	a.pieces.add(piece)
	g := a.ahead.group(piece)
	if before := a.before(piece); before >= 0 && a.pieces.has(before) {
		for i := g; i <= g+groupsTold && i < len(a.ahead.first); i++ {
			if !a.groups.has(i) {
				a.groups.add(i)
				groups = append(groups, i)
			}
		}
	}
	return !a.groups.has(g), groups
}

// before returns the piece with data before another; -1 if there is none near.
func (a *advice) before(piece int) int {
	for p := piece - 1; p >= max(0, piece-1-emptyBetween); p-- {
		if !a.ahead.x.shape.Data(p).IsEmpty() {
			return p
		}
	}
	return -1
}

// tell tells the system of the pieces [first, end) of a partition, as far as it goes.
func (a *advice) tell(ctx context.Context, first, end int) {
	x := a.ahead.x
	partition := x.shape.Span(first).Partition
	place := x.parts[partition].placement
	wanted, _, err := x.locate(ctx, place, a.ahead.ranksOf(partition, first, end))
	if err != nil {
		return // who reads it is told
	}
	for _, p := range partsOf(wanted) {
		x.r.advise.Advise(packKey(place.packs[p.pack]), p.start, p.end-p.start)
	}
}

// lately remembers the last numbers that it was given.
type lately struct {
	length int
	list   []int // a ring
	oldest int
}

func (l *lately) has(n int) bool { return slices.Contains(l.list, n) }

func (l *lately) add(n int) {
	if len(l.list) < l.length {
		l.list = append(l.list, n)
		return
	}
	l.list[l.oldest] = n
	l.oldest = (l.oldest + 1) % l.length
}
