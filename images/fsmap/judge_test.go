package fsmap

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"seedbed/images"
)

// packages names what has to be installed for each tool.
var packages = map[string]string{
	"mkfs.ext4": "e2fsprogs", "mke2fs": "e2fsprogs", "debugfs": "e2fsprogs", "dumpe2fs": "e2fsprogs", "e2fsck": "e2fsprogs",
	"mkfs.fat": "dosfstools", "fsck.fat": "dosfstools", "mcopy": "mtools", "mdel": "mtools", "mkswap": "util-linux",
	"mkntfs": "ntfs-3g", "ntfs-3g": "ntfs-3g", "ntfsfix": "ntfs-3g", "ntfsresize": "ntfs-3g", "ntfsinfo": "ntfs-3g", "partclone.ntfs": "partclone",
	"mkfs.exfat": "exfatprogs", "fsck.exfat": "exfatprogs", "dump.exfat": "exfatprogs", "partclone.exfat": "partclone",
	"xfs_repair": "xfsprogs", "mkfs.xfs": "xfsprogs", "xfs_db": "xfsprogs", "xfs_logprint": "xfsprogs", "partclone.xfs": "partclone", "mount": "mount",
	"mkfs.btrfs": "btrfs-progs", "btrfs": "btrfs-progs", "partclone.btrfs": "partclone", "lvm": "lvm2", "btrfstune": "btrfs-progs", "wipefs": "util-linux", "env": "coreutils", "cp": "coreutils", "sync": "coreutils",
	"mount.exfat-fuse": "exfat-fuse", "losetup": "mount", "cryptsetup": "cryptsetup-bin", "mkfs.f2fs": "f2fs-tools",
	"blkid": "util-linux", "partclone.extfs": "partclone", "partclone.fat": "partclone",
}

// run runs a tool and returns what it printed.
func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%s is missing; install the package %s", name, packages[name])
	}
	cmd := exec.Command(path, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "MTOOLS_SKIP_CHECK=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// newPartition makes a file of noise: what a file system does not write is not zero.
func newPartition(t testing.TB, length int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "partition.img")
	b := make([]byte, 1<<20)
	rand.NewChaCha8([32]byte{42}).Read(b)
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for off := int64(0); off < length; off += int64(len(b)) {
		if _, err := f.Write(b[:min(int64(len(b)), length-off)]); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

// open returns a partition and its length.
func open(t testing.TB, path string) (*os.File, int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return f, info.Size()
}

func scan(t testing.TB, path string) *Result {
	t.Helper()
	f, length := open(t, path)
	r, err := Scan(f, length, Options{})
	if err != nil {
		t.Fatal(err)
	}
	end := int64(-1)
	for _, e := range r.Used {
		if e.Offset <= end || e.Length <= 0 || e.End() > length {
			t.Fatalf("range %v does not follow byte %d inside %d", e, end, length)
		}
		end = e.End()
	}
	return r
}

func mapped(t testing.TB, path, name string) *Result {
	t.Helper()
	r := scan(t, path)
	if r.Kind != KindUsed || r.FS != name || r.Warning != "" {
		t.Fatalf("map %q of %q, warning %q; want a map of %s", r.Kind, r.FS, r.Warning, name)
	}
	return r
}

// poison copies the mapped ranges alone into a file of 0xCC.
func poison(t testing.TB, path string, used []images.Extent) string {
	t.Helper()
	f, length := open(t, path)
	out := filepath.Join(t.TempDir(), "poisoned.img")
	b := bytes.Repeat([]byte{0xCC}, int(length))
	for _, e := range used {
		if _, err := f.ReadAt(b[e.Offset:e.End()], e.Offset); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(out, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return out
}

// tree makes a folder of files: many small ones, some of several MiB, a sparse one, names beyond ASCII.
func tree(t testing.TB, total int) string {
	t.Helper()
	root := t.TempDir()
	r := rand.New(rand.NewPCG(3, 4))
	noise := rand.NewChaCha8([32]byte{7})
	for i, left := 0, total; left > 0; i++ {
		n := r.IntN(20_000)
		if i%40 == 39 {
			n = total/10 + r.IntN(total/10)
		}
		n = min(n, left)
		left -= n
		b := make([]byte, n)
		noise.Read(b)
		dir := filepath.Join(root, fmt.Sprintf("dir%d", i%7), fmt.Sprintf("sub%d", i%3))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("file %d é", i)), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// contents returns the digest of each regular file below root.
func contents(t testing.TB, root string) map[string]images.Digest {
	t.Helper()
	list := map[string]images.Digest{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Name() == "lost+found" {
			return err
		}
		if !d.Type().IsRegular() {
			return nil
		}
		b, err := os.ReadFile(path)
		list[strings.TrimPrefix(path, root)] = images.Sum(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func sameTree(t testing.TB, got, want map[string]images.Digest) {
	t.Helper()
	if len(want) < 10 {
		t.Fatalf("only %d files to compare", len(want))
	}
	for name, d := range want {
		if got[name] != d {
			t.Errorf("%s differs", name)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d files, want %d", len(got), len(want))
	}
}

// domain reads the used ranges from partclone's domain log.
func domain(t testing.TB, tool, path string) []images.Extent {
	t.Helper()
	log := filepath.Join(t.TempDir(), "domain.log")
	run(t, tool, "-D", "-F", "-L", os.DevNull, "-s", path, "-o", log)
	b, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	var list []images.Extent
	for _, line := range strings.Split(string(b), "\n") {
		var off, n int64
		var state string
		if k, _ := fmt.Sscanf(line, "0x%x 0x%x %s", &off, &n, &state); k == 3 && state == "+" {
			list = images.AppendExtent(list, images.Extent{Offset: off, Length: n})
		}
	}
	return list
}

// checkDoubtful checks that a partition is refused, with a remedy, or else copied in full with a warning.
func checkDoubtful(t *testing.T, b []byte, fs, want string, refusal error) {
	t.Helper()
	length := int64(len(b))
	r, err := Scan(memory{b, length}, length, Options{})
	if refusal != nil {
		if !errors.Is(err, refusal) || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "capture") {
			t.Errorf("error %v, want one about %q with the remedy", err, want)
		}
		r, err = Scan(memory{b, length}, length, Options{Full: true})
	}
	if err != nil || !strings.Contains(r.Warning, want) {
		t.Fatalf("%+v, %v; want a warning about %q", r, err, want)
	}
	if r.Kind != KindFull || len(r.Used) != 1 || r.Used[0] != (images.Extent{Offset: 0, Length: length}) || r.FS != fs {
		t.Errorf("not copied in full: %+v", r)
	}
}
