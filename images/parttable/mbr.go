package parttable

import (
	"fmt"

	"seedbed/images"
)

// mbrEntry is one of the four slots of a boot record. Positions are in sectors, relative to what the record says.
type mbrEntry struct {
	status, kind byte
	start, count uint32
}

const (
	mbrTable       = 446 // offset of the first slot in a boot record
	mbrSlot        = 16  // bytes
	mbrSignature   = 440 // offset of the disk signature
	typeProtective = 0xEE
)

func (e mbrEntry) isEmpty() bool { return e.kind == 0 || e.count == 0 }

// isExtended: DOS, Windows and Linux each have a type for it.
func (e mbrEntry) isExtended() bool {
	return !e.isEmpty() && (e.kind == 0x05 || e.kind == 0x0F || e.kind == 0x85)
}

func mbrEntries(sector []byte) (list [4]mbrEntry) {
	for i := range list {
		b := sector[mbrTable+i*mbrSlot:]
		list[i] = mbrEntry{b[0], b[4], le.Uint32(b[8:]), le.Uint32(b[12:])}
	}
	return list
}

// looksLikeMBR tells a boot record with a table from the boot sector of a file system on the whole disk, which ends in
// the same signature and has code or text where the table would be.
func looksLikeMBR(d disk, lba0 []byte) bool {
	if !hasSignature(lba0) {
		return false
	}
	used, outside := false, false
	for _, e := range mbrEntries(lba0) {
		if e.status != 0 && e.status != 0x80 {
			return false
		}
		used = used || !e.isEmpty()
		outside = outside || !e.isEmpty() && (e.start == 0 || uint64(e.start) > d.lastLBA())
	}
	return used && !outside || !looksLikeBootSector(lba0)
}

// looksLikeBootSector reports whether LBA 0 begins like FAT, exFAT or NTFS: a jump, then a name.
func looksLikeBootSector(b []byte) bool {
	if !(b[0] == 0xEB && b[2] == 0x90 || b[0] == 0xE9) {
		return false
	}
	switch string(b[3:11]) {
	case "NTFS    ", "EXFAT   ", "-FVE-FS-":
		return true
	}
	bytesPerSector, fats := le.Uint16(b[11:]), b[16]
	return bytesPerSector >= 512 && bytesPerSector <= 4096 && bytesPerSector&(bytesPerSector-1) == 0 && (fats == 1 || fats == 2)
}

// isProtective reports whether an MBR, protective or hybrid, hands over to a GPT.
func isProtective(lba0 []byte) bool {
	for _, e := range mbrEntries(lba0) {
		if e.kind == typeProtective {
			return true
		}
	}
	return false
}

// readMBR fills the table and returns the extended boot records.
func (t *Table) readMBR(d disk, lba0 []byte) ([]Region, error) {
	t.ID = fmt.Sprintf("%08x", le.Uint32(lba0[mbrSignature:]))
	var records []Region
	seen := false
	for i, e := range mbrEntries(lba0) {
		switch {
		case e.isEmpty():
		case e.isExtended() && seen:
			return nil, fmt.Errorf("slot %d is a second extended partition", i+1)
		case e.isExtended():
			seen = true
			end := uint64(e.start) + uint64(e.count)
			if end > d.lastLBA()+1 {
				return nil, fmt.Errorf("the extended partition ends at LBA %d, the disk at %d: %w", end, d.lastLBA()+1, ErrCut)
			}
			var err error
			if records, err = t.readExtended(d, uint64(e.start), end); err != nil {
				return nil, err
			}
		default:
			if err := t.addMBR(d, i+1, e, 0, d.lastLBA()+1); err != nil {
				return nil, err
			}
		}
	}
	return records, nil
}

// addMBR appends a partition whose position counts from base and which lies before endLBA.
func (t *Table) addMBR(d disk, number int, e mbrEntry, base, endLBA uint64) error {
	start := base + uint64(e.start)
	if end := start + uint64(e.count); e.start > 0 && end > d.lastLBA()+1 {
		return fmt.Errorf("partition %d ends at LBA %d, the disk at %d: %w", number, end, d.lastLBA()+1, ErrCut)
	}
	if e.start == 0 || start+uint64(e.count) > endLBA {
		return fmt.Errorf("partition %d from LBA %d, %d sectors, is not inside LBA %d to %d", number, start, e.count, base+1,
			endLBA)
	}
	t.Partitions = append(t.Partitions, Entry{
		Number: number, Offset: int64(start) * d.sector, Length: int64(e.count) * d.sector,
		Type: fmt.Sprintf("%02x", e.kind), Attributes: uint64(e.status),
	})
	return nil
}

// maxLogical bounds the chain; Linux numbers at most 255 partitions of a disk.
const maxLogical = 251

// readExtended follows the chain of extended boot records in [first, end). Each has a slot for one partition, relative
// to the record, and one for the next record, relative to the extended partition. Numbers count as Linux does: records
// without a partition take none.
func (t *Table) readExtended(d disk, first, end uint64) ([]Region, error) {
	var records []Region
	visited := map[uint64]bool{}
	number := 5
	for lba := first; ; {
		if len(records) == maxLogical || visited[lba] {
			return nil, fmt.Errorf("the chain of extended boot records does not end (LBA %d)", lba)
		}
		visited[lba] = true
		b, err := d.read(int64(lba)*d.sector, d.sector)
		if err != nil {
			return nil, fmt.Errorf("extended boot record at LBA %d: %w", lba, err)
		}
		if !hasSignature(b) {
			if lba == first && len(records) == 0 {
				t.warn("the extended partition at LBA %d holds no boot record", lba)
				return nil, nil
			}
			return nil, fmt.Errorf("extended boot record at LBA %d: no signature", lba)
		}
		records = append(records, Region{images.RegionEBR, int64(lba) * d.sector, b})
		next := uint64(0)
		for _, e := range mbrEntries(b) {
			switch {
			case e.isEmpty():
			case !e.isExtended():
				if err := t.addMBR(d, number, e, lba, end); err != nil {
					return nil, err
				}
				number++
			case next != 0:
				return nil, fmt.Errorf("extended boot record at LBA %d has two successors", lba)
			default:
				if next = first + uint64(e.start); e.start == 0 || next >= end {
					return nil, fmt.Errorf("extended boot record at LBA %d: its successor %d is outside", lba, next)
				}
			}
		}
		if next == 0 {
			return records, nil
		}
		lba = next
	}
}
