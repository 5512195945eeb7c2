package restore

import (
	"context"
	"errors"

	"seedbed/images"
)

// readBack compares what was written with what the disk returns.
func (w *repair) readBack(ctx context.Context) (err error) {
	direct, past, err := w.disk.Direct()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, direct.Close()) }()
	w.result.Past = past
	c := &comparison{image: w.image, disk: direct}
	if err := c.compare(ctx, func(piece int) images.TileSet { return w.written[piece] }); err != nil {
		return err
	}
	again := &Difference{image: w.image, wrong: c.wrong, failed: c.failed}
	if list, _ := again.Ranges(1); len(list) > 0 {
		return &ReadBackError{list[0]}
	}
	return nil
}

// last writes the tile that was held back, durably.
func (w *repair) last(ctx context.Context) error {
	before := w.written
	w.written = map[int]images.TileSet{}
	disk := w.disk
	first := &lastly{Disk: disk, sector: int64(w.image.manifest.SectorLength)}
	w.disk = first
	err := w.run(ctx, *w.held, nil)
	w.disk = disk
	if err == nil {
		err = first.write()
	}
	if err != nil {
		return err
	}
	if err := w.disk.Sync(); err != nil {
		return err
	}
	if err := w.readBack(ctx); err != nil {
		return err
	}
	before[w.held.piece] = before[w.held.piece].Union(w.written[w.held.piece])
	w.written = before
	return nil
}

// frame writes the sectors of the frame that differ, those of the last region after all else is durable, and reads them
// back.
func (w *repair) frame() (err error) {
	if len(w.Difference.frame) == 0 {
		return nil
	}
	for n, r := range w.table {
		if n == len(w.table)-1 {
			if err := w.disk.Sync(); err != nil {
				return err
			}
		}
		for _, e := range w.Difference.frame[n] {
			if _, err := w.disk.WriteAt(r.Bytes[e.Offset-r.Offset:e.End()-r.Offset], e.Offset); err != nil {
				return err
			}
			w.result.Length += e.Length
		}
	}
	if err := w.disk.Sync(); err != nil {
		return err
	}
	direct, past, err := w.disk.Direct()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, direct.Close()) }()
	w.result.Past = past
	for _, r := range w.table {
		if list := differing(direct, r, int64(w.image.manifest.SectorLength)); len(list) > 0 {
			return &ReadBackError{Range{-1, list[0].Offset, list[0].Length, r.Kind}}
		}
	}
	return nil
}
