package repository

import (
	"bufio"
	"encoding/binary"
	"io"
	"slices"

	"seedbed/images"
)

// without writes a run anew without the tiles of packs that are gone, so that the others need not be read again. It returns
// nil if that leaves none or cannot be done; the run given is discarded either way. The caller holds writing.
func (x *index) without(r *run, gone []bool) *run {
	defer x.discard(r)
	var packs []images.Digest
	var handles []uint32
	numbers := make([]uint32, len(r.packs))
	for i, id := range r.packs {
		if !gone[i] {
			numbers[i] = uint32(len(packs))
			packs, handles = append(packs, id), append(handles, r.handles[i])
		}
	}
	if len(packs) == 0 {
		return nil
	}
	count := int64(0)
	err := r.each(func(item []byte, pack uint32) error {
		if int(pack) < len(gone) && !gone[pack] {
			count++
		}
		return nil
	})
	if err != nil {
		return nil // its packs are read again
	}
	purged, err := x.write(packs, handles, count, func(w io.Writer) error {
		return r.each(func(item []byte, pack uint32) error {
			if int(pack) >= len(gone) || gone[pack] {
				return nil
			}
			binary.BigEndian.PutUint32(item[36:], numbers[pack])
			_, err := w.Write(item)
			return err
		})
	})
	if err != nil {
		x.log.Warn("index file cannot be written, its packs are read again", "err", err)
		return nil
	}
	return purged
}

// each calls do for every item of the run with the number of its pack.
func (r *run) each(do func(item []byte, pack uint32) error) error {
	items := bufio.NewReaderSize(io.NewSectionReader(r.f, r.start, r.count*itemLength), 128<<10)
	var item [itemLength]byte
	for range r.count {
		if _, err := io.ReadFull(items, item[:]); err != nil {
			return err
		}
		if err := do(item[:], binary.BigEndian.Uint32(item[36:])); err != nil {
			return err
		}
	}
	return nil
}

// goneOf says of each pack of a run whether the bucket has it no more.
func goneOf(r *run, handle func(images.Digest) (uint32, bool)) (gone []bool, any bool) {
	for _, id := range r.packs {
		_, ok := handle(id)
		gone = append(gone, !ok)
	}
	return gone, slices.Contains(gone, true)
}
