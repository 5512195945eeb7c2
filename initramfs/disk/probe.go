package disk

import (
	"context"
	"math/rand/v2"
	"slices"

	"seedbed/images"
)

// probes is how many data tiles are looked at to tell whether the disk holds any of the image. With a tenth of the image
// there, one of 64 is found with a probability of 0.999.
const probes = 64

// hintProbes is how many more are looked at in the pieces of the hint.
const hintProbes = 16

// FetchHashes returns byte ranges of the tile layer of a partition, an index into the manifest's. What it returns is
// checked.
type FetchHashes func(ctx context.Context, partition int, ranges []images.Extent) ([][]byte, error)

// Probe decides whether it is worth while to look at what the disk holds: whether one of 64 random tiles is right, or one
// of 16 that the hint tells of. Their hashes are fetched only if the disk is not blank there. If it is, every piece is unseen until Look has been there;
// else nothing is held. Call it before the swarm runs.
func (s *Storage) Probe(ctx context.Context, fetch FetchHashes) (worth bool, err error) {
	samples, all, err := s.sample(ctx)
	if err != nil {
		return false, err
	}
	for partition := 0; partition < s.layout.Partitions() && !all; partition++ {
		hit, err := s.anyRight(ctx, partition, samples, fetch)
		if err != nil {
			return false, err
		}
		all = all || hit
	}
	if all {
		s.expect()
	}
	s.mu.Lock()
	s.search.probed = true
	s.mu.Unlock()
	return all, nil
}

// probe is a data tile as the disk holds it.
type probe struct {
	piece int
	rank  int // among the data tiles of the piece
	layer images.Extent
	hash  images.Digest
}

// sample returns random tiles that are not blank on the disk, ascending; all says that the image is so short that looking
// at all of it costs no more.
func (s *Storage) sample(ctx context.Context) (list []probe, all bool, err error) {
	total, reported := 0, 0
	for piece := range s.layout.Count() {
		total += s.data(piece).Len()
		if s.search.hint.has(piece) {
			reported += s.data(piece).Len()
		}
	}
	if total <= 4*probes {
		return nil, true, nil
	}
	ranks, hinted := choose(probes, total), choose(hintProbes, reported)
	r, err := s.newRunReader()
	if err != nil {
		return nil, false, err
	}
	defer r.Close()
	before, hints, partition, inLayer := 0, 0, 0, 0
	for piece := range s.layout.Count() {
		data := s.data(piece)
		if p := s.layout.Span(piece).Partition; p != partition {
			partition, inLayer = p, 0
		}
		const size = int64(len(images.Digest{}))
		layer := images.Extent{Offset: int64(inLayer) * size, Length: int64(data.Len()) * size}
		i := 0
		for t := range data.All() {
			take := ranks[before+i]
			if s.search.hint.has(piece) {
				take = take || hinted[hints]
				hints++
			}
			if take {
				var one images.TileSet
				one.Add(t)
				// A tile that cannot be read is not right, and the content will take its place.
				_ = r.tiles(piece, one, func(_ int, raw []byte) {
					if !isZero(raw) { // a data tile is never all zero
						list = append(list, probe{piece, i, layer, images.TileHash(raw)})
					}
				})
			}
			i++
		}
		before, inLayer = before+i, inLayer+i
		if err := ctx.Err(); err != nil {
			return nil, false, err
		}
	}
	return list, false, nil
}

// choose returns n random numbers below limit, or all of them.
func choose(n, limit int) map[int]bool {
	chosen := map[int]bool{}
	for len(chosen) < min(n, limit) {
		chosen[rand.IntN(limit)] = true
	}
	return chosen
}

// anyRight fetches the hashes of the sampled pieces of a partition, keeps them, and reports whether one of the samples is
// right.
func (s *Storage) anyRight(ctx context.Context, partition int, samples []probe, fetch FetchHashes) (bool, error) {
	var mine []probe
	var ranges []images.Extent
	for _, p := range samples {
		if s.layout.Span(p.piece).Partition != partition {
			continue
		}
		mine = append(mine, p)
		if len(ranges) == 0 || ranges[len(ranges)-1] != p.layer {
			ranges = append(ranges, p.layer)
		}
	}
	if len(mine) == 0 {
		return false, nil
	}
	parts, err := fetch(ctx, partition, ranges)
	if err != nil {
		return false, err
	}
	hit := false
	for _, p := range mine {
		b := parts[slices.Index(ranges, p.layer)]
		hashes := make([]images.Digest, 0, len(b)/len(images.Digest{}))
		for ; len(b) >= len(images.Digest{}); b = b[len(images.Digest{}):] {
			hashes = append(hashes, images.Digest(b[:len(images.Digest{})]))
		}
		if s.layout.CheckHashes(p.piece, hashes) != nil {
			continue // the piece's hashes will come from the swarm
		}
		s.Learn(p.piece, hashes)
		hit = hit || hashes[p.rank] == p.hash
	}
	return hit, nil
}
