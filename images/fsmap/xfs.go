package fsmap

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"math/bits"

	"seedbed/images"
)

// Features of XFS (Linux, fs/xfs/libxfs/xfs_format.h).
const (
	// xfs4Known: attributes, 32-bit links, quota, alignment, stripes, log v2, sector sizes, extent flags, directory v2,
	// ASCII case folding, features2. Missing: shared.
	xfs4Known = 0xf | 0x10 | 0x20 | 0x40 | 0x80 | 0x100 | xfsLogV2 | 0x800 | 0x1000 | 0x2000 | 0x4000 | 0x8000
	xfsLogV2  = 0x400
	// xfs4Known2: lazy counters, attr2, 32-bit project IDs, CRC, file types.
	xfs4Known2 = 0x2 | 0x8 | 0x80 | 0x100 | 0x200

	// xfsROKnown: free inode B-tree, reverse map, reflink, counts of inode B-trees.
	xfsROKnown = 0x1 | 0x2 | 0x4 | 0x8

	xfsMetaUUID    = 0x4
	xfsNeedsRepair = 0x10
	// xfsIncompatKnown: file types, sparse inodes, metadata UUID, big time, needs repair, 64-bit extent counts, exchange range,
	// parent pointers: none changes how free space is kept. Missing: metadata directory, zoned.
	xfsIncompatKnown = 0x1 | 0x2 | xfsMetaUUID | 0x8 | xfsNeedsRepair | 0x20 | 0x40 | 0x80

	xfsMaxLevels = 9 // of a B-tree (XFS_BTREE_MAXLEVELS)
)

// xfs is the geometry of one file system. Positions are in file-system blocks.
type xfs struct {
	v                         *volume
	sb                        []byte
	v5                        bool
	uuid                      []byte // as metadata has it (v5)
	blockLength, sectorLength int64  // bytes
	blocks, perGroup, groups  int64
	used                      []images.Extent // bytes; ascending
}

func probeXFS(v *volume) *Info {
	if string(v.head[:4]) != "XFSB" {
		return nil
	}
	return &Info{FS: "xfs", UUID: formatUUID(v.head[32:]), Label: text(v.head[108:120])}
}

// scanXFS maps by the B-trees of free space, one in each allocation group.
func scanXFS(v *volume) ([]images.Extent, error) {
	x, err := parseXFS(v)
	if err != nil {
		return nil, err
	}
	if err := x.checkLog(); err != nil {
		return nil, err
	}
	for g := range x.groups {
		if err := x.addGroup(g); err != nil {
			return nil, err
		}
	}
	end := x.blocks * x.blockLength
	return append(x.used, images.Extent{Offset: end, Length: v.length - end}), nil
}

// parseXFS reads and checks the superblock.
func parseXFS(v *volume) (*xfs, error) {
	sb := v.head
	x := &xfs{v: v, sb: sb, v5: sb[101]&0xf == 5, uuid: sb[32:48]}
	x.blockLength, x.sectorLength = int64(be.Uint32(sb[4:])), int64(be.Uint16(sb[102:]))
	x.perGroup, x.groups = int64(be.Uint32(sb[84:])), int64(be.Uint32(sb[88:]))
	blocks := be.Uint64(sb[8:])
	switch {
	case x.blockLength < 512 || x.blockLength > 64<<10 || x.blockLength != 1<<(sb[120]&31):
		return nil, unmapped("file-system blocks of %d bytes", x.blockLength)
	case x.sectorLength < 512 || x.sectorLength > 32<<10 || bits.OnesCount64(uint64(x.sectorLength)) != 1 || x.sectorLength > x.blockLength:
		return nil, unmapped("sectors of %d bytes", x.sectorLength)
	case blocks > uint64(v.length/x.blockLength):
		return nil, unmapped("it says that it has %d blocks of %d bytes, its partition has %d bytes", blocks, x.blockLength, v.length)
	}
	x.blocks = int64(blocks)
	if x.perGroup < 64 || x.groups < 1 || x.blocks <= (x.groups-1)*x.perGroup || x.blocks > x.groups*x.perGroup {
		return nil, unmapped("%d blocks in %d groups of %d", x.blocks, x.groups, x.perGroup)
	}
	if err := x.checkFeatures(); err != nil {
		return nil, err
	}
	return x, nil
}

