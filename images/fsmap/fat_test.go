package fsmap

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"seedbed/images"
)

// fatVariants with the length of the partition in MiB. mtools takes FAT32 with fewer than 65,525 clusters for FAT16; such
// file systems are tested empty.
var fatVariants = map[string]struct {
	fs    string
	mib   int64
	args  string
	empty bool
}{
	"fat12":                   {"fat12", 8, "-F 12 -s 8", false},
	"fat16":                   {"fat16", 20, "-F 16", false},
	"fat16 reserved":          {"fat16", 20, "-F 16 -R 16 -s 4", false},
	"fat32":                   {"fat32", 36, "-F 32 -s 1", false},
	"fat32 one table":         {"fat32", 72, "-F 32 -s 2 -f 1", false},
	"fat32 sectors of 4096":   {"fat32", 24, "-F 32 -S 4096 -s 1", true},
	"fat32 few clusters, ESP": {"fat32", 34, "-F 32 -s 2", true},
}

// newFAT makes a file system with files, of which every third was deleted.
func newFAT(t testing.TB, mib int64, args string, empty bool) (string, map[string]images.Digest) {
	t.Helper()
	path := newPartition(t, mib<<20)
	run(t, "mkfs.fat", append(strings.Fields(args), path)...)
	if empty {
		return path, nil
	}
	source := tree(t, min(8<<20, int(mib<<20)/4))
	want := contents(t, source)
	dirs, err := os.ReadDir(source)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range dirs {
		run(t, "mcopy", "-s", "-i", path, filepath.Join(source, d.Name()), "::/")
	}
	for i, name := range slices.Sorted(maps.Keys(want)) {
		if i%3 == 0 {
			run(t, "mdel", "-i", path, "::"+name)
			delete(want, name)
		}
	}
	return path, want
}

var fsckFAT = regexp.MustCompile(`(\d+)/(\d+) clusters`)

func TestFATPoison(t *testing.T) {
	for name, v := range fatVariants {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path, want := newFAT(t, v.mib, v.args, v.empty)
			r := mapped(t, path, v.fs)
			out := poison(t, path, r.Used)
			m := fsckFAT.FindStringSubmatch(run(t, "fsck.fat", "-n", out))
			if !v.empty {
				dump := t.TempDir()
				run(t, "mcopy", "-s", "-Q", "-n", "-i", out, "::/", dump)
				sameTree(t, contents(t, dump), want)
			}

			f, _ := open(t, path)
			b := make([]byte, 512)
			if _, err := f.ReadAt(b, 0); err != nil {
				t.Fatal(err)
			}
			g := parseFAT(&volume{head: b, length: v.mib << 20})
			used := int64(0)
			for _, e := range r.Used {
				used += e.Intersect(images.Extent{Offset: g.data, Length: g.clusters * g.cluster}).Length
			}
			if got := fmt.Sprintf("%d/%d", used/g.cluster, g.clusters); m == nil || got != m[1]+"/"+m[2] {
				t.Errorf("%s clusters in use, fsck.fat says %s", got, m[0])
			}
			if v.fs != "fat12" && !strings.Contains(v.args, "4096") { // partclone 0.3.23 reads FAT12 and long sectors wrongly
				if want := domain(t, "partclone.fat", path); !slices.Equal(r.Used, tail(want, g, v.mib<<20)) {
					t.Errorf("%d ranges of %d bytes, partclone has %d of %d", len(r.Used), images.TotalLength(r.Used), len(want), images.TotalLength(want))
				}
			}
			compareBlkid(t, path)
		})
	}
}

// tail adds what lies behind the last cluster, which is in use for us whatever it holds.
func tail(list []images.Extent, g *fat, length int64) []images.Extent {
	end := g.data + g.clusters*g.cluster
	var out []images.Extent
	for _, e := range list {
		out = images.AppendExtent(out, e.Intersect(images.Extent{Offset: 0, Length: end}))
	}
	return images.AppendExtent(out, images.Extent{Offset: end, Length: length - end})
}

func TestFATThatIsNotSureIsCopiedInFullOrRefused(t *testing.T) {
	for name, c := range map[string]struct {
		fs      string
		off     int64
		b       byte
		want    string
		refusal error
	}{
		"dirty by Linux, 32":   {"fat32", 0x41, 1, "fsck.fat", ErrDirty},
		"dirty by Linux, 16":   {"fat16", 0x25, 1, "not unmounted", ErrDirty},
		"dirty by Windows, 32": {"fat32", 32*512 + 7, 0x07, "not unmounted", ErrDirty},
		"dirty by Windows, 16": {"fat16", 4*512 + 3, 0x7f, "chkdsk", ErrDirty},
		"longer than it can":   {"fat32", 35, 1, "its partition has", nil},
		"short table":          {"fat16", 22, 3, "too short", nil},
	} {
		t.Run(name, func(t *testing.T) {
			path := newPartition(t, 40<<20)
			run(t, "mkfs.fat", "-F", c.fs[3:], "-s", "2", "-R", map[string]string{"fat32": "32", "fat16": "4"}[c.fs], path)
			if r := mapped(t, path, c.fs); images.TotalLength(r.Used) > 1<<20 {
				t.Fatalf("%d bytes in use of an empty file system", images.TotalLength(r.Used))
			}
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			b[c.off] = c.b
			checkDoubtful(t, b, c.fs, c.want, c.refusal)
		})
	}
}

func TestFATWithoutMirroringIsReadByItsActiveTable(t *testing.T) {
	path := newPartition(t, 64<<20)
	run(t, "mkfs.fat", "-F", "32", "-s", "1", "-R", "32", path)
	f, length := open(t, path)
	want := mapped(t, path, "fat32")
	b := make([]byte, 512)
	if _, err := f.ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	table := int64(le.Uint32(b[36:])) * 512
	for off, bytes := range map[int64][]byte{40: {0x81, 0}, 32*512 + 400: []byte("the first table is stale")} {
		if _, err := f.WriteAt(bytes, off); err != nil {
			t.Fatal(err)
		}
	}
	r, err := Scan(f, length, Options{})
	if err != nil || !slices.Equal(r.Used, want.Used) || r.Kind != KindUsed {
		t.Errorf("%+v, %v; want the map by the second table", r, err)
	}
	if _, err := f.WriteAt([]byte{7, 0, 0, 0}, 32*512+table+40*4); err != nil {
		t.Fatal(err)
	}
	if r, err = Scan(f, length, Options{}); err != nil || images.TotalLength(r.Used) != images.TotalLength(want.Used)+512 {
		t.Errorf("%+v, %v; want a cluster more", r, err)
	}
}
