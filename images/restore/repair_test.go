package restore_test

import (
	"bytes"
	"errors"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"seedbed/images"
	"seedbed/images/restore"
)

// memoryDisk records what is written between flushes. It implements restore.Disk.
type memoryDisk struct {
	mu     sync.Mutex // guards all below
	b      []byte
	log    []write1 // nil Bytes: a flush
	fail   int      // writes until the power is cut; 0: never
	deaf   bool     // it forgets what is written
	direct bool
}

type write1 struct {
	offset int64
	bytes  []byte
}

var errPower = errors.New("power cut")

func (d *memoryDisk) ReadAt(b []byte, offset int64) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return bytes.NewReader(d.b).ReadAt(b, offset)
}

func (d *memoryDisk) WriteAt(b []byte, offset int64) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fail > 0 {
		if d.fail--; d.fail == 0 {
			d.fail = 1
			return 0, errPower
		}
	}
	d.log = append(d.log, write1{offset, bytes.Clone(b)})
	if !d.deaf {
		copy(d.b[offset:], b)
	}
	return len(b), nil
}

func (d *memoryDisk) Zero(offset, length int64) error {
	_, err := d.WriteAt(make([]byte, length), offset)
	return err
}

func (d *memoryDisk) Sync() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.log = append(d.log, write1{})
	return nil
}

func (d *memoryDisk) Direct() (restore.DirectReader, bool, error) {
	return struct {
		io.ReaderAt
		io.Closer
	}{d, io.NopCloser(nil)}, true, nil
}

// spoil changes some used bytes of every kind and returns the disk as a repair has to leave it.
func spoil(s *shelf, disk []byte, n int) (want []byte) {
	random := rand.New(rand.NewPCG(5, uint64(n)))
	want = bytes.Clone(disk)
	for range n {
		p := random.IntN(len(s.manifest.Partitions))
		used := s.layout.Map(p).Extents
		u := used[random.IntN(len(used))]
		at := s.manifest.Partitions[p].Offset + u.Offset + random.Int64N(u.Length)
		disk[at] ^= 0xFF
	}
	disk[440] ^= 1
	disk[len(disk)-512+20] ^= 1
	return want
}

func TestRepairWritesOnlyWhatIsWrong(t *testing.T) {
	disk := newDisk(t)
	s, image := take(t, disk, 512)
	want := spoil(s, disk, 40)
	for p := range s.manifest.Partitions { // free bytes are not touched, whatever they are
		part := &s.manifest.Partitions[p]
		at := int64(0)
		for _, e := range append(s.layout.Map(p).Extents, images.Extent{Offset: part.Length}) {
			for ; at < e.Offset; at++ {
				disk[part.Offset+at] ^= 0xA5
				want[part.Offset+at] ^= 0xA5
			}
			at = e.End()
		}
	}
	d := compare(t, image, disk)
	tiles, length, _ := d.Count()
	m := &memoryDisk{b: disk}
	result, err := d.Repair(t.Context(), m, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(disk, want) {
		t.Error("the disk is not as it was")
	}
	if !compare(t, image, disk).IsEmpty() || result.Tiles != tiles || !result.Past || len(result.Left) > 0 {
		t.Errorf("%+v of %d tiles", result, tiles)
	}
	written := int64(0)
	for _, w := range m.log {
		written += int64(len(w.bytes))
	}
	if written != result.Length || written > length+1024 {
		t.Errorf("%d bytes were written, %d are said, %d are in wrong tiles", written, result.Length, length)
	}
	lastWrite := m.log[len(m.log)-2]
	if lastWrite.offset != 0 || m.log[len(m.log)-3].bytes != nil || m.log[len(m.log)-1].bytes != nil {
		t.Errorf("LBA 0 is not written last between two flushes: the last write is at %d", lastWrite.offset)
	}
}

// TestPowerCutsLeaveADiskThatRepairCompletes cuts after every write, and loses any of those since the last flush.
func TestPowerCutsLeaveADiskThatRepairCompletes(t *testing.T) {
	golden := newDisk(t)
	s, image := take(t, golden, 512)
	spoiled := bytes.Clone(golden)
	want := spoil(s, spoiled, 12)
	m := &memoryDisk{b: bytes.Clone(spoiled)}
	d := compare(t, image, spoiled)
	if _, err := d.Repair(t.Context(), m, nil); err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(3, 3))
	for cut := range m.log {
		b := bytes.Clone(spoiled)
		durable := 0
		for n, w := range m.log[:cut] {
			if w.bytes == nil {
				durable = n
			}
		}
		for n, w := range m.log[:cut] {
			if n <= durable || random.IntN(2) == 0 {
				copy(b[w.offset:], w.bytes)
			}
		}
		again := compare(t, image, b)
		if tiles, _, _ := again.Count(); tiles > 0 && b[440] != spoiled[440] {
			t.Fatalf("cut after %d writes: LBA 0 is new and %d tiles are wrong", cut, tiles)
		}
		if _, err := again.Repair(t.Context(), &memoryDisk{b: b}, nil); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(b, want) {
			t.Fatalf("cut after %d of %d writes: the second repair left another disk", cut, len(m.log))
		}
	}
	failing := &memoryDisk{b: bytes.Clone(spoiled), fail: 3}
	if _, err := compare(t, image, spoiled).Repair(t.Context(), failing, nil); !errors.Is(err, errPower) {
		t.Error(err)
	}
}

