package repository

import (
	"context"
	"os"
	"strings"
	"testing"
)

// TestTheIndexForgetsPacksThatAreGone removes packs behind the back of a repository, and counts what it reads again.
func TestTheIndexForgetsPacksThatAreGone(t *testing.T) {
	folder, spool := t.TempDir(), t.TempDir()
	s := newSample(rng(800), "debian", "1", 1<<20, 8<<20)
	reopen := func(b Bucket) *Repository {
		r, err := Open(t.Context(), b, Config{Spool: spool, PackLength: 100 << 10})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	dir, err := OpenDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	r := reopen(dir)
	s.mustCapture(t, r, "")
	r.Close()
	gone := map[string]bool{}
	for o, err := range dir.List(t.Context(), "packs/") {
		if err != nil {
			t.Fatal(err)
		}
		if len(gone) < 5 {
			gone[o.Key] = true
			if err := os.Remove(dir.file(o.Key)); err != nil {
				t.Fatal(err)
			}
		}
	}
	counted := &readCounter{Bucket: dir}
	r = reopen(counted)
	defer r.Close()
	found := 0
	for _, key := range s.allKeys() {
		at, ok, err := r.Find(key)
		if err != nil {
			t.Fatal(err)
		}
		if ok {
			found++
			if gone[r.packKeyOf(at.pack)] {
				t.Fatal("a tile is found in a pack that is gone")
			}
		}
	}
	if found == 0 || found == len(s.allKeys()) || counted.packs > 0 {
		t.Errorf("%d of %d tiles are found, %d packs were read again", found, len(s.allKeys()), counted.packs)
	}
}

// readCounter counts looks at packs.
type readCounter struct {
	Bucket
	packs int
}

func (c *readCounter) Stat(ctx context.Context, key string) (Object, error) {
	if strings.HasPrefix(key, "packs/") {
		c.packs++
	}
	return c.Bucket.Stat(ctx, key)
}
