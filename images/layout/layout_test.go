package layout

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"seedbed/images"
)

// sample is an image made by brute force: content in memory, one byte of use per byte of disk.
type sample struct {
	m       *images.Manifest
	content [][]byte // masked, per partition
	used    [][]bool
	maps    []*images.Map
	layers  [][]byte
}

// newSample makes partitions of the given lengths. used says which sectors of 512 bytes are in use, zero which of them
// hold zeros.
func newSample(pieceLength int64, lengths []int64, used, zero func(partition int, sector int64) bool) *sample {
	s := &sample{m: &images.Manifest{
		Format: images.FormatVersion, Name: "sample", Version: "1", SectorLength: 512, PieceLength: pieceLength,
		Frame: images.Frame{Table: "none"}, DiskLength: 1 << 20,
	}}
	r := rand.New(rand.NewPCG(1, 2))
	for i, n := range lengths {
		content, inUse := make([]byte, n), make([]bool, n)
		m := &images.Map{Length: n}
		for sector := range n / 512 {
			if !used(i, sector) {
				continue
			}
			m.Extents = images.AppendExtent(m.Extents, images.Extent{Offset: sector * 512, Length: 512})
			for j := sector * 512; j < sector*512+512; j++ {
				inUse[j] = true
			}
			if !zero(i, sector) {
				content[sector*512+int64(r.IntN(512))] = byte(r.Uint32()) | 1
			}
		}
		s.content, s.used = append(s.content, content), append(s.used, inUse)
		s.maps = append(s.maps, m)
		s.addPartition(i, n, content, inUse, m)
	}
	return s
}

func (s *sample) addPartition(i int, n int64, content []byte, inUse []bool, m *images.Map) {
	p := images.Partition{Number: i + 1, Offset: s.m.DiskLength, Length: n, Type: "83", MapKind: "used"}
	s.m.DiskLength += n
	var pieceHashes []images.Digest
	var layer []byte
	for start := int64(0); start < n; start += s.m.PieceLength {
		end := min(n, start+s.m.PieceLength)
		var tiles []images.Digest
		data := false
		for t := start; t < end; t += images.TileLength {
			stop := min(end, t+images.TileLength)
			tiles = append(tiles, images.TileHash(content[t:stop]))
			switch {
			case bytes.Count(content[t:stop], []byte{0}) < int(stop-t):
				p.DataTiles++
				data = true
			case slices.Contains(inUse[t:stop], true):
				p.ZeroTiles++
				if k := len(m.Zero); k > 0 && m.Zero[k-1].First+m.Zero[k-1].Count == t/images.TileLength {
					m.Zero[k-1].Count++
				} else {
					m.Zero = append(m.Zero, images.TileRun{First: t / images.TileLength, Count: 1})
				}
			}
		}
		h := images.PieceHash(tiles, end-start, s.m.PieceLength, n)
		pieceHashes = append(pieceHashes, h)
		if data && n > s.m.PieceLength {
			layer = append(layer, h[:]...)
		}
	}
	p.UsedLength = images.TotalLength(m.Extents)
	p.Root = images.PartitionRoot(slices.Clone(pieceHashes), s.m.PieceLength)
	encoded := m.Encode()
	p.Map = images.Ref{Digest: images.Sum(encoded), Length: int64(len(encoded))}
	p.TileLayer.Length = 32 * p.DataTiles
	if len(layer) > 0 {
		p.PieceLayer = images.Ref{Digest: images.Sum(layer), Length: int64(len(layer))}
	}
	s.m.Partitions = append(s.m.Partitions, p)
	s.layers = append(s.layers, layer)
}

