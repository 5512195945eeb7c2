package restore_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"seedbed/images"
	"seedbed/images/capture"
	"seedbed/images/intake"
	"seedbed/images/layout"
	"seedbed/images/restore"
	"seedbed/images/tile"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const mib = 1 << 20

// tool runs a program; it is a failure not to have it.
func tool(t testing.TB, pkg, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if _, missing := exec.LookPath(name); missing != nil {
		t.Fatalf("%s is missing (Debian: apt install %s)", name, pkg)
	}
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// shelf keeps one image in memory. It implements intake.Sink and restore.Tiles.
type shelf struct {
	manifest *images.Manifest
	layout   *layout.Layout
	layers   map[images.Digest][]byte
	before   []int64           // data tiles before each piece, in its partition
	hashes   [][]images.Digest // of each partition

	mu    sync.Mutex // guards all below
	tiles map[images.TileKey]tile.Encoded
}

func (s *shelf) Have(_ context.Context, keys []images.TileKey) ([]bool, error) {
	return make([]bool, len(keys)), nil
}

func (s *shelf) Put(_ context.Context, tiles []intake.Tile) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range tiles {
		e := t.Encoded
		e.Bytes = bytes.Clone(e.Bytes)
		s.tiles[t.Key] = e
	}
	return nil
}

func (s *shelf) Commit(_ context.Context, spec *intake.Spec) (_ *intake.Published, err error) {
	if s.manifest, s.layers, err = intake.Assemble(spec, "sample", "1"); err != nil {
		return nil, err
	}
	if s.layout, err = layout.Load(s.manifest, s.fetch); err != nil {
		return nil, err
	}
	for i := range s.manifest.Partitions {
		var list []images.Digest
		for b := s.layers[s.manifest.Partitions[i].TileLayer.Digest]; len(b) > 0; b = b[32:] {
			list = append(list, images.Digest(b[:32]))
		}
		s.hashes = append(s.hashes, list)
		n := int64(0)
		for first, end := s.layout.Pieces(i); first < end; first++ {
			s.before = append(s.before, n)
			n += int64(s.layout.Data(first).Len())
		}
	}
	_, digest, err := s.manifest.Encode()
	return &intake.Published{Digest: digest, Name: "sample", Version: "1"}, err
}

func (s *shelf) Close() error { return nil }

func (s *shelf) fetch(r images.Ref) ([]byte, error) { return s.layers[r.Digest], nil }

func (s *shelf) TileHashes(piece int) []images.Digest {
	first := s.before[piece]
	return s.hashes[s.layout.Span(piece).Partition][first : first+int64(s.layout.Data(piece).Len())]
}

func (s *shelf) ReadPiece(_ context.Context, piece int, tiles images.TileSet) (list []tile.Encoded, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	rank, hashes := 0, s.TileHashes(piece)
	for t := range s.layout.Data(piece).All() {
		if tiles.Has(t) {
			e, ok := s.tiles[images.TileKey{Hash: hashes[rank], Length: int32(s.layout.TileLength(piece, t))}]
			if !ok {
				return nil, fmt.Errorf("tile %d of piece %d is not here", t, piece)
			}
			list = append(list, e)
		}
		rank++
	}
	return list, nil
}

// take captures a disk.
func take(t testing.TB, disk []byte, sector int) (*shelf, *restore.Image) {
	t.Helper()
	s := &shelf{tiles: map[images.TileKey]tile.Encoded{}}
	if _, err := capture.Disk(t.Context(), bytes.NewReader(disk), int64(len(disk)), sector, s, capture.Options{}); err != nil {
		t.Fatal(err)
	}
	image, err := restore.New(s.manifest, s.layout, s, s.fetch)
	if err != nil {
		t.Fatal(err)
	}
	return s, image
}

var golden struct {
	sync.Mutex
	disk []byte
}

// newDisk returns a disk of 96 MiB like a golden one: BIOS boot partition, ESP, ext4 and a partition that nothing knows, of
// an odd length; free space holds noise.
func newDisk(t testing.TB) []byte {
	t.Helper()
	golden.Lock()
	defer golden.Unlock()
	if golden.disk != nil {
		return bytes.Clone(golden.disk)
	}
	dir := t.TempDir()
	disk := make([]byte, 96*mib)
	random := rand.NewChaCha8([32]byte{9})
	random.Read(disk[mib : 95*mib])
	name := filepath.Join(dir, "disk.img")
	write(t, name, disk)
	tool(t, "gdisk", "sgdisk", "-a", "1", "-n", "1:2048:4095", "-t", "1:ef02", "-n", "2:4096:+16M", "-t", "2:ef00", "-n", "3:36864:+48M",
		"-t", "3:8300", "-n", "5:151552:+5003", "-t", "5:0700", "-c", "3:root", name)
	disk = read(t, name)
	tree := filepath.Join(dir, "tree")
	if err := os.Mkdir(tree, 0o700); err != nil {
		t.Fatal(err)
	}
	for i := range 16 {
		b := make([]byte, 1+i*i*9000)
		if i%4 > 0 { // every fourth is of zeros that are allocated
			random.Read(b[:len(b)/i*(i%4)])
		}
		write(t, filepath.Join(tree, fmt.Sprintf("file%02d", i)), b)
	}
	esp, root := filepath.Join(dir, "esp"), filepath.Join(dir, "root")
	write(t, esp, make([]byte, 16*mib))
	tool(t, "dosfstools", "mkfs.vfat", "-n", "ESP", esp)
	tool(t, "mtools", "mcopy", "-s", "-i", esp, tree, "::/EFI")
	copy(disk[4096*512:], read(t, esp))
	write(t, root, make([]byte, 48*mib))
	tool(t, "e2fsprogs", "mkfs.ext4", "-q", "-L", "root", "-d", tree, root)
	copy(disk[36864*512:], read(t, root))
	golden.disk = disk
	return bytes.Clone(disk)
}

func write(t testing.TB, name string, b []byte) {
	t.Helper()
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func read(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// judge asks the tools about a disk file with the table and file systems of newDisk.
func judge(t testing.TB, name string) {
	t.Helper()
	if out := tool(t, "gdisk", "sgdisk", "-v", name); !strings.Contains(out, "No problems found") {
		t.Errorf("sgdisk -v: %s", out)
	}
	tool(t, "fdisk", "sfdisk", "--verify", name)
	disk := read(t, name)
	part := filepath.Join(t.TempDir(), "part")
	write(t, part, disk[36864*512:36864*512+48*mib])
	tool(t, "e2fsprogs", "e2fsck", "-fn", part)
	write(t, part, disk[4096*512:4096*512+16*mib])
	tool(t, "dosfstools", "fsck.fat", "-n", part)
}
