package repository

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"seedbed/images"
	"seedbed/images/intake"
)

// reference is one data tile of a draft.
type reference struct {
	at        Location
	partition int32
	rank      int32 // data tiles of the partition before it
}

// errLocation says that the local index led to another tile than was asked for.
var errLocation = errors.New("the repository does not hold it where the local index says; capture again, it is then stored anew")

// missingError is an error that intake.ErrMissing stands for: capturing again stores what is missing.
type missingError struct{ err error }

func (e *missingError) Error() string        { return e.err.Error() }
func (e *missingError) Unwrap() error        { return e.err }
func (e *missingError) Is(target error) bool { return target == intake.ErrMissing }

// place returns the placements of a draft. It looks every tile up in the index of its pack, which alone is evidence of
// what a pack holds, and counts the encoded length. Packs that were about to go when the hold began are not used.
func (r *Repository) place(ctx context.Context, draft *Draft, layers map[images.Digest][]byte, h *hold) ([]*placement, error) {
	m := draft.Manifest
	keys := make([]func(rank int32) images.TileKey, len(m.Partitions))
	var refs []reference
	for i, tiles := range draft.Tiles {
		p := &m.Partitions[i]
		layer := layers[p.TileLayer.Digest]
		tail := lastTileLength(layers, p)
		keys[i] = func(rank int32) images.TileKey {
			k := images.TileKey{Hash: images.Digest(layer[32*int64(rank):]), Length: images.TileLength}
			if int64(rank) == p.DataTiles-1 {
				k.Length = tail
			}
			return k
		}
		for rank, at := range tiles {
			refs = append(refs, reference{at, int32(i), int32(rank)})
		}
	}
	slices.SortFunc(refs, func(a, b reference) int {
		return cmp.Or(cmp.Compare(a.at.pack, b.at.pack), cmp.Compare(a.at.ordinal, b.at.ordinal),
			cmp.Compare(a.partition, b.partition), cmp.Compare(a.rank, b.rank))
	})
	lengths := make([]int64, len(m.Partitions))
	ids := map[uint32]images.Digest{}
	var entries []entry
	for i, ref := range refs {
		if i == 0 || ref.at.pack != refs[i-1].at.pack {
			id, list, err := r.indexOf(ctx, ref.at.pack)
			if err != nil {
				return nil, err
			}
			if h.marked.has(packKey(id)) {
				return nil, &missingError{fmt.Errorf("partition %d: tile %d: its pack is about to be removed; capture again, it is then stored anew",
					m.Partitions[ref.partition].Number, ref.rank)}
			}
			ids[ref.at.pack], entries = id, list
		}
		if int(ref.at.ordinal) >= len(entries) || entries[ref.at.ordinal].key != keys[ref.partition](ref.rank) {
			r.index.condemn(ref.at.pack)
			return nil, &missingError{fmt.Errorf("partition %d: tile %d: %w", m.Partitions[ref.partition].Number, ref.rank, errLocation)}
		}
		if r.avoid.lost(ref.at) {
			return nil, &missingError{fmt.Errorf("partition %d: tile %d: the repository's copy is damaged; capture again, it is then stored anew",
				m.Partitions[ref.partition].Number, ref.rank)}
		}
		if i == 0 || ref.at != refs[i-1].at {
			lengths[ref.partition] += int64(entries[ref.at.ordinal].length)
		}
	}
	return placements(draft, ids, lengths), nil
}

// placements builds the placements from checked locations.
func placements(draft *Draft, ids map[uint32]images.Digest, lengths []int64) []*placement {
	var list []*placement
	for i, tiles := range draft.Tiles {
		p := &placement{encodedLength: lengths[i]}
		numbers := map[uint32]uint32{}
		for _, at := range tiles {
			n, ok := numbers[at.pack]
			if !ok {
				n = uint32(len(p.packs))
				numbers[at.pack] = n
				p.packs = append(p.packs, ids[at.pack])
			}
			p.add(n, at.ordinal)
		}
		list = append(list, p)
	}
	return list
}

// lastTileLength returns the length of the partition's last data tile.
func lastTileLength(layers map[images.Digest][]byte, p *images.Partition) int32 {
	if tail := p.Length % images.TileLength; tail != 0 {
		m, err := images.DecodeMap(layers[p.Map.Digest])
		if err == nil && m.State(p.Length/images.TileLength) == images.TileData {
			return int32(tail)
		}
	}
	return images.TileLength
}

// indexOf returns the ID and the index of a pack in the bucket.
func (r *Repository) indexOf(ctx context.Context, handle uint32) (images.Digest, []entry, error) {
	p, err := r.packs.pack(handle)
	if err != nil {
		return images.Digest{}, nil, err
	}
	p.mu.Lock()
	id := p.id
	p.mu.Unlock()
	if id.IsZero() {
		return id, nil, &missingError{errors.New("tiles were lost in the spool, whose disk reported an error; capture again")}
	}
	entries, err := readIndex(ctx, r.bucket, id)
	if err != nil && ctx.Err() == nil {
		r.index.condemn(handle)
		err = &missingError{fmt.Errorf("%w; capture again, its tiles are then stored anew", err)}
	}
	return id, entries, err
}
