//go:build linux

package fsmap

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"seedbed/images"
)

// The kernel's own driver leaves more traces than debugfs: journals, lazily made tables, holes, files in many parts.
func TestExtAgedByTheKernelPoison(t *testing.T) {
	list := []string{"ext4 -t ext4 -b 4096"}
	if allVariants() {
		list = append(list, "ext4 -t ext4 -b 1024 -O meta_bg,^resize_inode", "ext4 -t ext4 -b 4096 -O bigalloc -C 8192",
			"ext4 -t ext4 -b 2048 -O sparse_super2,^metadata_csum,uninit_bg", "ext4 -t ext4 -b 4096 -O ^has_journal,^64bit", "ext3 -t ext3 -b 1024", "ext2 -t ext2 -b 4096")
	}
	for _, v := range list {
		t.Run(v, func(t *testing.T) {
			t.Parallel()
			fs, args, _ := strings.Cut(v, " ")
			const mib = 48
			path := noise(t, mib<<20+3*512)
			run(t, "mke2fs", append(strings.Fields("-q -F -N 8000 -E nodiscard,lazy_itable_init=1 "+args), path, fmt.Sprint(mib<<10, "k"))...)
			var want map[string]images.Digest
			mounted(t, path, "", func(dir string) {
				age(t, dir, mib<<20/3)
				grow(t, dir)
				want = listing(t, dir)
				f, length := open(t, path)
				if _, err := Scan(f, length, Options{}); !errors.Is(err, ErrDirty) {
					t.Errorf("error %v while it is mounted, want ErrDirty", err)
				}
			})
			r := mapped(t, path, fs)
			comparePoisoned(t, path, r.Used, want, "", func(p string) { run(t, "e2fsck", "-fn", p) })
			compareDumpe2fs(t, path, r)
		})
	}
}

// partclone's maps of XFS and btrfs lack what ours have: the free lists of XFS, whose blocks hold nothing yet, and second
// copies. Nothing that it keeps may be missing from ours.
func TestPartcloneKeepsNoMoreOfXFS(t *testing.T) {
	if !allVariants() {
		return // partclone takes two seconds for any
	}
	path := makeXFS(t, 40, "-b size=1024 -m rmapbt=1,reflink=1")
	ageXFS(t, path, 40)
	ours := mapped(t, path, "xfs").Used
	theirs := domain(t, "partclone.xfs", path)
	for _, e := range theirs {
		if !slices.ContainsFunc(ours, func(o images.Extent) bool { return o.Intersect(e) == e }) {
			t.Errorf("%v is not in use", e)
		}
	}
	kept := int64(0)
	for g := range xfsField(t, path, "sb 0", "agcount") {
		kept += xfsField(t, path, fmt.Sprint("agf ", g), "flcount")
	}
	const tail = 3 * 512 // behind the file system
	if got, want := images.TotalLength(ours), images.TotalLength(theirs)+kept*1024+tail; got != want {
		t.Errorf("used %d bytes, partclone with the free lists %d", got, want)
	}
}

func TestScansOfTreesCollectNoMoreThanTheirBound(t *testing.T) {
	xfs, btrfs := makeXFS(t, 40, ""), makeBtrfs(t, 120, "")
	mounted(t, xfs, "", func(dir string) { grow(t, dir) })
	mounted(t, btrfs, "", func(dir string) { grow(t, dir) })
	for path, scan := range map[string]func(*volume) ([]images.Extent, error){xfs: scanXFS, btrfs: scanBtrfs} {
		f, length := open(t, path)
		v, _, _, err := probe(f, length)
		if err != nil {
			t.Fatal(err)
		}
		v.ranges = 3
		if _, err := scan(v); !errors.As(err, new(unmappedError)) || !strings.Contains(err.Error(), "in more than 3 parts") {
			t.Errorf("%s: %v", path, err)
		}
	}
}
