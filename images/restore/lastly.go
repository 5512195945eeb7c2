package restore

import (
	"bytes"
	"slices"

	"seedbed/images"
)

// lastly keeps writes to the first tile of a disk, so that no power cut shows a superblock before all else is there. Owned
// by one goroutine.
type lastly struct {
	Disk
	sector int64
	kept   []piece
}

// piece is bytes of the disk.
type piece struct {
	offset int64
	bytes  []byte
}

// WriteAt keeps bytes; b may be used anew.
func (l *lastly) WriteAt(b []byte, offset int64) (int, error) {
	for at := int64(0); at < int64(len(b)); {
		n := int64(len(b)) - at
		if offset+at < images.SuperblockLength {
			n = min(n, l.sector-(offset+at)%l.sector)
		}
		l.kept = append(l.kept, piece{offset + at, bytes.Clone(b[at : at+n])})
		at += n
	}
	return len(b), nil
}

// write writes what is kept and not there yet: the sectors that may hold a superblock last, from behind, each durable before
// the next.
func (l *lastly) write() error {
	slices.SortFunc(l.kept, func(a, b piece) int { return int(b.offset - a.offset) })
	for _, p := range l.kept {
		there := make([]byte, len(p.bytes))
		if n, err := l.Disk.ReadAt(there, p.offset); err == nil && n == len(there) && bytes.Equal(there, p.bytes) {
			continue
		}
		if p.offset < images.SuperblockLength {
			if err := l.Disk.Sync(); err != nil {
				return err
			}
		}
		if _, err := l.Disk.WriteAt(p.bytes, p.offset); err != nil {
			return err
		}
	}
	return nil
}
