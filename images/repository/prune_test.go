package repository

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"seedbed/images"
	"seedbed/images/intake"
)

// openPruned opens a repository with packs of some ten tiles on a file system in memory, whose clock is the test's.
func openPruned(t *testing.T, p fileSystem, spool string) *Repository {
	t.Helper()
	b, err := openDir(p, "/srv/bucket")
	if err != nil {
		t.Fatal(err)
	}
	r, err := Open(t.Context(), b, Config{Spool: spool, PackLength: 300 << 10, SealAfter: time.Hour, files: p})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

func mustPrune(t *testing.T, r *Repository) *PruneReport {
	t.Helper()
	report, err := r.Prune(t.Context(), PruneConfig{})
	if err != nil {
		t.Fatal(err)
	}
	return report
}

func (s *sample) mustCapture(t *testing.T, r *Repository, version string) *intake.Published {
	t.Helper()
	p, err := s.captured(t.Context(), r, version)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *powerFS) packs() (n int) {
	list, _ := p.ReadDir(filepath.FromSlash("/srv/bucket/packs"))
	return len(list)
}

func countObjects(t *testing.T, r *Repository, prefix string) (n int) {
	t.Helper()
	for _, err := range r.bucket.List(t.Context(), prefix) {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	return n
}

func TestWhatNoImageUsesGoesAfterTheGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPowerFS(-1)
		r := openPruned(t, p, "/srv/spool")
		first := newSample(rng(300), "debian", "1", 1<<20, 4<<20)
		second := newSample(rng(301), "debian", "2", 1<<20, 4<<20)
		gone := first.mustCapture(t, r, "1")
		kept := second.mustCapture(t, r, "2")
		x, err := r.OpenImage(t.Context(), gone.Digest)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(25 * time.Hour)
		if report := mustPrune(t, r); report.Marked.Objects+report.Deleted.Objects != 0 {
			t.Errorf("everything is in use: %+v", report)
		}
		if err := r.Remove(t.Context(), "debian", "1"); err != nil {
			t.Fatal(err)
		}
		before := p.packs()
		marked := mustPrune(t, r)
		if marked.Marked.Objects == 0 || marked.Deleted.Objects > 0 || p.packs() != before {
			t.Errorf("first run: %+v, %d of %d packs", marked, p.packs(), before)
		}
		first.expectRead(t, x, nil)
		time.Sleep(24 * time.Hour)
		if report := mustPrune(t, r); report.Deleted.Objects > 0 || report.Waiting != marked.Marked || !report.Next.Equal(marked.Next) {
			t.Errorf("a day later: %+v, want %+v waiting", report, marked.Marked)
		}
		time.Sleep(2 * time.Hour)
		if report, err := r.Prune(t.Context(), PruneConfig{DryRun: true}); err != nil || report.Deleted != marked.Marked {
			t.Errorf("dry run: %+v, %v", report, err)
		}
		if report := mustPrune(t, r); report.Deleted != marked.Marked {
			t.Errorf("after the grace: %+v, want %+v deleted", report, marked.Marked)
		}
		if n := p.packs(); n >= before || n == 0 {
			t.Errorf("%d of %d packs are left", n, before)
		}
		if n := countObjects(t, r, "manifests/"); n != 2 {
			t.Errorf("%d manifests and signatures are left, want 2", n)
		}
		if n := countObjects(t, r, "prune/marks/"); n != 0 {
			t.Errorf("%d mark lists are left", n)
		}
		second.expectContent(t, r, kept.Digest)
		first.expectRead(t, x, ErrNoImage)
		again := first.mustCapture(t, r, "")
		if again.Version != "3" {
			t.Errorf("captured again as version %s", again.Version)
		}
		first.expectContent(t, r, again.Digest)
	})
}

// expectRead reads the first partition through an open Reader.
func (s *sample) expectRead(t *testing.T, x *Reader, want error) {
	t.Helper()
	x.r.cache = newCache[groupKey, *records](x.r, 0) // nothing is read from memory
	if _, err := x.Read(t.Context(), 0, s.dataTiles(0)); !errors.Is(err, want) {
		t.Errorf("read: %v, want %v", err, want)
	}
}

// TestACaptureDoesNotBuildOnWhatIsMarked captures again what was removed and marked, in all orders of capture and prune.
func TestACaptureDoesNotBuildOnWhatIsMarked(t *testing.T) {
	for name, steps := range map[string][]string{
		"captured after the mark":                 {"mark", "capture", "sweep"},
		"begun before the mark, committed after":  {"begin", "mark", "commit", "sweep"},
		"begun and put before the mark":           {"begin", "put", "mark", "commit", "sweep"},
		"begun after the mark, committed later":   {"mark", "begin", "wait", "commit", "sweep"},
		"captured by another after the mark":      {"mark", "capture elsewhere", "sweep"},
		"begun elsewhere before the mark":         {"begin elsewhere", "mark", "commit", "sweep"},
		"begun elsewhere after the mark":          {"mark", "begin elsewhere", "put", "wait", "commit", "sweep"},
		"put elsewhere before the mark":           {"begin elsewhere", "put", "mark", "commit only", "sweep"},
		"captured after the sweep":                {"mark", "sweep", "capture"},
		"captured elsewhere after the sweep":      {"capture elsewhere", "mark", "sweep", "capture elsewhere"},
		"marked by another, captured, swept here": {"mark elsewhere", "capture", "sweep"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { captureAndPrune(t, steps) })
		})
	}
}

