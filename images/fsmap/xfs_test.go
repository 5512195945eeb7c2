//go:build linux

package fsmap

import (
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

// xfsVariants of version 5; those marked full are of a usual length.
var xfsVariants = []struct {
	name string
	mib  int64
	full bool
	args string
}{
	{"default", 40, false, ""},
	{"1k reflink rmap", 64, false, "-b size=1024 -m reflink=1,rmapbt=1,finobt=1 -d agcount=3"},
	{"sectors of 4096, folders of 64k", 48, false, "-s size=4096 -n size=65536"},
	{"512-byte inodes, no finobt, no reflink", 40, true, "-m finobt=0,reflink=0 -i size=1024"},
	{"all features", 48, true, "-m rmapbt=1,reflink=1,inobtcount=1,bigtime=1 -i sparse=1,nrext64=1"},
	{"log in stripes", 320, true, "-l su=256k -d su=64k,sw=2"},
	{"small groups", 340, true, "-d agsize=16m -i sparse=1"},
	{"usual", 600, true, ""},
	{"usual 1k", 400, true, "-b size=1024"},
	{"usual rmap", 400, true, "-m rmapbt=1"},
}

// makeXFS makes a file system in a partition with an odd rest behind it.
func makeXFS(t testing.TB, mib int64, args string) string {
	t.Helper()
	path := noise(t, mib<<20+3*512)
	// Below 300 MB mkfs.xfs wants to be told that this is a test.
	for _, name := range []string{"TEST_DIR", "TEST_DEV", "QA_CHECK_FS"} {
		os.Setenv(name, "1")
	}
	run(t, "mkfs.xfs", append(strings.Fields("-q -f -K "+args), "-d", fmt.Sprintf("name=%s,size=%dm", path, mib))...)
	return path
}

// ageXFS fills a file system, makes shared extents, and removes parts.
func ageXFS(t testing.TB, path string, mib int64) (want map[string]images.Digest) {
	t.Helper()
	mounted(t, path, "", func(dir string) {
		age(t, dir, int(min(mib, 200)<<20)/3)
		grow(t, dir)
		want = listing(t, dir)
	})
	return want
}

func repairXFS(t testing.TB) func(string) {
	return func(path string) { t.Helper(); run(t, "xfs_repair", "-n", "-f", path) }
}

func TestXFSPoison(t *testing.T) {
	for _, v := range xfsVariants {
		if v.full && !allVariants() {
			continue
		}
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			path := makeXFS(t, v.mib, v.args)
			mapped(t, path, "xfs") // as mkfs.xfs left it
			want := ageXFS(t, path, v.mib)
			r := mapped(t, path, "xfs")
			comparePoisoned(t, path, r.Used, want, "", repairXFS(t))
			compareXFS(t, path, r.Used)
			compareBlkid(t, path)
		})
	}
}

// Version 4 is no longer mounted by every kernel: mkfs.xfs fills it, and xfs_db says where each file lies.
func TestXFSVersion4Poison(t *testing.T) {
	list := []string{"-m crc=0"}
	if allVariants() {
		list = append(list, "-m crc=0 -b size=1024 -l lazy-count=0", "-m crc=0 -b size=512 -n size=4096 -d agcount=3", "-m crc=0 -l version=1",
			"-m crc=0 -n version=ci", "-m crc=0 -s size=4096")
	}
	for _, args := range list {
		t.Run(args, func(t *testing.T) {
			t.Parallel()
			source := tree(t, 8<<20)
			path := makeXFS(t, 48, "-p "+protofile(t, source)+" "+args)
			r := mapped(t, path, "xfs")
			compareXFS(t, path, r.Used)
			out := poisoned(t, path, r.Used)
			repairXFS(t)(out)
			sameTree(t, filesOfXFS(t, out, source), contents(t, source))
		})
	}
}

// protofile describes a tree for mkfs.xfs -p.
func protofile(t testing.TB, source string) string {
	t.Helper()
	var b strings.Builder
	b.WriteString("/dev/null\n0 0\nd--755 0 0\n")
	var enter func(dir string)
	enter = func(dir string) {
		list, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range list {
			path := filepath.Join(dir, d.Name())
			if d.IsDir() {
				fmt.Fprintf(&b, "%s d--755 0 0\n", d.Name())
				enter(path)
				continue
			}
			plain := filepath.Join(dir, strings.ReplaceAll(d.Name(), " ", "_")) // the format has no spaces
			if err := os.Rename(path, plain); err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&b, "%s ---644 0 0 %s\n", filepath.Base(plain), plain)
		}
		b.WriteString("$\n")
	}
	enter(source)
	path := filepath.Join(t.TempDir(), "protofile")
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// filesOfXFS reads the files of source from an image by what xfs_db says of their place.
func filesOfXFS(t testing.TB, path, source string) map[string]images.Digest {
	t.Helper()
	f, _ := open(t, path)
	blockLength := xfsField(t, path, "sb 0", "blocksize")
	perGroup, shift := xfsField(t, path, "sb 0", "agblocks"), xfsField(t, path, "sb 0", "agblklog")
	list := map[string]images.Digest{}
	for name := range contents(t, source) {
		out := run(t, "xfs_db", "-r", "-f", "-c", "path "+name, "-c", "p core.size", "-c", "bmap", path)
		var length int64
		fmt.Sscanf(out, "core.size = %d", &length)
		b := make([]byte, (length+blockLength-1)/blockLength*blockLength)
		for _, line := range strings.Split(out, "\n") {
			var to, start, n int64
			if k, _ := fmt.Sscanf(line, "data offset %d startblock %d", &to, &start); k == 2 {
				fmt.Sscanf(line[strings.Index(line, "count"):], "count %d", &n)
				start = start>>shift*perGroup + start&(1<<shift-1)
				if _, err := f.ReadAt(b[to*blockLength:][:n*blockLength], start*blockLength); err != nil {
					t.Fatal(err)
				}
			}
		}
		list[name] = images.Sum(b[:length])
	}
	return list
}

