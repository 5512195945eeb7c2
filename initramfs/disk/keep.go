package disk

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"seedbed/images"
	"seedbed/images/layout"
	"seedbed/images/parttable"
	"seedbed/images/swarm"
)

// CodeKeep is why a deployment that keeps partitions was refused.
const CodeKeep = "keep-refused"

// Keep leaves partitions, by their index, as they are: nothing of them is read, fetched, written or read back. Call it before
// all else.
func (s *Storage) Keep(partitions []int) {
	if len(partitions) == 0 {
		return
	}
	s.kept = make([]bool, s.layout.Partitions())
	for _, i := range partitions {
		s.kept[i] = true
	}
	for piece := range s.held {
		s.mark(piece, images.TileSet{})
	}
}

// keeps reports whether a partition stays as it is.
func (s *Storage) keeps(partition int) bool { return s.kept != nil && s.kept[partition] }

// data are the tiles of a piece that hold data and are wanted, zeros those that are to be zero.
func (s *Storage) data(piece int) images.TileSet {
	if s.kept != nil && s.kept[s.layout.Span(piece).Partition] {
		return images.TileSet{}
	}
	return s.layout.Data(piece)
}

func (s *Storage) zeros(piece int) images.TileSet {
	if s.kept != nil && s.kept[s.layout.Span(piece).Partition] {
		return images.TileSet{}
	}
	return s.layout.Zero(piece)
}

// DataLength returns the bytes of the data tiles that are wanted.
func (s *Storage) DataLength() (n int64) {
	if s.kept == nil {
		return s.layout.DataLength()
	}
	for piece := range s.layout.Count() {
		for t := range s.data(piece).All() {
			n += int64(s.layout.TileLength(piece, t))
		}
	}
	return n
}

// KeptPartitions returns the indexes of partitions by their numbers.
func KeptPartitions(m *images.Manifest, numbers []int) (list []int, err error) {
	for _, n := range numbers {
		i := slices.IndexFunc(m.Partitions, func(p images.Partition) bool { return p.Number == n })
		if i < 0 {
			return nil, fmt.Errorf("there is no partition %d", n)
		}
		list = append(list, i)
	}
	return list, nil
}

// CanKeep returns a Refusal unless the disk has each of the image's partitions with these indexes at the same place, in a table
// that stays good until the image's takes its place. Nothing is written.
func (d *Device) CanKeep(m *images.Manifest, frame []parttable.Region, partitions []int) (*Refusal, error) {
	table, err := parttable.Read(d, d.Length, d.SectorLength)
	if err != nil {
		return refuseKeep(d, "its partition table cannot be read: %v", err), nil
	}
	kind := m.Frame.Table
	if table.Kind != kind || kind == parttable.None {
		return refuseKeep(d, "its partition table is of kind %s, the image's of kind %s", table.Kind, kind), nil
	}
	old := table.Frame()
	if kind == parttable.GPT && !slices.ContainsFunc(old, func(r parttable.Region) bool { return r.Kind == images.RegionGPT }) {
		return refuseKeep(d, "the first copy of its partition table is damaged"), nil
	}
	logical := false
	for _, i := range partitions {
		p := &m.Partitions[i]
		if !slices.ContainsFunc(table.Partitions, func(e parttable.Entry) bool { return e.Offset == p.Offset && e.Length == p.Length }) {
			return refuseKeep(d, "it has no partition of %d bytes at byte %d, which partition %d of image %s:%s is", p.Length, p.Offset, p.Number,
				m.Name, m.Version), nil
		}
		logical = logical || kind == parttable.MBR && p.Number > 4
	}
	if logical {
		// A chain of extended boot records cannot be changed at once: a power cut would cut off what comes behind.
		if same, err := d.has(frame, images.RegionEBR); err != nil || !same {
			return refuseKeep(d, "its logical partitions are arranged in another way than those of the image, and one of them is to be kept"), err
		}
	}
	return nil, nil
}

func refuseKeep(d *Device, why string, a ...any) *Refusal {
	return &Refusal{Code: CodeKeep, Sentence: fmt.Sprintf("partitions of disk %s are to be kept, but "+why+". Nothing was written. Deploy again "+
		"without --keep, which writes the whole disk, or put the disk in that has them", append([]any{d.Name}, a...)...)}
}

// HasTable reports whether the disk has, byte for byte and past the page cache, the frame of an image as it has to be on this
// disk. Where there is no table it has.
func (d *Device) HasTable(frame []parttable.Region, kind string) (bool, error) {
	regions, err := parttable.Relocate(frame, kind, d.SectorLength, d.Length)
	if err != nil {
		return false, fmt.Errorf("table for disk %s: %w", d.Name, err)
	}
	return d.has(regions, "")
}

// has reports whether the disk has the regions of a kind, "" for all.
func (d *Device) has(regions []parttable.Region, kind string) (same bool, err error) {
	direct, err := d.Direct()
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, direct.Close()) }()
	for _, r := range regions {
		if kind != "" && r.Kind != kind {
			continue
		}
		b := make([]byte, len(r.Bytes))
		if _, err := direct.ReadAt(b, r.Offset); err != nil {
			return false, err
		}
		if !bytes.Equal(b, r.Bytes) {
			return false, nil
		}
	}
	return true, nil
}

// Pieces is the shape of what is wanted of the image; part says that this is not all of it.
func (s *Storage) Pieces() (p swarm.Pieces, part bool) {
	if s.kept == nil {
		return s.layout, false
	}
	return wanted{s.layout, s}, true
}

// wanted is the layout without what is kept.
type wanted struct {
	*layout.Layout
	s *Storage
}

// Data implements swarm.Pieces.
func (w wanted) Data(piece int) images.TileSet { return w.s.data(piece) }
