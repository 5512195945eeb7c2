//go:build linux

package fsmap

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// allVariants reports whether the long tests run too.
func allVariants() bool { return os.Getenv("SEEDBED_FULL") != "" }

// mount mounts a partition through FUSE until unmount is called, at the latest at the end of the test. It takes a loop
// device, since for those alone the driver has written everything when the unmount returns.
func mount(t testing.TB, tool, path string, options ...string) (dir string, unmount func()) {
	t.Helper()
	device, detach := attach(t, path)
	steps := []func(){detach}
	unmount = func() {
		for len(steps) > 0 {
			last := steps[len(steps)-1]
			steps = steps[:len(steps)-1]
			last()
		}
	}
	t.Cleanup(unmount)
	dir = t.TempDir()
	run(t, tool, append(options, device, dir)...)
	steps = append(steps, func() {
		// A process that another test is starting may hold our files for a moment.
		for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
			if err := syscall.Unmount(dir, 0); err == nil {
				return
			} else if err != syscall.EBUSY || time.Now().After(end) {
				t.Fatalf("unmount %s: %v", dir, err)
			}
		}
	})
	return dir, unmount
}

// canMount reports whether ntfs-3g mounts a partition for writing, which it does not if that is not clean.
func canMount(t testing.TB, path string) bool {
	t.Helper()
	dir := t.TempDir()
	out, err := exec.Command("ntfs-3g", "-o", "norecover", path, dir).CombinedOutput()
	if err == nil {
		run(t, "umount", "-l", dir)
	}
	return err == nil && !strings.Contains(string(out), "read-only mount")
}

// attach makes a loop device of a partition, until detach is called, at the latest at the end of the test.
func attach(t testing.TB, path string, options ...string) (device string, detach func()) {
	t.Helper()
	var out []byte
	var err error
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) { // another program may take the free one first
		if out, err = exec.Command("losetup", append(options, "--find", "--show", path)...).Output(); err == nil {
			break
		} else if time.Now().After(end) {
			t.Fatalf("losetup of the package mount: %v", err)
		}
	}
	device = strings.TrimSpace(string(out))
	done := false
	detach = func() {
		if !done {
			done = true
			run(t, "losetup", "-d", device)
		}
	}
	t.Cleanup(detach)
	return device, detach
}

// age fills a mounted file system of length bytes and frees parts of it, over and over: free space, large files and
// directories end up in many parts. At the end about half is in use.
func age(t testing.TB, root string, length int) {
	t.Helper()
	r := rand.New(rand.NewPCG(5, 6))
	noise := rand.NewChaCha8([32]byte{9})
	b := make([]byte, length/8)
	noise.Read(b)
	piece := func(n int) []byte { at := r.IntN(len(b) - n); return b[at : at+n] }
	var names []string
	count := 0
	create := func(n int) bool {
		count++
		dir := filepath.Join(root, fmt.Sprintf("dir %d", count%5))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		name := filepath.Join(dir, fmt.Sprintf("a file with a longer name %d é", count))
		err := os.WriteFile(name, piece(n), 0o644)
		if errors.Is(err, syscall.ENOSPC) {
			os.Remove(name)
			return false
		} else if err != nil {
			t.Fatal(err)
		}
		names = append(names, name)
		return true
	}
	remove := func(every int) {
		kept := names[:0]
		for i, name := range names {
			if i%every != 0 {
				kept = append(kept, name)
			} else if err := os.Remove(name); err != nil {
				t.Fatal(err)
			}
		}
		names = kept
	}
	small := length / 800
	for create(1 + r.IntN(2*small)) {
	}
	remove(2)
	for range 400 { // lie in the directory's or the table's own records where the file system can do that
		create(1 + r.IntN(300))
	}
	fragment(t, root, length/16, piece)
	remove(3)
	for range 4 {
		create(length / 40)
	}
	remove(4)
}

// fragment lets three files grow in turns.
func fragment(t testing.TB, root string, length int, piece func(int) []byte) {
	t.Helper()
	var files []*os.File
	for i := range 3 {
		f, err := os.Create(filepath.Join(root, fmt.Sprintf("grown %d", i)))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		files = append(files, f)
	}
	for n := 0; n < length; n += 3 * 1500 {
		for _, f := range files {
			if _, err := f.Write(piece(1500)); errors.Is(err, syscall.ENOSPC) {
				return // tiny files in long clusters took all
			} else if err != nil {
				t.Fatal(err)
			}
		}
	}
}
