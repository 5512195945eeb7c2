package repository

import (
	"context"
	"errors"
	"io"
	"strings"
)

// generations is a Bucket that finds a layer in a later generation where the first is gone.
type generations struct{ Bucket }

func (g generations) Read(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	r, err := g.Bucket.Read(ctx, key, offset, length)
	if other, ok := g.other(ctx, key, err); ok {
		return g.Bucket.Read(ctx, other, offset, length)
	}
	return r, err
}

func (g generations) Stat(ctx context.Context, key string) (Object, error) {
	o, err := g.Bucket.Stat(ctx, key)
	if other, ok := g.other(ctx, key, err); ok {
		return g.Bucket.Stat(ctx, other)
	}
	return o, err
}

// other returns the lowest generation that exists of a layer that does not.
func (g generations) other(ctx context.Context, key string, err error) (other string, ok bool) {
	if !errors.Is(err, ErrNotExist) || !strings.HasPrefix(key, "layers/") {
		return "", false
	}
	lowest := 0
	for o, err := range g.List(ctx, key+".g") {
		if err != nil {
			return "", false
		}
		if k, n := generationOf(o.Key); k == key && n > 1 && (lowest == 0 || n < lowest) {
			lowest = n
		}
	}
	return generationKey(key, lowest), lowest > 0
}
