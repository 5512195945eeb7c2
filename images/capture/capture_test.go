package capture

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"seedbed/images"
	"seedbed/images/fsmap"
	"seedbed/images/repository"
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
