package restore

import (
	"iter"

	"seedbed/images"
)

// runTiles is the longest run that is read or written at once, in tiles: 1 MiB.
const runTiles = 16

// run is some tiles of a piece that follow one another.
type run struct {
	piece, first, count int
}

// used returns the tiles of a piece that are in use.
func (i *Image) used(piece int) images.TileSet {
	return i.layout.Data(piece).Union(i.layout.Zero(piece))
}

// UsedTiles returns the length of all tiles that are in use, in bytes: what a comparison reads.
func (i *Image) UsedTiles() int64 {
	n := i.layout.DataLength()
	for p := range i.manifest.Partitions {
		m := i.layout.Map(p)
		for _, z := range m.Zero {
			n += min((z.First+z.Count)*images.TileLength, m.Length) - z.First*images.TileLength
		}
	}
	return n
}

// pieces yields all pieces in the order of the disk.
func (i *Image) pieces() iter.Seq[int] {
	return func(yield func(int) bool) {
		for _, p := range i.order {
			first, end := i.layout.Pieces(p)
			for piece := first; piece < end; piece++ {
				if !yield(piece) {
					return
				}
			}
		}
	}
}

// runs yields the tiles that choose selects of each piece as runs, in the order of the disk.
func (i *Image) runs(choose func(piece int) images.TileSet) iter.Seq[run] {
	return func(yield func(run) bool) {
		for piece := range i.pieces() {
			for r := range runsOf(piece, choose(piece)) {
				if !yield(r) {
					return
				}
			}
		}
	}
}

// runsOf cuts a set of tiles into runs.
func runsOf(piece int, tiles images.TileSet) iter.Seq[run] {
	return func(yield func(run) bool) {
		r := run{piece: piece}
		for t := range tiles.All() {
			if r.count > 0 && (t != r.first+r.count || r.count == runTiles) {
				if !yield(r) {
					return
				}
				r.count = 0
			}
			if r.count == 0 {
				r.first = t
			}
			r.count++
		}
		if r.count > 0 {
			yield(r)
		}
	}
}

// extent returns where a run lies in its partition, and where that begins on the disk.
func (i *Image) extent(r run) (e images.Extent, base int64, partition int) {
	partition = i.layout.Span(r.piece).Partition
	return i.layout.TileExtent(r.piece, r.first, r.count), i.layout.DiskOffset(partition), partition
}
