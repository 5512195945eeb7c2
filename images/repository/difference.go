package repository

import (
	"context"
	"fmt"
	"iter"

	"seedbed/images"
)

// Difference is what a machine that holds one image needs to hold another, computed from the tile layers at the same
// positions of the disk. A partition that begins elsewhere counts as a whole.
type Difference struct {
	Tiles   int64 // data tiles to fetch
	Bytes   int64 // decoded
	Encoded int64 // as they travel: each distinct tile of a partition once
	Zero    int64 // tiles to write zeros to, whatever the disk holds there
	// Partitions are those of the image that is wanted, in its order.
	Partitions []PartitionDifference
}

// PartitionDifference is the part of a Difference in one partition.
type PartitionDifference struct {
	Number                      int
	Moved                       bool // it begins where the other image has no partition
	Tiles, Bytes, Encoded, Zero int64
}

// Diff says what a machine that holds the image from has to fetch and write to hold the image to. Zero is no image.
func (r *Repository) Diff(ctx context.Context, from, to images.Digest) (*Difference, error) {
	have := &Image{Manifest: &images.Manifest{}}
	if from != (images.Digest{}) {
		var err error
		if have, err = r.Manifest(ctx, from); err != nil {
			return nil, err
		}
	}
	x, err := r.OpenImage(ctx, to)
	if err != nil {
		return nil, err
	}
	d := &Difference{}
	for i := range x.parts {
		var old *images.Partition
		for k := range have.Manifest.Partitions {
			if p := &have.Manifest.Partitions[k]; p.Offset == x.parts[i].p.Offset {
				old = p
			}
		}
		part, err := r.diffPartition(ctx, x, i, old)
		if err != nil {
			return nil, fmt.Errorf("compare partition %d: %w", x.parts[i].p.Number, err)
		}
		d.Partitions = append(d.Partitions, part)
		d.Tiles, d.Bytes, d.Encoded, d.Zero = d.Tiles+part.Tiles, d.Bytes+part.Bytes, d.Encoded+part.Encoded, d.Zero+part.Zero
	}
	return d, nil
}

// tileStates are the tiles of a partition with their hashes.
type tileStates struct {
	m      *images.Map
	layer  []byte
	length int64 // of the partition
	next   func() (int64, bool)
	stop   func()
	tile   int64 // the data tile at rank; endOfTiles behind the last
	rank   int64
}

// states reads map and tile layer of a partition; nil has no tiles.
func (r *Repository) states(ctx context.Context, p *images.Partition) (s *tileStates, err error) {
	s = &tileStates{m: &images.Map{}, rank: -1}
	if p != nil {
		b, err := r.Layer(ctx, p.Map.Digest)
		if err != nil {
			return nil, err
		}
		if s.m, err = images.DecodeMap(b); err != nil {
			return nil, err
		}
		if p.DataTiles > 0 {
			if s.layer, err = r.Layer(ctx, p.TileLayer.Digest); err != nil {
				return nil, err
			}
		}
		s.length = p.Length
	}
	s.next, s.stop = iter.Pull(dataTiles(s.m))
	s.advance()
	return s, nil
}

func (s *tileStates) advance() {
	t, ok := s.next()
	if s.rank++; !ok || int64(len(s.layer)) < 32*(s.rank+1) {
		t = endOfTiles
	}
	s.tile = t
}

// key returns the key of the data tile at rank.
func (s *tileStates) key() images.TileKey {
	return images.TileKey{Hash: images.Digest(s.layer[32*s.rank:]), Length: int32(min(images.TileLength, s.length-s.tile*images.TileLength))}
}

// diffPartition compares partition i of the image that x reads with another one, which may be nil.
func (r *Repository) diffPartition(ctx context.Context, x *Reader, i int, old *images.Partition) (d PartitionDifference, err error) {
	d.Number, d.Moved = x.parts[i].p.Number, old == nil
	had, err := r.states(ctx, old)
	if err != nil {
		return d, err
	}
	defer had.stop()
	want, err := r.states(ctx, x.parts[i].p)
	if err != nil {
		return d, err
	}
	defer want.stop()
	seen := map[packRecord]bool{}
	for ; want.tile != endOfTiles; want.advance() {
		for had.tile < want.tile {
			had.advance()
		}
		key := want.key()
		if had.tile == want.tile && had.key() == key {
			continue
		}
		d.Tiles, d.Bytes = d.Tiles+1, d.Bytes+int64(key.Length)
		id, ordinal := x.parts[i].placement.at(want.rank)
		if at := (packRecord{id, ordinal}); !seen[at] {
			seen[at] = true
			f, err := r.frame(ctx, id)
			if err != nil {
				return d, err
			}
			if int(ordinal) < f.count() {
				d.Encoded += int64(f.lengths[ordinal]) + 1
			}
		}
	}
	for _, run := range want.m.Zero {
		for t := run.First; t < run.First+run.Count; t++ {
			if had.m.State(t) != images.TileZero {
				d.Zero++
			}
		}
	}
	return d, nil
}
