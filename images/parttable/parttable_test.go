package parttable

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"seedbed/images"
)

func TestGPTIsReadAsSfdiskReadsIt(t *testing.T) {
	path := gptDisk(t, 256<<20)
	table := read(t, path, 512)
	if table.Kind != GPT || len(table.Warnings) > 0 || len(table.Partitions) != 4 {
		t.Fatalf("%s table with %d partitions, warnings %q", table.Kind, len(table.Partitions), table.Warnings)
	}
	same(t, table, path)
	if p := table.Partitions[1]; p.Label != "Rétablir 日本" || p.Type != TypeESP {
		t.Errorf("partition 2 is %+v", p)
	}
	if p := table.Partitions[2]; p.Attributes != 1<<2|1<<63 {
		t.Errorf("attributes %#x", p.Attributes)
	}
	if got := fmt.Sprint(table.Firmware()); got != "[bios uefi]" {
		t.Errorf("firmware %s", got)
	}
	if !strings.Contains(dump(t, path), "label-id: "+table.ID) {
		t.Errorf("disk GUID %s is not what sfdisk says:\n%s", table.ID, dump(t, path))
	}
	var kinds []string
	for _, r := range table.Frame() {
		kinds = append(kinds, fmt.Sprintf("%s %d+%d", r.Kind, r.Offset, len(r.Bytes)))
	}
	want := fmt.Sprintf("[lba0 0+512 gpt 512+16896 gap 20480+1028096 backup %d+16896]", 256<<20-16896)
	if fmt.Sprint(kinds) != want {
		t.Errorf("frame %v, want %s", kinds, want)
	}
}

func TestGPTMovesToTheRealEndOfAnyDisk(t *testing.T) {
	source := gptDisk(t, 256<<20)
	table := read(t, source, 512)
	minimum, err := MinimumDisk(table.Frame(), table.Kind, 512)
	if err != nil {
		t.Fatal(err)
	}
	for _, length := range []int64{minimum, 256 << 20, 256<<20 + 512, 10 << 30, 3 << 40} {
		t.Run(fmt.Sprint(length), func(t *testing.T) {
			path := move(t, table, length)
			verify(t, path)
			if got, want := dump(t, path), dump(t, source); got != want {
				t.Errorf("sfdisk says\n%s\nof the source it said\n%s", got, want)
			}
			moved := read(t, path, 512)
			if len(moved.Warnings) > 0 {
				t.Errorf("warnings %q", moved.Warnings)
			}
			same(t, moved, path)
			if want := uint32(min(length/512-1, 0xFFFFFFFF)); mbrEntries(moved.Frame()[0].Bytes)[0].count != want {
				t.Errorf("protective MBR over %d sectors, want %d", mbrEntries(moved.Frame()[0].Bytes)[0].count, want)
			}
			if gap := moved.Frame()[2]; !bytes.Equal(gap.Bytes, table.Frame()[2].Bytes) {
				t.Error("the gap changed")
			}
		})
	}
	_, err = Relocate(table.Frame(), table.Kind, 512, minimum-512)
	var small *TooSmallError
	if !errors.Is(err, ErrTooSmall) || !errors.As(err, &small) || small.Need != minimum || small.Have != minimum-512 {
		t.Errorf("one sector less: %v", err)
	}
	if !strings.Contains(err.Error(), fmt.Sprint(minimum)) || !strings.Contains(err.Error(), fmt.Sprint(minimum-512)) {
		t.Errorf("the error does not give both figures: %v", err)
	}
}

func TestOnADiskOfTheSameLengthNothingChanges(t *testing.T) {
	for name, make := range map[string]func(testing.TB, int64) string{"gpt": gptDisk, "mbr": mbrDisk, "sfdisk gpt": sfdiskGPT} {
		t.Run(name, func(t *testing.T) {
			table := read(t, make(t, 256<<20), 512)
			list, err := Relocate(table.Frame(), table.Kind, 512, 256<<20)
			if err != nil || len(list) != len(table.Frame()) {
				t.Fatalf("%d regions of %d: %v", len(list), len(table.Frame()), err)
			}
			for _, r := range list {
				for _, old := range table.Frame() {
					if old.Offset == r.Offset && !bytes.Equal(old.Bytes, r.Bytes) {
						t.Errorf("%s at %d changed", r.Kind, r.Offset)
					}
				}
			}
			if list[len(list)-1].Kind != images.RegionLBA0 {
				t.Errorf("%s is written last, want LBA 0", list[len(list)-1].Kind)
			}
		})
	}
}

func TestATableWithFewEntriesMoves(t *testing.T) {
	table := read(t, sfdiskGPT(t, 256<<20), 512)
	path := move(t, table, 300<<20)
	if out := run(t, "fdisk", "", "sfdisk", "--verify", path); !strings.Contains(out, "No errors detected") {
		t.Error(out)
	}
	same(t, read(t, path, 512), path)
}

