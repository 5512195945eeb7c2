package intake

import (
	"bytes"
	"math/rand/v2"
	"reflect"
	"runtime"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"seedbed/images"
	"seedbed/images/tile"
)

func drawKeys(t *rapid.T, most int) []images.TileKey {
	list := make([]images.TileKey, rapid.IntRange(0, most).Draw(t, "keys"))
	for i := range list {
		copy(list[i].Hash[:], rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "hash"))
		list[i].Length = rapid.Int32Range(1, images.TileLength).Draw(t, "length")
	}
	return list
}

func TestWhatIsEncodedIsReadBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		keys := drawKeys(t, 40)
		if got, err := DecodeKeys(EncodeKeys(keys)); err != nil || !slices.Equal(got, keys) {
			t.Fatal(got, err)
		}
		bits := rapid.SliceOfN(rapid.Bool(), 0, 70).Draw(t, "bits")
		if got, err := DecodeBits(EncodeBits(bits), len(bits)); err != nil || !slices.Equal(got, bits) {
			t.Fatal(got, err)
		}
		var tiles []Tile
		for _, k := range drawKeys(t, 8) {
			raw := make([]byte, k.Length)
			if rapid.Bool().Draw(t, "noise") {
				rand.NewChaCha8([32]byte(k.Hash)).Read(raw)
			}
			e, err := tile.Encode(rapid.SampledFrom([]tile.Codec{tile.Stored, tile.LZ4, tile.Zstd}).Draw(t, "codec"), 0, raw)
			if err != nil {
				t.Fatal(err)
			}
			tiles = append(tiles, Tile{tile.KeyOf(raw), e})
		}
		got, err := DecodeTiles(EncodeTiles(tiles))
		if err != nil || !reflect.DeepEqual(got, tiles) {
			t.Fatal(got, err)
		}
		var buf []byte
		for i, x := range got {
			if buf, err = x.Check(buf); err != nil {
				t.Fatal(err)
			}
			got[i].Key.Hash[0]++
			if _, err = got[i].Check(nil); err == nil {
				t.Fatal("a tile with another hash was taken")
			}
		}
	})
	rapid.Check(t, func(t *rapid.T) {
		s := drawSpec(t)
		b, err := s.Encode()
		if err != nil {
			t.Fatal(err)
		}
		got, err := DecodeSpec(b)
		if err != nil {
			t.Fatal(err)
		}
		again, err := got.Encode()
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("other bytes: %v", err)
		}
	})
}

func TestEncodingsThatCannotBeAreRefused(t *testing.T) {
	key := images.TileKey{Length: 5}
	good := EncodeTiles([]Tile{{key, tile.Encoded{Length: 5, Bytes: []byte("hello")}}})
	for what, b := range map[string][]byte{
		"half a header": good[:20], "a cut tile": good[:len(good)-1], "a tile too long": append(bytes.Clone(good[:37]), 0xff, 0xff, 0xff, 0xff),
		"codec 9": append(append(bytes.Clone(good[:36]), 9), good[37:]...), "257 tiles": bytes.Repeat(good, MaxPutTiles+1),
		"too much": make([]byte, MaxTilesLength+1), "no length": append(make([]byte, 36), good[36:]...),
	} {
		if got, err := DecodeTiles(b); err == nil {
			t.Errorf("%s: read as %d tiles", what, len(got))
		}
	}
	for what, b := range map[string][]byte{"half a key": make([]byte, 20), "a key of no bytes": make([]byte, 36), "too many": make([]byte, MaxKeysLength+36)} {
		if _, err := DecodeKeys(b); err == nil {
			t.Errorf("keys: %s was read", what)
		}
	}
	for what, c := range map[string]struct {
		b []byte
		n int
	}{"short": {nil, 1}, "long": {make([]byte, 2), 8}, "spare bits": {[]byte{1}, 7}} {
		if _, err := DecodeBits(c.b, c.n); err == nil {
			t.Errorf("bits: %s was read", what)
		}
	}
	if _, err := DecodeSpec([]byte{0xa1, 0x18, 0x63, 0x01}); err == nil {
		t.Error("a description with an unknown field was read")
	}
}

func FuzzDecodeKeys(f *testing.F) {
	f.Add(EncodeKeys([]images.TileKey{{Length: 1}, {Length: images.TileLength}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if keys, err := DecodeKeys(b); err == nil && !bytes.Equal(EncodeKeys(keys), b) {
			t.Fatal("other bytes")
		}
	})
}

func FuzzDecodeBits(f *testing.F) {
	f.Add([]byte{0xa0}, uint16(3))
	f.Fuzz(func(t *testing.T, b []byte, n uint16) {
		if list, err := DecodeBits(b, int(n)); err == nil && (len(list) != int(n) || !bytes.Equal(EncodeBits(list), b)) {
			t.Fatal("other bytes")
		}
	})
}

func FuzzDecodeTiles(f *testing.F) {
	e, err := tile.Encode(tile.Zstd, 0, make([]byte, 3000))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(EncodeTiles([]Tile{{images.TileKey{Length: 3000}, e}, {images.TileKey{Length: 1}, tile.Encoded{Length: 1, Bytes: []byte{1}}}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		tiles, err := DecodeTiles(b)
		if err != nil {
			return
		}
		if !bytes.Equal(EncodeTiles(tiles), b) {
			t.Fatal("other bytes")
		}
		for _, x := range tiles {
			_, _ = x.Check(nil)
		}
	})
}

// FuzzSpec looks for descriptions that panic or take long; what becomes a manifest has to describe its layers.
func FuzzSpec(f *testing.F) {
	for seed := range 4 {
		b, err := rapid.Custom(drawSpec).Example(seed).Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := DecodeSpec(b)
		if err != nil {
			return
		}
		m, layers, err := Assemble(s, "x", "1")
		if err != nil {
			return
		}
		if _, err := SpecOf(m, func(d images.Digest) ([]byte, error) { return layers[d], nil }); err != nil {
			t.Fatal(err)
		}
	})
}

// A description of many empty strings would take 16 times its length in memory.
func TestADescriptionTakesNoMoreMemoryThanItHasBytes(t *testing.T) {
	b, err := (&Spec{Partitions: []Partition{{Dropped: make([]string, 1<<16)}}}).Encode()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := DecodeSpec(b); err == nil {
		t.Error("65,536 names of dropped contents were read")
	}
	b, err = (&Spec{Firmware: make([]string, 1<<16)}).Encode()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := DecodeSpec(b); err == nil {
		t.Error("65,536 kinds of firmware were read")
	}
}

// A machine of 1 GiB describes its disk once more in memory, not several times.
func TestADescriptionIsEncodedWithoutCopies(t *testing.T) {
	const length = 8 << 20
	s := &Spec{Partitions: []Partition{{Tiles: make([]byte, length)}, {Number: 1, Map: make([]byte, length)}}}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := s.Encode(); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if got, most := after.TotalAlloc-before.TotalAlloc, uint64(2*length+length/8); got > most {
		t.Errorf("%d bytes of memory for %d, more than %d", got, 2*length, most)
	}
}
