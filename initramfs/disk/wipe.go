package disk

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"

	"seedbed/images"
)

// CodeWipe is why a disk does not count as wiped: it returned other bytes than zeros.
const CodeWipe = "wipe-error"

// ChooseWipe returns the disk to wipe: the one with the serial number or WWN, or else the only fixed one. A removable, read-only
// or USB disk is never chosen, nor one of several: where it waited for the others to go, a cable that comes off would choose.
func ChooseWipe(disks []Disk, serial string) (Disk, *Refusal) {
	var fixed []Disk
	for _, d := range disks {
		if !d.Removable && !d.ReadOnly && d.Bus != "usb" && (serial == "" || d.Serial == serial || d.WWN == serial) {
			fixed = append(fixed, d)
		}
	}
	switch {
	case len(fixed) == 1:
		return fixed[0], nil
	case len(fixed) > 1:
		return Disk{}, &Refusal{Code: CodeAmbiguous, Sentence: fmt.Sprintf("%d disks could be wiped: %s. Nothing was written. Order "+
			"the wipe again and name the disk's serial number, or take the other disks out and order it again.", len(fixed), names(fixed))}
	case serial != "":
		return Disk{}, &Refusal{Code: CodeNoDisk, Wait: true, Sentence: fmt.Sprintf("no fixed disk here has the serial number %s, which the order "+
			"to wipe names; there is: %s. Nothing was written. Put that disk in, or order the wipe again with another serial number.",
			serial, names(disks))}
	}
	return Disk{}, &Refusal{Code: CodeNoDisk, Wait: true, Sentence: fmt.Sprintf("no fixed disk was found to be wiped; there is: %s. Check the "+
		"disk's cable, and set the storage controller to AHCI or NVMe in the firmware if it is set to RAID.", names(disks))}
}

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