func (s *sample) layout(t tester) *Layout {
	t.Helper()
	l, err := New(s.m, s.maps, s.layers)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// check compares every answer of the layout with the content.
func (s *sample) check(t tester, l *Layout) {
	t.Helper()
	next, dataPieces, dataLength := 0, 0, int64(0)
	for i, content := range s.content {
		first, end := l.Pieces(i)
		if first != next {
			t.Fatalf("partition %d begins with piece %d, want %d", i, first, next)
		}
		next = end
		for piece := first; piece < end; piece++ {
			span := l.Span(piece)
			want := Span{i, int64(piece-first) * s.m.PieceLength, min(s.m.PieceLength, int64(len(content))-int64(piece-first)*s.m.PieceLength)}
			if span != want {
				t.Fatalf("piece %d lies at %+v, want %+v", piece, span, want)
			}
			if s.checkPiece(t, l, piece, span, &dataLength) {
				dataPieces++
			}
		}
	}
	if l.Count() != next || l.DataPieces() != dataPieces || l.DataLength() != dataLength {
		t.Fatalf("%d pieces, %d with data of %d bytes; want %d, %d, %d", l.Count(), l.DataPieces(), l.DataLength(), next, dataPieces, dataLength)
	}
}

func (s *sample) checkPiece(t tester, l *Layout, piece int, span Span, dataLength *int64) (hasData bool) {
	t.Helper()
	content, used := s.content[span.Partition], s.used[span.Partition]
	var hashes, tiles []images.Digest
	for tile := range l.Tiles(piece) {
		e := l.TileExtent(piece, tile, 1)
		if int(e.Length) != l.TileLength(piece, tile) {
			t.Fatalf("piece %d tile %d: extent %v, length %d", piece, tile, e, l.TileLength(piece, tile))
		}
		if p, q := l.Piece(span.Partition, e.Offset/images.TileLength); p != piece || q != tile {
			t.Fatalf("tile at %d is said to be %d of piece %d, want %d of %d", e.Offset, q, p, tile, piece)
		}
		raw := content[e.Offset:e.End()]
		tiles = append(tiles, images.TileHash(raw))
		isData := bytes.Count(raw, []byte{0}) < len(raw)
		isZero := !isData && slices.Contains(used[e.Offset:e.End()], true)
		if isData != l.Data(piece).Has(tile) || isZero != l.Zero(piece).Has(tile) {
			t.Fatalf("piece %d tile %d: data %v zero %v, want %v %v", piece, tile, l.Data(piece).Has(tile), l.Zero(piece).Has(tile), isData, isZero)
		}
		if isData {
			hashes = append(hashes, images.TileHash(raw))
			*dataLength += int64(len(raw))
		}
		s.checkExtents(t, l, piece, tile, span)
	}
	if got := images.PieceHash(tiles, span.Length, s.m.PieceLength, int64(len(content))); got != l.PieceHash(piece) {
		t.Fatalf("piece %d: hash %s, want %s", piece, l.PieceHash(piece), got)
	}
	if err := l.CheckHashes(piece, hashes); err != nil {
		t.Fatal(err)
	}
	if l.CheckHashes(piece, append(slices.Clone(hashes), images.Digest{})) == nil {
		t.Fatalf("piece %d: one hash too many was accepted", piece)
	}
	if len(hashes) > 0 {
		hashes[len(hashes)-1][7] ^= 1
		if l.CheckHashes(piece, hashes) == nil {
			t.Fatalf("piece %d: a wrong hash was accepted", piece)
		}
	}
	return len(hashes) > 0
}

// checkExtents writes noise through WriteExtents and expects every used byte, and no other, to be hit.
func (s *sample) checkExtents(t tester, l *Layout, piece, tile int, span Span) {
	t.Helper()
	count := min(2, l.Tiles(piece)-tile)
	e := l.TileExtent(piece, tile, count)
	hit := make([]bool, e.Length)
	last := int64(-1)
	for _, w := range l.WriteExtents(nil, piece, tile, count) {
		if w.Offset <= last || w.Length <= 0 || w.Offset < e.Offset || w.End() > e.End() {
			t.Fatalf("piece %d tile %d: range %v in %v", piece, tile, w, e)
		}
		last = w.End()
		for j := w.Offset; j < w.End(); j++ {
			hit[j-e.Offset] = true
		}
	}
	if !slices.Equal(hit, s.used[span.Partition][e.Offset:e.End()]) {
		t.Fatalf("piece %d tile %d: the ranges to write are not the used bytes", piece, tile)
	}
	b := bytes.Repeat([]byte{0xCC}, int(e.Length))
	l.Mask(span.Partition, b, e.Offset)
	for j := range b {
		if (b[j] == 0xCC) != hit[j] {
			t.Fatalf("mask: byte %d of the partition is %#x", e.Offset+int64(j), b[j])
		}
	}
}

func TestLayoutAgreesWithTheContentForAnyPartitions(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pieceLength := int64(images.MinPieceLength) << rapid.IntRange(0, 2).Draw(t, "piece length")
		lengths := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) int64 {
			base := rapid.SampledFrom([]int64{512, images.LeafLength, images.TileLength, pieceLength, 2 * pieceLength, 5 * images.TileLength}).Draw(t, "base")
			return max(512, base+512*rapid.Int64Range(-1, 1).Draw(t, "sectors"))
		}), 1, 4).Draw(t, "lengths")
		seed := rapid.Uint64().Draw(t, "seed")
		run := rapid.SampledFrom([]int64{1, 40, 300, 1500}).Draw(t, "run")
		pick := func(salt uint64) func(int, int64) bool {
			return func(p int, sector int64) bool {
				return rand.New(rand.NewPCG(seed+salt, uint64(p)<<40+uint64(sector/run))).IntN(2) == 0
			}
		}
		s := newSample(pieceLength, lengths, pick(0), pick(1))
		l, err := New(s.m, s.maps, s.layers)
		if err != nil {
			t.Fatal(err)
		}
		s.check(t, l)
	})
}

