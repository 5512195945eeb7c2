package parttable

import (
	"bytes"
	"cmp"
	"io"
	"slices"

	"seedbed/images"
)

// rescueLength is how much of the start of a disk Rescue keeps where no table can be read, in bytes: today's tools
// begin the first partition there.
const rescueLength = 1 << 20

// backupLength is the length of a usual backup GPT: an entry array of 16 KiB and the header.
func backupLength(sector int64) int64 { return 16<<10 + sector }

// Rescue returns what has to be kept of a disk before Wipe and a new table destroy it: the frame of its table, and
// where there is none that can be read, the first MiB and the place of a backup GPT. Only reading can fail.
func Rescue(r io.ReaderAt, diskLength int64, sectorLength int) ([]Region, error) {
	if t, err := Read(r, diskLength, sectorLength); err == nil && t.Kind != None {
		return t.Frame(), nil
	}
	d := disk{r, diskLength, int64(sectorLength)}
	head := min(rescueLength, d.length)
	first, err := d.read(0, d.sector)
	if err != nil {
		return nil, err
	}
	list := []Region{{images.RegionLBA0, 0, first}}
	tail := max(head, d.length-backupLength(d.sector))
	for _, e := range []struct {
		kind       string
		start, end int64
	}{{images.RegionGap, d.sector, head}, {images.RegionBackup, tail, d.length}} {
		if e.end <= e.start {
			continue
		}
		b, err := d.read(e.start, e.end-e.start)
		if err != nil {
			return nil, err
		}
		if !isZero(b) {
			list = append(list, Region{e.kind, e.start, b})
		}
	}
	return list, nil
}

// Wipe returns the byte ranges, whole sectors in ascending order, that have to be zero so that the disk shows no
// partitions and does not boot: LBA 0, every GPT header in its usual place or where the other copy says, with its
// entries, and the extended boot records. Only reading LBA 0 and the two ends of the disk can fail.
func Wipe(r io.ReaderAt, diskLength int64, sectorLength int) ([]images.Extent, error) {
	d := disk{r, diskLength, int64(sectorLength)}
	list := []images.Extent{{Offset: 0, Length: d.sector}}
	seen := map[uint64]bool{}
	for _, lba := range []uint64{1, d.lastLBA()} {
		alternate, err := wipeGPT(&list, d, lba, seen)
		if err != nil {
			return nil, err
		}
		if alternate > 0 && alternate < d.lastLBA() {
			if _, err := wipeGPT(&list, d, alternate, seen); err != nil {
				return nil, err
			}
		}
	}
	if t, err := Read(r, diskLength, sectorLength); err == nil {
		for _, region := range t.Frame() {
			if region.Kind == images.RegionEBR {
				list = append(list, images.Extent{Offset: region.Offset, Length: int64(len(region.Bytes))})
			}
		}
	}
	slices.SortFunc(list, func(a, b images.Extent) int { return cmp.Compare(a.Offset, b.Offset) })
	var joined []images.Extent
	for _, e := range list {
		joined = images.AppendExtent(joined, e)
	}
	return joined, nil
}

// wipeGPT adds the header at an LBA, if there is one, sound or not, and the entries of a sound one. It returns where the
// header says that the other copy is, or 0.
func wipeGPT(list *[]images.Extent, d disk, lba uint64, seen map[uint64]bool) (alternate uint64, err error) {
	if seen[lba] {
		return 0, nil
	}
	seen[lba] = true
	b, err := d.read(int64(lba)*d.sector, d.sector)
	if err != nil {
		return 0, err
	}
	if !bytes.Equal(b[:8], gptSignature) {
		return 0, nil
	}
	*list = append(*list, images.Extent{Offset: int64(lba) * d.sector, Length: d.sector})
	g, err := readGPTCopy(d, lba)
	if err != nil {
		return 0, nil // its header goes, which is enough
	}
	*list = append(*list, images.Extent{Offset: int64(g.entriesLBA) * d.sector, Length: g.arraySectors(d.sector) * d.sector})
	return g.alternateLBA, nil
}
