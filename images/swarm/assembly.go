package swarm

import (
	"seedbed/images"
	"seedbed/images/peerwire"
	"seedbed/images/tile"
)

// assembly is a piece on its way in: the encoded tiles that arrived, from whom, and who was asked for the rest. Owned by
// the swarm's goroutine; while checking is set, by a worker.
type assembly struct {
	piece     int
	need, got images.TileSet
	again     images.TileSet // those of need that are held, and fetched to judge the others
	tiles     []tile.Encoded // by index
	from      []*link        // by index; who sent the tile
	// hashes are the tile hashes that a peer sent, not checked yet; nil where the storage knows them.
	hashes     []images.Digest
	hashesFrom *link
	asked      map[*link]images.TileSet // outstanding
	reserved   int64                    // bytes of memory
	memory     []*[]byte                // of messages, where tiles lie
	checking   bool
	early      bool // its hashes are asked for, and no tiles yet
	foretold   *foretold
}

func newAssembly(piece int, need images.TileSet, reserved int64) *assembly {
	n := 0
	for i := range need.All() {
		n = i + 1
	}
	return &assembly{
		piece: piece, need: need, tiles: make([]tile.Encoded, n), from: make([]*link, n),
		asked: map[*link]images.TileSet{}, reserved: reserved,
	}
}

// lacks returns the tiles that have not arrived.
func (a *assembly) lacks() images.TileSet { return a.need.Minus(a.got) }

// put takes a tile in; false says that it is not needed.
func (a *assembly) put(from *link, t peerwire.IndexedTile) bool {
	if a.checking || a.early || !a.lacks().Has(t.Index) {
		return false
	}
	a.got.Add(t.Index)
	a.tiles[t.Index], a.from[t.Index] = t.Encoded, from
	return true
}

// allFrom reports whether every tile that arrived came from the link.
func (a *assembly) allFrom(l *link) bool {
	for i := range a.got.All() {
		if a.from[i] != l {
			return false
		}
	}
	return true
}

// drop throws tiles away that arrived.
func (a *assembly) drop(tiles images.TileSet) {
	for i := range tiles.Intersect(a.got).All() {
		a.got.Remove(i)
		a.tiles[i], a.from[i] = tile.Encoded{}, nil
	}
	if a.got.IsEmpty() {
		a.memory = nil
	}
}

// indexed returns the tiles that arrived, in ascending order.
func (a *assembly) indexed() []peerwire.IndexedTile {
	list := make([]peerwire.IndexedTile, 0, a.got.Len())
	for i := range a.got.All() {
		list = append(list, peerwire.IndexedTile{Index: i, Encoded: a.tiles[i]})
	}
	return list
}

// recycle gives back the memory in which its tiles lie. It is not to be used afterwards.
func (a *assembly) recycle() {
	for _, m := range a.memory {
		if spoil != nil {
			spoil(*m)
		}
		messages.Put(m)
	}
	a.tiles, a.memory = nil, nil
}

// spoil, if not nil, overwrites memory that is given back: tests would notice who still uses it.
var spoil func([]byte)