// checkFeatures refuses what is not known or damaged, and does not map what lies on several devices.
func (x *xfs) checkFeatures() error {
	sb := x.sb
	version := be.Uint16(sb[100:])
	if version&0xf != 4 && !x.v5 {
		return unmapped("version %d", version&0xf)
	}
	if x.v5 {
		if !xfsSumRight(sb[:x.sectorLength], 224) {
			return unmapped("the checksum of its superblock is wrong; check it with xfs_repair")
		}
		ro, incompat := be.Uint32(sb[212:]), be.Uint32(sb[216:])
		if u := incompat &^ xfsIncompatKnown; u != 0 {
			return fmt.Errorf("%w: incompatible features %#x; capture it in full, or with a newer release", ErrUnknownFeature, u)
		}
		if u := ro &^ xfsROKnown; u != 0 {
			return fmt.Errorf("%w: read-only compatible features %#x; capture it in full, or with a newer release", ErrUnknownFeature, u)
		}
		if incompat&xfsNeedsRepair != 0 {
			return fmt.Errorf("%w: it is marked as in need of repair; run xfs_repair on it, then capture again", ErrDirty)
		}
		if incompat&xfsMetaUUID != 0 {
			x.uuid = sb[248:264]
		}
	} else if u, u2 := version&^xfs4Known, be.Uint32(sb[200:])&^xfs4Known2; u != 0 || u2 != 0 {
		return fmt.Errorf("%w: version bits %#x, %#x; capture it in full, or with a newer release", ErrUnknownFeature, u, u2)
	}
	switch {
	case sb[126] != 0:
		return unmapped("mkfs.xfs has not finished it")
	case be.Uint64(sb[48:]) == 0:
		return unmapped("its log is on another device: nothing here tells whether it is clean, and the system needs both")
	case be.Uint64(sb[16:]) != 0:
		return unmapped("it has a realtime device, which the system needs too")
	}
	return nil
}

// xfsSumRight compares the CRC-32C of b, which lies at offset at within and counts as zeros.
func xfsSumRight(b []byte, at int) bool {
	return xfsSum(b, at) == le.Uint32(b[at:])
}

func xfsSum(b []byte, at int) uint32 {
	c := crc32.Update(0, castagnoli, b[:at])
	c = crc32.Update(c, castagnoli, make([]byte, 4))
	return crc32.Update(c, castagnoli, b[at+4:])
}

// xfsGroup is the walk through the free space of one allocation group. Positions are blocks from its start.
type xfsGroup struct {
	*xfs
	number        int64
	start         int64 // of the group within the file system
	length        int64
	at            int64 // what lies before is in x.used or free
	free, longest int64
}

// addGroup enters what is in use in allocation group g.
func (x *xfs) addGroup(g int64) error {
	w := &xfsGroup{xfs: x, number: g, start: g * x.perGroup}
	w.length = min(x.perGroup, x.blocks-w.start)
	// Superblock, AGF, AGI and AGFL are a sector each.
	w.at = (4*x.sectorLength + x.blockLength - 1) / x.blockLength
	x.use(w.start, w.start+w.at)
	agf, err := x.v.read(w.start*x.blockLength+x.sectorLength, x.sectorLength)
	if err != nil {
		return err
	}
	switch {
	case string(agf[:4]) != "XAGF" || be.Uint32(agf[4:]) != 1 || int64(be.Uint32(agf[8:])) != g || int64(be.Uint32(agf[12:])) != w.length:
		return unmapped("group %d has no header of its own; check it with xfs_repair", g)
	case x.v5 && !bytes.Equal(agf[64:80], x.uuid):
		return unmapped("the header of group %d is of another file system; check it with xfs_repair", g)
	case x.v5 && !xfsSumRight(agf, 216):
		return unmapped("the checksum of the header of group %d is wrong; check it with xfs_repair", g)
	}
	root, levels := int64(be.Uint32(agf[16:])), be.Uint32(agf[28:])
	if levels < 1 || levels > xfsMaxLevels {
		return unmapped("group %d has a B-tree of %d levels", g, levels)
	}
	if err := w.descend(root, uint16(levels-1), true); err != nil {
		return err
	}
	x.use(w.start+w.at, w.start+w.length)
	if free, longest := int64(be.Uint32(agf[52:])), int64(be.Uint32(agf[56:])); free != w.free || longest != w.longest {
		return unmapped("group %d has %d free blocks, at most %d together, its header says %d and %d; check it with xfs_repair", g, w.free, w.longest, free, longest)
	}
	return nil
}

