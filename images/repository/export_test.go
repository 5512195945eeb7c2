package repository

import (
	"context"
	"testing"

	"seedbed/images"
)

// Sample is a sample for tests outside the package.
type Sample struct{ s *sample }

// NewSample returns an image of one partition whose tiles all differ.
func NewSample(seed uint64, length int64) Sample {
	return Sample{newSample(rng(seed), "sample", "1", 1<<20, length)}
}

// Put puts every tile.
func (s Sample) Put(ctx context.Context, r *Repository) (*Draft, error) { return s.s.put(ctx, r) }

// ExpectContent reads every tile.
func (s Sample) ExpectContent(t *testing.T, r *Repository, d images.Digest) {
	t.Helper()
	s.s.expectContent(t, r, d)
}

// forget empties a cache.
func forget[K comparable, V any](c *cache[K, V]) {
	for {
		c.mu.Lock()
		if len(c.slots) == 0 {
			c.mu.Unlock()
			return
		}
		for _, s := range c.slots {
			if s.isDone() {
				c.remove(s)
			}
		}
		c.mu.Unlock()
	}
}

// held returns how many bytes a cache holds.
func held[K comparable, V any](c *cache[K, V]) int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.length
}
