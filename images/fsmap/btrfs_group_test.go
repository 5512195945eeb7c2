//go:build linux

package fsmap

import (
	"slices"
	"testing"
)

// btrfsItem is one item of a leaf.
type btrfsItem struct {
	key  btrfsKey
	data []byte
}

// leafItems reads a leaf, setLeaf makes one of them again, with its checksum.
func leafItems(t testing.TB, b []byte) (list []btrfsItem) {
	t.Helper()
	if b[100] != 0 {
		t.Fatal("not a leaf")
	}
	for i := range int(le.Uint32(b[96:])) {
		h := b[btrfsHeader+25*i:]
		from := btrfsHeader + le.Uint32(h[17:])
		list = append(list, btrfsItem{readBtrfsKey(h), slices.Clone(b[from : from+le.Uint32(h[21:])])})
	}
	return list
}

func setLeaf(b []byte, list []btrfsItem) {
	slices.SortFunc(list, func(x, y btrfsItem) int { return x.key.compare(y.key) })
	clear(b[btrfsHeader:])
	le.PutUint32(b[96:], uint32(len(list)))
	end := len(b)
	for i, item := range list {
		end -= len(item.data)
		copy(b[end:], item.data)
		h := b[btrfsHeader+25*i:]
		le.PutUint64(h, item.key.object)
		h[8] = item.key.kind
		le.PutUint64(h[9:], item.key.offset)
		le.PutUint32(h[17:], uint32(end-btrfsHeader))
		le.PutUint32(h[21:], uint32(len(item.data)))
	}
	sum, _ := btrfsSum(0, b[32:])
	copy(b, sum[:])
}

// addGroupTree turns a new file system into one with a block-group tree, which this mkfs.btrfs does not make: the
// groups move from the extent tree into the top block of the UUID tree, which the kernel makes again.
func addGroupTree(t testing.TB, path string) {
	t.Helper()
	const uuidTree = 9
	f, length := open(t, path)
	v, _, _, err := probe(f, length)
	if err != nil {
		t.Fatal(err)
	}
	x, err := parseBtrfs(v)
	if err == nil {
		err = x.readAreas()
	}
	if err != nil {
		t.Fatal(err)
	}
	read := func(logical, tree uint64) []byte {
		b, err := v.read(x.area(logical, x.blockLength).places[0]+int64(logical-x.area(logical, x.blockLength).logical), x.blockLength)
		if err != nil || le.Uint64(b[88:]) != tree {
			t.Fatalf("tree block at %d is not of tree %d: %v", logical, tree, err)
		}
		return b
	}
	write := func(logical uint64, b []byte) {
		for _, at := range x.area(logical, x.blockLength).places {
			if _, err := f.WriteAt(b, at+int64(logical-x.area(logical, x.blockLength).logical)); err != nil {
				t.Fatal(err)
			}
		}
	}
	top := le.Uint64(x.sb[80:])
	b := read(top, btrfsRootTree)
	roots := leafItems(t, b)
	logical := map[uint64]uint64{}
	for i, r := range roots {
		if r.key.kind == btrfsRootItem {
			logical[r.key.object] = le.Uint64(r.data[176:])
			if r.key.object == uuidTree {
				roots[i].key.object = btrfsGroupTreeID
			}
		}
	}
	setLeaf(b, roots)
	write(top, b)

	b = read(logical[btrfsExtentTree], btrfsExtentTree)
	var extents, groups []btrfsItem
	for _, item := range leafItems(t, b) {
		switch {
		case item.key.kind == btrfsGroupItem:
			groups = append(groups, item)
			continue
		case item.key.kind == btrfsMetadataItem && item.key.object == logical[uuidTree]:
			le.PutUint64(item.data[25:], btrfsGroupTreeID) // what refers to it
		}
		extents = append(extents, item)
	}
	setLeaf(b, extents)
	write(logical[btrfsExtentTree], b)

	b = read(logical[uuidTree], uuidTree)
	le.PutUint64(b[88:], btrfsGroupTreeID)
	setLeaf(b, groups)
	write(logical[uuidTree], b)
	patchBtrfs(t, path, 180, x.sb[180]|btrfsGroupTree)
	patchBtrfs(t, path, 563, make([]byte, 8)...) // generation of the UUID tree
}

func TestBtrfsWithABlockGroupTree(t *testing.T) {
	t.Parallel()
	path := makeBtrfs(t, 120, "")
	addGroupTree(t, path)
	compareBtrfs(t, path, mapped(t, path, "btrfs").Used)
	want := ageBtrfs(t, path, 60, "")
	r := mapped(t, path, "btrfs")
	if super(t, path)[180]&btrfsGroupTree == 0 {
		t.Fatal("the block-group tree is gone")
	}
	comparePoisoned(t, path, r.Used, want, "", func(out string) { run(t, "btrfs", "check", "--check-data-csum", out) })
	compareBtrfs(t, path, r.Used)
}
