package parttable

import (
	"fmt"
	"testing"

	"github.com/diskfs/go-diskfs/backend/file"
	diskgpt "github.com/diskfs/go-diskfs/partition/gpt"
	diskmbr "github.com/diskfs/go-diskfs/partition/mbr"
)

// go-diskfs is a second judge: it shares no code with sfdisk and sgdisk. It is wrong for hybrid MBRs, above 2 TiB and with
// sectors of 4096 bytes in the protective MBR, and knows no logical partitions; none of that is asked of it.

// agree compares a table with what go-diskfs reads of the disk.
func agree(t *testing.T, table *Table, path string) {
	t.Helper()
	f, length := open(t, path)
	var want, got []string
	switch table.Kind {
	case GPT:
		other, err := diskgpt.Read(file.New(f, true), table.SectorLength, table.SectorLength)
		if err != nil {
			t.Fatal(err)
		}
		if other.RecoveredFromBackup || other.GUID != table.ID {
			t.Errorf("go-diskfs: backup taken %v, GUID %s, want %s", other.RecoveredFromBackup, other.GUID, table.ID)
		}
		if err := other.Verify(file.New(f, true), uint64(length)); err != nil {
			t.Errorf("go-diskfs: %v", err)
		}
		for _, p := range other.Partitions {
			if p.Type != diskgpt.Unused {
				want = append(want, fmt.Sprintln(p.Index, p.Start, p.End, p.Type, p.GUID, p.Name, p.Attributes))
			}
		}
		for _, p := range table.Partitions {
			first := p.Offset / int64(table.SectorLength)
			got = append(got, fmt.Sprintln(p.Number, first, first+p.Length/int64(table.SectorLength)-1, p.Type, p.GUID, p.Label, p.Attributes))
		}
	case MBR:
		other, err := diskmbr.Read(file.New(f, true), table.SectorLength, table.SectorLength)
		if err != nil {
			t.Fatal(err)
		}
		for i, p := range other.Partitions {
			if p.Type != diskmbr.Empty && p.Type != 0x05 && p.Type != 0x0f { // extended: part of the frame
				want = append(want, fmt.Sprintln(i+1, p.Start, p.Size, fmt.Sprintf("%02x", byte(p.Type)), p.Bootable))
			}
		}
		for _, p := range table.Partitions {
			if p.Number < 5 {
				got = append(got, fmt.Sprintln(p.Number, p.Offset/512, p.Length/512, p.Type, p.Attributes == 0x80))
			}
		}
	}
	if len(want) == 0 || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("read:\n%v\ngo-diskfs says:\n%v", got, want)
	}
}

func TestGoDiskfsReadsTheSame(t *testing.T) {
	source := gptDisk(t, gptLength)
	table := read(t, source, 512)
	agree(t, table, source)
	for _, length := range []int64{gptLength + 512, 10 << 30, 1 << 40} {
		path := move(t, table, length)
		agree(t, read(t, path, 512), path)
	}
	old := mbrDisk(t, 256<<20)
	table = read(t, old, 512)
	agree(t, table, old)
	path := move(t, table, 1<<30)
	agree(t, read(t, path, 512), path)
}

func TestADiskOfMoreThanTwoTebibytesIsReadAndMoved(t *testing.T) {
	source := newDisk(t, 5<<40)
	run(t, "gdisk", "", "sgdisk", "-n1:2048:+1M", "-t1:EF02", "-n2:4294967296:+2T", "-c2:behind 2 TiB", "-A2:set:2", "-n128:0:+1G", source)
	table := read(t, source, 512)
	if len(table.Partitions) != 3 || table.Partitions[1].Offset != 2<<40 || table.Partitions[1].Length != 2<<40 {
		t.Fatalf("partitions %+v", table.Partitions)
	}
	same(t, table, source)
	for _, length := range []int64{5<<40 + 1<<30, 9 << 40} {
		path := move(t, table, length)
		verify(t, path)
		same(t, read(t, path, 512), path)
		if got, want := dump(t, path), dump(t, source); got != want {
			t.Errorf("sfdisk says\n%s\nof the source it said\n%s", got, want)
		}
	}
}
