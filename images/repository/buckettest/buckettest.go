// Package buckettest is the conformance suite of repository.Bucket.
package buckettest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"seedbed/images/repository"
)

// Run tests an implementation. open returns a new, empty bucket for each test.
func Run(t *testing.T, open func(t *testing.T) repository.Bucket) {
	for name, test := range map[string]func(*testing.T, repository.Bucket){
		"an object put is read back":               putAndRead,
		"an object is created once":                createdOnce,
		"one of many creators wins":                oneWins,
		"a failed put leaves nothing":              failedPut,
		"a range is read":                          ranges,
		"what does not exist is ErrNotExist":       notExist,
		"a listing has every object of its prefix": listing,
		"a deleted object can be created again":    deletion,
		"keys that are no names are refused":       badKeys,
	} {
		t.Run(name, func(t *testing.T) { test(t, open(t)) })
	}
}

func put(t *testing.T, b repository.Bucket, key, content string) {
	t.Helper()
	if err := b.Put(t.Context(), key, strings.NewReader(content), int64(len(content))); err != nil {
		t.Fatal(err)
	}
}

func read(b repository.Bucket, key string, offset, length int64) (string, error) {
	r, err := b.Read(context.Background(), key, offset, length)
	if err != nil {
		return "", err
	}
	defer r.Close()
	content, err := io.ReadAll(r)
	return string(content), err
}

func putAndRead(t *testing.T, b repository.Bucket) {
	large := strings.Repeat("0123456789abcdef", 1<<16)
	for key, content := range map[string]string{"a": "", "b/c": "x", "packs/0f": large, "d.sig": "s", "b/c-d/e_f.1": "deep"} {
		put(t, b, key, content)
		got, err := read(b, key, 0, -1)
		if err != nil || got != content {
			t.Errorf("%s: %d bytes read of %d, %v", key, len(got), len(content), err)
		}
		o, err := b.Stat(t.Context(), key)
		if err != nil || o.Key != key || o.Length != int64(len(content)) || time.Since(o.Modified).Abs() > time.Hour {
			t.Errorf("%s: stat says %+v, %v", key, o, err)
		}
	}
}

func createdOnce(t *testing.T, b repository.Bucket) {
	put(t, b, "images/a/1", "first")
	err := b.Put(t.Context(), "images/a/1", strings.NewReader("second"), 6)
	if !errors.Is(err, repository.ErrExists) {
		t.Errorf("second put: %v, want ErrExists", err)
	}
	if got, err := read(b, "images/a/1", 0, -1); err != nil || got != "first" {
		t.Errorf("it holds %q, %v", got, err)
	}
}