func TestDamagedCopiesOfAGPT(t *testing.T) {
	damage := func(t *testing.T, path string, off int64) {
		f, _ := open(t, path)
		if _, err := f.WriteAt([]byte("damage"), off); err != nil {
			t.Fatal(err)
		}
	}
	const length = 256 << 20
	for name, off := range map[string]int64{"primary header": 512, "primary header's field": 512 + 40, "primary entries": 1024 + 60, "backup header": length - 512, "backup entries": length - 512 - 16384 + 3} {
		t.Run(name, func(t *testing.T) {
			path := gptDisk(t, length)
			want := read(t, path, 512)
			damage(t, path, off)
			got := read(t, path, 512)
			if fmt.Sprint(got.Partitions) != fmt.Sprint(want.Partitions) || got.ID != want.ID {
				t.Errorf("partitions %v, want %v", got.Partitions, want.Partitions)
			}
			if len(got.Warnings) != 1 || !strings.Contains(got.Warnings[0], "damaged") {
				t.Errorf("warnings %q", got.Warnings)
			}
			moved := move(t, got, 300<<20)
			verify(t, moved)
			same(t, read(t, moved, 512), moved)
		})
	}
	t.Run("both", func(t *testing.T) {
		path := gptDisk(t, length)
		damage(t, path, 512)
		damage(t, path, length-512)
		f, _ := open(t, path)
		if _, err := Read(f, length, 512); err == nil || !strings.Contains(err.Error(), "neither copy") {
			t.Errorf("error %v", err)
		}
	})
	t.Run("disk grew", func(t *testing.T) {
		path := gptDisk(t, length)
		if err := os.Truncate(path, 2*length); err != nil {
			t.Fatal(err)
		}
		got := read(t, path, 512)
		if len(got.Warnings) != 1 || !strings.Contains(got.Warnings[0], "not at the disk's last") {
			t.Errorf("warnings %q", got.Warnings)
		}
		moved := move(t, got, 2*length)
		verify(t, moved)
	})
}

func TestHybridMBRIsKept(t *testing.T) {
	path := gptDisk(t, 256<<20)
	run(t, "gdisk", "", "sgdisk", "-h", "3", path)
	table := read(t, path, 512)
	if table.Kind != GPT {
		t.Fatalf("a hybrid MBR is read as %s", table.Kind)
	}
	moved := read(t, move(t, table, 1<<30), 512)
	if !bytes.Equal(moved.Frame()[0].Bytes, table.Frame()[0].Bytes) {
		t.Error("the hybrid MBR changed")
	}
	same(t, moved, path)
}

func TestMBRWithLogicalPartitionsIsReadAsSfdiskReadsIt(t *testing.T) {
	path := mbrDisk(t, 256<<20)
	table := read(t, path, 512)
	if table.Kind != MBR || table.ID != "deadbeef" || len(table.Partitions) != 5 || len(table.Warnings) > 0 {
		t.Fatalf("%s table %s with %d partitions, warnings %q", table.Kind, table.ID, len(table.Partitions), table.Warnings)
	}
	same(t, table, path)
	kinds := map[string]int{}
	for _, r := range table.Frame() {
		kinds[r.Kind]++
	}
	if fmt.Sprint(kinds) != "map[between:1 ebr:3 gap:1 lba0:1]" {
		t.Errorf("frame %v", kinds)
	}
	if table.Partitions[0].Attributes != 0x80 || fmt.Sprint(table.Firmware()) != "[bios]" {
		t.Errorf("active %#x, firmware %v", table.Partitions[0].Attributes, table.Firmware())
	}
}

func TestMBRMoves(t *testing.T) {
	source := mbrDisk(t, 256<<20)
	table := read(t, source, 512)
	minimum, err := MinimumDisk(table.Frame(), MBR, 512)
	if err != nil || minimum != 240960*512 {
		t.Fatalf("minimum %d: %v", minimum, err)
	}
	for _, length := range []int64{minimum, 1 << 30} {
		path := move(t, table, length)
		if got, want := dump(t, path), dump(t, source); got != want {
			t.Errorf("sfdisk says\n%s\nof the source it said\n%s", got, want)
		}
		moved := read(t, path, 512)
		same(t, moved, path)
		for i, r := range moved.Frame() {
			if old := table.Frame()[i]; old.Offset != r.Offset || !bytes.Equal(old.Bytes, r.Bytes) {
				t.Errorf("%s at %d changed", r.Kind, r.Offset)
			}
		}
	}
	if _, err := Relocate(table.Frame(), MBR, 512, minimum-512); !errors.Is(err, ErrTooSmall) {
		t.Errorf("one sector less: %v", err)
	}
}

