package repository

import (
	"math/rand/v2"
	"testing"

	"seedbed/images"
	"seedbed/images/intake"
)

func TestUsageCountsWhatVersionsShare(t *testing.T) {
	r := openTest(t, t.TempDir())
	s := newSample(rng(700), "debian", "1", 40, 300<<10, 6<<20)
	u := s.update(rng(701), 0.3)
	first, second := s.mustCapture(t, r, ""), u.mustCapture(t, r, "")
	alone := newSample(rng(702), "ubuntu", "1", 1<<21, 1<<20).mustCapture(t, r, "")
	length := func(s *sample, not *sample) (encoded, stored int64) {
		seen := map[images.TileKey]bool{}
		if not != nil {
			for _, key := range not.allKeys() {
				seen[key] = true
			}
		}
		for _, key := range s.allKeys() {
			if !seen[key] {
				seen[key] = true
				encoded += int64(len(s.encoded[key].Bytes))
				stored += int64(len(s.encoded[key].Bytes)) + recordHeaderLength
			}
		}
		return encoded, stored
	}
	for _, c := range []struct {
		p      *intake.Published
		s, not *sample
		shares string
	}{{first, s, u, "debian:2"}, {second, u, s, "debian:1"}} {
		got, err := r.Usage(t.Context(), c.p.Digest)
		if err != nil {
			t.Fatal(err)
		}
		encoded, stored := length(c.s, nil)
		_, unique := length(c.s, c.not)
		if got.Encoded != encoded || got.Stored != stored || got.Unique != unique || len(got.Shared) != 1 ||
			got.Shared[0] != (Share{c.shares, stored - unique}) || got.Packs == 0 {
			t.Errorf("version %s: %+v, want encoded %d, stored %d, unique %d", c.p.Version, got, encoded, stored, unique)
		}
	}
	if got, err := r.Usage(t.Context(), alone.Digest); err != nil || got.Unique != got.Stored || len(got.Shared) > 0 {
		t.Errorf("an image alone: %+v, %v", got, err)
	}
}

func TestDiffCountsWhatAMachineHasToFetch(t *testing.T) {
	r := openTest(t, t.TempDir())
	random := rand.New(rand.NewPCG(710, 0))
	s := newSample(random, "debian", "1", 60, 300<<10, 4<<20+512)
	u := s.update(random, 0.3)
	first, second := s.mustCapture(t, r, ""), u.mustCapture(t, r, "")
	tiles, decoded, encoded := int64(0), int64(0), int64(0)
	for i := range s.maps {
		seen := map[images.TileKey]bool{}
		for _, n := range u.dataTiles(i) {
			a, _ := s.encode(i, n)
			b, e := u.encode(i, n)
			if a == b {
				continue
			}
			tiles, decoded = tiles+1, decoded+int64(b.Length)
			if !seen[b] {
				seen[b] = true
				encoded += int64(len(e.Bytes))
			}
		}
	}
	d, err := r.Diff(t.Context(), first.Digest, second.Digest)
	if err != nil || d.Tiles != tiles || d.Bytes != decoded || d.Encoded != encoded || d.Zero != 0 || len(d.Partitions) != 2 || tiles == 0 {
		t.Errorf("%+v, %v, want %d tiles, %d bytes, %d encoded", d, err, tiles, decoded, encoded)
	}
	if d, err = r.Diff(t.Context(), second.Digest, second.Digest); err != nil || d.Tiles+d.Zero+d.Encoded != 0 {
		t.Errorf("an image and itself: %+v, %v", d, err)
	}
	whole, err := r.OpenImage(t.Context(), second.Digest)
	if err != nil {
		t.Fatal(err)
	}
	if d, err = r.Diff(t.Context(), images.Digest{}, second.Digest); err != nil || d.Tiles != whole.Image().Manifest.DataTiles() || d.Encoded < whole.EncodedLength() || d.Encoded > d.Bytes {
		t.Errorf("from nothing: %+v, %v; the image has %d data tiles, %d bytes encoded", d, err, whole.Image().Manifest.DataTiles(), whole.EncodedLength())
	}
	other := newSample(random, "ubuntu", "1", 1<<20, 512, 2<<20).mustCapture(t, r, "")
	image, err := r.Manifest(t.Context(), other.Digest)
	if err != nil {
		t.Fatal(err)
	}
	d, err = r.Diff(t.Context(), first.Digest, other.Digest)
	if p := &image.Manifest.Partitions[1]; err != nil || !d.Partitions[1].Moved || d.Partitions[1].Tiles != p.DataTiles || d.Partitions[1].Zero != p.ZeroTiles {
		t.Errorf("a partition that begins elsewhere: %+v, %v", d, err)
	}
}