func captureAndPrune(t *testing.T, steps []string) {
	p := newPowerFS(-1)
	here, elsewhere := openPruned(t, p, "/srv/spool"), openPruned(t, p, "/srv/spool2")
	s := newSample(rng(310), "debian", "1", 1<<20, 3<<20)
	s.mustCapture(t, here, "")
	time.Sleep(25 * time.Hour)
	if err := here.Remove(t.Context(), "debian", "1"); err != nil {
		t.Fatal(err)
	}
	var session *Session
	begin := func(r *Repository) {
		var err error
		if session, err = r.Begin(t.Context(), SessionConfig{Name: "debian", Sign: testSign, Expire: 25 * time.Hour}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { session.Close() })
	}
	for _, step := range steps {
		switch step {
		case "mark":
			mustPrune(t, here)
			time.Sleep(time.Hour)
		case "mark elsewhere":
			mustPrune(t, elsewhere)
			time.Sleep(time.Hour)
		case "wait":
			time.Sleep(20 * time.Hour)
		case "sweep":
			time.Sleep(26 * time.Hour)
			if report := mustPrune(t, here); report.Deleted.Objects == 0 && report.Unmarked.Objects == 0 {
				t.Errorf("nothing was swept: %+v", report)
			}
		case "begin":
			begin(here)
		case "begin elsewhere":
			begin(elsewhere)
		case "put":
			if err := session.Put(t.Context(), s.tiles()); err != nil {
				t.Fatal(err)
			}
		case "commit":
			if _, err := s.capture(t.Context(), session); err != nil {
				t.Fatal(err)
			}
		case "commit only":
			if _, err := session.Commit(t.Context(), s.spec()); err != nil {
				t.Fatal(err)
			}
		case "capture":
			s.mustCapture(t, here, "")
		case "capture elsewhere":
			s.mustCapture(t, elsewhere, "")
		}
	}
	expectAllWhole(t, here)
}

func expectAllWhole(t *testing.T, r *Repository) {
	t.Helper()
	list, err := r.Images(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(list) == 0 {
		t.Error("no image is left")
	}
	for _, l := range list {
		if l.Problem != "" {
			t.Errorf("image %s:%s: %s", l.Name, l.Version, l.Problem)
		} else if err := r.Verify(context.WithoutCancel(t.Context()), l.Digest, nil); err != nil {
			t.Errorf("image %s:%s: %v", l.Name, l.Version, err)
		}
	}
}

func TestOneAtATimePrunes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPowerFS(-1)
		here, elsewhere := openPruned(t, p, "/srv/spool"), openPruned(t, p, "/srv/spool2")
		held, err := here.claim(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(3*time.Hour + time.Minute) // it is renewed, a minute ago for the last time
		if _, err := elsewhere.Prune(t.Context(), PruneConfig{}); !errors.Is(err, ErrPruning) {
			t.Errorf("beside another: %v, want ErrPruning", err)
		}
		held.stop() // as a process that hangs
		held.renewal.Wait()
		time.Sleep(claimExpiry - 2*time.Minute)
		if _, err := elsewhere.Prune(t.Context(), PruneConfig{}); !errors.Is(err, ErrPruning) {
			t.Errorf("nine minutes after the other hung: %v, want ErrPruning", err)
		}
		time.Sleep(4 * time.Minute)
		next, err := elsewhere.claim(t.Context())
		if err != nil {
			t.Fatalf("a quarter of an hour later: %v", err)
		}
		if err := held.check(t.Context()); !errors.Is(err, ErrPruning) {
			t.Errorf("the one that hung goes on: %v, want ErrPruning", err)
		}
		next.release()
		held.release()
		if _, err := here.Prune(t.Context(), PruneConfig{}); err != nil {
			t.Error(err)
		}
		if n := countObjects(t, here, claimPrefix); n > claimHistory+1 {
			t.Errorf("%d claim objects are left", n)
		}
		if _, err := here.Prune(t.Context(), PruneConfig{Grace: time.Hour}); err == nil {
			t.Error("a grace shorter than a capture was taken")
		}
	})
}

