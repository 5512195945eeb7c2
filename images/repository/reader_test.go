package repository

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"seedbed/images"
)

func TestPartsHoldAllThatIsWantedAndLittleElse(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var wanted []wantedRecord
		for i := range rapid.IntRange(1, 60).Draw(t, "records") {
			start := int64(rapid.IntRange(0, 20<<20).Draw(t, "start"))
			length := int64(rapid.IntRange(49, maxRecordLength).Draw(t, "length"))
			wanted = append(wanted, wantedRecord{at: i, pack: rapid.IntRange(0, 2).Draw(t, "pack"), start: start, end: start + length})
		}
		useful := int64(0)
		for _, w := range wanted {
			useful += w.end - w.start
		}
		parts := partsOf(wanted)
		seen, fetched := map[int]bool{}, int64(0)
		for _, p := range parts {
			fetched += p.end - p.start
			if p.end-p.start > max(partLength, maxRecordLength) {
				t.Fatalf("a part of %d bytes", p.end-p.start)
			}
			for _, w := range p.wanted {
				if w.pack != p.pack || w.start < p.start || w.end > p.end || seen[w.at] {
					t.Fatalf("record %+v in part %+v", w, p)
				}
				seen[w.at] = true
			}
		}
		if len(seen) != len(wanted) || fetched > 2*useful+gapLength*int64(len(parts)) {
			t.Fatalf("%d of %d records, %d bytes fetched for %d", len(seen), len(wanted), fetched, useful)
		}
	})
}

func TestAFrameSaysWhereRecordsLie(t *testing.T) {
	s := newSynthetic(1, 1000, false)
	list, _ := s.entries(0)
	f := newFrame(list)
	for i, e := range list {
		if start, end := f.record(uint32(i)); start != e.offset || end != e.end() {
			t.Fatalf("record %d at [%d, %d), want [%d, %d)", i, start, end, e.offset, e.end())
		}
	}
	if f.count() != len(list) || f.size() > 2100 {
		t.Errorf("%d records in %d bytes", f.count(), f.size())
	}
}

