package repository

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"seedbed/images"
	"seedbed/images/intake"
	"seedbed/images/tile"
)

// unsteady is a bucket whose requests fail where fail says so, like object storage that does not answer for a moment.
type unsteady struct {
	Bucket
	fail func(what, key string) error // nil: nothing fails; called after a put was done
}

func (u *unsteady) failed(what, key string) error {
	if u.fail == nil {
		return nil
	}
	return u.fail(what, key)
}

func (u *unsteady) Put(ctx context.Context, key string, r io.Reader, length int64) error {
	if err := u.failed("before put", key); err != nil {
		return err
	}
	err := u.Bucket.Put(ctx, key, r, length)
	if e := u.failed("put", key); e != nil && err == nil {
		return e
	}
	return err
}

func (u *unsteady) Read(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if err := u.failed("read", key); err != nil {
		return nil, err
	}
	return u.Bucket.Read(ctx, key, offset, length)
}

func openUnsteady(t *testing.T) (*Repository, *unsteady) {
	t.Helper()
	dir, err := OpenDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	u := &unsteady{Bucket: dir}
	r, err := Open(t.Context(), u, Config{Spool: t.TempDir(), PackLength: 300 << 10})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r, u
}

var errUnsteady = errors.New("no answer for a moment")

// TestStorageThatFailsWhileALayerIsComparedLosesNoLayer publishes a second image with the same layers: they cannot be read
// when that is found, and from then on nothing can be written.
func TestStorageThatFailsWhileALayerIsComparedLosesNoLayer(t *testing.T) {
	r, u := openUnsteady(t)
	s := newSample(rng(800), "debian", "1", 1<<20, 1<<20)
	first := s.mustCapture(t, r, "1")
	down := false
	u.fail = func(what, key string) error {
		if strings.HasPrefix(key, "layers/") && what == "read" {
			down = true
		}
		if down && what != "put" {
			return errUnsteady
		}
		return nil
	}
	if _, err := s.captured(t.Context(), r, "2"); !errors.Is(err, errUnsteady) {
		t.Errorf("published: %v", err)
	}
	u.fail = nil
	if err := r.Verify(t.Context(), first.Digest, nil); err != nil {
		t.Errorf("the image that was there: %v", err)
	}
}

// TestHealingWhatOnlyCouldNotBeReadTouchesNothing heals damage that was reported while storage did not answer.
func TestHealingWhatOnlyCouldNotBeReadTouchesNothing(t *testing.T) {
	r, u := openUnsteady(t)
	s := newSample(rng(801), "debian", "1", 1<<20, 1<<20)
	image := s.mustCapture(t, r, "1")
	for _, prefix := range []string{"layers/", "manifests/", "packs/"} {
		before := objects(t, r)
		u.fail = func(what, key string) error {
			if what == "read" && strings.HasPrefix(key, prefix) {
				return errUnsteady
			}
			return nil
		}
		damage := expectDamage(t, r, image.Digest)
		if prefix != "packs/" {
			u.fail = nil
		}
		held := &holder{sample: s}
		report, err := r.Heal(t.Context(), image.Digest, damage, held)
		u.fail = nil
		if err != nil || len(report.Objects) > 0 || report.Tiles > 0 || held.asked > 0 {
			t.Errorf("%s: %+v, %v", prefix, report, err)
		}
		if after := objects(t, r); after != before {
			t.Errorf("%s: objects were\n%s\nand are\n%s", prefix, before, after)
		}
		if err := r.Verify(t.Context(), image.Digest, nil); err != nil {
			t.Errorf("%s: %v", prefix, err)
		}
	}
}

// objects lists everything but claims.
func objects(t *testing.T, r *Repository) string {
	t.Helper()
	var b strings.Builder
	for o, err := range r.bucket.List(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(o.Key, "prune/") {
			b.WriteString(o.Key + "\n")
		}
	}
	return b.String()
}

