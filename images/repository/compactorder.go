package repository

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"

	"seedbed/images"
)

func isExists(err error) bool { return errors.Is(err, ErrExists) }

// Records are written in the order of the disk, one stretch after the other: first the tiles of the newest version, then
// those that only older ones have. So every version finds a stretch within few bytes, and no tile is there twice.

// stretchTiles returns how many tiles a stretch of these images has: a piece of the newest.
func stretchTiles(group []*liveImage) int64 { return group[0].m.PieceLength / images.TileLength }

// chooseImages finds the images whose pieces lie scattered, as far as may be rewritten. All versions of an image are
// brought together, but the stretches that are fine as they are.
func (c *compaction) chooseImages(ctx context.Context) error {
	for _, group := range c.p.groups() {
		mark := gatheredKey(group)
		if _, err := c.p.r.bucket.Stat(ctx, mark); err == nil {
			continue // they were brought together, and it gets no better
		} else if !errors.Is(err, ErrNotExist) {
			return err
		}
		targets := map[stretchKey]bool{}
		scattered := 0
		for _, i := range group {
			list, reads, pieces, err := c.scattered(ctx, i, stretchTiles(group))
			if err != nil {
				return err
			}
			if pieces > 0 && float64(reads)/float64(pieces) > maxReads {
				scattered++
				for _, k := range list {
					targets[k] = true
				}
			}
		}
		if scattered == 0 {
			continue
		}
		c.p.report.Compact.Images += scattered
		c.gather[group[0].name] = targets
		if c.p.cfg.DryRun || c.left <= 0 {
			c.p.report.Compact.Left++
		}
		c.marks[group[0].name] = mark
	}
	return nil
}

// scattered counts the requests that reading an image piece by piece takes, and returns the stretches that need many.
func (c *compaction) scattered(ctx context.Context, i *liveImage, length int64) (list []stretchKey, reads, pieces int, err error) {
	runs := 0
	for _, place := range i.places {
		if place != nil {
			runs += len(place.runs)
		}
	}
	for k, place := range i.places {
		if place == nil {
			continue
		}
		p := &i.m.Partitions[k]
		if int64(runs) <= (maxReads-1)*(i.m.DataTiles()*images.TileLength/i.m.PieceLength) {
			continue // even if every run is a request of its own
		}
		tiles, stop, err := c.p.r.pullTiles(ctx, p)
		if err != nil {
			return nil, 0, 0, fmt.Errorf(lookUnreadable, i, err)
		}
		perPiece := i.m.PieceLength / images.TileLength
		var wanted []wantedRecord
		piece := int64(-1)
		count := func() {
			if len(wanted) == 0 {
				return
			}
			n := len(partsOf(wanted))
			reads, pieces = reads+n, pieces+1
			if n > maxReadsKept {
				for s := piece * perPiece / length; s*length < (piece+1)*perPiece; s++ {
					list = append(list, stretchKey{p.Number, s})
				}
			}
			wanted = wanted[:0]
		}
		run := 0
		for rank := int64(0); rank < place.tiles; rank++ {
			t, ok := tiles()
			if !ok {
				break
			}
			if t/perPiece != piece {
				count()
				piece = t / perPiece
			}
			for rank >= place.end(run) {
				run++
			}
			r := place.runs[run]
			n := c.numbers[place.packs[r.pack]]
			u, ordinal := c.packs[n], int64(r.ordinal)+rank-r.start
			wanted = append(wanted, wantedRecord{pack: int(n), start: u.bytes(ordinal), end: u.bytes(ordinal + 1)})
		}
		count()
		stop()
	}
	return list, reads, pieces, nil
}

// pullTiles returns the data tiles of a partition, ascending. The caller calls stop.
func (r *Repository) pullTiles(ctx context.Context, p *images.Partition) (next func() (int64, bool), stop func(), err error) {
	b, err := r.Layer(ctx, p.Map.Digest)
	if err != nil {
		return nil, nil, err
	}
	m, err := images.DecodeMap(b)
	if err != nil {
		return nil, nil, err
	}
	next, stop = iter.Pull(dataTiles(m))
	return next, stop, nil
}

// dataTiles yields the data tiles of a map in ascending order, in one pass over extents and runs.
func dataTiles(m *images.Map) iter.Seq[int64] {
	return func(yield func(int64) bool) {
		z, next := 0, int64(0)
		for _, e := range m.Extents {
			for t := max(e.Offset/images.TileLength, next); t < images.TileCount(e.End()); t++ {
				next = t + 1
				for z < len(m.Zero) && m.Zero[z].First+m.Zero[z].Count <= t {
					z++
				}
				if (z == len(m.Zero) || m.Zero[z].First > t) && !yield(t) {
					return
				}
			}
		}
	}
}

