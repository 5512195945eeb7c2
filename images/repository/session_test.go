package repository

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"seedbed/images"
	"seedbed/images/intake"
)

func testSign(b []byte) []byte { h := sha256.Sum256(b); return h[:] }

// spec returns the sample as a capture describes it.
func (s *sample) spec() *intake.Spec {
	byDigest := map[images.Digest][]byte{}
	for _, b := range s.layers {
		byDigest[images.Sum(b)] = b
	}
	spec := &intake.Spec{Created: s.m.Created, DiskLength: s.m.DiskLength, SectorLength: 512, PieceLength: s.m.PieceLength, Table: "none"}
	for _, r := range s.m.Frame.Region {
		spec.Regions = append(spec.Regions, intake.Region{Kind: r.Kind, Offset: r.Offset, Bytes: byDigest[r.Digest]})
	}
	for _, p := range s.m.Partitions {
		spec.Partitions = append(spec.Partitions, intake.Partition{Number: p.Number, Offset: p.Offset, Length: p.Length, Type: p.Type,
			MapKind: p.MapKind, Map: byDigest[p.Map.Digest], Tiles: byDigest[p.TileLayer.Digest]})
	}
	return spec
}

// tiles returns the sample's tiles.
func (s *sample) tiles() (list []intake.Tile) {
	for i := range s.maps {
		for _, n := range s.dataTiles(i) {
			key, e := s.encode(i, n)
			list = append(list, intake.Tile{Key: key, Encoded: e})
		}
	}
	return list
}

// capture captures the sample as a capture does: what the sink has is not put, and it is tried again where tiles went
// missing.
func (s *sample) capture(ctx context.Context, sink intake.Sink) (*intake.Published, error) {
	for try := 0; ; try++ {
		for part := range slices.Chunk(s.tiles(), 16) {
			keys := make([]images.TileKey, len(part))
			for i, t := range part {
				keys[i] = t.Key
			}
			have, err := sink.Have(ctx, keys)
			if err != nil {
				return nil, err
			}
			var put []intake.Tile
			for i, t := range part {
				if !have[i] {
					put = append(put, t)
				}
			}
			if err := sink.Put(ctx, put); err != nil {
				return nil, err
			}
		}
		p, err := sink.Commit(ctx, s.spec())
		if try < 3 && errors.Is(err, intake.ErrMissing) {
			continue
		}
		return p, err
	}
}

// captured captures the sample in a session of its own.
func (s *sample) captured(ctx context.Context, r *Repository, version string) (*intake.Published, error) {
	session, err := r.Begin(ctx, SessionConfig{Name: s.m.Name, Version: version, Sign: testSign})
	if err != nil {
		return nil, err
	}
	defer session.Close()
	return s.capture(ctx, session)
}

