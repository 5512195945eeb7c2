//go:build linux

package main

import (
	"context"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

const goodTopology = "groups:\n  - {name: lab-a, members: [10.0.0.0/24]}\n  - {name: lab-b, members: [10.0.1.0/24]}\n"

func writeTopology(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestTopologyIsCheckedByACommand(t *testing.T) {
	path := filepath.Join(t.TempDir(), "topology.yaml")
	writeTopology(t, path, goodTopology)
	if out := must(t, t.TempDir(), "topology", "check", path); !strings.Contains(out, "2. group lab-b: 10.0.1.0/24\n   fetches from group lab-a") {
		t.Errorf("%s", out)
	}
	writeTopology(t, path, goodTopology+"edges:\n  - forbid: [lab-a, lab-c]\nothers: lab-d\n")
	out, code := seedbed(t, t.TempDir(), "topology", "check", path)
	if code != exitFailure || !strings.Contains(out, path+`: line 5: "lab-c" is no group`) || !strings.Contains(out, path+`: line 6: others names "lab-d"`) {
		t.Errorf("exit code %d: %s", code, out)
	}
	if out, code := seedbed(t, t.TempDir(), "topology", "check"); code != exitUsage {
		t.Errorf("exit code %d: %s", code, out)
	}
}

// lines is a writer that passes on what is written, for as long as somebody listens.
type lines chan string

func (l lines) Write(b []byte) (int, error) {
	select {
	case l <- string(b):
	default:
	}
	return len(b), nil
}

func TestTopologyIsReadAgainAtSIGHUP(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "topology.yaml")
	writeTopology(t, path, goodTopology)
	said := make(lines, 100)
	ready, ended := make(chan struct{}), make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		ended <- run(ctx, config{
			Data: filepath.Join(dir, "data"), Topology: path, Address: netip.MustParseAddr("127.0.0.1"), HTTPS: "127.0.0.1:0",
			Swarm: "127.0.0.1:0", NoBoot: true, Ready: func(addresses) { close(ready) },
		}, slog.New(slog.NewTextHandler(said, nil)))
	}()
	select {
	case <-ready:
	case err := <-ended:
		t.Fatal(err)
	}
	for _, c := range []struct{ text, want string }{
		{goodTopology + "max_connections: 1\n", "topology not read again"}, {goodTopology, "topology read again"},
	} {
		writeTopology(t, path, c.text)
		if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		for limit := time.After(10 * time.Second); ; {
			select {
			case line := <-said:
				if !strings.Contains(line, c.want) {
					continue
				}
			case <-limit:
				t.Fatalf("the log does not say %q", c.want)
			}
			break
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	writeTopology(t, path, "groups: 7\n")
	if err := run(t.Context(), config{Data: filepath.Join(dir, "other"), Topology: path, Address: netip.MustParseAddr("127.0.0.1"),
		HTTPS: "127.0.0.1:0", Swarm: "127.0.0.1:0", NoBoot: true}, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), path+": line 1") {
		t.Errorf("started with a topology that cannot be used: %v", err)
	}
}
