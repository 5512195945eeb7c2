package repository

import (
	"context"
	"sync"

	"golang.org/x/sync/errgroup"

	"seedbed/images"
)

// runTiles is how many tiles the runs have that are made from packs in the bucket: sorting them takes 60 MB of memory, and
// an index of 10 TiB is then three merges away.
const runTiles = 512 << 10

// indexPacks enters packs of the bucket into the index, many at once. Those that cannot be read are left out, with a
// warning.
func (r *Repository) indexPacks(ctx context.Context, ids []images.Digest) error {
	var mu sync.Mutex // guards batch and tiles
	var batch []packEntries
	tiles := 0
	take := func(p packEntries, atLeast int) (full []packEntries) {
		mu.Lock()
		defer mu.Unlock()
		if p.entries != nil {
			batch, tiles = append(batch, p), tiles+len(p.entries)
		}
		if tiles < atLeast {
			return nil
		}
		full, batch, tiles = batch, nil, 0
		return full
	}
	group, fetching := errgroup.WithContext(ctx)
	group.SetLimit(parallelFetches)
	for _, id := range ids {
		if fetching.Err() != nil {
			break
		}
		group.Go(func() error {
			entries, err := readIndex(fetching, r.bucket, id)
			if fetching.Err() != nil {
				return fetching.Err()
			}
			if err != nil {
				r.log.Warn("pack cannot be read, its tiles are not used for new images", "err", err)
				return nil
			}
			if full := take(packEntries{id, r.packs.add(id), entries}, runTiles); full != nil {
				r.index.addPacks(full)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	if rest := take(packEntries{}, 1); rest != nil {
		r.index.addPacks(rest)
	}
	return nil
}
