package fsmap

import (
	"bytes"
	"cmp"
	"errors"
	"slices"
)

// Objects and keys of btrfs (Linux, include/uapi/linux/btrfs_tree.h).
const (
	btrfsRootTree      = 1
	btrfsExtentTree    = 2
	btrfsAddressTree   = 3 // the chunk tree
	btrfsGroupTreeID   = 11
	btrfsRootItem      = 132
	btrfsExtentItem    = 168
	btrfsMetadataItem  = 169
	btrfsGroupItem     = 192
	btrfsAddressItem   = 228 // a chunk
	btrfsMaxLevel      = 7
	btrfsHeader        = 101 // bytes before the items of a tree block
	btrfsKeyLength     = 17
	btrfsAddressLength = 48 // of an address item before its stripes of 32 bytes
)

// btrfsKey orders the items of a tree.
type btrfsKey struct {
	object uint64
	kind   byte
	offset uint64
}

func readBtrfsKey(b []byte) btrfsKey {
	return btrfsKey{le.Uint64(b), b[8], le.Uint64(b[9:])}
}

func (k btrfsKey) compare(o btrfsKey) int {
	return cmp.Or(cmp.Compare(k.object, o.object), cmp.Compare(k.kind, o.kind), cmp.Compare(k.offset, o.offset))
}

// btrfsRoot says where a tree begins.
type btrfsRoot struct {
	tree       uint64
	logical    uint64 // address of its top block
	generation uint64
	level      byte
}

// btrfsWalk is one pass through a tree. Since keys have to ascend from leaf to leaf, no loop and no shared leaf is followed
// for long.
type btrfsWalk struct {
	*btrfs
	tree  uint64
	last  btrfsKey
	begun bool
	visit func(k btrfsKey, data []byte) error
}

func (t *btrfs) walk(r btrfsRoot, visit func(k btrfsKey, data []byte) error) error {
	if r.level > btrfsMaxLevel {
		return unmapped("tree %d has %d levels", r.tree, r.level)
	}
	w := &btrfsWalk{btrfs: t, tree: r.tree, visit: visit}
	return w.descend(r.logical, r.level, r.generation, true)
}

func (w *btrfsWalk) descend(logical uint64, level byte, generation uint64, top bool) error {
	b, err := w.treeBlock(logical, level, generation, w.tree)
	if err != nil {
		return err
	}
	count, length := int64(le.Uint32(b[96:])), int64(25) // a key, where its data is, and how long
	if level > 0 {
		length = 33 // a key, a tree block, its generation
	}
	if count > (w.blockLength-btrfsHeader)/length || count == 0 && !top {
		return unmapped("the tree block at %d has %d items", logical, count)
	}
	for i := range count {
		item := b[btrfsHeader+i*length:][:length]
		if level > 0 {
			if err := w.descend(le.Uint64(item[17:]), level-1, le.Uint64(item[25:]), false); err != nil {
				return err
			}
			continue
		}
		k := readBtrfsKey(item)
		if w.begun && k.compare(w.last) <= 0 {
			return unmapped("the items of the tree block at %d are not in order; check it with btrfs check", logical)
		}
		w.last, w.begun = k, true
		from, n := btrfsHeader+int64(le.Uint32(item[17:])), int64(le.Uint32(item[21:]))
		if from+n > w.blockLength {
			return unmapped("an item of the tree block at %d ends outside", logical)
		}
		if err := w.visit(k, b[from:from+n]); err != nil {
			return err
		}
	}
	return nil
}

// treeBlock reads a tree block, from the first copy that is right.
func (t *btrfs) treeBlock(logical uint64, level byte, generation, tree uint64) ([]byte, error) {
	a := t.area(logical, t.blockLength)
	if a == nil {
		return nil, unmapped("the tree block at %d has no place; check it with btrfs check", logical)
	}
	var failed error
	for _, at := range a.places {
		b, err := t.v.read(at+int64(logical-a.logical), t.blockLength)
		if err != nil {
			failed = cmp.Or(failed, err)
			continue
		}
		if t.sumRight(b) && bytes.Equal(b[32:48], t.fsid) && le.Uint64(b[48:]) == logical &&
			le.Uint64(b[80:]) == generation && le.Uint64(b[88:]) == tree && b[100] == level {
			return b, nil
		}
	}
	if failed != nil && !errors.As(failed, new(unmappedError)) {
		return nil, failed // it may be right, but nobody knows
	}
	return nil, unmapped("the tree block at %d is damaged; check it with btrfs check", logical)
}

