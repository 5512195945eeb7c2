package capture

import (
	"errors"
	"fmt"
	"io"
	"slices"

	"seedbed/images"
	"seedbed/images/fsmap"
	"seedbed/images/intake"
)

// scan maps every partition, so that a capture that cannot be is refused before it begins.
func (c *capture) scan() error {
	if len(c.table.Partitions) == 0 {
		return errors.New("the disk has no partitions")
	}
	for _, list := range [][]int{c.o.Partitions, c.o.FullPartitions} {
		if err := c.known(list); err != nil {
			return err
		}
	}
	if err := c.fits(); err != nil {
		return err
	}
	for _, e := range c.table.Partitions {
		p := &part{entry: e, used: &images.Map{Length: e.Length}}
		if err := c.scanPart(p); err != nil {
			return fmt.Errorf("partition %d: %w", e.Number, err)
		}
		tiles := usedTiles(p.used)
		p.hashes = make([]byte, 0, min(tiles*int64(len(images.Digest{})), hashesAhead))
		c.parts = append(c.parts, p)
		c.done.Total += tiles * images.TileLength
		c.result.UsedLength += images.TotalLength(p.used.Extents)
	}
	return nil
}

// hashesAhead is how much memory is taken for the hashes of a partition before they are known, in bytes: those of 256 GiB.
// A disk of zeros needs none, and says nothing of its length.
const hashesAhead = 128 << 20

// ErrTooLarge says that a disk is longer than an image can be, or holds more data.
var ErrTooLarge = errors.New("the disk is too large for an image")

// fits refuses partitions that have more pieces than an image.
func (c *capture) fits() error {
	longest := int64(images.MaxPieceLength)
	if n := c.o.PieceLength; n > 0 && n < longest {
		longest = n
	}
	pieces, length := int64(0), int64(0)
	for _, e := range c.table.Partitions {
		pieces += (e.Length + longest - 1) / longest
		length += e.Length
	}
	if pieces > images.MaxPieces {
		return fmt.Errorf("%w: %d bytes of partitions, in pieces of %d bytes %d can be", ErrTooLarge, length, longest, longest*images.MaxPieces)
	}
	return nil
}

// full reports more data than a description of an image takes.
func (c *capture) full() error {
	const most = intake.MaxSpecLength / int64(len(images.Digest{})) * images.TileLength
	if c.result.DataLength > most {
		return fmt.Errorf("%w: it holds more than %d bytes of data", ErrTooLarge, most)
	}
	return nil
}

// known reports a number that is no partition of the disk.
func (c *capture) known(numbers []int) error {
	var there []int
	for _, e := range c.table.Partitions {
		there = append(there, e.Number)
	}
	for _, n := range numbers {
		if !slices.Contains(there, n) {
			return fmt.Errorf("%w: %d; the disk has %v", ErrNoPartition, n, there)
		}
	}
	return nil
}

// ErrNoPartition says that Options name a partition that the disk does not have.
var ErrNoPartition = errors.New("there is no such partition")

func (c *capture) scanPart(p *part) error {
	number := p.entry.Number
	if len(c.o.Partitions) > 0 && !slices.Contains(c.o.Partitions, number) {
		p.fs = &fsmap.Result{Kind: images.MapNone}
		c.warn(fmt.Sprintf("partition %d is not captured, as asked: a deployment makes its entry in the table and writes nothing into it", number))
		return nil
	}
	r := io.NewSectionReader(c.src, p.entry.Offset, p.entry.Length)
	scan := fsmap.Scan
	if isPlain(p.entry.Type) {
		scan = func(r io.ReaderAt, length int64, _ fsmap.Options) (*fsmap.Result, error) {
			return fsmap.Full(r, length)
		}
	}
	found, err := scan(r, p.entry.Length, fsmap.Options{
		Full: c.o.Full || slices.Contains(c.o.FullPartitions, number), KeepContents: c.o.KeepContents, RefuseOpaque: c.o.RefuseOpaque,
		Pool: isPool(p.entry.Type),
	})
	if err != nil {
		return err
	}
	p.fs = found
	if found.Warning != "" {
		c.warn(fmt.Sprintf("partition %d: %s", number, found.Warning))
	}
	for _, d := range found.Dropped {
		c.result.Dropped = append(c.result.Dropped, Dropped{Partition: number, Name: d.Name, Length: d.Length})
	}
	for _, e := range found.Used {
		if e.Offset < 0 || e.Length < 0 || e.Offset > p.entry.Length-e.Length {
			return fmt.Errorf("the map of the file system names bytes %v of %d", e, p.entry.Length)
		}
		p.used.Extents = images.AppendExtent(p.used.Extents, e)
	}
	found.Used = nil // used has them
	return nil
}

// spec describes what was captured.
func (c *capture) spec() *intake.Spec {
	s := &intake.Spec{
		Created: c.o.Created.Unix(), DiskLength: c.table.DiskLength, SectorLength: c.table.SectorLength, PieceLength: c.o.PieceLength,
		Table: c.table.Kind, Firmware: c.table.Firmware(),
	}
	for _, r := range c.table.Frame() {
		s.Regions = append(s.Regions, intake.Region{Kind: r.Kind, Offset: r.Offset, Bytes: r.Bytes})
	}
	for _, p := range c.parts {
		m := images.Map{Length: p.used.Length, Extents: p.used.Extents, Zero: p.zero}
		s.Partitions = append(s.Partitions, intake.Partition{
			Number: p.entry.Number, Offset: p.entry.Offset, Length: p.entry.Length,
			Type: p.entry.Type, GUID: p.entry.GUID, Label: p.entry.Label,
			FS: p.fs.FS, FSUUID: p.fs.UUID, MapKind: p.fs.Kind, Map: m.Encode(), Tiles: p.hashes, Dropped: droppedNames(p.fs.Dropped),
		})
	}
	return s
}

// droppedNames returns as many names as a manifest takes.
func droppedNames(list []fsmap.Dropped) (names []string) {
	for _, d := range list[:min(len(list), images.MaxDropped)] {
		names = append(names, d.Name)
	}
	return names
}
