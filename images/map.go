package images

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sort"
)

// Map is the content that an image keeps of one partition: the byte ranges in use and which of their tiles are zero.
// Immutable after its construction; safe for concurrent use.
type Map struct {
	// Length is the length of the partition in bytes.
	Length int64
	// Extents are the used ranges: sorted, not touching, inside [0, Length).
	Extents []Extent
	// Zero are the tiles that have used bytes, all of them zero, as runs: sorted, not touching, in tile indexes.
	Zero []TileRun
}

// TileRun is a run of Count tiles from tile First of a partition.
type TileRun struct{ First, Count int64 }

// MaxMapLength bounds an encoded map; 64 MiB hold over 6 million extents.
const MaxMapLength = 64 << 20

// State returns the state of one tile of the partition.
func (m *Map) State(tile int64) TileState {
	if i := m.firstExtent(tile * TileLength); i == len(m.Extents) || m.Extents[i].Offset >= (tile+1)*TileLength {
		return TileFree
	}
	i := sort.Search(len(m.Zero), func(i int) bool { return m.Zero[i].First+m.Zero[i].Count > tile })
	if i < len(m.Zero) && m.Zero[i].First <= tile {
		return TileZero
	}
	return TileData
}

// CountTiles returns how many tiles State calls data and zero. It takes one pass over the extents and runs.
func (m *Map) CountTiles() (data, zero int64) {
	z, counted := 0, int64(0) // the tiles before counted are counted
	for _, e := range m.Extents {
		first, end := max(e.Offset/TileLength, counted), TileCount(e.End())
		if first >= end {
			continue
		}
		counted = end
		data += end - first
		for ; z < len(m.Zero) && m.Zero[z].First < end; z++ {
			r := m.Zero[z]
			zero += max(0, min(r.First+r.Count, end)-max(r.First, first))
			if r.First+r.Count > end {
				break // it goes on behind this extent
			}
		}
	}
	return data - zero, zero
}

// firstExtent returns the index of the first extent that ends after off.
func (m *Map) firstExtent(off int64) int {
	return sort.Search(len(m.Extents), func(i int) bool { return m.Extents[i].End() > off })
}

// Used appends the used ranges inside r to dst, in ascending order.
func (m *Map) Used(dst []Extent, r Extent) []Extent {
	for i := m.firstExtent(r.Offset); i < len(m.Extents) && m.Extents[i].Offset < r.End(); i++ {
		dst = append(dst, m.Extents[i].Intersect(r))
	}
	return dst
}

// Mask sets the free bytes of b to zero, where b holds the bytes of the partition from offset on.
func (m *Map) Mask(b []byte, offset int64) {
	pos, end := offset, offset+int64(len(b))
	for i := m.firstExtent(offset); i < len(m.Extents) && m.Extents[i].Offset < end; i++ {
		if e := m.Extents[i]; e.Offset > pos {
			clear(b[pos-offset : e.Offset-offset])
		}
		pos = m.Extents[i].End()
	}
	if pos < end {
		clear(b[pos-offset:])
	}
}

var mapMagic = []byte("SBMAP1")

// Encode returns the canonical bytes: magic, then unsigned varints: length, number of extents, for each extent the gap
// since the end of the last and its length, number of zero runs, for each run the gap and the count.
func (m *Map) Encode() []byte {
	b := append([]byte(nil), mapMagic...)
	put := func(v int64) { b = binary.AppendUvarint(b, uint64(v)) }
	put(m.Length)
	put(int64(len(m.Extents)))
	end := int64(0)
	for _, e := range m.Extents {
		put(e.Offset - end)
		put(e.Length)
		end = e.End()
	}
	put(int64(len(m.Zero)))
	end = 0
	for _, r := range m.Zero {
		put(r.First - end)
		put(r.Count)
		end = r.First + r.Count
	}
	return b
}

// DecodeMap is the reverse of Encode. Whatever it accepts is sorted, disjoint, inside the partition and encodes to the
// same bytes.
func DecodeMap(b []byte) (*Map, error) {
	if len(b) > MaxMapLength {
		return nil, fmt.Errorf("map: %d bytes, more than %d", len(b), MaxMapLength)
	}
	if len(b) < len(mapMagic) || string(b[:len(mapMagic)]) != string(mapMagic) {
		return nil, errors.New("map: no magic at byte 0")
	}
	d := &varints{b: b, pos: len(mapMagic)}
	m := &Map{Length: d.next("length")}
	n := d.count("extents")
	m.Extents = make([]Extent, 0, n)
	end := int64(0)
	for i := 0; i < n && d.err == nil; i++ {
		gap, length := d.next("gap"), d.next("extent length")
		if d.err == nil && (length == 0 || (i > 0 && gap == 0) || gap > m.Length-end || length > m.Length-end-gap) {
			d.fail("extent %d does not follow the last one inside the partition", i)
		}
		m.Extents = append(m.Extents, Extent{end + gap, length})
		end += gap + length
	}
	tiles, n := TileCount(m.Length), d.count("zero runs")
	m.Zero = make([]TileRun, 0, n)
	end = 0
	for i := 0; i < n && d.err == nil; i++ {
		gap, count := d.next("gap"), d.next("run length")
		if d.err == nil && (count == 0 || (i > 0 && gap == 0) || gap > tiles-end || count > tiles-end-gap) {
			d.fail("zero run %d does not follow the last one inside the partition", i)
		}
		m.Zero = append(m.Zero, TileRun{end + gap, count})
		end += gap + count
	}
	if d.err == nil && d.pos != len(b) {
		d.fail("%d bytes follow the end", len(b)-d.pos)
	}
	if d.err != nil {
		return nil, d.err
	}
	return m, nil
}

// varints reads unsigned varints and keeps its first error.
type varints struct {
	b   []byte
	pos int
	err error
}

func (d *varints) fail(format string, a ...any) {
	if d.err == nil {
		d.err = fmt.Errorf("map: byte %d: "+format, append([]any{d.pos}, a...)...)
	}
}

func (d *varints) next(what string) int64 {
	if d.err != nil {
		return 0
	}
	v, n := binary.Uvarint(d.b[d.pos:])
	if n <= 0 || v > 1<<62 || (n > 1 && d.b[d.pos+n-1] == 0) {
		d.fail("%s is not a shortest varint below 2^62", what)
		return 0
	}
	d.pos += n
	return int64(v)
}

// maxMapItems bounds the extents and the zero runs of an encoded map, 16 bytes each in memory.
const maxMapItems = 8 << 20

// count reads a number of items; each item takes at least two more bytes, which bounds what is allocated.
func (d *varints) count(what string) int {
	n := d.next(what)
	if n > maxMapItems {
		d.fail("%d %s, at most %d can be", n, what, maxMapItems)
		return 0
	}
	if n > int64(len(d.b)-d.pos)/2 {
		d.fail("%d %s do not fit into the rest", n, what)
		return 0
	}
	return int(n)
}
