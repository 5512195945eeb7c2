package capture

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"seedbed/images"
	"seedbed/images/fsmap"
	"seedbed/images/repository"
	"seedbed/images/tile"
	"seedbed/images/torrent"
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
	m, err := fsmap.Scan(bytes.NewReader(b), int64(len(b)))
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

func options(name string) Options {
	return Options{Name: name, Codec: tile.Zstd, Sign: func(m []byte) []byte { return images.Sign(key, m) }}
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

func TestACapturedDiskIsRestoredOverPoison(t *testing.T) {
	r := openRepository(t)
	disk, length := newDisk(t)
	o := options("golden")
	var last Progress
	o.Progress = func(p Progress) { last = p }
	result, err := Disk(t.Context(), open(t, disk), length, 512, r, o)
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

// TestLibtorrentMakesTheSameTorrentFromTheMaskedPartitions follows the whole way: disk, image, layers, torrent.
func TestLibtorrentMakesTheSameTorrentFromTheMaskedPartitions(t *testing.T) {
	r := openRepository(t)
	disk, length := newDisk(t)
	result, err := Disk(t.Context(), open(t, disk), length, 512, r, options("golden"))
	if err != nil {
		t.Fatal(err)
	}
	m := result.Image.Manifest
	info, err := torrent.FromManifest(m)
	if err != nil {
		t.Fatal(err)
	}
	var layers [][]byte
	for _, p := range m.Partitions {
		raw, err := r.Layer(t.Context(), p.Map.Digest)
		if err != nil {
			t.Fatal(err)
		}
		mp, err := images.DecodeMap(raw)
		if err != nil {
			t.Fatal(err)
		}
		var layer []byte
		if p.PieceLayer.Length > 0 {
			if layer, err = r.Layer(t.Context(), p.PieceLayer.Digest); err != nil {
				t.Fatal(err)
			}
		}
		full, err := torrent.FullLayer(mp, m.PieceLength, layer)
		if err != nil {
			t.Fatal(err)
		}
		layers = append(layers, full)
	}
	raw, err := info.Metainfo(layers)
	if err != nil {
		t.Fatal(err)
	}
	folder := restore(t, r, result.Image.Digest, true)
	named := filepath.Join(filepath.Dir(folder), "golden-1")
	if err := os.Rename(folder, named); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "golden.torrent")
	if err := os.WriteFile(file, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	// libtorrent reads the file, seeds from the folder and checks every block of it against the hashes.
	const judge = `
import json, sys, libtorrent as lt
info = lt.torrent_info(sys.argv[1])
session = lt.session({"enable_dht": False, "enable_lsd": False, "listen_interfaces": "127.0.0.1:0", "alert_mask": lt.alert.category_t.status_notification | lt.alert.category_t.error_notification})
p = lt.add_torrent_params()
p.ti, p.save_path = info, sys.argv[2]
h = session.add_torrent(p)
for _ in range(300):
    s = h.status()
    if s.errc.value() or s.state in (lt.torrent_status.seeding, lt.torrent_status.finished, lt.torrent_status.downloading):
        break
    session.wait_for_alert(200)
    session.pop_alerts()
json.dump({"hash": str(info.info_hashes().v2), "progress": s.progress, "error": s.errc.message() if s.errc.value() else "", "files": sum(1 for i in range(info.num_files()) if not info.files().file_flags(i) & lt.file_flags_t.flag_pad_file)}, sys.stdout)
`
	out := tool(t, "python3-libtorrent", "/usr/bin/python3", "-c", judge, file, filepath.Dir(named))
	var got struct {
		Hash, Error string
		Progress    float64
		Files       int
	}
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatal(err, out)
	}
	if got.Hash != info.InfoHash.String() || got.Progress != 1 || got.Error != "" || got.Files != 5 {
		t.Errorf("libtorrent says %+v, infohash %s", got, info.InfoHash)
	}
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
	result, err := Disk(t.Context(), c, length, 512, r, options("golden"))
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
	first, err := Disk(t.Context(), open(t, disk), length, 512, r, options("golden"))
	if err != nil {
		t.Fatal(err)
	}
	second, err := Disk(t.Context(), open(t, disk), length, 512, r, options("golden"))
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
	if _, err := Disk(t.Context(), open(t, disk), length, 512, r, o); !errors.Is(err, repository.ErrVersionExists) {
		t.Errorf("version 1 again: %v", err)
	}
}

func TestADirtyFileSystemIsRefusedUnlessCopiedInFull(t *testing.T) {
	r := openRepository(t)
	name := filepath.Join(t.TempDir(), "ext4")
	create(t, name, 24*mib)
	tool(t, "e2fsprogs", "mkfs.ext4", "-q", name)
	tool(t, "e2fsprogs", "debugfs", "-w", "-R", "feature needs_recovery", name)
	_, err := Disk(t.Context(), open(t, name), 24*mib, 512, r, options("dirty"))
	if !errors.Is(err, fsmap.ErrDirty) || !strings.Contains(err.Error(), "partition 0") {
		t.Errorf("a dirty file system: %v", err)
	}
	o := options("dirty")
	o.Full = true
	result, err := Disk(t.Context(), open(t, name), 24*mib, 512, r, o)
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
	_, err := Disk(t.Context(), src, length, 512, r, options("golden"))
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
	if _, err := Disk(ctx, open(t, disk), length, 512, r, o); !errors.Is(err, context.Canceled) {
		t.Errorf("the error is %v", err)
	}
	if list, _ := r.Images(t.Context()); len(list) != 0 {
		t.Errorf("images: %v", list)
	}
}

func TestOptionsAreChecked(t *testing.T) {
	for name, spoil := range map[string]func(*Options){
		"no name":         func(o *Options) { o.Name = "" },
		"path as name":    func(o *Options) { o.Name = "../x" },
		"path as version": func(o *Options) { o.Version = "a/b" },
		"no key":          func(o *Options) { o.Sign = nil },
	} {
		o := options("x")
		spoil(&o)
		if _, err := Disk(t.Context(), bytes.NewReader(nil), 0, 512, nil, o); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// synthetic is a disk without a table, a quarter of whose tiles is made up on the fly, a quarter equal, the rest zero.
type synthetic struct{ noise []byte }

func (s synthetic) ReadAt(b []byte, offset int64) (int, error) {
	clear(b)
	for at := 0; at < len(b); {
		pos := offset + int64(at)
		n := min(int(images.TileLength-pos%images.TileLength), len(b)-at)
		switch t := pos / images.TileLength; {
		case t == 0 || t%4 > 1:
		case t%4 == 1:
			copy(b[at:at+n], s.noise[pos%images.TileLength:])
		default:
			copy(b[at:at+n], s.noise[(t*37)%images.TileLength:])
		}
		at += n
	}
	return len(b), nil
}

// discard is a sink that keeps nothing.
type discard struct{ image *repository.Image }

func (*discard) Find(images.TileKey) (at repository.Location, ok bool, err error) { return }
func (*discard) Put(context.Context, images.TileKey, tile.Encoded) (at repository.Location, err error) {
	return
}
func (*discard) NextVersion(context.Context, string) (string, error) { return "1", nil }
func (d *discard) Publish(_ context.Context, draft *repository.Draft) (*repository.Image, error) {
	d.image = &repository.Image{Manifest: draft.Manifest}
	return d.image, nil
}

func TestMemoryStaysBounded(t *testing.T) {
	noise := make([]byte, 2*images.TileLength)
	rand.NewChaCha8([32]byte{3}).Read(noise)
	const length = 1 << 30
	var before, now runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	peak := uint64(0)
	o := options("large")
	o.Codec, o.Workers = tile.LZ4, 8
	n := 0
	o.Progress = func(Progress) {
		if n++; n%16 == 0 {
			runtime.ReadMemStats(&now)
			peak = max(peak, now.HeapInuse)
		}
	}
	if _, err := Disk(t.Context(), synthetic{noise}, length, 512, &discard{}, o); err != nil {
		t.Fatal(err)
	}
	if grown := int64(peak) - int64(before.HeapInuse); grown > 128*mib {
		t.Errorf("the heap grew by %d bytes", grown)
	}
}

func TestTheRootIsThatOfAllPiecesHoweverMany(t *testing.T) {
	for _, n := range []int64{1, 2, 3, 4095, 4096, 4097, 8192, 8193, 12_289, 20_000} {
		piece := func(i int64) images.Digest { return sha256.Sum256(fmt.Append(nil, i)) }
		all := make([]images.Digest, n)
		for i := range all {
			all[i] = piece(int64(i))
		}
		if got, want := rootOf(n, 256<<10, piece), images.PartitionRoot(all, 256<<10); got != want {
			t.Errorf("%d pieces: root %v, want %v", n, got, want)
		}
	}
}
