//go:build linux

package restore_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"seedbed/images"
	"seedbed/images/parttable"
	"seedbed/images/restore"
)

// export writes an image as a file or volumes.
func export(t testing.TB, image *restore.Image, path string, length, split int64) {
	t.Helper()
	out, err := restore.CreateOutput(path, length, split)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Abort()
	if err := image.Stream(t.Context(), length, restore.CheckOrder(length, out.Write), nil); err != nil {
		t.Fatal(err)
	}
	if err := out.Commit(); err != nil {
		t.Fatal(err)
	}
}

// masked returns the disk as an image keeps it: free bytes are zero.
func masked(s *shelf, disk []byte) []byte {
	want := make([]byte, len(disk))
	for _, r := range s.manifest.Frame.Region {
		copy(want[r.Offset:], s.layers[r.Digest])
	}
	for p := range s.manifest.Partitions {
		for _, u := range s.layout.Map(p).Extents {
			at := s.manifest.Partitions[p].Offset + u.Offset
			copy(want[at:at+u.Length], disk[at:])
		}
	}
	return want
}

func folder(t testing.TB, dir string) (names []string) {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		names = append(names, e.Name())
	}
	return names
}

func TestAnExportIsASparseBootableDisk(t *testing.T) {
	disk := newDisk(t)
	s, image := take(t, disk, 512)
	dir := t.TempDir()
	name := filepath.Join(dir, "out.img")
	export(t, image, name, image.DiskLength(), 0)
	got := read(t, name)
	if !bytes.Equal(got, masked(s, disk)) {
		t.Error("it is not the disk through its mask")
	}
	judge(t, name)
	var info struct {
		Format  string `json:"format"`
		Virtual int64  `json:"virtual-size"`
	}
	if err := json.Unmarshal([]byte(tool(t, "qemu-utils", "qemu-img", "info", "--output", "json", name)), &info); err != nil || info.Format != "raw" || info.Virtual != image.DiskLength() {
		t.Errorf("qemu-img: %+v %v", info, err)
	}
	st, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	nonzero := int64(0)
	for at := 0; at < len(got); at += 4096 {
		if !bytes.Equal(got[at:at+4096], make([]byte, 4096)) {
			nonzero += 4096
		}
	}
	if used := st.Sys().(*syscall.Stat_t).Blocks * 512; used > nonzero+mib {
		t.Errorf("%d bytes are allocated, %d are not zero", used, nonzero)
	}
	again, _ := take(t, got, 512)
	for p := range s.manifest.Partitions {
		if again.manifest.Partitions[p].Root != s.manifest.Partitions[p].Root {
			t.Errorf("partition %d has another root after it was captured again", s.manifest.Partitions[p].Number)
		}
	}
	for k := range again.tiles {
		if _, ok := s.tiles[k]; !ok {
			t.Fatal("it has tiles that the image has not")
		}
	}
	if names := folder(t, dir); len(names) != 1 {
		t.Errorf("left beside it: %v", names)
	}
}

func TestAnExportForALongerDiskHasItsTableThere(t *testing.T) {
	_, image := take(t, newDisk(t), 512)
	name := filepath.Join(t.TempDir(), "out.img")
	export(t, image, name, 200*mib, 0)
	judge(t, name)
	if !compare(t, image, read(t, name)).IsEmpty() {
		t.Error("the export is not the image")
	}
	out := func(int64, []byte) error { return nil }
	if err := image.Stream(t.Context(), 50*mib, out, nil); !errors.Is(err, parttable.ErrTooSmall) {
		t.Errorf("a disk that is too small: %v", err)
	}
	if err := image.Stream(t.Context(), 200*mib+1, out, nil); err == nil {
		t.Error("a disk of no whole sectors")
	}
}

func TestVolumesJoinToTheDisk(t *testing.T) {
	disk := newDisk(t)
	s, image := take(t, disk, 512)
	dir := t.TempDir()
	export(t, image, filepath.Join(dir, "out"), image.DiskLength(), 7*mib)
	var joined []byte
	for n, name := range folder(t, dir) {
		if name != filepath.Base(restore.VolumeName("out", n+1)) {
			t.Fatalf("volume %d is named %s", n+1, name)
		}
		b := read(t, filepath.Join(dir, name))
		if len(b) != 7*mib && n != 13 {
			t.Errorf("%s has %d bytes", name, len(b))
		}
		joined = append(joined, b...)
	}
	if !bytes.Equal(joined, masked(s, disk)) {
		t.Error("the volumes are not the disk")
	}
	if _, err := restore.CreateOutput(filepath.Join(dir, "x"), image.DiskLength(), 65536); err == nil || !strings.Contains(err.Error(), "999") {
		t.Errorf("too many volumes: %v", err)
	}
}

func TestAStreamHasTheZerosToo(t *testing.T) {
	disk := newDisk(t)
	s, image := take(t, disk, 512)
	var b bytes.Buffer
	w := &restore.Sequential{W: &b}
	if err := image.Stream(t.Context(), image.DiskLength(), w.Write, nil); err != nil {
		t.Fatal(err)
	}
	if err := w.Finish(image.DiskLength()); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b.Bytes(), masked(s, disk)) {
		t.Error("the stream is not the disk")
	}
}

