package agent

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"seedbed/appliance/job"
)

// run runs a program that has to succeed.
func run(t *testing.T, input, pkg, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Stdin = strings.NewReader(input)
	cmd.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin", "MTOOLS_SKIP_CHECK=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v: %s (Debian: apt-get install %s)", name, args, err, out, pkg)
	}
	return string(out)
}

const mib = 1 << 20

// parts are the file systems of a golden disk in its first and its second version.
type parts struct{ ext, fat, swap []byte }

// newParts makes file systems of 6, 2 and 1 MiB with files of noise. The second version has some more, and some less.
func newParts(t *testing.T) (versions [2]parts) {
	t.Helper()
	dir := t.TempDir()
	name := func(s string) string { return filepath.Join(dir, s) }
	noise := func(file string, length int, seed byte) {
		b := make([]byte, length)
		rand.NewChaCha8([32]byte{seed}).Read(b)
		if err := os.WriteFile(name(file), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(name("tree"), 0o700); err != nil {
		t.Fatal(err)
	}
	for i := range 8 {
		noise(fmt.Sprintf("tree/%d", i), 1<<uint(10+i), byte(i))
	}
	noise("tree/large", 3*mib, 9)
	noise("new", 300<<10, 10)
	for file, length := range map[string]int64{"ext": 6 * mib, "fat": 2 * mib, "swap": mib} {
		noise(file, int(length), 77) // free space holds what was there before
	}
	const uuid = "5eedbed0-0000-4000-8000-000000000001"
	run(t, "", "e2fsprogs", "mkfs.ext4", "-q", "-F", "-U", uuid, "-E", "hash_seed="+uuid, "-O", "^has_journal", "-d", name("tree"), name("ext"))
	run(t, "", "dosfstools", "mkfs.vfat", "-i", "5eedbed0", name("fat"))
	run(t, "", "mtools", "mcopy", "-s", "-i", name("fat"), name("tree/7"), "::/SEVEN")
	run(t, "", "util-linux", "mkswap", "-q", "-U", uuid, name("swap"))
	versions[0] = parts{bytesOf(t, name("ext")), bytesOf(t, name("fat")), bytesOf(t, name("swap"))}
	run(t, "rm 6\nwrite "+name("new")+" new\n", "e2fsprogs", "debugfs", "-w", "-f", "-", name("ext"))
	run(t, "", "mtools", "mcopy", "-i", name("fat"), name("new"), "::/NEW")
	versions[1] = parts{bytesOf(t, name("ext")), bytesOf(t, name("fat")), versions[0].swap}
	return versions
}

// jobDisk is the one disk of a machine.
func jobDisk(length int64) job.Disk {
	return job.Disk{Name: "vda", Serial: "SN1", Bus: "virtio", Length: length, SectorLength: 512}
}

// kind makes golden disks with the parts in it.
type kind struct {
	name string
	make func(t *testing.T, p parts) []byte
}

var kinds = []kind{
	{"GPT", func(t *testing.T, p parts) []byte {
		return partitioned(t, 12*mib, "label: gpt\nlabel-id: 5EEDBED0-0000-4000-8000-000000000000\n"+
			"start=2048, size=4096, type=U\nstart=6144, size=12288, type=L\nstart=18432, size=2048, type=S\n",
			map[int][]byte{2048: p.fat, 6144: p.ext, 18432: p.swap})
	}},
	{"MBR", func(t *testing.T, p parts) []byte {
		return partitioned(t, 12*mib, "label: dos\nlabel-id: 0x5eedbed0\n"+
			"start=2048, size=12288, type=83, bootable\nstart=14336, size=10000, type=5\nstart=14400, size=4096, type=c\nstart=20480, size=2048, type=82\n",
			map[int][]byte{2048: p.ext, 14400: p.fat, 20480: p.swap})
	}},
	{"bare", func(t *testing.T, p parts) []byte { return bytes.Clone(p.ext) }},
}

// partitioned makes a disk of length bytes by sfdisk's script, with boot code, something in the gap behind the table, and
// content by sector.
func partitioned(t *testing.T, length int, script string, content map[int][]byte) []byte {
	t.Helper()
	file := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(file, make([]byte, length), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, script, "fdisk", "sfdisk", "-q", file)
	b := bytesOf(t, file)
	copy(b, "\xebboot code of "+script[:10])
	copy(b[64*512:], bytes.Repeat([]byte("core image "), 500))
	for at, c := range content {
		copy(b[at*512:], c)
	}
	return b
}
