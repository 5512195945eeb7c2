package repository

import (
	"context"
	"fmt"
	"sync"

	"golang.org/x/sync/errgroup"

	"seedbed/images"
)

// records are the records of some tiles, one after the other. Immutable.
type records struct {
	raw  []byte
	ends []int // of each record in raw
}

func (r *records) record(i int) []byte {
	start := 0
	if i > 0 {
		start = r.ends[i-1]
	}
	return r.raw[start:r.ends[i]:r.ends[i]]
}

// failed says which of the tiles asked for cannot be read.
type failed struct {
	first, end int // half-open, of what was asked for
	pack       images.Digest
}

// records fetches the records of data tiles of a partition, by rank, in the order asked for: near ones together, those
// of several packs at once.
func (x *Reader) records(ctx context.Context, partition int, ranks []int64, fetch fetcher) (*records, failed, error) {
	place := x.parts[partition].placement
	wanted, at, err := x.locate(ctx, place, ranks)
	if err != nil {
		return nil, at, err
	}
	out := &records{ends: make([]int, len(ranks))}
	n := 0
	for i, w := range wanted {
		n += int(w.end - w.start)
		out.ends[i] = n
	}
	parts := partsOf(wanted)
	if len(parts) == 1 && follow(wanted) {
		out.raw, err = fetch(ctx, place.packs[parts[0].pack], parts[0].start, parts[0].end)
		return out, failedPart(&parts[0], place), err
	}
	out.raw = make([]byte, n)
	var mu sync.Mutex // guards at
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallelFetches)
	for k := range parts {
		part := &parts[k]
		group.Go(func() error {
			b, err := fetch(ctx, place.packs[part.pack], part.start, part.end)
			if err != nil {
				mu.Lock()
				defer mu.Unlock()
				if ctx.Err() == nil {
					at = failedPart(part, place)
				}
				return err
			}
			for _, w := range part.wanted {
				end := out.ends[w.at]
				copy(out.raw[end-int(w.end-w.start):end], b[w.start-part.start:w.end-part.start])
			}
			return nil
		})
	}
	err = group.Wait()
	return out, at, err
}

// follow reports whether records lie in the pack one after the other as they were asked for. They are sorted by their place
// in the pack. A record may be asked for twice, and the gap behind it may be as long.
func follow(wanted []wantedRecord) bool {
	for i, w := range wanted {
		if w.at != i || i > 0 && w.start != wanted[i-1].end {
			return false
		}
	}
	return true
}

func failedPart(p *packPart, place *placement) failed {
	f := failed{first: p.wanted[0].at, end: p.wanted[0].at + 1, pack: place.packs[p.pack]}
	for _, w := range p.wanted {
		f.first, f.end = min(f.first, w.at), max(f.end, w.at+1)
	}
	return f
}

// locate finds where records lie, from the frames of their packs, which are fetched at once.
func (x *Reader) locate(ctx context.Context, place *placement, ranks []int64) ([]wantedRecord, failed, error) {
	frames := map[uint32]*slot[images.Digest, *frame]{}
	wanted := make([]wantedRecord, len(ranks))
	ordinals := make([]uint32, len(ranks))
	run := -1
	for i, rank := range ranks {
		if run < 0 || rank < place.runs[run].start || rank >= place.end(run) {
			run = place.find(rank)
		}
		pack := place.runs[run].pack
		wanted[i].at, wanted[i].pack = i, int(pack)
		ordinals[i] = place.runs[run].ordinal + uint32(rank-place.runs[run].start)
		if frames[pack] == nil {
			id := place.packs[pack]
			s, err := x.r.frames.start(id, 0, x.r.fetchFrame(id))
			if err != nil {
				return nil, failed{i, i + 1, id}, err
			}
			frames[pack] = s
		}
	}
	for i := range wanted {
		w := &wanted[i]
		f, err := frames[uint32(w.pack)].wait(ctx)
		if err == nil && int(ordinals[i]) >= f.count() {
			err = fmt.Errorf("it has %d tiles, the placement names number %d", f.count(), ordinals[i])
		}
		if err != nil {
			last := i + 1
			for last < len(wanted) && wanted[last].pack == w.pack {
				last++
			}
			return nil, failed{i, last, place.packs[w.pack]}, err
		}
		w.start, w.end = f.record(ordinals[i])
	}
	return wanted, failed{}, nil
}
