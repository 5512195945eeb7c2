package capture

import (
	"context"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"seedbed/images"
	"seedbed/images/intake"
	"seedbed/images/tile"
)

// A unit goes round: produce cuts the used tiles of all partitions into units -> a worker reads and hashes it -> an asker
// asks the sink which tiles it holds, together with the units that became ready meanwhile -> a worker compresses the
// others -> store puts units in the order of the disk, so that a pack can later be read in that order too, and gives the
// unit's memory back. The units bound the memory.

const (
	// unitTiles is how many tiles are read at once: 1 MiB, which is near a disk's full rate.
	unitTiles = 16
	// maxUnits bounds the units under way: 64 MiB, which the Go heap may double.
	maxUnits = 64
	// askers is how many calls of Have are under way at once.
	askers = 2
)

// unit is a run of used tiles of one partition.
type unit struct {
	part  *part
	first int64 // tile of the partition
	count int
	raw   []byte // of unitTiles tiles; later their encoded bytes
	tiles []readTile
	done  chan struct{} // gets a value when tiles is complete
}

// readTile is one used tile. Its key has no length if the tile is zero.
type readTile struct {
	key   images.TileKey
	known bool // the sink holds it; else tile is set
	tile  tile.Encoded
}

// pipeline is the reading of one disk.
type pipeline struct {
	c                               *capture
	free, work, order, hashed, todo chan *unit
	reading, asking                 atomic.Int32 // workers that still read, askers that still ask
}

// read reads all partitions.
func (c *capture) read(ctx context.Context) error {
	n := min(4*c.o.Workers+32, maxUnits)
	l := &pipeline{c: c, work: make(chan *unit)}
	for _, to := range []*chan *unit{&l.free, &l.order, &l.hashed, &l.todo} {
		*to = make(chan *unit, n) // none of them ever blocks who sends
	}
	for range n {
		l.free <- &unit{tiles: make([]readTile, 0, unitTiles), done: make(chan struct{}, 1)}
	}
	l.reading.Store(int32(c.o.Workers))
	l.asking.Store(askers)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return l.produce(ctx) })
	for range c.o.Workers {
		group.Go(func() error { return l.workOn(ctx) })
	}
	for range askers {
		group.Go(func() error { return l.ask(ctx) })
	}
	group.Go(func() error { return l.store(ctx) })
	return group.Wait()
}

// receive takes a unit from a channel; nil when that is closed.
func receive(ctx context.Context, from chan *unit) (*unit, error) {
	select {
	case u := <-from:
		return u, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// produce hands out the units of all partitions in order.
func (l *pipeline) produce(ctx context.Context) error {
	defer close(l.work)
	defer close(l.order)
	for _, p := range l.c.parts {
		err := eachRun(p.used, func(first int64, count int) error {
			u, err := receive(ctx, l.free)
			if err != nil {
				return err
			}
			u.part, u.first, u.count, u.tiles = p, first, count, u.tiles[:0]
			l.order <- u
			select {
			case l.work <- u:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// workOn compresses units that were asked for, before it reads new ones.
func (l *pipeline) workOn(ctx context.Context) error {
	for work := l.work; ; {
		var u *unit
		var open bool
		select {
		case u, open = <-l.todo:
		default:
			select {
			case u, open = <-l.todo:
			case next, more := <-work:
				if !more {
					work = nil
					if l.reading.Add(-1) == 0 {
						close(l.hashed)
					}
					continue
				}
				if err := l.c.readUnit(next); err != nil {
					return err
				}
				l.hashed <- next
				continue
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if !open {
			return nil // the last asker has gone, and so nothing is left to read either
		}
		if err := l.c.encodeUnit(u); err != nil {
			return err
		}
		u.done <- struct{}{}
	}
}

// ask asks the sink for the units that are hashed, as many together as there are.
func (l *pipeline) ask(ctx context.Context) error {
	var units []*unit
	var keys []images.TileKey
	for {
		u, err := receive(ctx, l.hashed)
		if err != nil {
			return err
		}
		if u == nil {
			if l.asking.Add(-1) == 0 {
				close(l.todo)
			}
			return nil
		}
		units, keys = units[:0], keys[:0]
		for u != nil {
			units = append(units, u)
			for i := range u.tiles {
				if t := &u.tiles[i]; t.key.Length > 0 {
					keys = append(keys, t.key)
				}
			}
			u = nil
			if len(keys) <= intake.MaxHave-unitTiles {
				select {
				case u = <-l.hashed:
				default:
				}
			}
		}
		if err := l.answer(ctx, units, keys); err != nil {
			return err
		}
	}
}

// answer asks for keys, which are those of the units' tiles, and passes the units on.
func (l *pipeline) answer(ctx context.Context, units []*unit, keys []images.TileKey) error {
	var known []bool
	if len(keys) > 0 {
		var err error
		if known, err = l.c.sink.Have(ctx, keys); err != nil {
			return err
		}
	}
	for _, u := range units {
		for i := range u.tiles {
			if t := &u.tiles[i]; t.key.Length > 0 {
				t.known, known = known[0], known[1:]
			}
		}
		l.todo <- u
	}
	return nil
}

// store puts the units in the order of the disk: as many together as are ready, but never so many that none is left for
// the others.
func (l *pipeline) store(ctx context.Context) error {
	const most = intake.MaxPutTiles / unitTiles
	var units []*unit
	var fresh []intake.Tile
	put := func() error {
		if len(fresh) > 0 {
			if err := l.c.sink.Put(ctx, fresh); err != nil {
				return err
			}
		}
		for _, u := range units {
			l.c.told(u)
			l.free <- u
		}
		units, fresh = units[:0], fresh[:0]
		return nil
	}
	for u := range l.order {
		select {
		case <-u.done:
		default:
			if err := put(); err != nil {
				return err
			}
			select {
			case <-u.done:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		units, fresh = append(units, u), l.c.enter(u, fresh)
		if err := l.c.full(); err != nil {
			return err
		}
		if len(units) == most {
			if err := put(); err != nil {
				return err
			}
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return put()
}
