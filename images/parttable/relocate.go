package parttable

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"

	"seedbed/images"
)

// ErrTooSmall says that a disk has no room for an image's partitions and table. TooSmallError has the figures.
var ErrTooSmall = errors.New("the disk is too small")

// TooSmallError is an ErrTooSmall.
type TooSmallError struct {
	Need, Have int64 // bytes
}

func (e *TooSmallError) Error() string {
	return fmt.Sprintf("the disk is too small: the image needs %d bytes (%.1f GB), the disk has %d (%.1f GB)", e.Need,
		float64(e.Need)/1e9, e.Have, float64(e.Have)/1e9)
}

// Is makes errors.Is(err, ErrTooSmall) true.
func (e *TooSmallError) Is(target error) bool { return target == ErrTooSmall }

// regions reads the bytes of a frame as if they lay on a disk of zeros.
type regions []Region

func (list regions) ReadAt(b []byte, off int64) (int, error) {
	if off < 0 {
		return 0, io.EOF
	}
	clear(b)
	want := images.Extent{Offset: off, Length: int64(len(b))}
	for _, r := range list {
		if e := (images.Extent{Offset: r.Offset, Length: int64(len(r.Bytes))}).Intersect(want); e.Length > 0 {
			copy(b[e.Offset-off:e.End()-off], r.Bytes[e.Offset-r.Offset:])
		}
	}
	return len(b), nil
}

// of returns the first region of a kind, or nil.
func (list regions) of(kind string) *Region {
	for i := range list {
		if list[i].Kind == kind {
			return &list[i]
		}
	}
	return nil
}

// check refuses frames that no disk has, so that what follows may slice.
func (list regions) check(kind string, sector int64) error {
	if sector != 512 && sector != 4096 {
		return fmt.Errorf("frame: sector length %d is neither 512 nor 4096", sector)
	}
	end := int64(0)
	for _, r := range list {
		if n := int64(len(r.Bytes)); r.Offset < end || n == 0 || n > images.MaxFrameLength || r.Offset > 1<<56 || n%sector != 0 || r.Offset%sector != 0 {
			return fmt.Errorf("frame: region %q of %d bytes at %d cannot be", r.Kind, n, r.Offset)
		}
		end = r.End()
	}
	lba0 := list.of(images.RegionLBA0)
	switch {
	case kind == None && len(list) > 0:
		return errors.New("frame: regions without a table")
	case kind != None && kind != GPT && kind != MBR:
		return fmt.Errorf("frame: table %.10q is neither gpt, mbr nor none", kind)
	case kind != None && (lba0 == nil || lba0.Offset != 0 || int64(len(lba0.Bytes)) != sector || !hasSignature(lba0.Bytes)):
		return errors.New("frame: no LBA 0 with a boot signature")
	}
	return nil
}

// table parses the frame's own GPT: its primary copy, else its backup.
func (list regions) table(sector int64) (*gpt, error) {
	primary := errors.New("none in the frame")
	if r := list.of(images.RegionGPT); r != nil {
		g, err := readGPTCopy(disk{list, 1 << 56, sector}, 1)
		switch {
		case err != nil:
			primary = err
		case r.Offset != sector || int64(g.entriesLBA)*sector+int64(len(g.array)) > r.End():
			primary = errors.New("its region does not hold it")
		default:
			return g, nil
		}
	}
	r := list.of(images.RegionBackup)
	if r == nil {
		return nil, fmt.Errorf("frame: primary GPT: %w; no backup", primary)
	}
	g, err := readGPTCopy(disk{list, r.End(), sector}, uint64(r.End()/sector)-1)
	if err != nil {
		return nil, fmt.Errorf("frame: primary GPT: %w; backup: %w", primary, err)
	}
	return g, nil
}

// MinimumDisk returns the length in bytes of the smallest disk that holds the table and all its partitions. Without a
// table it is 0: the length of the file system on the disk counts then.
func MinimumDisk(frame []Region, kind string, sectorLength int) (int64, error) {
	list, sector := regions(frame), int64(sectorLength)
	if err := list.check(kind, sector); err != nil {
		return 0, err
	}
	end := int64(0)
	for _, r := range list {
		if r.Kind != images.RegionBackup {
			end = max(end, r.End())
		}
	}
	switch kind {
	case GPT:
		g, err := list.table(sector)
		if err != nil {
			return 0, err
		}
		partitions, err := g.partitions(sector)
		if err != nil {
			return 0, fmt.Errorf("frame: %w", err)
		}
		end = max(end, int64(g.firstUsableLBA)*sector)
		for _, p := range partitions {
			end = max(end, p.Offset+p.Length)
		}
		return end + (g.arraySectors(sector)+1)*sector, nil
	case MBR:
		for _, e := range mbrEntries(list.of(images.RegionLBA0).Bytes) {
			if !e.isEmpty() {
				end = max(end, (int64(e.start)+int64(e.count))*sector) // logical partitions lie inside the extended one
			}
		}
	}
	return end, nil
}