// TestALayerIsHealedFromALaterGeneration needs nobody who has it.
func TestALayerIsHealedFromALaterGeneration(t *testing.T) {
	folder := t.TempDir()
	r := openTest(t, folder)
	s := newSample(rng(802), "debian", "1", 1<<20, 1<<20)
	image := s.mustCapture(t, r, "1")
	key := layerKey(s.m.Partitions[0].TileLayer.Digest)
	b, err := fetch(t.Context(), r.bucket, key, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.put(t.Context(), generationKey(key, 3), b); err != nil {
		t.Fatal(err)
	}
	spoilFile(t, filepath.Join(folder, filepath.FromSlash(key)), ways["flipped in the middle"])
	report, err := r.Heal(t.Context(), image.Digest, expectDamage(t, r, image.Digest), nil)
	if err != nil || len(report.Failed) > 0 {
		t.Errorf("%+v, %v", report, err)
	}
	if err := r.Verify(t.Context(), image.Digest, nil); err != nil {
		t.Error(err)
	}
}

// TestARenewalWhoseAnswerWasLostDoesNotCountFromItsRepetition: the claim lasts from when the bucket got it.
func TestARenewalWhoseAnswerWasLostDoesNotCountFromItsRepetition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPowerFS(-1)
		dir, err := openDir(p, "/srv/bucket")
		if err != nil {
			t.Fatal(err)
		}
		u := &unsteady{Bucket: dir}
		r, err := Open(t.Context(), u, Config{Spool: "/srv/spool", files: p})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		c, err := r.claim(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		c.stop()
		c.renewal.Wait()
		u.fail = func(what, key string) error {
			if what == "put" {
				return errUnsteady
			}
			return nil
		}
		if err := c.renew(t.Context()); !errors.Is(err, errUnsteady) {
			t.Fatalf("renewed: %v", err)
		}
		u.fail = nil
		time.Sleep(2 * time.Minute)
		if err := c.renew(t.Context()); err != nil {
			t.Fatal(err)
		}
		o, err := dir.Stat(t.Context(), claimKey(c.number))
		if err != nil || o.Modified.Before(c.renewed.wall) {
			t.Errorf("claim %d is of %v, it counts from %v, %v", c.number, o.Modified, c.renewed.wall, err)
		}
		c.release()
	})
}

// TestCompactionDoesNotSpreadAWrongTile: a record that is whole but holds other bytes than its key says, as memory that
// failed during a capture makes it, is not taken for a good record of the same key.
func TestCompactionDoesNotSpreadAWrongTile(t *testing.T) {
	r := openTest(t, t.TempDir())
	s := newSample(rng(803), "debian", "1", 1<<20, 1<<20)
	key, e := s.encode(0, s.dataTiles(0)[0])
	good := s.tile(0, s.dataTiles(0)[0])
	bad := append([]byte(nil), good...)
	bad[100] ^= 1
	wrong, err := tile.Encode(tile.Zstd, 0, bad)
	if err != nil {
		t.Fatal(err)
	}
	var packs []*packUse
	for _, one := range []tile.Encoded{wrong, e} {
		r.mu.Lock()
		segment, err := r.newSegment()
		r.mu.Unlock()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := segment.add(key, one); err != nil {
			t.Fatal(err)
		}
		if err := r.seal(t.Context(), segment); err != nil {
			t.Fatal(err)
		}
		u := &packUse{id: segment.id}
		if err := r.measurePack(t.Context(), u); err != nil {
			t.Fatal(err)
		}
		packs = append(packs, u)
	}
	if packs[0].id == packs[1].id {
		t.Fatal("both packs have one name")
	}
	m := newMover(r, packs, func(int64) {})
	for n := range packs {
		if err := m.add(t.Context(), recordAt{uint32(n), 0}); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.finish(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, moved := m.moved[recordAt{0, 0}]; moved || m.damaged != 1 {
		t.Errorf("the wrong tile was moved; %d damaged", m.damaged)
	}
	to := m.moved[recordAt{1, 0}]
	if ok, err := r.holds(t.Context(), Location{pack: mustHandle(t, r, m.fresh[to.pack]), ordinal: to.ordinal}, key); !ok || err != nil {
		t.Errorf("the good tile is not where it was moved to: %v", err)
	}
}

func mustHandle(t *testing.T, r *Repository, id images.Digest) uint32 {
	t.Helper()
	h, ok := r.packs.handle(id)
	if !ok {
		t.Fatalf("no pack %s", id)
	}
	return h
}

// unreadableFS gives read errors for index files, as a disk with a bad sector does.
type unreadableFS struct {
	fileSystem
	broken bool
}

type unreadableFile struct {
	file
	fs *unreadableFS
}

func (u *unreadableFS) Open(name string) (file, error) {
	f, err := u.fileSystem.Open(name)
	if err == nil && strings.Contains(name, "run-") {
		f = &unreadableFile{f, u}
	}
	return f, err
}

func (f *unreadableFile) ReadAt(b []byte, offset int64) (int, error) {
	if f.fs.broken {
		return 0, &os.PathError{Op: "read", Path: "index", Err: errors.New("input/output error")}
	}
	return f.file.ReadAt(b, offset)
}

func TestAnIndexFileThatCannotBeReadCostsSpaceOnly(t *testing.T) {
	p := newPowerFS(-1)
	u := &unreadableFS{fileSystem: p}
	r := openPruned(t, u, "/srv/spool")
	s := newSample(rng(804), "debian", "1", 1<<20, 1<<20)
	s.mustCapture(t, r, "1")
	u.broken = true
	second := s.mustCapture(t, r, "2")
	u.broken = false
	if err := r.Verify(t.Context(), second.Digest, nil); err != nil {
		t.Error(err)
	}
}

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
	u.fail = func(what, key string) error {
		if what == "read" && strings.HasPrefix(key, "images/") {
			return ErrNotExist
		}
		return nil
	}
	if _, err := r.Prune(t.Context(), PruneConfig{}); err == nil || !strings.Contains(err.Error(), "debian:1") {
		t.Errorf("pruned: %v", err)
	}
}
