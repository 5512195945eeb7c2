package repository

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"slices"

	"golang.org/x/sync/errgroup"

	"seedbed/images"
)

// CompactReport says what compaction did, or with DryRun what it would do.
type CompactReport struct {
	Written    int64 // bytes of records in new packs
	Packs      int   // rewritten because much of them was dead
	Dead       int64 // bytes in them that no image uses
	Images     int   // brought together because their pieces lay scattered
	Placements int   // written anew
	Left       int   // packs and images that wait for another run because of MaxRewrite
	Damaged    int   // records that could not be moved; verify the images
}

const (
	// maxDead is the dead share of a pack above which it is rewritten: research on file servers found 40-50 % a good
	// trade of writes against space (Rosenblum and Ousterhout, SOSP 1991, and restic's practice).
	maxDead = 0.4
	// maxReads is how many requests a piece may need on average before an image is brought together.
	maxReads = 4
	// maxReadsKept is how many requests a piece may need that stays as it is when its image is brought together.
	maxReadsKept = 2
)

// packUse is what images use of a pack.
type packUse struct {
	id    images.Digest
	count int64    // records; 0 if the pack cannot be read
	end   int64    // position after the last record
	used  []uint64 // bit i%64 of word i/64 is record i
	live  int64    // records used
}

func (u *packUse) use(ordinal, count int64) {
	for i := ordinal; i < min(ordinal+count, u.count); i++ {
		if u.used[i>>6]>>(i&63)&1 == 0 {
			u.used[i>>6] |= 1 << (i & 63)
			u.live++
		}
	}
}

func (u *packUse) dead() float64 { return 1 - float64(u.live)/float64(u.count) }

// bytes is about how long so many records of the pack are.
func (u *packUse) bytes(records int64) int64 {
	if u.count == 0 {
		return 0
	}
	return (u.end - int64(len(packMagic))) * records / u.count
}

// compaction is one run of it.
type compaction struct {
	p       *pruning
	numbers map[images.Digest]uint32
	packs   []*packUse
	rewrite []bool                         // by number: all that is used of the pack is moved
	gather  map[string]map[stretchKey]bool // by name of the images: what is moved of them
	marks   map[string]string              // by name: the object that remembers that they were gathered
	left    int64                          // bytes that may still be written
	*mover
}

// stretchKey is a part of a partition, as long as a piece of the newest version.
type stretchKey struct {
	partition int
	stretch   int64
}

func (p *pruning) compact(ctx context.Context) error {
	if p.cfg.MaxRewrite < 0 || len(p.images) == 0 {
		return nil
	}
	c := &compaction{p: p, numbers: map[images.Digest]uint32{}, gather: map[string]map[stretchKey]bool{}, marks: map[string]string{},
		left: p.cfg.MaxRewrite}
	if err := c.measure(ctx); err != nil {
		return err
	}
	c.choosePacks()
	if err := c.chooseImages(ctx); err != nil {
		return err
	}
	if p.cfg.DryRun {
		p.report.Compact.Written = p.cfg.MaxRewrite - c.left
		return nil
	}
	c.mover = newMover(p.r, c.packs, func(done int64) { p.progress(PruneCompact, done, max(done, p.cfg.MaxRewrite-c.left)) })
	defer c.mover.abandon()
	for _, group := range p.groups() {
		if err := c.move(ctx, group); err != nil {
			return err
		}
	}
	if err := c.mover.finish(ctx); err != nil {
		return err
	}
	p.report.Compact.Written, p.report.Compact.Damaged = c.mover.written, c.mover.damaged
	if len(c.moved) > 0 {
		if err := c.rewritePlacements(ctx); err != nil {
			return err
		}
	}
	return c.remember(ctx)
}

// groups returns the images by name, each group from the newest version to the oldest.
func (p *pruning) groups() (groups [][]*liveImage) {
	for i, image := range p.images {
		if i == 0 || image.name != p.images[i-1].name {
			groups = append(groups, nil)
		}
		groups[len(groups)-1] = append(groups[len(groups)-1], image)
	}
	return groups
}

