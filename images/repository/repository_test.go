package repository

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"seedbed/images"
	"seedbed/images/tile"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func rng(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 0)) }

func TestAPublishedImageIsReadBack(t *testing.T) {
	r := openTest(t, t.TempDir())
	s := newSample(rng(1), "debian", "1", 60, 512, 100_352, 5<<20+4096, 12<<20, samplePiece)
	image, err := s.publish(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	s.expectContent(t, r, image.Digest)
	var last Progress
	if err := r.Verify(t.Context(), image.Digest, func(p Progress) { last = p }); err != nil {
		t.Error(err)
	}
	if last.Done != last.Total || last.Total == 0 {
		t.Errorf("verify ended at %+v", last)
	}
	again, err := r.Manifest(t.Context(), image.Digest)
	if err != nil || !bytes.Equal(again.Raw, image.Raw) || !bytes.Equal(again.Signature, image.Signature) {
		t.Errorf("the manifest differs: %v", err)
	}
}

func TestOneImageOfTrafficCountsEqualTilesOnce(t *testing.T) {
	r := openTest(t, t.TempDir())
	s := newSample(rng(2), "debian", "1", 20, 4<<20, 8<<20)
	image, err := s.publish(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	want, seen := int64(0), map[images.TileKey]bool{}
	for i := range s.maps {
		for _, n := range s.dataTiles(i) {
			raw := s.tile(i, n)
			if key := tile.KeyOf(raw); !seen[key] {
				seen[key] = true
				e, err := tile.Encode(tile.LZ4, 0, raw)
				if err != nil {
					t.Fatal(err)
				}
				want += int64(len(e.Bytes))
			}
		}
	}
	x, err := r.OpenImage(t.Context(), image.Digest)
	if err != nil {
		t.Fatal(err)
	}
	if x.EncodedLength() != want {
		t.Errorf("EncodedLength is %d, the distinct tiles have %d", x.EncodedLength(), want)
	}
}

func TestASecondVersionStoresOnlyWhatIsNew(t *testing.T) {
	folder := t.TempDir()
	r := openTest(t, folder)
	s := newSample(rng(3), "debian", "1", 1000, 8<<20)
	if _, err := s.publish(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	before := packBytes(t, folder)
	s.m.Version = "2"
	image, err := s.publish(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	if after := packBytes(t, folder); after != before {
		t.Errorf("the same content grew the packs from %d to %d bytes", before, after)
	}
	s.expectContent(t, r, image.Digest)
}

func packBytes(t *testing.T, folder string) (n int64) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(folder, "packs", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		info, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		n += info.Size()
	}
	return n
}

func TestVersionsAreNamedAndNeverChange(t *testing.T) {
	r := openTest(t, t.TempDir())
	digests := map[string]images.Digest{}
	for i, version := range []string{"9", "1", "10", "2-rc1"} {
		s := newSample(rng(uint64(10+i)), "debian", version, 50, 1<<20)
		image, err := s.publish(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		digests[version] = image.Digest
		if again, err := s.publish(t.Context(), r); err != nil || again.Digest != image.Digest {
			t.Errorf("publishing the same again: %v", err)
		}
	}
	other := newSample(rng(99), "debian", "9", 50, 1<<20)
	if _, err := other.publish(t.Context(), r); !errors.Is(err, ErrVersionExists) {
		t.Errorf("another image as version 9: %v, want ErrVersionExists", err)
	}
	for ref, want := range map[string]string{"debian": "10", "debian:1": "1", "debian:2-rc1": "2-rc1", digests["9"].String()[:8]: "9", digests["1"].String(): "1"} {
		if d, err := r.Resolve(t.Context(), ref); err != nil || d != digests[want] {
			t.Errorf("%s is %v, %v, want version %s", ref, d.Short(), err, want)
		}
	}
	for _, ref := range []string{"ubuntu", "debian:3", "ffffffffff", "abc"} {
		if _, err := r.Resolve(t.Context(), ref); !errors.Is(err, ErrNoImage) {
			t.Errorf("%s: %v, want ErrNoImage", ref, err)
		}
	}
	for _, ref := range []string{"", "../x", "a:b:c", "A", "debian:"} {
		if _, err := r.Resolve(t.Context(), ref); err == nil {
			t.Errorf("%q was taken for a reference", ref)
		}
	}
	list, err := r.Images(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var order []string
	for _, l := range list {
		order = append(order, l.Version)
		if l.Problem != "" || l.Digest != digests[l.Version] || l.DiskLength != 1<<20 {
			t.Errorf("listed: %+v", l)
		}
	}
	if got := strings.Join(order, " "); got != "1 2-rc1 9 10" {
		t.Errorf("order of versions: %s", got)
	}
	if v, err := r.NextVersion(t.Context(), "debian"); err != nil || v != "11" {
		t.Errorf("next version %s, %v", v, err)
	}
}

func TestADraftThatContradictsItselfIsRefused(t *testing.T) {
	r := openTest(t, t.TempDir())
	for name, spoil := range map[string]func(*Draft){
		"a layer is missing":         func(d *Draft) { d.Layers = d.Layers[:len(d.Layers)-1] },
		"a tile is missing":          func(d *Draft) { d.Tiles[0] = d.Tiles[0][1:] },
		"two tiles are exchanged":    func(d *Draft) { d.Tiles[0][0], d.Tiles[0][1] = d.Tiles[0][1], d.Tiles[0][0] },
		"a location is invented":     func(d *Draft) { d.Tiles[0][0] = Location{pack: 0, ordinal: 1 << 20} },
		"a pack is invented":         func(d *Draft) { d.Tiles[0][0] = Location{pack: 1 << 20} },
		"the root is another":        func(d *Draft) { d.Manifest.Partitions[0].Root[3] ^= 1 },
		"the frame is missing":       func(d *Draft) { d.Layers = d.Layers[1:] },
		"partitions are missing":     func(d *Draft) { d.Tiles = nil },
		"the tile layer is another":  func(d *Draft) { spoilTileLayer(d) },
		"the name cannot be":         func(d *Draft) { d.Manifest.Name = "../x" },
		"a layer has another length": func(d *Draft) { d.Manifest.Partitions[0].Map.Length++ },
	} {
		s := newSample(rng(20), "bad", "1", 1<<20, 2<<20)
		d, err := s.put(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		spoil(d)
		if _, err := r.Publish(t.Context(), d); err == nil {
			t.Errorf("%s: it was published", name)
		}
	}
	if list, err := r.Images(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("images: %v, %v", list, err)
	}
}

// spoilTileLayer names another tile layer of the right length.
func spoilTileLayer(d *Draft) {
	p := &d.Manifest.Partitions[0]
	layer := make([]byte, p.TileLayer.Length)
	p.TileLayer.Digest = images.Sum(layer)
	d.Layers = append(d.Layers, layer)
}

func TestOneProcessHoldsTheSpool(t *testing.T) {
	folder := t.TempDir()
	openTest(t, folder)
	b, err := OpenDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), b, Config{}); !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), "process") {
		t.Errorf("second open: %v, want ErrLocked and the process", err)
	}
}

func TestManyCapturesShareTheRepository(t *testing.T) {
	r := openTest(t, t.TempDir())
	var wg sync.WaitGroup
	samples := make([]*sample, 6)
	digests := make([]images.Digest, len(samples))
	for i := range samples {
		samples[i] = newSample(rng(uint64(30+i)), "debian", string(rune('a'+i)), 120, 3<<20, 700_416)
		wg.Go(func() {
			image, err := samples[i].publish(context.Background(), r)
			if err != nil {
				t.Error(err)
				return
			}
			digests[i] = image.Digest
		})
	}
	wg.Wait()
	for i, s := range samples {
		s.expectContent(t, r, digests[i])
		if err := r.Verify(t.Context(), digests[i], nil); err != nil {
			t.Error(err)
		}
	}
}

func TestReadersShareOneImage(t *testing.T) {
	folder := t.TempDir()
	r := openTest(t, folder)
	s := newSample(rng(40), "debian", "1", 1<<20, 24<<20)
	x := s.opened(t, r)
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			order := rng(uint64(i)).Perm(x.Layout().Count())
			if i%2 == 0 {
				for k := range order {
					order[k] = k
				}
			}
			for _, piece := range order {
				data := x.Layout().Data(piece)
				if i == 7 {
					_, _ = x.ReadPiece(canceled, piece, data)
					continue
				}
				list, err := x.ReadPiece(context.Background(), piece, data)
				if err != nil || len(list) != data.Len() || len(x.TileHashes(piece)) != data.Len() {
					t.Errorf("piece %d: %d tiles, %v", piece, len(list), err)
					return
				}
				for k, e := range list {
					if raw, err := e.Decode(nil); err != nil || tile.Hash(raw) != x.TileHashes(piece)[k] {
						t.Errorf("piece %d, tile %d: %v", piece, k, err)
					}
				}
			}
		})
	}
	wg.Wait()
	if n := held(r.cache); n > r.cache.limit {
		t.Errorf("the cache holds %d bytes, its limit is %d", n, r.cache.limit)
	}
	if _, err := x.Read(t.Context(), 0, []int64{1 << 40}); err == nil {
		t.Error("a tile that is not there was read")
	}
}

