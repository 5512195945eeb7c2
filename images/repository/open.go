package repository

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"time"

	"seedbed/images"
)

// An image is open while the object open/DIGEST is there: the SHA-1 sums of the pieces of its hybrid torrent, which take a
// reading of the whole image to make. They stand beside the manifest and are never part of the image. The object begins with
// the SHA-256 over the image's digest and the sums.

const openPrefix = "open/"

func openKey(d images.Digest) string { return openPrefix + d.String() }

// ErrNotOpen says that an image has no open swarm.
var ErrNotOpen = errors.New("the image is not open")

// maxSums bounds the sums of an image.
const maxSums = 20 * images.MaxPieces

// PutOpen makes an image open, durably. Doing it again is no error.
func (r *Repository) PutOpen(ctx context.Context, d images.Digest, sums []byte) error {
	done, err := r.begin()
	if err != nil {
		return err
	}
	defer done()
	check := checkOpen(d, sums)
	if err := r.putSame(ctx, openKey(d), append(check[:], sums...)); err != nil {
		return fmt.Errorf("open image %s: %w", d.Short(), err)
	}
	r.log.Info("image is open", "digest", d)
	return nil
}

func checkOpen(d images.Digest, sums []byte) (check images.Digest) {
	h := sha256.New()
	h.Write(d[:])
	h.Write(sums)
	h.Sum(check[:0])
	return check
}

// OpenSums returns the SHA-1 sums of an open image, 20 bytes for each piece. ErrNotOpen if it is not open.
func (r *Repository) OpenSums(ctx context.Context, d images.Digest) ([]byte, error) {
	b, err := fetch(ctx, r.bucket, openKey(d), sha256.Size+maxSums)
	if errors.Is(err, ErrNotExist) {
		return nil, ErrNotOpen
	}
	if err != nil {
		return nil, err
	}
	if len(b) < sha256.Size || images.Digest(b[:sha256.Size]) != checkOpen(d, b[sha256.Size:]) {
		return nil, fmt.Errorf("object %s is damaged: its bytes have another digest; `seedbed image close` and `seedbed image open` make it anew", openKey(d))
	}
	return b[sha256.Size:], nil
}

// OpenSince returns when an image was opened. ErrNotOpen if it is not open.
func (r *Repository) OpenSince(ctx context.Context, d images.Digest) (time.Time, error) {
	o, err := r.bucket.Stat(ctx, openKey(d))
	if errors.Is(err, ErrNotExist) {
		err = ErrNotOpen
	}
	return o.Modified, err
}

// RemoveOpen makes an image open no more. ErrNotOpen if it is not open.
func (r *Repository) RemoveOpen(ctx context.Context, d images.Digest) error {
	done, err := r.begin()
	if err != nil {
		return err
	}
	defer done()
	if _, err := r.bucket.Stat(ctx, openKey(d)); errors.Is(err, ErrNotExist) {
		return ErrNotOpen
	} else if err != nil {
		return err
	}
	if err := r.bucket.Delete(ctx, openKey(d)); err != nil {
		return fmt.Errorf("close image %s: %w", d.Short(), err)
	}
	r.log.Info("image is closed", "digest", d)
	return nil
}

// OpenImages returns the images that are open, in the order of their digests.
func (r *Repository) OpenImages(ctx context.Context) (list []images.Digest, err error) {
	for o, err := range r.bucket.List(ctx, openPrefix) {
		if err != nil {
			return nil, fmt.Errorf("list open images: %w", err)
		}
		if d, err := images.ParseDigest(strings.TrimPrefix(o.Key, openPrefix)); err == nil {
			list = append(list, d)
		}
	}
	return list, nil
}
