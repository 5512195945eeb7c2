//go:build linux

package fsmap

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"seedbed/images"
)

// ntfsVariants with the length of the partition in MiB. Those that are long run with SEEDBED_FULL=1 alone.
var ntfsVariants = map[string]struct {
	mib  int64
	args string
	long bool
}{
	"clusters of 512":    {24, "-c 512", false},
	"clusters of 1024":   {32, "-c 1024", true},
	"clusters of 2048":   {32, "-c 2048", true},
	"clusters of 4096":   {32, "-c 4096", false},
	"clusters of 8192":   {48, "-c 8192", true},
	"clusters of 16 KiB": {64, "-c 16384", true},
	"clusters of 32 KiB": {64, "-c 32768", true},
	"clusters of 64 KiB": {64, "-c 65536", false},
	"clusters of 2 MiB":  {192, "-c 2097152", true},
	"sectors of 4096":    {32, "-s 4096 -c 4096", false},
	"sectors of 1024":    {32, "-s 1024 -c 4096", true},
	"larger":             {300, "-c 4096", true},
}

// odd is what partitions have behind the last whole cluster of their file system, in bytes.
const odd = 5*512 + 3*4096

func newNTFS(t testing.TB, mib int64, args string) string {
	t.Helper()
	path := newPartition(t, mib<<20+odd)
	run(t, "mkntfs", append(strings.Fields("-q -F -f -L Windows "+args), path)...)
	return path
}

// dropSources are files that another machine has no use for, and files that only look like them.
var dropSources = map[string]string{
	"pagefile.sys": strings.Repeat("page", 700_000), "hiberfil.sys": strings.Repeat("wake", 500_000), "SwapFile.SYS": strings.Repeat("swap", 90_001),
	"pagefile.sys.old": strings.Repeat("keep", 100_000), "dir 0/pagefile.sys": strings.Repeat("user", 50_000),
}

// agedNTFS fills and ages a new file system and returns the files in it.
func agedNTFS(t testing.TB, mib int64, args string) (string, map[string]images.Digest) {
	t.Helper()
	path := newNTFS(t, mib, args)
	dir, unmount := mount(t, "ntfs-3g", path)
	age(t, dir, int(mib<<20))
	for name, b := range dropSources {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(b), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want := contents(t, dir)
	unmount()
	return path, want
}

func TestNTFSPoison(t *testing.T) {
	for name, v := range ntfsVariants {
		if v.long && !allVariants() {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path, want := agedNTFS(t, v.mib, v.args)
			f, length := open(t, path)
			kept, err := Scan(f, length, Options{KeepContents: true})
			if err != nil || kept.Kind != KindUsed || kept.Warning != "" || len(kept.Dropped) != 0 {
				t.Fatalf("%+v, %v", kept, err)
			}
			samePoisoned(t, poison(t, path, kept.Used), want)
			compareNTFS(t, path, kept)
			compareBlkid(t, path)

			r := mapped(t, path, "ntfs")
			dropped := int64(0)
			for _, d := range r.Dropped {
				dropped += d.Length
			}
			if got := images.TotalLength(kept.Used) - images.TotalLength(r.Used); got != dropped {
				t.Errorf("%d bytes less, %d are said to be dropped", got, dropped)
			}
			checkDropped(t, path, r)
			for name := range dropSources {
				if !strings.Contains(name, "/") && !strings.HasSuffix(name, "old") {
					delete(want, "/"+name)
				}
			}
			samePoisoned(t, poison(t, path, r.Used), want)
		})
	}
}

// samePoisoned checks a poisoned file system and that its files are those of want and the dropped ones.
func samePoisoned(t *testing.T, path string, want map[string]images.Digest) {
	t.Helper()
	run(t, "ntfsfix", "-n", path)
	run(t, "ntfsresize", "-f", "-i", path) // reads every record of the table and compares all clusters with the bitmap
	dir, unmount := mount(t, "ntfs-3g", path, "-o", "ro")
	got := contents(t, dir)
	for _, name := range []string{"/pagefile.sys", "/hiberfil.sys", "/SwapFile.SYS"} {
		if _, ok := want[name]; !ok {
			b, err := os.ReadFile(filepath.Join(dir, name))
			if source := dropSources[name[1:]]; err != nil || len(b) != len(source) || string(b[:ntfsKept]) != source[:ntfsKept] {
				t.Errorf("the first %d bytes of %s differ: %v", ntfsKept, name, err)
			}
			delete(got, name)
		}
	}
	sameTree(t, got, want)
	unmount()
}

// checkDropped compares with the lengths of the files.
func checkDropped(t *testing.T, path string, r *Result) {
	t.Helper()
	f, length := open(t, path)
	v, _, _, err := probe(f, length)
	if err != nil {
		t.Fatal(err)
	}
	n, err := parseNTFS(v)
	if err != nil {
		t.Fatal(err)
	}
	var want []Dropped
	for _, name := range []string{"hiberfil.sys", "pagefile.sys", "SwapFile.SYS"} {
		clusters := (int64(len(dropSources[name]))+n.cluster-1)/n.cluster - max(1, ntfsKept/n.cluster)
		if clusters > 0 {
			want = append(want, Dropped{"/" + strings.ToLower(name), clusters * n.cluster})
		}
	}
	if !slices.Equal(r.Dropped, want) {
		t.Errorf("dropped %v, want %v", r.Dropped, want)
	}
}

var freeClusters = regexp.MustCompile(`Free Clusters: (\d+)`)

// compareNTFS compares with ntfsinfo's free clusters and partclone's ranges. Both leave out the backup boot sector and what
// else lies behind the last cluster; nothing else differs.
func compareNTFS(t *testing.T, path string, r *Result) {
	t.Helper()
	f, length := open(t, path)
	v, _, _, err := probe(f, length)
	if err != nil {
		t.Fatal(err)
	}
	n, err := parseNTFS(v)
	if err != nil {
		t.Fatal(err)
	}
	end := n.clusters * n.cluster
	inside := images.TotalLength(r.Used) - (length - end)
	m := freeClusters.FindStringSubmatch(run(t, "ntfsinfo", "-f", "-m", path))
	if free, err := strconv.ParseInt(m[1], 10, 64); err != nil || n.clusters-free != inside/n.cluster {
		t.Errorf("%d of %d clusters in use, ntfsinfo has %d free", inside/n.cluster, n.clusters, free)
	}
	want := domain(t, "partclone.ntfs", path)
	t.Logf("%d bytes in use in %d ranges, partclone has %d; %s", images.TotalLength(r.Used), len(r.Used), images.TotalLength(want),
		regexp.MustCompile(`You might resize at \d+ bytes|Space in use.*`).FindAllString(run(t, "ntfsresize", "-f", "-i", path), -1))
	if want = images.AppendExtent(want, images.Extent{Offset: end, Length: length - end}); !slices.Equal(r.Used, want) {
		t.Errorf("%d ranges of %d bytes, partclone has %d of %d", len(r.Used), images.TotalLength(r.Used), len(want), images.TotalLength(want))
	}
	if images.TotalLength(r.Used) > length*9/10 {
		t.Errorf("%d bytes of %d in use", images.TotalLength(r.Used), length)
	}
}
