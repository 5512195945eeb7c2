package disk

import (
	"context"
	"errors"
	"math/rand/v2"

	"seedbed/images"
)

// CodeWipe is why a disk does not count as wiped: it returned other bytes than zeros.
const CodeWipe = "wipe-error"

// Everything is the whole disk.
func (d *Device) Everything() []images.Extent { return []images.Extent{{Length: d.Length}} }

// ZeroAll makes the whole disk zeros, durably. progress is called with the bytes of each range; it may block, and an error of it
// ends the work.
func (d *Device) ZeroAll(ctx context.Context, progress func(int64) error) error {
	err := inRuns(ctx, d.Everything(), zeroRun, func(offset, length int64) error {
		if err := d.Zero(offset, length); err != nil {
			return err
		}
		return progress(length)
	})
	if err != nil {
		return err
	}
	return d.Sync()
}

// Places that are read after a wipe: the first and the last MiB, and so many of 64 KiB at random.
const (
	blankSamples = 1024
	blankLength  = 64 << 10
	blankEnds    = 1 << 20
)

// Blank reads places all over the disk, past the page cache, and returns how many and how many bytes; at is where the first byte
// lies that is not zero, -1 if there is none. Flush first.
func (d *Device) Blank(ctx context.Context) (samples int, bytes, at int64, err error) {
	r, err := d.Direct()
	if err != nil {
		return 0, 0, -1, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	buf, free, err := newAligned(blankEnds)
	if err != nil {
		return 0, 0, -1, err
	}
	defer func() { err = errors.Join(err, free()) }()
	ends := min(blankEnds, d.Length)
	places := []images.Extent{{Length: ends}, {Offset: d.Length - ends, Length: ends}}
	for range blankSamples {
		length := min(blankLength, d.Length)
		if sectors := (d.Length - length) / directAlign; sectors > 0 {
			places = append(places, images.Extent{Offset: rand.Int64N(sectors) * directAlign, Length: length})
		}
	}
	for _, e := range places {
		if err := ctx.Err(); err != nil {
			return samples, bytes, -1, context.Cause(ctx)
		}
		b := buf[:e.Length]
		if _, err := r.ReadAt(b, e.Offset); err != nil {
			return samples, bytes, -1, err
		}
		for i, c := range b {
			if c != 0 {
				return samples, bytes, e.Offset + int64(i), nil
			}
		}
		samples, bytes = samples+1, bytes+e.Length
	}
	return samples, bytes, -1, nil
}
