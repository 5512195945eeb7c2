package repository

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"seedbed/images"
)

// ErrNoImage says that no image answers to a reference.
var ErrNoImage = errors.New("no such image")

// Listing is one version of an image.
type Listing struct {
	Name    string
	Version string
	Digest  images.Digest
	// Problem says why the manifest cannot be read; the fields below are then zero.
	Problem      string
	Created      time.Time
	DiskLength   int64 // bytes
	UsedLength   int64 // bytes in use
	SectorLength int
	Partitions   int
}

// Image is a manifest with its signature.
type Image struct {
	Manifest  *images.Manifest
	Raw       []byte // the canonical encoding
	Signature []byte // detached, over Raw; the caller verifies it with the site's key
	Digest    images.Digest
}

// Images lists all versions of all images, by name and version.
func (r *Repository) Images(ctx context.Context) ([]Listing, error) {
	var list []Listing
	for o, err := range r.bucket.List(ctx, "images/") {
		if err != nil {
			return nil, fmt.Errorf("list images: %w", err)
		}
		name, version, ok := strings.Cut(strings.TrimPrefix(o.Key, "images/"), "/")
		if ok && images.ValidName(name) && images.ValidName(version) {
			list = append(list, Listing{Name: name, Version: version})
		}
	}
	group, fetching := errgroup.WithContext(ctx)
	group.SetLimit(parallelFetches)
	for i := range list {
		group.Go(func() (err error) {
			list[i], err = r.listing(fetching, list[i].Name, list[i].Version)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	slices.SortFunc(list, func(a, b Listing) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), compareVersions(a.Version, b.Version))
	})
	return list, nil
}

func (r *Repository) listing(ctx context.Context, name, version string) (l Listing, err error) {
	l = Listing{Name: name, Version: version}
	l.Digest, err = r.version(ctx, name, version)
	var image *Image
	if err == nil {
		image, err = r.Manifest(ctx, l.Digest)
	}
	if ctx.Err() != nil {
		return l, ctx.Err()
	}
	if err != nil {
		l.Problem = err.Error()
		return l, nil
	}
	m := image.Manifest
	l.Created, l.DiskLength, l.UsedLength = m.CreatedAt(), m.DiskLength, m.UsedLength()
	l.SectorLength, l.Partitions = m.SectorLength, len(m.Partitions)
	return l, nil
}

func versionKey(name, version string) string { return "images/" + name + "/" + version }

// version returns the digest that a version names.
func (r *Repository) version(ctx context.Context, name, version string) (images.Digest, error) {
	b, err := fetch(ctx, r.bucket, versionKey(name, version), 1<<10)
	if errors.Is(err, ErrNotExist) {
		return images.Digest{}, fmt.Errorf("image %s:%s: %w", name, version, ErrNoImage)
	}
	if err != nil {
		return images.Digest{}, err
	}
	d, err := images.ParseDigest(strings.TrimSuffix(string(b), "\n"))
	if err != nil {
		return d, fmt.Errorf("image %s:%s is damaged: %w", name, version, err)
	}
	return d, nil
}

// versions returns the versions of an image in ascending order.
func (r *Repository) versions(ctx context.Context, name string) ([]string, error) {
	var list []string
	prefix := "images/" + name + "/"
	for o, err := range r.bucket.List(ctx, prefix) {
		if err != nil {
			return nil, fmt.Errorf("list versions of %s: %w", name, err)
		}
		if v := strings.TrimPrefix(o.Key, prefix); images.ValidName(v) {
			list = append(list, v)
		}
	}
	slices.SortFunc(list, compareVersions)
	return list, nil
}

// NextVersion returns the version that follows the highest whole number among an image's versions, also
// those that were removed; the first is "1".
func (r *Repository) NextVersion(ctx context.Context, name string) (string, error) {
	list, err := r.versions(ctx, name)
	if err != nil {
		return "", err
	}
	for o, err := range r.bucket.List(ctx, removedKey(name, "")) {
		if err != nil {
			return "", fmt.Errorf("list removed versions of %s: %w", name, err)
		}
		list = append(list, strings.TrimPrefix(o.Key, removedKey(name, "")))
	}
	highest := 0
	for _, v := range list {
		if n, err := strconv.Atoi(v); err == nil {
			highest = max(highest, n)
		}
	}
	return strconv.Itoa(highest + 1), nil
}

// compareVersions orders versions as people do: "2" before "10", "1.9" before "1.10".
func compareVersions(a, b string) int {
	for a != "" && b != "" {
		na, nb := digits(a), digits(b)
		if na > 0 && nb > 0 {
			x, y := strings.TrimLeft(a[:na], "0"), strings.TrimLeft(b[:nb], "0")
			if c := cmp.Or(cmp.Compare(len(x), len(y)), cmp.Compare(x, y)); c != 0 {
				return c
			}
			a, b = a[na:], b[nb:]
			continue
		}
		if a[0] != b[0] {
			return cmp.Compare(a[0], b[0])
		}
		a, b = a[1:], b[1:]
	}
	return cmp.Compare(len(a), len(b))
}

