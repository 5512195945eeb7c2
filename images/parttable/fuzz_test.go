package parttable

import (
	"cmp"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"testing"
)

// FuzzRead feeds the slots of LBA 0 and of an extended boot record, a GPT header and its first entries, with checksums
// made right. Whatever is read must relocate to its own length and be read again with the same partitions.
func FuzzRead(f *testing.F) {
	const length = 256 << 20
	for _, path := range []string{gptDisk(f, length), mbrDisk(f, length), sfdiskGPT(f, length)} {
		file, _ := open(f, path)
		at := func(off int64, n int) []byte {
			b := make([]byte, n)
			if _, err := file.ReadAt(b, off); err != nil {
				f.Fatal(err)
			}
			return b
		}
		f.Add(at(mbrTable, 64), at(40960*512+mbrTable, 32), at(512, gptMinHeader), at(1024, 512), false)
		f.Add(at(mbrTable, 64), at(40960*512+mbrTable, 32), at(512, gptMinHeader), at(1024, 512), true)
	}
	f.Fuzz(func(t *testing.T, slots, extended, header, entries []byte, backup bool) {
		d := fuzzDisk(slots, extended, header, entries, backup, length)
		table, err := Read(d, length, 512)
		if err != nil {
			return
		}
		if _, err := Wipe(d, length, 512); err != nil {
			t.Fatal(err)
		}
		list, err := Relocate(table.Frame(), table.Kind, 512, length)
		if errors.Is(err, ErrTooSmall) || table.Kind == None {
			return // usable sectors that leave no room for a backup; no table
		}
		if err != nil {
			t.Fatalf("%v\n%+v", err, table)
		}
		again, err := Read(ordered(list), length, 512)
		if err != nil {
			t.Fatal(err)
		}
		if fmt.Sprint(again.Partitions) != fmt.Sprint(table.Partitions) {
			t.Fatalf("%v became %v", table.Partitions, again.Partitions)
		}
	})
}

// ordered returns a disk that holds the regions.
func ordered(list []Region) regions {
	slices.SortFunc(list, func(a, b Region) int { return cmp.Compare(a.Offset, b.Offset) })
	return list
}

// fuzzDisk puts the parts where a reader looks for them.
func fuzzDisk(slots, extended, header, entries []byte, backup bool, length int64) regions {
	sector := func(at int, b []byte) []byte {
		s := make([]byte, 512)
		s[510], s[511] = 0x55, 0xAA
		copy(s[at:510], b)
		return s
	}
	list := regions{{"", 0, sector(mbrTable, slots)}, {"", 40960 * 512, sector(mbrTable, extended)}}
	h := make([]byte, 512)
	copy(h, header)
	size, count := le.Uint32(h[gptEntrySize:]), le.Uint32(h[gptEntries:])
	if le.Uint32(h[gptHeaderSize:]) < gptMinHeader || size > maxEntryArray || uint64(size)*uint64(count) > maxEntryArray || le.Uint32(h[gptHeaderSize:]) > 512 {
		return list
	}
	array := make([]byte, max(512, int(size*count)))
	copy(array, entries)
	le.PutUint32(h[gptEntriesCRC:], crc32.ChecksumIEEE(array[:size*count]))
	le.PutUint32(h[gptHeaderCRC:], headerCRC(h))
	at := int64(512)
	if backup {
		at = length - 512
	}
	return append(list, Region{"", at, h}, Region{"", int64(le.Uint64(h[gptEntriesLBA:]) % (1 << 40) * 512), array})
}