// TestOfManyTakersOneGetsTheClaim lets them try at once, again and again.
func TestOfManyTakersOneGetsTheClaim(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPowerFS(-1)
		r := openPruned(t, p, "/srv/spool")
		for round := range 20 {
			won := make(chan *claim, 8)
			for range cap(won) {
				go func() {
					c, err := r.claim(t.Context())
					if err != nil && !errors.Is(err, ErrPruning) {
						t.Error(err)
					}
					won <- c
				}()
			}
			var holders []*claim
			for range cap(won) {
				if c := <-won; c != nil && c.check(t.Context()) == nil {
					holders = append(holders, c)
				}
			}
			if len(holders) != 1 {
				t.Fatalf("round %d: %d have the claim", round, len(holders))
			}
			if round%2 == 0 {
				holders[0].release()
				continue
			}
			holders[0].stop()
			holders[0].renewal.Wait()
			time.Sleep(claimExpiry + time.Second)
		}
	})
}

func TestAnUnreadableImageKeepsEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPowerFS(-1)
		r := openPruned(t, p, "/srv/spool")
		image := newSample(rng(320), "debian", "1", 1<<20, 1<<20).mustCapture(t, r, "")
		newSample(rng(321), "ubuntu", "1", 1<<20, 1<<20).mustCapture(t, r, "")
		time.Sleep(25 * time.Hour)
		if err := r.Remove(t.Context(), "ubuntu", "1"); err != nil {
			t.Fatal(err)
		}
		mustPrune(t, r)
		time.Sleep(26 * time.Hour)
		before := p.packs()
		if err := r.bucket.Delete(t.Context(), placementKey(image.Digest, &images.Partition{Number: 1})); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Prune(t.Context(), PruneConfig{}); !errors.Is(err, ErrNotExist) || p.packs() != before {
			t.Errorf("with a placement lost: %v, %d of %d packs", err, p.packs(), before)
		}
	})
}

// hooked is a bucket that calls a function before the first delete of an object whose key has a prefix.
type hooked struct {
	Bucket
	prefix string
	hook   func()
}

func (h *hooked) Delete(ctx context.Context, key string) error {
	if hook := h.hook; hook != nil && strings.HasPrefix(key, h.prefix) {
		h.hook = nil
		hook()
	}
	return h.Bucket.Delete(ctx, key)
}

// TestACaptureThatCommitsDuringTheSweepLosesNothing commits between the look at what is in use and the first deletion.
func TestACaptureThatCommitsDuringTheSweepLosesNothing(t *testing.T) {
	for _, prefix := range []string{"layers/", "manifests/", "packs/", "placements/"} {
		for _, begun := range []string{"before the mark", "after the mark", "during the sweep"} {
			t.Run(prefix+" begun "+begun, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { commitDuringSweep(t, prefix, begun) })
			})
		}
	}
}

func commitDuringSweep(t *testing.T, prefix, begun string) {
	p := newPowerFS(-1)
	elsewhere := openPruned(t, p, "/srv/spool2")
	dir, err := openDir(p, "/srv/bucket")
	if err != nil {
		t.Fatal(err)
	}
	hook := &hooked{Bucket: dir, prefix: prefix}
	pruner, err := Open(t.Context(), hook, Config{Spool: "/srv/spool", files: p})
	if err != nil {
		t.Fatal(err)
	}
	defer pruner.Close()
	s := newSample(rng(330), "debian", "1", 1<<20, 3<<20)
	s.mustCapture(t, elsewhere, "")
	newSample(rng(331), "ubuntu", "1", 1<<20, 1<<20).mustCapture(t, elsewhere, "")
	time.Sleep(25 * time.Hour)
	if err := elsewhere.Remove(t.Context(), "debian", "1"); err != nil {
		t.Fatal(err)
	}
	var session *Session
	begin := func() {
		var err error
		if session, err = elsewhere.Begin(t.Context(), SessionConfig{Name: "debian", Sign: testSign, Expire: 100 * time.Hour}); err != nil {
			t.Fatal(err)
		}
		if err := session.Put(t.Context(), s.tiles()); err != nil {
			t.Fatal(err)
		}
	}
	if begun == "before the mark" {
		begin()
	}
	mustPrune(t, pruner)
	time.Sleep(24 * time.Hour)
	if begun == "after the mark" {
		begin()
	}
	time.Sleep(2 * time.Hour)
	reached := false
	hook.hook = func() {
		reached = true
		if begun == "during the sweep" {
			begin()
		}
		_, err := session.Commit(t.Context(), s.spec())
		if begun == "before the mark" {
			if !errors.Is(err, intake.ErrExpired) {
				t.Errorf("commit after the grace: %v, want ErrExpired", err)
			}
		} else if err != nil {
			t.Error(err)
		}
		session.Close()
	}
	mustPrune(t, pruner)
	if !reached {
		t.Error("nothing was swept")
	}
	expectAllWhole(t, elsewhere)
	expectAllWhole(t, pruner)
}
