package fsmap

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"seedbed/images"
)

// variants of ext2, ext3 and ext4 with the length of the partition in MiB.
var variants = map[string]struct {
	fs   string
	mib  int64
	args string
}{
	"ext2 1k":             {"ext2", 20, "-t ext2 -b 1024"},
	"ext2 4k revision 0":  {"ext2", 20, "-t ext2 -b 4096 -I 128 -O none revision 0"},
	"ext3":                {"ext3", 24, "-t ext3 -b 4096 -g 1024"},
	"ext4":                {"ext4", 32, "-t ext4 -b 4096 -g 1024"},
	"ext4 1k":             {"ext4", 32, "-t ext4 -b 1024"},
	"ext4 2k":             {"ext4", 32, "-t ext4 -b 2048 -g 2048"},
	"ext4 not 64bit":      {"ext4", 24, "-t ext4 -b 4096 -O ^64bit"},
	"ext4 no checksums":   {"ext4", 24, "-t ext4 -b 1024 -O ^metadata_csum,uninit_bg"},
	"ext4 no flex_bg":     {"ext4", 32, "-t ext4 -b 1024 -O ^flex_bg,uninit_bg,^metadata_csum"},
	"ext4 large flex_bg":  {"ext4", 40, "-t ext4 -b 1024 -g 1024 -G 64 -N 20000"},
	"ext4 meta_bg":        {"ext4", 48, "-t ext4 -b 1024 -g 512 -O meta_bg,^resize_inode"},
	"ext4 meta_bg uninit": {"ext4", 48, "-t ext4 -b 1024 -g 512 -O meta_bg,^resize_inode,^metadata_csum,uninit_bg,^flex_bg"},
	"ext4 sparse_super2":  {"ext4", 48, "-t ext4 -b 1024 -O sparse_super2"},
	"ext4 bigalloc":       {"ext4", 40, "-t ext4 -b 4096 -O bigalloc -C 65536"},
	"ext4 bigalloc 1k":    {"ext4", 33, "-t ext4 -b 1024 -O bigalloc -C 16384"},
	"ext4 later features": {"ext4", 24, "-t ext4 -b 4096 -O inline_data,metadata_csum_seed,large_dir,ea_inode,casefold,encrypt"},
	"ext4 many inodes":    {"ext4", 32, "-t ext4 -b 4096 -N 30000 -I 256"},
}

// newExt makes a file system with files, of which every third was deleted.
func newExt(t testing.TB, mib int64, args string) (string, map[string]images.Digest) {
	t.Helper()
	path := newPartition(t, mib<<20+3*512) // an odd rest behind the file system
	source := tree(t, int(mib<<20)/4)
	args, old := strings.CutSuffix(args, " revision 0") // mke2fs of 1.47.1 and later makes no such file system
	run(t, "mke2fs", append(strings.Fields("-q -F -E nodiscard,lazy_itable_init=1 "+args+" -d"), source, path, strconv.FormatInt(mib<<10, 10)+"k")...)
	if old {
		run(t, "debugfs", "-w", "-R", "set_super_value rev_level 0", path)
	}
	want := contents(t, source)
	var script strings.Builder
	for i, name := range slices.Sorted(maps.Keys(want)) {
		if i%3 == 0 {
			fmt.Fprintf(&script, "rm \"%s\"\n", name)
			delete(want, name)
		}
	}
	commands := filepath.Join(t.TempDir(), "commands")
	if err := os.WriteFile(commands, []byte(script.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, "debugfs", "-w", "-f", commands, path)
	run(t, "e2fsck", "-fn", path)
	return path, want
}

func TestExtPoison(t *testing.T) {
	for name, v := range variants {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path, want := newExt(t, v.mib, v.args)
			r := mapped(t, path, v.fs)
			used := images.TotalLength(r.Used)
			if used > v.mib<<20*8/10 {
				t.Errorf("%d bytes of %d MiB in use", used, v.mib)
			}
			out := poison(t, path, r.Used)
			run(t, "e2fsck", "-fn", out)
			dump := t.TempDir()
			run(t, "debugfs", "-R", "rdump / "+dump, out)
			sameTree(t, contents(t, dump), want)
			compareDumpe2fs(t, path, r)
			if !strings.Contains(v.args, "bigalloc") { // partclone 0.3.23 has no map of those
				comparePartclone(t, path, r, v.mib<<20)
			}
		})
	}
}

var freeLine = regexp.MustCompile(`(?m)^  Free blocks: (.*)$`)

