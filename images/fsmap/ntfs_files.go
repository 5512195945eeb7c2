package fsmap

import (
	"math"
	"slices"

	"seedbed/images"
)

// ntfsFile is a file in the root directory.
type ntfsFile struct {
	name   string // lower case
	record *ntfsRecord
}

// maxNTFSIndex bounds what is read of the root directory, in bytes: two million names.
const maxNTFSIndex = 512 << 20

// rootFiles returns the files in the root directory that have one of the names, which are lower case and ASCII.
func (n *ntfs) rootFiles(names ...string) ([]ntfsFile, error) {
	w := &ntfsIndex{n: n, names: names, seen: map[int64]bool{}}
	root, err := n.open(ntfsRoot, ntfsIndexRoot, ntfsI30)
	if err != nil {
		return nil, err
	}
	if len(root.resident) < 32 || le.Uint32(root.resident) != 0x30 {
		return nil, unmapped("its root directory is no index of names")
	}
	w.length = int64(le.Uint32(root.resident[8:]))
	if !isLength(w.length, 512, 64<<10) {
		return nil, unmapped("its root directory has index records of %d bytes", w.length)
	}
	if err := w.node(root.resident[16:]); err != nil {
		return nil, err
	}
	for len(w.open) > 0 {
		vcn := w.open[len(w.open)-1]
		w.open = w.open[:len(w.open)-1]
		b, err := w.read(vcn)
		if err != nil {
			return nil, err
		}
		if err := w.node(b[24:]); err != nil {
			return nil, err
		}
	}
	return w.files, nil
}

const ntfsI30 = "$\x00I\x003\x000\x00" // the name of the index of names, UTF-16

// ntfsIndex is a walk through the tree of a directory, which reads each record once.
type ntfsIndex struct {
	n          *ntfs
	names      []string
	length     int64 // bytes of an index record
	allocation *ntfsStream
	seen       map[int64]bool
	open       []int64 // VCNs of records to read
	files      []ntfsFile
}

// read returns an index record.
func (w *ntfsIndex) read(vcn int64) ([]byte, error) {
	if w.allocation == nil {
		var err error
		if w.allocation, err = w.n.open(ntfsRoot, ntfsIndexAllocation, ntfsI30); err != nil {
			return nil, err
		}
	}
	unit := w.n.cluster
	if unit > w.length {
		unit = 512
	}
	if w.seen[vcn] || int64(len(w.seen)) >= maxNTFSIndex/w.length || vcn < 0 || vcn > w.allocation.size/unit {
		return nil, unmapped("its root directory is damaged; check it with chkdsk")
	}
	w.seen[vcn] = true
	b, err := w.allocation.read(vcn*unit, w.length)
	if err != nil {
		return nil, err
	}
	if string(b[:4]) != "INDX" || !fixUp(b) || int64(le.Uint64(b[16:])) != vcn {
		return nil, unmapped("its root directory is damaged; check it with chkdsk")
	}
	return b, nil
}

// node looks through the entries of a node, which begins with its header.
func (w *ntfsIndex) node(b []byte) error {
	damaged := unmapped("its root directory is damaged; check it with chkdsk")
	at, end := int64(le.Uint32(b)), int64(le.Uint32(b[4:]))
	if at < 16 || at%8 != 0 || end > int64(len(b)) {
		return damaged
	}
	for {
		if at+16 > end {
			return damaged
		}
		length, key, flags := int64(le.Uint16(b[at+8:])), int64(le.Uint16(b[at+10:])), le.Uint16(b[at+12:])
		if length < 16 || length%8 != 0 || length > end-at {
			return damaged
		}
		e := b[at : at+length]
		if flags&1 != 0 { // there is a node with lesser names
			if length < 24 {
				return damaged
			}
			w.open = append(w.open, int64(le.Uint64(e[length-8:])))
		}
		if flags&2 != 0 {
			return nil
		}
		if key < 0x42 || 16+key > length || 0x42+2*int64(e[16+0x40]) > key {
			return damaged
		}
		if err := w.entry(le.Uint64(e), e[16:16+key]); err != nil {
			return err
		}
		at += length
	}
}

// entry takes a name, if it is one of those looked for. A name for DOS alone is another name of the same file.
func (w *ntfsIndex) entry(reference uint64, key []byte) error {
	const dos = 2
	name := asciiLower(key[0x42 : 0x42+2*int(key[0x40])])
	if key[0x41] == dos || !slices.Contains(w.names, name) {
		return nil
	}
	r, err := w.n.readReference(reference)
	if err == nil {
		w.files = append(w.files, ntfsFile{name, r})
	}
	return err
}

// asciiLower returns a name of ASCII letters in lower case, or "" for others.
func asciiLower(b []byte) string {
	out := make([]byte, 0, len(b)/2)
	for i := 0; i+1 < len(b); i += 2 {
		c := b[i]
		if b[i+1] != 0 || c >= 0x80 {
			return ""
		}
		if c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		out = append(out, c)
	}
	return string(out)
}

// ntfsKept is how much of a dropped file stays in the map, in bytes. The target's disk holds something old there; were that
// the header of a hibernation image or of a crash dump, Windows would resume or save it: over the new system.
const ntfsKept = 64 << 10

// drop takes what files hold out of used. What is odd about a file leaves it in.
func (n *ntfs) drop(used []images.Extent, files []ntfsFile) ([]images.Extent, error) {
	for _, f := range files {
		const directory = 2
		if links := le.Uint16(f.record.b[0x12:]); links != 1 || le.Uint16(f.record.b[0x16:])&directory != 0 {
			continue
		}
		s := &ntfsStream{n: n}
		if err := s.load(f.record, ntfsData, ""); err != nil {
			return nil, err
		}
		if !s.found || s.resident != nil || s.flags&(ntfsCompressed|ntfsEncrypted|ntfsSparse) != 0 {
			continue
		}
		list := s.extents((ntfsKept + n.cluster - 1) / n.cluster)
		for _, e := range list {
			if !contains(used, e) {
				return nil, unmapped("its bitmap calls clusters of /%s free; check it with chkdsk", f.name)
			}
		}
		before := images.TotalLength(used)
		used = subtract(used, list)
		if dropped := before - images.TotalLength(used); dropped > 0 {
			n.v.dropped = append(n.v.dropped, Dropped{Name: "/" + f.name, Length: dropped})
		}
	}
	return used, nil
}

// subtract returns the sorted ranges of used without those of list.
func subtract(used, list []images.Extent) []images.Extent {
	list = normal(list, math.MaxInt64, len(list))
	out := make([]images.Extent, 0, len(used)+len(list))
	for _, e := range used {
		at := e.Offset
		for len(list) > 0 && list[0].End() <= at {
			list = list[1:]
		}
		for _, cut := range list {
			if cut.Offset >= e.End() {
				break
			}
			out = images.AppendExtent(out, images.Extent{Offset: at, Length: max(0, cut.Offset-at)})
			at = max(at, cut.End())
		}
		out = images.AppendExtent(out, images.Extent{Offset: at, Length: max(0, e.End()-at)})
	}
	return out
}
