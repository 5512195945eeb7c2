package repository

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"seedbed/images"
)

// holder is a machine that holds a sample on its disk.
type holder struct {
	*sample
	asked int
	lies  bool
}

func (h *holder) Tile(_ context.Context, _ images.Digest, partition int, tile int64, _ images.TileKey) ([]byte, error) {
	h.asked++
	b := bytes.Clone(h.sample.tile(partition, tile))
	if h.lies {
		b[len(b)/2] ^= 1
	}
	return b, nil
}

func (h *holder) Layer(_ context.Context, d images.Digest) ([]byte, error) {
	for _, b := range h.layers {
		if images.Sum(b) == d {
			return b, nil
		}
	}
	if raw, digest, err := h.m.Encode(); err == nil && digest == d {
		return raw, nil
	}
	return nil, os.ErrNotExist
}

func (h *holder) Sign(b []byte) []byte { return testSign(b) }

// expectDamage verifies and expects damage.
func expectDamage(t *testing.T, r *Repository, d images.Digest) []*Damage {
	t.Helper()
	var found *DamageError
	if err := r.Verify(t.Context(), d, nil); !errors.As(err, &found) {
		t.Fatalf("Verify says %v, want damage", err)
	}
	return found.Damage
}

// spoilPacks flips a bit in the records of all packs, every so many bytes.
func spoilPacks(t *testing.T, folder string, every int) {
	t.Helper()
	packs, err := filepath.Glob(filepath.Join(folder, "packs", "*"))
	if err != nil || len(packs) == 0 {
		t.Fatal(packs, err)
	}
	for _, name := range packs {
		spoilFile(t, name, func(b []byte) []byte {
			for i := every / 2; i < len(b)-len(b)/64-200; i += every {
				b[i] ^= 4
			}
			return b
		})
	}
}

func TestACaptureAfterVerifyStoresDamagedTilesAnew(t *testing.T) {
	folder := t.TempDir()
	r := openTest(t, folder)
	s := newSample(rng(600), "debian", "1", 1<<20, 4<<20)
	first := s.mustCapture(t, r, "")
	spoilPacks(t, folder, 300_000)
	damage := expectDamage(t, r, first.Digest)
	for _, again := range []*Repository{r, nil} {
		if again == nil { // another process knows it too
			b, err := OpenDir(folder)
			if err != nil {
				t.Fatal(err)
			}
			if again, err = Open(t.Context(), b, Config{Spool: t.TempDir()}); err != nil {
				t.Fatal(err)
			}
			defer again.Close()
		}
		image := s.mustCapture(t, again, "")
		if err := again.Verify(t.Context(), image.Digest, nil); err != nil {
			t.Errorf("captured again: %v", err)
		}
		s.expectContent(t, again, image.Digest)
	}
	report, err := r.Heal(t.Context(), first.Digest, damage, nil) // from what the captures stored
	if err != nil || len(report.Failed) > 0 || report.Tiles == 0 || report.Copied != report.Tiles {
		t.Errorf("heal: %+v, %v", report, err)
	}
	if err := r.Verify(t.Context(), first.Digest, nil); err != nil {
		t.Errorf("healed: %v", err)
	}
}

func TestTilesAreHealedFromAMachineForAllImages(t *testing.T) {
	folder := t.TempDir()
	r := openTest(t, folder)
	s := newSample(rng(610), "debian", "1", 1<<20, 700<<10, 6<<20)
	s.m.Frame.Table = "none"
	first := s.mustCapture(t, r, "")
	second := s.update(rng(611), 0.1).mustCapture(t, r, "")
	spoilPacks(t, folder, 150_000)
	damage := expectDamage(t, r, first.Digest)
	liar := &holder{sample: s, lies: true}
	report, err := r.Heal(t.Context(), first.Digest, damage, liar)
	if err != nil || report.Tiles > 0 || len(report.Failed) == 0 || !strings.Contains(report.Failed[0].Error(), "another hash") {
		t.Errorf("from one who lies: %+v, %v", report, err)
	}
	source := &holder{sample: s}
	report, err = r.Heal(t.Context(), first.Digest, damage, source)
	if err != nil || len(report.Failed) > 0 || report.Tiles == 0 || source.asked != report.Tiles {
		t.Errorf("%d tiles asked for, %+v, %v", source.asked, report, err)
	}
	if slices.Sort(report.Images); !slices.Equal(report.Images, []string{"debian:1", "debian:2"}) {
		t.Errorf("images healed: %v", report.Images)
	}
	if err := r.Verify(t.Context(), first.Digest, nil); err != nil {
		t.Errorf("healed: %v", err)
	}
	s.expectContent(t, r, first.Digest)
	rest := expectDamage(t, r, second.Digest) // of its own tiles
	for _, d := range rest {
		for _, other := range damage {
			if d.Partition == other.Partition && d.Extent == other.Extent && d.Extent.Length == images.TileLength && d.Object == other.Object {
				t.Errorf("%v was healed with the other image", d)
			}
		}
	}
}

