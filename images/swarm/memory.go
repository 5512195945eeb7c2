package swarm

import (
	"sync"

	"seedbed/images"
	"seedbed/images/peerwire"
	"seedbed/images/tile"
)

// memory bounds the encoded tiles that a peer holds: pieces on their way in, by reservation, and recent pieces to pass
// on without reading and encoding them again. Safe for concurrent use.
type memory struct {
	limit int64 // bytes, for each of the two halves

	mu       sync.Mutex // guards everything below
	reserved int64
	cached   int64
	peak     int64
	pieces   map[int][]peerwire.IndexedTile
	order    []int // pieces in the order in which they came
}

// MemoryBudget returns the Config.MemoryBytes that suits a machine with so many bytes of memory free: an eighth, since the
// heap may take twice of it and what waits to be written to the disk needs the most; 32 MiB at least, 1 GiB at most.
func MemoryBudget(available int64) int64 { return min(max(available/8, 32<<20), 1<<30) }

func newMemory(bytes int64) *memory {
	return &memory{limit: bytes / 2, pieces: map[int][]peerwire.IndexedTile{}}
}

// reserve takes n bytes for a piece on its way in, or reports that there is no room. One piece has always room.
func (m *memory) reserve(n int64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.reserved > 0 && m.reserved+n > m.limit {
		return false
	}
	m.reserved += n
	m.peak = max(m.peak, m.reserved+m.cached)
	return true
}

// release gives reserved bytes back.
func (m *memory) release(n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reserved -= n
}

// keep puts a piece's tiles into the cache, in ascending order of their index, and drops the oldest pieces until the
// rest fits. The tiles are not changed afterwards.
func (m *memory) keep(piece int, tiles []peerwire.IndexedTile) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.pieces[piece] != nil || len(tiles) == 0 {
		return
	}
	m.pieces[piece] = tiles
	m.order = append(m.order, piece)
	m.cached += lengthOf(tiles)
	for m.cached > m.limit && len(m.order) > 0 {
		m.cached -= lengthOf(m.pieces[m.order[0]])
		delete(m.pieces, m.order[0])
		m.order = m.order[1:]
	}
	m.peak = max(m.peak, m.reserved+m.cached)
}

func lengthOf(tiles []peerwire.IndexedTile) (n int64) {
	for i := range tiles {
		n += int64(cap(tiles[i].Bytes))
	}
	return n
}

// holds reports whether tiles of the piece are in the cache.
func (m *memory) holds(piece int) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.pieces[piece] != nil
}

// find returns those of the tiles that the cache holds, by index.
func (m *memory) find(piece int, tiles images.TileSet) map[int]tile.Encoded {
	m.mu.Lock()
	defer m.mu.Unlock()
	cached := m.pieces[piece]
	if cached == nil {
		return nil
	}
	found := map[int]tile.Encoded{}
	for _, t := range cached {
		if tiles.Has(t.Index) {
			found[t.Index] = t.Encoded
		}
	}
	return found
}

// use returns the bytes held now and the most so far.
func (m *memory) use() (now, peak int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.reserved + m.cached, m.peak
}
