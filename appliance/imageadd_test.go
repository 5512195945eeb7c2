//go:build linux

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"seedbed/appliance/api"
	"seedbed/images"
)

// runTool runs a program; it is a failure not to have it.
func runTool(t *testing.T, pkg, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v %s (Debian: apt install %s)", name, strings.Join(args, " "), err, out, pkg)
	}
}

// newTableDisk makes a disk with two partitions, the second a clean ext4, and an old time of change.
func newTableDisk(t *testing.T) string {
	t.Helper()
	path, _ := newDisk(t)
	runTool(t, "gdisk", "sgdisk", "-o", "-n", "1:2048:+1M", "-n", "2:4096:+3M", path)
	fs := filepath.Join(t.TempDir(), "fs")
	if err := os.WriteFile(fs, make([]byte, 3<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	runTool(t, "e2fsprogs", "mkfs.ext4", "-q", "-O", "^has_journal", fs)
	b, err := os.ReadFile(fs)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(b, 4096*512); err != nil {
		t.Fatal(err)
	}
	age(t, path)
	return path
}

// age sets the time of a file's last change back, beyond what the record asks for.
func age(t *testing.T, path string) {
	t.Helper()
	if err := os.Chtimes(path, time.Time{}, time.Now().Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
}

func TestImageAddTakesVirtualDisksAndSomePartitions(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	disk := newTableDisk(t)
	raw := decode[api.ImageDetail](t, data, "image", "add", disk, "--name", "raw", "--piece", "512KiB", "--compress", "zstd:3")
	if raw.Added == nil || !raw.Added.SourceRead || raw.Added.Format != "raw" || raw.Added.NewTiles == 0 || raw.Manifest.PieceLength != 512<<10 {
		t.Errorf("raw: %+v, added %+v", raw.Manifest, raw.Added)
	}
	qcow := filepath.Join(t.TempDir(), "disk.qcow2")
	runTool(t, "qemu-utils", "qemu-img", "convert", "-f", "raw", "-O", "qcow2", disk, qcow)
	same := decode[api.ImageDetail](t, data, "image", "add", qcow, "--name", "virtual", "--piece", "512K")
	if same.Added.Format != "qcow2" || same.Added.NewTiles != 0 {
		t.Errorf("qcow2: %+v", same.Added)
	}
	for i, p := range same.Manifest.Partitions {
		if p.Root != raw.Manifest.Partitions[i].Root {
			t.Errorf("partition %d differs", p.Number)
		}
	}
	some := decode[api.ImageDetail](t, data, "image", "add", disk, "--name", "some", "--partitions", "2", "--full=2")
	if p := some.Manifest.Partitions; p[0].MapKind != images.MapNone || p[0].UsedLength != 0 || p[1].MapKind != "used" || len(some.Warnings) == 0 {
		t.Errorf("only partition 2: %+v, %q", p, some.Warnings)
	}
	must(t, data, "image", "verify", "some")
	out := must(t, data, "image", "add", disk, "--name", "text", "--partitions", "1")
	for _, want := range []string{"used of a disk of", "new       0 B stored", "ratio", "left out"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in %s", want, out)
		}
	}
}

// A packed file of several parts that is cut between two of them unpacks without an error: its table tells.
func TestAPackedDiskThatIsCutIsRefused(t *testing.T) {
	data, cut := filepath.Join(t.TempDir(), "data"), filepath.Join(t.TempDir(), "cut.gz")
	if out, err := exec.Command("sh", "-c", "head -c 3145728 "+newTableDisk(t)+" | gzip >"+cut).CombinedOutput(); err != nil {
		t.Fatalf("gzip: %v %s", err, out)
	}
	if out, code := seedbed(t, data, "image", "add", cut, "--name", "cut"); code != exitRefused || !strings.Contains(out, "cut off") || !strings.Contains(out, "take a whole copy") {
		t.Errorf("exit code %d: %s", code, out)
	}
	small := filepath.Join(t.TempDir(), "small.gz")
	if out, err := exec.Command("sh", "-c", "echo no disk | gzip >"+small).CombinedOutput(); err != nil {
		t.Fatalf("gzip: %v %s", err, out)
	}
	if out, code := seedbed(t, data, "image", "add", small, "--name", "small"); code != exitRefused || !strings.Contains(out, small) || strings.Contains(out, "spool") {
		t.Errorf("what is no disk, exit code %d: %s", code, out)
	}
}

func TestATrustedSourceIsNotReadAgain(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	disk := newTableDisk(t)
	add := func(args ...string) api.ImageDetail {
		t.Helper()
		return decode[api.ImageDetail](t, data, append([]string{"image", "add", disk, "--name", "golden", "--trust-source"}, args...)...)
	}
	if d := add(); !d.Added.SourceRead || d.Manifest.Origin != "" || !strings.Contains(strings.Join(d.Warnings, " "), "no earlier image") {
		t.Errorf("the first time: %+v, %q", d.Added, d.Warnings)
	}
	again := add("--compress", "lz4")
	if again.Added.SourceRead || again.Added.From != "golden:1" || again.Manifest.Version != "2" || again.Manifest.Origin != "content of golden:1, source not read" {
		t.Errorf("unchanged: %+v, %+v", again.Added, again.Manifest)
	}
	must(t, data, "image", "verify", "golden:2")
	if out := must(t, data, "image", "add", disk, "--name", "golden", "--trust-source"); !strings.Contains(out, "not read") {
		t.Errorf("it is not said: %s", out)
	}
	if d := add("--partitions", "2"); !d.Added.SourceRead {
		t.Error("other options were not minded")
	}
	b, err := os.ReadFile(disk)
	if err != nil {
		t.Fatal(err)
	}
	b[2048*512+5]++
	if err := os.WriteFile(disk, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if d := add(); !d.Added.SourceRead || d.Added.NewTiles != 1 {
		t.Errorf("changed: %+v", d.Added)
	}
	// It was changed a moment before: the next change might not show in its time.
	if d := add(); !d.Added.SourceRead {
		t.Error("a file that changed just now was trusted")
	}
	age(t, disk)
	add()
	if d := add(); d.Added.SourceRead {
		t.Error("it is read although it has settled")
	}
	// The same file with another content, its time set back.
	times, err := os.Stat(disk)
	if err != nil {
		t.Fatal(err)
	}
	b[2048*512+9]++
	if err := os.WriteFile(disk, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(disk, time.Time{}, times.ModTime()); err != nil {
		t.Fatal(err)
	}
	if d := add(); !d.Added.SourceRead || d.Added.NewTiles != 1 {
		t.Errorf("another content of the same time was not read: %+v", d.Added)
	}
	// The same file with another table, its time set back.
	b[512+56]++ // disk GUID of the GPT, whose checksum is wrong then
	if err := os.WriteFile(disk, b, 0o600); err != nil {
		t.Fatal(err)
	}
	age(t, disk)
	if d := add(); !d.Added.SourceRead {
		t.Error("another partition table was not minded")
	}
}

func TestImageAddRefusals(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	disk := newTableDisk(t)
	backed := filepath.Join(t.TempDir(), "backed.qcow2")
	runTool(t, "qemu-utils", "qemu-img", "create", "-q", "-f", "qcow2", "-b", disk, "-F", "raw", backed)
	cut := filepath.Join(t.TempDir(), "cut")
	if err := os.WriteFile(cut, []byte("half a sector"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		want string
		code int
		args []string
	}{
		{"needs a name", exitUsage, []string{disk}},
		{"lz4:1 to lz4:9", exitUsage, []string{disk, "--name", "x", "--compress", "lz4:30"}},
		{"compression", exitUsage, []string{disk, "--name", "x", "--compress", "rar"}},
		{"power of two", exitUsage, []string{disk, "--name", "x", "--piece", "3MiB"}},
		{"power of two", exitUsage, []string{disk, "--name", "x", "--piece", "B"}},
		{"number of a partition", exitUsage, []string{disk, "--name", "x", "--full=one"}},
		{"no such partition", exitRefused, []string{disk, "--name", "x", "--partitions", "7"}},
		{"backing file", exitRefused, []string{backed, "--name", "x"}},
		{"cut off", exitRefused, []string{cut, "--name", "x"}},
		{"every byte is copied", exitRefused, []string{disk + ".large", "--name", "x", "--refuse-encrypted"}},
	} {
		if strings.HasSuffix(c.args[0], ".large") { // nothing recognised, and longer than a partition without a file system is
			if err := os.WriteFile(c.args[0], []byte("x"), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(c.args[0], 32<<20); err != nil {
				t.Fatal(err)
			}
		}
		if out, code := seedbed(t, data, append([]string{"image", "add"}, c.args...)...); code != c.code || !strings.Contains(out, c.want) {
			t.Errorf("%v: exit code %d: %s", c.args, code, out)
		}
	}
}
