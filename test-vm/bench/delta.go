package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"text/tabwriter"

	"github.com/klauspost/compress/zstd"

	"seedbed/images"
	"seedbed/images/capture"
	"seedbed/images/repository"
	"seedbed/images/tile"
)

// deltaTargets bound what a second version costs, as multiples of the compressed 4 KiB regions that changed.
var deltaTargets = []struct {
	fs    string
	ratio float64
}{{"ext4", 1.5}, {"ntfs", 2.3}}

// regionLength is the unit in which file systems change their content, in bytes.
const regionLength = 4096

// deltaResult is one file system, in bytes.
type deltaResult struct {
	used             int64
	regions          int64 // 4 KiB regions in use that are not zero, and differ
	stream, separate int64 // the same, compressed: as one stream, and 64 KiB at a time as tiles are
	tiles, tileBytes int64 // tiles that differ, decoded and as they travel
	growth           int64 // of the repository
	update           updateReport
}

// benchDelta captures an aged file system before and after an update.
func benchDelta(ctx context.Context, s settings) error {
	fmt.Printf("disk of %.1f GB with an aged file system; %.0f %% of the bytes replaced, files deleted, logs appended, temporary files\n\n",
		float64(s.aged)/1e9, 100*replacedShare)
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "\tused MB\tpackages\tfiles\treplaced\tchanged 4 KiB\tcompressed\tas tiles\tdiffering tiles\twire\tstored\twire x\tstored x\ttarget\t")
	var short []error
	for _, target := range deltaTargets {
		r, err := deltaOf(ctx, s, target.fs)
		if err != nil {
			return fmt.Errorf("%s: %w", target.fs, err)
		}
		mb := func(n int64) string { return fmt.Sprintf("%.1f", float64(n)/1e6) }
		wire, stored := float64(r.tileBytes)/float64(r.stream), float64(r.growth)/float64(r.stream)
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%.2f\t%.2f\t%.1f\t\n", target.fs, mb(r.used), r.update.Packages, r.update.ReplacedFiles, mb(r.update.Replaced), mb(r.regions), mb(r.stream),
			mb(r.separate), mb(r.tiles), mb(r.tileBytes), mb(r.growth), wire, stored, target.ratio)
		if max(wire, stored) > target.ratio {
			short = append(short, fmt.Errorf("%s: wire %.2f and stored %.2f times what changed, the target is %.1f", target.fs, wire, stored, target.ratio))
		}
	}
	return errors.Join(append(short, w.Flush())...)
}

// makeVersions makes two versions of a disk in a folder.
func makeVersions(ctx context.Context, folder, kind string, length int64) (disks [2]string, r updateReport, err error) {
	disks = [2]string{filepath.Join(folder, kind+"-1.img"), filepath.Join(folder, kind+"-2.img")}
	if err := makeAged(ctx, disks[0], kind, length); err != nil {
		return disks, r, err
	}
	if err := tool(ctx, "coreutils", "cp", "--sparse=always", disks[0], disks[1]); err != nil {
		return disks, r, err
	}
	r, err = updateAged(ctx, disks[1], kind, length)
	return disks, r, err
}

func deltaOf(ctx context.Context, s settings, kind string) (r deltaResult, err error) {
	folder, err := os.MkdirTemp(s.scratch, "seedbed-bench-")
	if err != nil {
		return r, err
	}
	defer os.RemoveAll(folder)
	disks, update, err := makeVersions(ctx, folder, kind, s.aged)
	if err != nil {
		return r, err
	}
	r.update = update
	bucket, err := repository.OpenDir(filepath.Join(folder, "repository"))
	if err != nil {
		return r, err
	}
	var versions [2]*version
	var stored [2]int64
	for i, disk := range disks {
		// The repository is closed in between: its packs are sealed then.
		if err := captureVersion(ctx, bucket, folder, disk); err != nil {
			return r, err
		}
		if stored[i], err = folderLength(filepath.Join(folder, "repository")); err != nil {
			return r, err
		}
	}
	r.growth = stored[1] - stored[0]
	repo, err := repository.Open(ctx, bucket, repository.Config{Spool: filepath.Join(folder, "spool")})
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, repo.Close()) }()
	for i, disk := range disks {
		if versions[i], err = openVersion(ctx, repo, fmt.Sprintf("bench:%d", i+1), disk); err != nil {
			return r, err
		}
		defer versions[i].disk.Close()
	}
	r.used = versions[1].reader.Image().Manifest.UsedLength()
	if err := countTiles(ctx, &r, versions[0], versions[1]); err != nil {
		return r, err
	}
	return r, countRegions(&r, versions[0], versions[1])
}