func TestADamagedTileLayerConcernsItsPiecesOnly(t *testing.T) {
	folder := t.TempDir()
	r := openTest(t, folder)
	s := newSample(rng(90), "debian", "1", 1<<20, 24<<20)
	image, err := s.publish(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	layer := s.m.Partitions[0].TileLayer.Digest
	spoilFile(t, filepath.Join(folder, filepath.FromSlash(layerKey(layer))), func(b []byte) []byte { b[0] ^= 1; return b })
	x, err := r.OpenImage(t.Context(), image.Digest)
	if err != nil {
		t.Fatal(err)
	}
	bad := 0
	for piece := range x.Layout().Count() {
		data := x.Layout().Data(piece)
		if data.IsEmpty() {
			continue
		}
		_, err := x.ReadPiece(t.Context(), piece, data)
		var damage *Damage
		if errors.As(err, &damage) {
			if bad++; damage.Object != layerKey(layer) || damage.Partition != 1 || x.TileHashes(piece) != nil {
				t.Errorf("piece %d: %v", piece, err)
			}
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if bad != 1 {
		t.Errorf("%d pieces cannot be read, want 1", bad)
	}
	if err := r.Verify(t.Context(), image.Digest, nil); err == nil || !strings.Contains(err.Error(), layerKey(layer)) {
		t.Errorf("verify says %v", err)
	}
}

// Sequential readers share the cache: what one fetches ahead does not push out what another will need.
func TestManySequentialReadersStayWithinTheCache(t *testing.T) {
	folder := t.TempDir()
	s := newSynthetic(80, 8192, true)
	d := s.image(t, 16<<30, 5)
	synctest.Test(t, func(t *testing.T) {
		r, err := Open(t.Context(), slow{s, 30 * time.Millisecond, 100e6}, Config{Spool: folder, CacheLength: 32 << 20})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		x, err := r.OpenImage(t.Context(), d)
		if err != nil {
			t.Fatal(err)
		}
		s.count("")
		const readers, each = 6, 30
		var wg sync.WaitGroup
		for i := range readers {
			wg.Go(func() {
				for piece := 600 * i; piece < 600*i+each; piece++ {
					if _, err := x.ReadPiece(context.Background(), piece, x.shape.Data(piece)); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		if n := s.count("read packs/"); n > 4*readers*each {
			t.Errorf("%d requests for %d pieces", n, readers*each)
		}
		synctest.Wait()
		if n := held(r.cache); n > r.cache.limit {
			t.Errorf("the cache holds %d bytes, its limit is %d", n, r.cache.limit)
		}
	})
}

func TestATileOfAnotherPackIsNoReasonToFetchWhatLiesBetween(t *testing.T) {
	wanted := []wantedRecord{{0, 0, 0, 1000}, {1, 0, 1000, 2000}, {2, 0, 2000 + gapLength, 3000 + gapLength}, {3, 0, 4000 + 2*gapLength, 5000 + 2*gapLength}}
	parts := partsOf(wanted)
	if len(parts) != 2 || len(parts[0].wanted) != 3 || parts[1].start != 4000+2*gapLength {
		t.Errorf("%+v", parts)
	}
}

// told is a bucket whose objects the system keeps, and which notes what it is told.
type told struct {
	Bucket
	mu     sync.Mutex
	advice map[string][][2]int64 // by key: ranges
}

func (b *told) Advise(key string, offset, length int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.advice[key] = append(b.advice[key], [2]int64{offset, offset + length})
}

// length returns how many bytes were told of, and whether some were twice.
func (b *told) length() (n int64, twice bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, ranges := range b.advice {
		slices.SortFunc(ranges, func(p, q [2]int64) int { return cmp.Compare(p[0], q[0]) })
		for i, r := range ranges {
			n += r[1] - r[0]
			twice = twice || i > 0 && r[0] < ranges[i-1][1]
		}
	}
	return n, twice
}

func TestTheSystemIsToldWhatWillBeRead(t *testing.T) {
	folder := t.TempDir()
	for _, length := range []int64{1 << 30, 16 << 30} { // pieces shorter than a group, and of its length
		s := newSynthetic(80, 8192, true)
		d := s.image(t, length, 5)
		synctest.Test(t, func(t *testing.T) {
			bucket := &told{Bucket: s, advice: map[string][][2]int64{}}
			r, err := Open(t.Context(), bucket, Config{Spool: folder, CacheLength: 32 << 20})
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			x, err := r.OpenImage(t.Context(), d)
			if err != nil {
				t.Fatal(err)
			}
			read := func(piece, part int) { // a quarter of a piece
				var some images.TileSet
				n, i := x.shape.Data(piece).Len(), 0
				for tile := range x.shape.Data(piece).All() {
					if i*4/n == part {
						some.Add(tile)
					}
					i++
				}
				if _, err := x.ReadPiece(t.Context(), piece, some); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
			}
			per := x.EncodedLength() / int64(x.shape.Count()) // of a piece
			for _, piece := range []int{900, 100, 500, 300} { // here and there: the rest of the piece
				for part := range 4 {
					read(piece, part)
				}
			}
			n, twice := bucket.length()
			if n < 3*per || n > 6*per || twice {
				t.Errorf("told of %d bytes for 4 pieces of %d, some twice: %v", n, per, twice)
			}
			for piece := 1000; piece < 1040; piece += 2 { // two links side by side
				for part := range 4 {
					read(piece, part)
					read(piece+1, part)
				}
				if n, twice := bucket.length(); twice || n < per*int64(piece-1000) {
					t.Fatalf("after %d pieces told of %d bytes, some twice: %v", piece-998, n, twice)
				}
			}
			if after, _ := bucket.length(); after-n > 41*per+(groupsTold+2)*groupLength {
				t.Errorf("told of %d bytes where %d were read", after-n, 40*per)
			}
			if n := held(r.cache); n != 0 {
				t.Errorf("the cache keeps %d bytes, which the system keeps already", n)
			}
		})
	}
}

func TestTilesAreReadIntoMemoryOfTheCaller(t *testing.T) {
	r := openTest(t, t.TempDir())
	s := newSample(rng(91), "debian", "1", 1<<20, 24<<20)
	x := s.opened(t, r)
	buf := make([]byte, 4<<20)
	for piece := range x.Layout().Count() {
		data := x.Layout().Data(piece)
		want, err := x.ReadPiece(t.Context(), piece, data)
		if err != nil {
			t.Fatal(err)
		}
		for _, room := range []int{len(buf), 100, 0} {
			clear(buf)
			got, err := x.ReadPieceInto(t.Context(), piece, data, buf[:0:room])
			if err != nil || len(got) != len(want) {
				t.Fatalf("piece %d into %d bytes: %d tiles of %d, %v", piece, room, len(got), len(want), err)
			}
			inside := 0
			for i := range got {
				if got[i].Codec != want[i].Codec || got[i].Length != want[i].Length || !bytes.Equal(got[i].Bytes, want[i].Bytes) {
					t.Errorf("tile %d of piece %d into %d bytes differs", i, piece, room)
				}
				if bytes.Contains(buf, got[i].Bytes) {
					inside++
				}
			}
			if (room == len(buf)) != (inside > 0) && len(got) > 0 {
				t.Errorf("piece %d: %d of %d tiles lie in %d bytes of the caller", piece, inside, len(got), room)
			}
		}
	}
}