// cursor walks the tiles of one version of a partition.
type cursor struct {
	place *placement
	next  func() (int64, bool)
	tile  int64 // math.MaxInt64 behind the last
	rank  int64
	run   int
}

func (c *cursor) advance() {
	t, ok := c.next()
	if !ok {
		t = endOfTiles
	}
	c.tile = t
	c.rank++
}

// endOfTiles is behind every tile.
const endOfTiles = 1 << 62

// move moves what was chosen of the images of a group.
func (c *compaction) move(ctx context.Context, group []*liveImage) error {
	if !c.touches(group) {
		return nil
	}
	var numbers []int
	for _, i := range group {
		for k := range i.m.Partitions {
			numbers = append(numbers, i.m.Partitions[k].Number)
		}
	}
	slices.Sort(numbers)
	for _, number := range slices.Compact(numbers) {
		if err := c.movePartition(ctx, group, number); err != nil {
			return err
		}
	}
	return nil
}

// touches reports whether anything of the images is to be moved.
func (c *compaction) touches(group []*liveImage) bool {
	if len(c.gather[group[0].name]) > 0 {
		return true
	}
	for _, i := range group {
		for _, place := range i.places {
			if place != nil && slices.ContainsFunc(place.packs, func(id images.Digest) bool { return c.rewrite[c.numbers[id]] }) {
				return true
			}
		}
	}
	return false
}

func (c *compaction) movePartition(ctx context.Context, group []*liveImage, number int) error {
	var cursors []*cursor
	for _, i := range group {
		for k, place := range i.places {
			if place == nil || i.m.Partitions[k].Number != number {
				continue
			}
			next, stop, err := c.p.r.pullTiles(ctx, &i.m.Partitions[k])
			if err != nil {
				return fmt.Errorf(lookUnreadable, i, err)
			}
			defer stop()
			x := &cursor{place: place, next: next, rank: -1}
			x.advance()
			cursors = append(cursors, x)
		}
	}
	length, targets := stretchTiles(group), c.gather[group[0].name]
	for ctx.Err() == nil {
		first := int64(endOfTiles)
		for _, x := range cursors {
			first = min(first, x.tile)
		}
		if first == endOfTiles {
			break
		}
		stretch := first / length
		all := targets[stretchKey{number, stretch}] && c.left > 0
		for _, x := range cursors {
			if err := c.moveStretch(ctx, x, (stretch+1)*length, all); err != nil {
				return err
			}
		}
	}
	return ctx.Err()
}

// moveStretch moves the tiles of one version up to a tile: all, or those in packs that are rewritten.
func (c *compaction) moveStretch(ctx context.Context, x *cursor, end int64, all bool) error {
	for ; x.tile < end; x.advance() {
		if x.rank >= x.place.tiles {
			return fmt.Errorf("a map has more tiles than its placement has, %d", x.place.tiles)
		}
		for x.rank >= x.place.end(x.run) {
			x.run++
		}
		r := x.place.runs[x.run]
		at := recordAt{c.numbers[x.place.packs[r.pack]], r.ordinal + uint32(x.rank-r.start)}
		if c.packs[at.pack].count == 0 || !all && !c.rewrite[at.pack] {
			continue
		}
		if _, known := c.moved[at]; !known && !c.rewrite[at.pack] {
			c.left -= c.packs[at.pack].bytes(1) // those of packs that are rewritten were counted
		}
		if err := c.add(ctx, at); err != nil {
			return err
		}
	}
	return nil
}

// gatheredPrefix is of objects that remember which versions were brought together, so that it is not tried again until one
// comes or goes.
const gatheredPrefix = "prune/gathered/"

func gatheredKey(group []*liveImage) string {
	var b bytes.Buffer
	for _, i := range group {
		b.WriteString(i.digest.String())
	}
	return gatheredPrefix + images.Sum(b.Bytes()).String()
}

// remember notes what was brought together completely, and forgets what is not so any more.
func (c *compaction) remember(ctx context.Context) error {
	current := map[string]bool{}
	for _, group := range c.p.groups() {
		current[gatheredKey(group)] = true
	}
	for name, key := range c.marks {
		if c.left <= 0 {
			c.p.report.Compact.Left++
			continue // perhaps not all of it
		}
		if err := c.p.r.bucket.Put(ctx, key, strings.NewReader(name+"\n"), int64(len(name)+1)); err != nil && !isExists(err) {
			return err
		}
	}
	var old []string
	for o, err := range c.p.r.bucket.List(ctx, gatheredPrefix) {
		if err != nil {
			return err
		}
		if !current[o.Key] {
			old = append(old, o.Key)
		}
	}
	for _, key := range old {
		if err := c.p.claim.delete(ctx, key); err != nil {
			return err
		}
	}
	return nil
}