// Relocate returns the frame as it has to be on a disk of newDiskLength bytes, in the order in which it is to be
// written: the table that makes the disk boot comes last. A GPT's backup goes to the real end of the disk, checksums
// and a protective MBR are made anew; a hybrid MBR and everything else keep their bytes. On a disk of the captured
// length a sound table does not change. The error is a TooSmallError where a partition would not fit. The regions are
// new where they differ; others share the bytes of frame.
func Relocate(frame []Region, kind string, sectorLength int, newDiskLength int64) ([]Region, error) {
	sector := int64(sectorLength)
	need, err := MinimumDisk(frame, kind, sectorLength)
	if err != nil {
		return nil, err
	}
	if newDiskLength < need {
		return nil, &TooSmallError{Need: need, Have: newDiskLength}
	}
	if newDiskLength%sector != 0 || newDiskLength > 1<<56 {
		return nil, fmt.Errorf("a disk of %d bytes is not a number of sectors of %d", newDiskLength, sector)
	}
	var out []Region
	for _, r := range frame {
		switch r.Kind {
		case images.RegionLBA0, images.RegionGPT, images.RegionBackup:
		default:
			out = append(out, r)
		}
	}
	switch kind {
	case None:
		return nil, nil
	case MBR:
		return append(out, *regions(frame).of(images.RegionLBA0)), nil
	}
	g, err := regions(frame).table(sector)
	if err != nil {
		return nil, err
	}
	primary, backup := g.relocated(regions(frame), sector, newDiskLength)
	lba0 := Region{images.RegionLBA0, 0, protective(regions(frame).of(images.RegionLBA0).Bytes, uint64(newDiskLength/sector)-1)}
	return append(out, backup, primary, lba0), nil
}

// relocated returns both copies for a disk of another length.
func (g *gpt) relocated(frame regions, sector, length int64) (primary, backup Region) {
	last := uint64(length/sector) - 1
	array := make([]byte, g.arraySectors(sector)*sector)
	copy(array, g.array)
	h := bytes.Clone(g.sector)
	if max(g.myLBA, g.alternateLBA) != last {
		le.PutUint64(h[gptLastUsable:], last-uint64(g.arraySectors(sector))-1)
	}
	entries := uint64(2)
	b := make([]byte, sector)
	if r := frame.of(images.RegionGPT); r != nil && g.myLBA == 1 {
		entries = g.entriesLBA
		b = bytes.Clone(r.Bytes)
	} else {
		b = append(b, array...)
	}
	copy(b, g.header(h, 1, last, entries))
	at := last - uint64(g.arraySectors(sector))
	backup = Region{images.RegionBackup, int64(at) * sector, append(array, g.header(h, last, 1, at)...)}
	return Region{images.RegionGPT, sector, b}, backup
}

// header returns the header sector h with other places in it.
func (g *gpt) header(h []byte, my, alternate, entries uint64) []byte {
	h = bytes.Clone(h)
	le.PutUint64(h[gptMyLBA:], my)
	le.PutUint64(h[gptAlternate:], alternate)
	le.PutUint64(h[gptEntriesLBA:], entries)
	le.PutUint32(h[gptEntriesCRC:], crc32.ChecksumIEEE(g.array))
	le.PutUint32(h[gptHeaderCRC:], headerCRC(h))
	return h
}

// protective returns LBA 0 with its protective entry over a disk that ends with lastLBA (UEFI 2.10 §5.2.3). A hybrid
// MBR, which has other entries beside, is returned as it is.
func protective(lba0 []byte, lastLBA uint64) []byte {
	slot := -1
	for i, e := range mbrEntries(lba0) {
		if e == (mbrEntry{}) {
			continue
		}
		if e.kind != typeProtective || e.start != 1 || slot >= 0 {
			return lba0
		}
		slot = i
	}
	size := uint32(min(lastLBA, math.MaxUint32))
	if slot < 0 || mbrEntries(lba0)[slot].count == size {
		return lba0
	}
	b := bytes.Clone(lba0)
	e := b[mbrTable+slot*mbrSlot:]
	copy(e[5:8], "\xff\xff\xff") // the last sector as cylinder, head, sector: not possible
	le.PutUint32(e[12:], size)
	return b
}
