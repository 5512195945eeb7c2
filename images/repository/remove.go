package repository

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"

	"seedbed/images"
)

// removedKey names the tombstone of a version: its number is never used again.
func removedKey(name, version string) string { return "removed/" + name + "/" + version }

// Remove makes a version of an image exist no more. Its number is never used again. What only this version used stays
// until it is pruned.
func (r *Repository) Remove(ctx context.Context, name, version string) error {
	if !images.ValidName(name) || !images.ValidName(version) {
		return fmt.Errorf("image %.80q, version %.80q: no such name", name, version)
	}
	done, err := r.begin()
	if err != nil {
		return err
	}
	defer done()
	digest := "unknown\n"
	switch d, err := r.version(ctx, name, version); {
	case err == nil:
		digest = d.String() + "\n"
	case errors.Is(err, ErrNoImage):
		return err
	case ctx.Err() != nil:
		return ctx.Err()
	default: // a damaged version is removed too
		if _, e := r.bucket.Stat(ctx, versionKey(name, version)); e != nil {
			return err
		}
	}
	err = r.bucket.Put(ctx, removedKey(name, version), strings.NewReader(digest), int64(len(digest)))
	if err != nil && !errors.Is(err, ErrExists) { // an earlier Remove was cut short
		return fmt.Errorf("remove image %s:%s: %w", name, version, err)
	}
	if err := r.bucket.Delete(ctx, versionKey(name, version)); err != nil {
		return fmt.Errorf("remove image %s:%s: %w", name, version, err)
	}
	r.log.Info("image removed", "image", name+":"+version, "digest", strings.TrimSpace(digest))
	return nil
}

// expectNotRemoved returns an error that wraps ErrVersionExists if a version was removed.
func (r *Repository) expectNotRemoved(ctx context.Context, name, version string) error {
	_, err := r.bucket.Stat(ctx, removedKey(name, version))
	switch {
	case err == nil:
		return fmt.Errorf("%w: it was removed, and versions are never used again; take another one", ErrVersionExists)
	case errors.Is(err, ErrNotExist):
		return nil
	}
	return err
}

// finishRemovals deletes versions whose removal was cut short behind the tombstone.
func (r *Repository) finishRemovals(ctx context.Context) error {
	for o, err := range r.bucket.List(ctx, "removed/") {
		if err != nil {
			return fmt.Errorf("list removed versions: %w", err)
		}
		key := "images/" + strings.TrimPrefix(o.Key, "removed/")
		if _, err := r.bucket.Stat(ctx, key); errors.Is(err, ErrNotExist) {
			continue
		} else if err != nil {
			return err
		}
		if err := r.bucket.Delete(ctx, key); err != nil {
			return err
		}
	}
	return nil
}

// putVersion makes the version name the digest, durably. A version that is removed at the same moment stays removed.
func (r *Repository) putVersion(ctx context.Context, m *images.Manifest, d images.Digest) error {
	name := []byte(d.String() + "\n")
	err := r.bucket.Put(ctx, versionKey(m.Name, m.Version), bytes.NewReader(name), int64(len(name)))
	if errors.Is(err, ErrExists) {
		if known, e := r.version(ctx, m.Name, m.Version); e == nil && known == d {
			return nil
		}
		return ErrVersionExists
	}
	if err != nil {
		return err
	}
	// Somebody may have made and removed this version since it was looked for.
	removed := r.expectNotRemoved(ctx, m.Name, m.Version)
	if errors.Is(removed, ErrVersionExists) {
		if err := r.bucket.Delete(ctx, versionKey(m.Name, m.Version)); err != nil {
			return err
		}
	}
	return removed
}
