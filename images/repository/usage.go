package repository

import (
	"context"
	"fmt"
	"slices"

	"golang.org/x/sync/errgroup"

	"seedbed/images"
)

// Usage is what an image takes in the repository, in bytes.
type Usage struct {
	Encoded int64 // of its distinct data tiles: one image of traffic
	Stored  int64 // of the records of its tiles in packs, each once
	Unique  int64 // of Stored, used by no other version: what removing it gives back in the end
	Packs   int
	// Shared are the versions that use some of the same records, by name and version.
	Shared []Share
}

// Share is what two versions have in common.
type Share struct {
	Image string // "debian:1"
	Bytes int64  // of records in packs
}

// Usage says what an image takes in the repository and what it shares with others. It reads the placements of all images.
func (r *Repository) Usage(ctx context.Context, d images.Digest) (*Usage, error) {
	list, err := r.live(ctx)
	if err != nil {
		return nil, err
	}
	k := slices.IndexFunc(list, func(i *liveImage) bool { return i.digest == d })
	if k < 0 {
		return nil, fmt.Errorf("image %s: %w", d.Short(), ErrNoImage)
	}
	used, err := r.recordsOf(ctx, list[k])
	if err != nil {
		return nil, err
	}
	u := &Usage{Packs: len(used)}
	for _, place := range list[k].places {
		if place != nil {
			u.Encoded += place.encodedLength
		}
	}
	others := map[images.Digest]*recordSet{}
	for id, set := range used {
		u.Stored += set.bytes(func(i int) bool { return true })
		others[id] = &recordSet{frame: set.frame, has: make([]bool, len(set.has))}
	}
	for i, other := range list {
		if i == k || other.digest == d {
			continue
		}
		if n := other.shared(used, others); n > 0 {
			u.Shared = append(u.Shared, Share{other.String(), n})
		}
	}
	for id, set := range used {
		u.Unique += set.bytes(func(i int) bool { return !others[id].has[i] })
	}
	slices.SortFunc(u.Shared, func(a, b Share) int { return compareVersions(a.Image, b.Image) })
	return u, nil
}

// recordSet is a set of records of a pack.
type recordSet struct {
	frame *frame
	has   []bool
}

// bytes returns the length of those records of the set that count.
func (s *recordSet) bytes(count func(i int) bool) (n int64) {
	for i, has := range s.has {
		if has && count(i) {
			n += recordHeaderLength + int64(s.frame.lengths[i]) + 1
		}
	}
	return n
}

// recordsOf returns the records that an image uses, by pack.
func (r *Repository) recordsOf(ctx context.Context, i *liveImage) (map[images.Digest]*recordSet, error) {
	used := map[images.Digest]*recordSet{}
	group, fetching := errgroup.WithContext(ctx)
	group.SetLimit(parallelFetches)
	for _, place := range i.places {
		if place == nil {
			continue
		}
		for _, id := range place.packs {
			if used[id] != nil {
				continue
			}
			set := &recordSet{}
			used[id] = set
			group.Go(func() (err error) {
				set.frame, err = r.frame(fetching, id)
				return err
			})
		}
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	for _, set := range used {
		set.has = make([]bool, set.frame.count())
	}
	i.eachRun(func(id images.Digest, first, end int) {
		set := used[id]
		for n := first; n < min(end, len(set.has)); n++ {
			set.has[n] = true
		}
	})
	return used, nil
}

// eachRun calls do for each run of records [first, end) of a pack that the image uses.
func (i *liveImage) eachRun(do func(id images.Digest, first, end int)) {
	for _, place := range i.places {
		if place == nil {
			continue
		}
		for k, run := range place.runs {
			do(place.packs[run.pack], int(run.ordinal), int(int64(run.ordinal)+place.end(k)-run.start))
		}
	}
}

// shared returns the bytes of the records in used that this image uses too, and enters them into seen.
func (i *liveImage) shared(used, seen map[images.Digest]*recordSet) (bytes int64) {
	own := map[packRecord]bool{} // an image may use a record twice
	i.eachRun(func(id images.Digest, first, end int) {
		set := used[id]
		if set == nil {
			return
		}
		for n := first; n < min(end, len(set.has)); n++ {
			if at := (packRecord{id, uint32(n)}); set.has[n] && !own[at] {
				own[at], seen[id].has[n] = true, true
				bytes += recordHeaderLength + int64(set.frame.lengths[n]) + 1
			}
		}
	})
	return bytes
}
