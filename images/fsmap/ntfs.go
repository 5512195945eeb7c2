package fsmap

import (
	"cmp"
	"fmt"
	"math/bits"
	"slices"
	"unicode/utf16"

	"seedbed/images"
)

// Numbers of the system files in the master file table.
const (
	ntfsMFT     = 0
	ntfsMFTMirr = 1
	ntfsLogFile = 2
	ntfsVolume  = 3
	ntfsRoot    = 5
	ntfsBitmap  = 6
	ntfsBoot    = 7
)

// ntfs is one file system. Names and positions are those of the headers of ntfs-3g (layout.h) and Linux (fs/ntfs3/ntfs.h).
type ntfs struct {
	v        *volume
	sector   int64 // bytes
	cluster  int64 // bytes
	clusters int64 // clusters that $Bitmap tells of
	total    int64 // bytes of the file system; the backup boot sector follows
	record   int64 // bytes of a record of the master file table
	mftLCN   int64 // first cluster of the master file table
	mft      *ntfsStream
}

// parseNTFS reads the boot sector.
func parseNTFS(v *volume) (*ntfs, error) {
	b := v.head[:512]
	n := &ntfs{v: v, sector: int64(le.Uint16(b[0x0b:])), mftLCN: int64(le.Uint64(b[0x30:]))}
	perCluster := int64(b[0x0d])
	if perCluster > 0x80 { // from 64 KiB on it may be the negative logarithm
		perCluster = 1 << min(256-perCluster, 30)
	}
	n.cluster = perCluster * n.sector
	sectors := int64(le.Uint64(b[0x28:]))
	n.record = ntfsLength(b[0x40], n.cluster)
	switch {
	case !isLength(n.sector, 256, 4096):
		return nil, unmapped("sectors of %d bytes", n.sector)
	case !isLength(n.cluster, n.sector, 2<<20):
		return nil, unmapped("clusters of %d bytes", n.cluster)
	case !isLength(n.record, 512, 64<<10):
		return nil, unmapped("records of %d bytes", n.record)
	case sectors < perCluster || sectors > v.length/n.sector:
		return nil, unmapped("it says that it has %d sectors of %d bytes, its partition has %d bytes", sectors, n.sector, v.length)
	}
	n.total, n.clusters = sectors*n.sector, sectors/perCluster
	if n.mftLCN <= 0 || n.mftLCN > n.clusters-(n.record+n.cluster-1)/n.cluster {
		return nil, unmapped("its master file table begins at cluster %d of %d", n.mftLCN, n.clusters)
	}
	return n, nil
}

// isLength reports whether n is a power of two in [least, most].
func isLength(n, least, most int64) bool {
	return n >= least && n <= most && n&(n-1) == 0
}

// ntfsLength reads a length that is given in clusters or, if negative, as a logarithm in bytes.
func ntfsLength(b byte, cluster int64) int64 {
	if n := int8(b); n <= 0 {
		return 1 << min(-int(n), 62)
	}
	return int64(b) * cluster
}

// openNTFS reads the boot sector and finds the whole master file table.
func openNTFS(v *volume) (*ntfs, error) {
	n, err := parseNTFS(v)
	if err != nil {
		return nil, err
	}
	b, err := v.read(n.mftLCN*n.cluster, n.record)
	if err != nil {
		return nil, err
	}
	r, err := n.parseRecord(ntfsMFT, b)
	if err != nil {
		return nil, err
	}
	// The rest of the table is found with what was found of it: n.mft grows while it is loaded.
	n.mft = &ntfsStream{n: n}
	if err := n.mft.load(r, ntfsData, ""); err != nil {
		return nil, err
	}
	if !n.mft.found || len(n.mft.runs) == 0 || n.mft.runs[0].lcn != n.mftLCN {
		return nil, unmapped("its master file table is not where its boot sector says")
	}
	return n, nil
}

func probeNTFS(v *volume) *Info {
	if string(v.head[3:11]) != "NTFS    " {
		return nil
	}
	info := &Info{FS: "ntfs", UUID: fmt.Sprintf("%016X", le.Uint64(v.head[0x48:]))} // volume serial number
	if n, err := openNTFS(v); err == nil {
		if s, err := n.open(ntfsVolume, ntfsVolumeName, ""); err == nil && len(s.resident) <= 512 {
			info.Label = ntfsText(s.resident)
		}
	}
	return info
}

