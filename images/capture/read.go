package capture

import (
	"bytes"
	"context"
	"fmt"
	"io"

	"golang.org/x/sync/errgroup"

	"seedbed/images"
	"seedbed/images/intake"
	"seedbed/images/tile"
)

// unitTiles is how many tiles are read at once: 1 MiB, which is near a disk's full rate.
const unitTiles = 16

// unit is a run of used tiles on its way through the workers.
type unit struct {
	first int64 // tile of the partition
	count int
	done  chan struct{} // closed when tiles is set
	tiles []readTile
}

// readTile is one used tile.
type readTile struct {
	zero  bool
	key   images.TileKey
	known bool // the sink holds it; else encoded is set
	tile  tile.Encoded
}

// read reads a partition. Workers read, hash and compress units at once; one goroutine stores the tiles in the order of
// the disk, so that a pack can later be read in that order too.
func (c *capture) read(ctx context.Context, p *part) error {
	group, ctx := errgroup.WithContext(ctx)
	work := make(chan *unit)
	order := make(chan *unit, 2*c.o.Workers) // bounds the units in memory
	group.Go(func() error {
		defer close(work)
		defer close(order)
		return eachUnit(p.m, func(u *unit) error {
			for _, to := range []chan *unit{order, work} {
				select {
				case to <- u:
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			return nil
		})
	})
	// Workers must not see the zero runs that store adds.
	used := &images.Map{Length: p.m.Length, Extents: p.m.Extents}
	for range c.o.Workers {
		group.Go(func() error {
			buf := make([]byte, unitTiles*images.TileLength)
			for u := range work {
				if err := c.readUnit(ctx, p, used, u, buf); err != nil {
					return err
				}
				close(u.done)
			}
			return nil
		})
	}
	group.Go(func() error {
		for u := range order {
			select {
			case <-u.done:
			case <-ctx.Done():
				return ctx.Err()
			}
			if err := c.store(ctx, p, u); err != nil {
				return err
			}
		}
		return nil
	})
	return group.Wait()
}

// usedTiles counts the tiles that have a used byte.
func usedTiles(m *images.Map) (n int64) {
	_ = eachUnit(m, func(u *unit) error { n += int64(u.count); return nil })
	return n
}

// eachUnit yields the tiles that have a used byte, in order.
func eachUnit(m *images.Map, yield func(*unit) error) error {
	next, end := int64(0), int64(0) // the run of used tiles gathered so far
	flush := func() error {
		for ; next < end; next += unitTiles {
			u := &unit{first: next, count: int(min(unitTiles, end-next)), done: make(chan struct{})}
			if err := yield(u); err != nil {
				return err
			}
		}
		return nil
	}
	for _, e := range m.Extents {
		first, last := e.Offset/images.TileLength, images.TileCount(e.End())
		if first > end {
			if err := flush(); err != nil {
				return err
			}
			next = first
		}
		end = last
	}
	return flush()
}

// readUnit reads, hashes and compresses the tiles of a unit. buf holds a unit.
func (c *capture) readUnit(ctx context.Context, p *part, used *images.Map, u *unit, buf []byte) error {
	start := u.first * images.TileLength
	buf = buf[:min(int64(u.count)*images.TileLength, p.m.Length-start)]
	if err := c.readUsed(p, used, buf, start); err != nil {
		return err
	}
	u.tiles = make([]readTile, 0, u.count)
	var keys []images.TileKey
	for rest := buf; len(rest) > 0; {
		raw := rest[:min(images.TileLength, len(rest))]
		rest = rest[len(raw):]
		if bytes.Equal(raw, zeros[:len(raw)]) {
			u.tiles = append(u.tiles, readTile{zero: true})
			continue
		}
		u.tiles = append(u.tiles, readTile{key: tile.KeyOf(raw)})
		keys = append(keys, u.tiles[len(u.tiles)-1].key)
	}
	known, err := c.sink.Have(ctx, keys)
	if err != nil {
		return err
	}
	for i := range u.tiles {
		t := &u.tiles[i]
		if t.zero {
			continue
		}
		if t.known, known = known[0], known[1:]; t.known {
			continue
		}
		raw := buf[i*images.TileLength : min((i+1)*images.TileLength, len(buf))]
		if t.tile, err = tile.Encode(c.o.Codec, c.o.Level, raw); err != nil {
			return err
		}
	}
	return nil
}

var zeros [images.TileLength]byte

// readUsed fills b with the masked bytes of the partition from start on. Extents with less than a tile between them are
// read in one call.
func (c *capture) readUsed(p *part, used *images.Map, b []byte, start int64) error {
	var spans []images.Extent
	for _, e := range used.Used(nil, images.Extent{Offset: start, Length: int64(len(b))}) {
		if k := len(spans) - 1; k >= 0 && e.Offset-spans[k].End() < images.TileLength {
			spans[k].Length = e.End() - spans[k].Offset
		} else {
			spans = append(spans, e)
		}
	}
	for _, e := range spans {
		part := b[e.Offset-start : e.End()-start]
		if n, err := c.src.ReadAt(part, p.entry.Offset+e.Offset); n < len(part) {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return fmt.Errorf("read bytes %v: %w", e, err)
		}
	}
	used.Mask(b, start)
	return nil
}

// store puts the tiles of a unit and enters them into the partition.
func (c *capture) store(ctx context.Context, p *part, u *unit) error {
	var fresh []intake.Tile
	for i, t := range u.tiles {
		n := u.first + int64(i)
		length := min(images.TileLength, p.m.Length-n*images.TileLength)
		if t.zero {
			c.result.ZeroLength += length
			if k := len(p.m.Zero) - 1; k >= 0 && p.m.Zero[k].First+p.m.Zero[k].Count == n {
				p.m.Zero[k].Count++
			} else {
				p.m.Zero = append(p.m.Zero, images.TileRun{First: n, Count: 1})
			}
			continue
		}
		if !t.known {
			fresh = append(fresh, intake.Tile{Key: t.key, Encoded: t.tile})
			c.result.NewTiles++
			c.result.NewLength += int64(len(t.tile.Bytes))
		}
		c.result.DataLength += length
		p.hashes = append(p.hashes, t.key.Hash[:]...)
	}
	if len(fresh) > 0 {
		if err := c.sink.Put(ctx, fresh); err != nil {
			return err
		}
	}
	u.tiles = nil
	c.done.Partition = p.entry.Number
	c.done.Done += int64(u.count) * images.TileLength
	if c.o.Progress != nil {
		c.o.Progress(c.done)
	}
	return nil
}
