package repository

import (
	"context"
	"slices"
	"sort"
	"sync"
)

// Read-ahead goes by groups: one piece, or several short ones of a partition, of up to groupLength. Whoever reads groups
// one after the other finds the next ones under way, the more of them the longer he had to wait: what is under way is then
// what bandwidth times latency of the storage makes. Whoever reads here and there fetches what he reads and no more. Where
// the operating system keeps what it read, it is told what will be read, and nothing is kept here: see advice.

const (
	// groupLength is the decoded length of a group of short pieces, in bytes: half as many encoded make a request that
	// is worth its latency.
	groupLength = 4 << 20
	// maxAhead is how many encoded bytes are under way for one sequential reader, if the cache has room: 500 MB/s at 30 ms.
	maxAhead = 16 << 20
	// maxStreams is how many sequential readers are told apart.
	maxStreams = 16
)

// groupKey names a group of an opened image.
type groupKey struct {
	reader *Reader
	group  int // in readAhead.first
}

// readAhead finds out who reads sequentially. Safe for concurrent use.
type readAhead struct {
	x *Reader
	// first is the first piece of each group that holds data, ascending; length is the encoded length of one, roughly.
	first  []int32
	pieces int // pieces of a group
	length int64

	advice *advice // in place of all below, where the system keeps what it read

	mu      sync.Mutex
	streams []*stream // the most recently used first; guarded by mu
}

// stream is one sequential reader.
type stream struct {
	last  int // group
	depth int // groups fetched ahead of last; 0 until two in a row were read
}

func newReadAhead(x *Reader) *readAhead {
	a := &readAhead{x: x, pieces: int(max(1, groupLength/x.shape.PieceLength()))}
	for i := range x.parts {
		first, end := x.shape.Pieces(i)
		for p := first; p < end; p += a.pieces {
			if n := x.ranks(i, p, min(p+a.pieces, end)); n > 0 {
				a.first = append(a.first, int32(p))
			}
		}
	}
	decoded := min(x.shape.DataLength(), int64(a.pieces)*x.shape.PieceLength())
	if n := x.shape.DataLength(); n > 0 {
		a.length = int64(float64(decoded) * min(1, float64(x.EncodedLength())/float64(n)))
	}
	a.length = max(a.length, 64<<10)
	a.advice = newAdvice(a)
	return a
}

// ranks returns the number of data tiles in the pieces [first, end) of a partition.
func (x *Reader) ranks(partition, first, end int) int64 {
	_, last := x.shape.Pieces(partition)
	if end < last {
		return x.before[end] - x.before[first]
	}
	return x.parts[partition].p.DataTiles - x.before[first]
}

// group returns the group that holds a piece with data.
func (a *readAhead) group(piece int) int {
	return sort.Search(len(a.first), func(i int) bool { return int(a.first[i]) > piece }) - 1
}

// firstRank returns how many data tiles of the partition lie before a group.
func (a *readAhead) firstRank(group int) int64 { return a.x.before[a.first[group]] }

// want says that a piece is wanted now. It returns the group that holds it if that is here or under way, or now begun
// since the reader is a sequential one; nil if the piece should be fetched alone.
func (a *readAhead) want(piece int) *slot[groupKey, *records] {
	if a.x.r.advise != nil {
		a.advice.want(piece)
		return nil
	}
	g := a.group(piece)
	s := a.x.r.cache.peek(groupKey{a.x, g})
	first, depth := a.advance(g, s != nil && !s.isDone())
	for i := first; i < min(g+1+depth, len(a.first)); i++ {
		if started := a.start(i); i == g {
			s = started
		}
	}
	return s
}

// advance finds the reader who is at group g, and returns from which group on should be fetched and how many behind g.
// waits says that g is wanted and still under way.
func (a *readAhead) advance(g int, waits bool) (first, depth int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	i := slices.IndexFunc(a.streams, func(s *stream) bool { return s.last <= g && g <= s.last+s.depth+1 })
	if i < 0 {
		if len(a.streams) == maxStreams {
			a.streams = a.streams[:maxStreams-1]
		}
		a.streams = slices.Insert(a.streams, 0, &stream{last: g})
		return g + 1, 0
	}
	s := a.streams[i]
	copy(a.streams[1:i+1], a.streams[:i])
	a.streams[0] = s
	switch {
	case s.depth == 0 && g == s.last && a.pieces == 1:
		return g + 1, 0 // the same piece again
	case s.depth == 0:
		s.depth = 2
	case waits && g > s.last:
		s.depth *= 2
	}
	s.depth = min(s.depth, a.maxDepth())
	s.last = g
	return g, s.depth
}

// groupRanks returns the partition of a group and the ranks of its data tiles.
func (a *readAhead) groupRanks(group int) (partition int, ranks []int64) {
	first := int(a.first[group])
	partition = a.x.shape.Span(first).Partition
	return partition, a.ranksOf(partition, first, first+a.pieces)
}

// ranksOf returns the ranks of the data tiles in the pieces [first, end) of a partition, as far as it goes.
func (a *readAhead) ranksOf(partition, first, end int) []int64 {
	_, last := a.x.shape.Pieces(partition)
	ranks := make([]int64, a.x.ranks(partition, first, min(end, last)))
	for i := range ranks {
		ranks[i] = a.x.before[first] + int64(i)
	}
	return ranks
}

// maxDepth shares the cache between the sequential readers. The caller holds mu.
func (a *readAhead) maxDepth() int {
	sequential := int64(0)
	for _, s := range a.streams {
		if s.depth > 0 {
			sequential++
		}
	}
	return int(max(1, min(maxAhead, a.x.r.cache.limit/2/max(sequential, 1))/a.length))
}

// start begins to fetch a group; nil if the repository is closed.
func (a *readAhead) start(group int) *slot[groupKey, *records] {
	s, err := a.x.r.cache.start(groupKey{a.x, group}, a.length, func(ctx context.Context) (*records, int64, error) {
		partition, ranks := a.groupRanks(group)
		found, _, err := a.x.records(ctx, partition, ranks, a.x.fetchDirect)
		if err != nil {
			return nil, 0, err
		}
		return found, found.length + int64(24*len(found.list)), nil
	})
	if err != nil {
		return nil
	}
	return s
}
