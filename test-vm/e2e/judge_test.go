package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// reporter is what the judge says its findings to: a test, or the judge's own test.
type reporter interface {
	Helper()
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
	Context() context.Context
}

// extent is a half-open byte range of a partition.
type extent struct{ offset, length int64 }

// entry is a partition as sfdisk lists it.
type entry struct {
	Start, Size      int64 // sectors
	Type, UUID, Name string
}

// source is the golden disk taken apart once, against which every machine's disk is held.
type source struct {
	path    string
	entries []entry
	parts   []string // files with the partitions' bytes
	used    [][]extent
	trees   []string // directories with the files, "" where the whole partition is compared
}

// Numbers of the golden partitions, from 0, whose file systems are mapped.
const (
	espIndex, rootIndex, swapIndex, dataIndex = 1, 2, 3, 4
)

// takeApart reads the golden image with the real tools.
func takeApart(t reporter, path, dir string) *source {
	t.Helper()
	s := &source{path: path, entries: table(t, path)}
	if len(s.entries) != 5 {
		t.Fatalf("%s has %d partitions, not 5", path, len(s.entries))
	}
	for i, e := range s.entries {
		part := filepath.Join(dir, fmt.Sprintf("judge-source-p%d", i+1))
		extract(t, path, e, part)
		used, tree := []extent{{0, e.Size * 512}}, ""
		switch i {
		case espIndex:
			used, tree = usedRanges(t, "partclone.fat", part), fatTree(t, part)
		case rootIndex:
			used, tree = usedRanges(t, "partclone.ext4", part), extTree(t, part)
		case swapIndex:
			used = []extent{{0, 4096}} // the header; what was swapped out is not kept
		}
		s.parts, s.used, s.trees = append(s.parts, part), append(s.used, used), append(s.trees, tree)
	}
	return s
}

// judge holds a copy of a machine's disk against the source. Nothing may have booted from it.
func (s *source) judge(t reporter, disk, dir string) {
	t.Helper()
	if out := tool(t, "sgdisk", "-v", disk); !strings.Contains(out, "No problems found") {
		t.Errorf("sgdisk -v %s:\n%s", disk, out)
	}
	if got := table(t, disk); fmt.Sprint(got) != fmt.Sprint(s.entries) {
		t.Errorf("table of %s:\n%v\nthe source has\n%v", disk, got, s.entries)
	}
	for i, e := range s.entries {
		part := filepath.Join(dir, fmt.Sprintf("%s-p%d", filepath.Base(disk), i+1))
		extract(t, disk, e, part)
		compareUsed(t, s.parts[i], part, s.used[i])
		switch i {
		case espIndex:
			tool(t, "fsck.fat", "-n", part)
			sameTree(t, s.trees[i], fatTree(t, part))
		case rootIndex:
			tool(t, "fsck.ext4", "-fn", part)
			sameTree(t, s.trees[i], extTree(t, part))
			checkFreeIsUntouched(t, part, s.used[i])
		case dataIndex:
			tool(t, "ntfsfix", "-n", part)
		}
	}
}

// table lists the partitions of a disk with sfdisk.
func table(t reporter, disk string) []entry {
	t.Helper()
	var v struct {
		PartitionTable struct {
			Label      string
			Partitions []entry
		}
	}
	out, err := exec.CommandContext(t.Context(), "sfdisk", "--json", disk).Output()
	must(t, err)
	if err := json.Unmarshal(out, &v); err != nil {
		t.Fatalf("sfdisk --json %s: %v", disk, err)
	}
	return v.PartitionTable.Partitions
}

// extract copies one partition into a sparse file.
func extract(t reporter, disk string, e entry, to string) {
	t.Helper()
	tool(t, "dd", "if="+disk, "of="+to, "bs=1M", "iflag=skip_bytes,count_bytes", fmt.Sprintf("skip=%d", e.Start*512),
		fmt.Sprintf("count=%d", e.Size*512), "conv=sparse", "status=none")
	// dd leaves out a hole at the end.
	must(t, os.Truncate(to, e.Size*512))
}

