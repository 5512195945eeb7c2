package capture

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"seedbed/images"
	"seedbed/images/fsmap"
	"seedbed/images/repository"
	"seedbed/images/tile"
)

// shared is a folder that all tests share.
var shared string

func TestMain(m *testing.M) {
	var err error
	if shared, err = os.MkdirTemp("", "seedbed-capture-"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		os.RemoveAll(shared)
		os.Exit(code)
	}))
}

// tool runs a program; it is a failure not to have it.
func tool(t *testing.T, pkg, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if errors.Is(err, exec.ErrNotFound) {
		t.Fatalf("%s is missing (Debian: apt install %s)", name, pkg)
	}
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func create(t *testing.T, name string, length int64) {
	t.Helper()
	f, err := os.Create(name)
	if err == nil {
		err = f.Truncate(length)
	}
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
}

// place copies a file into another at an offset.
func place(t *testing.T, disk, name string, offset int64) {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(disk, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(b, offset); err != nil {
		t.Fatal(err)
	}
}

const mib = 1 << 20

// tree of files for a file system: text, noise, zeros, and holes.
func writeTree(t *testing.T, seed uint64) string {
	t.Helper()
	folder := t.TempDir()
	noise := rand.NewChaCha8([32]byte{byte(seed)})
	for i := range 20 {
		b := make([]byte, 1+i*i*1500)
		switch i % 4 {
		case 0:
			noise.Read(b)
		case 1:
			copy(b, bytes.Repeat(fmt.Appendf(nil, "line %d of a file\n", i), len(b)/16))
		case 2: // zeros that are allocated
		case 3:
			noise.Read(b[len(b)/2:])
		}
		if err := os.WriteFile(filepath.Join(folder, fmt.Sprintf("file%02d", i)), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return folder
}

// newDisk makes a GPT disk like a golden one: BIOS boot, ESP, ext4 with free space that is not zero, swap, and a
// partition that nothing knows, whose length is no whole number of tiles.
func newDisk(t *testing.T) (name string, length int64) {
	t.Helper()
	name, length = filepath.Join(shared, "disk.img"), 96*mib
	if _, err := os.Stat(name); err == nil {
		return name, length // the tests only read it
	}
	folder := t.TempDir()
	defer func() {
		if err := os.Rename(filepath.Join(folder, "disk.img"), filepath.Join(shared, "disk.img")); err != nil {
			t.Error(err)
		}
		name = filepath.Join(shared, "disk.img")
	}()
	name = filepath.Join(folder, "disk.img")
	create(t, name, length)
	noise := make([]byte, length)
	rand.NewChaCha8([32]byte{9}).Read(noise)
	if err := os.WriteFile(name, noise, 0o600); err != nil { // what an old disk holds in free space
		t.Fatal(err)
	}
	place(t, name, zeroFile(t, mib), 0)
	place(t, name, zeroFile(t, mib), length-mib)
	tool(t, "gdisk", "sgdisk", "-a", "1", "-n", "1:2048:4095", "-t", "1:ef02", "-n", "2:4096:+16M", "-t", "2:ef00", "-n", "3:36864:+48M",
		"-t", "3:8300", "-n", "4:135168:+8M", "-t", "4:8200", "-n", "5:151552:+5003", "-t", "5:0700", "-c", "3:root", name)
	esp := filepath.Join(folder, "esp")
	create(t, esp, 16*mib)
	tool(t, "dosfstools", "mkfs.vfat", "-n", "ESP", esp)
	tool(t, "mtools", "mcopy", "-s", "-i", esp, writeTree(t, 1), "::/EFI")
	place(t, name, esp, 4096*512)
	root := filepath.Join(folder, "root")
	create(t, root, 48*mib)
	tool(t, "e2fsprogs", "mkfs.ext4", "-q", "-L", "root", "-d", writeTree(t, 2), root)
	placeUsed(t, name, root, 36864*512)
	swap := filepath.Join(folder, "swap")
	create(t, swap, 8*mib)
	tool(t, "util-linux", "mkswap", swap)
	if err := os.Truncate(swap, 4096); err != nil {
		t.Fatal(err)
	}
	place(t, name, swap, 135168*512)
	return name, length
}

func zeroFile(t *testing.T, n int64) string {
	name := filepath.Join(t.TempDir(), "zeros")
	create(t, name, n)
	return name
}

// placeUsed copies only what a file system uses, so that its free space keeps noise.
func placeUsed(t *testing.T, disk, name string, offset int64) {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	m, err := fsmap.Scan(bytes.NewReader(b), int64(len(b)), fsmap.Options{})
	if err != nil || m.Kind != fsmap.KindUsed {
		t.Fatal(m, err)
	}
	f, err := os.OpenFile(disk, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, e := range m.Used {
		if _, err := f.WriteAt(b[e.Offset:e.End()], offset+e.Offset); err != nil {
			t.Fatal(err)
		}
	}
}

func openRepository(t *testing.T) *repository.Repository {
	t.Helper()
	b, err := repository.OpenDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	r, err := repository.Open(t.Context(), b, repository.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

var key = ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))

// order is what a test captures.
type order struct {
	Options
	Name, Version string
}

func options(name string) order { return order{Options: Options{Codec: tile.Zstd}, Name: name} }

// made is a Result with its image.
type made struct {
	*Result
	Image *repository.Image
}

// captureDisk captures a disk into a repository.
func captureDisk(ctx context.Context, src io.ReaderAt, length int64, sector int, r *repository.Repository, o order) (*made, error) {
	session, err := r.Begin(ctx, repository.SessionConfig{Name: o.Name, Version: o.Version, Sign: func(m []byte) []byte { return images.Sign(key, m) }})
	if err != nil {
		return nil, err
	}
	defer session.Close()
	result, err := Disk(ctx, src, length, sector, session, o.Options)
	if err != nil {
		return nil, err
	}
	image, err := r.Manifest(ctx, result.Image.Digest)
	return &made{result, image}, err
}

func open(t *testing.T, name string) *os.File {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// restore writes each partition of an image into a file of its own: zeros where the tile is zero, data on used extents
// only, 0xCC everywhere else unless mask is set.
func restore(t *testing.T, r *repository.Repository, d images.Digest, mask bool) (folder string) {
	t.Helper()
	x, err := r.OpenImage(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	folder = t.TempDir()
	m, shape := x.Image().Manifest, x.Layout()
	for i := range m.Partitions {
		p := &m.Partitions[i]
		out := bytes.Repeat([]byte{0xCC}, int(p.Length))
		if mask {
			clear(out)
		}
		for _, z := range shape.Map(i).Zero {
			for _, e := range shape.Map(i).Used(nil, images.Extent{Offset: z.First * images.TileLength, Length: z.Count * images.TileLength}) {
				clear(out[e.Offset:e.End()])
			}
		}
		first, end := shape.Pieces(i)
		for piece := first; piece < end; piece++ {
			list, err := x.ReadPiece(t.Context(), piece, shape.Data(piece))
			if err != nil {
				t.Fatal(err)
			}
			k := 0
			for n := range shape.Data(piece).All() {
				raw, err := list[k].Decode(nil)
				if err != nil {
					t.Fatal(err)
				}
				k++
				at := shape.Span(piece).Offset + int64(n)*images.TileLength
				for _, e := range shape.WriteExtents(nil, piece, n, 1) {
					copy(out[e.Offset:e.End()], raw[e.Offset-at:])
				}
			}
		}
		if err := os.WriteFile(filepath.Join(folder, p.FileName()), out, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return folder
}
