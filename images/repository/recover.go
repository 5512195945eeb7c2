package repository

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"

	"seedbed/images"
)

// recover seals the segments that an earlier process left. Those that cannot be sealed now, because the bucket is down or
// the disk full, are tried again before the next tile is looked for: images can be served until then.
func (r *Repository) recover(ctx context.Context) error {
	files, err := r.fs.ReadDir(r.journal())
	if err != nil {
		return err
	}
	for _, f := range files {
		name := filepath.Join(r.journal(), f.Name())
		n := 0
		if k, err := fmt.Sscanf(f.Name(), "%d.segment", &n); k != 1 || err != nil || !strings.HasSuffix(name, ".segment") {
			continue
		}
		r.segments = max(r.segments, n+1)
		r.left = append(r.left, name)
	}
	if err := r.recoverLeft(ctx); err != nil {
		if ctx.Err() != nil {
			return err
		}
		r.log.Warn("tiles of an interrupted capture stay in the spool for now", "err", err)
	}
	return nil
}

// recoverLeft seals the segments that recover found. One at a time calls it.
func (r *Repository) recoverLeft(ctx context.Context) error {
	for len(r.left) > 0 {
		if err := r.recoverFile(ctx, r.left[0]); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("recover spool segment %s, which holds tiles of captures that were not finished: %w", r.left[0], r.explainFull(err, 0))
		}
		r.left = r.left[1:]
	}
	return nil
}

func (r *Repository) recoverFile(ctx context.Context, name string) error {
	f, err := r.fs.Append(name)
	if err != nil {
		return err
	}
	defer f.Close()
	found, err := recoverSegment(f)
	if err != nil {
		return err
	}
	if id, ok := sealedID(f); ok && found.id.IsZero() {
		_, err := r.bucket.Stat(ctx, packKey(id))
		if err != nil && !errors.Is(err, ErrNotExist) {
			return err
		}
		if err == nil {
			r.log.Warn("pack is damaged; verify the images", "object", packKey(id), "err", errRecord)
			return r.fs.Remove(name)
		}
	}
	if len(found.entries) > 0 {
		if found.id, err = completeSegment(f, found); err != nil {
			return err
		}
		if err := r.putPack(ctx, found.id, name); err != nil {
			return err
		}
	}
	r.log.Info("recovered tiles of an interrupted capture", "file", name, "tiles", len(found.entries), "cut_bytes", found.extra)
	return r.fs.Remove(name)
}

// completeSegment cuts off what is no record, writes the index and makes all of it durable, which a process that was
// killed may not have come to. A file that is whole is not written to: it may be one with the object.
func completeSegment(f file, found recovered) (images.Digest, error) {
	if !found.id.IsZero() {
		return found.id, f.Sync()
	}
	if err := f.Truncate(found.end); err != nil {
		return images.Digest{}, err
	}
	index, id := encodeIndex(found.entries, found.end)
	if _, err := f.Write(index); err != nil {
		return id, err
	}
	return id, f.Sync()
}

// sealedID returns the pack ID of a file that ends in an index, whatever its records are. Where the bucket has that pack
// the file may be one with it, and to complete it would cut the pack off at its first damaged record.
func sealedID(f file) (id images.Digest, ok bool) {
	info, err := f.Stat()
	if err != nil || info.Size() < trailerLength {
		return id, false
	}
	var trailer [trailerLength]byte
	end := info.Size() - trailerLength
	if _, err := f.ReadAt(trailer[:], end); err != nil && !errors.Is(err, io.EOF) || string(trailer[8:]) != trailerMagic {
		return id, false
	}
	start := binary.BigEndian.Uint64(trailer[:])
	if start > uint64(end) {
		return id, false
	}
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(f, int64(start), end-int64(start))); err != nil {
		return id, false
	}
	return images.Digest(h.Sum(nil)), true
}
