// Package e2e tests the programs that a user runs, in virtual machines: from the first PXE packet to the login prompt of
// a deployed disk. Each test is the sentence that its name says.
package e2e

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"seedbed/appliance/api"
	"seedbed/appliance/job"
	"seedbed/test-vm/golden"
	"seedbed/test-vm/lab"
)

// Where `make` puts what the tests use.
const (
	program = "../../build/seedbed"
	bootDir = "../../build/boot"
	goldens = "../../build/golden"
	logDir  = "../../build/e2e"
)

// diskLength is the length of disks that an image fits on, in bytes; smallLength of those that are too small.
const (
	diskLength  = 1 << 30
	smallLength = 128 << 20
)

func TestMain(m *testing.M) {
	if os.Getenv("SEEDBED_E2E") == "" {
		fmt.Println("NOT RUN: the end-to-end tests start virtual machines for minutes; `make test` runs them with SEEDBED_E2E=1")
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// room is a lab with an image to deploy.
type room struct {
	*lab.Lab
	t *testing.T
}

// openRoom makes a lab that is closed at the end of the test. Its logs are kept in build/e2e under a short name, since
// the path of a socket has at most 107 bytes.
func openRoom(t *testing.T, name string, c lab.Config) *room {
	t.Helper()
	for tool, pkg := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			t.Fatalf("the program %s is missing; run: apt-get install %s", tool, pkg)
		}
	}
	dir, err := filepath.Abs(filepath.Join(logDir, name))
	must(t, err)
	must(t, os.RemoveAll(dir))
	must(t, os.MkdirAll(dir, 0o755))
	c.Dir = dir
	c.Log = slog.New(slog.NewTextHandler(io.Discard, nil))
	l, err := lab.Start(t.Context(), c)
	must(t, err)
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("logs and disks are in %s", dir)
			return
		}
		removeDisks(t, dir)
	})
	return &room{l, t}
}

// removeDisks leaves only logs behind.
func removeDisks(t *testing.T, dir string) {
	for _, pattern := range []string{"*.raw", "*.qcow2", "*.vars", "judge-*", "appliance", "appliance[0-9]"} {
		found, err := filepath.Glob(filepath.Join(dir, pattern))
		must(t, err)
		for _, path := range found {
			must(t, os.RemoveAll(path))
		}
	}
}

// image returns the path of a golden image.
func image(t *testing.T, kind golden.Kind) string {
	t.Helper()
	path, err := golden.Build(t.Context(), kind, golden.Config{Dir: goldens})
	must(t, err)
	return path
}

// serve starts the room's appliance.
func (r *room) serve() *lab.Appliance {
	r.t.Helper()
	a, err := r.Appliance(program, bootDir)
	must(r.t, err)
	must(r.t, a.Start(r.t.Context()))
	return a
}

func (r *room) empty(name string, length int64) lab.Disk {
	r.t.Helper()
	d, err := r.EmptyDisk(name, length)
	must(r.t, err)
	return d
}

func (r *room) deployed(name, image string) lab.Disk {
	r.t.Helper()
	d, err := r.Overlay(r.t.Context(), name, image, diskLength)
	must(r.t, err)
	return d
}

func (r *room) machine(name string, f lab.Firmware, disks ...lab.Disk) *lab.Machine {
	r.t.Helper()
	m, err := r.Machine(r.t.Context(), lab.MachineConfig{Name: name, Firmware: f, Disks: disks})
	must(r.t, err)
	return m
}

func start(t *testing.T, m *lab.Machine, o lab.StartOptions) *lab.Boot {
	t.Helper()
	b, err := m.Start(o)
	must(t, err)
	return b
}

// within returns a context that ends after d or with the test.
func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func must(t reporter, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%v", err)
	}
}

// waitJob waits until the machine's job is as ok wants it.
func waitJob(t *testing.T, a *lab.Appliance, m *lab.Machine, d time.Duration, ok func(*api.Job) bool) *api.Job {
	t.Helper()
	j, err := a.WaitJob(within(t, d), m, ok)
	must(t, err)
	return j
}

func succeeded(j *api.Job) bool { return j.State == job.Succeeded }

// heldShare is true when the machine's disk holds more than percent of the image.
func heldShare(percent int64) func(*api.Job) bool {
	return func(j *api.Job) bool {
		return j.Total > 0 && 100*j.Held > percent*j.Total || j.State == job.Succeeded
	}
}

// tools are the programs that the tests run beside the lab's, with the Debian package of each.
var tools = map[string]string{"sgdisk": "gdisk", "sfdisk": "fdisk", "fsck.ext4": "e2fsprogs", "debugfs": "e2fsprogs", "fsck.fat": "dosfstools",
	"ntfsfix": "ntfs-3g", "partclone.ext4": "partclone", "partclone.fat": "partclone", "mcopy": "mtools", "diff": "diffutils"}

// tool runs a program to its end and returns what it printed; a failure is the test's.
func tool(t reporter, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Env = append(os.Environ(), "MTOOLS_SKIP_CHECK=1", "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%s %s: %v:\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}
