package repository

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"

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
	if !errors.Is(err, intake.ErrFull) || !regexp.MustCompile(`\d+ bytes are free in the spool .*; at least \d+ are needed`).MatchString(err.Error()) {
		t.Fatalf("on a full file system: %v, want ErrFull", err)
	}
	if list, err := r.Images(t.Context()); err != nil || len(list) != 1 {
		t.Errorf("images: %v, %v", list, err)
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
