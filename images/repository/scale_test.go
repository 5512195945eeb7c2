package repository

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"seedbed/images"
)

func TestServingReadsNoMoreThanItsOwnPacks(t *testing.T) {
	s := newSynthetic(40, 2048, true)
	d := s.image(t, 2<<30, 5)
	r := openScale(t, s)
	if n := s.count(""); n != 0 {
		t.Errorf("opening the repository made %d requests", n)
	}
	x, err := r.OpenImage(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	if n := s.count("list packs/") + s.count("read packs/") + s.count("stat packs/"); n != 0 {
		t.Errorf("opening the image made %d requests for packs", n)
	}
	if n := s.count(""); n > 8 {
		t.Errorf("opening the image made %d requests", n)
	}
	place := x.parts[0].placement
	data := x.shape.Data(100)
	packs := map[uint32]bool{}
	for rank := x.before[100]; rank < x.before[100]+int64(data.Len()); rank++ {
		packs[place.runs[place.find(rank)].pack] = true
	}
	list, err := x.ReadPiece(t.Context(), 100, data)
	if err != nil || len(list) != data.Len() {
		t.Fatalf("%d tiles, %v", len(list), err)
	}
	if n := s.count("stat packs/"); n != len(packs) {
		t.Errorf("the indexes of %d packs were read, the piece lies in %d", n, len(packs))
	}
	for hash, want := range x.TileHashes(100) {
		if want != syntheticHash(uint64(s.layers[layerKey(x.parts[0].p.TileLayer.Digest)][x.before[100]+int64(hash)])) {
			t.Errorf("hash %d is wrong", hash)
		}
	}
	if s.count("list ") != 0 {
		t.Error("reading a piece listed objects")
	}
}

// The clock of the bubble stands still but for the storage's latency: what is measured is how requests overlap.
func TestReadingHidesTheLatencyOfStorage(t *testing.T) {
	for _, length := range []int64{1 << 30, 16 << 30} { // pieces of 512 KiB and of 4 MiB
		folder := t.TempDir()
		s := newSynthetic(int(length>>28)+4, 8192, true)
		d := s.image(t, length, 1)
		synctest.Test(t, func(t *testing.T) {
			r, err := Open(t.Context(), slow{s, 30 * time.Millisecond, 100e6}, Config{Spool: folder})
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			x, err := r.OpenImage(t.Context(), d)
			if err != nil {
				t.Fatal(err)
			}
			started, total := time.Now(), int64(0)
			for piece := 0; total < 256<<20; piece++ {
				list, err := x.ReadPiece(t.Context(), piece, x.shape.Data(piece))
				if err != nil {
					t.Fatal(err)
				}
				for _, e := range list {
					total += int64(len(e.Bytes))
				}
			}
			rate := float64(total) / time.Since(started).Seconds() / 1e6
			t.Logf("pieces of %d KiB: %.0f MB/s encoded at 30 ms", x.shape.PieceLength()>>10, rate)
			if rate < 200 {
				t.Errorf("pieces of %d KiB: %.0f MB/s", x.shape.PieceLength()>>10, rate)
			}
			if n := held(r.cache); n > r.cache.limit {
				t.Errorf("the cache holds %d bytes, its limit is %d", n, r.cache.limit)
			}
		})
	}
}

// What serving an image takes: 40,960 packs of 256 MiB, 10 TiB of encoded tiles, 30 ms for each request.
func BenchmarkScaleOpen(b *testing.B) {
	for name, length := range map[string]int64{"500GB": 500 << 30, "2TB": 2 << 40} {
		b.Run(name, func(b *testing.B) {
			s := newSynthetic(40960, 8192, false)
			d := s.image(b, length, 5)
			b.Run("object storage", func(b *testing.B) { benchmarkOpen(b, slow{s, 30 * time.Millisecond, 0}, d) })
			b.Run("folder", func(b *testing.B) { benchmarkOpen(b, scaleFolder(b, s), d) })
		})
	}
}

func benchmarkOpen(b *testing.B, bucket Bucket, d images.Digest) {
	for b.Loop() {
		started := time.Now()
		var took time.Duration
		peak := usage(func() {
			r := openScale(b, bucket)
			if _, err := r.OpenImage(b.Context(), d); err != nil {
				b.Fatal(err)
			}
			took = time.Since(started)
		})
		b.ReportMetric(float64(peak)/1e6, "peak-MB")
		if took > 2*time.Second || peak > 300e6 {
			b.Errorf("%v, %d MB", took, peak/1e6)
		}
	}
}

// scaleFolder puts the objects into a folder. The packs are empty: they are not opened.
func scaleFolder(b *testing.B, s *synthetic) *Dir {
	folder := b.TempDir()
	write := func(key string, content []byte) {
		name := filepath.Join(folder, key)
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			b.Fatal(err)
		}
		if err := os.WriteFile(name, content, 0o600); err != nil {
			b.Fatal(err)
		}
	}
	for key, content := range s.objects {
		write(key, content)
	}
	for _, id := range s.packs {
		write(packKey(id), nil)
	}
	d, err := OpenDir(folder)
	if err != nil {
		b.Fatal(err)
	}
	return d
}

