package images

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// drawMap makes a map, and beside it one flag per byte of the partition and the zero tiles.
func drawMap(t *rapid.T) (*Map, []bool, []bool) {
	length := rapid.IntRange(1, 6*TileLength).Draw(t, "length")
	used := make([]bool, length)
	m := &Map{Length: int64(length)}
	pos := 0
	for pos < length {
		gap, n := rapid.IntRange(0, TileLength*3/2).Draw(t, "gap"), rapid.IntRange(1, TileLength*3/2).Draw(t, "used")
		start, end := min(length, pos+gap), min(length, pos+gap+n)
		m.Extents = AppendExtent(m.Extents, Extent{int64(start), int64(end - start)})
		for i := start; i < end; i++ {
			used[i] = true
		}
		pos = end
	}
	zero := make([]bool, TileCount(int64(length)))
	for i := range zero {
		if slices.Contains(used[i*TileLength:min(length, (i+1)*TileLength)], true) && rapid.Bool().Draw(t, "zero") {
			zero[i] = true
			if k := len(m.Zero); k > 0 && m.Zero[k-1].First+m.Zero[k-1].Count == int64(i) {
				m.Zero[k-1].Count++
			} else {
				m.Zero = append(m.Zero, TileRun{int64(i), 1})
			}
		}
	}
	return m, used, zero
}

func TestMapAnswersForAnyExtents(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m, used, zero := drawMap(t)
		for i := range zero {
			want := TileFree
			if zero[i] {
				want = TileZero
			} else if slices.Contains(used[i*TileLength:min(len(used), (i+1)*TileLength)], true) {
				want = TileData
			}
			if got := m.State(int64(i)); got != want {
				t.Fatalf("tile %d is %v, want %v", i, got, want)
			}
		}
		states := map[TileState]int64{}
		for i := range zero {
			states[m.State(int64(i))]++
		}
		if data, zero := m.CountTiles(); data != states[TileData] || zero != states[TileZero] {
			t.Fatalf("%d data and %d zero tiles, want %v", data, zero, states)
		}
		start := rapid.IntRange(0, len(used)-1).Draw(t, "start")
		end := rapid.IntRange(start, len(used)).Draw(t, "end")
		b := bytes.Repeat([]byte{0xCC}, end-start)
		m.Mask(b, int64(start))
		inUse := make([]bool, end-start)
		for _, e := range m.Used(nil, Extent{int64(start), int64(end - start)}) {
			for i := e.Offset; i < e.End(); i++ {
				inUse[i-int64(start)] = true
			}
		}
		for i := range b {
			if (b[i] == 0xCC) != used[start+i] || inUse[i] != used[start+i] {
				t.Fatalf("byte %d: masked %#x, listed %v, used %v", start+i, b[i], inUse[i], used[start+i])
			}
		}
		again, err := DecodeMap(m.Encode())
		if err != nil || !slices.Equal(again.Extents, m.Extents) || !slices.Equal(again.Zero, m.Zero) || again.Length != m.Length {
			t.Fatalf("%+v became %+v: %v", m, again, err)
		}
	})
}

func FuzzDecodeMap(f *testing.F) {
	for _, m := range []*Map{
		{Length: 1}, {Length: 1 << 40, Extents: []Extent{{0, 4096}, {8192, 1 << 30}}, Zero: []TileRun{{0, 1}, {7, 20}}},
		{Length: TileLength, Extents: []Extent{{TileLength - 1, 1}}},
	} {
		f.Add(m.Encode())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := DecodeMap(b)
		if err != nil {
			return
		}
		if !bytes.Equal(m.Encode(), b) {
			t.Fatal("it encodes to other bytes")
		}
		end := int64(-1)
		for _, e := range m.Extents {
			if e.Offset <= end || e.Length <= 0 || e.End() > m.Length {
				t.Fatalf("extent %v does not follow %d", e, end)
			}
			end = e.End()
		}
		end = -1
		for _, r := range m.Zero {
			if r.First <= end || r.Count <= 0 || r.First+r.Count > TileCount(m.Length) {
				t.Fatalf("zero run %v does not follow %d", r, end)
			}
			end = r.First + r.Count
		}
	})
}

func TestTileSetIsASet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		draw := func(label string) (TileSet, map[int]bool) {
			var s TileSet
			want := map[int]bool{}
			for _, i := range rapid.SliceOf(rapid.IntRange(0, MaxPieceTiles-1)).Draw(t, label) {
				s.Add(i)
				want[i] = true
			}
			for _, i := range rapid.SliceOf(rapid.IntRange(0, MaxPieceTiles-1)).Draw(t, label+" without") {
				s.Remove(i)
				delete(want, i)
			}
			return s, want
		}
		a, inA := draw("a")
		b, inB := draw("b")
		last, n := -1, 0
		for i := range a.All() {
			if i <= last || !inA[i] {
				t.Fatalf("%d after %d", i, last)
			}
			last, n = i, n+1
		}
		if n != len(inA) || a.Len() != n || a.IsEmpty() != (n == 0) {
			t.Fatalf("%d tiles listed, %d counted, want %d", n, a.Len(), len(inA))
		}
		contains := true
		for i := range MaxPieceTiles {
			contains = contains && (inA[i] || !inB[i])
			if a.Has(i) != inA[i] || a.Union(b).Has(i) != (inA[i] || inB[i]) || a.Minus(b).Has(i) != (inA[i] && !inB[i]) ||
				a.Intersect(b).Has(i) != (inA[i] && inB[i]) {
				t.Fatalf("tile %d", i)
			}
		}
		if a.Contains(b) != contains {
			t.Fatalf("contains is %v", a.Contains(b))
		}
	})
}

func TestAppendExtentJoins(t *testing.T) {
	var list []Extent
	for _, e := range []Extent{{0, 0}, {0, 10}, {10, 5}, {12, 2}, {14, 10}, {30, 1}, {40, -3}} {
		list = AppendExtent(list, e)
	}
	if !slices.Equal(list, []Extent{{0, 24}, {30, 1}}) || TotalLength(list) != 25 {
		t.Errorf("%v", list)
	}
}

func BenchmarkMapState(b *testing.B) {
	m := &Map{Length: 1 << 40}
	r := rand.New(rand.NewPCG(1, 1))
	for off := int64(0); len(m.Extents) < 100_000; off += 1 << 20 {
		m.Extents = append(m.Extents, Extent{off + r.Int64N(4096), 1 << 16})
	}
	for i := int64(0); b.Loop(); i++ {
		m.State(i * 7919 % TileCount(m.Length))
	}
}