// tester is what *testing.T and *rapid.T have in common here.
type tester interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
}

func TestNewRefusesWhatDoesNotFitTogether(t *testing.T) {
	all := func(int, int64) bool { return true }
	none := func(int, int64) bool { return false }
	for name, c := range map[string]struct {
		spoil func(*sample)
		want  string
	}{
		"a map of another length":   {func(s *sample) { s.maps[0].Length += 512 }, "another length"},
		"a map is missing":          {func(s *sample) { s.maps = s.maps[:1] }, "1 maps"},
		"a wrong piece hash":        {func(s *sample) { s.layers[0][3] ^= 1 }, "give the root"},
		"a wrong root":              {func(s *sample) { s.m.Partitions[0].Root[0] ^= 1 }, "give the root"},
		"a short piece layer":       {func(s *sample) { s.layers[0] = s.layers[0][32:] }, "piece layer"},
		"a needless piece layer":    {func(s *sample) { s.layers[1] = make([]byte, 32) }, "not longer than a piece"},
		"an extent less":            {func(s *sample) { s.maps[0].Extents = nil }, "bytes in use"},
		"a zero tile that is not":   {func(s *sample) { s.maps[0].Zero = []images.TileRun{{First: 0, Count: 1}} }, "data and"},
		"a manifest that cannot be": {func(s *sample) { s.m.PieceLength = 3 }, "piece length"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSample(images.MinPieceLength, []int64{3 * images.MinPieceLength, images.TileLength}, all, none)
			s.layout(t)
			c.spoil(s)
			_, err := New(s.m, s.maps, s.layers)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one about %q", err, c.want)
			}
		})
	}
}

func TestZeroTileInFreeSpaceIsRefused(t *testing.T) {
	s := newSample(images.MinPieceLength, []int64{images.MinPieceLength}, func(_ int, sector int64) bool { return sector < 128 }, func(int, int64) bool { return true })
	s.maps[0].Zero[0].Count = 2
	s.m.Partitions[0].ZeroTiles = 2
	if _, err := New(s.m, s.maps, s.layers); err == nil || !strings.Contains(err.Error(), "zero tiles") {
		t.Errorf("error %v, want one about zero tiles", err)
	}
}