// captureVersion captures a disk as the next version of "bench".
func captureVersion(ctx context.Context, bucket repository.Bucket, folder, disk string) error {
	repo, err := repository.Open(ctx, bucket, repository.Config{Spool: filepath.Join(folder, "spool")})
	if err != nil {
		return err
	}
	f, err := os.Open(disk)
	if err != nil {
		return errors.Join(err, repo.Close())
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return errors.Join(err, repo.Close())
	}
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	session, err := repo.Begin(ctx, repository.SessionConfig{Name: "bench", Sign: func(m []byte) []byte { return images.Sign(key, m) }})
	if err != nil {
		return errors.Join(err, repo.Close())
	}
	result, err := capture.Disk(ctx, f, info.Size(), 512, session, capture.Options{Codec: tile.Zstd})
	if err == nil && len(result.Warnings) > 0 {
		err = fmt.Errorf("the capture warns: %s", result.Warnings)
	}
	return errors.Join(err, session.Close(), repo.Close())
}

// version is a captured disk and what was captured.
type version struct {
	reader *repository.Reader
	disk   *os.File
}

func openVersion(ctx context.Context, repo *repository.Repository, ref, disk string) (*version, error) {
	d, err := repo.Resolve(ctx, ref)
	if err != nil {
		return nil, err
	}
	v := &version{}
	if v.reader, err = repo.OpenImage(ctx, d); err != nil {
		return nil, err
	}
	v.disk, err = os.Open(disk)
	return v, err
}

// countTiles counts the tiles that a machine with the old version fetches for the new one.
func countTiles(ctx context.Context, r *deltaResult, before, after *version) error {
	old, shape := before.reader.Layout(), after.reader.Layout()
	if old.PieceLength() != shape.PieceLength() {
		return errors.New("the versions have pieces of different lengths")
	}
	for piece := range shape.Count() {
		was, i := map[int]images.Digest{}, 0
		hashes := before.reader.TileHashes(piece)
		for t := range old.Data(piece).All() {
			was[t] = hashes[i]
			i++
		}
		var differ images.TileSet
		hashes, i = after.reader.TileHashes(piece), 0
		for t := range shape.Data(piece).All() {
			if was[t] != hashes[i] {
				differ.Add(t)
				r.tiles += int64(shape.TileLength(piece, t))
			}
			i++
		}
		if differ.IsEmpty() {
			continue
		}
		encoded, err := after.reader.ReadPiece(ctx, piece, differ)
		if err != nil {
			return err
		}
		for _, e := range encoded {
			r.tileBytes += int64(len(e.Bytes))
		}
	}
	return nil
}

// countRegions counts the 4 KiB regions that differ, and compresses them at the level of tiles.
func countRegions(r *deltaResult, before, after *version) error {
	shape, old := after.reader.Layout(), before.reader.Layout()
	var stream counter
	whole, err := zstd.NewWriter(&stream, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return err
	}
	var unit []byte
	flush := func() error {
		if len(unit) == 0 {
			return nil
		}
		e, err := tile.Encode(tile.Zstd, 0, unit)
		r.separate += int64(len(e.Bytes))
		unit = unit[:0]
		return err
	}
	a, b := make([]byte, images.TileLength), make([]byte, images.TileLength)
	zero := make([]byte, regionLength)
	for piece := range shape.Count() {
		span := shape.Span(piece)
		for t := range shape.Data(piece).All() {
			e := shape.TileExtent(piece, t, 1)
			a, b := a[:e.Length], b[:e.Length]
			at := shape.DiskOffset(span.Partition) + e.Offset
			if _, err := before.disk.ReadAt(a, at); err != nil {
				return err
			}
			if _, err := after.disk.ReadAt(b, at); err != nil {
				return err
			}
			old.Mask(span.Partition, a, e.Offset)
			shape.Mask(span.Partition, b, e.Offset)
			for from := 0; from < len(b); from += regionLength {
				to := min(from+regionLength, len(b))
				if bytes.Equal(a[from:to], b[from:to]) || bytes.Equal(b[from:to], zero[:to-from]) {
					continue
				}
				r.regions += int64(to - from)
				if _, err := whole.Write(b[from:to]); err != nil {
					return err
				}
				if unit = append(unit, b[from:to]...); len(unit) >= images.TileLength {
					if err := flush(); err != nil {
						return err
					}
				}
			}
		}
	}
	if err := errors.Join(flush(), whole.Close()); err != nil {
		return err
	}
	r.stream = int64(stream)
	return nil
}

// counter counts what is written to it.
type counter int64

func (c *counter) Write(b []byte) (int, error) {
	*c += counter(len(b))
	return len(b), nil
}

// folderLength returns the bytes of all files in a folder.
func folderLength(folder string) (n int64, err error) {
	err = filepath.WalkDir(folder, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		info, err := e.Info()
		if err == nil {
			n += info.Size()
		}
		return err
	})
	return n, err
}
