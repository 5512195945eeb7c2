package repository

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"seedbed/images"
)

// placement returns the placement of a partition of an image: the highest generation that can be read. Compaction and
// healing write new ones.
func (r *Repository) placement(ctx context.Context, image images.Digest, p *images.Partition) (*placement, int, error) {
	first := placementKey(image, p)
	var found []int
	for o, err := range r.bucket.List(ctx, first) {
		if err != nil {
			return nil, 0, fmt.Errorf("list placements of image %s: %w", image.Short(), err)
		}
		if key, n := generationOf(o.Key); key == first {
			found = append(found, n)
		}
	}
	slices.Sort(found)
	if len(found) == 0 {
		found = []int{1} // and say that it does not exist
	}
	var failure error
	for _, n := range slices.Backward(found) {
		key := generationKey(first, n)
		b, err := fetch(ctx, r.bucket, key, maxLayerLength)
		if err == nil {
			var place *placement
			if place, err = decodePlacement(b, p.DataTiles); err == nil {
				return place, n, nil
			}
			err = fmt.Errorf("object %s is damaged: %w", key, err)
		} else if !errors.Is(err, ErrNotExist) {
			return nil, 0, err // it may be there and readable a moment later
		}
		if failure == nil {
			failure = err
		}
	}
	return nil, 0, failure
}

// renewal is how a Reader goes on when packs were rewritten: with a Reader on the placements as they are now.
type renewal struct {
	mu     sync.Mutex
	latest *Reader // guarded by mu; nil means the Reader itself
}

// now returns the Reader to read with.
func (x *Reader) now() *Reader {
	x.renewed.mu.Lock()
	defer x.renewed.mu.Unlock()
	if x.renewed.latest != nil {
		return x.renewed.latest
	}
	return x
}

// renew returns a Reader to read with after used found a pack gone.
func (x *Reader) renew(ctx context.Context, used *Reader) (*Reader, error) {
	x.renewed.mu.Lock()
	defer x.renewed.mu.Unlock()
	if x.renewed.latest != nil && x.renewed.latest != used {
		return x.renewed.latest, nil // somebody else was told before
	}
	m := x.image.Manifest
	if _, err := x.r.version(ctx, m.Name, m.Version); errors.Is(err, ErrNoImage) {
		return nil, fmt.Errorf("image %s:%s was removed while it was read: %w", m.Name, m.Version, err)
	}
	fresh, err := x.r.OpenImage(ctx, x.image.Digest)
	if err != nil {
		return nil, err
	}
	x.renewed.latest = fresh
	return fresh, nil
}

// packGone reports whether reading failed because a pack is not there any more.
func packGone(err error) bool {
	var damage *Damage
	return errors.As(err, &damage) && strings.HasPrefix(damage.Object, "packs/") && errors.Is(err, ErrNotExist)
}
