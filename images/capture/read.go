package capture

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"seedbed/images"
	"seedbed/images/intake"
	"seedbed/images/tile"
)

// usedTiles counts the tiles that have a used byte.
func usedTiles(m *images.Map) (n int64) {
	data, zero := m.CountTiles()
	return data + zero
}

// eachRun yields the tiles that have a used byte, in order, as runs of at most a unit.
func eachRun(m *images.Map, yield func(first int64, count int) error) error {
	next, end := int64(0), int64(0) // the run of used tiles gathered so far
	flush := func() error {
		for ; next < end; next += unitTiles {
			if err := yield(next, int(min(unitTiles, end-next))); err != nil {
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

var zeros [images.TileLength]byte

// readUnit reads and hashes the tiles of a unit.
func (c *capture) readUnit(u *unit) error {
	if u.raw == nil {
		u.raw = make([]byte, unitTiles*images.TileLength)
	}
	start := u.first * images.TileLength
	b := u.raw[:min(int64(u.count)*images.TileLength, u.part.used.Length-start)]
	if err := c.readUsed(u.part, b, start); err != nil {
		return fmt.Errorf("partition %d: %w", u.part.entry.Number, err)
	}
	for ; len(b) > 0; b = b[min(images.TileLength, len(b)):] {
		raw := b[:min(images.TileLength, len(b))]
		if bytes.Equal(raw, zeros[:len(raw)]) {
			u.tiles = append(u.tiles, readTile{})
			continue
		}
		u.tiles = append(u.tiles, readTile{key: tile.KeyOf(raw)})
	}
	return nil
}

// encodeUnit compresses the tiles of a unit that the sink does not hold, in their place.
func (c *capture) encodeUnit(u *unit) (err error) {
	for i := range u.tiles {
		t := &u.tiles[i]
		if t.key.Length == 0 || t.known {
			continue
		}
		raw := u.raw[i*images.TileLength:][:t.key.Length]
		if t.tile, err = tile.EncodeInPlace(c.o.Codec, c.o.Level, raw); err != nil {
			return err
		}
	}
	return nil
}

// readUsed fills b with the masked bytes of the partition from start on. Extents with less than a tile between them are
// read in one call.
func (c *capture) readUsed(p *part, b []byte, start int64) error {
	var room [64]images.Extent
	var spans []images.Extent
	for _, e := range p.used.Used(room[:0], images.Extent{Offset: start, Length: int64(len(b))}) {
		if k := len(spans) - 1; k >= 0 && e.Offset-spans[k].End() < images.TileLength {
			spans[k].Length = e.End() - spans[k].Offset
		} else {
			spans = append(spans, e)
		}
	}
	for _, e := range spans {
		if err := c.readSpan(p, b[e.Offset-start:e.End()-start], e.Offset); err != nil {
			return err
		}
	}
	p.used.Mask(b, start)
	return nil
}

// patient tries once more what cannot be read. Once ctx is done it reads no more, whoever asks.
type patient struct {
	io.ReaderAt
	ctx context.Context
}

func (p patient) ReadAt(b []byte, offset int64) (int, error) {
	if err := p.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := p.ReaderAt.ReadAt(b, offset)
	if err != nil && !errors.Is(err, io.EOF) {
		n, err = p.ReaderAt.ReadAt(b, offset)
	}
	return n, err
}

// readSpan fills b with the bytes of the partition from offset on. Its error names the first 4 KiB that cannot be read.
func (c *capture) readSpan(p *part, b []byte, offset int64) error {
	err := c.readAt(b, p.entry.Offset+offset)
	if err == nil {
		return nil
	}
	const step = 4096
	for at := 0; at < len(b); at += step {
		some := b[at:min(at+step, len(b))]
		if err = c.readAt(some, p.entry.Offset+offset+int64(at)); err != nil {
			bad := images.Extent{Offset: offset + int64(at), Length: int64(len(some))}
			return fmt.Errorf("read bytes %v, byte %d of the disk: %w", bad, p.entry.Offset+bad.Offset, err)
		}
	}
	return nil
}

// errCut says that a disk has fewer bytes than it should.
var errCut = errors.New("the source ends before: it is cut off")

func (c *capture) readAt(b []byte, offset int64) error {
	n, err := c.src.ReadAt(b, offset)
	switch {
	case n == len(b):
		return nil
	case err == nil || errors.Is(err, io.EOF):
		return errCut
	}
	return err
}

// enter enters the tiles of a unit into its partition and appends those to be stored to fresh.
func (c *capture) enter(u *unit, fresh []intake.Tile) []intake.Tile {
	p := u.part
	for i := range u.tiles {
		t, n := &u.tiles[i], u.first+int64(i)
		if t.key.Length == 0 {
			c.result.ZeroLength += min(images.TileLength, p.used.Length-n*images.TileLength)
			if k := len(p.zero) - 1; k >= 0 && p.zero[k].First+p.zero[k].Count == n {
				p.zero[k].Count++
			} else {
				p.zero = append(p.zero, images.TileRun{First: n, Count: 1})
			}
			continue
		}
		if !t.known {
			fresh = append(fresh, intake.Tile{Key: t.key, Encoded: t.tile})
			c.result.NewTiles++
			c.result.NewLength += int64(len(t.tile.Bytes))
		}
		c.result.DataLength += int64(t.key.Length)
		p.hashes = append(p.hashes, t.key.Hash[:]...)
	}
	return fresh
}

// told reports a unit as done.
func (c *capture) told(u *unit) {
	c.done.Partition = u.part.entry.Number
	c.done.Done += int64(u.count) * images.TileLength
	c.done.NewLength = c.result.NewLength
	if c.o.Progress != nil {
		c.o.Progress(c.done)
	}
}