// usedRanges lists the used byte ranges as partclone sees them, from its ddrescue domain file.
func usedRanges(t reporter, partclone, part string) (list []extent) {
	t.Helper()
	domain := part + ".domain"
	must(t, os.RemoveAll(domain))
	tool(t, partclone, "-D", "-s", part, "-o", domain, "-L", part+".log")
	b, err := os.ReadFile(domain)
	must(t, err)
	for line := range strings.Lines(string(b)) {
		var e extent
		var status string
		if n, _ := fmt.Sscanf(line, "0x%x 0x%x %1s", &e.offset, &e.length, &status); n == 3 && status == "+" {
			list = append(list, e)
		}
	}
	if len(list) == 0 {
		t.Fatalf("%s lists no used range of %s:\n%s", partclone, part, b)
	}
	return list
}

// compareUsed reports the first byte in a used range that differs.
func compareUsed(t reporter, want, got string, used []extent) {
	t.Helper()
	a, err := os.Open(want)
	must(t, err)
	defer a.Close()
	b, err := os.Open(got)
	must(t, err)
	defer b.Close()
	for _, e := range used {
		if at, same := compare(t, io.NewSectionReader(a, e.offset, e.length), io.NewSectionReader(b, e.offset, e.length)); !same {
			t.Errorf("%s: used byte %d differs from the source", got, e.offset+at)
			return
		}
	}
}

// compare returns the position of the first block of 64 KiB that differs.
func compare(t reporter, a, b io.Reader) (at int64, same bool) {
	x, y := make([]byte, 64<<10), make([]byte, 64<<10)
	for {
		n, errA := io.ReadFull(a, x)
		m, errB := io.ReadFull(b, y)
		if n != m || !bytes.Equal(x[:n], y[:m]) {
			return at, false
		}
		if errA == io.EOF || errA == io.ErrUnexpectedEOF {
			return at, true
		}
		must(t, errA)
		must(t, errB)
		at += int64(n)
	}
}

// checkFreeIsUntouched wants the free ranges of a partition on a disk that was empty to be zero still: what deleted files
// left in the source does not travel.
func checkFreeIsUntouched(t reporter, part string, used []extent) {
	t.Helper()
	f, err := os.Open(part)
	must(t, err)
	defer f.Close()
	info, err := f.Stat()
	must(t, err)
	zero := make([]byte, 4096)
	check := func(from, to int64) {
		r := bufio.NewReaderSize(io.NewSectionReader(f, from, to-from), 1<<20)
		b := make([]byte, 4096)
		for at := from; at < to; at += 4096 {
			n, err := io.ReadFull(r, b)
			if err != io.ErrUnexpectedEOF {
				must(t, err)
			}
			if !bytes.Equal(b[:n], zero[:n]) {
				t.Errorf("%s: the free block at byte %d was written", part, at)
				return
			}
		}
	}
	end := int64(0)
	for _, e := range used {
		check(end, e.offset)
		end = e.offset + e.length
	}
	check(end, info.Size())
}

// extTree copies the files of an ext4 file system into a directory.
func extTree(t reporter, part string) string {
	t.Helper()
	return tree(t, part, func(dir string) {
		// debugfs says on its error output what it could not do, and succeeds.
		if out := tool(t, "debugfs", "-R", "rdump / "+dir, part); strings.Count(out, "\n") > 1 {
			t.Errorf("debugfs rdump %s:\n%s", part, out)
		}
	})
}

// fatTree copies the files of a FAT file system into a directory.
func fatTree(t reporter, part string) string {
	t.Helper()
	return tree(t, part, func(dir string) { tool(t, "mcopy", "-s", "-p", "-m", "-i", part, "::", dir) })
}

func tree(t reporter, part string, fill func(dir string)) string {
	t.Helper()
	dir := part + ".tree"
	must(t, os.RemoveAll(dir))
	must(t, os.MkdirAll(dir, 0o700))
	fill(dir)
	return dir
}

// sameTree compares names, contents, kinds, modes, owners and symbolic links of two directories.
func sameTree(t reporter, want, got string) {
	t.Helper()
	if out := tool(t, "diff", "-r", "--no-dereference", want, got); out != "" {
		t.Errorf("trees of %s and %s differ:\n%s", want, got, out)
	}
	list := func(dir string) string {
		return tool(t, "sh", "-c", `cd "$1" && find . -printf '%p %y %m %U:%G %l\n' | sort`, "sh", dir)
	}
	a, b := list(want), list(got)
	if a != b {
		t.Errorf("files of %s and %s differ in kind, mode or owner", want, got)
	}
	if strings.Count(a, "\n") < 3 {
		t.Errorf("%s holds no files: nothing was compared", want)
	}
}
