//go:build linux

package fsmap

import (
	"bytes"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"seedbed/images"
)

// TestMain starts the program again in a mount namespace of its own, where it may: no mount outlives the tests. Files lie in
// memory, and since tests wait for tools, loop devices and unmounts, more of them run at once than there are cores.
func TestMain(m *testing.M) {
	const mark = "SEEDBED_FSMAP_MOUNTS"
	if room := new(syscall.Statfs_t); os.Getenv("TMPDIR") == "" && syscall.Statfs(memoryFolder, room) == nil && int64(room.Bavail)*room.Bsize > 4<<30 {
		os.Setenv("TMPDIR", memoryFolder)
	}
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
	if !given {
		flag.Set("test.parallel", fmt.Sprint(3*runtime.GOMAXPROCS(0)))
	}
	if os.Getenv(mark) == "" && syscall.Geteuid() == 0 {
		runtime.LockOSThread()
		if err := privateMounts(); err != nil {
			fmt.Fprintf(os.Stderr, "mount namespace: %v; mounts are made in that of the caller\n", err)
		} else if err := syscall.Exec("/proc/self/exe", os.Args, append(os.Environ(), mark+"=1")); err != nil {
			fmt.Fprintln(os.Stderr, "start again:", err)
		}
	}
	os.Exit(m.Run())
}

// memoryFolder is where Linux keeps a file system in memory for everyone.
const memoryFolder = "/dev/shm"

func privateMounts() error {
	if err := syscall.Unshare(syscall.CLONE_NEWNS); err != nil {
		return err
	}
	return syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, "")
}

// mounted mounts a partition with the kernel's driver while f runs.
func mounted(t testing.TB, path, options string, f func(dir string)) {
	t.Helper()
	dir, unmount := mount(t, "mount", path, "-o", strings.TrimPrefix(options+",noatime", ","))
	defer unmount()
	f(dir)
}

// scratch returns a new folder in memory: what lies there is poisoned and mounted without a disk's delays.
func scratch(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp(memoryFolder, "seedbed-fsmap-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// noise makes a partition of noise in memory.
func noise(t testing.TB, length int64) string {
	t.Helper()
	path := filepath.Join(scratch(t), "partition.img")
	if err := os.Rename(newPartition(t, 1<<20), path); err != nil {
		b := bytes.Repeat([]byte{0x5a}, 1<<20)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	f, _ := open(t, path)
	for off := int64(0); off < length; off += int64(len(b)) {
		if _, err := f.WriteAt(b[:min(int64(len(b)), length-off)], off); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

// poisoned is poison in memory, 1 MiB at a time.
func poisoned(t testing.TB, path string, used []images.Extent) string {
	t.Helper()
	f, length := open(t, path)
	out, err := os.Create(filepath.Join(scratch(t), "poisoned.img"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cc, b := bytes.Repeat([]byte{0xCC}, 1<<20), make([]byte, 1<<20)
	fill := func(e images.Extent, b []byte, read bool) {
		for e.Length > 0 {
			p := b[:min(e.Length, int64(len(b)))]
			if read {
				if _, err := f.ReadAt(p, e.Offset); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := out.WriteAt(p, e.Offset); err != nil {
				t.Fatal(err)
			}
			e.Offset, e.Length = e.Offset+int64(len(p)), e.Length-int64(len(p))
		}
	}
	for _, e := range used {
		fill(e, b, true)
	}
	for _, e := range gaps(used, length) {
		fill(e, cc, false)
	}
	return out.Name()
}

// grow adds to an aged tree what only file systems of Unix have: links, holes, names with many entries, files that shrank.
func grow(t testing.TB, root string) {
	t.Helper()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	dir := filepath.Join(root, "unix")
	check(os.MkdirAll(dir, 0o750))
	b := bytes.Repeat([]byte("what a file holds\n"), 60_000)
	check(os.WriteFile(filepath.Join(dir, "long"), b, 0o640))
	check(os.Truncate(filepath.Join(dir, "long"), 500_001))
	check(os.Link(filepath.Join(dir, "long"), filepath.Join(dir, "the same")))
	check(os.Symlink("long", filepath.Join(dir, "short link")))
	check(os.Symlink(strings.Repeat("a/long/target/", 60), filepath.Join(dir, "long link")))
	check(os.Truncate(filepath.Join(dir, "the same"), 700_000))
	// Shared where the file system can do that; then one of the two changes, and reserves room behind its end.
	run(t, "cp", "--reflink=auto", filepath.Join(dir, "long"), filepath.Join(dir, "shared"))
	shared, err := os.OpenFile(filepath.Join(dir, "shared"), os.O_WRONLY, 0)
	check(err)
	defer shared.Close()
	const keepSize, punchHole = 1, 2 // FALLOC_FL_
	for _, e := range []error{syscall.Fallocate(int(shared.Fd()), keepSize|punchHole, 65536, 200_000), syscall.Fallocate(int(shared.Fd()), keepSize, 2<<20, 1_000_000)} {
		if e != syscall.EOPNOTSUPP { // ext2 and ext3 have neither
			check(e)
		}
	}
	hole, err := os.Create(filepath.Join(dir, "holes"))
	check(err)
	defer hole.Close()
	for i := range int64(40) {
		_, err := hole.WriteAt(b[:5000], i*100_000)
		check(err)
	}
	for i := range 1500 {
		check(os.WriteFile(filepath.Join(dir, fmt.Sprintf("one of many files in one folder %d", i)), b[:i%40], 0o600))
	}
	for i := range 1500 {
		if i%3 != 0 {
			check(os.Remove(filepath.Join(dir, fmt.Sprintf("one of many files in one folder %d", i))))
		}
	}
}

// listing is contents with what Unix knows of each name.
func listing(t testing.TB, root string) map[string]images.Digest {
	t.Helper()
	list := contents(t, root)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Name() == "lost+found" {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		target, _ := os.Readlink(path)
		if d.IsDir() {
			target = "folder"
		}
		what := fmt.Sprint(info.Mode(), info.ModTime().UnixNano(), target)
		list[strings.TrimPrefix(path, root)+" is"] = images.Sum([]byte(what))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// comparePoisoned copies the mapped ranges alone, lets check judge, mounts the copy and compares what it holds.
func comparePoisoned(t testing.TB, path string, used []images.Extent, want map[string]images.Digest, options string, check func(path string)) {
	t.Helper()
	out := poisoned(t, path, used)
	check(out)
	mounted(t, out, strings.TrimSuffix("ro,"+options, ","), func(dir string) { sameTree(t, listing(t, dir), want) })
}
