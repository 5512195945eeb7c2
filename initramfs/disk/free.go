package disk

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"

	"seedbed/images"
	"seedbed/images/parttable"
)

// FreeExtents returns the bytes of the disk that no file of the image uses and that are outside its table, ascending: free space of
// the partitions that are written, and what lies in no partition. Partitions that are kept, or that the image has in its table only,
// are left out.
func (s *Storage) FreeExtents(m *images.Manifest, frame []parttable.Region) ([]images.Extent, error) {
	busy, err := s.busy(m, frame)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(busy, func(a, b images.Extent) int { return cmp.Compare(a.Offset, b.Offset) })
	var free []images.Extent
	at := int64(0)
	for _, e := range busy {
		if e.Offset > at {
			free = append(free, images.Extent{Offset: at, Length: e.Offset - at})
		}
		at = max(at, e.End())
	}
	if at < s.dev.Length {
		free = append(free, images.Extent{Offset: at, Length: s.dev.Length - at})
	}
	return free, nil
}

// busy returns what FreeExtents leaves out, in no order.
func (s *Storage) busy(m *images.Manifest, frame []parttable.Region) (busy []images.Extent, err error) {
	written := map[images.Extent]bool{} // partitions, as bytes of the disk
	for i := range m.Partitions {
		p := &m.Partitions[i]
		whole := images.Extent{Offset: p.Offset, Length: p.Length}
		if written[whole] = !s.keeps(i); s.keeps(i) {
			busy = append(busy, whole)
			continue
		}
		for _, e := range s.layout.Map(i).Extents {
			busy = append(busy, images.Extent{Offset: p.Offset + e.Offset, Length: e.Length})
		}
	}
	if m.Frame.Table == parttable.None {
		return busy, nil
	}
	regions, err := parttable.Relocate(frame, m.Frame.Table, s.dev.SectorLength, s.dev.Length)
	if err != nil {
		return nil, fmt.Errorf("table for disk %s: %w", s.dev.Name, err)
	}
	for _, r := range regions {
		busy = append(busy, images.Extent{Offset: r.Offset, Length: int64(len(r.Bytes))})
	}
	table, err := parttable.Read(overlay(regions), s.dev.Length, s.dev.SectorLength)
	if err != nil {
		return nil, fmt.Errorf("table for disk %s: %w", s.dev.Name, err)
	}
	for _, e := range table.Partitions {
		if whole := (images.Extent{Offset: e.Offset, Length: e.Length}); !written[whole] {
			busy = append(busy, whole)
		}
	}
	return busy, nil
}

// overlay reads the bytes of a frame as if they lay on a disk of zeros.
type overlay []parttable.Region

// ReadAt implements io.ReaderAt.
func (o overlay) ReadAt(b []byte, offset int64) (int, error) {
	if offset < 0 {
		return 0, io.EOF
	}
	clear(b)
	want := images.Extent{Offset: offset, Length: int64(len(b))}
	for _, r := range o {
		if e := (images.Extent{Offset: r.Offset, Length: int64(len(r.Bytes))}).Intersect(want); e.Length > 0 {
			copy(b[e.Offset-offset:e.End()-offset], r.Bytes[e.Offset-r.Offset:])
		}
	}
	return len(b), nil
}

// ZeroFree makes byte ranges of the disk zeros. progress is called with the bytes of each range, on the caller's goroutine.
func (s *Storage) ZeroFree(ctx context.Context, free []images.Extent, progress func(int64)) error {
	return inRuns(ctx, free, s.zeroRun, func(offset, length int64) error {
		if err := s.zero(offset, length); err != nil {
			return err
		}
		progress(length)
		return nil
	})
}

// inRuns calls f with parts of extents of at most run bytes, until ctx ends.
func inRuns(ctx context.Context, list []images.Extent, run int64, f func(offset, length int64) error) error {
	for _, e := range list {
		for e.Length > 0 {
			if err := ctx.Err(); err != nil {
				return context.Cause(ctx)
			}
			n := min(e.Length, run)
			if err := f(e.Offset, n); err != nil {
				return err
			}
			e.Offset, e.Length = e.Offset+n, e.Length-n
		}
	}
	return nil
}

// discardRun is how much is discarded in one request, in bytes.
const discardRun = 1 << 30

// Discard gives byte ranges back to the disk, which may forget them: their content is not defined from then on. Parts of sectors
// are left out. progress is called with the bytes of each range, on the caller's goroutine.
func (d *Device) Discard(ctx context.Context, free []images.Extent, progress func(int64)) error {
	return inRuns(ctx, d.wholeSectors(free), discardRun, func(offset, length int64) error {
		if err := d.discard(offset, length, unix.BLKDISCARD); err != nil {
			return err
		}
		progress(length)
		return nil
	})
}

// SecureDiscard is Discard by which the disk erases its copies of the data too (linux/fs.h, BLKSECDISCARD).
func (d *Device) SecureDiscard(ctx context.Context, free []images.Extent, progress func(int64)) error {
	return inRuns(ctx, d.wholeSectors(free), discardRun, func(offset, length int64) error {
		if err := d.discard(offset, length, unix.BLKSECDISCARD); err != nil {
			return err
		}
		progress(length)
		return nil
	})
}

func (d *Device) wholeSectors(list []images.Extent) (whole []images.Extent) {
	sector := int64(d.SectorLength)
	for _, e := range list {
		start, end := (e.Offset+sector-1)/sector*sector, e.End()/sector*sector
		if end > start {
			whole = append(whole, images.Extent{Offset: start, Length: end - start})
		}
	}
	return whole
}

// ErrNoDiscard says that a disk cannot do that.
var ErrNoDiscard = errors.New("the disk does not know the request")

// discard asks for one request of two 64-bit numbers, offset and length in bytes. A file gets a hole for BLKDISCARD.
func (d *Device) discard(offset, length int64, request uint) error {
	if err := d.inside(offset, length); err != nil {
		return err
	}
	end, err := d.begin(Change{Offset: offset, Length: length})
	if err != nil {
		return err
	}
	defer end()
	if !d.block {
		if request != unix.BLKDISCARD {
			return ErrNoDiscard
		}
		err = unix.Fallocate(int(d.f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, offset, length)
	} else {
		arg := [2]uint64{uint64(offset), uint64(length)}
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, d.f.Fd(), uintptr(request), uintptr(unsafe.Pointer(&arg[0]))); errno != 0 {
			err = errno
		}
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOTTY), errors.Is(err, unix.EINVAL):
		return ErrNoDiscard
	}
	return fmt.Errorf("discard bytes of disk %s at byte %d: %w", d.Name, offset, err)
}

// CanDiscard reports whether the disk takes discards, as the kernel knows it (sysfs, queue/discard_max_bytes). A file does.
func (d *Device) CanDiscard() bool {
	return !d.block || readInt(d.queue, "discard_max_bytes") > 0
}