func oneWins(t *testing.T, b repository.Bucket) {
	const creators = 16
	var wg sync.WaitGroup
	won := make([]bool, creators)
	for i := range creators {
		wg.Go(func() {
			content := fmt.Sprintf("creator %02d", i)
			err := b.Put(context.Background(), "images/a/1", strings.NewReader(content), int64(len(content)))
			won[i] = err == nil
			if err != nil && !errors.Is(err, repository.ErrExists) {
				t.Errorf("creator %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	got, err := read(b, "images/a/1", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	for i, w := range won {
		if w != (got == fmt.Sprintf("creator %02d", i)) {
			t.Errorf("creator %d won: %v, the object holds %q", i, w, got)
		}
	}
}

func failedPut(t *testing.T, b repository.Bucket) {
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	for name, try := range map[string]func() error{
		"too few bytes":  func() error { return b.Put(t.Context(), "k", strings.NewReader("abc"), 4) },
		"too many bytes": func() error { return b.Put(t.Context(), "k", strings.NewReader("abcde"), 4) },
		"read error": func() error {
			return b.Put(t.Context(), "k", io.MultiReader(strings.NewReader("ab"), iotest.ErrReader(errors.New("cut"))), 4)
		},
		"cancelled": func() error { return b.Put(canceled, "k", bytes.NewReader(make([]byte, 4)), 4) },
	} {
		if try() == nil {
			t.Errorf("%s: no error", name)
		}
		if _, err := b.Stat(t.Context(), "k"); !errors.Is(err, repository.ErrNotExist) {
			t.Errorf("%s: stat says %v, want ErrNotExist", name, err)
		}
		for o := range b.List(t.Context(), "") {
			t.Errorf("%s: %s is listed", name, o.Key)
		}
	}
	put(t, b, "k", "good")
}

func ranges(t *testing.T, b repository.Bucket) {
	put(t, b, "k", "0123456789")
	for _, c := range []struct {
		offset, length int64
		want           string
	}{{0, 10, "0123456789"}, {3, 4, "3456"}, {9, 1, "9"}, {4, -1, "456789"}, {8, 5, "89"}, {10, 3, ""}, {0, 0, ""}} {
		if got, err := read(b, "k", c.offset, c.length); err != nil || got != c.want {
			t.Errorf("[%d, +%d): %q, %v, want %q", c.offset, c.length, got, err, c.want)
		}
	}
}

func notExist(t *testing.T, b repository.Bucket) {
	put(t, b, "packs/aa", "x")
	for _, key := range []string{"nothing", "packs/ab", "packs", "packs/aa/bb"} {
		if _, err := b.Stat(t.Context(), key); !errors.Is(err, repository.ErrNotExist) {
			t.Errorf("stat %s: %v", key, err)
		}
		if _, err := read(b, key, 0, -1); !errors.Is(err, repository.ErrNotExist) {
			t.Errorf("read %s: %v", key, err)
		}
		if err := b.Delete(t.Context(), key); err != nil {
			t.Errorf("delete %s: %v", key, err)
		}
	}
	if got, err := read(b, "packs/aa", 0, -1); err != nil || got != "x" {
		t.Errorf("packs/aa holds %q, %v", got, err)
	}
}

func listing(t *testing.T, b repository.Bucket) {
	keys := []string{"images/a/1", "images/a/2", "images/ab/1", "images/b/1", "manifests/00.sig", "manifests/00", "top"}
	for _, key := range keys {
		put(t, b, key, "12345")
	}
	for prefix, want := range map[string]int{"": 7, "images/": 4, "images/a/": 2, "images/a": 3, "manifests/0": 2, "top": 1, "none/": 0, "none": 0, "images/a/1": 1} {
		var got []string
		for o, err := range b.List(t.Context(), prefix) {
			if err != nil {
				t.Fatal(err)
			}
			if o.Length != 5 || !slices.Contains(keys, o.Key) || !strings.HasPrefix(o.Key, prefix) {
				t.Errorf("prefix %q lists %+v", prefix, o)
			}
			got = append(got, o.Key)
		}
		if len(got) != want {
			t.Errorf("prefix %q lists %v, want %d", prefix, got, want)
		}
	}
	for range b.List(t.Context(), "") {
		break // a caller may stop
	}
}

func deletion(t *testing.T, b repository.Bucket) {
	put(t, b, "layers/a", "one")
	if err := b.Delete(t.Context(), "layers/a"); err != nil {
		t.Fatal(err)
	}
	if _, err := read(b, "layers/a", 0, -1); !errors.Is(err, repository.ErrNotExist) {
		t.Errorf("read after delete: %v", err)
	}
	put(t, b, "layers/a", "two")
	if got, _ := read(b, "layers/a", 0, -1); got != "two" {
		t.Errorf("it holds %q", got)
	}
}

func badKeys(t *testing.T, b repository.Bucket) {
	for _, key := range []string{"", "/", "a/", "/a", "../a", "a/../b", ".hidden", "a//b", "A", "a b", "a\x00", "a\\b", strings.Repeat("a", 600)} {
		if err := b.Put(t.Context(), key, strings.NewReader("x"), 1); err == nil {
			t.Errorf("put %q: no error", key)
		}
		if _, err := b.Read(t.Context(), key, 0, -1); err == nil {
			t.Errorf("read %q: no error", key)
		}
		if _, err := b.Stat(t.Context(), key); err == nil {
			t.Errorf("stat %q: no error", key)
		}
		if err := b.Delete(t.Context(), key); err == nil {
			t.Errorf("delete %q: no error", key)
		}
	}
}