func Test4096ByteSectors(t *testing.T) {
	path := newDisk(t, 512<<20)
	run(t, "fdisk", "g\nn\n1\n256\n+64M\nn\n2\n\n+100M\nt\n1\n1\nw\n", "fdisk", "-b", "4096", path)
	table := read(t, path, 4096)
	if table.Kind != GPT || len(table.Partitions) != 2 || table.Partitions[0].Offset != 1<<20 || table.Partitions[0].Type != TypeESP {
		t.Fatalf("%s table %+v", table.Kind, table.Partitions)
	}
	for _, length := range []int64{300 << 20, 512 << 20, 20 << 30} {
		moved := move(t, table, length)
		out := run(t, "fdisk", "v\nq\n", "fdisk", "-b", "4096", moved)
		if !strings.Contains(out, "No errors detected") || strings.Contains(out, "corrupt") || strings.Contains(out, "mismatch") {
			t.Errorf("fdisk on %d bytes:\n%s", length, out)
		}
		if got := read(t, moved, 4096); fmt.Sprint(got.Partitions) != fmt.Sprint(table.Partitions) || len(got.Warnings) > 0 {
			t.Errorf("partitions %v, warnings %q", got.Partitions, got.Warnings)
		}
	}
	f, length := open(t, path)
	if got, err := Read(f, length, 512); err == nil {
		t.Errorf("a table of 4096-byte sectors was read as one of 512: %+v", got)
	}
}

func TestAFileSystemOnTheWholeDiskHasNoTable(t *testing.T) {
	for name, args := range map[string][]string{
		"fat32": {"dosfstools", "mkfs.fat", "-F", "32"}, "ext4": {"e2fsprogs", "mkfs.ext4", "-q", "-F"}, "ntfs": {"ntfs-3g", "mkntfs", "-q", "-F", "-f"},
	} {
		path := newDisk(t, 64<<20)
		run(t, args[0], "", args[1], append(args[2:], path)...)
		table := read(t, path, 512)
		if table.Kind != None || len(table.Partitions) != 1 || table.Partitions[0] != (Entry{Length: 64 << 20}) || len(table.Frame()) != 0 {
			t.Errorf("%s: %s table %+v", name, table.Kind, table.Partitions)
		}
		if list, err := Relocate(table.Frame(), None, 512, 1<<30); err != nil || list != nil {
			t.Errorf("%s: %v, %v", name, list, err)
		}
	}
}

func TestAWipedDiskShowsNothing(t *testing.T) {
	for name, make := range map[string]func(testing.TB, int64) string{"gpt": gptDisk, "mbr": mbrDisk} {
		t.Run(name, func(t *testing.T) {
			path := make(t, 256<<20)
			f, length := open(t, path)
			before := read(t, path, 512)
			saved, err := Rescue(f, length, 512)
			if err != nil || len(saved) != len(before.Frame()) {
				t.Fatalf("%d regions saved: %v", len(saved), err)
			}
			list, err := Wipe(f, length, 512)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range list {
				for _, p := range before.Partitions {
					if e.Intersect(images.Extent{Offset: p.Offset, Length: p.Length}).Length > 0 {
						t.Errorf("%v lies in partition %d", e, p.Number)
					}
				}
				if _, err := f.WriteAt(bytes.Repeat([]byte{0}, int(e.Length)), e.Offset); err != nil {
					t.Fatal(err)
				}
			}
			if out := run(t, "util-linux", "", "wipefs", "--no-act", path); out != "" {
				t.Errorf("wipefs still finds\n%s", out)
			}
			if out := run(t, "gdisk", "", "sgdisk", "-p", path); strings.Contains(out, "0700") || !strings.Contains(out, "Creating new GPT entries") {
				t.Errorf("sgdisk still finds\n%s", out)
			}
			again, err := Rescue(f, length, 512)
			if err != nil || len(again) == 0 {
				t.Errorf("of a disk without a table %d regions are saved: %v", len(again), err)
			}
			write(t, path, saved)
			if got := read(t, path, 512); fmt.Sprint(got.Partitions) != fmt.Sprint(before.Partitions) {
				t.Errorf("from what was saved come %v, want %v", got.Partitions, before.Partitions)
			}
		})
	}
}

func TestWipeFindsAStaleGPTUnderAnMBR(t *testing.T) {
	path := gptDisk(t, 256<<20)
	run(t, "fdisk", "label: dos\nstart=2048, size=20480, type=83\n", "sfdisk", "--wipe=never", path)
	table := read(t, path, 512)
	f, length := open(t, path)
	list, err := Wipe(f, length, 512)
	if err != nil || table.Kind != MBR {
		t.Fatalf("%s table: %v", table.Kind, err)
	}
	for _, lba := range []int64{1, length/512 - 1} {
		b := make([]byte, 8)
		if _, err := f.ReadAt(b, lba*512); err != nil {
			t.Fatal(err)
		}
		found := false
		for _, e := range list {
			found = found || e.Offset <= lba*512 && lba*512 < e.End()
		}
		if bytes.Equal(b, gptSignature) && !found {
			t.Errorf("the stale header at LBA %d is not among %v", lba, list)
		}
	}
}

