package restore_test

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"seedbed/images"
)

// TestTornRepairsShowNoTableBeforeTheContent repairs a disk whose table is gone, and one that is blank, and cuts the power
// after every write, flushed or not, with what was not flushed lost, reordered or torn at sectors: as long as content is
// wrong there is no boot sector, and a repair that goes on completes the disk. SEEDBED_FULL=1 tries each cut in 40 ways.
func TestTornRepairsShowNoTableBeforeTheContent(t *testing.T) {
	golden := newDisk(t)
	s, image := take(t, golden, 512)
	ways := 2
	if os.Getenv("SEEDBED_FULL") != "" {
		ways = 40
	}
	const seed = 31
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, seed))
	withoutTable := bytes.Clone(golden)
	spoil(s, withoutTable, 12)
	for _, list := range [][2]int{{0, 34 * 512}, {len(golden) - 33*512, len(golden)}} {
		clear(withoutTable[list[0]:list[1]])
	}
	states, worst := 0, int64(0)
	for _, start := range [][]byte{withoutTable, make([]byte, len(golden))} {
		m := &memoryDisk{b: bytes.Clone(start)}
		if _, err := compare(t, image, start).Repair(t.Context(), m, nil); err != nil {
			t.Fatal(err)
		}
		cuts := 3 // repairs that go on take long
		for cut := range m.log {
			last := cut > len(m.log)-12
			if !last && random.IntN(len(m.log)) > cuts {
				continue
			}
			for way := range ways {
				b := bytes.Clone(start)
				tear(b, m.log[:cut], random)
				states++
				again := compare(t, image, b)
				tiles, lacking, frame := again.Count()
				if boots := b[510] == 0x55 || b[511] == 0xAA; boots && tiles > 0 {
					t.Fatalf("cut after %d of %d writes: a boot sector, and %d tiles are wrong", cut, len(m.log), tiles)
				}
				if way > 0 || last && cut%4 > 0 {
					continue
				}
				result, err := again.Repair(t.Context(), &memoryDisk{b: b}, nil)
				if err != nil {
					t.Fatal(err)
				}
				worst = max(worst, result.Length-lacking-frame)
				if d := compare(t, image, b); !d.IsEmpty() {
					t.Fatalf("cut after %d of %d writes: the second repair left another disk", cut, len(m.log))
				}
			}
		}
		name := filepath.Join(t.TempDir(), "disk")
		write(t, name, m.b)
		if start[len(start)/2] != 0 {
			judge(t, name)
		}
	}
	t.Logf("%d states", states)
	if worst > 0 {
		t.Errorf("a second repair wrote %d bytes more than were wrong", worst)
	}
}

// TestATornRepairOfABareFileSystemShowsNoSuperblockBeforeTheRest: the first tile is written last, and of it the superblock.
func TestATornRepairOfABareFileSystemShowsNoSuperblockBeforeTheRest(t *testing.T) {
	name := filepath.Join(t.TempDir(), "fs")
	write(t, name, make([]byte, 8*mib))
	tool(t, "e2fsprogs", "mkfs.ext4", "-q", "-F", name)
	golden := read(t, name)
	_, image := take(t, golden, 512)
	start := make([]byte, len(golden))
	m := &memoryDisk{b: bytes.Clone(start)}
	if _, err := compare(t, image, start).Repair(t.Context(), m, nil); err != nil || !bytes.Equal(m.b, golden) {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(33, 33))
	for cut := range m.log {
		for range 12 {
			b := bytes.Clone(start)
			tear(b, m.log[:cut], random)
			if tiles, _, _ := compare(t, image, b).Count(); tiles > 0 && (b[1080] != 0 || b[1081] != 0) {
				t.Fatalf("cut after %d of %d writes: a superblock, and %d tiles are wrong", cut, len(m.log), tiles)
			}
		}
	}
}

// tear does to a disk what a power cut leaves of writes: all before the last flush, and any sectors of the rest.
func tear(b []byte, log []write1, random *rand.Rand) {
	durable := 0
	for n, w := range log {
		if w.bytes == nil {
			durable = n
		}
	}
	for n, w := range log {
		for at := 0; at < len(w.bytes); at += 512 {
			if n < durable || random.IntN(2) == 0 {
				copy(b[w.offset+int64(at):], w.bytes[at:min(at+512, len(w.bytes))])
			}
		}
	}
}

// TestAFlippedBitIsNamedAndRepaired flips one used bit after the other, and once of the table: it is named with partition
// and range, and a repair writes that tile, or that sector, and nothing else.
func TestAFlippedBitIsNamedAndRepaired(t *testing.T) {
	golden := newDisk(t)
	s, image := take(t, golden, 512)
	random := rand.New(rand.NewPCG(32, 32))
	places := []int64{440, 512 + 16, int64(len(golden)) - 512 + 16} // LBA 0, both headers
	for range 9 {
		p := random.IntN(len(s.manifest.Partitions))
		m := s.layout.Map(p)
		e := m.Extents[random.IntN(len(m.Extents))]
		places = append(places, s.manifest.Partitions[p].Offset+e.Offset+random.Int64N(e.Length))
	}
	for _, at := range places {
		b := bytes.Clone(golden)
		b[at] ^= 1 << random.IntN(8)
		d := compare(t, image, b)
		list, more := d.Ranges(10)
		if len(list) != 1 || more > 0 {
			t.Fatalf("byte %d: wrong are %v", at, list)
		}
		r, want := list[0], images.Extent{Offset: at / 512 * 512, Length: 512}
		for i := range s.manifest.Partitions {
			if p := &s.manifest.Partitions[i]; p.Offset <= at && at < p.Offset+p.Length {
				tile := (at - p.Offset) / images.TileLength * images.TileLength
				want = images.Extent{Offset: tile, Length: min(images.TileLength, p.Length-tile)}
				if r.Partition != p.Number {
					t.Errorf("byte %d lies in partition %d: %v", at, p.Number, r)
				}
			}
		}
		if r.Offset != want.Offset || r.Length != want.Length || !strings.Contains(r.String(), want.String()) {
			t.Errorf("byte %d: wrong is %v, want %v", at, r, want)
		}
		disk := &memoryDisk{b: b}
		result, err := d.Repair(t.Context(), disk, nil)
		if err != nil || result.Length > images.TileLength || !bytes.Equal(b, golden) {
			t.Errorf("byte %d: %+v, %v", at, result, err)
		}
	}
}
