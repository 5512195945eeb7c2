//go:build linux

package fsmap

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"seedbed/images"
)

// btrfsVariants, with the options of mount; those marked full are not in the quick run.
var btrfsVariants = []struct {
	name    string
	mib     int64
	full    bool
	args    string
	options string
}{
	{"default", 120, false, "", ""},
	{"mixed", 64, false, "-M -m single -d single", "compress-force=lzo"},
	{"blocks of 4k, DUP data", 240, true, "-n 4096 -m dup -d dup", ""},
	{"single", 120, true, "-m single -d single", "compress-force=zstd"},
	{"blocks of 64k", 160, true, "-n 65536", ""},
	{"free-space cache version 1", 160, true, "-R ^free-space-tree -O ^no-holes", "space_cache=v1"},
	{"no extended references, no skinny metadata", 160, true, "-R ^free-space-tree -O ^no-holes,^extref,^skinny-metadata", ""},
	{"mixed DUP", 160, true, "-M -m dup -d dup", ""},
	{"xxhash", 120, true, "--csum xxhash", "compress-force=zlib"},
	{"sha256", 120, true, "--csum sha256", ""},
	{"blake2", 120, true, "--csum blake2", ""},
	{"quota", 160, true, "-R quota", ""},
	{"metadata UUID", 120, true, "", ""},
	{"large", 1024, true, "", "autodefrag"},
}

func makeBtrfs(t testing.TB, mib int64, args string) string {
	t.Helper()
	path := noise(t, mib<<20+3*512)
	run(t, "mkfs.btrfs", append(strings.Fields("-q -f -K "+args), "-L", "a label", path)...)
	return path
}

// ageBtrfs fills a file system, with snapshots and subvolumes of which some are deleted.
func ageBtrfs(t testing.TB, path string, mib int64, options string) (want map[string]images.Digest) {
	t.Helper()
	mounted(t, path, options, func(dir string) {
		sub := filepath.Join(dir, "a subvolume")
		run(t, "btrfs", "subvolume", "create", sub)
		grow(t, sub)
		for i := range 4 {
			run(t, "btrfs", "subvolume", "snapshot", sub, filepath.Join(dir, fmt.Sprintf("snapshot %d", i)))
			if err := os.WriteFile(filepath.Join(sub, "unix", "long"), bytes.Repeat([]byte{byte(i), 'x', 'y'}, 100_000), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		age(t, dir, int(mib<<20)/4)
		run(t, "btrfs", "subvolume", "delete", "-c", filepath.Join(dir, "snapshot 0"), filepath.Join(dir, "snapshot 2"))
		run(t, "btrfs", "subvolume", "sync", dir)
		want = listing(t, dir)
	})
	return want
}

func TestBtrfsPoison(t *testing.T) {
	for _, v := range btrfsVariants {
		if v.full && !allVariants() {
			continue
		}
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			path := makeBtrfs(t, v.mib, v.args)
			if v.name == "metadata UUID" {
				run(t, "btrfstune", "-m", path)
			}
			compareBtrfs(t, path, mapped(t, path, "btrfs").Used) // as mkfs.btrfs left it
			want := ageBtrfs(t, path, v.mib, v.options)
			r := mapped(t, path, "btrfs")
			comparePoisoned(t, path, r.Used, want, "", func(out string) { run(t, "btrfs", "check", "--check-data-csum", out) })
			compareBtrfs(t, path, r.Used)
			compareBlkid(t, path)
		})
	}
}

var (
	groupItem = regexp.MustCompile(`BLOCK_GROUP_ITEM (\d+)\)[^\n]*\n\s+block group used (\d+) chunk_objectid \d+ flags (\S+)`)
	superLine = regexp.MustCompile(`(?m)^(bytes_used|dev_item.total_bytes)\s+(\d+)$`)
)

