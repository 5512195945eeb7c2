package repository

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"

	"seedbed/images"
	"seedbed/images/intake"
)

// smallFolder is set for the test binary that runs in a mount namespace of its own, on a file system of 8 MiB.
const smallFolder = "SEEDBED_TEST_SMALL_FOLDER"

// TestAFullFileSystemOfTheKernel fills a real file system with a capture, makes room and captures again.
func TestAFullFileSystemOfTheKernel(t *testing.T) {
	folder := os.Getenv(smallFolder)
	if folder == "" {
		if os.Getuid() != 0 {
			t.Fatal("run as root: it mounts a file system in a namespace of its own")
		}
		cmd := exec.Command("unshare", "--mount", "sh", "-c", `mount -t tmpfs -o size=8m,mode=700 seedbed-test "$0" && exec "$@"`, t.TempDir(),
			os.Args[0], "-test.run=^TestAFullFileSystemOfTheKernel$")
		cmd.Env = append(os.Environ(), smallFolder+"="+cmd.Args[5])
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v (unshare and mount are in the packages util-linux and mount)\n%s", err, out)
		}
		return
	}
	r := openTest(t, folder)
	small := newSample(rng(900), "debian", "1", 1<<20, 2<<20)
	kept := small.mustCapture(t, r, "")
	ballast := filepath.Join(folder, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 4<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	large := newSample(rng(901), "debian", "2", 1<<20, 16<<20)
	_, err := large.captured(t.Context(), r, "")
	if !errors.Is(err, intake.ErrFull) || !regexp.MustCompile(`\d+ bytes are free in the spool .*; at least \d+ are needed.* stay free for pruning`).MatchString(err.Error()) {
		t.Fatalf("on a full file system: %v, want ErrFull", err)
	}
	if list, err := r.Images(t.Context()); err != nil || len(list) != 1 {
		t.Errorf("images: %v, %v", list, err)
	}
	small.expectContent(t, r, kept.Digest)
	if _, err := r.Prune(t.Context(), PruneConfig{}); err != nil {
		t.Errorf("pruning after a capture filled the file system: %v", err)
	}
	if r = reopenFull(t, r, folder); r == nil {
		return
	}
	small.expectContent(t, r, kept.Digest)
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	image := large.mustCapture(t, r, "")
	large.expectContent(t, r, image.Digest)
	if err := r.VerifyAll(t.Context(), VerifyConfig{}); err != nil {
		t.Error(err)
	}
}

// reopenFull fills the file system to its last byte and opens the repository anew: images can be served.
func reopenFull(t *testing.T, r *Repository, folder string) *Repository {
	t.Helper()
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(filepath.Join(folder, "ballast"), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	left, err := filepath.Glob(filepath.Join(folder, ".spool", "journal", "*.segment"))
	if err != nil || len(left) == 0 {
		t.Fatalf("no tiles wait in the spool: %v", err)
	}
	if r = openTest(t, folder); t.Failed() {
		return nil
	}
	// The last page of a segment may have room for its index.
	if _, _, err := r.Find(images.TileKey{Length: 1}); err != nil && !errors.Is(err, intake.ErrFull) {
		t.Errorf("a tile was looked for on a full file system: %v, want nil or ErrFull", err)
	}
	return r
}