// A huge disk with little on it costs little: one data tile at each end of 1 TiB.
func TestAnAlmostEmptyDiskIsCheap(t *testing.T) {
	const length = 1 << 40
	m := &images.Map{Length: length, Extents: []images.Extent{{Offset: 0, Length: 4096}, {Offset: length - 4096, Length: 4096}}}
	var tile [images.TileLength]byte
	tile[0] = 1
	first := images.TileHash(tile[:])
	tile[0] = 0
	tile[images.TileLength-1] = 1
	last := images.TileHash(tile[:])
	pieceLength := images.PieceLengthFor(2*images.TileLength, length)
	perPiece := int(pieceLength / images.TileLength)
	piece := func(at int, h images.Digest) images.Digest {
		list := make([]images.Digest, perPiece)
		for i := range list {
			list[i] = images.ZeroTileHash(images.TileLength)
		}
		if at >= 0 {
			list[at] = h
		}
		return images.PieceHash(list, pieceLength, pieceLength, length)
	}
	pieces := make([]images.Digest, length/pieceLength)
	for i := range pieces {
		pieces[i] = piece(-1, first)
		if i == 1 {
			for j := i; j < len(pieces); j++ {
				pieces[j] = pieces[1]
			}
			break
		}
	}
	pieces[0], pieces[len(pieces)-1] = piece(0, first), piece(perPiece-1, last)
	layer := append(append([]byte(nil), pieces[0][:]...), pieces[len(pieces)-1][:]...)
	man := &images.Manifest{
		Format: images.FormatVersion, Name: "huge", Version: "1", DiskLength: length, SectorLength: 512, PieceLength: pieceLength,
		Frame: images.Frame{Table: "none"},
		Partitions: []images.Partition{{Number: 0, Length: length, MapKind: "used", UsedLength: 8192, DataTiles: 2,
			Map: images.Ref{Length: 1}, PieceLayer: images.Ref{Length: 64}, TileLayer: images.Ref{Length: 64}}},
	}
	man.Partitions[0].Root = images.PartitionRoot(pieces, pieceLength)
	bytesUsed := testing.Benchmark(func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := New(man, []*images.Map{m}, [][]byte{layer}); err != nil {
				t.Fatal(err)
			}
		}
	}).AllocedBytesPerOp()
	if bytesUsed > 2<<20 {
		t.Errorf("layout of 1 TiB with two tiles took %d bytes, want at most 2 MiB", bytesUsed)
	}
}

func TestTooManyPiecesAreRefused(t *testing.T) {
	s := newSample(images.MinPieceLength, []int64{512}, func(int, int64) bool { return true }, func(int, int64) bool { return false })
	s.m.DiskLength = 1 << 50
	s.m.Partitions[0].Length = 1 << 49
	if _, err := New(s.m, s.maps, s.layers); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("error %v, want one about too many pieces", err)
	}
}

func TestLoadChecksEveryDigest(t *testing.T) {
	s := newSample(images.MinPieceLength, []int64{3 * images.MinPieceLength, images.TileLength}, func(int, int64) bool { return true }, func(int, int64) bool { return false })
	stored := map[images.Digest][]byte{}
	for i := range s.maps {
		for _, b := range [][]byte{s.maps[i].Encode(), s.layers[i]} {
			stored[images.Sum(b)] = b
		}
	}
	fetch := func(r images.Ref) ([]byte, error) {
		b, ok := stored[r.Digest]
		if !ok {
			return nil, errors.New("not here")
		}
		return b, nil
	}
	l, err := Load(s.m, fetch)
	if err != nil {
		t.Fatal(err)
	}
	s.check(t, l)
	for _, ref := range []images.Ref{s.m.Partitions[0].Map, s.m.Partitions[1].Map, s.m.Partitions[0].PieceLayer} {
		good := stored[ref.Digest]
		bad := bytes.Clone(good)
		bad[len(bad)-1] ^= 1
		stored[ref.Digest] = bad
		if _, err := Load(s.m, fetch); err == nil || !strings.Contains(err.Error(), "the bytes are not those") {
			t.Errorf("error %v, want one about other bytes", err)
		}
		delete(stored, ref.Digest)
		if _, err := Load(s.m, fetch); err == nil || !strings.Contains(err.Error(), "not here") {
			t.Errorf("error %v, want the cause", err)
		}
		stored[ref.Digest] = good
	}
}

func ExampleLayout_WriteExtents() {
	s := newSample(images.MinPieceLength, []int64{images.MinPieceLength},
		func(_ int, sector int64) bool { return sector%200 < 8 }, func(int, int64) bool { return false })
	l, err := New(s.m, s.maps, s.layers)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(l.WriteExtents(nil, 0, 1, 2))
	// Output: [[102400, 106496)]
}