func TestAnImageWithoutItsPacksIsHealed(t *testing.T) {
	folder := t.TempDir()
	r := openTest(t, folder)
	s := newSample(rng(620), "debian", "1", 1<<20, 3<<20)
	image := s.mustCapture(t, r, "")
	if err := os.RemoveAll(filepath.Join(folder, "packs")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(folder, "packs"), 0o700); err != nil {
		t.Fatal(err)
	}
	report, err := r.Heal(t.Context(), image.Digest, expectDamage(t, r, image.Digest), &holder{sample: s})
	if err != nil || len(report.Failed) > 0 {
		t.Errorf("%+v, %v", report, err)
	}
	if err := r.Verify(t.Context(), image.Digest, nil); err != nil {
		t.Error(err)
	}
}

// TestEveryObjectOfAnImageIsHealed damages each in several ways, or removes it.
func TestEveryObjectOfAnImageIsHealed(t *testing.T) {
	folder := t.TempDir()
	r := openTest(t, folder)
	s := newSample(rng(630), "debian", "1", 1<<20, 100<<10, 2<<20)
	image, err := s.publish(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	p := &s.m.Partitions[1]
	for _, object := range []string{manifestKey(image.Digest), layerKey(s.m.Frame.Region[0].Digest), layerKey(p.Map.Digest),
		layerKey(p.PieceLayer.Digest), layerKey(p.TileLayer.Digest), placementKey(image.Digest, p)} {
		for _, way := range []string{"cut by a byte", "flipped in the middle", "emptied", "removed"} {
			name := filepath.Join(folder, filepath.FromSlash(object))
			if list, err := filepath.Glob(name + ".g*"); err == nil && len(list) > 0 && strings.HasPrefix(object, "layers/") {
				name = list[0] // what was healed before
			}
			if way == "removed" {
				if object == manifestKey(image.Digest) {
					continue // Verify calls it no image
				}
				if err := os.Remove(name); err != nil {
					t.Fatal(err)
				}
			} else {
				spoilFile(t, name, ways[way])
			}
			report, err := r.Heal(t.Context(), image.Digest, expectDamage(t, r, image.Digest), &holder{sample: s})
			if err != nil || len(report.Failed) > 0 || len(report.Objects) != 1 {
				t.Errorf("%s %s: %+v, %v", object, way, report, err)
			}
			if err := r.Verify(t.Context(), image.Digest, nil); err != nil {
				t.Errorf("%s %s, healed: %v", object, way, err)
			}
			if strings.HasPrefix(object, "placements/") {
				break // a later generation hides it from now on
			}
		}
	}
	s.expectContent(t, r, image.Digest)
}

func TestVerifyAllNamesDamageForEveryImageThatHasIt(t *testing.T) {
	folder := t.TempDir()
	r := openTest(t, folder)
	s := newSample(rng(640), "debian", "1", 1<<20, 5<<20)
	var digests []images.Digest
	for range 3 {
		digests = append(digests, s.mustCapture(t, r, "").Digest)
		s = s.update(rng(641), 0.1)
	}
	var last Progress
	if err := r.VerifyAll(t.Context(), VerifyConfig{Progress: func(p Progress) { last = p }}); err != nil {
		t.Fatal(err)
	}
	if last.Done == 0 || last.Done > last.Total {
		t.Errorf("progress ended at %+v", last)
	}
	spoilPacks(t, folder, 400_000)
	var all *DamageError
	if err := r.VerifyAll(t.Context(), VerifyConfig{}); !errors.As(err, &all) {
		t.Fatal(err)
	}
	var want, got []string
	for _, d := range digests {
		for _, damage := range expectDamage(t, r, d) {
			want = append(want, damage.Image+" "+damage.Extent.String()+" "+damage.Object)
		}
	}
	for _, damage := range all.Damage {
		got = append(got, damage.Image+" "+damage.Extent.String()+" "+damage.Object)
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("VerifyAll found\n%v, Verify of each\n%v", got, want)
	}
}

func TestVerifyKeepsToItsRate(t *testing.T) {
	folder := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		r := openTest(t, folder)
		s := newSample(rng(650), "debian", "1", 1<<20, 8<<20)
		image := s.mustCapture(t, r, "")
		read := packBytes(t, folder)
		for _, speed := range []int64{read / 2, read / 20} {
			begun := time.Now()
			if err := r.VerifyAll(t.Context(), VerifyConfig{BytesPerSecond: speed}); err != nil {
				t.Fatal(err)
			}
			if got := float64(read) / time.Since(begun).Seconds() / float64(speed); got < 0.95 || got > 1.05 {
				t.Errorf("all at %d bytes a second: %.3f of it", speed, got)
			}
			begun = time.Now()
			if err := r.VerifyImage(t.Context(), image.Digest, VerifyConfig{BytesPerSecond: speed}); err != nil {
				t.Fatal(err)
			}
			if got := float64(read) / time.Since(begun).Seconds() / float64(speed); got < 0.95 || got > 1.05 {
				t.Errorf("an image at %d bytes a second: %.3f of it", speed, got)
			}
		}
	})
}
