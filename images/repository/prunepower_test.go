package repository

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"seedbed/images"
)

// life is a scenario of versions that come and go, on a file system that may lose power.
type life struct {
	samples map[images.Digest]*sample
	live    map[string]images.Digest // versions that exist for certain, by "name:version"
	maybe   map[string]bool          // versions whose removal or publication was cut short
}

func newLife() *life {
	return &life{samples: map[images.Digest]*sample{}, live: map[string]images.Digest{}, maybe: map[string]bool{}}
}

func (l *life) capture(ctx context.Context, r *Repository, s *sample, version string) error {
	l.maybe[s.m.Name+":"+version] = true
	p, err := s.captured(ctx, r, version)
	if err == nil {
		l.live[p.Name+":"+p.Version], l.samples[p.Digest] = p.Digest, s
		delete(l.maybe, s.m.Name+":"+version)
	}
	return err
}

func (l *life) remove(ctx context.Context, r *Repository, name, version string) error {
	delete(l.live, name+":"+version)
	l.maybe[name+":"+version] = true
	return r.Remove(ctx, name, version)
}

// check verifies that every version that must exist does, and that all that exist are whole.
func (l *life) check(ctx context.Context, r *Repository) error {
	list, err := r.Images(ctx)
	if err != nil {
		return err
	}
	there := map[string]images.Digest{}
	for _, i := range list {
		name := i.Name + ":" + i.Version
		if i.Problem != "" {
			return fmt.Errorf("image %s: %s", name, i.Problem)
		}
		if _, ok := l.live[name]; !ok && !l.maybe[name] {
			return fmt.Errorf("image %s was removed and is there", name)
		}
		there[name] = i.Digest
		if err := r.Verify(ctx, i.Digest, nil); err != nil {
			return err
		}
	}
	for name, d := range l.live {
		if there[name] != d {
			return fmt.Errorf("image %s is gone", name)
		}
	}
	return nil
}

// pruneWork lives through captures, removals and prunes, until it is done or the power fails.
func pruneWork(p *powerFS, l *life, a, b, c *sample) error {
	ctx := context.Background()
	r, err := openPower(p)
	if err != nil {
		return err
	}
	defer r.Close()
	steps := []func() error{
		func() error { return l.capture(ctx, r, a, "1") },
		func() error { return l.capture(ctx, r, b, "2") },
		func() error { time.Sleep(26 * time.Hour); return l.remove(ctx, r, "debian", "1") },
		func() error { _, err := r.Prune(ctx, PruneConfig{}); return err }, // compacts and marks
		func() error { time.Sleep(26 * time.Hour); return nil },
		func() error { return l.capture(ctx, r, c, "3") },
		func() error { _, err := r.Prune(ctx, PruneConfig{}); return err }, // sweeps
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// expectPruned checks that a scenario did everything that can be cut short.
func expectPruned(p *powerFS) error {
	r, err := openPower(p)
	if err != nil {
		return err
	}
	defer r.Close()
	time.Sleep(26 * time.Hour)
	images, err := r.live(context.Background())
	if err != nil {
		return err
	}
	compacted := 0
	for _, i := range images {
		for _, n := range i.generations {
			compacted += n - 1
		}
	}
	report, err := r.Prune(context.Background(), PruneConfig{DryRun: true})
	if err != nil || len(images) != 2 || compacted == 0 || report.Waiting.Objects+report.Deleted.Objects > 0 {
		return fmt.Errorf("%d images, %d placements written anew, %+v, %v", len(images), compacted, report, err)
	}
	return nil
}

// expectLife checks after a restart that all is whole, goes on to prune until nothing is left to do, and checks again.
func expectLife(p *powerFS, l *life, c *sample) error {
	ctx := context.Background()
	r, err := openPower(p)
	if err != nil {
		return err
	}
	defer r.Close()
	if err := l.check(ctx, r); err != nil {
		return fmt.Errorf("after the restart: %w", err)
	}
	for range 2 {
		time.Sleep(26 * time.Hour)
		if _, err := r.Prune(ctx, PruneConfig{}); err != nil {
			return fmt.Errorf("prune after the restart: %w", err)
		}
	}
	if err := l.check(ctx, r); err != nil {
		return fmt.Errorf("after pruning: %w", err)
	}
	if _, err := c.captured(ctx, r, ""); err != nil {
		return fmt.Errorf("capture again: %w", err)
	}
	return nil
}

func pruneSamples() (a, b, c *sample) {
	random := rng(500)
	a = newSample(random, "debian", "1", 1<<20, 300<<10, 100<<10)
	b = a.update(random, 1)
	return a, b, a.update(random, 0.1)
}

// TestAPowerCutWhilePruningLosesNoLiveImage cuts the power after each change that removing, marking, compacting, capturing
// and sweeping make to the file system, and loses what was not synced in each way.
func TestAPowerCutWhilePruningLosesNoLiveImage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, c := pruneSamples()
		whole := newPowerFS(-1)
		if err := pruneWork(whole, newLife(), a, b, c); err != nil {
			t.Fatal(err)
		}
		if err := expectPruned(whole); err != nil {
			t.Fatal(err)
		}
		step := 5
		if full() {
			step = 1
		}
		tried := map[string]bool{}
		for n := 0; n < whole.made; n += step {
			p, l := newPowerFS(n), newLife()
			_ = pruneWork(p, l, a, b, c)
			for _, loss := range losses {
				restarted := p.restart(loss, -1)
				state := fmt.Sprint(restarted.fingerprint(), l.live, l.maybe)
				if tried[state] {
					continue
				}
				tried[state] = true
				if err := expectLife(restarted, l, c); err != nil {
					t.Fatalf("power cut after change %d of %d, %s: %v", n, whole.made, loss.name, err)
				}
			}
		}
		t.Logf("%d changes, %d different disks", whole.made, len(tried))
	})
}

