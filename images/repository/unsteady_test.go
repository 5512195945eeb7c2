package repository

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"seedbed/images"
	"seedbed/images/intake"
	"seedbed/images/tile"
)

// givingBack has a little room again when a segment is removed.
type givingBack struct{ *fullFS }

func (g givingBack) Remove(name string) error {
	if strings.HasSuffix(name, ".segment") {
		g.mu.Lock()
		g.left = max(g.left, 20_000)
		g.mu.Unlock()
	}
	return g.fullFS.Remove(name)
}

// TestAFullDiskIsPruned: there is no room to rewrite packs, but what no image uses is marked, and goes.
func TestAFullDiskIsPruned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		full := &fullFS{fileSystem: newPowerFS(-1), left: 1 << 40}
		r := openPruned(t, givingBack{full}, "/srv/spool")
		s := newSample(rng(805), "debian", "1", 1<<20, 2<<20)
		s.mustCapture(t, r, "1")
		s.update(rng(806), 0.7).mustCapture(t, r, "2")
		newSample(rng(807), "ubuntu", "1", 1<<20, 2<<20).mustCapture(t, r, "1")
		time.Sleep(26 * time.Hour)
		for _, name := range []string{"debian", "ubuntu"} {
			if err := r.Remove(t.Context(), name, "1"); err != nil {
				t.Fatal(err)
			}
		}
		full.room(20_000)
		report, err := r.Prune(t.Context(), PruneConfig{})
		if !errors.Is(err, intake.ErrFull) || report.Marked.Bytes < 500_000 {
			t.Fatalf("on a full disk: %+v, %v", report, err)
		}
		time.Sleep(26 * time.Hour)
		full.room(20_000)
		if report, err = r.Prune(t.Context(), PruneConfig{}); report.Deleted.Bytes < 500_000 {
			t.Errorf("after the grace: %+v, %v", report, err)
		}
		expectAllWhole(t, r)
		full.room(1 << 40)
		if report, err = r.Prune(t.Context(), PruneConfig{}); err != nil {
			t.Errorf("with room again: %+v, %v", report, err)
		}
		expectAllWhole(t, r)
	})
}

// TestLeftoversOfTheClockAndStrangersDoNotStay: nor keep others from being pruned.
func TestLeftoversOfTheClockAndStrangersDoNotStay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := openPruned(t, newPowerFS(-1), "/srv/spool")
		newSample(rng(808), "debian", "1", 1<<20, 1<<20).mustCapture(t, r, "1")
		for _, key := range []string{clockPrefix + "aa", "images/stranger", "images/a/b/c"} {
			if err := r.put(t.Context(), key, []byte("x")); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(26 * time.Hour)
		mustPrune(t, r)
		if n := countObjects(t, r, clockPrefix); n > 0 {
			t.Errorf("%d are left", n)
		}
		expectAllWhole(t, r)
	})
}

// TestVerifyGoesOnWherePacksWereRewritten verifies so slowly that a prune rewrites and deletes packs meanwhile.
func TestVerifyGoesOnWherePacksWereRewritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPowerFS(-1)
		r := openPruned(t, p, "/srv/spool")
		s := newSample(rng(805), "debian", "1", 1<<20, 2<<20)
		s.mustCapture(t, r, "1")
		second := s.update(rng(806), 0.7).mustCapture(t, r, "2")
		if err := r.Remove(t.Context(), "debian", "1"); err != nil {
			t.Fatal(err)
		}
		done := make(chan error)
		go func() { done <- r.VerifyImage(t.Context(), second.Digest, VerifyConfig{BytesPerSecond: 2}) }()
		var rewritten, deleted int
		for range 3 {
			time.Sleep(26 * time.Hour)
			report := mustPrune(t, r)
			rewritten, deleted = rewritten+report.Compact.Packs, deleted+report.Deleted.Objects
		}
		if rewritten == 0 || deleted == 0 {
			t.Errorf("%d packs were rewritten, %d objects deleted", rewritten, deleted)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// TestAnImageThatIsListedAndNotFoundIsNotTakenForRemoved: a proxy in front of object storage may answer 404 for it.
func TestAnImageThatIsListedAndNotFoundIsNotTakenForRemoved(t *testing.T) {
	r, u := openUnsteady(t)
	newSample(rng(811), "debian", "1", 1<<20, 1<<20).mustCapture(t, r, "1")
	u.failing(func(what, key string) error {
		if what == "read" && strings.HasPrefix(key, "images/") {
			return ErrNotExist
		}
		return nil
	})
	if _, err := r.Prune(t.Context(), PruneConfig{}); err == nil || !strings.Contains(err.Error(), "debian:1") {
		t.Errorf("pruned: %v", err)
	}
}

// TestVerifyReadsEachByteOnce: it is told how much it may read a second, and object storage takes money for it.
func TestVerifyReadsEachByteOnce(t *testing.T) {
	r, u := openUnsteady(t)
	image := newSample(rng(812), "debian", "1", 1<<20, 8<<20).mustCapture(t, r, "1")
	stored := int64(0)
	for o, err := range r.bucket.List(t.Context(), "packs/") {
		if err != nil {
			t.Fatal(err)
		}
		stored += o.Length
	}
	u.mu.Lock()
	u.read = 0
	u.mu.Unlock()
	if err := r.Verify(t.Context(), image.Digest, nil); err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil { // when what was begun has ended
		t.Fatal(err)
	}
	if u.read > stored*3/2 {
		t.Errorf("%d bytes of packs of %d were read", u.read, stored)
	}
}

// TestATileThatIsWantedTwiceBeforeAGapOfItsLength: from the first to the last record there are then as many bytes as the
// records have that are wanted.
func TestATileThatIsWantedTwiceBeforeAGapOfItsLength(t *testing.T) {
	r := openTest(t, t.TempDir())
	s := newSample(rng(814), "debian", "1", 1<<20, 8*images.TileLength)
	u := s.update(rng(1), 0)
	tiles := u.dataTiles(0)
	pool := make([]byte, images.TileLength)
	var layer []byte
	for n := range len(tiles) + 2 { // the pack has all of them in order, each of one length
		fillTile(pool, n)
		if _, err := r.Put(t.Context(), tile.KeyOf(pool), tile.Encoded{Codec: tile.Stored, Length: images.TileLength, Bytes: bytes.Clone(pool)}); err != nil {
			t.Fatal(err)
		}
	}
	for k, at := range tiles {
		if k%3 == 2 {
			fillTile(u.tile(0, at), k)
		} else {
			fillTile(u.tile(0, at), k-k%3) // 0 0 2, 3 3 5
		}
		u.keys[0][at] = images.TileKey{}
		key, _ := u.encode(0, at)
		layer = append(layer, key.Hash[:]...)
	}
	u.m.Partitions[0].TileLayer = u.layer(layer)
	image := u.mustCapture(t, r, "")
	u.expectContent(t, r, image.Digest)
	if err := r.Verify(t.Context(), image.Digest, nil); err != nil {
		t.Error(err)
	}
}
