// Package restore holds a disk against an image: it compares, repairs, and writes the disk out as a stream.
package restore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"seedbed/images"
	"seedbed/images/layout"
	"seedbed/images/parttable"
	"seedbed/images/tile"
)

// Tiles is where an image's data tiles come from. Safe for concurrent use.
type Tiles interface {
	// TileHashes returns the hash of each data tile of a piece in ascending order, or nil if they cannot be read.
	TileHashes(piece int) []images.Digest
	// ReadPiece returns data tiles of a piece in ascending order. Their hashes are checked here.
	ReadPiece(ctx context.Context, piece int, tiles images.TileSet) ([]tile.Encoded, error)
}

// Image is what a disk is held against. Immutable; safe for concurrent use.
type Image struct {
	manifest *images.Manifest
	layout   *layout.Layout
	tiles    Tiles
	frame    []parttable.Region
	order    []int // indexes of the partitions by their place on the disk
}

// New returns an image of which fetch reads the frame's regions, which are checked against their digests.
func New(m *images.Manifest, l *layout.Layout, tiles Tiles, fetch func(images.Ref) ([]byte, error)) (*Image, error) {
	i := &Image{manifest: m, layout: l, tiles: tiles}
	for _, r := range m.Frame.Region {
		b, err := fetch(r)
		if err != nil {
			return nil, fmt.Errorf("frame of %s: %w", i.Name(), err)
		}
		if int64(len(b)) != r.Length || images.Sum(b) != r.Digest {
			return nil, fmt.Errorf("frame of %s: the bytes of region %s are not those of %s", i.Name(), r.Kind, r.Digest.Short())
		}
		i.frame = append(i.frame, parttable.Region{Kind: r.Kind, Offset: r.Offset, Bytes: b})
	}
	for p := range m.Partitions {
		i.order = append(i.order, p)
	}
	slices.SortFunc(i.order, func(a, b int) int { return cmp.Compare(m.Partitions[a].Offset, m.Partitions[b].Offset) })
	return i, nil
}

// Name returns "NAME:VERSION".
func (i *Image) Name() string { return i.manifest.Name + ":" + i.manifest.Version }

// ErrLength says that a disk's length is no number of sectors.
var ErrLength = errors.New("the length of the disk is not a number of sectors")

// SectorError says that a disk has other sectors than the image's tables and file systems are made for.
type SectorError struct {
	Image      string // "debian:1"
	Want, Have int    // bytes
}

func (e *SectorError) Error() string {
	return fmt.Sprintf("image %s is made for disks with sectors of %d bytes, the sectors of this disk are of %d bytes", e.Image, e.Want, e.Have)
}

// Fits returns nil if a disk of length bytes with logical sectors of sector bytes (0: of no consequence, as with a file)
// can hold the image, else a *SectorError, a *parttable.TooSmallError or ErrLength.
func (i *Image) Fits(length int64, sector int) error {
	if sector != 0 && sector != i.manifest.SectorLength {
		return &SectorError{i.Name(), i.manifest.SectorLength, sector}
	}
	_, err := i.table(length)
	return err
}

// table returns the frame as it has to be on a disk of length bytes, in the order in which it is to be written.
func (i *Image) table(length int64) ([]parttable.Region, error) {
	m := i.manifest
	if length%int64(m.SectorLength) != 0 {
		return nil, fmt.Errorf("image %s: %w of %d: %d bytes", i.Name(), ErrLength, m.SectorLength, length)
	}
	need, err := parttable.MinimumDisk(i.frame, m.Frame.Table, m.SectorLength)
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", i.Name(), err)
	}
	if need = max(need, m.EndOfPartitions()); length < need {
		return nil, &parttable.TooSmallError{Need: need, Have: length}
	}
	table, err := parttable.Relocate(i.frame, m.Frame.Table, m.SectorLength, length)
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", i.Name(), err)
	}
	for _, r := range table {
		for p := range m.Partitions {
			part := images.Extent{Offset: m.Partitions[p].Offset, Length: m.Partitions[p].Length}
			if e := (images.Extent{Offset: r.Offset, Length: int64(len(r.Bytes))}); e.Intersect(part).Length > 0 {
				return nil, fmt.Errorf("image %s: frame region %s %v lies over partition %d", i.Name(), r.Kind, e, m.Partitions[p].Number)
			}
		}
	}
	return table, nil
}

// DamageError says that the image itself has no right copy of a tile.
type DamageError struct {
	Image     string
	Partition int           // number
	Extent    images.Extent // bytes of the partition
	Err       error
}

func (e *DamageError) Error() string {
	return fmt.Sprintf("image %s: partition %d, bytes %v: the image's own copy is damaged: %v", e.Image, e.Partition, e.Extent, e.Err)
}

func (e *DamageError) Unwrap() error { return e.Err }

// load returns data tiles of a piece, decoded and checked, one behind the other in dst's memory.
func (i *Image) load(ctx context.Context, piece int, tiles images.TileSet, dst []byte) ([]byte, error) {
	encoded, err := i.tiles.ReadPiece(ctx, piece, tiles)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err == nil && len(encoded) != tiles.Len() {
		err = fmt.Errorf("%d tiles came of %d", len(encoded), tiles.Len())
	}
	if err != nil {
		return nil, i.damage(piece, tiles, err)
	}
	hashes := i.tiles.TileHashes(piece)
	dst = dst[:0]
	rank, next := 0, 0
	for t := range i.layout.Data(piece).All() {
		if tiles.Has(t) {
			n := i.layout.TileLength(piece, t)
			dst = slices.Grow(dst, n)
			raw, err := encoded[next].Decode(dst[len(dst) : len(dst) : len(dst)+n])
			if err == nil && (len(raw) != n || rank >= len(hashes) || tile.Hash(raw) != hashes[rank]) {
				err = fmt.Errorf("tile %d of piece %d has another hash", t, piece)
			}
			if err != nil {
				var one images.TileSet
				one.Add(t)
				return nil, i.damage(piece, one, err)
			}
			dst = dst[:len(dst)+n]
			next++
		}
		rank++
	}
	return dst, nil
}

// damage names the range of tiles of a piece.
func (i *Image) damage(piece int, tiles images.TileSet, err error) error {
	first, last := -1, 0
	for t := range tiles.All() {
		if first < 0 {
			first = t
		}
		last = t
	}
	p := &i.manifest.Partitions[i.layout.Span(piece).Partition]
	return &DamageError{i.Name(), p.Number, i.layout.TileExtent(piece, first, last-first+1), err}
}
