package intake

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"seedbed/images"
)

// drawMap draws a map of a partition of so many bytes.
func drawMap(t *rapid.T, length int64) *images.Map {
	m := &images.Map{Length: length}
	at := int64(0)
	for range rapid.IntRange(0, 12).Draw(t, "extents") {
		offset := at + rapid.Int64Range(1, 300_000).Draw(t, "gap")
		n := rapid.Int64Range(1, 400_000).Draw(t, "length")
		if offset+n > length {
			break
		}
		m.Extents = append(m.Extents, images.Extent{Offset: offset, Length: n})
		at = offset + n
	}
	for i := int64(0); i < images.TileCount(length); i++ {
		if rapid.IntRange(0, 3).Draw(t, "zero") > 0 {
			continue
		}
		if k := len(m.Zero) - 1; k >= 0 && m.Zero[k].First+m.Zero[k].Count == i {
			m.Zero[k].Count++
		} else {
			m.Zero = append(m.Zero, images.TileRun{First: i, Count: 1})
		}
	}
	return m
}

// drawSpec draws the description of a disk of up to three partitions.
func drawSpec(t *rapid.T) *Spec {
	s := &Spec{Created: rapid.Int64Range(0, 1<<40).Draw(t, "created"), SectorLength: 512, Table: "gpt",
		PieceLength: rapid.SampledFrom([]int64{0, 256 << 10, 512 << 10}).Draw(t, "piece"),
		Regions:     []Region{{Kind: images.RegionLBA0, Bytes: bytes.Repeat([]byte{1}, 512)}},
		Origin:      rapid.SampledFrom([]string{"", "content of a:1, source not read"}).Draw(t, "origin")}
	at := int64(1 << 20)
	for i := range rapid.IntRange(1, 3).Draw(t, "partitions") {
		length := rapid.Int64Range(1, 4000).Draw(t, "sectors") * 512
		m := drawMap(t, length)
		p := Partition{Number: i + 1, Offset: at, Length: length, Type: "83", MapKind: "used", Map: m.Encode(),
			Dropped: rapid.SampledFrom([][]string{nil, {"/pagefile.sys"}}).Draw(t, "dropped")}
		data, _ := m.CountTiles()
		for k := range data {
			d := sha256.Sum256(fmt.Append(nil, i, k))
			p.Tiles = append(p.Tiles, d[:]...)
		}
		s.Partitions, at = append(s.Partitions, p), at+length
	}
	s.DiskLength = at + 1<<20
	return s
}

// TestASpecBecomesTheManifestOfItsTiles compares roots and layers with those computed piece by piece from the map's states, and
// goes the way back.
func TestASpecBecomesTheManifestOfItsTiles(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawSpec(t)
		m, layers, err := Assemble(s, "name", "1")
		if err != nil {
			t.Fatal(err)
		}
		for i := range m.Partitions {
			layer, root := slowTree(t, &s.Partitions[i], m.PieceLength)
			p := &m.Partitions[i]
			if p.Root != root || !bytes.Equal(layers[p.PieceLayer.Digest], layer) || !bytes.Equal(layers[p.TileLayer.Digest], s.Partitions[i].Tiles) {
				t.Fatalf("partition %d: another tree", p.Number)
			}
		}
		again, err := SpecOf(m, func(d images.Digest) ([]byte, error) { return layers[d], nil })
		if err != nil {
			t.Fatal(err)
		}
		again.Origin, again.PieceLength = s.Origin, s.PieceLength
		if !reflect.DeepEqual(again, s) {
			t.Fatalf("%+v became %+v", s, again)
		}
		for i := range s.Partitions {
			if keys, err := s.Partitions[i].Keys(); err != nil || int64(len(keys)) != m.Partitions[i].DataTiles {
				t.Fatal(len(keys), err)
			}
		}
	})
}

// slowTree asks the map for the state of every tile.
func slowTree(t *rapid.T, p *Partition, pieceLength int64) (layer []byte, root images.Digest) {
	m, err := images.DecodeMap(p.Map)
	if err != nil {
		t.Fatal(err)
	}
	var pieces []images.Digest
	hashes := p.Tiles
	for start := int64(0); start < p.Length; start += pieceLength {
		length := min(pieceLength, p.Length-start)
		var tiles []images.Digest
		data := false
		for at := start; at < start+length; at += images.TileLength {
			if m.State(at/images.TileLength) == images.TileData {
				tiles, hashes, data = append(tiles, images.Digest(hashes[:32])), hashes[32:], true
			} else {
				tiles = append(tiles, images.ZeroTileHash(int(min(images.TileLength, p.Length-at))))
			}
		}
		d := images.PieceHash(tiles, length, pieceLength, p.Length)
		pieces = append(pieces, d)
		if data && p.Length > pieceLength {
			layer = append(layer, d[:]...)
		}
	}
	return layer, images.PartitionRoot(pieces, pieceLength)
}

func TestAHostileSpecIsRefusedSoon(t *testing.T) {
	huge := func(length int64, extents []images.Extent, zero []images.TileRun) *Spec {
		m := images.Map{Length: length, Extents: extents, Zero: zero}
		return &Spec{DiskLength: length, SectorLength: 512, Table: "none",
			Partitions: []Partition{{Length: length, MapKind: "full", Map: m.Encode()}}}
	}
	all := func(length int64) ([]images.Extent, []images.TileRun) {
		return []images.Extent{{Length: length}}, []images.TileRun{{Count: images.TileCount(length)}}
	}
	big, zero := all(1 << 60)
	long, longZero := all(1 << 44)
	for _, c := range []struct {
		what, want string
		spec       *Spec
	}{
		{"2^60 bytes", "disk length", huge(1<<60, nil, nil)},
		{"2^60 bytes of zeros", "disk length", huge(1<<60, big, zero)},
		{"2^60 bytes of data", "data tiles", huge(1<<60, big, nil)},
		{"2^56 bytes", "pieces", huge(1<<56, nil, nil)},
		{"2^44 bytes of zeros, the most there can be", "", huge(1<<44, long, longZero)},
		{"a partition longer than its map", "its map is for", func() *Spec { s := huge(1<<20, nil, nil); s.Partitions[0].Length += 512; return s }()},
		{"half a hash", "cut off", func() *Spec { s := huge(1<<20, nil, nil); s.Partitions[0].Tiles = []byte{1}; return s }()},
		{"many partitions", "partition number", &Spec{DiskLength: 1 << 40, SectorLength: 512, Table: "gpt", Partitions: bytesOfPartitions()}},
	} {
		start := time.Now()
		_, _, err := Assemble(c.spec, "x", "1")
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.what, err)
		}
		// The longest is about 1 s; a loop over 2^60 bytes would never end.
		if d := time.Since(start); d > 20*time.Second {
			t.Errorf("%s took %v", c.what, d)
		}
	}
}

// bytesOfPartitions is as many as an encoded description can have.
func bytesOfPartitions() (list []Partition) {
	m := images.Map{Length: 512}
	for i := range 1 << 17 {
		list = append(list, Partition{Number: i + 1, Offset: int64(i+1) * 512, Length: 512, MapKind: "full", Map: m.Encode()})
	}
	return list
}