func TestADiskThatForgetsIsFoundOut(t *testing.T) {
	disk := newDisk(t)
	s, image := take(t, disk, 512)
	spoil(s, disk, 3)
	_, err := compare(t, image, disk).Repair(t.Context(), &memoryDisk{b: disk, deaf: true}, nil)
	if wrong, ok := errors.AsType[*restore.ReadBackError](err); !ok || wrong.Range.Partition < 1 {
		t.Error(err)
	}
}

func TestATileThatTheImageLacksIsNamedAndTheTableNotWritten(t *testing.T) {
	disk := newDisk(t)
	s, image := take(t, disk, 512)
	want := spoil(s, disk, 20)
	d := compare(t, image, disk)
	list, _ := d.Ranges(100)
	var lost restore.Range
	elsewhere := &shelf{manifest: s.manifest, layers: s.layers, layout: s.layout, hashes: s.hashes, before: s.before}
	for _, r := range list {
		if r.Kind == restore.KindData {
			lost = r
		}
	}
	for p := range s.manifest.Partitions {
		if s.manifest.Partitions[p].Number == lost.Partition {
			piece, in := s.layout.Piece(p, lost.Offset/images.TileLength)
			rank := 0
			for t := range s.layout.Data(piece).All() {
				if t == in {
					break
				}
				rank++
			}
			key := images.TileKey{Hash: s.TileHashes(piece)[rank], Length: int32(s.layout.TileLength(piece, in))}
			elsewhere.tiles = maps.Clone(s.tiles)
			delete(s.tiles, key)
		}
	}
	result, err := d.Repair(t.Context(), &memoryDisk{b: disk}, nil)
	if err != nil || len(result.Left) != 1 || result.Left[0].Partition != lost.Partition || result.Left[0].Extent.Offset != lost.Offset {
		t.Fatalf("%+v: %v", result, err)
	}
	after := compare(t, image, disk)
	if tiles, _, frame := after.Count(); tiles != 1 || frame != 1024 || disk[440] == want[440] {
		t.Errorf("%d tiles are wrong, %d bytes of table", tiles, frame)
	}
	again, err := result.Rest.Repair(t.Context(), &memoryDisk{b: disk}, nil)
	if err != nil || len(again.Left) != 1 || again.Tiles != 0 {
		t.Fatalf("without another copy: %+v: %v", again, err)
	}
	rest, err := again.Rest.With(elsewhere).Repair(t.Context(), &memoryDisk{b: disk}, nil)
	if err != nil || rest.Tiles != 1 || rest.Rest != nil || !bytes.Equal(disk, want) {
		t.Errorf("from elsewhere: %+v: %v", rest, err)
	}
}

