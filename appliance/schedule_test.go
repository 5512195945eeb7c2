//go:build linux

package main

import (
	"context"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"seedbed/appliance/api"
)

// diary collects events.
type diary struct {
	mu    sync.Mutex // guards lines
	lines []string
}

func (d *diary) note(_ context.Context, kind, text string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lines = append(d.lines, kind+": "+text)
	return nil
}

func (d *diary) text() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return strings.Join(d.lines, "\n")
}

// library makes images of one disk in a library of its own.
func newLibrary(t *testing.T, names ...string) (lib *library, data, disk string) {
	t.Helper()
	data = t.TempDir()
	lib, err := openLibrary(t.Context(), data, "", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { lib.close() })
	disk, _ = newDisk(t)
	for _, name := range names {
		if _, err := lib.Add(t.Context(), api.ImageOrder{Path: disk, Name: name}, nil); err != nil {
			t.Fatal(err)
		}
	}
	return lib, data, disk
}

func TestDamageBecomesAnEventOnceAWeek(t *testing.T) {
	lib, data, disk := newLibrary(t, "one", "two")
	events := &diary{}
	s := &schedule{lib: lib, note: events.note, log: slog.New(slog.DiscardHandler), first: time.Millisecond, pruneEvery: time.Hour,
		verifyRate: 1 << 40, lookEvery: time.Millisecond, turns: &turns{bucket: lib.bucket, path: filepath.Join(data, "verifying"), every: time.Hour}}
	s.verify(t.Context())
	if events.text() != "" {
		t.Errorf("whole images: %s", events.text())
	}
	damage(t, filepath.Join(data, "repository", "packs"))
	s.verify(t.Context())
	if events.text() != "" {
		t.Errorf("verified again within the week: %s", events.text())
	}
	if err := lib.bucket.Delete(t.Context(), turnKey(1)); err != nil { // as if the week were over
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	for strings.Count(events.text(), api.EventDamaged) < 2 && ctx.Err() == nil {
		<-time.After(time.Millisecond)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if text := events.text(); strings.Count(text, "\n") != 1 || !strings.Contains(text, "image one:1: partition 0, bytes [") || !strings.Contains(text, "--heal-from") {
		t.Errorf("events:\n%s", text)
	}
	for _, damaged := range []int{2, 0} {
		r, err := lib.Verify(t.Context(), api.VerifyOrder{HealFrom: disk, Heal: true}, nil)
		if err != nil || !r.IsWhole() || len(r.Images[0].Damage)+len(r.Images[1].Damage) != damaged || r.Images[1].Checked != 4<<20 {
			t.Errorf("both images share the damaged tile: %+v %v", r, err)
		}
	}
}

func TestAppliancesOnOneBucketTakeTurns(t *testing.T) {
	lib, data, _ := newLibrary(t)
	take := func(s *turns, want int) {
		t.Helper()
		if n, err := s.take(t.Context()); err != nil || n != want {
			t.Fatalf("turn %d, want %d: %v", n, want, err)
		}
	}
	a := &turns{bucket: lib.bucket, path: filepath.Join(data, "a"), every: time.Hour}
	b := &turns{bucket: lib.bucket, path: filepath.Join(data, "b"), every: time.Hour}
	take(a, 1)
	take(b, 0)
	take(a, 1) // it was stopped, and begins again
	if err := a.done(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	take(a, 0)
	take(b, 0)
	b.every = time.Nanosecond
	take(b, 2)
	a.every = time.Nanosecond // b died long ago
	take(a, 2)
	for range 2 { // both finish
		if err := a.done(t.Context(), 2); err != nil {
			t.Fatal(err)
		}
	}
	take(b, 3)
}

func TestVerificationKeepsToItsRate(t *testing.T) {
	lib, _, _ := newLibrary(t, "one")
	start := time.Now()
	r, err := lib.Verify(t.Context(), api.VerifyOrder{Image: "one", BytesPerSecond: 16 << 20}, nil)
	if err != nil || !r.IsWhole() {
		t.Fatal(r, err)
	}
	if took := time.Since(start); took < 200*time.Millisecond {
		t.Errorf("4 MiB at 16 MiB/s took %v", took)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := lib.Verify(ctx, api.VerifyOrder{Image: "one", BytesPerSecond: 1}, nil); err == nil {
		t.Error("a cancelled verification succeeded")
	}
}
