package fsmap

import (
	"fmt"

	"seedbed/images"
)

// Volume flags (exFAT specification §3.1.13).
const (
	exfatActiveFAT    = 1
	exfatDirty        = 2
	exfatMediaFailure = 4
)

// exfat is one file system. Names as in Microsoft's "exFAT file system specification"; § means its sections.
type exfat struct {
	v          *volume
	sector     int64 // bytes
	cluster    int64 // bytes
	clusters   int64 // clusters in the heap; the first has number 2
	heap       int64 // offset of cluster 2, in bytes
	fat        int64 // offset of the table that counts, in bytes
	root       int64 // first cluster of the root directory
	second     bool  // the second table and bitmap count (TexFAT)
	flags      uint16
	window     []byte // a piece of the table
	windowAt   int64  // its offset in the table, in bytes
	windowRead bool
}

func probeExFAT(v *volume) *Info {
	if string(v.head[3:11]) != "EXFAT   " {
		return nil
	}
	id := le.Uint32(v.head[100:])
	info := &Info{FS: "exfat", UUID: fmt.Sprintf("%04X-%04X", id>>16, id&0xFFFF)}
	x, err := parseExFAT(v)
	if err != nil {
		return info
	}
	// The loop ends at the label; what is damaged has none.
	_ = x.walkRoot(func(e []byte) bool {
		if e[0] == 0x83 {
			info.Label = ntfsText(e[2 : 2+2*min(int(e[1]), 11)])
		}
		return e[0] != 0x83
	})
	return info
}

// parseExFAT reads the boot sector (§3.1).
func parseExFAT(v *volume) (*exfat, error) {
	b := v.head[:512]
	sectorShift, clusterShift := b[108], b[109]
	if sectorShift < 9 || sectorShift > 12 || clusterShift > 25-sectorShift {
		return nil, unmapped("sectors of 2^%d bytes, clusters of 2^%d sectors", sectorShift, clusterShift)
	}
	x := &exfat{
		v: v, sector: 1 << sectorShift, cluster: 1 << (sectorShift + clusterShift),
		clusters: int64(le.Uint32(b[92:])), root: int64(le.Uint32(b[96:])), flags: le.Uint16(b[106:]),
	}
	x.heap = int64(le.Uint32(b[88:])) * x.sector
	fatLength, tables := int64(le.Uint32(b[84:]))*x.sector, int64(b[110])
	x.fat = int64(le.Uint32(b[80:])) * x.sector
	sectors := le.Uint64(b[72:])
	switch {
	case tables < 1 || tables > 2:
		return nil, unmapped("%d tables", tables)
	case sectors > uint64(v.length/x.sector):
		return nil, unmapped("it says that it has %d sectors of %d bytes, its partition has %d bytes", sectors, x.sector, v.length)
	case x.fat < 24*x.sector || fatLength < (x.clusters+2)*4 || x.heap < x.fat+tables*fatLength:
		return nil, unmapped("its tables of %d bytes at %d do not fit %d clusters from byte %d on", fatLength, x.fat, x.clusters, x.heap)
	case x.clusters < 1 || x.heap > int64(sectors)*x.sector || x.clusters > (int64(sectors)*x.sector-x.heap)/x.cluster:
		return nil, unmapped("it has no room for %d clusters of %d bytes", x.clusters, x.cluster)
	case !x.isCluster(x.root):
		return nil, unmapped("its root directory begins at cluster %d of %d", x.root, x.clusters)
	}
	if x.second = tables == 2 && x.flags&exfatActiveFAT != 0; x.second {
		x.fat += fatLength
	}
	return x, nil
}

func (x *exfat) isCluster(c int64) bool { return c >= 2 && c < x.clusters+2 }

// offset returns where a cluster begins, in bytes.
func (x *exfat) offset(c int64) int64 { return x.heap + (c-2)*x.cluster }

