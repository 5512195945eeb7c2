package parttable

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"

	"seedbed/images"
)

// maxHole bounds the space between partitions that is looked at, in bytes: alignment leaves at most a few MiB there.
// Anything longer is unpartitioned space, and free.
const maxHole = 16 << 20

// collect joins the table's own regions with what is not zero in the gap and in the holes between partitions, and
// returns all in ascending order. What is not the table's own is images.MaxFrameLength in all: whoever saves the frame
// of a disk before a deployment holds it in memory.
func (t *Table) collect(d disk, table []Region) ([]Region, error) {
	taken := make([]images.Extent, 0, len(table)+len(t.Partitions)+1)
	tableEnd, backupStart := d.sector, d.length
	for _, r := range table {
		taken = append(taken, images.Extent{Offset: r.Offset, Length: int64(len(r.Bytes))})
		switch r.Kind {
		case images.RegionGPT:
			tableEnd = r.End()
		case images.RegionBackup:
			backupStart = r.Offset
		}
	}
	if t.Kind == GPT && !slices.ContainsFunc(table, func(r Region) bool { return r.Kind == images.RegionGPT }) {
		// What lies where a damaged primary was is no use to anyone; Relocate makes a new one there.
		g, err := readGPTCopy(d, d.lastLBA())
		if err != nil {
			return nil, err
		}
		tableEnd = int64(g.firstUsableLBA) * d.sector
		taken = append(taken, images.Extent{Offset: d.sector, Length: tableEnd - d.sector})
	}
	for _, p := range t.Partitions {
		taken = append(taken, images.Extent{Offset: p.Offset, Length: p.Length})
	}
	slices.SortFunc(taken, func(a, b images.Extent) int { return cmp.Compare(a.Offset, b.Offset) })
	frame := slices.Clone(table)
	end, room := int64(0), int64(images.MaxFrameLength) // of what is no table, in all
	for _, e := range taken {
		if e.Offset < end {
			return nil, fmt.Errorf("%v overlaps what ends at byte %d: a partition lies over the table", e, end)
		}
		if e.Offset == backupStart {
			break
		}
		kind, limit := images.RegionBetween, int64(maxHole)
		if end == tableEnd {
			kind, limit = images.RegionGap, images.MaxFrameLength
		}
		hole := images.Extent{Offset: end, Length: e.Offset - end}
		if kind == images.RegionGap {
			hole.Length = min(hole.Length, limit)
		}
		if hole.Length > 0 && hole.Length <= limit {
			r, err := used(d, kind, hole)
			if err != nil {
				return nil, err
			}
			switch n := int64(len(r.Bytes)); {
			case n > room:
				t.warn("%d bytes from byte %d, which lie in no partition, are not kept: together with others they are more than %d", n, r.Offset, images.MaxFrameLength)
			case n > 0:
				frame, room = append(frame, r), room-n
			}
		}
		end = e.End()
	}
	slices.SortStableFunc(frame, func(a, b Region) int { return cmp.Compare(a.Offset, b.Offset) })
	return frame, nil
}

// used returns the sectors of the hole from the first that is not zero to the last.
func used(d disk, kind string, hole images.Extent) (Region, error) {
	b, err := d.read(hole.Offset, hole.Length)
	if err != nil {
		return Region{}, err
	}
	first, end := int64(0), int64(len(b))
	for first < end && isZero(b[first:first+d.sector]) {
		first += d.sector
	}
	for end > first && isZero(b[end-d.sector:end]) {
		end -= d.sector
	}
	return Region{kind, hole.Offset + first, b[first:end:end]}, nil
}

var zeros [4096]byte

func isZero(b []byte) bool {
	for len(b) > 0 {
		n := min(len(b), len(zeros))
		if !bytes.Equal(b[:n], zeros[:n]) {
			return false
		}
		b = b[n:]
	}
	return true
}