// use enters the blocks [from, to), which follow those entered before.
func (x *xfs) use(from, to int64) {
	x.used = images.AppendExtent(x.used, images.Extent{Offset: from * x.blockLength, Length: (to - from) * x.blockLength})
}

// descend enters what lies between the free ranges of a subtree. Since each leaf has to go on behind the last one, no
// loop and no shared leaf is followed for long.
func (w *xfsGroup) descend(at int64, level uint16, root bool) error {
	if at < 1 || at >= w.length {
		return unmapped("group %d has a B-tree in block %d of %d", w.number, at, w.length)
	}
	b, err := w.v.read((w.start+at)*w.blockLength, w.blockLength)
	if err != nil {
		return err
	}
	if err := w.checkBlock(b, at, level); err != nil {
		return err
	}
	header := int64(16)
	if w.v5 {
		header = 56
	}
	count, room := int64(be.Uint16(b[6:])), (w.blockLength-header)/8
	if level > 0 {
		room = (w.blockLength - header) / 12 // a key and a pointer
	}
	if count > room || count == 0 && (!root || level > 0) {
		return unmapped("block %d of group %d has %d records", at, w.number, count)
	}
	for i := range count {
		if level > 0 {
			if err := w.descend(int64(be.Uint32(b[header+room*8+i*4:])), level-1, false); err != nil {
				return err
			}
			continue
		}
		r := b[header+i*8:]
		if err := w.addFree(int64(be.Uint32(r)), int64(be.Uint32(r[4:]))); err != nil {
			return err
		}
	}
	return w.v.bounded(w.used)
}

// checkBlock checks that a block of the B-tree is what it has to be.
func (w *xfsGroup) checkBlock(b []byte, at int64, level uint16) error {
	magic := "ABTB"
	if w.v5 {
		magic = "AB3B"
	}
	if string(b[:4]) != magic || be.Uint16(b[4:]) != level {
		return unmapped("block %d of group %d is not level %d of its B-tree of free space; check it with xfs_repair", at, w.number, level)
	}
	if !w.v5 {
		return nil
	}
	sector := uint64((w.start + at) * (w.blockLength / 512))
	if be.Uint64(b[16:]) != sector || int64(be.Uint32(b[48:])) != w.number || !bytes.Equal(b[32:48], w.uuid) {
		return unmapped("block %d of group %d belongs elsewhere; check it with xfs_repair", at, w.number)
	}
	if !xfsSumRight(b, 52) {
		return unmapped("the checksum of block %d of group %d is wrong; check it with xfs_repair", at, w.number)
	}
	return nil
}

// addFree enters a free range of n blocks and what is in use before it.
func (w *xfsGroup) addFree(at, n int64) error {
	if at < w.at || n < 1 || n > w.length-at {
		return unmapped("blocks [%d, +%d) of group %d are called free; check it with xfs_repair", at, n, w.number)
	}
	w.use(w.start+w.at, w.start+at)
	w.at = at + n
	w.free += n
	w.longest = max(w.longest, n)
	return nil
}