// TestACutDiskIsCalledOne wherever it is cut behind its table and before the end of what that names.
func TestACutDiskIsCalledOne(t *testing.T) {
	for kind, c := range map[string]struct {
		path string
		cuts []int64
	}{
		"gpt": {gptDisk(t, gptLength), []int64{1 << 20, gptLength / 2, gptLength - 1<<20}},
		"mbr": {mbrDisk(t, 256<<20), []int64{1 << 20, 30 << 20, 100 << 20}},
	} {
		f, _ := open(t, c.path)
		for _, length := range c.cuts {
			if _, err := Read(f, length, 512); !errors.Is(err, ErrCut) {
				t.Errorf("%s, cut after %d bytes: %v", kind, length, err)
			}
		}
	}
}

func TestWhatCannotBeIsRefused(t *testing.T) {
	for name, script := range map[string]string{
		"overlap": "2048 4096 83 4000 4096 83", "outside": "2048 4096 83 500000 400000 83", "two extended": "2048 4096 5 8192 4096 5",
	} {
		t.Run(name, func(t *testing.T) {
			b := make([]byte, 1<<20)
			b[510], b[511] = 0x55, 0xAA
			var v [6]uint32
			if _, err := fmt.Sscanf(script, "%d %d %x %d %d %x", &v[0], &v[1], &v[2], &v[3], &v[4], &v[5]); err != nil {
				t.Fatal(err)
			}
			for i := range 2 {
				e := b[mbrTable+i*mbrSlot:]
				e[4] = byte(v[3*i+2])
				le.PutUint32(e[8:], v[3*i])
				le.PutUint32(e[12:], v[3*i+1])
			}
			if table, err := Read(zeroTail{b}, 256<<20, 512); err == nil {
				t.Errorf("read as %+v", table.Partitions)
			}
		})
	}
}

// zeroTail is a disk that begins with b and goes on with zeros.
type zeroTail struct{ b []byte }

func (z zeroTail) ReadAt(p []byte, off int64) (int, error) {
	clear(p)
	if off < int64(len(z.b)) {
		copy(p, z.b[off:])
	}
	return len(p), nil
}

func TestAnEndlessChainOfExtendedRecordsIsRefused(t *testing.T) {
	b := make([]byte, 1<<20)
	put := func(lba, slot int, kind byte, start, count uint32) {
		s := b[lba*512:]
		s[510], s[511] = 0x55, 0xAA
		s[mbrTable+slot*mbrSlot+4] = kind
		le.PutUint32(s[mbrTable+slot*mbrSlot+8:], start)
		le.PutUint32(s[mbrTable+slot*mbrSlot+12:], count)
	}
	put(0, 0, 5, 100, 1000)
	put(100, 0, 0x83, 1, 2)
	put(100, 1, 5, 10, 10)
	put(110, 0, 0x83, 1, 2)
	put(110, 1, 5, 10, 10)
	if _, err := Read(zeroTail{b}, 1<<20, 512); err == nil || !strings.Contains(err.Error(), "does not end") {
		t.Errorf("error %v", err)
	}
}

// noisy is a disk that begins with b and goes on with bytes that are not zero.
type noisy struct{ b []byte }

func (n noisy) ReadAt(p []byte, off int64) (int, error) {
	for i := range p {
		p[i] = 0xAA
	}
	if off < int64(len(n.b)) {
		copy(p, n.b[off:])
	}
	return len(p), nil
}

// The appliance takes the frame of an old disk in one request of bounded length, and the machine holds it in memory.
func TestTheFrameIsBounded(t *testing.T) {
	const mib = 2048 // sectors
	b := make([]byte, 512)
	b[510], b[511] = 0x55, 0xAA
	for i, start := range []uint32{50 * mib, 51*mib + 10*mib, 62*mib + 10*mib, 73*mib + 10*mib} {
		s := b[mbrTable+i*mbrSlot:]
		s[4] = 0x83
		le.PutUint32(s[8:], start)
		le.PutUint32(s[12:], mib)
	}
	table, err := Read(noisy{b}, 256<<20, 512)
	if err != nil {
		t.Fatal(err)
	}
	total, kinds := 0, ""
	for _, r := range table.Frame() {
		total += len(r.Bytes)
		kinds += r.Kind + " "
	}
	if total > images.MaxFrameLength+512 || kinds != "lba0 gap between " {
		t.Errorf("%d bytes outside the partitions: %s", total, kinds)
	}
	if len(table.Warnings) != 2 {
		t.Errorf("warnings %q", table.Warnings)
	}
}
