package fsmap

import (
	"sort"

	"seedbed/images"
)

const (
	// maxAttributeList is the longest list of attributes, in bytes (Windows: 256 KiB).
	maxAttributeList = 256 << 10
	// maxNTFSRuns bounds the parts of one file, which a list of that length can name about 2.4 million of.
	maxNTFSRuns = 4 << 20
)

// ntfsRun is a part of a stream. Positions are in clusters: vcn counts in the stream, lcn in the file system.
type ntfsRun struct{ vcn, lcn, length int64 } // lcn < 0: not allocated, reads as zeros

// ntfsStream is the content of an attribute.
type ntfsStream struct {
	n           *ntfs
	found       bool
	flags       uint16
	resident    []byte // its bytes, if they lie in the record; else nil
	size        int64  // bytes
	initialized int64  // bytes; those behind read as zeros
	runs        []ntfsRun
	next        int64 // the first VCN behind runs
}

// load finds all parts of an attribute, also those in other records.
func (s *ntfsStream) load(r *ntfsRecord, kind uint32, name string) error {
	list := &ntfsStream{n: s.n}
	if err := list.addAll(r, ntfsAttributeList, ""); err != nil {
		return err
	}
	if !list.found {
		return s.addAll(r, kind, name)
	}
	if list.size > maxAttributeList {
		return unmapped("record %d of its master file table has a list of attributes of %d bytes", r.number, list.size)
	}
	b, err := list.read(0, list.size)
	if err != nil {
		return err
	}
	for len(b) >= 26 {
		length, nameAt, nameLength := int(le.Uint16(b[4:])), int(b[7]), 2*int(b[6])
		if length < 24 || length > len(b) || nameAt+nameLength > length {
			return unmapped("record %d of its master file table has a damaged list of attributes", r.number)
		}
		if le.Uint32(b) == kind && string(b[nameAt:nameAt+nameLength]) == name {
			if err := s.addListed(r, kind, name, int64(le.Uint64(b[8:])), le.Uint64(b[16:])); err != nil {
				return err
			}
		}
		b = b[length:]
	}
	return s.check()
}

// addListed enters the part that an entry in r's list of attributes names.
func (s *ntfsStream) addListed(r *ntfsRecord, kind uint32, name string, lowest int64, reference uint64) error {
	part := r
	if int64(reference&(1<<48-1)) != r.number {
		var err error
		if part, err = s.n.readReference(reference); err != nil {
			return err
		}
		if base := int64(le.Uint64(part.b[0x20:]) & (1<<48 - 1)); base != r.number {
			return unmapped("record %d of its master file table belongs to record %d, not %d", part.number, base, r.number)
		}
	}
	for _, a := range part.attributes {
		if a.kind == kind && a.name == name && a.lowest == lowest {
			return s.add(a)
		}
	}
	return unmapped("record %d of its master file table lacks a part of record %d", part.number, r.number)
}

// addAll enters the parts in the record itself.
func (s *ntfsStream) addAll(r *ntfsRecord, kind uint32, name string) error {
	for _, a := range r.attributes {
		if a.kind == kind && a.name == name {
			if err := s.add(a); err != nil {
				return err
			}
		}
	}
	return s.check()
}

// check compares the parts with the length.
func (s *ntfsStream) check() error {
	if s.found && s.resident == nil && s.next < (s.size+s.n.cluster-1)/s.n.cluster {
		return unmapped("a file of %d bytes has %d clusters; check it with chkdsk", s.size, s.next)
	}
	return nil
}

