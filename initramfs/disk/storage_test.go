package disk

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"seedbed/appliance/job"
	"seedbed/images"
	"seedbed/initramfs/disk/disktest"
)

// noiseDisk makes a file full of noise and opens it as a disk.
func noiseDisk(t *testing.T, length int) (*Device, string, []byte) {
	t.Helper()
	before := make([]byte, length)
	rand.Read(before)
	file := filepath.Join(t.TempDir(), "disk.img")
	if err := os.WriteFile(file, before, 0o600); err != nil {
		t.Fatal(err)
	}
	return openDisk(t, file), file, before
}

func openDisk(t *testing.T, file string) *Device {
	t.Helper()
	d, err := Open(file, "vda")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func readFile(t *testing.T, file string) []byte {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func nothing(int64) {}

// fetchAll writes every data tile that s lacks, as a swarm does, and returns the bytes of them.
func fetchAll(t *testing.T, img *disktest.Image, s *Storage) (fetched int64) {
	t.Helper()
	for piece := range img.Layout.Count() {
		var hashes []images.Digest
		for tile := range img.Layout.Data(piece).All() {
			hashes = append(hashes, images.TileHash(img.Tile(piece, tile)))
		}
		if len(hashes) > 0 && s.TileHashes(piece) == nil {
			s.Learn(piece, hashes)
		}
		lacks := img.Layout.Data(piece).Minus(s.Held(piece))
		for tile := range lacks.All() {
			raw := img.Tile(piece, tile)
			if err := s.Write(piece, tile, [][]byte{raw}); err != nil {
				t.Fatal(err)
			}
			fetched += int64(len(raw))
		}
	}
	return fetched
}

func TestContentIsWrittenOnUsedBytesOnly(t *testing.T) {
	img := disktest.New(t)
	d, file, before := noiseDisk(t, disktest.DiskLength+5<<20)
	s := NewStorage(d, img.Layout)
	if err := s.WriteZeros(t.Context(), len(img.Manifest.Partitions), nothing); err != nil {
		t.Fatal(err)
	}
	if n := fetchAll(t, img, s); n != img.Layout.DataLength() {
		t.Errorf("wrote %d bytes, the image has %d", n, img.Layout.DataLength())
	}
	if err := s.Sync(); err != nil {
		t.Fatal(err)
	}
	img.Check(t, readFile(t, file), before)
	if held, resumed := s.Progress(); held != img.Layout.DataLength() || resumed != 0 {
		t.Errorf("held %d resumed %d", held, resumed)
	}
	for i, b := range s.Bitmap()[:img.Layout.Count()/8] {
		if b != 0xff {
			t.Errorf("byte %d of the bitmap is %08b", i, b)
		}
	}
}

func TestReadServesTilesThroughTheMask(t *testing.T) {
	img := disktest.New(t)
	d, _, _ := noiseDisk(t, disktest.DiskLength)
	s := NewStorage(d, img.Layout)
	fetchAll(t, img, s)
	for piece := range img.Layout.Count() {
		tiles := img.Layout.Data(piece)
		encoded, err := s.Read(t.Context(), piece, tiles, nil)
		if err != nil {
			t.Fatal(err)
		}
		i := 0
		for tile := range tiles.All() {
			raw, err := encoded[i].Decode(nil)
			if err != nil || !bytes.Equal(raw, img.Tile(piece, tile)) {
				t.Fatalf("piece %d tile %d is not what was written: %v", piece, tile, err)
			}
			i++
		}
	}
}

func TestVerifyFindsOneWrongByte(t *testing.T) {
	img := disktest.New(t)
	d, file, _ := noiseDisk(t, disktest.DiskLength)
	s := NewStorage(d, img.Layout)
	if err := s.WriteZeros(t.Context(), len(img.Manifest.Partitions), nothing); err != nil {
		t.Fatal(err)
	}
	fetchAll(t, img, s)
	if err := s.Sync(); err != nil {
		t.Fatal(err)
	}
	var verified atomic.Int64
	proven, err := s.Verify(t.Context(), img.Manifest, job.VerifyFull, func(n int64) { verified.Add(n) })
	if err != nil || len(proven.Roots) != len(img.Manifest.Partitions) || len(proven.Unproven) != 0 {
		t.Fatalf("%+v, %v", proven, err)
	}
	for i, r := range proven.Roots {
		if r.Root != img.Manifest.Partitions[i].Root || r.Number != img.Manifest.Partitions[i].Number {
			t.Errorf("root %d is %v", i, r)
		}
	}
	if verified.Load() != img.Layout.DataLength() {
		t.Errorf("verified %d of %d", verified.Load(), img.Layout.DataLength())
	}
	// The first byte of a zero tile, then the last used byte: both must be noticed.
	zero := img.Layout.Map(1).Zero[0].First * images.TileLength
	ext := img.Layout.Map(1).Used(nil, images.Extent{Offset: zero, Length: images.TileLength})[0]
	all := img.Layout.Map(1).Extents
	for _, at := range []int64{ext.Offset, all[len(all)-1].End() - 1} {
		at += img.Manifest.Partitions[1].Offset
		f, err := os.OpenFile(file, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		old := make([]byte, 1)
		f.ReadAt(old, at)
		f.WriteAt([]byte{old[0] ^ 0x40}, at)
		var wrong *ErrContent
		if _, err := s.Verify(t.Context(), img.Manifest, job.VerifyFull, nothing); !errors.As(err, &wrong) || wrong.Partition != 2 {
			t.Errorf("byte %d was changed, and verification said %v", at, err)
		}
		f.WriteAt(old, at)
		f.Close()
	}
}

func TestHashesBeyondTheBoundComeFromTheDisk(t *testing.T) {
	img := disktest.New(t)
	d, _, _ := noiseDisk(t, disktest.DiskLength)
	s := NewStorage(d, img.Layout)
	fetchAll(t, img, s)
	for piece := range img.Layout.Count() {
		known := s.TileHashes(piece)
		s.mu.Lock()
		delete(s.hashes, piece)
		s.mu.Unlock()
		again := s.TileHashes(piece)
		if len(known) != len(again) || (len(known) > 0 && known[0] != again[0]) {
			t.Fatalf("piece %d: %v, then %v", piece, known, again)
		}
	}
}

func TestTableIsWrittenForThisDiskAndWiped(t *testing.T) {
	img := disktest.New(t)
	d, file, _ := noiseDisk(t, disktest.DiskLength+7<<20)
	frame, err := LoadFrame(img.Manifest, img.Fetch)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.WriteTable(frame, img.Manifest.Frame.Table); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("sgdisk", "-v", "-p", file).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "No problems found") || !strings.Contains(string(out), "16384") {
		t.Errorf("sgdisk: %v\n%s", err, out)
	}
	old, err := d.OldFrame()
	if err != nil || len(old) < 3 {
		t.Errorf("old frame has %d regions: %v", len(old), err)
	}
	if err := d.Wipe(); err != nil {
		t.Fatal(err)
	}
	b := readFile(t, file)
	if !isZero(b[:1024]) || bytes.Contains(b, []byte("EFI PART")) {
		t.Error("a wiped disk still shows a table")
	}
}

func TestNeededCountsTheBackupTable(t *testing.T) {
	img := disktest.New(t)
	frame, err := LoadFrame(img.Manifest, img.Fetch)
	if err != nil {
		t.Fatal(err)
	}
	n, err := Needed(img.Manifest, frame)
	if end := img.Manifest.EndOfPartitions(); err != nil || n <= end || n > end+64<<10 {
		t.Errorf("needed %d, partitions end at %d: %v", n, end, err)
	}
}

func TestFencedDiskIsNotWritten(t *testing.T) {
	d, file, before := noiseDisk(t, 1<<20)
	d.Fence(errors.New("power supply on fire"))
	if _, err := d.WriteAt([]byte("x"), 0); !errors.Is(err, ErrFenced) || !strings.Contains(err.Error(), "fire") {
		t.Errorf("write: %v", err)
	}
	if err := d.Zero(0, 4096); !errors.Is(err, ErrFenced) {
		t.Errorf("zero: %v", err)
	}
	if err := d.Wipe(); !errors.Is(err, ErrFenced) {
		t.Errorf("wipe: %v", err)
	}
	if !bytes.Equal(readFile(t, file), before) {
		t.Error("the disk changed")
	}
}

func TestWritesStayInsideTheDisk(t *testing.T) {
	d, _, _ := noiseDisk(t, 1<<20)
	if _, err := d.WriteAt(make([]byte, 512), 1<<20-511); err == nil {
		t.Error("a write past the end succeeded")
	}
	if err := d.Zero(-1, 1); err == nil {
		t.Error("zeros before the start succeeded")
	}
}

func TestCancelledWorkStops(t *testing.T) {
	img := disktest.New(t)
	d, _, _ := noiseDisk(t, disktest.DiskLength)
	s := NewStorage(d, img.Layout)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s.expect()
	if err := s.Look(ctx, func(int) {}, nothing); !errors.Is(err, context.Canceled) {
		t.Errorf("look: %v", err)
	}
	if _, err := s.Verify(ctx, img.Manifest, job.VerifyFull, nothing); !errors.Is(err, context.Canceled) {
		t.Errorf("verify: %v", err)
	}
}

func TestZeroingStopsInTheMiddleOfARange(t *testing.T) {
	img := disktest.New(t)
	zero := func(run int64, after int) (calls int, longest int64, err error) {
		d, _, _ := noiseDisk(t, disktest.DiskLength)
		s := NewStorage(d, img.Layout)
		if run > 0 {
			s.zeroRun = run
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		err = s.WriteZeros(ctx, len(img.Manifest.Partitions), func(n int64) {
			longest = max(longest, n)
			if calls++; calls == after {
				cancel()
			}
		})
		return calls, longest, err
	}
	whole, longest, err := zero(0, 0)
	if err != nil || longest <= 64<<10 {
		t.Fatalf("ranges of at most %d bytes: %v", longest, err)
	}
	if calls, longest, err := zero(64<<10, 0); err != nil || calls <= whole || longest > 64<<10 {
		t.Errorf("%d calls instead of %d, of at most %d bytes: %v", calls, whole, longest, err)
	}
	if calls, _, err := zero(64<<10, 1); calls != 1 || !errors.Is(err, context.Canceled) {
		t.Errorf("%d ranges were zeroed after the end: %v", calls-1, err)
	}
}

func TestWholeDiskFileSystemGetsItsSuperblockLast(t *testing.T) {
	img := disktest.NewBare(t)
	d, file, before := noiseDisk(t, 5<<20)
	s := NewStorage(d, img.Layout)
	if err := s.HoldFirst(); err != nil {
		t.Fatal(err)
	}
	if err := s.WriteZeros(t.Context(), 1, nothing); err != nil {
		t.Fatal(err)
	}
	fetchAll(t, img, s)
	if err := s.Sync(); err != nil {
		t.Fatal(err)
	}
	for _, e := range img.Layout.WriteExtents(nil, 0, 0, 1) {
		if !isZero(readFile(t, file)[e.Offset:e.End()]) {
			t.Errorf("bytes %v of the first tile are not zeros before the end", e)
		}
	}
	encoded, err := s.Read(t.Context(), 0, images.TileSet{1}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if raw, err := encoded[0].Decode(nil); err != nil || !bytes.Equal(raw, img.Tile(0, 0)) {
		t.Errorf("the first tile is not served: %v", err)
	}
	if _, err := s.Verify(t.Context(), img.Manifest, job.VerifyFull, nothing); err != nil {
		t.Error(err)
	}
	if err := s.WriteFirst(); err != nil {
		t.Fatal(err)
	}
	img.Check(t, readFile(t, file), before)
	if n, err := d.WriteTable(nil, "none"); err != nil || n.IsZero() {
		t.Error(n, err)
	}
}
