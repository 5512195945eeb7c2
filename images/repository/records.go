package repository

import (
	"context"
	"fmt"
	"sync"

	"golang.org/x/sync/errgroup"

	"seedbed/images"
)

// records are the records of some tiles, in what was fetched of packs. Immutable.
type records struct {
	list   [][]byte // in the order asked for
	length int64    // bytes that were fetched for them, which they keep in memory
}

func (r *records) record(i int) []byte { return r.list[i] }

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
	out := &records{list: make([][]byte, len(ranks))}
	parts := partsOf(wanted)
	var mu sync.Mutex // guards at
	get := func(ctx context.Context, part *packPart) error {
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
			start, end := w.start-part.start, w.end-part.start
			out.list[w.at] = b[start:end:end]
		}
		return nil
	}
	for i := range parts {
		out.length += parts[i].end - parts[i].start
	}
	if len(parts) == 1 {
		err = get(ctx, &parts[0])
		return out, at, err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallelFetches)
	for i := range parts {
		group.Go(func() error { return get(ctx, &parts[i]) })
	}
	err = group.Wait()
	return out, at, err
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
