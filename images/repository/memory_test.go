package repository_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"
	"sync"
	"testing"
	"time"

	"seedbed/images"
	"seedbed/images/repository"
	"seedbed/images/repository/buckettest"
)

// memory is a bucket that is not a folder, as object storage is not. It can be told to fail.
type memory struct {
	mu      sync.Mutex
	objects map[string][]byte
	down    error
}

func (m *memory) Put(ctx context.Context, key string, r io.Reader, length int64) error {
	if err := errors.Join(repository.CheckKey(key), ctx.Err()); err != nil {
		return err
	}
	b, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	if int64(len(b)) != length {
		return fmt.Errorf("put %s: %d bytes, %d announced", key, len(b), length)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.down != nil {
		return m.down
	}
	if _, ok := m.objects[key]; ok {
		return fmt.Errorf("put %s: %w", key, repository.ErrExists)
	}
	m.objects[key] = b
	return nil
}

func (m *memory) object(key string) ([]byte, error) {
	if err := repository.CheckKey(key); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.down != nil {
		return nil, m.down
	}
	b, ok := m.objects[key]
	if !ok {
		return nil, fmt.Errorf("object %s: %w", key, repository.ErrNotExist)
	}
	return b, nil
}

func (m *memory) Read(_ context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	b, err := m.object(key)
	if err != nil {
		return nil, err
	}
	if length < 0 {
		length = int64(len(b))
	}
	return io.NopCloser(io.NewSectionReader(bytes.NewReader(b), offset, length)), nil
}

func (m *memory) Stat(_ context.Context, key string) (repository.Object, error) {
	b, err := m.object(key)
	return repository.Object{Key: key, Length: int64(len(b)), Modified: time.Now()}, err
}

func (m *memory) List(_ context.Context, prefix string) iter.Seq2[repository.Object, error] {
	m.mu.Lock()
	defer m.mu.Unlock()
	var list []repository.Object
	for key, b := range m.objects {
		if strings.HasPrefix(key, prefix) {
			list = append(list, repository.Object{Key: key, Length: int64(len(b)), Modified: time.Now()})
		}
	}
	return func(yield func(repository.Object, error) bool) {
		for _, o := range list {
			if !yield(o, nil) {
				return
			}
		}
	}
}

func (m *memory) Delete(_ context.Context, key string) error {
	if err := repository.CheckKey(key); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.objects, key)
	return m.down
}

func (m *memory) setDown(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.down = err
}

func newMemory() *memory { return &memory{objects: map[string][]byte{}} }

func TestMemoryIsABucket(t *testing.T) {
	buckettest.Run(t, func(*testing.T) repository.Bucket { return newMemory() })
}

func TestStorageThatIsDownForAWhileLosesNothing(t *testing.T) {
	m := newMemory()
	if _, err := repository.Open(t.Context(), m, repository.Config{}); err == nil {
		t.Error("opened without a spool")
	}
	cfg := repository.Config{Spool: t.TempDir(), PackLength: 300 << 10}
	r, err := repository.Open(t.Context(), m, cfg)
	if err != nil {
		t.Fatal(err)
	}
	down := errors.New("storage is down")
	m.setDown(down)
	s := repository.NewSample(1, 2<<20)
	d, err := s.Put(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Sync(); err != nil {
		t.Errorf("the spool takes tiles while storage is down: %v", err)
	}
	if _, err := r.Publish(t.Context(), d); !errors.Is(err, down) {
		t.Errorf("publish: %v", err)
	}
	large := repository.NewSample(2, 12<<20)
	if _, err := large.Put(t.Context(), r); !errors.Is(err, down) || !strings.Contains(err.Error(), "spool") {
		t.Errorf("the spool grew without bound: %v", err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if r, err = repository.Open(t.Context(), m, cfg); err != nil {
		t.Fatalf("while storage is down and tiles wait: %v", err)
	}
	defer r.Close()
	if _, err := s.Put(t.Context(), r); !errors.Is(err, down) || !strings.Contains(err.Error(), "spool") {
		t.Errorf("a tile was looked for before those that wait are known: %v", err)
	}
	m.setDown(nil)
	if _, err := r.Images(t.Context()); err != nil {
		t.Error(err)
	}
	if _, _, err := r.Find(images.TileKey{Length: 1}); err != nil {
		t.Errorf("storage is there again: %v", err)
	}
	before := len(m.objects)
	if d, err = s.Put(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	image, err := r.Publish(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	if before < 5 {
		t.Errorf("%d packs were recovered", before)
	}
	if err := r.Verify(t.Context(), image.Digest, nil); err != nil {
		t.Error(err)
	}
	s.ExpectContent(t, r, image.Digest)
}