// checkBoot refuses what is not clean or not known and checks the checksum of the boot region (§3.4).
func (x *exfat) checkBoot() error {
	const remedy = "check it with fsck.exfat (chkdsk /f on Windows), unmount it, and capture again"
	if minor, major := x.v.head[104], x.v.head[105]; major != 1 {
		return fmt.Errorf("%w: version %d.%d; capture it in full, or with a newer release", ErrUnknownFeature, major, minor)
	}
	b, err := x.v.read(0, 12*x.sector)
	if err != nil {
		return err
	}
	sum := uint32(0)
	for i, c := range b[:11*x.sector] {
		if i != 106 && i != 107 && i != 112 { // VolumeFlags, PercentInUse
			sum = sum<<31 | sum>>1
			sum += uint32(c)
		}
	}
	for at := 11 * x.sector; at < 12*x.sector; at += 4 {
		if le.Uint32(b[at:]) != sum {
			return unmapped("the checksum of its boot region is wrong; check it with fsck.exfat")
		}
	}
	if x.flags&exfatDirty != 0 {
		return fmt.Errorf("%w: it was not unmounted; %s", ErrDirty, remedy)
	}
	return nil
}

// next returns the cluster behind c in its chain, 0 at the end.
func (x *exfat) next(c int64) (int64, error) {
	const window = 4 << 10 // chains of directories are short or near together
	at := c * 4
	if !x.windowRead || at < x.windowAt || at >= x.windowAt+int64(len(x.window)) {
		x.windowAt = at &^ (window - 1)
		b, err := x.v.read(x.fat+x.windowAt, min(window, (x.clusters+2)*4-x.windowAt))
		if err != nil {
			return 0, err
		}
		x.window, x.windowRead = b, true
	}
	n := int64(le.Uint32(x.window[at-x.windowAt:]))
	if n == 0xFFFFFFFF {
		return 0, nil
	}
	if !x.isCluster(n) {
		return 0, unmapped("cluster %d is followed by %#x; check it with fsck.exfat", c, n)
	}
	return n, nil
}

// chain returns where the first length bytes lie of a chain that begins at cluster c. length < 0: all of it, of which there
// must be no more than most bytes.
func (x *exfat) chain(c, length, most int64) ([]images.Extent, error) {
	var list []images.Extent
	count, limit := (length+x.cluster-1)/x.cluster, min(x.clusters, (most+x.cluster-1)/x.cluster)
	if count > limit {
		return nil, unmapped("a chain of %d bytes where there are at most %d", length, limit*x.cluster)
	}
	for k := int64(1); ; k++ {
		if !x.isCluster(c) || k > limit {
			return nil, unmapped("a chain ends or goes round at cluster %d; check it with fsck.exfat", c)
		}
		e := images.Extent{Offset: x.offset(c), Length: x.cluster}
		if n := len(list); n > 0 && list[n-1].End() == e.Offset {
			list[n-1].Length += e.Length
		} else {
			list = append(list, e)
		}
		if length >= 0 && k >= count {
			return list, nil
		}
		var err error
		if c, err = x.next(c); err != nil {
			return nil, err
		}
		if c == 0 && length < 0 {
			return list, nil
		}
	}
}

// maxExFATDirectory is the longest directory in bytes (§7.6.7: 256 MiB).
const maxExFATDirectory = 256 << 20

// walkRoot calls yield with each entry of the root directory up to its end, or until yield returns false.
func (x *exfat) walkRoot(yield func([]byte) bool) error {
	c := x.root
	for read := int64(0); c != 0; read += x.cluster {
		if read >= maxExFATDirectory || read > x.clusters*x.cluster {
			return unmapped("its root directory goes round; check it with fsck.exfat")
		}
		const piece = 64 << 10
		for at := int64(0); at < x.cluster; at += piece {
			b, err := x.v.read(x.offset(c)+at, min(piece, x.cluster-at))
			if err != nil {
				return err
			}
			for ; len(b) >= 32; b = b[32:] {
				if b[0] == 0 || !yield(b[:32]) {
					return nil
				}
			}
		}
		var err error
		if c, err = x.next(c); err != nil {
			return err
		}
	}
	return nil
}