// full reports whether the long counts were asked for.
func full() bool { return os.Getenv("SEEDBED_FULL") == "1" }

// TestASecondPowerCutWhilePruningLosesNothingEither cuts the power at a random moment, goes on, and cuts it again.
func TestASecondPowerCutWhilePruningLosesNothingEither(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, c := pruneSamples()
		whole := newPowerFS(-1)
		if err := pruneWork(whole, newLife(), a, b, c); err != nil {
			t.Fatal(err)
		}
		rounds := 25
		if full() {
			rounds = 1000
		}
		random := rng(501)
		for range rounds {
			n := random.IntN(whole.made)
			p, l := newPowerFS(n), newLife()
			_ = pruneWork(p, l, a, b, c)
			first := losses[random.IntN(len(losses))]
			k := random.IntN(whole.made / 2)
			again := p.restart(first, k)
			_ = expectLife(again, l, c)
			for _, version := range "1234" { // what the capture at the end may have made, whichever number was next
				l.maybe["debian:"+string(version)] = true
			}
			last := losses[random.IntN(len(losses))]
			if err := expectLife(again.restart(last, -1), l, c); err != nil {
				t.Fatalf("cut after change %d (%s), then after %d (%s): %v", n, first.name, k, last.name, err)
			}
		}
	})
}

// appliances are two repositories on one bucket, each with its own spool, both on a file system that may lose power.
type appliances struct {
	t  *rapid.T
	p  *powerFS
	rs [2]*Repository
	*life
	pool     []*sample
	sessions []*openSession
	next     int
}

type openSession struct {
	*Session
	s     *sample
	stage int
}

func (a *appliances) open(i int) {
	b, err := openDir(a.p, "/srv/bucket")
	if err != nil {
		a.t.Fatal(err)
	}
	cfg := Config{Spool: fmt.Sprintf("/srv/spool%d", i), PackLength: 100 << 10, SealAfter: time.Hour, files: a.p}
	if a.rs[i], err = Open(context.Background(), b, cfg); err != nil {
		a.t.Fatal(err)
	}
}

func (a *appliances) close() {
	a.sessions = nil
	for _, r := range a.rs {
		_ = r.Close()
	}
}

func (a *appliances) pick() *Repository { return a.rs[rapid.IntRange(0, 1).Draw(a.t, "appliance")] }

func (a *appliances) sample() *sample { return rapid.SampledFrom(a.pool).Draw(a.t, "sample") }

