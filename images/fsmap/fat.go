package fsmap

import (
	"fmt"

	"seedbed/images"
)

// fat is the geometry of a FAT file system, in bytes. Names as in Microsoft's FAT specification (fatgen103).
type fat struct {
	name      string // "fat12", "fat16", "fat32"
	entryBits int64
	cluster   int64 // length of a cluster
	tables    int64 // offset of the first table
	table     int64 // length of one table
	data      int64 // offset of cluster 2
	clusters  int64
	total     int64 // length of the file system
	active    int64 // which table counts
	boot      []byte
}

// parseFAT reads the BIOS parameter block, or returns nil where there is none.
func parseFAT(v *volume) *fat {
	b := v.head[:512]
	if b[510] != 0x55 || b[511] != 0xAA || !(b[0] == 0xEB && b[2] == 0x90 || b[0] == 0xE9) {
		return nil
	}
	sector, perCluster := int64(le.Uint16(b[11:])), int64(b[13])
	reserved, tables, root := int64(le.Uint16(b[14:])), int64(b[16]), int64(le.Uint16(b[17:]))
	if sector < 512 || sector > 4096 || sector&(sector-1) != 0 || perCluster == 0 || perCluster&(perCluster-1) != 0 ||
		reserved == 0 || tables < 1 || tables > 2 || (b[21] != 0xF0 && b[21] < 0xF8) {
		return nil
	}
	total, table, is32 := int64(le.Uint16(b[19:])), int64(le.Uint16(b[22:])), false
	if total == 0 {
		total = int64(le.Uint32(b[32:]))
	}
	if table == 0 {
		table, is32 = int64(le.Uint32(b[36:])), true
	}
	data := reserved + tables*table + (root*32+sector-1)/sector
	f := &fat{
		cluster: perCluster * sector, tables: reserved * sector, table: table * sector, data: data * sector,
		clusters: (total - data) / perCluster, total: total * sector, boot: b,
	}
	switch {
	case table == 0 || total <= data || f.clusters < 1:
		return nil
	case is32:
		f.name, f.entryBits = "fat32", 32
		if flags := le.Uint16(b[40:]); flags&0x80 != 0 { // mirroring is off
			f.active = int64(flags & 15)
		}
	case f.clusters < 4085:
		f.name, f.entryBits = "fat12", 12
	default:
		f.name, f.entryBits = "fat16", 16
	}
	return f
}

func probeFAT(v *volume) *Info {
	f := parseFAT(v)
	if f == nil || isBitLockerToGo(v) {
		return nil
	}
	ext := f.boot[36:] // the extended boot record: signature, serial, label
	if f.entryBits == 32 {
		ext = f.boot[64:]
	}
	info := &Info{FS: f.name}
	if ext[2] == 0x28 || ext[2] == 0x29 {
		n := le.Uint32(ext[3:])
		info.UUID = fmt.Sprintf("%04X-%04X", n>>16, n&0xFFFF)
	}
	if ext[2] == 0x29 {
		if info.Label = text(ext[7:18]); info.Label == "NO NAME" {
			info.Label = ""
		}
	}
	return info
}

// scanFAT maps by the table that counts: an entry that is not 0 is a cluster in use, in a chain or bad.
func scanFAT(v *volume) ([]images.Extent, error) {
	f := parseFAT(v)
	switch {
	case f.total > v.length:
		return nil, unmapped("it says that it is %d bytes long, its partition has %d", f.total, v.length)
	case (f.clusters+2)*f.entryBits > f.table*8:
		return nil, unmapped("its table of %d bytes is too short for %d clusters", f.table, f.clusters)
	case f.entryBits == 16 && f.clusters >= 65525, f.clusters > 0x0FFFFFF5:
		return nil, unmapped("%d clusters are too many for %s", f.clusters, f.name)
	case f.active > 0 && f.active >= int64(f.boot[16]):
		return nil, unmapped("the active table is number %d of %d", f.active, f.boot[16])
	}
	list := []images.Extent{{Offset: 0, Length: f.data}}
	end := f.data + f.clusters*f.cluster
	list = append(list, images.Extent{Offset: end, Length: v.length - end})
	// A multiple of three bytes: FAT12 entries come in pairs of three bytes.
	const chunk = 3 << 18
	tableAt, length := f.tables+f.active*f.table, ((f.clusters+2)*f.entryBits+7)/8
	cluster := int64(-2)
	var run images.Extent
	for at := int64(0); at < length; at += chunk {
		b, err := v.read(tableAt+at, min(chunk, length-at))
		if err == nil {
			err = v.bounded(list)
		}
		if err != nil {
			return nil, err
		}
		if at == 0 && f.isDirty(b) {
			return nil, fmt.Errorf("%w: it was not unmounted; check it with fsck.fat (chkdsk /f on Windows), unmount it, and capture again", ErrDirty)
		}
		for i := int64(0); i < int64(len(b))*8/f.entryBits && cluster < f.clusters; i, cluster = i+1, cluster+1 {
			if cluster < 0 || f.entry(b, i) == 0 {
				continue
			}
			e := images.Extent{Offset: f.data + cluster*f.cluster, Length: f.cluster}
			if run.End() == e.Offset {
				run.Length += e.Length
				continue
			}
			list, run = append(list, run), e
		}
	}
	return append(list, run), nil
}

// entry returns entry i of a piece of the table.
func (f *fat) entry(b []byte, i int64) uint32 {
	switch f.entryBits {
	case 32:
		return le.Uint32(b[i*4:]) & 0x0FFFFFFF
	case 16:
		return uint32(le.Uint16(b[i*2:]))
	}
	n := le.Uint16(b[i+i/2:])
	if i%2 == 1 {
		return uint32(n >> 4)
	}
	return uint32(n & 0xFFF)
}

// isDirty looks where Windows (entry 1: fatgen103, "FAT volume initialization") and Linux (the boot sector) note it.
func (f *fat) isDirty(table []byte) bool {
	switch f.entryBits {
	case 32:
		return le.Uint32(table[4:])&0x08000000 == 0 || f.boot[0x41]&1 != 0
	case 16:
		return le.Uint16(table[2:])&0x8000 == 0 || f.boot[0x25]&1 != 0
	}
	return f.boot[0x25]&1 != 0
}
