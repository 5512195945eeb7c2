package repository

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"seedbed/images"
)

// spoilFile changes one object of a folder bucket. Objects of mode 0600 can be written in place.
func spoilFile(t *testing.T, name string, change func([]byte) []byte) {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, change(b), 0o600); err != nil {
		t.Fatal(err)
	}
}

// ways to damage an object of any kind.
var ways = map[string]func([]byte) []byte{
	"cut in half":          func(b []byte) []byte { return b[:len(b)/2] },
	"cut by a byte":        func(b []byte) []byte { return b[:len(b)-1] },
	"emptied":              func([]byte) []byte { return nil },
	"longer":               func(b []byte) []byte { return append(b, 0) },
	"flipped at the start": func(b []byte) []byte { b[0] ^= 1; return b },
	"flipped in the middle": func(b []byte) []byte {
		b[len(b)/2] ^= 0x10
		return b
	},
	"flipped at the end": func(b []byte) []byte { b[len(b)-1] ^= 0x80; return b },
	"zeroed":             func(b []byte) []byte { clear(b); return b },
}

// TestVerifyNamesEveryDamagedObject damages each kind of object in each way and expects Verify to name the object and,
// but for the frame, the partition.
func TestVerifyNamesEveryDamagedObject(t *testing.T) {
	folder := t.TempDir()
	r := openTest(t, folder)
	s := newSample(rng(80), "debian", "1", 1<<20, 100<<10, 2<<20)
	image, err := s.publish(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	p := &s.m.Partitions[1]
	packs, err := filepath.Glob(filepath.Join(folder, "packs", "*"))
	if err != nil || len(packs) < 1 {
		t.Fatal(packs, err)
	}
	objects := map[string]int{ // partition to be named; -1 none, -2 any
		manifestKey(image.Digest):                      -1,
		layerKey(s.m.Frame.Region[0].Digest):           -1,
		layerKey(p.Map.Digest):                         2,
		layerKey(p.PieceLayer.Digest):                  2,
		layerKey(p.TileLayer.Digest):                   2,
		placementKey(image.Digest, p):                  2,
		"packs/" + filepath.Base(packs[0]):             -2,
		layerKey(s.m.Partitions[0].Map.Digest):         1,
		placementKey(image.Digest, &s.m.Partitions[0]): 1,
	}
	for object, partition := range objects {
		name := filepath.Join(folder, filepath.FromSlash(object))
		whole, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		expect := func(way string) {
			t.Helper()
			// A new process: nothing of the pack is in memory.
			again, err := Open(t.Context(), r.bucket, Config{Spool: t.TempDir()})
			if err != nil {
				t.Fatal(err)
			}
			defer again.Close()
			err = again.Verify(t.Context(), image.Digest, nil)
			var found *DamageError
			if !errors.As(err, &found) {
				if way == "removed" && object == manifestKey(image.Digest) && errors.Is(err, ErrNoImage) {
					return // a missing manifest is no image
				}
				t.Errorf("%s %s: Verify says %v", object, way, err)
				return
			}
			for _, d := range found.Damage {
				if d.Object != object || (partition > -2 && d.Partition != partition) {
					t.Errorf("%s %s: damage found is %v", object, way, d)
				}
			}
		}
		for way, change := range ways {
			spoilFile(t, name, func(b []byte) []byte { return change(bytes.Clone(b)) })
			expect(way)
			spoilFile(t, name, func([]byte) []byte { return whole })
		}
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
		expect("removed")
		if err := os.WriteFile(name, whole, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Verify(t.Context(), image.Digest, nil); err != nil {
		t.Errorf("after repair: %v", err)
	}
}

// TestEachFlippedBitOfATileIsFoundAndItsPlaceNamed flips bits all over a pack's records.
func TestEachFlippedBitOfATileIsFoundAndItsPlaceNamed(t *testing.T) {
	folder := t.TempDir()
	r := openTest(t, folder)
	s := newSample(rng(81), "debian", "1", 1<<20, 700<<10)
	x := s.opened(t, r)
	image := x.Image()
	place := x.parts[0].placement
	entries, err := readIndex(t.Context(), r.bucket, place.packs[0])
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(folder, packKey(place.packs[0]))
	random := rng(82)
	for range 60 {
		rank := random.Int64N(place.tiles)
		e := entries[place.runs[0].ordinal+uint32(rank)]
		at := e.offset + random.Int64N(e.end()-e.offset)
		flip := func(b []byte) []byte { b[at] ^= 1 << random.IntN(8); return b }
		whole, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		spoilFile(t, name, flip)
		n := s.dataTiles(0)[rank]
		want := images.Extent{Offset: n * images.TileLength, Length: min(images.TileLength, s.m.Partitions[0].Length-n*images.TileLength)}
		err = r.Verify(t.Context(), image.Digest, nil)
		var found *DamageError
		if !errors.As(err, &found) || len(found.Damage) != 1 || found.Damage[0].Extent != want || found.Damage[0].Partition != 1 {
			t.Fatalf("byte %d of tile %d flipped: Verify says %v, want bytes %v", at-e.offset, n, err, want)
		}
		if !strings.Contains(err.Error(), "debian:1: partition 1, bytes "+want.String()) {
			t.Errorf("the message is %q", err)
		}
		forget(r.cache)
		var damage *Damage
		if _, err := x.Read(t.Context(), 0, s.dataTiles(0)); !errors.As(err, &damage) {
			t.Fatalf("Read says %v", err)
		}
		spoilFile(t, name, func([]byte) []byte { return whole })
	}
	s.expectContent(t, r, image.Digest)
}

func TestADamagedPackIsStoredAnew(t *testing.T) {
	folder := t.TempDir()
	r := openTest(t, folder)
	s := newSample(rng(83), "debian", "1", 1<<20, 1<<20)
	first, err := s.publish(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	packs, _ := filepath.Glob(filepath.Join(folder, "packs", "*"))
	for _, p := range packs {
		spoilFile(t, p, func(b []byte) []byte { return b[:len(b)-1] })
	}
	s.m.Version = "2"
	if _, err := s.publish(t.Context(), r); err == nil || !strings.Contains(err.Error(), "capture again") {
		t.Fatalf("publish from a damaged pack: %v", err)
	}
	image, err := s.publish(t.Context(), r)
	if err != nil {
		t.Fatalf("second try: %v", err)
	}
	for _, d := range []images.Digest{first.Digest, image.Digest} {
		if err := r.Verify(t.Context(), d, nil); err != nil {
			t.Errorf("after the tiles were captured again: %v", err)
		}
	}
}

// TestADamagedIndexCostsSpaceAndNeverContent spoils the local index in many ways.
func TestADamagedIndexCostsSpaceAndNeverContent(t *testing.T) {
	random := rng(84)
	for range 15 {
		folder := t.TempDir()
		b, err := OpenDir(folder)
		if err != nil {
			t.Fatal(err)
		}
		s := newSample(rng(85), "debian", "1", 1<<20, 1<<20)
		r, err := Open(t.Context(), b, Config{PackLength: 200 << 10})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.publish(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		runs, err := filepath.Glob(filepath.Join(folder, ".spool", "index", "run-*"))
		if err != nil || len(runs) == 0 {
			t.Fatal(runs, err)
		}
		spoilFile(t, runs[random.IntN(len(runs))], func(b []byte) []byte {
			for range 1 + random.IntN(20) {
				b[random.IntN(len(b))] ^= 1 << random.IntN(8)
			}
			if random.IntN(5) == 0 {
				b = b[:random.IntN(len(b))]
			}
			return b
		})
		if r, err = Open(t.Context(), b, Config{PackLength: 200 << 10}); err != nil {
			t.Fatal(err)
		}
		s.m.Version = "2"
		image, err := s.publish(t.Context(), r)
		if err != nil { // the index led astray, and it was noticed
			if !errors.Is(err, errLocation) && !strings.Contains(err.Error(), "handle") {
				t.Fatal(err)
			}
			if image, err = s.publish(t.Context(), r); err != nil {
				t.Fatalf("second try: %v", err)
			}
		}
		if err := r.Verify(t.Context(), image.Digest, nil); err != nil {
			t.Fatal(err)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestALostIndexIsRebuilt(t *testing.T) {
	folder := t.TempDir()
	b, err := OpenDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	s := newSample(rng(86), "debian", "1", 1<<20, 6<<20)
	for i := range 3 {
		r, err := Open(t.Context(), b, Config{PackLength: 100 << 10}) // more than mergeRuns packs
		if err != nil {
			t.Fatal(err)
		}
		before := packBytes(t, folder)
		s.m.Version = string(rune('1' + i))
		if _, err := s.publish(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		if i > 0 && packBytes(t, folder) != before {
			t.Errorf("tiles were stored again after the index was lost")
		}
		if n := len(r.index.runs); n >= mergeRuns {
			t.Errorf("%d runs are left", n)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		if err := os.RemoveAll(filepath.Join(folder, ".spool", "index")); err != nil {
			t.Fatal(err)
		}
	}
}

// FuzzSegment recovers segments from arbitrary bytes: whatever is found must be records that decode.
func FuzzSegment(f *testing.F) {
	s := newSample(rng(87), "x", "1", 1<<20, 300<<10)
	b := []byte(packMagic)
	var entries []entry
	for _, n := range s.dataTiles(0) {
		key, e := s.encode(0, n)
		entries = append(entries, entry{key: key, codec: e.Codec, length: int32(len(e.Bytes)), offset: int64(len(b))})
		b = appendRecord(b, key, e)
	}
	f.Add(b)
	index, _ := encodeIndex(entries, int64(len(b)))
	f.Add(append(bytes.Clone(b), index...))
	f.Add(b[:len(b)-7])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		p := newPowerFS(-1)
		file := &powerFile{p, "/segment", &inode{data: b}}
		found, err := recoverSegment(file)
		if err != nil {
			t.Fatal(err)
		}
		at := int64(len(packMagic))
		for _, e := range found.entries {
			if _, _, err := decodeRecord(b[e.offset:e.end()]); err != nil || e.offset != at {
				t.Fatalf("entry %+v: %v", e, err)
			}
			at = e.end()
		}
		if found.end > int64(len(b)) || (found.extra > 0 && !found.id.IsZero()) {
			t.Fatalf("%+v", found)
		}
	})
}

// FuzzIndex decodes pack indexes and placements from arbitrary bytes; what is accepted encodes to the same bytes.
func FuzzIndex(f *testing.F) {
	s := newSample(rng(88), "x", "1", 1<<20, 300<<10)
	var entries []entry
	end := int64(len(packMagic))
	for _, n := range s.dataTiles(0) {
		key, e := s.encode(0, n)
		entries = append(entries, entry{key: key, codec: e.Codec, length: int32(len(e.Bytes)), offset: end})
		end = entries[len(entries)-1].end()
	}
	index, id := encodeIndex(entries, end)
	f.Add(index[:len(index)-trailerLength], end)
	place := placement{encodedLength: 5, packs: []images.Digest{id, {}}}
	for i := range uint32(9) {
		place.add(i/6, i)
	}
	f.Add(place.encode(), int64(9))
	f.Fuzz(func(t *testing.T, b []byte, n int64) {
		if entries, err := decodeIndex(b, n); err == nil {
			again, _ := encodeIndex(entries, n)
			if !bytes.Equal(again[:len(again)-trailerLength], b) {
				t.Fatal("the index encodes to other bytes")
			}
		}
		if p, err := decodePlacement(b, n); err == nil && n > 0 {
			if p.tiles != n {
				t.Fatalf("%d tiles of %d", p.tiles, n)
			}
			for rank := int64(0); rank < min(n, 100); rank++ {
				if i := p.find(rank); i < 0 || p.runs[i].start > rank || p.end(i) <= rank || int(p.runs[i].pack) >= len(p.packs) {
					t.Fatalf("tile %d is in run %d", rank, i)
				}
			}
		}
	})
}

// TestRecoveryDoesNotCutOffAPack stops a process between the link of a pack and the end of its segment, and damages one
// record of what are now two names of one file. One tile is lost then, not all behind it.
func TestRecoveryDoesNotCutOffAPack(t *testing.T) {
	folder := t.TempDir()
	r := openTest(t, folder)
	image, err := newSample(rng(83), "debian", "1", 1<<20, 2<<20).publish(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	packs, err := filepath.Glob(filepath.Join(folder, "packs", "*"))
	if err != nil || len(packs) == 0 {
		t.Fatal(packs, err)
	}
	if err := os.Link(packs[0], filepath.Join(folder, ".spool", "journal", "00000099.segment")); err != nil {
		t.Fatal(err)
	}
	spoilFile(t, packs[0], func(b []byte) []byte { b[len(b)/2] ^= 1; return b })
	var found *DamageError
	if err := openTest(t, folder).Verify(t.Context(), image.Digest, nil); !errors.As(err, &found) {
		t.Fatal(err)
	}
	if len(found.Damage) != 1 || found.Damage[0].Extent.Length > images.TileLength {
		t.Errorf("one damaged record became %v", found)
	}
}

// FuzzPlacement feeds placements whose checksum is right. What is accepted names packs of its own list only.
func FuzzPlacement(f *testing.F) {
	p := &placement{encodedLength: 9, packs: []images.Digest{{1}, {2}}}
	for _, at := range [][2]uint32{{0, 3}, {0, 4}, {1, 0}, {0, 5}} {
		p.add(at[0], at[1])
	}
	whole := p.encode()
	f.Add(whole[:len(whole)-4], int64(4))
	f.Add([]byte(placementMagic+"\x00\x00\x01\x00\x00\x01"), int64(1)) // a run in a pack, but no packs
	f.Fuzz(func(t *testing.T, body []byte, tiles int64) {
		p, err := decodePlacement(binary.BigEndian.AppendUint32(body, crc32.Checksum(body, castagnoli)), tiles)
		if err != nil {
			return
		}
		for _, r := range p.runs {
			if int(r.pack) >= len(p.packs) || r.start >= p.tiles {
				t.Fatalf("run %+v of %d packs and %d tiles", r, len(p.packs), p.tiles)
			}
		}
	})
}