func TestTheSuperblockOfABareFileSystemIsWrittenLast(t *testing.T) {
	name := filepath.Join(t.TempDir(), "fs")
	write(t, name, make([]byte, 8*mib))
	tool(t, "e2fsprogs", "mkfs.ext4", "-q", "-F", name)
	disk := read(t, name)
	_, image := take(t, disk, 512)
	empty := bytes.Repeat([]byte{0xCC}, len(disk))
	m := &memoryDisk{b: empty}
	if _, err := compare(t, image, empty).Repair(t.Context(), m, nil); err != nil {
		t.Fatal(err)
	}
	flushes := 0
	for _, w := range m.log {
		switch {
		case w.bytes == nil:
			flushes++
		case w.offset < images.TileLength && flushes == 0:
			t.Error("the first tile was written before the others were durable")
		}
	}
	write(t, name, empty)
	tool(t, "e2fsprogs", "e2fsck", "-fn", name)
}

// loop attaches a file as a block device.
func loop(t *testing.T, args ...string) string {
	t.Helper()
	device := strings.TrimSpace(tool(t, "util-linux", "losetup", append([]string{"--show", "-f"}, args...)...))
	t.Cleanup(func() {
		if out, err := exec.Command("losetup", "-d", device).CombinedOutput(); err != nil {
			t.Errorf("losetup -d %s: %v %s", device, err, out)
		}
	})
	return device
}

func TestARealBlockDeviceIsRepairedAndReadBack(t *testing.T) {
	disk := newDisk(t)
	s, image := take(t, disk, 512)
	want := spoil(s, disk, 30)
	name := filepath.Join(t.TempDir(), "disk.img")
	write(t, name, disk)
	device := loop(t, name)
	f, err := restore.Open(device, true)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if !f.IsDevice() || f.SectorLength != 512 || f.Length != int64(len(disk)) || image.Fits(f.Length, f.SectorLength) != nil {
		t.Fatalf("%+v", f)
	}
	if _, err := restore.Open(name, true); !errors.Is(err, restore.ErrInUse) || !strings.Contains(err.Error(), device) {
		t.Errorf("the file below a loop device: %v", err)
	}
	if _, err := restore.Open(device, true); !errors.Is(err, restore.ErrInUse) {
		t.Errorf("a device that another has: %v", err)
	}
	d, err := image.Compare(t.Context(), f, f.Length, nil)
	if err != nil {
		t.Fatal(err)
	}
	result, err := d.Repair(t.Context(), f, nil)
	if err != nil || !result.Past {
		t.Fatalf("%+v: %v", result, err)
	}
	if err := f.RereadTable(); err != nil && !errors.Is(err, os.ErrInvalid) {
		t.Logf("the kernel does not read the table of a loop device anew: %v", err)
	}
	if !bytes.Equal(read(t, name), want) {
		t.Error("the disk is not as it was")
	}
	judge(t, name)
}

func TestADiskWithOtherSectorsIsRefused(t *testing.T) {
	disk := newDisk(t)
	_, image := take(t, disk, 512)
	name := filepath.Join(t.TempDir(), "disk.img")
	write(t, name, disk)
	f, err := restore.Open(loop(t, "-b", "4096", name), false)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, ok := errors.AsType[*restore.SectorError](image.Fits(f.Length, f.SectorLength)); !ok {
		t.Errorf("a disk with sectors of %d bytes is taken", f.SectorLength)
	}
	if _, err := f.WriteAt([]byte{1}, 0); err == nil {
		t.Error("a disk that was opened for reading was written")
	}
}

func TestWhatIsNoDiskIsNotOpened(t *testing.T) {
	for _, name := range []string{"/dev/null", t.TempDir(), "/nowhere"} {
		if f, err := restore.Open(name, false); err == nil {
			t.Errorf("%s was opened", name)
			f.Close()
		}
	}
}

func TestZeroingAFileMakesHolesAndNothingElse(t *testing.T) {
	name := filepath.Join(t.TempDir(), "file")
	b := bytes.Repeat([]byte{0xCC}, mib)
	write(t, name, b)
	f, err := restore.Open(name, true)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, e := range []images.Extent{{Offset: 1, Length: 3}, {Offset: 5000, Length: 600_000}, {Offset: mib - 10, Length: 10}} {
		if err := f.Zero(e.Offset, e.Length); err != nil {
			t.Fatal(err)
		}
		clear(b[e.Offset:e.End()])
	}
	if f.Zero(mib-1, 2) == nil {
		t.Error("zeros past the end")
	}
	if !bytes.Equal(read(t, name), b) {
		t.Error("other bytes changed")
	}
}
