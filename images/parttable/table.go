// Package parttable reads partition tables (GPT, MBR with its extended chain), keeps them raw beside the parsed fields,
// and relocates them to a disk of another length. It moves and changes no partition.
package parttable

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"seedbed/images"
)

// Kinds of table, as images.Frame.Table has them.
const (
	GPT  = "gpt"
	MBR  = "mbr"
	None = "none" // a file system on the whole disk, or nothing
)

// Table is what a disk's partition table says. Immutable after Read.
type Table struct {
	Kind         string
	DiskLength   int64
	SectorLength int // logical, bytes: 512 or 4096
	// ID is the disk GUID (GPT, upper case) or the disk signature (MBR, eight hexadecimal digits).
	ID string
	// Partitions in ascending order of Number; their byte ranges do not overlap. With Kind None it is one entry,
	// Number 0, over the whole disk.
	Partitions []Entry
	// Warnings are sentences about what is wrong with the table but did not keep it from being read.
	Warnings []string

	frame    []Region
	bootCode bool
}

// Entry is one partition. An extended partition is none: it is part of the frame.
type Entry struct {
	Number int    // 1-based: the slot in the table; logical partitions (MBR) count from 5
	Offset int64  // bytes from the start of the disk
	Length int64  // bytes
	Type   string // GPT type GUID, upper case; or two lower-case hexadecimal digits of an MBR type: "83"
	GUID   string // unique partition GUID (GPT), upper case
	Label  string // partition name (GPT)
	// Attributes are the GPT attribute bits (UEFI 2.10 §5.3.3), or 0x80 for the active partition of an MBR.
	Attributes uint64
}

// Region is a byte range of the disk outside its partitions, raw. Kind is one of images.Region...
type Region struct {
	Kind   string
	Offset int64
	Bytes  []byte
}

// End is the first byte after the region.
func (r Region) End() int64 { return r.Offset + int64(len(r.Bytes)) }

// Frame returns the raw bytes outside the partitions that a copy of the disk needs, in ascending order: LBA 0, primary
// and backup GPT, extended boot records, what is not zero of the gap before the first partition and of small holes
// between partitions. Space behind the last partition is free. The caller does not change them.
func (t *Table) Frame() []Region { return t.frame }

// Firmware says which firmware the table gives a chance to boot: "bios" where LBA 0 has boot code, "uefi" where there is
// an EFI system partition.
func (t *Table) Firmware() (list []string) {
	if t.bootCode {
		list = append(list, "bios")
	}
	if slices.ContainsFunc(t.Partitions, func(e Entry) bool { return e.Type == TypeESP || e.Type == mbrTypeESP }) {
		list = append(list, "uefi")
	}
	return list
}

// Types of partition that concern booting.
const (
	TypeESP      = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B" // EFI system partition, UEFI 2.10 §5.3.3
	TypeBIOSBoot = "21686148-6449-6E6F-744E-656564454649" // GRUB's core.img
	mbrTypeESP   = "ef"                                   // UEFI 2.10 §5.2.2
)

// disk is what the readers of tables read from.
type disk struct {
	r      io.ReaderAt
	length int64
	sector int64
}

// lastLBA is the last sector of the disk.
func (d disk) lastLBA() uint64 { return uint64(d.length/d.sector) - 1 }

// read returns n bytes at off, which lie inside the disk.
func (d disk) read(off, n int64) ([]byte, error) {
	if off < 0 || n < 0 || n > d.length || off > d.length-n {
		return nil, fmt.Errorf("bytes [%d, +%d) are not inside the disk of %d bytes", off, n, d.length)
	}
	b := make([]byte, n)
	if k, err := d.r.ReadAt(b, off); int64(k) < n {
		return nil, fmt.Errorf("read %d bytes at %d: %w", n, off, err)
	}
	return b, nil
}

// ErrCut says that a table is that of a longer disk.
var ErrCut = errors.New("the disk is shorter than its table: the file is cut off, or the disk was copied to a smaller one")

// Read reads the partition table of a disk of diskLength bytes. A damaged primary GPT is replaced by its backup, with a
// warning. An error says which check failed; nothing is guessed.
func Read(r io.ReaderAt, diskLength int64, sectorLength int) (*Table, error) {
	if sectorLength != 512 && sectorLength != 4096 {
		return nil, fmt.Errorf("partition table: sector length %d is neither 512 nor 4096", sectorLength)
	}
	if diskLength < 2*int64(sectorLength) || diskLength%int64(sectorLength) != 0 || diskLength > 1<<56 {
		return nil, fmt.Errorf("partition table: a disk of %d bytes is not a number of sectors of %d", diskLength, sectorLength)
	}
	d := disk{r, diskLength, int64(sectorLength)}
	lba0, err := d.read(0, d.sector)
	if err != nil {
		return nil, fmt.Errorf("partition table: %w", err)
	}
	t := &Table{Kind: None, DiskLength: diskLength, SectorLength: sectorLength}
	t.bootCode = hasSignature(lba0) && len(bytes.Trim(lba0[:440], "\x00")) > 0
	if !looksLikeMBR(d, lba0) {
		if b, err := d.read(d.sector, d.sector); err == nil && bytes.Equal(b[:8], gptSignature) {
			t.warn("LBA 1 holds a GPT header, but LBA 0 no protective MBR: the disk counts as one without partitions")
		}
		t.Partitions = []Entry{{Number: 0, Length: diskLength}}
		return t, nil
	}
	var table []Region
	if isProtective(lba0) {
		t.Kind = GPT
		table, err = t.readGPT(d)
	} else {
		t.Kind = MBR
		table, err = t.readMBR(d, lba0)
	}
	if err != nil {
		return nil, fmt.Errorf("partition table (%s): %w", t.Kind, err)
	}
	if err := t.checkOverlap(); err != nil {
		return nil, fmt.Errorf("partition table (%s): %w", t.Kind, err)
	}
	table = append([]Region{{images.RegionLBA0, 0, lba0}}, table...)
	if t.frame, err = t.collect(d, table); err != nil {
		return nil, fmt.Errorf("frame: %w", err)
	}
	return t, nil
}

func (t *Table) warn(format string, a ...any) {
	t.Warnings = append(t.Warnings, fmt.Sprintf(format, a...))
}

// checkOverlap sorts by Number and refuses partitions that share bytes.
func (t *Table) checkOverlap() error {
	byOffset := slices.Clone(t.Partitions)
	slices.SortFunc(byOffset, func(a, b Entry) int { return cmp.Compare(a.Offset, b.Offset) })
	for i := 1; i < len(byOffset); i++ {
		if a, b := byOffset[i-1], byOffset[i]; b.Offset < a.Offset+a.Length {
			return fmt.Errorf("partitions %d and %d overlap", a.Number, b.Number)
		}
	}
	slices.SortFunc(t.Partitions, func(a, b Entry) int { return a.Number - b.Number })
	return nil
}

var le = binary.LittleEndian

// hasSignature reports whether a sector ends like a boot record does; at byte 510 whatever the sector's length.
func hasSignature(sector []byte) bool { return sector[510] == 0x55 && sector[511] == 0xAA }