func TestOneCaptureAtATimeMakesAVersion(t *testing.T) {
	r := openTest(t, t.TempDir())
	cfg := SessionConfig{Name: "debian", Version: "5", Sign: testSign}
	first, err := r.Begin(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Begin(t.Context(), cfg); !errors.Is(err, intake.ErrBusy) {
		t.Errorf("second capture of debian:5: %v, want ErrBusy", err)
	}
	s := newSample(rng(200), "debian", "5", 50, 1<<20)
	if _, err := s.capture(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	first.Close()
	if _, err := r.Begin(t.Context(), cfg); !errors.Is(err, ErrVersionExists) {
		t.Errorf("capture of a version that exists: %v, want ErrVersionExists", err)
	}
	if _, err := first.Have(t.Context(), nil); !errors.Is(err, errSessionClosed) {
		t.Errorf("call after Close: %v", err)
	}
	if err := r.Remove(t.Context(), "debian", "5"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Begin(t.Context(), cfg); !errors.Is(err, ErrVersionExists) || !strings.Contains(err.Error(), "removed") {
		t.Errorf("capture of a version that was removed: %v, want ErrVersionExists", err)
	}
	if p, err := s.captured(t.Context(), r, ""); err != nil || p.Version != "6" {
		t.Errorf("next version: %+v, %v, want 6", p, err)
	}
	if err := r.Remove(t.Context(), "debian", "5"); !errors.Is(err, ErrNoImage) {
		t.Errorf("removed twice: %v", err)
	}
}

func TestCapturesWithoutAVersionGetDifferentOnes(t *testing.T) {
	r := openTest(t, t.TempDir())
	var wg sync.WaitGroup
	var versions [5]string
	for i := range versions {
		wg.Go(func() {
			s := newSample(rng(uint64(210+i)), "debian", "x", 100, 2<<20)
			p, err := s.captured(context.Background(), r, "")
			if err != nil {
				t.Error(err)
				return
			}
			versions[i] = p.Version
			if err := r.Verify(context.Background(), p.Digest, nil); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	slices.Sort(versions[:])
	if want := [5]string{"1", "2", "3", "4", "5"}; versions != want {
		t.Errorf("versions %v", versions)
	}
}

func TestASessionExpires(t *testing.T) {
	folder := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		r := openTest(t, folder)
		begin := func() *Session {
			t.Helper()
			s, err := r.Begin(t.Context(), SessionConfig{Name: "debian", Version: "1", Sign: testSign})
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
		silent := begin()
		time.Sleep(time.Hour + time.Second)
		busy := begin() // the silent one is in nobody's way
		for _, err := range []error{silent.Put(t.Context(), nil), func() error { _, err := silent.Have(t.Context(), nil); return err }(),
			func() error { _, err := silent.Commit(t.Context(), &intake.Spec{}); return err }()} {
			if !errors.Is(err, intake.ErrExpired) {
				t.Errorf("after an hour of silence: %v, want ErrExpired", err)
			}
		}
		for i := range 24 {
			time.Sleep(59 * time.Minute)
			if _, err := busy.Have(t.Context(), nil); err != nil {
				t.Fatalf("hour %d: %v", i, err)
			}
		}
		time.Sleep(30 * time.Minute)
		if err := busy.Put(t.Context(), nil); !errors.Is(err, intake.ErrExpired) || !strings.Contains(err.Error(), "24h") {
			t.Errorf("after a day: %v, want ErrExpired", err)
		}
	})
}

func TestAWrongTileIsRefusedBeforeAnyIsStored(t *testing.T) {
	r := openTest(t, t.TempDir())
	session, err := r.Begin(t.Context(), SessionConfig{Name: "debian", Sign: testSign, Check: true})
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	tiles := newSample(rng(220), "debian", "1", 1<<20, 2<<20).tiles()
	bad := slices.Clone(tiles)
	bad[len(bad)-1].Key.Hash[5] ^= 1
	if err := session.Put(t.Context(), bad); err == nil || !strings.Contains(err.Error(), "hash") {
		t.Errorf("a tile with another hash: %v", err)
	}
	for _, tile := range tiles {
		if _, ok, _ := r.Find(tile.Key); ok {
			t.Fatal("tiles were stored beside a wrong one")
		}
	}
	if err := session.Put(t.Context(), tiles); err != nil {
		t.Fatal(err)
	}
	if r.current == nil || r.current.synced != len(r.current.entries) {
		t.Error("Put returned before the tiles were durable")
	}
}

func TestCommitNamesWhatIsMissing(t *testing.T) {
	r := openTest(t, t.TempDir())
	s := newSample(rng(230), "debian", "1", 1<<20, 512, 2<<20)
	session, err := r.Begin(t.Context(), SessionConfig{Name: "debian", Sign: testSign})
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	tiles := s.tiles()
	last := s.dataTiles(1)
	if err := session.Put(t.Context(), tiles[:len(tiles)-2]); err != nil {
		t.Fatal(err)
	}
	n := last[len(last)-2]
	want := fmt.Sprintf("2 of %d, the first of partition 2, bytes [%d, %d)", len(tiles), n<<16, (n+1)<<16)
	if _, err := session.Commit(t.Context(), s.spec()); !errors.Is(err, intake.ErrMissing) || !strings.Contains(err.Error(), want) {
		t.Errorf("two tiles are missing: %v, want %q", err, want)
	}
	if err := session.Put(t.Context(), tiles[len(tiles)-2:]); err != nil {
		t.Fatal(err)
	}
	p, err := session.Commit(t.Context(), s.spec())
	if err != nil {
		t.Fatal(err)
	}
	if again, err := session.Commit(t.Context(), s.spec()); err != nil || *again != *p {
		t.Errorf("the answer was lost: %v, %v, want %v", again, err, p)
	}
	s.expectContent(t, r, p.Digest)
}

// fullFS is a file system with so many bytes left.
type fullFS struct {
	fileSystem
	mu   sync.Mutex
	left int64
}

type fullFile struct {
	file
	fs *fullFS
}

func (f *fullFS) Create(name string) (file, error) {
	x, err := f.fileSystem.Create(name)
	if err != nil {
		return nil, err
	}
	return &fullFile{x, f}, nil
}

func (f *fullFS) room(n int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.left = n
}

// Write writes what there is room for, as kernels do.
func (f *fullFile) Write(b []byte) (int, error) {
	f.fs.mu.Lock()
	n := min(int64(len(b)), f.fs.left)
	f.fs.left -= n
	f.fs.mu.Unlock()
	k, err := f.file.Write(b[:n])
	if err == nil && n < int64(len(b)) {
		err = &os.PathError{Op: "write", Path: "disk", Err: syscall.ENOSPC}
	}
	return k, err
}

// TestAFullDiskIsNamedAndNothingHalfMadeStays fills the disk at many moments of a capture.
func TestAFullDiskIsNamedAndNothingHalfMadeStays(t *testing.T) {
	s := newSample(rng(240), "debian", "1", 1<<20, 1<<20)
	for _, room := range []int64{0, 8, 100, 40_000, 200_000, 300_000, 500_000, 520_000, 530_000, 700_000, 1_000_000} {
		p := newPowerFS(-1)
		full := &fullFS{fileSystem: p, left: 1 << 40}
		b, err := openDir(full, "/srv/bucket")
		if err != nil {
			t.Fatal(err)
		}
		r, err := Open(t.Context(), b, Config{Spool: "/srv/spool", PackLength: 60 << 10, SealAfter: time.Hour, files: full})
		if err != nil {
			t.Fatal(err)
		}
		full.room(room)
		_, err = s.captured(t.Context(), r, "")
		if err != nil {
			if !errors.Is(err, intake.ErrFull) || !strings.Contains(err.Error(), "needed") {
				t.Errorf("%d bytes of room: %v, want ErrFull", room, err)
			}
			if list, err := r.Images(t.Context()); err != nil || len(list) > 0 {
				t.Errorf("%d bytes of room: images %v, %v", room, list, err)
			}
			full.room(1 << 40)
			_, err = s.captured(t.Context(), r, "")
		}
		if err != nil {
			t.Fatalf("%d bytes of room, then room again: %v", room, err)
		}
		d, err := r.Resolve(t.Context(), "debian")
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Verify(t.Context(), d, nil); err != nil {
			t.Errorf("%d bytes of room: %v", room, err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
}
