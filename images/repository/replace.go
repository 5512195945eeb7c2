package repository

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"

	"seedbed/images"
)

// What exists and is damaged is replaced only where it is certain that it is damaged, or when a good copy is there: storage
// that does not answer for a moment looks like damage.

// certain reports whether reading fails for good. Of a local disk every error is: it does not read that place another time
// either.
func (r *Repository) certain(err error) bool {
	return r.dir != nil || errors.Is(err, ErrNotExist) || errors.Is(err, errPackDamaged) || errors.Is(err, errTooLong) ||
		errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF)
}

func (r *Repository) put(ctx context.Context, key string, b []byte) error {
	return r.bucket.Put(ctx, key, bytes.NewReader(b), int64(len(b)))
}

// same reports whether an object has the bytes. An error says that it is not known.
func (r *Repository) same(ctx context.Context, key string, b []byte) (bool, error) {
	there, err := fetch(ctx, r.bucket, key, math.MaxInt64)
	if err != nil && (ctx.Err() != nil || !r.certain(err)) {
		return false, err
	}
	return err == nil && bytes.Equal(there, b), nil
}

// putSame puts an object of an image that is being published. One that exists with other bytes is damaged, or was left by a
// publication that was cut short: it is replaced.
func (r *Repository) putSame(ctx context.Context, key string, b []byte) error {
	err := r.put(ctx, key, b)
	if !errors.Is(err, ErrExists) {
		return err
	}
	if same, err := r.same(ctx, key, b); same || err != nil {
		return err
	}
	r.log.Warn("object differs from what it should hold, writing it again", "object", key)
	if err := r.bucket.Delete(ctx, key); err != nil {
		return err
	}
	return r.put(ctx, key, b)
}

// putLayer makes sure that a layer is there, in the first generation that is not about to go. Other images may use it: a
// generation that is damaged or cannot be read is removed only when the next one is durable. remove removes an object.
func (r *Repository) putLayer(ctx context.Context, d images.Digest, b []byte, soon marked, remove func(context.Context, string) error) error {
	var bad []string
	for generation := 1; ; generation++ {
		key := generationKey(layerKey(d), generation)
		if soon.has(key) {
			continue
		}
		err := r.put(ctx, key, b)
		if errors.Is(err, ErrExists) {
			same, e := r.same(ctx, key, b)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if !same {
				r.log.Warn("layer is damaged or cannot be read, writing it again", "object", key, "err", e)
				bad = append(bad, key)
				continue
			}
			err = nil
		}
		if err != nil {
			return err
		}
		break
	}
	for _, key := range bad {
		if err := remove(ctx, key); err != nil {
			return err
		}
	}
	return nil
}

// goodLayer returns the bytes of a layer from whichever generation is good, and whether readers find that one: they take
// the lowest that exists.
func (r *Repository) goodLayer(ctx context.Context, d images.Digest) (b []byte, found bool, err error) {
	if b, err = r.Layer(ctx, d); err == nil {
		return b, true, nil
	}
	keys, e := r.layerKeys(ctx, d)
	if e != nil {
		return nil, false, e
	}
	for _, key := range keys {
		b, e := fetch(ctx, r.bucket, key, maxLayerLength)
		if e == nil && images.Sum(b) == d {
			return b, false, nil
		}
	}
	return nil, false, fmt.Errorf("no good copy of layer %s is in the repository: %w", d.Short(), err)
}

// layerKeys lists the generations of a layer.
func (r *Repository) layerKeys(ctx context.Context, d images.Digest) (keys []string, err error) {
	for o, err := range r.bucket.List(ctx, layerKey(d)) {
		if err != nil {
			return nil, err
		}
		if key, _ := generationOf(o.Key); key == layerKey(d) {
			keys = append(keys, o.Key)
		}
	}
	return keys, nil
}