// measure finds how long the packs are and what is used of them.
func (c *compaction) measure(ctx context.Context) error {
	for _, i := range c.p.images {
		for _, place := range i.places {
			if place == nil {
				continue
			}
			for _, id := range place.packs {
				if _, ok := c.numbers[id]; !ok {
					c.numbers[id] = uint32(len(c.packs))
					c.packs = append(c.packs, &packUse{id: id})
				}
			}
		}
	}
	group, fetching := errgroup.WithContext(ctx)
	group.SetLimit(parallelFetches)
	for _, u := range c.packs {
		group.Go(func() error {
			if err := c.p.r.measurePack(fetching, u); err != nil {
				c.p.r.log.Warn("pack cannot be compacted; verify the images", "err", err)
			}
			return fetching.Err()
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	for _, i := range c.p.images {
		for _, place := range i.places {
			if place == nil {
				continue
			}
			for k, run := range place.runs {
				c.packs[c.numbers[place.packs[run.pack]]].use(int64(run.ordinal), place.end(k)-run.start)
			}
		}
	}
	c.rewrite = make([]bool, len(c.packs))
	return nil
}

// measurePack reads a pack's trailer only: how many records it has follows from the length of its index.
func (r *Repository) measurePack(ctx context.Context, u *packUse) error {
	key := packKey(u.id)
	o, err := r.bucket.Stat(ctx, key)
	if err != nil {
		return err
	}
	if o.Length < trailerLength {
		return fmt.Errorf("object %s has %d bytes", key, o.Length)
	}
	trailer, err := fetchRange(ctx, r.bucket, key, o.Length-trailerLength, trailerLength)
	if err != nil {
		return err
	}
	end := binary.BigEndian.Uint64(trailer)
	index := o.Length - trailerLength - int64(min(end, uint64(o.Length))) - int64(len(indexMagic))
	if string(trailer[8:]) != trailerMagic || index < 0 || index%entryLength != 0 {
		return fmt.Errorf("object %s has no trailer", key)
	}
	u.end, u.count = int64(end), index/entryLength
	u.used = make([]uint64, (u.count+63)/64)
	return nil
}

// choosePacks takes the packs with the most dead bytes as far as may be rewritten.
func (c *compaction) choosePacks() {
	var list []uint32
	for i, u := range c.packs {
		if u.count > 0 && u.dead() > maxDead {
			list = append(list, uint32(i))
		}
	}
	slices.SortFunc(list, func(a, b uint32) int { return cmp.Compare(c.packs[b].dead(), c.packs[a].dead()) })
	report := &c.p.report.Compact
	for _, n := range list {
		u := c.packs[n]
		if u.bytes(u.live) > c.left {
			report.Left++
			continue
		}
		c.rewrite[n], c.left = true, c.left-u.bytes(u.live)
		report.Packs++
		report.Dead += u.bytes(u.count - u.live)
	}
}

// rewritePlacements writes new generations of the placements whose tiles were moved. The packs that they name are durable.
func (c *compaction) rewritePlacements(ctx context.Context) error {
	for _, i := range c.p.images {
		for k, old := range i.places {
			if old == nil {
				continue
			}
			place, changed := c.translate(old)
			if !changed {
				continue
			}
			if err := c.p.claim.check(ctx); err != nil {
				return err
			}
			n, err := c.p.r.putPlacement(ctx, i.digest, &i.m.Partitions[k], i.generations[k], place)
			if err != nil {
				return err
			}
			i.places[k], i.generations[k] = place, n
			c.p.report.Compact.Placements++
		}
	}
	return nil
}

// translate returns a placement with the tiles where they are now.
func (c *compaction) translate(old *placement) (place *placement, changed bool) {
	place = &placement{encodedLength: old.encodedLength}
	numbers := map[images.Digest]uint32{}
	number := func(id images.Digest) uint32 {
		n, ok := numbers[id]
		if !ok {
			n = uint32(len(place.packs))
			numbers[id] = n
			place.packs = append(place.packs, id)
		}
		return n
	}
	for k, run := range old.runs {
		id := old.packs[run.pack]
		source := c.numbers[id]
		for rank := run.start; rank < old.end(k); rank++ {
			at := recordAt{source, run.ordinal + uint32(rank-run.start)}
			if to, ok := c.moved[at]; ok {
				place.add(number(c.fresh[to.pack]), to.ordinal)
				changed = true
			} else {
				place.add(number(id), at.ordinal)
			}
		}
	}
	return place, changed
}

// putPlacement writes a placement as the generation after the one given, and returns which it became. The caller holds the
// claim.
func (r *Repository) putPlacement(ctx context.Context, image images.Digest, p *images.Partition, generation int, place *placement) (int, error) {
	soon, err := r.refreshMarks(ctx)
	if err != nil {
		return 0, err
	}
	b := place.encode()
	for n := generation + 1; ; n++ {
		key := generationKey(placementKey(image, p), n)
		if soon.has(key) {
			continue
		}
		switch err := r.bucket.Put(ctx, key, bytes.NewReader(b), int64(len(b))); {
		case err == nil:
			return n, nil
		case !isExists(err):
			return 0, err
		}
	}
}
