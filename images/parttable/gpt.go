package parttable

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"strings"
	"unicode/utf16"

	"seedbed/images"
)

// Offsets in a GPT header, bytes: UEFI 2.10 §5.3.2.
const (
	gptRevision    = 8
	gptHeaderSize  = 12
	gptHeaderCRC   = 16
	gptMyLBA       = 24
	gptAlternate   = 32
	gptFirstUsable = 40
	gptLastUsable  = 48
	gptDiskGUID    = 56
	gptEntriesLBA  = 72
	gptEntries     = 80
	gptEntrySize   = 84
	gptEntriesCRC  = 88
	gptMinHeader   = 92
	gptRevision1   = 0x00010000
)

var gptSignature = []byte("EFI PART")

// maxEntryArray bounds an entry array in bytes; tools write 16 KiB.
const maxEntryArray = 1 << 20

// gpt is one copy of a GUID partition table.
type gpt struct {
	sector []byte // the header's whole logical sector
	array  []byte // the entries, without padding
	myLBA, alternateLBA, firstUsableLBA, lastUsableLBA,
	entriesLBA uint64
	entrySize int64
}

// arraySectors is how many sectors the entry array takes.
func (g *gpt) arraySectors(sector int64) int64 { return (int64(len(g.array)) + sector - 1) / sector }

// readGPTCopy reads and checks the header at an LBA and its entry array.
func readGPTCopy(d disk, lba uint64) (*gpt, error) {
	b, err := d.read(int64(lba)*d.sector, d.sector)
	if err != nil {
		return nil, err
	}
	size, count, entry := le.Uint32(b[gptHeaderSize:]), int64(le.Uint32(b[gptEntries:])), int64(le.Uint32(b[gptEntrySize:]))
	g := &gpt{
		sector: b, myLBA: le.Uint64(b[gptMyLBA:]), alternateLBA: le.Uint64(b[gptAlternate:]),
		firstUsableLBA: le.Uint64(b[gptFirstUsable:]), lastUsableLBA: le.Uint64(b[gptLastUsable:]),
		entriesLBA: le.Uint64(b[gptEntriesLBA:]), entrySize: entry,
	}
	last := d.lastLBA()
	switch {
	case !bytes.Equal(b[:8], gptSignature):
		return nil, fmt.Errorf("no header at LBA %d", lba)
	case le.Uint32(b[gptRevision:]) != gptRevision1:
		return nil, fmt.Errorf("header at LBA %d: revision %#x, want %#x", lba, le.Uint32(b[gptRevision:]), gptRevision1)
	case size < gptMinHeader || int64(size) > d.sector:
		return nil, fmt.Errorf("header at LBA %d: %d bytes long", lba, size)
	case headerCRC(b) != le.Uint32(b[gptHeaderCRC:]):
		return nil, fmt.Errorf("header at LBA %d: its checksum is wrong", lba)
	case g.myLBA != lba:
		return nil, fmt.Errorf("header at LBA %d says that it lies at %d", lba, g.myLBA)
	case entry < 128 || entry&(entry-1) != 0 || count < 1 || entry > maxEntryArray || count > maxEntryArray/entry:
		return nil, fmt.Errorf("header at LBA %d: %d entries of %d bytes", lba, count, entry)
	case g.lastUsableLBA > last && g.firstUsableLBA <= g.lastUsableLBA && g.lastUsableLBA < 1<<50:
		return nil, fmt.Errorf("header at LBA %d: usable sectors %d to %d of a disk whose last is %d: %w", lba, g.firstUsableLBA, g.lastUsableLBA, last, ErrCut)
	case g.firstUsableLBA > g.lastUsableLBA+1 || g.lastUsableLBA > last || g.firstUsableLBA < 2:
		return nil, fmt.Errorf("header at LBA %d: usable sectors %d to %d of a disk whose last is %d", lba,
			g.firstUsableLBA, g.lastUsableLBA, last)
	case g.entriesLBA < 2 || g.entriesLBA > last:
		return nil, fmt.Errorf("header at LBA %d: entries at LBA %d", lba, g.entriesLBA)
	}
	if g.array, err = d.read(int64(g.entriesLBA)*d.sector, count*entry); err != nil {
		return nil, fmt.Errorf("header at LBA %d: entries: %w", lba, err)
	}
	if crc32.ChecksumIEEE(g.array) != le.Uint32(b[gptEntriesCRC:]) {
		return nil, fmt.Errorf("header at LBA %d: the checksum of its entries is wrong", lba)
	}
	end := g.entriesLBA + uint64(g.arraySectors(d.sector))
	if lba < g.entriesLBA && end > g.firstUsableLBA || lba > g.entriesLBA && (g.entriesLBA <= g.lastUsableLBA || end > lba) {
		return nil, fmt.Errorf("header at LBA %d: entries [%d, %d) lie among the usable sectors", lba, g.entriesLBA, end)
	}
	return g, nil
}

