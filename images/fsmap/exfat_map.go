package fsmap

import (
	"fmt"

	"seedbed/images"
)

// scanExFAT maps by the allocation bitmap that counts.
func scanExFAT(v *volume) ([]images.Extent, error) {
	x, err := parseExFAT(v)
	if err != nil {
		return nil, err
	}
	if err := x.checkBoot(); err != nil {
		return nil, err
	}
	bitmap, system, err := x.system()
	if err != nil {
		return nil, err
	}
	list, err := x.readBitmap(bitmap)
	if err != nil {
		return nil, err
	}
	end := x.offset(x.clusters + 2)
	used := normal(list, end, maxExtents)
	for _, e := range system {
		if !contains(used, e) {
			return nil, unmapped("its bitmap calls bytes %v of its own records free; check it with fsck.exfat", e)
		}
	}
	if x.flags&exfatMediaFailure != 0 {
		v.warnings = append(v.warnings, "exfat: it notes that its disk had read or write errors; look at the disk's health")
	}
	// In front of the clusters lie both boot regions and the tables.
	used = append(used, images.Extent{Offset: 0, Length: x.heap})
	return append(used, images.Extent{Offset: end, Length: v.length - end}), nil
}

// maxUpcase bounds the up-case table, in bytes; uncompressed it has 128 KiB.
const maxUpcase = 1 << 20

// system finds the bitmap that counts, and where all that the file system needs itself lies: bitmaps, up-case table and
// root directory (§7).
func (x *exfat) system() (bitmap, all []images.Extent, err error) {
	length := (x.clusters + 7) / 8
	seen := map[byte]bool{} // kinds; of bitmaps the second is 1
	yield := func(e []byte) bool {
		first, size := int64(le.Uint32(e[20:])), int64(le.Uint64(e[24:]))
		var list []images.Extent
		role := e[0]
		if role == 0x81 {
			role = e[1] & 1
		}
		switch kind := e[0]; {
		case seen[role]:
			err = unmapped("its root directory names a record twice; check it with fsck.exfat")
		case kind == 0x81 && size < length:
			err = unmapped("its bitmap of %d bytes is too short for %d clusters", size, x.clusters)
		case kind == 0x81:
			if list, err = x.chain(first, length, length); err == nil && (e[1]&1 != 0) == x.second {
				bitmap = list
			}
		case kind == 0x82 && (size < 1 || size > maxUpcase):
			err = unmapped("its up-case table has %d bytes", size)
		case kind == 0x82:
			list, err = x.chain(first, size, maxUpcase)
		case kind&0xE0 == 0x80 && kind != 0x83 && kind != 0x85: // in use, critical, primary
			err = fmt.Errorf("%w: directory entries of kind %#x; capture it in full, or with a newer release", ErrUnknownFeature, kind)
		}
		seen[role] = list != nil // a record of the file system; other entries come as often as they like
		all = append(all, list...)
		return err == nil
	}
	if walked := x.walkRoot(yield); err == nil {
		err = walked
	}
	if err == nil && bitmap == nil {
		err = unmapped("its root directory names no bitmap; check it with fsck.exfat")
	}
	if err != nil {
		return nil, nil, err
	}
	root, err := x.chain(x.root, -1, maxExFATDirectory)
	return bitmap, append(all, root...), err
}

// readBitmap returns the clusters in use.
func (x *exfat) readBitmap(where []images.Extent) ([]images.Extent, error) {
	m := &bitmapMap{unit: x.cluster, units: x.clusters, at: x.heap}
	left := (x.clusters + 7) / 8
	for _, e := range where {
		for at := e.Offset; at < e.End() && left > 0; at += bitmapPiece {
			b, err := x.v.read(at, min(bitmapPiece, e.End()-at, left))
			if err != nil {
				return nil, err
			}
			left -= int64(len(b))
			m.add(b)
			if err := x.v.bounded(m.list); err != nil {
				return nil, err
			}
		}
	}
	return m.list, nil
}