// add enters one part. Parts come in order.
func (s *ntfsStream) add(a ntfsAttribute) error {
	if a.resident {
		length, at := int64(le.Uint32(a.b[0x10:])), int64(le.Uint16(a.b[0x14:]))
		if s.found || at+length > int64(len(a.b)) {
			return unmapped("an attribute of %d bytes is outside its record", length)
		}
		s.found, s.flags, s.size, s.initialized = true, le.Uint16(a.b[12:]), length, length
		s.resident = append([]byte{}, a.b[at:at+length]...)
		return nil
	}
	if a.lowest != s.next || s.resident != nil || s.found != (a.lowest > 0) {
		return unmapped("a file has clusters from %d on where %d is next; check it with chkdsk", a.lowest, s.next)
	}
	if !s.found {
		s.found, s.flags = true, le.Uint16(a.b[12:])
		s.size, s.initialized = int64(le.Uint64(a.b[0x30:])), int64(le.Uint64(a.b[0x38:]))
		if s.size < 0 || s.initialized < 0 || s.initialized > s.size || s.size > int64(le.Uint64(a.b[0x28:])) {
			return unmapped("a file of %d bytes of which %d count", s.size, s.initialized)
		}
	}
	at := int64(le.Uint16(a.b[0x20:]))
	if at > int64(len(a.b)) {
		return unmapped("the clusters of a file are outside its record")
	}
	return s.addRuns(a.b[at:])
}

// addRuns decodes mapping pairs: length and distance from the run before, each with its own number of bytes.
func (s *ntfsStream) addRuns(b []byte) error {
	lcn := int64(0)
	for len(b) > 0 && b[0] != 0 {
		lengthBytes, lcnBytes := int(b[0]&15), int(b[0]>>4)
		if lengthBytes < 1 || lengthBytes > 8 || lcnBytes > 8 || len(b) < 1+lengthBytes+lcnBytes {
			return unmapped("the clusters of a file are not readable")
		}
		run := ntfsRun{vcn: s.next, lcn: -1, length: signed(b[1 : 1+lengthBytes])}
		if lcnBytes > 0 {
			lcn += signed(b[1+lengthBytes : 1+lengthBytes+lcnBytes])
			run.lcn = lcn
		}
		// A run that is not allocated may be longer than the file system; sums must fit.
		if run.length < 1 || run.length > 1<<60/s.n.cluster-s.next ||
			lcnBytes > 0 && (lcn < 0 || lcn >= s.n.clusters || run.length > s.n.clusters-lcn) {
			return unmapped("a file has %d clusters from cluster %d on, of %d", run.length, lcn, s.n.clusters)
		}
		if s.runs = append(s.runs, run); len(s.runs) > maxNTFSRuns {
			return unmapped("a file is in more than %d parts", maxNTFSRuns)
		}
		s.next += run.length
		b = b[1+lengthBytes+lcnBytes:]
	}
	return nil
}

// signed reads a little-endian number of 1 to 8 bytes.
func signed(b []byte) int64 {
	n := int64(int8(b[len(b)-1]))
	for i := len(b) - 2; i >= 0; i-- {
		n = n<<8 | int64(b[i])
	}
	return n
}

// read returns bytes [off, off+length) of the stream. Callers bound length.
func (s *ntfsStream) read(off, length int64) ([]byte, error) {
	if off < 0 || length < 0 || off > s.size-length {
		return nil, unmapped("bytes [%d, +%d) of a file of %d bytes", off, length, s.size)
	}
	if s.resident != nil {
		return append([]byte{}, s.resident[off:off+length]...), nil
	}
	out := make([]byte, length)
	i := sort.Search(len(s.runs), func(i int) bool { return s.runs[i].vcn+s.runs[i].length > off/s.n.cluster })
	for done := int64(0); done < length; i++ {
		if i == len(s.runs) {
			return nil, unmapped("a file of %d bytes has no cluster for byte %d", s.size, off+done)
		}
		run := s.runs[i]
		in := off + done - run.vcn*s.n.cluster
		k := min(run.length*s.n.cluster-in, length-done)
		if run.lcn >= 0 {
			b, err := s.n.v.read(run.lcn*s.n.cluster+in, k)
			if err != nil {
				return nil, err
			}
			copy(out[done:], b)
		}
		done += k
	}
	if s.initialized < off+length {
		clear(out[max(0, s.initialized-off):])
	}
	return out, nil
}

// extents returns where the stream lies on the partition, without its first skip clusters.
func (s *ntfsStream) extents(skip int64) []images.Extent {
	var list []images.Extent
	for _, r := range s.runs {
		cut := min(max(skip-r.vcn, 0), r.length)
		if r.lcn >= 0 && cut < r.length {
			list = append(list, images.Extent{Offset: (r.lcn + cut) * s.n.cluster, Length: (r.length - cut) * s.n.cluster})
		}
	}
	return list
}