// headerCRC is the checksum of a header sector, taken with its own field as zero.
func headerCRC(sector []byte) uint32 {
	h := bytes.Clone(sector[:le.Uint32(sector[gptHeaderSize:])])
	clear(h[gptHeaderCRC : gptHeaderCRC+4])
	return crc32.ChecksumIEEE(h)
}

// readGPT fills the table and returns the regions of its copies.
func (t *Table) readGPT(d disk) ([]Region, error) {
	last := d.lastLBA()
	primary, err := readGPTCopy(d, 1)
	var backup *gpt
	var backupErr error
	if err == nil {
		if primary.alternateLBA != last {
			t.warn("the backup GPT belongs at LBA %d, not at the disk's last, %d", primary.alternateLBA, last)
		}
		if primary.alternateLBA > 1 && primary.alternateLBA <= last {
			backup, backupErr = readGPTCopy(d, primary.alternateLBA)
		} else {
			backupErr = errors.New("it does not lie on the disk")
		}
		if backupErr != nil {
			t.warn("the backup GPT is damaged: %v", backupErr)
		} else if !bytes.Equal(backup.array, primary.array) {
			t.warn("the backup GPT lists other partitions; the primary counts")
		}
	} else if backup, backupErr = readGPTCopy(d, last); backupErr != nil {
		return nil, fmt.Errorf("neither copy can be read: primary: %w; backup: %w", err, backupErr)
	} else {
		t.warn("the primary GPT is damaged, its backup counts: %v", err)
	}
	g := primary
	if g == nil {
		g = backup
	}
	t.ID = formatGUID(g.sector[gptDiskGUID:])
	if t.Partitions, err = g.partitions(d.sector); err != nil {
		return nil, err
	}
	return gptRegions(d, primary, backup)
}

// partitions lists the entries in use.
func (g *gpt) partitions(sector int64) ([]Entry, error) {
	var list []Entry
	for i := int64(0); i < int64(len(g.array)); i += g.entrySize {
		e := g.array[i : i+g.entrySize]
		if len(bytes.Trim(e[:16], "\x00")) == 0 {
			continue // UEFI 2.10 §5.3.3: unused
		}
		number := int(i/g.entrySize) + 1
		first, last := le.Uint64(e[32:]), le.Uint64(e[40:])
		if first < g.firstUsableLBA || last > g.lastUsableLBA || last < first {
			return nil, fmt.Errorf("partition %d from LBA %d to %d is not inside the usable sectors %d to %d", number, first,
				last, g.firstUsableLBA, g.lastUsableLBA)
		}
		list = append(list, Entry{
			Number: number, Offset: int64(first) * sector, Length: int64(last-first+1) * sector,
			Type: formatGUID(e), GUID: formatGUID(e[16:]), Label: label(e[56:128]), Attributes: le.Uint64(e[48:]),
		})
	}
	return list, nil
}

// gptRegions returns the raw bytes of the copies that could be read.
func gptRegions(d disk, primary, backup *gpt) (list []Region, err error) {
	add := func(kind string, start, end int64) error {
		if end-start > images.MaxFrameLength {
			return fmt.Errorf("a GPT of %d bytes, more than %d", end-start, images.MaxFrameLength)
		}
		b, err := d.read(start, end-start)
		list = append(list, Region{kind, start, b})
		return err
	}
	if primary != nil {
		end := int64(primary.entriesLBA) + primary.arraySectors(d.sector)
		if err := add(images.RegionGPT, d.sector, end*d.sector); err != nil {
			return nil, err
		}
	}
	if backup != nil {
		if err := add(images.RegionBackup, int64(backup.entriesLBA)*d.sector, int64(backup.myLBA+1)*d.sector); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// formatGUID prints the first 16 bytes of b: three little-endian fields, then eight bytes (UEFI 2.10, appendix A).
func formatGUID(b []byte) string {
	return strings.ToUpper(fmt.Sprintf("%08x-%04x-%04x-%s-%s", le.Uint32(b), le.Uint16(b[4:]), le.Uint16(b[6:]),
		hex.EncodeToString(b[8:10]), hex.EncodeToString(b[10:16])))
}

// label reads a UTF-16 name that ends at its first NUL.
func label(b []byte) string {
	var u []uint16
	for ; len(b) >= 2 && le.Uint16(b) != 0; b = b[2:] {
		u = append(u, le.Uint16(b))
	}
	return string(utf16.Decode(u))
}