// compareBtrfs compares with what btrfs says of its block groups: each byte in use, twice for DUP. Besides there are the first
// MiB, the copies of the superblock and what lies behind the file system.
func compareBtrfs(t testing.TB, path string, used []images.Extent) {
	t.Helper()
	_, partition := open(t, path)
	said := map[string]int64{}
	for _, m := range superLine.FindAllStringSubmatch(run(t, "btrfs", "inspect-internal", "dump-super", path), -1) {
		said[m[1]], _ = strconv.ParseInt(m[2], 10, 64)
	}
	end := said["dev_item.total_bytes"]
	want, once := int64(btrfsReserved)+partition-end, int64(0)
	for _, at := range btrfsSupers[1:] {
		if at < end {
			want += btrfsSuperLength
		}
	}
	tree := "extent"
	if le.Uint64(super(t, path)[180:])&btrfsGroupTree != 0 {
		tree = "11"
	}
	for _, m := range groupItem.FindAllStringSubmatch(run(t, "btrfs", "inspect-internal", "dump-tree", "-t", tree, path), -1) {
		n, _ := strconv.ParseInt(m[2], 10, 64)
		once += n
		want += n
		if strings.Contains(m[3], "DUP") {
			want += n
		}
	}
	if got := images.TotalLength(used); got != want || once != said["bytes_used"] {
		t.Errorf("used %d bytes, want %d; %d in block groups, superblock %d", got, want, once, said["bytes_used"])
	}
	t.Logf("used %d bytes, as btrfs has it; bytes_used %d", images.TotalLength(used), once)
}

// super returns the superblock.
func super(t testing.TB, path string) []byte {
	t.Helper()
	f, _ := open(t, path)
	sb := make([]byte, btrfsSuperLength)
	if _, err := f.ReadAt(sb, btrfsSupers[0]); err != nil {
		t.Fatal(err)
	}
	return sb
}

func TestBtrfsWithALogTreeIsRefused(t *testing.T) {
	t.Parallel()
	path := makeBtrfs(t, 120, "")
	mounted(t, path, "", func(dir string) {
		run(t, "sync", "-f", dir)
		f, err := os.Create(filepath.Join(dir, "written"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteString("something"); err != nil {
			t.Fatal(err)
		}
		if err := f.Sync(); err != nil {
			t.Fatal(err)
		}
		p, length := open(t, path)
		if _, err = Scan(p, length, Options{}); !errors.Is(err, ErrDirty) || !strings.Contains(err.Error(), "mount and unmount it") {
			t.Errorf("error %v, want ErrDirty with the remedy", err)
		}
		if r, err := Scan(p, length, Options{Full: true}); err != nil || r.Kind != KindFull || !strings.Contains(r.Warning, "log tree") {
			t.Errorf("as asked: %+v, %v", r, err)
		}
	})
	mapped(t, path, "btrfs")
}

// patchBtrfs changes the superblocks of a file system and makes their checksums right.
func patchBtrfs(t testing.TB, path string, off int, b ...byte) {
	t.Helper()
	f, length := open(t, path)
	for _, at := range btrfsSupers {
		if at+btrfsSuperLength > length {
			break
		}
		sb := make([]byte, btrfsSuperLength)
		if _, err := f.ReadAt(sb, at); err != nil {
			t.Fatal(err)
		}
		copy(sb[off:], b)
		sum, _ := btrfsSum(le.Uint16(sb[196:]), sb[32:])
		copy(sb, sum[:])
		if _, err := f.WriteAt(sb, at); err != nil {
			t.Fatal(err)
		}
	}
}

func TestBtrfsThatIsNotSureIsCopiedInFullOrRefused(t *testing.T) {
	source := makeBtrfs(t, 120, "")
	original, err := os.ReadFile(source)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		off     int
		b       []byte
		want    string
		refusal error
	}{
		"zoned":                {189, []byte{0x13}, "incompatible features 0x1000", ErrUnknownFeature},
		"extent tree v2":       {189, []byte{0x23}, "incompatible features 0x2000", ErrUnknownFeature},
		"RAID stripe tree":     {189, []byte{0x43}, "incompatible features 0x4000", ErrUnknownFeature},
		"unknown":              {187, []byte{0x80}, "read-only compatible features", ErrUnknownFeature},
		"errors":               {56, []byte{5}, "found errors", ErrDirty},
		"several devices":      {136, []byte{2}, "has 2 devices", nil},
		"seed":                 {60, []byte{1}, "a seed", nil},
		"too long":             {213, []byte{1}, "its partition has", nil},
		"bytes in use":         {120, []byte{1}, "its superblock says", nil},
		"tree of another time": {72, []byte{1}, "is damaged", nil},
		"block-group tree":     {180, []byte{0xb}, "root tree", nil},
		"metadata UUID":        {189, []byte{0x7}, "is damaged", nil},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(scratch(t), "changed.img")
			if err := os.WriteFile(path, original, 0o600); err != nil {
				t.Fatal(err)
			}
			patchBtrfs(t, path, c.off, c.b...)
			notSure(t, path, "btrfs", c.want, c.refusal)
		})
	}
}

