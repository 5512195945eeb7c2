//go:build linux

package fsmap

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"seedbed/images"
)

// patchXFS changes a sector of 512 bytes and makes its checksum right.
func patchXFS(t testing.TB, path string, sector, sumAt int64, off int, b ...byte) {
	t.Helper()
	f, _ := open(t, path)
	s := make([]byte, 512)
	if _, err := f.ReadAt(s, sector*512); err != nil {
		t.Fatal(err)
	}
	copy(s[off:], b)
	le.PutUint32(s[sumAt:], xfsSum(s, int(sumAt)))
	if _, err := f.WriteAt(s, sector*512); err != nil {
		t.Fatal(err)
	}
}

func TestXFSThatIsNotSureIsCopiedInFullOrRefused(t *testing.T) {
	source := makeXFS(t, 40, "")
	original, err := os.ReadFile(source)
	if err != nil {
		t.Fatal(err)
	}
	second := xfsField(t, source, "sb 0", "agblocks") * 8 // sector where group 1 begins
	for name, c := range map[string]struct {
		sector int64
		off    int
		b      []byte
		want   string
		err    error
	}{
		"metadata folder":      {0, 218, []byte{1}, "incompatible features 0x100", ErrUnknownFeature},
		"zoned":                {0, 218, []byte{2}, "incompatible features 0x200", ErrUnknownFeature},
		"unknown":              {0, 212, []byte{0x80}, "read-only compatible features", ErrUnknownFeature},
		"needs repair":         {0, 219, []byte{0x1b}, "run xfs_repair", ErrDirty},
		"external log":         {0, 48, make([]byte, 8), "log is on another device", nil},
		"realtime device":      {0, 16, []byte{0, 0, 0, 0, 0, 0, 1, 0}, "realtime device", nil},
		"unfinished":           {0, 126, []byte{1}, "mkfs.xfs", nil},
		"version 3":            {0, 101, []byte{0xa3}, "version 3", nil},
		"too long":             {0, 8, []byte{0, 0, 1}, "its partition has", nil},
		"groups":               {0, 88, []byte{0, 0, 1}, "groups of", nil},
		"log outside":          {0, 96, []byte{0x7f}, "its log of", nil},
		"free blocks":          {second + 1, 52, []byte{0, 0, 0, 7}, "its header says", nil},
		"B-tree outside":       {second + 1, 16, []byte{0x7f}, "has a B-tree in block", nil},
		"B-tree of many parts": {second + 1, 28, []byte{0x7f}, "has a B-tree of", nil},
		"B-tree elsewhere":     {second + 1, 16, []byte{0, 0, 0, 2}, "is not level 0", nil},
		"length of a group":    {second + 1, 12, []byte{1}, "no header of its own", nil},
		"another file system":  {second + 1, 64, []byte{1}, "of another file system", nil},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(scratch(t), "changed.img")
			if err := os.WriteFile(path, original, 0o600); err != nil {
				t.Fatal(err)
			}
			sumAt := int64(224)
			if c.sector > 0 {
				sumAt = 216
			}
			patchXFS(t, path, c.sector, sumAt, c.off, c.b...)
			notSure(t, path, "xfs", c.want, c.err)
		})
	}
}

func TestXFSChecksumsAreChecked(t *testing.T) {
	path := makeXFS(t, 40, "")
	mapped(t, path, "xfs")
	f, _ := open(t, path)
	root := xfsField(t, path, "agf 0", "bnoroot") * 4096
	for _, c := range []struct {
		at   int64
		want string
	}{{root + 4000, "checksum of block 1 of group 0"}, {512 + 300, "checksum of the header of group 0"}, {300, "checksum of its superblock"}} {
		if _, err := f.WriteAt([]byte{0xA5}, c.at); err != nil {
			t.Fatal(err)
		}
		notSure(t, path, "xfs", c.want, nil)
	}
}

// What xfs_repair -L leaves is clean; a log of zeros and one of noise are not.
func TestXFSLogThatWasZeroed(t *testing.T) {
	path := makeXFS(t, 40, "")
	f, _ := open(t, path)
	logBlocks, start := xfsField(t, path, "sb 0", "logblocks"), xfsField(t, path, "sb 0", "logstart")
	shift, perGroup := xfsField(t, path, "sb 0", "agblklog"), xfsField(t, path, "sb 0", "agblocks")
	e := images.Extent{Offset: (start>>shift*perGroup + start&(1<<shift-1)) * 4096, Length: logBlocks * 4096}
	for name, b := range map[string][]byte{"zeros": make([]byte, e.Length), "noise": []byte(strings.Repeat("\x12\x34\x56\x78\x9a", int(e.Length/5)))} {
		t.Log(name)
		if _, err := f.WriteAt(b, e.Offset); err != nil {
			t.Fatal(err)
		}
		notSure(t, path, "xfs", "log has to be replayed", ErrDirty)
		run(t, "xfs_repair", "-L", "-f", path)
		mapped(t, path, "xfs")
	}
}
