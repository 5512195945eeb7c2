package parttable

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// run runs a tool with commands on its standard input and returns what it printed.
func run(t testing.TB, pkg, input, name string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%s is missing; install the package %s", name, pkg)
	}
	cmd := exec.Command(path, args...)
	cmd.Stdin = strings.NewReader(input)
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// newDisk makes a sparse file of the given length.
func newDisk(t testing.TB, length int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk.img")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, length); err != nil {
		t.Fatal(err)
	}
	return path
}

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

func read(t testing.TB, path string, sector int) *Table {
	t.Helper()
	f, length := open(t, path)
	table, err := Read(f, length, sector)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// move writes the frame of one disk onto a new one of another length.
func move(t testing.TB, table *Table, length int64) string {
	t.Helper()
	list, err := Relocate(table.Frame(), table.Kind, table.SectorLength, length)
	if err != nil {
		t.Fatal(err)
	}
	path := newDisk(t, length)
	write(t, path, list)
	return path
}

func write(t testing.TB, path string, list []Region) {
	t.Helper()
	f, _ := open(t, path)
	for _, r := range list {
		if _, err := f.WriteAt(r.Bytes, r.Offset); err != nil {
			t.Fatal(err)
		}
	}
}

// dump is what sfdisk says of a disk, without what depends on the disk's name and length.
func dump(t testing.TB, path string) string {
	t.Helper()
	var lines []string
	for _, line := range strings.Split(run(t, "fdisk", "", "sfdisk", "--dump", path), "\n") {
		if !strings.HasPrefix(line, "device:") && !strings.HasPrefix(line, "last-lba:") {
			lines = append(lines, strings.ReplaceAll(line, path, "disk"))
		}
	}
	return strings.Join(lines, "\n")
}

// escape is how sfdisk prints the bytes of a name beyond ASCII.
var escape = regexp.MustCompile(`(\\x[0-9a-f]{2})+`)

// same compares the table with sfdisk's dump of the disk, partition by partition.
func same(t testing.TB, table *Table, path string) {
	t.Helper()
	var got []string
	for _, p := range table.Partitions {
		kind := p.Type
		if table.Kind == MBR {
			kind = strings.TrimLeft(kind, "0")
		}
		line := fmt.Sprintf("disk%d : start=%d, size=%d, type=%s", p.Number, p.Offset/512, p.Length/512, kind)
		if table.Kind == GPT {
			line += ", uuid=" + p.GUID
			if p.Label != "" {
				line += fmt.Sprintf(", name=%q", p.Label)
			}
		}
		got = append(got, line)
	}
	var want []string
	for _, line := range strings.Split(dump(t, path), "\n") {
		if !strings.HasPrefix(line, "disk") || strings.Contains(line, "type=5,") || strings.HasSuffix(line, "type=5") || strings.HasSuffix(line, "type=85") || strings.Contains(line, "type=f,") || strings.HasSuffix(line, "type=f") {
			continue
		}
		line = strings.Join(strings.Fields(line), " ")
		line = strings.ReplaceAll(line, "= ", "=")
		line, _, _ = strings.Cut(line, ", bootable")
		if before, _, ok := strings.Cut(line, ", attrs"); ok {
			line = before
		}
		line = escape.ReplaceAllStringFunc(line, func(s string) string {
			s, err := strconv.Unquote(`"` + s + `"`)
			if err != nil {
				t.Fatal(err)
			}
			return s
		})
		want = append(want, line)
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("read:\n%s\nsfdisk says:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func verify(t testing.TB, path string) {
	t.Helper()
	out := run(t, "gdisk", "", "sgdisk", "-v", path)
	if !strings.Contains(out, "No problems found") || strings.Contains(out, "Warning") || strings.Contains(out, "Caution") {
		t.Errorf("sgdisk -v:\n%s", out)
	}
}

const gptLength = 256 << 20

// gptTemplate is made once: sgdisk waits a second after each write.
var gptTemplate = sync.OnceValues(func() ([]Region, error) {
	dir, err := os.MkdirTemp("", "parttable")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "disk.img")
	if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, gptLength)); err != nil {
		return nil, err
	}
	out, err := exec.Command("sgdisk", "-n1:2048:+1M", "-t1:EF02", "-n2:0:+32M", "-t2:EF00", "-c2:Rétablir 日本", "-n3:0:+100M",
		"-A3:set:2", "-A3:set:63", "-n5:0:+40M", "-t5:0700", path).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("sgdisk (package gdisk): %w\n%s", err, out)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return []Region{{"", 0, b[:1<<20]}, {"", gptLength - 1<<20, b[gptLength-1<<20:]}}, nil
})

// gptDisk has four partitions by sgdisk, a name beyond ASCII, attributes and something in the gap.
func gptDisk(t testing.TB, length int64) string {
	t.Helper()
	list, err := gptTemplate()
	if err != nil || length != gptLength {
		t.Fatal(length, err)
	}
	path := newDisk(t, length)
	write(t, path, list)
	f, _ := open(t, path)
	for off, text := range map[int64]string{0: "boot code", 40 * 512: "in the gap", 2047 * 512: "at the end of the gap"} {
		if _, err := f.WriteAt([]byte(text), off); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

// mbrDisk has two primary and three logical partitions, one of them out of order, with 2048 sectors for each record.
func mbrDisk(t testing.TB, length int64) string {
	t.Helper()
	path := newDisk(t, length)
	run(t, "fdisk", `label: dos
label-id: 0xdeadbeef
start=2048, size=20480, type=83, bootable
start=40960, size=200000, type=f
start=24576, size=8192, type=7
start=43008, size=20480, type=83
start=67584, size=20480, type=82
start=100000, size=8192, type=c
`, "sfdisk", path)
	f, _ := open(t, path)
	for off, text := range map[int64]string{0: "boot code", 512: "core.img", 1000 * 512: "more of it", 33000 * 512: "between"} {
		if _, err := f.WriteAt([]byte(text), off); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

func sfdiskGPT(t testing.TB, length int64) string {
	path := newDisk(t, length)
	run(t, "fdisk", "label: gpt\ntable-length: 16\nsize=50MiB, type=linux\nsize=20MiB, type=swap\n", "sfdisk", path)
	return path
}
