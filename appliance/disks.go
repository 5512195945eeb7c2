package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"seedbed/appliance/api"
	"seedbed/appliance/fleet"
	"seedbed/images"
	"seedbed/images/parttable"
	"seedbed/images/restore"
)

// Codes of refusals about disks that are held against an image.
const (
	codeDiskUnusable = "disk-unusable" // it cannot be opened, or is in use
	codeDiskUnfit    = "disk-unfit"    // too small, or other sectors
	codeDiskWrong    = "disk-wrong"
)

// content opens an image, whose signature is checked, to be held against disks.
func (l *library) content(ctx context.Context, ref string) (*restore.Image, images.Digest, error) {
	image, err := l.image(ctx, ref)
	if err != nil {
		return nil, images.Digest{}, err
	}
	reader, err := l.repo.OpenImage(ctx, image.Digest)
	if err != nil {
		return nil, image.Digest, asRefusal(err)
	}
	i, err := restore.New(image.Manifest, reader.Layout(), reader, func(r images.Ref) ([]byte, error) { return l.repo.Layer(ctx, r.Digest) })
	return i, image.Digest, err
}

// asProgress makes restore's reports of progress the API's.
func asProgress(progress func(api.Progress)) restore.Progress {
	if progress == nil {
		return nil
	}
	return func(done, total int64) { progress(api.Progress{Done: done, Total: total}) }
}

// CheckDisk implements api.Disks.
func (l *library) CheckDisk(ctx context.Context, ref string, o api.DiskOrder, progress func(api.Progress)) (*api.DiskReport, error) {
	image, digest, err := l.content(ctx, ref)
	if err != nil {
		return nil, err
	}
	if o.HealFrom != "" { // it may be needed only late
		other, err := restore.Open(o.HealFrom, false)
		if err != nil {
			return nil, diskRefusal(err)
		}
		other.Close()
	}
	disk, err := restore.Open(o.Path, o.Repair)
	if err != nil {
		return nil, diskRefusal(err)
	}
	defer disk.Close()
	if err := image.Fits(disk.Length, disk.SectorLength); err != nil {
		return nil, diskRefusal(fmt.Errorf("%s: %w", o.Path, err))
	}
	d, err := image.Compare(ctx, disk, disk.Length, asProgress(progress))
	if err != nil {
		return nil, err
	}
	report := &api.DiskReport{Image: image.Name(), Digest: digest, Path: o.Path, DiskLength: disk.Length, Compared: image.UsedTiles()}
	report.WrongTiles, report.WrongLength, report.WrongFrame = d.Count()
	if report.Ranges, report.More = d.Ranges(api.MaxRanges); report.Ranges == nil {
		report.Ranges = []restore.Range{}
	}
	if d.IsEmpty() || !o.Repair {
		return report, nil
	}
	l.log.Info("disk is being repaired", "device", o.Path, "image", image.Name(), "tiles", report.WrongTiles)
	done, err := d.Repair(ctx, disk, asProgress(progress))
	if err != nil {
		return nil, diskRefusal(fmt.Errorf("repair %s: %w", o.Path, err))
	}
	report.Repair = &api.DiskRepair{Tiles: done.Tiles, Length: done.Length, FromDisk: done.Past}
	left := done.Left
	if len(left) > 0 {
		if left, err = l.repairRest(ctx, digest, o, disk, done, report.Repair); err != nil {
			return nil, diskRefusal(fmt.Errorf("repair %s: %w", o.Path, err))
		}
	}
	for _, e := range left {
		report.Repair.Left = append(report.Repair.Left, e.Error())
	}
	if report.WrongFrame > 0 && len(left) == 0 {
		if err := disk.RereadTable(); err != nil {
			l.log.Warn("the kernel still has the old partitions of this disk", "device", o.Path, "err", err)
		}
	}
	return report, nil
}

// Export implements api.Disks.
func (l *library) Export(ctx context.Context, ref string, length int64, out api.DiskOutput) error {
	image, _, err := l.content(ctx, ref)
	if err != nil {
		return err
	}
	if length == 0 {
		length = image.DiskLength()
	}
	if err := image.Fits(length, 0); err != nil {
		return diskRefusal(fmt.Errorf("export image %s: %w", image.Name(), err))
	}
	if err := out.Begin(length, image.DataLength()); err != nil {
		return err
	}
	return diskRefusal(image.Stream(ctx, length, out.Write, nil))
}

// diskRefusal gives the errors about a disk that an operator can act on their code; others it leaves.
func diskRefusal(err error) error {
	code, remedy := "", ""
	_, sectors := errors.AsType[*restore.SectorError](err)
	_, readBack := errors.AsType[*restore.ReadBackError](err)
	_, damage := errors.AsType[*restore.DamageError](err)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, restore.ErrInUse), errors.Is(err, restore.ErrNoDisk), errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission):
		code = codeDiskUnusable
	case errors.Is(err, parttable.ErrTooSmall), errors.Is(err, restore.ErrLength), sectors:
		code, remedy = codeDiskUnfit, "; nothing was written"
	case readBack:
		code, remedy = codeDiskWrong, "; replace it"
	case damage:
		code, remedy = codeDamaged, "; `seedbed image verify --heal` looks for another copy"
	default:
		return err
	}
	return &fleet.Refusal{Code: code, Detail: err.Error() + remedy}
}
