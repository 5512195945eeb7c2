package capture

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"seedbed/images"
	"seedbed/images/fsmap"
	"seedbed/images/intake"
	"seedbed/images/repository"
	"seedbed/images/tile"
)

func TestACapturedDiskIsRestoredOverPoison(t *testing.T) {
	r := openRepository(t)
	disk, length := newDisk(t)
	o := options("golden")
	var last Progress
	o.Progress = func(p Progress) { last = p }
	result, err := captureDisk(t.Context(), open(t, disk), length, 512, r, o)
	if err != nil {
		t.Fatal(err)
	}
	if last.Done != last.Total || last.Total == 0 || last.Partition != 5 {
		t.Errorf("progress ended at %+v", last)
	}
	image := result.Image
	m := image.Manifest
	if m.Version != "1" || m.Frame.Table != "gpt" || len(m.Partitions) != 5 || strings.Join(m.Firmware, " ") != "uefi" {
		t.Errorf("manifest: %+v", m)
	}
	if err := images.Verify(key.Public().(ed25519.PublicKey), image.Raw, image.Signature); err != nil {
		t.Error(err)
	}
	if err := r.Verify(t.Context(), image.Digest, nil); err != nil {
		t.Error(err)
	}
	kinds := []string{"full", "used", "used", "header", "full"}
	for i, p := range m.Partitions {
		if p.MapKind != kinds[i] {
			t.Errorf("partition %d: map kind %s, want %s", p.Number, p.MapKind, kinds[i])
		}
	}
	if swap := m.Partitions[3]; swap.UsedLength > 64<<10 || swap.FS != "swap" {
		t.Errorf("swap: %+v", swap)
	}
	folder := restore(t, r, image.Digest, false)
	tool(t, "dosfstools", "fsck.fat", "-n", filepath.Join(folder, "p0002"))
	tool(t, "e2fsprogs", "fsck.ext4", "-fn", filepath.Join(folder, "p0003"))
	content, err := os.ReadFile(disk)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{0, 4} { // copied in full
		p := m.Partitions[n]
		got, err := os.ReadFile(filepath.Join(folder, p.FileName()))
		if err != nil || !bytes.Equal(got, content[p.Offset:p.Offset+p.Length]) {
			t.Errorf("partition %d differs: %v", p.Number, err)
		}
	}
	files := t.TempDir()
	tool(t, "e2fsprogs", "debugfs", "-R", "rdump / "+files, filepath.Join(folder, "p0003"))
	tool(t, "diffutils", "diff", "-r", "--exclude=lost+found", writeTree(t, 2), files)
}

// counting counts what is read.
type counting struct {
	io.ReaderAt
	n atomic.Int64
}

func (c *counting) ReadAt(b []byte, offset int64) (int, error) {
	n, err := c.ReaderAt.ReadAt(b, offset)
	c.n.Add(int64(n))
	return n, err
}

func TestFreeSpaceIsNotRead(t *testing.T) {
	r := openRepository(t)
	disk, length := newDisk(t)
	c := &counting{ReaderAt: open(t, disk)}
	result, err := captureDisk(t.Context(), c, length, 512, r, options("golden"))
	if err != nil {
		t.Fatal(err)
	}
	used := result.Image.Manifest.UsedLength()
	if n := c.n.Load(); n > used+used/4+4*mib {
		t.Errorf("%d bytes were read, %d are in use", n, used)
	}
}

func TestTheSameDiskAgainAddsNothing(t *testing.T) {
	r := openRepository(t)
	disk, length := newDisk(t)
	first, err := captureDisk(t.Context(), open(t, disk), length, 512, r, options("golden"))
	if err != nil {
		t.Fatal(err)
	}
	second, err := captureDisk(t.Context(), open(t, disk), length, 512, r, options("golden"))
	if err != nil {
		t.Fatal(err)
	}
	if first.NewTiles == 0 || second.NewTiles != 0 || second.Image.Manifest.Version != "2" {
		t.Errorf("%d and %d new tiles, version %s", first.NewTiles, second.NewTiles, second.Image.Manifest.Version)
	}
	for i, p := range first.Image.Manifest.Partitions {
		if q := second.Image.Manifest.Partitions[i]; p.Root != q.Root || p.Map != q.Map {
			t.Errorf("partition %d has another root or map", p.Number)
		}
	}
	o := options("golden")
	o.Version, o.Created = "1", time.Unix(1e9, 0) // another manifest
	if _, err := captureDisk(t.Context(), open(t, disk), length, 512, r, o); !errors.Is(err, repository.ErrVersionExists) {
		t.Errorf("version 1 again: %v", err)
	}
}

