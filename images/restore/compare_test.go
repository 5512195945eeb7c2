package restore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"seedbed/images"
	"seedbed/images/parttable"
	"seedbed/images/restore"
)

func compare(t testing.TB, image *restore.Image, disk []byte) *restore.Difference {
	t.Helper()
	d, err := image.Compare(t.Context(), bytes.NewReader(disk), int64(len(disk)), nil)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestTheCapturedDiskIsRight(t *testing.T) {
	disk := newDisk(t)
	_, image := take(t, disk, 512)
	done, total := int64(0), int64(0)
	d, err := image.Compare(t.Context(), bytes.NewReader(disk), int64(len(disk)), func(d, n int64) { done, total = d, n })
	if err != nil {
		t.Fatal(err)
	}
	if list, more := d.Ranges(10); !d.IsEmpty() || len(list) != 0 || more != 0 {
		t.Errorf("%v and %d more are wrong", list, more)
	}
	if done != total || total != image.UsedTiles() {
		t.Errorf("progress ended with %d of %d, %d are in use", done, total, image.UsedTiles())
	}
}

// TestFreeBytesMayBeAnything: each free byte is changed, and nothing is wrong; each kind of used byte is, and is named.
func TestFreeBytesMayBeAnything(t *testing.T) {
	disk := newDisk(t)
	s, image := take(t, disk, 512)
	for p := range s.manifest.Partitions {
		part := &s.manifest.Partitions[p]
		at := int64(0)
		for _, e := range append(s.layout.Map(p).Extents, images.Extent{Offset: part.Length}) {
			for ; at < e.Offset; at++ {
				disk[part.Offset+at] ^= 0xA5
			}
			at = e.End()
		}
	}
	if list, _ := compare(t, image, disk).Ranges(5); len(list) > 0 {
		t.Errorf("free bytes count: %v", list)
	}
}

func TestEveryWrongTileIsNamed(t *testing.T) {
	disk := newDisk(t)
	s, image := take(t, disk, 512)
	random := rand.New(rand.NewPCG(1, 2))
	var want []string
	for p := range s.manifest.Partitions {
		part := &s.manifest.Partitions[p]
		for _, state := range []images.TileState{images.TileData, images.TileZero} {
			var tiles []int64
			for n := range images.TileCount(part.Length) {
				if s.layout.Map(p).State(n) == state {
					tiles = append(tiles, n)
				}
			}
			if len(tiles) == 0 {
				continue
			}
			n := tiles[random.IntN(len(tiles))]
			e := images.Extent{Offset: n * images.TileLength, Length: min(images.TileLength, part.Length-n*images.TileLength)}
			used := s.layout.Map(p).Used(nil, e)
			u := used[random.IntN(len(used))]
			disk[part.Offset+u.Offset+random.Int64N(u.Length)] ^= 1 << random.IntN(8)
			want = append(want, fmt.Sprintf("partition %d, bytes %v (%v)", part.Number, e, state))
		}
	}
	disk[100] ^= 1          // boot code
	disk[1024+3*128+9] ^= 1 // an entry of the GPT
	want = append(want, "disk, bytes [0, 512) (lba0)", "disk, bytes [1024, 1536) (gpt)")
	d := compare(t, image, disk)
	list, more := d.Ranges(100)
	var got []string
	for _, r := range list {
		got = append(got, r.String())
	}
	slices.Sort(got)
	slices.Sort(want)
	if strings.Join(got, "\n") != strings.Join(want, "\n") || more != 0 {
		t.Errorf("found\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if tiles, _, frame := d.Count(); int(tiles) != len(want)-2 || frame != 1024 {
		t.Errorf("%d tiles, %d bytes of frame", tiles, frame)
	}
	if list, more := d.Ranges(2); len(list) != 2 || more != len(want)-2 {
		t.Errorf("a short list has %d, %d more", len(list), more)
	}
}

func TestWrongTilesThatFollowOneAnotherAreOneRange(t *testing.T) {
	disk := make([]byte, 8*mib)
	rand.NewChaCha8([32]byte{1}).Read(disk)
	_, image := take(t, disk, 512)
	for n := 10; n < 60; n++ {
		disk[n*images.TileLength] ^= 1
	}
	list, _ := compare(t, image, disk).Ranges(100)
	if len(list) != 1 || list[0] != (restore.Range{Offset: 10 * images.TileLength, Length: 50 * images.TileLength, Kind: restore.KindData}) {
		t.Errorf("%v", list)
	}
}

func TestADiskOfAnotherLengthIsRightIfItsTableIsRelocated(t *testing.T) {
	disk := newDisk(t)
	_, image := take(t, disk, 512)
	longer := append(disk, make([]byte, 5*mib)...)
	list, _ := compare(t, image, longer).Ranges(100)
	kinds := map[string]bool{}
	for _, r := range list {
		kinds[r.Kind] = true
	}
	if len(kinds) != 3 || !kinds[images.RegionBackup] || !kinds[images.RegionLBA0] || !kinds[images.RegionGPT] {
		t.Errorf("a table of another length: %v", list)
	}
	name := t.TempDir() + "/longer.img"
	write(t, name, longer)
	tool(t, "gdisk", "sgdisk", "-e", name)
	// sgdisk moves the backup and leaves the protective entry of LBA 0 at its old length.
	if list, _ := compare(t, image, read(t, name)).Ranges(100); len(list) != 1 || list[0].Kind != images.RegionLBA0 {
		t.Errorf("after sgdisk -e: %v", list)
	}
}

func TestATooSmallDiskIsRefusedWithBothFigures(t *testing.T) {
	disk := newDisk(t)
	s, image := take(t, disk, 512)
	small, ok := errors.AsType[*parttable.TooSmallError](image.Fits(40*mib, 512))
	if !ok || small.Have != 40*mib || small.Need <= s.manifest.EndOfPartitions() {
		t.Errorf("%+v", small)
	}
	if _, err := image.Compare(t.Context(), bytes.NewReader(disk), 40*mib, nil); !errors.Is(err, parttable.ErrTooSmall) {
		t.Error(err)
	}
	sector, ok := errors.AsType[*restore.SectorError](image.Fits(int64(len(disk)), 4096))
	if !ok || sector.Want != 512 || sector.Have != 4096 {
		t.Errorf("%+v", sector)
	}
	if err := image.Fits(int64(len(disk)), 0); err != nil {
		t.Error(err)
	}
}

// faulty fails to read some bytes.
type faulty struct {
	io.ReaderAt
	bad images.Extent
}

func (f faulty) ReadAt(b []byte, offset int64) (int, error) {
	if f.bad.Intersect(images.Extent{Offset: offset, Length: int64(len(b))}).Length > 0 {
		return 0, errors.New("medium error")
	}
	return f.ReaderAt.ReadAt(b, offset)
}

func TestWhatCannotBeReadIsNamed(t *testing.T) {
	disk := make([]byte, 4*mib)
	rand.NewChaCha8([32]byte{1}).Read(disk)
	_, image := take(t, disk, 512)
	d, err := image.Compare(t.Context(), faulty{bytes.NewReader(disk), images.Extent{Offset: mib + 512, Length: 70_000}}, int64(len(disk)), nil)
	if err != nil {
		t.Fatal(err)
	}
	if list, _ := d.Ranges(9); len(list) != 1 || list[0] != (restore.Range{Offset: mib, Length: 2 * images.TileLength, Kind: restore.KindUnreadable}) {
		t.Error(list)
	}
}

func TestACancelledComparisonEnds(t *testing.T) {
	disk := make([]byte, 4*mib)
	rand.NewChaCha8([32]byte{1}).Read(disk)
	_, image := take(t, disk, 512)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := image.Compare(ctx, bytes.NewReader(disk), int64(len(disk)), nil); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