// btrfsArea is a range of addresses and where it lies on the device (a chunk), with its block group.
type btrfsArea struct {
	logical uint64
	length  int64
	places  []int64 // bytes; two with DUP
	stated  int64   // bytes in use, as its block group says; -1 until that was read
	used    int64   // bytes in use, as the extent tree says
}

// area returns what holds the addresses [logical, +n), or nil.
func (t *btrfs) area(logical uint64, n int64) *btrfsArea {
	i, exact := slices.BinarySearchFunc(t.areas, logical, func(a *btrfsArea, at uint64) int { return cmp.Compare(a.logical, at) })
	if !exact {
		i--
	}
	if i < 0 || n < 0 || n > t.areas[i].length || logical-t.areas[i].logical > uint64(t.areas[i].length-n) {
		return nil
	}
	return t.areas[i]
}

// readAreas reads where addresses lie: those of the address tree from the superblock, the others from that tree.
func (t *btrfs) readAreas() error {
	list := t.sb[811:][:le.Uint32(t.sb[160:])]
	for len(list) > 0 {
		if len(list) < btrfsKeyLength+btrfsAddressLength {
			return unmapped("its superblock ends amid an address")
		}
		k := readBtrfsKey(list)
		list = list[btrfsKeyLength:]
		n := btrfsAddressLength + 32*int(le.Uint16(list[44:]))
		if k.kind != btrfsAddressItem || n > len(list) {
			return unmapped("its superblock ends amid an address")
		}
		if err := t.addArea(k.offset, list[:n]); err != nil {
			return err
		}
		list = list[n:]
	}
	var later []*btrfsArea
	first := t.areas
	root := btrfsRoot{btrfsAddressTree, le.Uint64(t.sb[88:]), le.Uint64(t.sb[164:]), t.sb[199]}
	err := t.walk(root, func(k btrfsKey, data []byte) error {
		if k.kind != btrfsAddressItem {
			return nil
		}
		t.areas = later
		err := t.addArea(k.offset, data)
		later, t.areas = t.areas, first
		return err
	})
	t.areas = later
	return err
}

// addArea enters an address item, which follows those entered before.
func (t *btrfs) addArea(logical uint64, item []byte) error {
	if len(item) < btrfsAddressLength {
		return unmapped("an address item of %d bytes", len(item))
	}
	const single, striped0, dup = 0, 0x8, 0x20
	a := &btrfsArea{logical: logical, length: int64(le.Uint64(item)), stated: -1}
	profile, stripes := le.Uint64(item[24:])&^0x7, int(le.Uint16(item[44:])) // without data, system, metadata
	switch {
	case a.length <= 0 || a.length > 1<<60 || logical > 1<<62:
		return unmapped("addresses [%d, +%d)", logical, a.length)
	case profile != single && profile != striped0 && profile != dup, stripes != 1 && profile != dup, stripes != 2 && profile == dup:
		return unmapped("addresses in %d stripes of profile %#x, as on several devices", stripes, profile)
	case len(item) < btrfsAddressLength+32*stripes:
		return unmapped("an address item of %d bytes", len(item))
	}
	if k := len(t.areas); k > 0 && logical < t.areas[k-1].logical+uint64(t.areas[k-1].length) {
		return unmapped("addresses [%d, +%d) are there twice; check it with btrfs check", logical, a.length)
	}
	for i := range stripes {
		s := item[btrfsAddressLength+32*i:]
		at := int64(le.Uint64(s[8:]))
		if le.Uint64(s) != t.device {
			return unmapped("it lies on device %d too", le.Uint64(s))
		}
		if at < 0 || a.length > t.length || at > t.length-a.length {
			return unmapped("it refers to bytes [%d, +%d) of its %d", at, a.length, t.length)
		}
		a.places = append(a.places, at)
	}
	t.areas = append(t.areas, a)
	return nil
}
