package main

import (
	"context"
	"log/slog"
	"os"
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
	lib, data, _ := newLibrary(t, "one", "two")
	events := &diary{}
	s := &schedule{lib: lib, note: events.note, log: slog.New(slog.DiscardHandler), path: filepath.Join(data, "verified.json"),
		first: time.Millisecond, pruneEvery: time.Hour, verifyRate: 1 << 40, verifyEvery: time.Hour, lookEvery: time.Millisecond}
	s.verify(t.Context())
	if events.text() != "" {
		t.Errorf("whole images: %s", events.text())
	}
	damage(t, filepath.Join(data, "repository", "packs"))
	s.verify(t.Context())
	if events.text() != "" {
		t.Errorf("verified again within the week: %s", events.text())
	}
	if err := os.Remove(s.path); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	for strings.Count(events.text(), eventDamaged) < 2 && ctx.Err() == nil {
		<-time.After(time.Millisecond)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if text := events.text(); strings.Count(text, "\n") != 1 || !strings.Contains(text, "image one:1: partition 0, bytes [") || !strings.Contains(text, "--heal-from") {
		t.Errorf("events:\n%s", text)
	}
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
