package repository

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"seedbed/images"
)

// liveImage is an image that exists, with where its tiles lie.
type liveImage struct {
	name, version string
	digest        images.Digest
	m             *images.Manifest
	places        []*placement // of each partition; nil without data
	generations   []int        // of the placements
}

func (i *liveImage) String() string { return i.name + ":" + i.version }

// lookUnreadable is what to do where an image keeps others from being pruned.
const lookUnreadable = "nothing can be pruned while it is not known what image %s uses: verify and heal it, or remove it: %w"

// live returns all images that exist, by name and from the newest version to the oldest.
func (r *Repository) live(ctx context.Context) ([]*liveImage, error) {
	var list []*liveImage
	for o, err := range r.bucket.List(ctx, "images/") {
		if err != nil {
			return nil, fmt.Errorf("list images: %w", err)
		}
		name, version, _ := strings.Cut(strings.TrimPrefix(o.Key, "images/"), "/")
		if !images.ValidName(name) || !images.ValidName(version) {
			r.log.Warn("object is no version of an image and is left alone", "object", o.Key)
			continue
		}
		list = append(list, &liveImage{name: name, version: version})
	}
	group, fetching := errgroup.WithContext(ctx)
	group.SetLimit(8)
	for _, i := range list {
		group.Go(func() error {
			err := r.loadLive(fetching, i)
			if err != nil && fetching.Err() == nil {
				err = fmt.Errorf(lookUnreadable, i, err)
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	for _, i := range list {
		if i.m == nil {
			if err := r.expectGone(ctx, i); err != nil {
				return nil, err
			}
		}
	}
	list = slices.DeleteFunc(list, func(i *liveImage) bool { return i.m == nil })
	slices.SortFunc(list, func(a, b *liveImage) int {
		return cmp.Or(cmp.Compare(a.name, b.name), compareVersions(b.version, a.version))
	})
	return list, nil
}

// expectGone returns an error if a version that was listed and could not be read then is still listed: something between here
// and the storage says of what exists that it does not.
func (r *Repository) expectGone(ctx context.Context, i *liveImage) error {
	for o, err := range r.bucket.List(ctx, versionKey(i.name, i.version)) {
		if err != nil {
			return fmt.Errorf("list images: %w", err)
		}
		if o.Key == versionKey(i.name, i.version) {
			return fmt.Errorf(lookUnreadable, i, fmt.Errorf("object %s is listed, but when it is read the storage says that it does not exist", o.Key))
		}
	}
	return nil
}

// loadLive fills in what a version names. An image that was removed meanwhile is left empty.
func (r *Repository) loadLive(ctx context.Context, i *liveImage) error {
	d, err := r.version(ctx, i.name, i.version)
	if errors.Is(err, ErrNoImage) {
		return nil
	}
	if err != nil {
		return err
	}
	image, err := r.Manifest(ctx, d)
	if err != nil {
		return err
	}
	i.digest = d
	i.places, i.generations = make([]*placement, len(image.Manifest.Partitions)), make([]int, len(image.Manifest.Partitions))
	for k := range image.Manifest.Partitions {
		p := &image.Manifest.Partitions[k]
		if p.DataTiles == 0 {
			continue
		}
		if i.places[k], i.generations[k], err = r.placement(ctx, d, p); err != nil {
			return err
		}
	}
	i.m = image.Manifest
	return nil
}

// objects calls use for the keys of all that the image consists of, packs included.
func (i *liveImage) objects(use func(key string)) {
	use(manifestKey(i.digest))
	use(signatureKey(i.digest))
	for _, ref := range i.m.Layers() {
		use(layerKey(ref.Digest))
	}
	for k := range i.m.Partitions {
		p := &i.m.Partitions[k]
		if i.places[k] != nil {
			use(generationKey(placementKey(i.digest, p), i.generations[k]))
			for _, id := range i.places[k].packs {
				use(packKey(id))
			}
		}
	}
}

// prunable are the prefixes of objects that go when no image uses them.
var prunable = []string{"packs/", "layers/", "manifests/", "placements/"}

// inUse reports whether an object is one of those that images use; of a layer every generation counts.
func inUse(used map[string]bool, key string) bool {
	if used[key] {
		return true
	}
	if strings.HasPrefix(key, "layers/") {
		first, _ := generationOf(key)
		return used[first]
	}
	return false
}

func usedKeys(list []*liveImage) map[string]bool {
	used := map[string]bool{}
	for _, i := range list {
		i.objects(func(key string) { used[key] = true })
	}
	return used
}
