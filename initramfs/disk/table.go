package disk

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"

	"seedbed/appliance/job"
	"seedbed/images"
	"seedbed/images/parttable"
)

// LoadFrame fetches the frame of an image, see parttable.LoadFrame.
func LoadFrame(m *images.Manifest, fetch func(images.Ref) ([]byte, error)) ([]parttable.Region, error) {
	return parttable.LoadFrame(m, fetch)
}

// Needed returns the length in bytes of the smallest disk that holds the image and its table.
func Needed(m *images.Manifest, frame []parttable.Region) (int64, error) {
	return parttable.Needed(m, frame)
}

// OldFrame returns what lies on the disk outside its partitions; regions of zeros are left out, there is nothing to keep
// of them. Only reading can fail.
func (d *Device) OldFrame() ([]job.OldFrameRegion, error) {
	regions, err := parttable.Rescue(d, d.Length, d.SectorLength)
	if err != nil {
		return nil, fmt.Errorf("read the old table of disk %s: %w", d.Name, err)
	}
	var out []job.OldFrameRegion
	for _, r := range regions {
		if !isZero(r.Bytes) {
			out = append(out, job.OldFrameRegion{Kind: r.Kind, Offset: r.Offset, Bytes: r.Bytes})
		}
	}
	return out, nil
}

// Wipe makes the disk one without partitions that does not boot, durably.
func (d *Device) Wipe() error {
	ranges, err := parttable.Wipe(d, d.Length, d.SectorLength)
	if err != nil {
		return fmt.Errorf("look for the old table of disk %s: %w", d.Name, err)
	}
	for _, e := range ranges {
		if err := d.Zero(e.Offset, e.Length); err != nil {
			return err
		}
	}
	return d.Sync()
}

// WriteTable writes the frame as it has to be on this disk, the part that makes it boot last and after all else is
// durable, reads it back, and returns the SHA-256 of LBA 0 and both copies of the table as written, in ascending order
// of place. Without a table nothing is written.
func (d *Device) WriteTable(frame []parttable.Region, kind string) (images.Digest, error) {
	return d.writeTable(frame, kind, false)
}

// ReplaceTable is WriteTable on a disk whose present table stays good until the new one is: one region is durable before the next
// is written, so that of a GPT one copy can always be read, and what is right already is not written.
func (d *Device) ReplaceTable(frame []parttable.Region, kind string) (images.Digest, error) {
	return d.writeTable(frame, kind, true)
}

func (d *Device) writeTable(frame []parttable.Region, kind string, present bool) (images.Digest, error) {
	regions, err := parttable.Relocate(frame, kind, d.SectorLength, d.Length)
	if err != nil {
		return images.Digest{}, fmt.Errorf("table for disk %s: %w", d.Name, err)
	}
	for i, r := range regions {
		if present {
			if same, err := d.has([]parttable.Region{r}, ""); err != nil || same {
				if err != nil {
					return images.Digest{}, err
				}
				continue
			}
		}
		if present || i == len(regions)-1 {
			if err := d.Sync(); err != nil {
				return images.Digest{}, err
			}
		}
		if _, err := d.WriteAt(r.Bytes, r.Offset); err != nil {
			return images.Digest{}, err
		}
	}
	if err := d.Sync(); err != nil {
		return images.Digest{}, err
	}
	if err := d.readBackTable(regions); err != nil {
		return images.Digest{}, err
	}
	return tableSum(regions), nil
}

// TableSum returns what WriteTable would return.
func (d *Device) TableSum(frame []parttable.Region, kind string) (images.Digest, error) {
	regions, err := parttable.Relocate(frame, kind, d.SectorLength, d.Length)
	if err != nil {
		return images.Digest{}, fmt.Errorf("table for disk %s: %w", d.Name, err)
	}
	return tableSum(regions), nil
}

// tableSum returns the SHA-256 of LBA 0 and both copies of the table, in ascending order of place. It sorts the regions.
func tableSum(regions []parttable.Region) images.Digest {
	slices.SortFunc(regions, func(a, b parttable.Region) int { return int(a.Offset/512 - b.Offset/512) })
	h := sha256.New()
	for _, r := range regions {
		switch r.Kind {
		case images.RegionLBA0, images.RegionGPT, images.RegionBackup:
			h.Write(r.Bytes)
		}
	}
	return images.Digest(h.Sum(nil))
}

func (d *Device) readBackTable(regions []parttable.Region) (err error) {
	direct, err := d.Direct()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, direct.Close()) }()
	for _, r := range regions {
		b := make([]byte, len(r.Bytes))
		if _, err := direct.ReadAt(b, r.Offset); err != nil {
			return err
		}
		if !bytes.Equal(b, r.Bytes) {
			return fmt.Errorf("disk %s returned other bytes than were written to its partition table; it is faulty: replace it "+
				"and deploy again", d.Name)
		}
	}
	return nil
}
