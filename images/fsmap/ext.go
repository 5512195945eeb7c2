package fsmap

import (
	"fmt"
	"hash/crc32"
	"math/bits"

	"seedbed/images"
)

// Feature bits of ext2, ext3 and ext4 (Linux, Documentation/filesystems/ext4/super.rst).
const (
	compatHasJournal   = 0x4
	compatSparseSuper2 = 0x200

	incompatRecover  = 0x4
	incompatMetaBG   = 0x10
	incompatExtents  = 0x40
	incompat64Bit    = 0x80
	incompatFlexBG   = 0x200
	incompatCsumSeed = 0x2000
	// incompatKnown: file type, recover, meta_bg, extents, 64bit, MMP, flex_bg, ea_inode, csum_seed, large_dir,
	// inline_data, encrypt, casefold. Missing: compression, journal device, dirdata.
	incompatKnown = 0x2 | incompatRecover | incompatMetaBG | incompatExtents | incompat64Bit | 0x100 | incompatFlexBG |
		0x400 | incompatCsumSeed | 0x4000 | 0x8000 | 0x10000 | 0x20000

	roSparseSuper = 0x1
	roGDTCsum     = 0x10
	roBigalloc    = 0x200
	roMetaCsum    = 0x400
	// roKnown: the above, large_file, btree_dir, huge_file, dir_nlink, extra_isize, quota, read-only, project, verity,
	// orphan file in use. Missing: snapshots, replicas, shared blocks.
	roKnown = roSparseSuper | 0x2 | 0x4 | 0x8 | roGDTCsum | 0x20 | 0x40 | 0x100 | roBigalloc | roMetaCsum | 0x1000 |
		0x2000 | 0x8000 | 0x10000

	groupBlockUninit = 0x2 // bg_flags: the block bitmap was never written
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// extCRC continues a checksum as ext4 does: without the usual inversion at either end.
func extCRC(seed uint32, b []byte) uint32 { return ^crc32.Update(^seed, castagnoli, b) }

// ext is the geometry of one file system. Positions are in file-system blocks.
type ext struct {
	v                        *volume
	sb                       []byte
	compat, incompat, ro     uint32
	blockLength              int64 // bytes
	blocks, first            int64 // number of blocks; the first one of group 0
	perGroup, cluster        int64 // blocks per group, blocks per cluster
	groups                   int64
	inodeTable               int64 // blocks of inode table in a group
	descLength, descPerBlock int64
	firstMeta                int64 // the first descriptor block that lies by meta_bg's rule
	reservedGDT              int64
	seed                     uint32 // of checksums
}

func probeExt(v *volume) *Info {
	sb := v.head[1024:2048]
	if le.Uint16(sb[0x38:]) != 0xEF53 || le.Uint32(sb[0x18:]) > 6 || le.Uint32(sb[4:]) == 0 {
		return nil
	}
	compat, incompat, ro := extFeatures(sb)
	name := "ext2"
	switch {
	case incompat&(incompatExtents|incompat64Bit|incompatFlexBG) != 0 || ro&(0x8|roGDTCsum|0x20|0x40|roBigalloc|roMetaCsum) != 0:
		name = "ext4"
	case compat&compatHasJournal != 0:
		name = "ext3"
	}
	return &Info{FS: name, UUID: formatUUID(sb[0x68:]), Label: text(sb[0x78:0x88])}
}

// extFeatures returns the feature words, which revision 0 does not have.
func extFeatures(sb []byte) (compat, incompat, ro uint32) {
	if le.Uint32(sb[0x4c:]) == 0 {
		return 0, 0, 0
	}
	return le.Uint32(sb[0x5c:]), le.Uint32(sb[0x60:]), le.Uint32(sb[0x64:])
}

// scanExt maps by the block bitmaps.
func scanExt(v *volume) ([]images.Extent, error) {
	x, err := parseExt(v)
	if err != nil {
		return nil, err
	}
	desc, err := x.descriptors()
	if err != nil {
		return nil, err
	}
	m := &extMap{ext: x, list: []images.Extent{{Offset: 0, Length: max(x.first, 1) * x.blockLength}}}
	for g := range x.groups {
		if err := m.addGroup(g, desc[g*x.descLength:][:x.descLength]); err != nil {
			return nil, err
		}
	}
	end := x.blocks * x.blockLength
	inside := normal(m.list, end, maxExtents)
	free := x.blocks - images.TotalLength(inside)/x.blockLength
	stated := int64(le.Uint32(x.sb[0xc:]))
	if x.incompat&incompat64Bit != 0 {
		stated |= int64(le.Uint32(x.sb[0x158:])) << 32
	}
	if len(inside) < maxExtents && free != stated {
		return nil, unmapped("its bitmaps have %d free blocks, its superblock says %d; check it with e2fsck -f", free, stated)
	}
	return append(inside, images.Extent{Offset: end, Length: v.length - end}), nil
}

// maxDescriptors bounds the group descriptors in bytes. 16 TiB in blocks of 4 KiB have 8 MiB of them, of 1 KiB 128 MiB.
const maxDescriptors = 256 << 20

// parseExt reads and checks the superblock.
func parseExt(v *volume) (*ext, error) {
	sb := v.head[1024:2048]
	x := &ext{v: v, sb: sb, cluster: 1, descLength: 32}
	x.compat, x.incompat, x.ro = extFeatures(sb)
	if err := x.checkFeatures(); err != nil {
		return nil, err
	}
	logBlock, logCluster := le.Uint32(sb[0x18:]), le.Uint32(sb[0x1c:])
	x.blockLength = 1024 << logBlock
	x.first, x.blocks = int64(le.Uint32(sb[0x14:])), int64(le.Uint32(sb[4:]))
	x.perGroup = int64(le.Uint32(sb[0x20:]))
	if x.incompat&incompat64Bit != 0 {
		x.blocks |= int64(le.Uint32(sb[0x150:])) << 32
		x.descLength = int64(le.Uint16(sb[0xfe:]))
	}
	if x.ro&roBigalloc != 0 {
		if logCluster < logBlock || logCluster > 20 {
			return nil, unmapped("clusters of 2^%d KiB for blocks of 2^%d KiB", logCluster, logBlock)
		}
		x.cluster = 1 << (logCluster - logBlock)
	}
	inodes, inodeLength := int64(le.Uint32(sb[0x28:])), int64(128)
	if le.Uint32(sb[0x4c:]) > 0 {
		inodeLength = int64(le.Uint16(sb[0x58:]))
	}
	switch {
	case x.first > 1 || x.blocks <= x.first || x.blocks > v.length/x.blockLength:
		return nil, unmapped("it says that it has %d blocks of %d bytes, its partition has %d bytes", x.blocks, x.blockLength, v.length)
	case x.perGroup < 8 || x.perGroup%(8*x.cluster) != 0 || x.perGroup/x.cluster > 8*x.blockLength:
		return nil, unmapped("%d blocks per group", x.perGroup)
	case x.descLength < 32 || x.descLength > 1024 || x.descLength&(x.descLength-1) != 0 || (x.incompat&incompat64Bit != 0 && x.descLength < 64):
		return nil, unmapped("group descriptors of %d bytes", x.descLength)
	case (x.blocks-x.first)/x.perGroup > maxDescriptors/x.descLength:
		return nil, unmapped("%d blocks in groups of %d", x.blocks, x.perGroup)
	case inodes < 1 || inodes > 8*x.blockLength || inodeLength < 128 || inodeLength > x.blockLength:
		return nil, unmapped("%d inodes of %d bytes per group", inodes, inodeLength)
	}
	x.groups = (x.blocks - x.first + x.perGroup - 1) / x.perGroup
	x.inodeTable = (inodes*inodeLength + x.blockLength - 1) / x.blockLength
	x.descPerBlock = x.blockLength / x.descLength
	x.firstMeta, x.reservedGDT = int64(le.Uint32(sb[0x104:])), int64(le.Uint16(sb[0xce:]))
	x.seed = extCRC(^uint32(0), sb[0x68:0x78])
	if x.incompat&incompatCsumSeed != 0 {
		x.seed = le.Uint32(sb[0x270:])
	}
	return x, nil
}

// checkFeatures refuses what is dirty and what is not known.
func (x *ext) checkFeatures() error {
	sb := x.sb
	if le.Uint32(sb[0x4c:]) > 1 {
		return unmapped("revision %d", le.Uint32(sb[0x4c:]))
	}
	if u := x.incompat &^ incompatKnown; u != 0 {
		return fmt.Errorf("%w: incompatible features %#x; capture it in full, or with a newer release", ErrUnknownFeature, u)
	}
	if u := x.ro &^ roKnown; u != 0 {
		return fmt.Errorf("%w: read-only compatible features %#x; capture it in full, or with a newer release", ErrUnknownFeature, u)
	}
	if x.ro&roMetaCsum != 0 && (sb[0x175] != 1 || extCRC(^uint32(0), sb[:0x3fc]) != le.Uint32(sb[0x3fc:])) {
		return unmapped("the checksum of its superblock is wrong")
	}
	const remedy = "shut the system down cleanly, or run e2fsck -f on it, then capture again"
	switch state := le.Uint16(sb[0x3a:]); {
	case x.incompat&incompatRecover != 0:
		return fmt.Errorf("%w: its journal has to be replayed; %s", ErrDirty, remedy)
	case state&1 == 0:
		return fmt.Errorf("%w: it was not unmounted; %s", ErrDirty, remedy)
	case state&2 != 0:
		return fmt.Errorf("%w: the kernel found errors in it; %s", ErrDirty, remedy)
	}
	return nil
}

// groupStart returns the first block of a group.
func (x *ext) groupStart(g int64) int64 { return x.first + g*x.perGroup }

// hasSuper reports whether a group has a copy of the superblock.
func (x *ext) hasSuper(g int64) bool {
	switch {
	case g == 0:
		return true
	case x.compat&compatSparseSuper2 != 0:
		return g == int64(le.Uint32(x.sb[0x24c:])) || g == int64(le.Uint32(x.sb[0x250:]))
	case g == 1 || x.ro&roSparseSuper == 0:
		return true
	}
	return isPower(g, 3) || isPower(g, 5) || isPower(g, 7)
}

func isPower(n, base int64) bool {
	for n > 1 && n%base == 0 {
		n /= base
	}
	return n == 1
}

// descriptorBlocks is how many blocks the descriptors of all groups take.
func (x *ext) descriptorBlocks() int64 { return (x.groups + x.descPerBlock - 1) / x.descPerBlock }

// byMeta reports whether descriptor block i lies by meta_bg's rule: in the groups that it describes.
func (x *ext) byMeta(i int64) bool { return x.incompat&incompatMetaBG != 0 && i >= x.firstMeta }

// descriptors reads the descriptors of all groups.
func (x *ext) descriptors() ([]byte, error) {
	var desc []byte
	for i := range x.descriptorBlocks() {
		at := 1024/x.blockLength + 1 + i // behind the superblock's block
		if x.byMeta(i) {
			at = x.groupStart(i * x.descPerBlock)
			if x.hasSuper(i * x.descPerBlock) {
				at++
			}
			if i == 0 && x.blockLength == 1024 && x.first == 0 {
				at++ // bigalloc with 1 KiB blocks: the superblock is block 1
			}
		}
		b, err := x.v.read(at*x.blockLength, x.blockLength)
		if err != nil {
			return nil, err
		}
		desc = append(desc, b...)
	}
	return desc, nil
}

// extMap collects what is in use.
type extMap struct {
	*ext
	list []images.Extent
}

// add enters n blocks from block b, rounded to whole clusters.
func (m *extMap) add(b, n int64) {
	start := (b-m.first)/m.cluster*m.cluster + m.first
	end := (b+n-m.first+m.cluster-1)/m.cluster*m.cluster + m.first
	e := images.Extent{Offset: start * m.blockLength, Length: (min(end, m.blocks) - start) * m.blockLength}
	if e.Length <= 0 {
		return
	}
	if k := len(m.list); k > 0 && m.list[k-1].End() == e.Offset {
		m.list[k-1].Length += e.Length
		return
	}
	m.list = append(m.list, e)
}

// addGroup enters one group by its descriptor.
func (m *extMap) addGroup(g int64, d []byte) error {
	pointer := func(lo, hi int) int64 {
		p := int64(le.Uint32(d[lo:]))
		if m.descLength >= 64 {
			p |= int64(le.Uint32(d[hi:])) << 32
		}
		return p
	}
	bitmap, inodeBitmap, table := pointer(0, 0x20), pointer(4, 0x24), pointer(8, 0x28)
	for _, p := range []struct{ at, n int64 }{{bitmap, 1}, {inodeBitmap, 1}, {table, m.inodeTable}} {
		if p.at < m.first || p.n > m.blocks || p.at > m.blocks-p.n {
			return unmapped("group %d refers to block %d of %d", g, p.at, m.blocks)
		}
	}
	start := m.groupStart(g)
	if m.ro&(roGDTCsum|roMetaCsum) != 0 && le.Uint16(d[0x12:])&groupBlockUninit != 0 {
		m.addUninit(g, start)
	} else {
		b, err := m.v.read(bitmap*m.blockLength, m.perGroup/m.cluster/8)
		if err != nil {
			return err
		}
		if err := m.checkBitmap(g, d, b); err != nil {
			return err
		}
		m.addBits(b, start, min(m.perGroup, m.blocks-start))
		if err := m.v.bounded(m.list); err != nil {
			return err
		}
	}
	// Always in use; where bitmaps were never written nothing else says so.
	m.add(bitmap, 1)
	m.add(inodeBitmap, 1)
	m.add(table, m.inodeTable)
	return nil
}

// checkBitmap compares the bitmap's checksum, where the file system keeps one.
func (m *extMap) checkBitmap(g int64, d, bitmap []byte) error {
	if m.ro&roMetaCsum == 0 {
		return nil
	}
	got, want := extCRC(m.seed, bitmap), uint32(le.Uint16(d[0x18:]))
	if m.descLength >= 64 {
		want |= uint32(le.Uint16(d[0x38:])) << 16
	} else {
		got &= 0xFFFF
	}
	if got != want {
		return unmapped("the checksum of the bitmap of group %d is wrong; check it with e2fsck -f", g)
	}
	return nil
}

// addBits enters the set bits of a bitmap, one per cluster, of a group that has n blocks from block start.
func (m *extMap) addBits(b []byte, start, n int64) {
	clusters := (n + m.cluster - 1) / m.cluster
	for i := int64(0); i < clusters; {
		if i%8 == 0 && b[i/8] == 0 {
			i += 8
			continue
		}
		if b[i/8]>>(i%8)&1 == 0 {
			i++
			continue
		}
		j := i + int64(bits.TrailingZeros8(^(b[i/8] >> (i % 8)))) // at most to the end of this byte
		for j%8 == 0 && j < clusters && b[j/8] == 0xFF {
			j += 8
		}
		j = min(j, clusters)
		m.add(start+i*m.cluster, (j-i)*m.cluster)
		i = j
	}
}

// addUninit enters what a group whose bitmap was never written has in use: its copies of superblock and descriptors.
func (m *extMap) addUninit(g, start int64) {
	next := start
	if m.hasSuper(g) {
		m.add(next, 1)
		next++
		n := m.descriptorBlocks()
		if m.incompat&incompatMetaBG != 0 {
			n = min(n, m.firstMeta)
		}
		if !m.byMeta(g / m.descPerBlock) {
			m.add(next, n+m.reservedGDT)
		}
	}
	if i := g % m.descPerBlock; m.byMeta(g/m.descPerBlock) && (i == 0 || i == 1 || i == m.descPerBlock-1) {
		m.add(next, 1)
	}
}
