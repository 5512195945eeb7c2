package fsmap

// Types of attributes.
const (
	ntfsAttributeList   = 0x20
	ntfsVolumeName      = 0x60
	ntfsVolumeInfo      = 0x70
	ntfsData            = 0x80
	ntfsIndexRoot       = 0x90
	ntfsIndexAllocation = 0xA0
	ntfsAttributeEnd    = 0xFFFFFFFF
)

// Flags of attributes.
const (
	ntfsCompressed = 0x00FF
	ntfsEncrypted  = 0x4000
	ntfsSparse     = 0x8000
)

// ntfsRecord is a record of the master file table, its sectors made whole.
type ntfsRecord struct {
	number     int64
	b          []byte
	attributes []ntfsAttribute
}

// ntfsAttribute is one attribute, or a part of one, inside a record.
type ntfsAttribute struct {
	kind     uint32
	name     string
	resident bool
	lowest   int64 // first VCN; 0 if resident
	b        []byte
}

// fixUp puts the last two bytes of each 512 bytes back in place, which hold a sequence number on the disk; it reports
// whether all of them were written together.
func fixUp(b []byte) bool {
	at, count := int(le.Uint16(b[4:])), int(le.Uint16(b[6:]))
	if count < 2 || count-1 != len(b)/512 || at%2 != 0 || at < 8 || at+2*count > 510 {
		return false
	}
	for i := 1; i < count; i++ {
		end := b[i*512-2 : i*512]
		if end[0] != b[at] || end[1] != b[at+1] {
			return false
		}
		copy(end, b[at+2*i:at+2*i+2])
	}
	return true
}

// parseRecord checks a record and lists its attributes. It keeps b.
func (n *ntfs) parseRecord(number int64, b []byte) (*ntfsRecord, error) {
	if string(b[:4]) != "FILE" || !fixUp(b) {
		return nil, unmapped("record %d of its master file table is damaged; check it with chkdsk", number)
	}
	r := &ntfsRecord{number: number, b: b}
	at, end := int64(le.Uint16(b[0x14:])), int64(le.Uint32(b[0x18:]))
	if le.Uint16(b[0x16:])&1 == 0 {
		return nil, unmapped("record %d of its master file table is not in use", number)
	}
	if end > n.record || at < 0x28 || at%8 != 0 {
		return nil, unmapped("record %d of its master file table has attributes in bytes [%d, %d)", number, at, end)
	}
	for at+4 <= end && le.Uint32(b[at:]) != ntfsAttributeEnd {
		if end-at < 24 {
			return nil, unmapped("record %d of its master file table ends within an attribute", number)
		}
		length := int64(le.Uint32(b[at+4:]))
		if length < 24 || length%8 != 0 || length > end-at {
			return nil, unmapped("record %d of its master file table has an attribute of %d bytes at byte %d", number, length, at)
		}
		a := ntfsAttribute{kind: le.Uint32(b[at:]), resident: b[at+8] == 0, b: b[at : at+length]}
		nameAt, nameLength := int64(le.Uint16(a.b[10:])), 2*int64(a.b[9])
		if nameAt+nameLength > length {
			return nil, unmapped("record %d of its master file table has a name outside its attribute at byte %d", number, at)
		}
		a.name = string(a.b[nameAt : nameAt+nameLength])
		if !a.resident {
			if length < 0x40 {
				return nil, unmapped("record %d of its master file table has an attribute of %d bytes at byte %d", number, length, at)
			}
			a.lowest = int64(le.Uint64(a.b[0x10:]))
		}
		r.attributes = append(r.attributes, a)
		at += length
	}
	return r, nil
}

// readRecord reads a record through the master file table.
func (n *ntfs) readRecord(number int64) (*ntfsRecord, error) {
	if number < 0 || number >= n.mft.size/n.record {
		return nil, unmapped("record %d is outside its master file table", number)
	}
	b, err := n.mft.read(number*n.record, n.record)
	if err != nil {
		return nil, err
	}
	return n.parseRecord(number, b)
}

// readReference reads the record that a reference means: its number in the low 48 bits, above them how often it was used.
func (n *ntfs) readReference(reference uint64) (*ntfsRecord, error) {
	r, err := n.readRecord(int64(reference & (1<<48 - 1)))
	if err == nil && reference>>48 != 0 && le.Uint16(r.b[0x10:]) != uint16(reference>>48) {
		return nil, unmapped("a reference to record %d of its master file table is stale; check it with chkdsk", r.number)
	}
	return r, err
}

// open finds an attribute of a system file. One that is missing cannot be mapped.
func (n *ntfs) open(number int64, kind uint32, name string) (*ntfsStream, error) {
	r, err := n.readRecord(number)
	if err != nil {
		return nil, err
	}
	s := &ntfsStream{n: n}
	if err := s.load(r, kind, name); err != nil {
		return nil, err
	}
	switch {
	case !s.found:
		return nil, unmapped("record %d of its master file table has no attribute %#x", number, kind)
	case s.resident == nil && s.flags&(ntfsCompressed|ntfsEncrypted) != 0: // on a directory's resident root: of files made later
		return nil, unmapped("record %d of its master file table is compressed or encrypted", number)
	}
	return s, nil
}