// notSure expects a refusal or, without one, a copy in full with a warning.
func notSure(t testing.TB, path, fs, want string, refusal error) {
	t.Helper()
	f, length := open(t, path)
	r, err := Scan(f, length, Options{})
	if refusal != nil {
		if !errors.Is(err, refusal) || !strings.Contains(err.Error(), want) {
			t.Fatalf("error %v, want %v about %q", err, refusal, want)
		}
		r, err = Scan(f, length, Options{Full: true})
	}
	if err != nil || r.FS != fs || r.Kind != KindFull || !strings.Contains(r.Warning, want) || !slices.Equal(r.Used, []images.Extent{{Offset: 0, Length: length}}) {
		t.Fatalf("%+v, %v; want a copy in full with a warning about %q", r, err, want)
	}
	if _, err := Scan(f, length, Options{RefuseOpaque: true}); refusal == nil && !errors.Is(err, ErrOpaque) {
		t.Errorf("error %v, want ErrOpaque", err)
	}
}

// A damaged copy of the superblock or of a tree block leaves the other one.
func TestBtrfsReadsTheOtherCopy(t *testing.T) {
	t.Parallel()
	path := makeBtrfs(t, 120, "")
	ageBtrfs(t, path, 100, "")
	want := mapped(t, path, "btrfs").Used
	f, length := open(t, path)
	damage := func(at int64) {
		t.Helper()
		b := []byte{0}
		if _, err := f.ReadAt(b, at); err != nil {
			t.Fatal(err)
		}
		b[0] ^= 0x40
		if _, err := f.WriteAt(b, at); err != nil {
			t.Fatal(err)
		}
	}
	damage(64<<10 + 600)
	v, _, _, err := probe(f, length)
	if err != nil {
		t.Fatal(err)
	}
	x, err := parseBtrfs(v)
	if err != nil {
		t.Fatal(err)
	}
	if err := x.readAreas(); err != nil {
		t.Fatal(err)
	}
	roots, err := x.readRoots()
	if err != nil {
		t.Fatal(err)
	}
	for _, logical := range []uint64{le.Uint64(x.sb[80:]), le.Uint64(x.sb[88:]), roots[btrfsExtentTree].logical} {
		a := x.area(logical, x.blockLength)
		damage(a.places[0] + int64(logical-a.logical) + 300)
	}
	if got := mapped(t, path, "btrfs").Used; !slices.Equal(got, want) {
		t.Errorf("%d ranges, %d before the damage", len(got), len(want))
	}
	a := x.area(roots[btrfsExtentTree].logical, x.blockLength)
	damage(a.places[1] + int64(roots[btrfsExtentTree].logical-a.logical) + 300)
	notSure(t, path, "btrfs", "is damaged", nil)
	damage(64<<20 + 600)
	notSure(t, path, "btrfs", "checksum of its superblock", nil)
}
