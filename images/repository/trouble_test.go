package repository

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"seedbed/images"
	"seedbed/images/tile"
)

// unsteady is a bucket whose requests fail where fail says so, like object storage that does not answer for a moment.
type unsteady struct {
	Bucket
	mu   sync.Mutex
	fail func(what, key string) error // nil: nothing fails; guarded by mu, under which it is called
	read int64                        // bytes of packs that were asked for; guarded by mu
}

func (u *unsteady) failed(what, key string) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.fail == nil {
		return nil
	}
	return u.fail(what, key)
}

// failing sets what fails.
func (u *unsteady) failing(fail func(what, key string) error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.fail = fail
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
	if strings.HasPrefix(key, "packs/") {
		u.mu.Lock()
		u.read += length
		u.mu.Unlock()
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
	u.failing(func(what, key string) error {
		if strings.HasPrefix(key, "layers/") && what == "read" {
			down = true
		}
		if down && what != "put" {
			return errUnsteady
		}
		return nil
	})
	if _, err := s.captured(t.Context(), r, "2"); !errors.Is(err, errUnsteady) {
		t.Errorf("published: %v", err)
	}
	u.failing(nil)
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
		u.failing(func(what, key string) error {
			if what == "read" && strings.HasPrefix(key, prefix) {
				return errUnsteady
			}
			return nil
		})
		damage := expectDamage(t, r, image.Digest)
		if prefix != "packs/" {
			u.failing(nil)
		}
		held := &holder{sample: s}
		report, err := r.Heal(t.Context(), image.Digest, damage, held)
		u.failing(nil)
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
		u.failing(func(what, key string) error {
			if what == "put" {
				return errUnsteady
			}
			return nil
		})
		if err := c.renew(t.Context()); !errors.Is(err, errUnsteady) {
			t.Fatalf("renewed: %v", err)
		}
		u.failing(nil)
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