// ntfsText decodes UTF-16.
func ntfsText(b []byte) string {
	u := make([]uint16, len(b)/2)
	for i := range u {
		u[i] = le.Uint16(b[2*i:])
	}
	return string(utf16.Decode(u))
}

// scanNTFS maps by $Bitmap.
func scanNTFS(v *volume) ([]images.Extent, error) {
	n, err := openNTFS(v)
	if err != nil {
		return nil, err
	}
	if err := n.checkClean(); err != nil {
		return nil, err
	}
	files, err := n.rootFiles("hiberfil.sys", "pagefile.sys", "swapfile.sys")
	if err != nil {
		return nil, err
	}
	if err := n.checkHibernated(files); err != nil {
		return nil, err
	}
	bitmap, err := n.open(ntfsBitmap, ntfsData, "")
	if err != nil {
		return nil, err
	}
	list, err := n.readBitmap(bitmap)
	if err != nil {
		return nil, err
	}
	used := normal(list, n.total, maxExtents)
	if !v.keep {
		if used, err = n.drop(used, files); err != nil {
			return nil, err
		}
	}
	if err := n.checkSystem(used); err != nil {
		return nil, err
	}
	// The backup boot sector is the first behind the file system's own sectors (Windows, ntfsprogs: mkntfs.c).
	end := n.clusters * n.cluster
	return append(used, images.Extent{Offset: end, Length: v.length - end}), nil
}

// bitmapPiece is how much of a bitmap is read at once, in bytes.
const bitmapPiece = 1 << 20

// readBitmap returns the clusters in use.
func (n *ntfs) readBitmap(bitmap *ntfsStream) ([]images.Extent, error) {
	length := (n.clusters + 7) / 8
	if bitmap.size < length || bitmap.initialized < length {
		return nil, unmapped("its bitmap of %d bytes is too short for %d clusters; check it with chkdsk", min(bitmap.size, bitmap.initialized), n.clusters)
	}
	m := &bitmapMap{unit: n.cluster, units: n.clusters}
	for at := int64(0); at < length; at += bitmapPiece {
		b, err := bitmap.read(at, min(bitmapPiece, length-at))
		if err != nil {
			return nil, err
		}
		m.add(b)
		if err := n.v.bounded(m.list); err != nil {
			return nil, err
		}
	}
	return m.list, nil
}

// bitmapMap turns a bitmap that comes in pieces into ranges. Bit 0 of byte 0 is the first unit.
type bitmapMap struct {
	unit  int64 // bytes a bit stands for
	units int64 // bits that count
	at    int64 // offset of the first unit, in bytes
	next  int64 // the next bit
	list  []images.Extent
}

// add takes the next piece.
func (m *bitmapMap) add(b []byte) {
	for _, c := range b {
		for i := 0; i < 8 && c>>i != 0; {
			i += bits.TrailingZeros8(c >> i)
			k := bits.TrailingZeros16(^uint16(c >> i))
			first, count := m.next+int64(i), int64(k)
			if count = min(count, m.units-first); count > 0 {
				m.list = images.AppendExtent(m.list, images.Extent{Offset: m.at + first*m.unit, Length: count * m.unit})
			}
			i += k
		}
		m.next += 8
	}
}

// checkSystem looks whether the file system's own files are in use, and were not dropped as part of another.
func (n *ntfs) checkSystem(used []images.Extent) error {
	for _, f := range []struct {
		number int64
		name   string
	}{{ntfsMFT, "$MFT"}, {ntfsMFTMirr, "$MFTMirr"}, {ntfsLogFile, "$LogFile"}, {ntfsBitmap, "$Bitmap"}, {ntfsBoot, "$Boot"}} {
		s, err := n.open(f.number, ntfsData, "")
		if err != nil {
			return err
		}
		for _, e := range s.extents(0) {
			if !contains(used, e) {
				return unmapped("clusters of %s are free by its bitmap, or another file's too; check it with chkdsk", f.name)
			}
		}
	}
	if !contains(used, images.Extent{Offset: 0, Length: n.sector}) {
		return unmapped("its bitmap calls its boot sector free; check it with chkdsk")
	}
	return nil
}

// contains reports whether one of the sorted ranges has all of e.
func contains(list []images.Extent, e images.Extent) bool {
	i, found := slices.BinarySearchFunc(list, e, func(a, b images.Extent) int { return cmp.Compare(a.Offset, b.Offset) })
	if !found {
		i--
	}
	return i >= 0 && list[i].Intersect(e) == e
}
