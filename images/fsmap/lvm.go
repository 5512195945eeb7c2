package fsmap

import (
	"hash/crc32"
	"strings"

	"seedbed/images"
)

// Where LVM2 keeps what (LVM2, lib/format_text/layout.h, lib/label/label.h). Positions are in bytes.
const (
	lvmSector   = 512
	lvmAreaSize = 512 // header of a metadata area
	lvmMagic    = " LVM2 x[5A%r0N*>"
	lvmIgnored  = 1 // raw_locn flag: this area has no metadata
	// lvmMaxText bounds the metadata text; its areas are 1 MiB by default.
	lvmMaxText = 16 << 20
	// lvmMaxAreas bounds the areas of a label, which has room for some 28.
	lvmMaxAreas = 32
)

// lvmSum is the checksum of LVM2: CRC-32 with a start of its own and without the usual inversion at either end.
func lvmSum(b []byte) uint32 { return ^crc32.Update(^uint32(0xf597a6cf), crc32.IEEETable, b) }

// findLVMLabel returns the first physical volume's label in the first four sectors, or nil.
func findLVMLabel(head []byte) []byte {
	for i := range 4 {
		if b := head[i*lvmSector:]; string(b[:8]) == "LABELONE" && string(b[24:32]) == "LVM2 001" {
			return b[:lvmSector]
		}
	}
	return nil
}

func probeLVM(v *volume) *Info {
	b := findLVMLabel(v.head)
	if b == nil {
		return nil
	}
	header := lvmHeader(b)
	if len(header) < 32 || strings.ContainsFunc(string(header[:32]), func(r rune) bool { return r < '!' || r > '~' }) {
		return &Info{FS: "lvm"}
	}
	id := string(header[:32])
	return &Info{FS: "lvm", UUID: strings.Join([]string{id[:6], id[6:10], id[10:14], id[14:18], id[18:22], id[22:26], id[26:]}, "-")}
}

// lvmHeader returns what a label says of its physical volume.
func lvmHeader(label []byte) []byte { return label[min(max(32, le.Uint32(label[20:])), lvmSector):] }

// scanLVM maps a volume group on one physical volume: what the file systems in its linear volumes use. Extents of no
// volume are not in use; the metadata and what follows the last extent are.
func scanLVM(v *volume) ([]images.Extent, error) {
	if _, within := v.r.(*lvmVolume); within {
		return nil, unmapped("it lies within a logical volume")
	}
	text, err := readLVMText(v)
	if err != nil {
		return nil, err
	}
	g, err := parseLVMGroup(v, text)
	if err != nil {
		return nil, err
	}
	list := []images.Extent{{Offset: 0, Length: g.start}, {Offset: g.end(), Length: v.length - g.end()}}
	for _, name := range g.order {
		part, err := g.scanVolume(name)
		if err != nil {
			return nil, err
		}
		list = append(list, part...)
		if err := v.bounded(list); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// readLVMText returns the newest metadata text of the physical volume.
func readLVMText(v *volume) (*lvmSection, error) {
	label := findLVMLabel(v.head)
	if lvmSum(label[20:]) != le.Uint32(label[16:]) {
		return nil, unmapped("the checksum of its label is wrong; check it with pvck")
	}
	header := lvmHeader(label)
	if len(header) < 40 {
		return nil, unmapped("its label is too short")
	}
	b := header[40:]
	next := func() (at, n uint64) {
		if len(b) < 16 {
			return 0, 0
		}
		at, n = le.Uint64(b), le.Uint64(b[8:])
		b = b[16:]
		return at, n
	}
	for range lvmMaxAreas { // areas of data: what they say is in the text too
		if at, _ := next(); at == 0 {
			break
		}
	}
	var newest *lvmSection
	sequence := int64(-1)
	var failed error
	for range lvmMaxAreas {
		at, n := next()
		if at == 0 {
			break
		}
		text, err := readLVMArea(v, at, n)
		if err != nil {
			failed = err
			continue
		}
		if text == nil {
			continue
		}
		for _, name := range text.order { // one volume group
			if k := text.sections[name].number("seqno"); k > sequence {
				newest, sequence = text, k
			}
		}
	}
	switch {
	case failed != nil: // the area that cannot be read may be the newer one
		return nil, failed
	case newest == nil:
		return nil, unmapped("it has no metadata of a volume group")
	}
	return newest, nil
}

// readLVMArea returns the text of the metadata area of n bytes at at; nil if it has none.
func readLVMArea(v *volume, at, n uint64) (*lvmSection, error) {
	if at > 1<<60 || n > 1<<60 {
		return nil, unmapped("it refers to a metadata area outside")
	}
	h, err := v.read(int64(at), lvmAreaSize)
	if err != nil {
		return nil, err
	}
	if string(h[4:20]) != lvmMagic || le.Uint32(h[20:]) != 1 || le.Uint64(h[24:]) != at || lvmSum(h[4:]) != le.Uint32(h) {
		return nil, unmapped("its metadata area at %d is damaged; check it with pvck", at)
	}
	off, length, flags := le.Uint64(h[40:]), le.Uint64(h[48:]), le.Uint32(h[60:])
	ring := le.Uint64(h[32:]) // bytes, with the header
	if off == 0 || length == 0 || flags&lvmIgnored != 0 {
		return nil, nil
	}
	if ring > n || ring <= lvmAreaSize || off < lvmAreaSize || off >= ring || length > ring-lvmAreaSize || length > lvmMaxText {
		return nil, unmapped("its metadata area at %d refers to %d bytes at %d of its %d; check it with pvck", at, length, off, ring)
	}
	first := min(length, ring-off)
	b, err := v.read(int64(at+off), int64(first))
	if err != nil {
		return nil, err
	}
	if first < length { // the rest is at the start of the ring
		rest, err := v.read(int64(at+lvmAreaSize), int64(length-first))
		if err != nil {
			return nil, err
		}
		b = append(b, rest...)
	}
	if lvmSum(b) != le.Uint32(h[56:]) {
		return nil, unmapped("the checksum of its metadata at %d is wrong; check it with pvck", at)
	}
	return parseLVMText(string(b))
}
