package repository

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"seedbed/images"
)

// update changes a share of the data tiles, one to three at a time, and returns the next version.
func (s *sample) update(rng *rand.Rand, share float64) *sample {
	m := *s.m
	m.Partitions = slices.Clone(s.m.Partitions)
	u := &sample{m: &m, maps: s.maps, layers: slices.Clone(s.layers), encoded: s.encoded}
	for i, c := range s.content {
		c = bytes.Clone(c)
		keys := slices.Clone(s.keys[i])
		u.content, u.keys = append(u.content, c), append(u.keys, keys)
		tiles := s.dataTiles(i)
		for k := 0; k < len(tiles); k++ {
			if rng.Float64() > share/2 {
				continue
			}
			for n := 1 + rng.IntN(3); n > 0 && k < len(tiles); n-- {
				fillTile(u.tile(i, tiles[k]), 1<<20+rng.IntN(1<<22))
				keys[tiles[k]] = images.TileKey{}
				k++
			}
		}
		var layer []byte
		for _, t := range tiles {
			key, _ := u.encode(i, t)
			layer = append(layer, key.Hash[:]...)
		}
		m.Partitions[i].TileLayer = u.layer(layer)
	}
	return u
}

// readsPerPiece counts the requests for packs that reading an image piece by piece takes.
func readsPerPiece(t *testing.T, r *Repository, d images.Digest) float64 {
	t.Helper()
	x, err := r.OpenImage(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	reads, pieces := 0, 0
	for piece := range x.shape.Count() {
		n := x.shape.Data(piece).Len()
		if n == 0 {
			continue
		}
		ranks := make([]int64, n)
		for i := range ranks {
			ranks[i] = x.before[piece] + int64(i)
		}
		wanted, _, err := x.locate(t.Context(), x.parts[x.shape.Span(piece).Partition].placement, ranks)
		if err != nil {
			t.Fatal(err)
		}
		reads, pieces = reads+len(partsOf(wanted)), pieces+1
	}
	return float64(reads) / float64(pieces)
}

// packLength returns the bytes of all packs.
func packLength(t *testing.T, r *Repository) (n int64) {
	t.Helper()
	for o, err := range r.bucket.List(t.Context(), "packs/") {
		if err != nil {
			t.Fatal(err)
		}
		n += o.Length
	}
	return n
}

// settle prunes three times, a grace apart: compact, mark, sweep.
func settle(t *testing.T, r *Repository) (first *PruneReport) {
	t.Helper()
	time.Sleep(26 * time.Hour)
	first = mustPrune(t, r)
	for range 2 {
		time.Sleep(26 * time.Hour)
		mustPrune(t, r)
	}
	return first
}

// TestFiveVersionsStayNearTogether updates an image five times, 5 % each, and reads every version with at most four
// requests a piece afterwards, without one tile stored twice.
func TestFiveVersionsStayNearTogether(t *testing.T) {
	for _, piece := range []int64{256 << 10, 4 << 20} {
		synctest.Test(t, func(t *testing.T) {
			p := newPowerFS(-1)
			b, err := openDir(p, "/srv/bucket")
			if err != nil {
				t.Fatal(err)
			}
			r, err := Open(t.Context(), b, Config{Spool: "/srv/spool", PackLength: 8 << 20, files: p})
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			random := rng(400)
			s := newSample(random, "debian", "1", 1<<20, 300<<10, 64<<20)
			s.m.PieceLength = piece
			var samples []*sample
			var digests []images.Digest
			for range 6 {
				digests = append(digests, s.mustCapture(t, r, "").Digest)
				samples = append(samples, s)
				s = s.update(random, 0.05)
				time.Sleep(time.Hour)
			}
			before := packLength(t, r)
			worst := 0.0
			for _, d := range digests {
				worst = max(worst, readsPerPiece(t, r, d))
			}
			report := settle(t, r)
			t.Logf("pieces of %d bytes: %+v", piece, report.Compact)
			now := 0.0
			for i, d := range digests {
				n := readsPerPiece(t, r, d)
				now = max(now, n)
				if n > maxReads {
					t.Errorf("version %d: %.1f reads per piece", i+1, n)
				}
				samples[i].expectContent(t, r, d)
			}
			after := packLength(t, r)
			t.Logf("reads per piece at most %.1f before, %.1f after; packs %d bytes before, %d after", worst, now, before, after)
			if after > before*101/100 {
				t.Errorf("packs grew from %d to %d bytes", before, after)
			}
			if again := mustPrune(t, r); again.Compact.Written > 0 || again.Marked.Objects > 0 || again.Deleted.Objects > 0 {
				t.Errorf("there is more to do: %+v", again)
			}
		})
	}
}

// TestPacksWithManyDeadTilesAreRewritten removes old versions, with an open Reader on the newest.
func TestPacksWithManyDeadTilesAreRewritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPowerFS(-1)
		r := openPruned(t, p, "/srv/spool")
		random := rng(410)
		s := newSample(random, "debian", "1", 1<<20, 16<<20)
		s.mustCapture(t, r, "1")
		newest := s.update(random, 0.9)
		image := newest.mustCapture(t, r, "2")
		x, err := r.OpenImage(t.Context(), image.Digest)
		if err != nil {
			t.Fatal(err)
		}
		before := packLength(t, r)
		if err := r.Remove(t.Context(), "debian", "1"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(26 * time.Hour)
		if report, err := r.Prune(t.Context(), PruneConfig{MaxRewrite: 200 << 10}); err != nil || report.Compact.Written > 200<<10 || report.Compact.Left == 0 {
			t.Errorf("with a bound of 200 KiB: %+v, %v", report, err)
		}
		report := settle(t, r)
		t.Logf("%+v", report.Compact)
		want := int64(0)
		for _, key := range newest.allKeys() {
			want += int64(len(newest.encoded[key].Bytes)) + recordHeaderLength
		}
		if after := packLength(t, r); after > want*7/5 || after >= before {
			t.Errorf("packs have %d bytes, before %d; the image has %d", after, before, want)
		}
		newest.expectContent(t, r, image.Digest)
		if err := r.Verify(t.Context(), image.Digest, nil); err != nil {
			t.Error(err)
		}
		newest.expectRead(t, x, nil) // opened before the packs went
		again := newest.update(random, 0)
		if p := again.mustCapture(t, r, ""); p.Version != "3" {
			t.Errorf("version %s", p.Version)
		}
		if grown := packLength(t, r); grown > want*7/5 {
			t.Errorf("the same tiles were stored again: %d bytes", grown)
		}
	})
}