func TestNothingIsLeftOfAnExportThatDoesNotEnd(t *testing.T) {
	disk := newDisk(t)
	s, image := take(t, disk, 512)
	dir := t.TempDir()
	out, err := restore.CreateOutput(filepath.Join(dir, "out"), image.DiskLength(), 30*mib)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	err = image.Stream(ctx, image.DiskLength(), func(at int64, b []byte) error { cancel(); return out.Write(at, b) }, nil)
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := out.Abort(); err != nil {
		t.Error(err)
	}
	if names := folder(t, dir); len(names) > 0 {
		t.Errorf("left: %v", names)
	}
	for k := range s.tiles { // one tile is lost
		delete(s.tiles, k)
		break
	}
	err = image.Stream(t.Context(), image.DiskLength(), func(int64, []byte) error { return nil }, nil)
	if _, ok := errors.AsType[*restore.DamageError](err); !ok {
		t.Errorf("a tile is missing: %v", err)
	}
}

func TestATileWithAWrongHashIsNeverWritten(t *testing.T) {
	disk := make([]byte, 4*mib)
	rand.NewChaCha8([32]byte{1}).Read(disk)
	s, image := take(t, disk, 512)
	for k, e := range s.tiles {
		e.Bytes = bytes.Clone(e.Bytes)
		e.Bytes[0] ^= 1
		s.tiles[k] = e
		break
	}
	got := make([]byte, len(disk))
	err := image.Stream(t.Context(), int64(len(disk)), func(at int64, b []byte) error { copy(got[at:], b); return nil }, nil)
	damage, ok := errors.AsType[*restore.DamageError](err)
	if !ok || damage.Extent.Length != images.TileLength {
		t.Fatalf("%v", err)
	}
	for at := range got {
		if got[at] != 0 && got[at] != disk[at] {
			t.Fatal("wrong bytes were written")
		}
	}
}

func TestNothingIsOverwritten(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "out")
	write(t, name, []byte("mine"))
	if _, err := restore.CreateOutput(name, mib, 0); err == nil || !strings.Contains(err.Error(), "another name") {
		t.Error(err)
	}
	if _, err := restore.CreateOutput("/dev/null", mib, 0); err == nil {
		t.Error("a device was taken")
	}
	some := filepath.Join(t.TempDir(), "disk")
	write(t, some, make([]byte, mib))
	device := loop(t, some)
	if _, err := restore.CreateOutput(device, mib, 0); err == nil || !strings.Contains(err.Error(), "--repair") {
		t.Error(err)
	}
	late := filepath.Join(dir, "late") // it comes into being while we write
	out, err := restore.CreateOutput(late, mib, 400<<10)
	if err != nil {
		t.Fatal(err)
	}
	write(t, late+".002", []byte("mine"))
	if err := out.Commit(); err == nil {
		t.Error("it was replaced")
	}
	if names := folder(t, dir); strings.Join(names, " ") != "late.002 out" || string(read(t, late+".002")) != "mine" {
		t.Errorf("left: %v", names)
	}
}

// TestOutputMatchesWhatWasWritten writes ranges that begin and end anywhere.
func TestOutputMatchesWhatWasWritten(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	for range 50 {
		length := 4096*random.Int64N(40) + 512
		name := filepath.Join(t.TempDir(), "out")
		out, err := restore.CreateOutput(name, length, 0)
		if err != nil {
			t.Fatal(err)
		}
		want := make([]byte, length)
		for at := int64(0); at < length; {
			n := min(1+random.Int64N(20_000), length-at)
			b := want[at : at+n]
			for range random.IntN(4) {
				b[random.Int64N(n)] = 1
			}
			if err := out.Write(at, b); err != nil {
				t.Fatal(err)
			}
			at += n + random.Int64N(5000)
		}
		if out.Write(length-1, []byte{1, 2}) == nil {
			t.Error("written past the end")
		}
		want[length-1] = 1 // what of it lay inside was
		if err := out.Commit(); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(read(t, name), want) {
			t.Fatal("other bytes")
		}
	}
}

func TestBytesOutOfOrderAreRefused(t *testing.T) {
	emit := restore.CheckOrder(100, func(int64, []byte) error { return nil })
	if err := emit(10, make([]byte, 10)); err != nil {
		t.Error(err)
	}
	for _, at := range []int64{-1, 19, 91, 1 << 62} {
		if emit(at, make([]byte, 10)) == nil {
			t.Errorf("10 bytes at %d of 100 after 20", at)
		}
	}
}

// BenchmarkStream decodes a disk of noise and zeros.
func BenchmarkStream(b *testing.B) {
	disk := make([]byte, 64*mib)
	random := rand.NewChaCha8([32]byte{1})
	for at := 0; at < len(disk); at += 4096 {
		random.Read(disk[at : at+1400])
	}
	_, image := take(b, disk, 512)
	b.SetBytes(int64(len(disk)))
	for b.Loop() {
		if err := image.Stream(b.Context(), int64(len(disk)), func(int64, []byte) error { return nil }, nil); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkCompare reads and hashes a disk in memory.
func BenchmarkCompare(b *testing.B) {
	disk := make([]byte, 64*mib)
	rand.NewChaCha8([32]byte{1}).Read(disk)
	_, image := take(b, disk, 512)
	b.SetBytes(int64(len(disk)))
	for b.Loop() {
		if _, err := image.Compare(b.Context(), bytes.NewReader(disk), int64(len(disk)), nil); err != nil {
			b.Fatal(err)
		}
	}
}