func TestADirtyFileSystemIsRefusedUnlessCopiedInFull(t *testing.T) {
	r := openRepository(t)
	name := filepath.Join(t.TempDir(), "ext4")
	create(t, name, 24*mib)
	tool(t, "e2fsprogs", "mkfs.ext4", "-q", name)
	tool(t, "e2fsprogs", "debugfs", "-w", "-R", "feature needs_recovery", name)
	_, err := captureDisk(t.Context(), open(t, name), 24*mib, 512, r, options("dirty"))
	if !errors.Is(err, fsmap.ErrDirty) || !strings.Contains(err.Error(), "partition 0") {
		t.Errorf("a dirty file system: %v", err)
	}
	o := options("dirty")
	o.Full = true
	result, err := captureDisk(t.Context(), open(t, name), 24*mib, 512, r, o)
	if err != nil {
		t.Fatal(err)
	}
	m := result.Image.Manifest
	if m.Frame.Table != "none" || len(m.Partitions) != 1 || m.Partitions[0].Number != 0 || m.Partitions[0].MapKind != "full" {
		t.Errorf("manifest: %+v", m)
	}
	want, _ := os.ReadFile(name)
	got, err := os.ReadFile(filepath.Join(restore(t, r, result.Image.Digest, false), "p0000"))
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("the copy differs: %v", err)
	}
}

// broken fails reads that touch a byte.
type broken struct {
	io.ReaderAt
	at int64
}

func (b broken) ReadAt(p []byte, offset int64) (int, error) {
	if offset <= b.at && b.at < offset+int64(len(p)) {
		return 0, errors.New("medium error")
	}
	return b.ReaderAt.ReadAt(p, offset)
}

func TestAReadErrorNamesThePlaceAndPublishesNothing(t *testing.T) {
	r := openRepository(t)
	disk, length := newDisk(t)
	src := broken{open(t, disk), 151552*512 + 2*mib} // in partition 5
	_, err := captureDisk(t.Context(), src, length, 512, r, options("golden"))
	if err == nil || !strings.Contains(err.Error(), "partition 5: read bytes [") || !strings.Contains(err.Error(), "medium error") {
		t.Errorf("the error is %v", err)
	}
	if list, _ := r.Images(t.Context()); len(list) != 0 {
		t.Errorf("images: %v", list)
	}
}

func TestACancelledCapturePublishesNothing(t *testing.T) {
	r := openRepository(t)
	disk, length := newDisk(t)
	ctx, cancel := context.WithCancel(t.Context())
	o := options("golden")
	o.Progress = func(p Progress) {
		if p.Partition == 3 {
			cancel()
		}
	}
	if _, err := captureDisk(ctx, open(t, disk), length, 512, r, o); !errors.Is(err, context.Canceled) {
		t.Errorf("the error is %v", err)
	}
	if list, _ := r.Images(t.Context()); len(list) != 0 {
		t.Errorf("images: %v", list)
	}
}

func TestOnlyTheChosenPartitionsAreCaptured(t *testing.T) {
	r := openRepository(t)
	disk, length := newDisk(t)
	o := options("golden")
	o.Partitions = []int{2, 4}
	c := &counting{ReaderAt: open(t, disk)}
	result, err := captureDisk(t.Context(), c, length, 512, r, o)
	if err != nil {
		t.Fatal(err)
	}
	m := result.Image.Manifest
	for i, kind := range []string{images.MapNone, "used", images.MapNone, "header", images.MapNone} {
		if p := m.Partitions[i]; p.MapKind != kind || (kind == images.MapNone) != (p.UsedLength == 0) {
			t.Errorf("partition %d: %+v", p.Number, p)
		}
	}
	if len(m.Partitions) != 5 || len(result.Warnings) != 3 || c.n.Load() > m.UsedLength()+4*mib {
		t.Errorf("%d partitions, warnings %q, %d bytes read", len(m.Partitions), result.Warnings, c.n.Load())
	}
	if d := result.Dropped; len(d) != 1 || d[0].Partition != 4 || len(m.Partitions[3].Dropped) != 1 {
		t.Errorf("dropped %+v", d)
	}
	if err := r.Verify(t.Context(), result.Image.Digest, nil); err != nil {
		t.Error(err)
	}
	// Whatever a disk holds there stays.
	folder := restore(t, r, result.Image.Digest, false)
	for _, name := range []string{"p0001", "p0003", "p0005"} {
		b, err := os.ReadFile(filepath.Join(folder, name))
		if err != nil || len(bytes.Trim(b, "\xcc")) > 0 {
			t.Errorf("%s would be written: %v", name, err)
		}
	}
	o.Partitions = []int{6}
	if _, err := captureDisk(t.Context(), c, length, 512, r, o); !errors.Is(err, ErrNoPartition) {
		t.Errorf("partition 6: %v", err)
	}
}