func TestAPackIsSealedWhenItHasWaitedLongEnough(t *testing.T) {
	folder := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		r := openTest(t, folder)
		s := newSample(rng(50), "debian", "1", 50, 1<<20)
		if _, err := s.put(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		time.Sleep(59 * time.Second)
		synctest.Wait()
		if packBytes(t, folder) != 0 {
			t.Error("sealed before a minute")
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if packBytes(t, folder) == 0 {
			t.Error("not sealed after a minute")
		}
	})
}

func TestAClosedRepositoryRefusesWork(t *testing.T) {
	r := openTest(t, t.TempDir())
	s := newSample(rng(60), "debian", "1", 50, 1<<20)
	d, err := s.put(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Publish(t.Context(), d); !errors.Is(err, errClosed) {
		t.Errorf("publish: %v", err)
	}
	if _, err := s.put(t.Context(), r); !errors.Is(err, errClosed) {
		t.Errorf("put: %v", err)
	}
	if err := r.Sync(); !errors.Is(err, errClosed) {
		t.Errorf("sync: %v", err)
	}
}

func TestATileOfAnotherLengthThanItsKeyIsRefused(t *testing.T) {
	r := openTest(t, t.TempDir())
	e := tile.Encoded{Codec: tile.Stored, Length: 3, Bytes: []byte("abc")}
	if _, err := r.Put(t.Context(), images.TileKey{Length: 4}, e); err == nil {
		t.Error("it was taken")
	}
	e.Length = 4
	if _, err := r.Put(t.Context(), images.TileKey{Length: 4}, e); err == nil {
		t.Error("a stored tile that carries fewer bytes was taken")
	}
}