// digits returns how many digits s begins with.
func digits(s string) int { return len(s) - len(strings.TrimLeft(s, "0123456789")) }

// minPrefix is the shortest beginning of a digest that names an image.
const minPrefix = 6

// Resolve returns the digest that a reference names: NAME (its latest version), NAME:VERSION, or at least six digits of
// a digest. ErrNoImage if there is none.
func (r *Repository) Resolve(ctx context.Context, ref string) (images.Digest, error) {
	name, version, exact := strings.Cut(ref, ":")
	if !images.ValidName(name) || (exact && !images.ValidName(version)) {
		return images.Digest{}, fmt.Errorf("image %.80q: %w: it is not NAME, NAME:VERSION or the beginning of a digest", ref, ErrNoImage)
	}
	if exact {
		return r.version(ctx, name, version)
	}
	list, err := r.versions(ctx, name)
	if err != nil {
		return images.Digest{}, err
	}
	if len(list) > 0 {
		return r.version(ctx, name, list[len(list)-1])
	}
	if len(ref) < minPrefix || strings.Trim(ref, "0123456789abcdef") != "" {
		return images.Digest{}, fmt.Errorf("image %s: %w", ref, ErrNoImage)
	}
	return r.resolveDigest(ctx, ref)
}

// resolveDigest finds the one published image whose digest begins with prefix.
func (r *Repository) resolveDigest(ctx context.Context, prefix string) (found images.Digest, err error) {
	list, err := r.Images(ctx)
	if err != nil {
		return found, err
	}
	for _, l := range list {
		if !l.Digest.IsZero() && strings.HasPrefix(l.Digest.String(), prefix) {
			if !found.IsZero() && found != l.Digest {
				return images.Digest{}, fmt.Errorf("image %s: %s and %s begin with it; give more digits", prefix, found.Short(), l.Digest.Short())
			}
			found = l.Digest
		}
	}
	if found.IsZero() {
		return found, fmt.Errorf("image %s: %w", prefix, ErrNoImage)
	}
	return found, nil
}

func manifestKey(d images.Digest) string  { return "manifests/" + d.String() }
func signatureKey(d images.Digest) string { return manifestKey(d) + ".sig" }
func layerKey(d images.Digest) string     { return "layers/" + d.String() }

// Manifest returns a manifest whose bytes have the digest d.
func (r *Repository) Manifest(ctx context.Context, d images.Digest) (*Image, error) {
	raw, err := fetch(ctx, r.bucket, manifestKey(d), images.MaxManifestLength)
	if errors.Is(err, ErrNotExist) {
		return nil, fmt.Errorf("manifest %s: %w", d.Short(), ErrNoImage)
	}
	if err != nil {
		return nil, err
	}
	if images.Sum(raw) != d {
		return nil, fmt.Errorf("manifest %s is damaged: its bytes have another digest", d)
	}
	m, err := images.DecodeManifest(raw)
	if err != nil {
		return nil, fmt.Errorf("manifest %s: %w", d, err)
	}
	signature, err := fetch(ctx, r.bucket, signatureKey(d), 1<<10)
	if err != nil {
		return nil, fmt.Errorf("signature of image %s:%s: %w", m.Name, m.Version, err)
	}
	return &Image{Manifest: m, Raw: raw, Signature: bytes.Clone(signature), Digest: d}, nil
}

// maxLayerLength bounds a layer: the tile layer of 16 TiB of data is 8 GiB, beyond what one image may be; 2 GiB cover
// 4 TiB.
const maxLayerLength = 2 << 30

// Layer returns the layer whose bytes have the digest d.
func (r *Repository) Layer(ctx context.Context, d images.Digest) ([]byte, error) {
	b, err := fetch(ctx, r.bucket, layerKey(d), maxLayerLength)
	if err != nil {
		return nil, err
	}
	if images.Sum(b) != d {
		return nil, fmt.Errorf("layer %s is damaged: its bytes have another digest", d)
	}
	return b, nil
}

// LayerRange returns the bytes [offset, offset+length) of a layer. They are not checked: who asks has something to check
// them against.
func (r *Repository) LayerRange(ctx context.Context, d images.Digest, offset, length int64) ([]byte, error) {
	return fetchRange(ctx, r.bucket, layerKey(d), offset, length)
}

// checkLayer reads a layer and compares its digest, without keeping it.
func (r *Repository) checkLayer(ctx context.Context, ref images.Ref) error {
	object, err := r.bucket.Read(ctx, layerKey(ref.Digest), 0, -1)
	if err != nil {
		return err
	}
	defer object.Close()
	h := sha256.New()
	n, err := io.Copy(h, object)
	if err == nil && (n != ref.Length || images.Digest(h.Sum(nil)) != ref.Digest) {
		err = fmt.Errorf("layer %s is damaged: its bytes have another digest", ref.Digest)
	}
	return err
}