// xfsField returns a number that xfs_db knows.
func xfsField(t testing.TB, path, where, field string) int64 {
	t.Helper()
	out := run(t, "xfs_db", "-r", "-f", "-c", where, "-c", "p "+field, path)
	n, err := strconv.ParseInt(strings.TrimSpace(out[strings.Index(out, "=")+1:]), 0, 64)
	if err != nil {
		t.Fatalf("%s: %v", out, err)
	}
	return n
}

var freeSpaceLine = regexp.MustCompile(`(?m)^ +(\d+) +(\d+) +(\d+)$`)

// compareXFS compares with the free space that xfs_db lists, which counts the free lists too: blocks that the groups
// keep for their B-trees.
func compareXFS(t testing.TB, path string, used []images.Extent) {
	t.Helper()
	_, partition := open(t, path)
	blockLength, perGroup := xfsField(t, path, "sb 0", "blocksize"), xfsField(t, path, "sb 0", "agblocks")
	end := xfsField(t, path, "sb 0", "dblocks") * blockLength
	kept := int64(0)
	for g := range xfsField(t, path, "sb 0", "agcount") {
		kept += xfsField(t, path, fmt.Sprintf("agf %d", g), "flcount")
	}
	var free []images.Extent
	lists := int64(0)
	got := gaps(used, end)
	for _, m := range freeSpaceLine.FindAllStringSubmatch(run(t, "xfs_db", "-r", "-f", "-c", "freesp -d", path), -1) {
		var n [3]int64
		for i := range n {
			n[i], _ = strconv.ParseInt(m[i+1], 10, 64)
		}
		e := images.Extent{Offset: (n[0]*perGroup + n[1]) * blockLength, Length: n[2] * blockLength}
		if n[2] == 1 && !slices.ContainsFunc(got, func(g images.Extent) bool { return g.Intersect(e) == e }) {
			lists++ // of a free list
			continue
		}
		free = append(free, e)
	}
	slices.SortFunc(free, func(a, b images.Extent) int { return int(a.Offset - b.Offset) })
	var want []images.Extent
	for _, e := range free {
		want = images.AppendExtent(want, e)
	}
	if !slices.Equal(got, want) || lists != kept {
		t.Errorf("%d free ranges of %d bytes, xfs_db has %d of %d; %d blocks in free lists, their headers say %d", len(got), images.TotalLength(got),
			len(want), images.TotalLength(want), lists, kept)
	}
	t.Logf("used %d bytes, xfs_db %d and %d blocks in free lists", images.TotalLength(used)-(partition-end), end-images.TotalLength(want)-kept*blockLength, kept)
}

// A file system that is copied while it is in use has something in its log, wherever the log's head is.
func TestXFSThatWasNotUnmountedIsRefused(t *testing.T) {
	t.Parallel()
	path := makeXFS(t, 40, "-l size=6m")
	cycles := 4
	if allVariants() {
		cycles = 40
	}
	heads := map[string]bool{}
	for i := range cycles {
		mounted(t, path, "", func(dir string) {
			for k := range 60 + 170*i%700 {
				name := filepath.Join(dir, fmt.Sprint(k))
				if err := errors.Join(os.WriteFile(name, []byte("something"), 0o600), os.Rename(name, name+" renamed")); err != nil {
					t.Fatal(err)
				}
				if k%2 == 0 {
					run(t, "sync", "-f", dir)
				}
			}
			run(t, "sync", "-f", dir)
			f, length := open(t, path)
			_, err := Scan(f, length, Options{})
			if !errors.Is(err, ErrDirty) || !strings.Contains(err.Error(), "mount and unmount it") || !strings.Contains(err.Error(), "xfs_repair -L") {
				t.Errorf("cycle %d: error %v, want ErrDirty with the remedy", i, err)
			}
			if r, err := Scan(f, length, Options{Full: true}); err != nil || r.Kind != KindFull || !strings.Contains(r.Warning, "log has to be replayed") {
				t.Errorf("as asked: %+v, %v", r, err)
			}
			if state := xfsLogState(t, path); !strings.Contains(state, "DIRTY") {
				t.Errorf("cycle %d: xfs_logprint says %s", i, state)
			}
		})
		mapped(t, path, "xfs")
		state := xfsLogState(t, path)
		if !strings.Contains(state, "CLEAN") {
			t.Errorf("cycle %d: xfs_logprint says %s", i, state)
		}
		heads[state] = true
	}
	if len(heads) < cycles/2 {
		t.Errorf("the log's head was at %v only", heads)
	}
}

func xfsLogState(t testing.TB, path string) string {
	t.Helper()
	return regexp.MustCompile(`log tail.*`).FindString(run(t, "xfs_logprint", "-t", path))
}