// compareDumpe2fs compares with the free blocks that dumpe2fs lists, block by block.
func compareDumpe2fs(t *testing.T, path string, r *Result) {
	t.Helper()
	out := run(t, "dumpe2fs", path)
	field := func(name string) int64 {
		m := regexp.MustCompile(`(?m)^` + name + `: +(\d+)$`).FindStringSubmatch(out)
		if m == nil {
			return 0
		}
		n, err := strconv.ParseInt(m[1], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	block, count := field("Block size"), field("Block count")
	cluster := max(1, field("Cluster size")/block) // a range ends with the first block of its last cluster, or (1.47.1) its last
	var free []images.Extent
	for _, m := range freeLine.FindAllStringSubmatch(out, -1) {
		for _, item := range strings.Split(m[1], ", ") {
			var a, b int64
			switch n, _ := fmt.Sscanf(item, "%d-%d", &a, &b); n {
			case 1:
				b = a
			case 0:
				continue
			}
			end := min((b/cluster+1)*cluster, count)
			free = images.AppendExtent(free, images.Extent{Offset: a * block, Length: (end - a) * block})
		}
	}
	if got, want := gaps(r.Used, count*block), free; !slices.Equal(got, want) {
		t.Errorf("%d free ranges of %d bytes, dumpe2fs has %d of %d", len(got), images.TotalLength(got), len(want), images.TotalLength(want))
	}
}

// gaps returns what is not used before end.
func gaps(used []images.Extent, end int64) (list []images.Extent) {
	at := int64(0)
	for _, e := range used {
		if e.Offset > at {
			list = append(list, images.Extent{Offset: at, Length: e.Offset - at})
		}
		at = e.End()
	}
	if at < end {
		list = append(list, images.Extent{Offset: at, Length: end - at})
	}
	return list
}

func comparePartclone(t *testing.T, path string, r *Result, length int64) {
	t.Helper()
	want := domain(t, "partclone.extfs", path)
	var got []images.Extent
	for _, e := range r.Used {
		got = images.AppendExtent(got, e.Intersect(images.Extent{Offset: 0, Length: length}))
	}
	if !slices.Equal(got, want) {
		t.Errorf("%d ranges of %d bytes, partclone has %d of %d", len(got), images.TotalLength(got), len(want), images.TotalLength(want))
	}
}

func TestExtNamesAreThoseOfBlkid(t *testing.T) {
	for _, args := range []string{"-t ext2 -L hello", "-t ext3 -L second", "-t ext4", "-t ext4 -O ^has_journal"} {
		path := newPartition(t, 16<<20)
		run(t, "mke2fs", append(strings.Fields("-q -F "+args), path)...)
		compareBlkid(t, path)
	}
}

// compareBlkid compares type, UUID and label.
func compareBlkid(t *testing.T, path string) {
	t.Helper()
	f, length := open(t, path)
	info, err := Probe(f, length)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{}
	for _, line := range strings.Split(run(t, "blkid", "-p", "-o", "export", path), "\n") {
		key, value, _ := strings.Cut(line, "=")
		want[key] = strings.ReplaceAll(value, `\`, "")
	}
	name := want["TYPE"]
	if own := map[string]string{"vfat": strings.ToLower(want["VERSION"]), "crypto_LUKS": "luks", "BitLocker": "bitlocker",
		"ReFS": "refs", "linux_raid_member": "mdraid", "zfs_member": "zfs"}[name]; own != "" {
		name = own
	}
	if info.FS != name || info.UUID != want["UUID"] || info.Label != want["LABEL"] {
		t.Errorf("%+v, blkid says %s %s %q", info, name, want["UUID"], want["LABEL"])
	}
}

// patch changes bytes of the superblock and makes its checksum right.
func patch(t *testing.T, path string, off int64, b ...byte) {
	t.Helper()
	f, _ := open(t, path)
	sb := make([]byte, 1024)
	if _, err := f.ReadAt(sb, 1024); err != nil {
		t.Fatal(err)
	}
	copy(sb[off:], b)
	le.PutUint32(sb[0x3fc:], extCRC(^uint32(0), sb[:0x3fc]))
	if _, err := f.WriteAt(sb, 1024); err != nil {
		t.Fatal(err)
	}
}

func TestExtThatIsNotSureIsCopiedInFullOrRefused(t *testing.T) {
	for name, c := range map[string]struct {
		off     int64
		b       []byte
		want    string
		refusal error
	}{
		"unknown incompatible feature": {0x63, []byte{0x80}, "incompatible features 0x80000000", ErrUnknownFeature},
		"compression":                  {0x60, []byte{0xc3}, "incompatible features 0x1", ErrUnknownFeature},
		"unknown feature":              {0x67, []byte{0x40}, "read-only compatible features", ErrUnknownFeature},
		"journal to replay":            {0x60, []byte{0xc6}, "journal has to be replayed", ErrDirty},
		"not unmounted":                {0x3a, []byte{0}, "not unmounted", ErrDirty},
		"errors":                       {0x3a, []byte{3}, "found errors", ErrDirty},
		"too long":                     {4, []byte{0, 0, 0, 1}, "its partition has", nil},
		"free count":                   {0xc, []byte{1, 0}, "its superblock says", nil},
		"blocks per group":             {0x20, []byte{1}, "blocks per group", nil},
		"descriptors":                  {0xfe, []byte{33}, "group descriptors", nil},
		"inodes":                       {0x28, []byte{0xff, 0xff, 0xff}, "inodes of", nil},
		"revision":                     {0x4c, []byte{9}, "revision 9", nil},
	} {
		t.Run(name, func(t *testing.T) {
			path := newPartition(t, 16<<20)
			run(t, "mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", path)
			patch(t, path, c.off, c.b...)
			f, length := open(t, path)
			r, err := Scan(f, length, Options{})
			if c.refusal != nil {
				remedy := map[error]string{ErrDirty: "e2fsck", ErrUnknownFeature: "in full"}[c.refusal]
				if !errors.Is(err, c.refusal) || !Refused(err) || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), remedy) {
					t.Errorf("error %v, want one about %q with the remedy", err, c.want)
				}
				r, err = Scan(f, length, Options{Full: true})
			}
			if err != nil || !strings.Contains(r.Warning, c.want) {
				t.Fatalf("%+v, %v; want a warning about %q", r, err, c.want)
			}
			if r.Kind != KindFull || len(r.Used) != 1 || r.Used[0] != (images.Extent{Offset: 0, Length: length}) || r.FS != "ext4" {
				t.Errorf("not copied in full: %+v", r)
			}
		})
	}
}

func TestExtChecksumsAreChecked(t *testing.T) {
	path := newPartition(t, 16<<20)
	run(t, "mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", path)
	f, length := open(t, path)
	r := mapped(t, path, "ext4")
	m := regexp.MustCompile(`Block bitmap at (\d+)`).FindStringSubmatch(run(t, "dumpe2fs", path))
	at, err := strconv.ParseInt(m[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	// Two bits change places: the number of free blocks stays.
	b := make([]byte, 4096)
	if _, err := f.ReadAt(b, at*4096); err != nil {
		t.Fatal(err)
	}
	b[0], b[510] = b[0]&^1, b[510]|1
	if _, err := f.WriteAt(b, at*4096); err != nil {
		t.Fatal(err)
	}
	if r, err = Scan(f, length, Options{}); err != nil || r.Kind != KindFull || !strings.Contains(r.Warning, "checksum of the bitmap") {
		t.Errorf("%+v, %v; want a warning about the bitmap", r, err)
	}
	sb := []byte{0xAA}
	if _, err := f.WriteAt(sb, 1024+0x80); err != nil {
		t.Fatal(err)
	}
	if r, err = Scan(f, length, Options{}); err != nil || r.Kind != KindFull || !strings.Contains(r.Warning, "checksum of its superblock") {
		t.Errorf("%+v, %v; want a warning about the superblock", r, err)
	}
}

func TestNormalJoinsTheShortestGapsAboveTheLimit(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	var list []images.Extent
	for i := range int64(5000) {
		list = append(list, images.Extent{Offset: i * 100_000, Length: 1 + r.Int64N(99_000)})
	}
	r.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	before := normal(slices.Clone(list), 5000*100_000, 10_000)
	after := normal(slices.Clone(list), 5000*100_000, 1000)
	if len(before) != 5000 || len(after) > 1000 {
		t.Fatalf("%d ranges became %d", len(before), len(after))
	}
	for _, e := range before {
		if !slices.ContainsFunc(after, func(o images.Extent) bool { return o.Intersect(e) == e }) {
			t.Fatalf("%v was lost", e)
		}
	}
}

// A few sectors may claim descriptors of any length; nobody reads them to find out.
func TestExtWithManyGroupsIsNotRead(t *testing.T) {
	sb := make([]byte, 2048)
	for at, v := range map[int]uint32{0x4: 1<<32 - 1, 0x14: 1, 0x20: 8, 0x28: 8, 0x38: 1<<16 | 0xEF53} {
		le.PutUint32(sb[1024+at:], v)
	}
	r := &counting{memory: memory{sb, 8 << 40}}
	found, err := Scan(r, r.length, Options{})
	if err != nil || found.Kind != KindFull || !strings.Contains(found.Warning, "in groups of 8") {
		t.Errorf("%+v, %v", found, err)
	}
	if r.read > 1<<20 {
		t.Errorf("%d bytes were read", r.read)
	}
}

// counting is a partition that ends the test's patience at 64 MiB.
type counting struct {
	memory
	read int
}

func (c *counting) ReadAt(p []byte, off int64) (int, error) {
	if c.read += len(p); c.read > 64<<20 {
		return 0, errors.New("too much was read")
	}
	return c.memory.ReadAt(p, off)
}

func TestAScanCollectsNoMoreThanItsBound(t *testing.T) {
	fragmented, _ := newExt(t, 20, "-t ext2 -b 1024")
	fat := newPartition(t, 8<<20)
	run(t, "mkfs.fat", "-F", "16", "-s", "1", fat)
	for path, scan := range map[string]func(*volume) ([]images.Extent, error){fragmented: scanExt, fat: scanFAT} {
		f, length := open(t, path)
		v, _, _, err := probe(f, length)
		if err != nil {
			t.Fatal(err)
		}
		v.ranges = 1
		if _, err := scan(v); !errors.As(err, new(unmappedError)) {
			t.Errorf("%s: %v", path, err)
		}
	}
}
