package fsmap

import "seedbed/images"

// readExtents returns the addresses in use, in order, each range in one area, from the extent tree. They have to be as
// many as the block groups and the superblock say.
func (t *btrfs) readExtents() ([]images.Extent, error) {
	roots, err := t.readRoots()
	if err != nil {
		return nil, err
	}
	var used []images.Extent
	end := uint64(0)
	err = t.walk(roots[btrfsExtentTree], func(k btrfsKey, data []byte) error {
		n := t.blockLength
		switch k.kind {
		case btrfsGroupItem:
			return t.addGroup(k, data)
		case btrfsExtentItem:
			n = int64(k.offset)
		case btrfsMetadataItem:
		default:
			return nil
		}
		a := t.area(k.object, n)
		if a == nil || n <= 0 || k.object < end {
			return unmapped("its extent tree has addresses [%d, +%d); check it with btrfs check", k.object, n)
		}
		end = k.object + uint64(n)
		a.used += n
		e := images.Extent{Offset: int64(k.object), Length: n}
		if a.logical == k.object { // joined with none of the area before
			used = append(used, e)
		} else {
			used = images.AppendExtent(used, e)
		}
		return t.v.bounded(used)
	})
	if err != nil {
		return nil, err
	}
	if groups, ok := roots[btrfsGroupTreeID]; ok {
		if err := t.walk(groups, t.addGroup); err != nil {
			return nil, err
		}
	}
	return used, t.checkTotals()
}

// readRoots returns the roots of the extent tree and, where there is one, the block-group tree.
func (t *btrfs) readRoots() (map[uint64]btrfsRoot, error) {
	roots := map[uint64]btrfsRoot{}
	top := btrfsRoot{btrfsRootTree, le.Uint64(t.sb[80:]), le.Uint64(t.sb[72:]), t.sb[198]}
	err := t.walk(top, func(k btrfsKey, data []byte) error {
		if k.kind != btrfsRootItem || k.object != btrfsExtentTree && k.object != btrfsGroupTreeID {
			return nil
		}
		if len(data) < 239 {
			return unmapped("a root item of %d bytes", len(data))
		}
		roots[k.object] = btrfsRoot{k.object, le.Uint64(data[176:]), le.Uint64(data[160:]), data[238]}
		return nil
	})
	if err != nil {
		return nil, err
	}
	_, extents := roots[btrfsExtentTree]
	_, groups := roots[btrfsGroupTreeID]
	if ro := le.Uint64(t.sb[180:]); !extents || groups != (ro&btrfsGroupTree != 0) {
		return nil, unmapped("its root tree lacks the extent tree or has the wrong ones; check it with btrfs check")
	}
	return roots, nil
}

// addGroup enters what a block group says of the area that it describes.
func (t *btrfs) addGroup(k btrfsKey, data []byte) error {
	if k.kind != btrfsGroupItem {
		return nil
	}
	a := t.area(k.object, 0)
	if len(data) < 24 || a == nil || a.logical != k.object || uint64(a.length) != k.offset || a.stated >= 0 {
		return unmapped("block group [%d, +%d) describes nothing; check it with btrfs check", k.object, k.offset)
	}
	a.stated = int64(le.Uint64(data))
	return nil
}

func (t *btrfs) checkTotals() error {
	total := int64(0)
	for _, a := range t.areas {
		if a.used != a.stated {
			return unmapped("%d bytes at address %d are in use, its block group says %d; check it with btrfs check", a.used, a.logical, a.stated)
		}
		total += a.used
	}
	if stated := le.Uint64(t.sb[120:]); uint64(total) != stated {
		return unmapped("%d bytes are in use, its superblock says %d; check it with btrfs check", total, stated)
	}
	return nil
}

// copies returns where addresses lie on the device.
func (t *btrfs) copies(used []images.Extent) ([]images.Extent, error) {
	var list []images.Extent
	for _, e := range used {
		a := t.area(uint64(e.Offset), e.Length)
		for _, at := range a.places {
			list = append(list, images.Extent{Offset: at + e.Offset - int64(a.logical), Length: e.Length})
		}
		if err := t.v.bounded(list); err != nil {
			return nil, err
		}
	}
	return list, nil
}
