package disk

import "seedbed/images"

// writeFirst writes the first tile, of which HoldFirst left zeros, so that no power cut shows a superblock before all else is
// there: the sectors that may hold one come last, from behind, each durable before the next.
func (s *Storage) writeFirst(first []byte) error {
	end, sector := min(images.SuperblockLength, int64(len(first))), int64(s.dev.SectorLength)
	if err := s.writePart(first, images.Extent{Offset: end, Length: int64(len(first)) - end}); err != nil {
		return err
	}
	for end > 0 {
		start := (end - 1) / sector * sector
		if err := s.writePart(first, images.Extent{Offset: start, Length: end - start}); err != nil {
			return err
		}
		end = start
	}
	return nil
}

// writePart writes what is used of a part of the first tile, durably. Zeros are there already.
func (s *Storage) writePart(first []byte, part images.Extent) error {
	written := false
	for _, e := range s.layout.WriteExtents(nil, 0, 0, 1) {
		e = e.Intersect(part)
		if e.Length <= 0 || isZero(first[e.Offset:e.End()]) {
			continue
		}
		if err := s.write([][]byte{first[e.Offset:e.End()]}, s.layout.DiskOffset(0)+e.Offset); err != nil {
			return err
		}
		written = true
	}
	if !written {
		return nil
	}
	return s.dev.Sync()
}
