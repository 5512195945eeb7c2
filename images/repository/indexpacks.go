package repository

import (
	"context"
	"sync"

	"golang.org/x/sync/errgroup"

	"seedbed/images"
)

// runTiles is how many tiles the runs have that are made from packs in the bucket: they are sorted in 30 MB of memory, and
// an index of 10 TiB is then three merges away.
const runTiles = 256 << 10

// indexPacks enters packs of the bucket into the index, many at once. Those that cannot be read are left out, with a
// warning.
func (r *Repository) indexPacks(ctx context.Context, ids []images.Digest) error {
	var mu sync.Mutex // guards batch and tiles; readers wait while a run is written, so that memory stays bounded
	var batch []packEntries
	tiles := 0
	write := func() {
		if tiles > 0 {
			r.index.addPacks(batch)
		}
		batch, tiles = batch[:0], 0
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
			mu.Lock()
			defer mu.Unlock()
			batch, tiles = append(batch, packEntries{id, r.packs.add(id), entries}), tiles+len(entries)
			if tiles >= runTiles {
				write()
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	write()
	return nil
}
