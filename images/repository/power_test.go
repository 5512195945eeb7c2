package repository

import (
	"context"
	"fmt"
	"testing"
	"time"

	"seedbed/images"
)

// outcome is what a program was told before its power failed.
type outcome struct {
	acknowledged []images.TileKey         // by Sync
	published    map[string]images.Digest // by Publish
}

// openPower opens a repository on a file system that may lose power.
func openPower(p *powerFS) (*Repository, error) {
	b, err := openDir(p, "/srv/bucket")
	if err != nil {
		return nil, err
	}
	return Open(context.Background(), b, Config{Spool: "/srv/spool", PackLength: 60 << 10, SealAfter: time.Hour, files: p})
}

// work captures two images into packs of some ten tiles until it is done or the power fails.
func work(p *powerFS, first, second *sample) (o outcome, err error) {
	o.published = map[string]images.Digest{}
	r, err := openPower(p)
	if err != nil {
		return o, err
	}
	defer r.Close()
	for _, s := range []*sample{first, second} {
		d, err := s.put(context.Background(), r)
		if err != nil {
			return o, err
		}
		if err := r.Sync(); err != nil {
			return o, err
		}
		o.acknowledged = append(o.acknowledged, s.allKeys()...)
		image, err := r.Publish(context.Background(), d)
		if err != nil {
			return o, err
		}
		o.published[s.m.Name] = image.Digest
	}
	return o, nil
}

// allKeys returns the keys of all data tiles.
func (s *sample) allKeys() (list []images.TileKey) {
	for i := range s.maps {
		for _, n := range s.dataTiles(i) {
			key, _ := s.encode(i, n)
			list = append(list, key)
		}
	}
	return list
}

// expectWhole checks after a restart that every promise is kept, that every image that exists is whole, and that
// capturing again succeeds.
func expectWhole(p *powerFS, o outcome, samples ...*sample) error {
	ctx := context.Background()
	r, err := openPower(p)
	if err != nil {
		return err
	}
	defer r.Close()
	for _, key := range o.acknowledged {
		if _, ok, err := r.Find(key); !ok || err != nil {
			return fmt.Errorf("tile %v was acknowledged and is gone: %v", key, err)
		}
	}
	list, err := r.Images(ctx)
	if err != nil {
		return err
	}
	there := map[images.Digest]bool{}
	for _, l := range list {
		if l.Problem != "" {
			return fmt.Errorf("image %s: %s", l.Name, l.Problem)
		}
		there[l.Digest] = true
		if err := r.Verify(ctx, l.Digest, nil); err != nil {
			return err
		}
	}
	for name, d := range o.published {
		if !there[d] {
			return fmt.Errorf("image %s was published and is gone", name)
		}
	}
	for _, s := range samples {
		image, err := s.publish(ctx, r)
		if err != nil {
			return fmt.Errorf("capture again: %w", err)
		}
		if there[image.Digest] {
			continue // verified above
		}
		if err := r.Verify(ctx, image.Digest, nil); err != nil {
			return fmt.Errorf("captured again: %w", err)
		}
	}
	files, err := p.ReadDir("/srv/spool/journal")
	if err != nil || len(files) != 0 {
		return fmt.Errorf("%d segments are left in the spool, %v", len(files), err)
	}
	return nil
}

// TestAPowerCutAtAnyChangeLosesNothingPromised cuts the power after each change to the file system that two captures
// make, loses in each way what was not synced, and restarts.
func TestAPowerCutAtAnyChangeLosesNothingPromised(t *testing.T) {
	first := newSample(rng(70), "first", "1", 1<<20, 300<<10, 70_144)
	second := newSample(rng(71), "second", "1", 1<<20, 512, 200<<10)
	whole := newPowerFS(-1)
	if _, err := work(whole, first, second); err != nil {
		t.Fatal(err)
	}
	if whole.made < 80 {
		t.Fatalf("only %d changes", whole.made)
	}
	tried := map[string]bool{}
	for n := range whole.made {
		p := newPowerFS(n)
		o, err := work(p, first, second)
		if err == nil {
			// The last changes remove what the next start would remove.
			if len(o.published) != 2 {
				t.Fatalf("after %d changes: no error, %d images", n, len(o.published))
			}
		}
		for _, l := range losses {
			restarted := p.restart(l, -1)
			state := fmt.Sprint(restarted.fingerprint(), len(o.acknowledged), len(o.published))
			if tried[state] {
				continue
			}
			tried[state] = true
			if err := expectWhole(restarted, o, first, second); err != nil {
				t.Errorf("power cut after change %d of %d, %s: %v", n, whole.made, l.name, err)
			}
		}
		if t.Failed() {
			return
		}
	}
	t.Logf("%d changes, %d different disks", whole.made, len(tried))
}

// TestASecondPowerCutDuringRecoveryLosesNothingEither cuts the power, or kills the process, and cuts the power again
// somewhere in the run that follows.
func TestASecondPowerCutDuringRecoveryLosesNothingEither(t *testing.T) {
	first := newSample(rng(72), "first", "1", 1<<20, 300<<10)
	second := newSample(rng(73), "second", "1", 1<<20, 250<<10)
	whole := newPowerFS(-1)
	if _, err := work(whole, first, second); err != nil {
		t.Fatal(err)
	}
	random := rng(74)
	for range 400 {
		n := random.IntN(whole.made)
		p := newPowerFS(n)
		before, _ := work(p, first, second)
		l := losses[random.IntN(len(losses))]
		k := random.IntN(whole.made / 2)
		how := l.name
		var again *powerFS
		if random.IntN(3) == 0 {
			again, how = p.restartProcess(k), "the process is killed"
		} else {
			again = p.restart(l, k)
		}
		after, _ := work(again, first, second)
		for name, d := range before.published {
			after.published[name] = d
		}
		after.acknowledged = append(after.acknowledged, before.acknowledged...)
		last := losses[random.IntN(len(losses))]
		if err := expectWhole(again.restart(last, -1), after, first, second); err != nil {
			t.Fatalf("cut after change %d (%s), then after %d (%s): %v", n, how, k, last.name, err)
		}
	}
}