func (a *appliances) actions() map[string]func(*rapid.T) {
	ctx := context.Background()
	return map[string]func(*rapid.T){
		"capture": func(t *rapid.T) {
			a.next++
			s := a.sample()
			if err := a.capture(ctx, a.pick(), s, fmt.Sprint(a.next)); err != nil {
				t.Fatal(err)
			}
		},
		"begin": func(t *rapid.T) {
			a.next++
			s := a.sample()
			session, err := a.pick().Begin(ctx, SessionConfig{Name: s.m.Name, Version: fmt.Sprint(a.next), Sign: testSign, Expire: 30 * time.Hour})
			if err != nil {
				t.Fatal(err)
			}
			a.sessions = append(a.sessions, &openSession{Session: session, s: s})
		},
		"go on": func(t *rapid.T) {
			if len(a.sessions) == 0 {
				return
			}
			k := rapid.IntRange(0, len(a.sessions)-1).Draw(t, "session")
			o := a.sessions[k]
			tiles := o.s.tiles()
			if o.stage++; o.stage < 3 {
				keys := make([]images.TileKey, len(tiles))
				for i := range tiles {
					keys[i] = tiles[i].Key
				}
				_, _ = o.Have(ctx, keys)
				_ = o.Put(ctx, tiles[:len(tiles)*o.stage/3])
				return
			}
			if p, err := o.s.capture(ctx, o.Session); err == nil {
				a.live[p.Name+":"+p.Version], a.samples[p.Digest] = p.Digest, o.s
			}
			o.Close()
			a.sessions = append(a.sessions[:k], a.sessions[k+1:]...)
		},
		"remove": func(t *rapid.T) {
			if len(a.live) == 0 {
				return
			}
			var names []string
			for i := range a.next + 1 {
				if name := fmt.Sprintf("debian:%d", i); !a.live[name].IsZero() {
					names = append(names, name)
				}
			}
			name := rapid.SampledFrom(names).Draw(t, "version")
			if err := a.remove(ctx, a.pick(), "debian", name[len("debian:"):]); err != nil {
				t.Fatal(err)
			}
			delete(a.maybe, name)
		},
		"prune": func(t *rapid.T) {
			if _, err := a.pick().Prune(ctx, PruneConfig{}); err != nil && !errors.Is(err, ErrPruning) {
				t.Fatal(err)
			}
		},
		"wait": func(t *rapid.T) {
			time.Sleep(time.Duration(rapid.IntRange(1, 30).Draw(t, "hours")) * time.Hour)
		},
		"crash": func(t *rapid.T) {
			for name := range a.live {
				a.maybe[name] = false
			}
			how := rapid.SampledFrom(losses).Draw(t, "loss")
			p := a.p
			a.p = p.restart(how, -1)
			p.mu.Lock()
			p.left = 0 // what the old processes do from now on is lost
			p.mu.Unlock()
			a.close()
			a.open(0)
			a.open(1)
		},
		"cut while pruning": func(t *rapid.T) {
			p := a.p
			p.mu.Lock()
			p.left = rapid.IntRange(0, 150).Draw(t, "changes")
			p.mu.Unlock()
			_, _ = a.pick().Prune(ctx, PruneConfig{})
			p.mu.Lock()
			p.left = 0
			p.mu.Unlock()
			a.p = p.restart(rapid.SampledFrom(losses).Draw(t, "loss"), -1)
			a.close()
			a.open(0)
			a.open(1)
		},
		"verify": func(t *rapid.T) {
			if err := a.check(ctx, a.pick()); err != nil {
				t.Fatal(err)
			}
		},
	}
}

// TestNoLiveImageEverLosesATile lets two appliances capture, remove, prune and crash in any order.
func TestNoLiveImageEverLosesATile(t *testing.T) {
	random := rng(510)
	base := newSample(random, "debian", "1", 1<<20, 600<<10, 200<<10)
	pool := []*sample{base, base.update(random, 0.1), base.update(random, 0.5), base.update(random, 1), newSample(random, "debian", "1", 8, 400<<10)}
	for _, s := range pool {
		s.tiles() // encoded once
	}
	rapid.Check(t, func(rt *rapid.T) {
		var failure any // rapid's, which does not pass from one goroutine to the other
		synctest.Test(t, func(*testing.T) {
			a := &appliances{t: rt, p: newPowerFS(-1), life: newLife(), pool: pool}
			a.open(0)
			a.open(1)
			defer func() {
				failure = recover()
				a.close()
			}()
			rt.Repeat(a.actions())
			if err := a.check(context.Background(), a.rs[0]); err != nil {
				rt.Fatal(err)
			}
		})
		if failure != nil {
			panic(failure)
		}
	})
}