func TestASourceThatChangedIsNotPublished(t *testing.T) {
	r := openRepository(t)
	disk, length := newDisk(t)
	o := options("golden")
	changed := errors.New("it changed")
	o.Unchanged = func() error { return changed }
	if _, err := captureDisk(t.Context(), open(t, disk), length, 512, r, o); !errors.Is(err, changed) {
		t.Errorf("the error is %v", err)
	}
	if list, _ := r.Images(t.Context()); len(list) != 0 {
		t.Errorf("images: %v", list)
	}
}

// flaky fails the first read of every megabyte.
type flaky struct {
	io.ReaderAt
	seen sync.Map
}

func (f *flaky) ReadAt(b []byte, offset int64) (int, error) {
	if _, again := f.seen.LoadOrStore(offset/mib, true); !again && len(b) > 64<<10 {
		return 0, errors.New("a bad moment")
	}
	return f.ReaderAt.ReadAt(b, offset)
}

func TestWhatCannotBeReadIsTriedAgain(t *testing.T) {
	r := openRepository(t)
	disk, length := newDisk(t)
	want, err := captureDisk(t.Context(), open(t, disk), length, 512, r, options("golden"))
	if err != nil {
		t.Fatal(err)
	}
	got, err := captureDisk(t.Context(), &flaky{ReaderAt: open(t, disk)}, length, 512, r, options("golden"))
	if err != nil {
		t.Fatal(err)
	}
	for i, p := range got.Image.Manifest.Partitions {
		if p.Root != want.Image.Manifest.Partitions[i].Root {
			t.Errorf("partition %d differs", p.Number)
		}
	}
}

func TestACutDiskIsSaidToBeCut(t *testing.T) {
	r := openRepository(t)
	disk, length := newDisk(t)
	whole := open(t, disk)
	cut := io.NewSectionReader(whole, 0, 151552*512+mib) // in partition 5; the table's copy is behind
	_, err := captureDisk(t.Context(), cut, length, 512, r, options("golden"))
	if err == nil || !strings.Contains(err.Error(), "cut off") && !strings.Contains(err.Error(), "EOF") {
		t.Errorf("the error is %v", err)
	}
}

// distant is a sink behind a network: it answers late, and counts.
type distant struct {
	discard
	haves, puts, keys, tiles, most atomic.Int64
}

const latency = 20 * time.Millisecond

func (d *distant) Have(_ context.Context, keys []images.TileKey) ([]bool, error) {
	time.Sleep(latency)
	d.haves.Add(1)
	d.keys.Add(int64(len(keys)))
	if n := int64(len(keys)); n > d.most.Load() {
		d.most.Store(n)
	}
	return make([]bool, len(keys)), nil
}

func (d *distant) Put(_ context.Context, tiles []intake.Tile) error {
	time.Sleep(latency)
	d.puts.Add(1)
	d.tiles.Add(int64(len(tiles)))
	for i, x := range tiles {
		if i > 0 && bytes.Equal(x.Key.Hash[:], tiles[i-1].Key.Hash[:]) {
			return errors.New("a tile came twice in a row")
		}
	}
	return nil
}

// The units of a disk of 128 MiB one after the other would be 128 round trips for Have and 128 for Put.
func TestLatencyIsHiddenByBatches(t *testing.T) {
	noise := make([]byte, 2*images.TileLength)
	rand.NewChaCha8([32]byte{3}).Read(noise)
	d := &distant{}
	o := options("far")
	o.Codec = tile.Stored
	result, err := Disk(t.Context(), synthetic{noise}, 128*mib, 512, d, o.Options)
	if err != nil {
		t.Fatal(err)
	}
	if d.keys.Load() != d.tiles.Load() || d.tiles.Load() != result.NewTiles || result.NewTiles == 0 {
		t.Errorf("%d keys, %d tiles, %d new", d.keys.Load(), d.tiles.Load(), result.NewTiles)
	}
	if d.haves.Load() > 90 || d.puts.Load() > 90 || d.most.Load() <= unitTiles {
		t.Errorf("%d calls of Have with at most %d keys, %d of Put", d.haves.Load(), d.most.Load(), d.puts.Load())
	}
}