// Reading an image of 64 GiB, the fifth version, from storage that answers after 30 ms and gives each request 100 MB/s.
func BenchmarkScaleRead(b *testing.B) {
	s := newSynthetic(300, 8192, true)
	for name, versions := range map[string]int{"first version": 1, "fifth version": 5} {
		d := s.image(b, 64<<30, versions)
		for _, readers := range []int{1, 8} {
			order := "one in order"
			if readers > 1 {
				order = "eight at random"
			}
			b.Run(name+", "+order, func(b *testing.B) { benchmarkRead(b, s, d, readers) })
		}
	}
}

func benchmarkRead(b *testing.B, s *synthetic, d images.Digest, readers int) {
	r := openScale(b, slow{s, 30 * time.Millisecond, 100e6})
	for b.Loop() {
		x, err := r.OpenImage(b.Context(), d)
		if err != nil {
			b.Fatal(err)
		}
		s.count("")
		const pieces = 400
		order := rand.New(rand.NewPCG(3, 4)).Perm(x.shape.Count())
		var encoded, decoded, next atomic.Int64
		started := time.Now()
		peak := usage(func() {
			var wg sync.WaitGroup
			for range readers {
				wg.Go(func() {
					for i := next.Add(1) - 1; i < pieces; i = next.Add(1) - 1 {
						piece := int(i)
						if readers > 1 {
							piece = order[i]
						}
						list, err := x.ReadPiece(context.Background(), piece, x.shape.Data(piece))
						if err != nil {
							b.Error(err)
							return
						}
						for _, e := range list {
							encoded.Add(int64(len(e.Bytes)))
							decoded.Add(int64(e.Length))
						}
					}
				})
			}
			wg.Wait()
		})
		seconds := time.Since(started).Seconds()
		b.ReportMetric(float64(encoded.Load())/1e6/seconds, "encoded-MB/s")
		b.ReportMetric(float64(decoded.Load())/1e6/seconds, "decoded-MB/s")
		b.ReportMetric(float64(s.count("read "))/pieces, "GETs/piece")
		b.ReportMetric(float64(s.count("stat "))/pieces, "HEADs/piece")
		b.ReportMetric(float64(peak)/1e6, "peak-MB")
	}
}

// Making the index of tiles from the indexes of their packs, and looking tiles up. 1 TiB of tiles are 16 Mi.
func BenchmarkScaleIndex(b *testing.B) {
	for _, tebibytes := range []int{1, 10} {
		b.Run(fmt.Sprintf("%dTiB", tebibytes), func(b *testing.B) {
			const tiles = 8192
			s := newSynthetic(tebibytes<<40/images.TileLength/tiles, tiles, true)
			for b.Loop() {
				benchmarkIndex(b, s)
			}
		})
	}
}

func benchmarkIndex(b *testing.B, s *synthetic) {
	spool := b.TempDir()
	defer os.RemoveAll(spool)
	var r *Repository
	open := func() {
		var err error
		if r, err = Open(b.Context(), s, Config{Spool: spool}); err == nil {
			err = r.ready(b.Context())
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	started := time.Now()
	peak := usage(open)
	b.ReportMetric(time.Since(started).Seconds(), "make-s")
	b.ReportMetric(float64(peak)/1e6, "make-peak-MB")
	size, runs, fences := int64(0), len(r.index.runs), 0
	for _, run := range r.index.runs {
		info, err := run.f.Stat()
		if err != nil {
			b.Fatal(err)
		}
		size, fences = size+info.Size(), fences+8*len(run.fence)
	}
	b.ReportMetric(float64(size)/1e6, "disk-MB")
	b.ReportMetric(float64(fences)/1e6, "fences-MB")
	b.ReportMetric(float64(runs), "runs")
	closeScale(b, r)
	started = time.Now()
	peak = usage(open)
	b.ReportMetric(time.Since(started).Seconds(), "open-s")
	b.ReportMetric(float64(peak)/1e6, "open-peak-MB")
	random := rand.New(rand.NewPCG(5, 6))
	for name, beyond := range map[string]uint64{"found-us": 0, "new-us": 1 << 40} {
		const lookups = 20000
		started = time.Now()
		for range lookups {
			k := beyond + random.Uint64N(uint64(len(s.packs)*s.tiles))
			_, ok, err := r.Find(images.TileKey{Hash: syntheticHash(k), Length: images.TileLength})
			if err != nil || ok != (beyond == 0) {
				b.Fatalf("found: %v, %v", ok, err)
			}
		}
		b.ReportMetric(float64(time.Since(started).Microseconds())/lookups, name)
	}
	closeScale(b, r)
}

func closeScale(b *testing.B, r *Repository) {
	if err := r.Close(); err != nil {
		b.Fatal(err)
	}
}
