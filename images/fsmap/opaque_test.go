//go:build linux

package fsmap

import (
	"encoding/binary"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// written writes a partition of 64 MiB that holds pieces at offsets, negative ones from its end.
func written(t testing.TB, pieces map[int64][]byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "partition.img")
	const length = 64 << 20
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(length); err != nil {
		t.Fatal(err)
	}
	for _, off := range slices.Sorted(maps.Keys(pieces)) { // later ones may lie in earlier ones
		b := pieces[off]
		if off < 0 {
			off += length
		}
		if _, err := f.WriteAt(b, off); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

// raid1x makes a superblock of version 1.x that lies at off (Linux, Documentation/admin-guide/md.rst; md_p.h).
func raid1x(off int64) []byte {
	b := make([]byte, 256+2*128)
	le.PutUint32(b, 0xa92b4efc)
	le.PutUint32(b[4:], 1)
	copy(b[16:], "\x01\x23\x45\x67\x89\xab\xcd\xef\xfe\xdc\xba\x98\x76\x54\x32\x10")
	copy(b[32:], "host:array")
	le.PutUint32(b[72:], 1)       // RAID 1
	le.PutUint64(b[80:], 100_000) // length in sectors
	le.PutUint32(b[92:], 2)       // disks
	le.PutUint64(b[128:], 2048)   // data offset
	le.PutUint64(b[136:], 100_000)
	le.PutUint64(b[144:], uint64(off/512))
	le.PutUint32(b[220:], 128) // places for roles
	return b
}

func raid1xSummed(off int64) []byte {
	b, sum := raid1x(off), uint64(0)
	for i := 0; i < len(b); i += 4 {
		sum += uint64(le.Uint32(b[i:]))
	}
	le.PutUint32(b[216:], uint32(sum)+uint32(sum>>32))
	return b
}

func raid090() []byte {
	b := make([]byte, 4096)
	le.PutUint32(b, 0xa92b4efc)
	le.PutUint32(b[8:], 90)
	for i, at := range []int{20, 52, 56, 60} {
		le.PutUint32(b[at:], 0x01020304*uint32(i+1))
	}
	le.PutUint32(b[28:], 1)
	sum := uint64(0)
	for i := 0; i < len(b); i += 4 {
		sum += uint64(le.Uint32(b[i:]))
	}
	le.PutUint32(b[38*4:], uint32(sum)+uint32(sum>>32))
	return b
}

// zpool makes a label of a pool as probeZFS reads it.
func zpool(order binary.AppendByteOrder) []byte {
	pair := func(name string, kind uint32, value []byte) []byte {
		b := be.AppendUint32(nil, uint32(len(name)))
		b = append(append(b, name...), make([]byte, -len(name)&3)...)
		b = append(be.AppendUint32(be.AppendUint32(b, kind), 1), value...)
		return append(be.AppendUint32(be.AppendUint32(nil, uint32(8+len(b))), 64), b...)
	}
	list := []byte{1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1} // XDR, little-endian host; version 0, names are unique
	list = append(list, pair("version", 8, be.AppendUint64(nil, 5000))...)
	list = append(list, pair("name", 9, append(be.AppendUint32(nil, 4), "tank"...))...)
	list = append(list, pair("pool_guid", 8, be.AppendUint64(nil, 1234567890123456789))...)
	list = append(list, pair("guid", 8, be.AppendUint64(nil, 42))...)
	label := make([]byte, zfsLabel)
	copy(label[zfsProperties:], list)
	for i := range 8 {
		copy(label[zfsRing+i*1024:], order.AppendUint64(order.AppendUint64(nil, zfsUberblock), 5000))
	}
	return label
}

func TestWhatIsOpaqueIsNamedAndRefusedIfAsked(t *testing.T) {
	const end = 64 << 20
	key := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(key, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	luks := []string{"cryptsetup", "luksFormat", "-q", "--key-file", key, "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--type"}
	toGo := make([]byte, 512)
	copy(toGo, "\xeb\x58\x90MSWIN4.1\x00\x02\x08\x20\x00\x02")
	toGo[21] = 0xF8
	le.PutUint32(toGo[32:], 100_000)
	le.PutUint32(toGo[36:], 100)
	copy(toGo[424:], "\x3b\xd6\x67\x49\x29\x2e\xd8\x4a\x83\x99\xf6\xa3\x39\xe3\xd0\x01")
	copy(toGo[510:], "\x55\xAA")
	fveAt, fve := le.AppendUint64(nil, 1<<20), []byte("-FVE-FS-\x00\x00\x02\x00") // where BitLocker's own records lie
	const id = "\x11\x22\x33\x44\x55\x66\x77\x88\x99\xaa\xbb\xcc\xdd\xee\xff\x00"
	for name, c := range map[string]struct {
		pieces map[int64][]byte
		tool   []string // instead: makes it
		fs     string
		remedy string
		blkid  bool // it judges name, UUID and label
	}{
		"LUKS 1":                {nil, append(luks, "luks1"), "luks", "cryptsetup reencrypt --decrypt", true},
		"LUKS 2":                {nil, append(luks, "luks2", "--label", "secret"), "luks", "cryptsetup reencrypt --decrypt", true},
		"F2FS":                  {nil, []string{"mkfs.f2fs", "-q", "-f", "-l", "Flash"}, "f2fs", "zeros", true},
		"BitLocker 7 and later": {map[int64][]byte{0: []byte("\xeb\x58\x90-FVE-FS-"), 176: fveAt, 1 << 20: fve}, nil, "bitlocker", "manage-bde -off", true},
		"BitLocker of Vista":    {map[int64][]byte{0: []byte("\xeb\x52\x90-FVE-FS-")}, nil, "bitlocker", "manage-bde -off", true},
		"BitLocker To Go":       {map[int64][]byte{0: toGo, 440: fveAt, 1 << 20: fve}, nil, "bitlocker", "manage-bde -off", true},
		"ReFS":                  {map[int64][]byte{0: []byte("\x00\x00\x00ReFS\x00")}, nil, "refs", "zeros", true},
		"APFS":                  {map[int64][]byte{0: at(24, "\x01\x00\x00\x80\x00\x00\x00\x00NXSB\x00\x10"), 72: []byte(id)}, nil, "apfs", "zeros", false},
		"HFS+":                  {map[int64][]byte{1024: []byte("H+\x00\x04")}, nil, "hfsplus", "zeros", false},
		"bcachefs":              {map[int64][]byte{4096: at(24, "\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef")}, nil, "bcachefs", "zeros", false},
		"bcachefs of 2018":      {map[int64][]byte{4096: at(16, "\x0a\x00\x0a\x00\x00\x00\x00\x00\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81")}, nil, "bcachefs", "zeros", false},
		"bcache":                {map[int64][]byte{4096: at(16, "\x01\x00\x00\x00\x00\x00\x00\x00\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81")}, nil, "bcache", "zeros", false},
		"RAID 1.1":              {map[int64][]byte{0: raid1xSummed(0)}, nil, "mdraid", "assembled array", true},
		"RAID 1.2":              {map[int64][]byte{4096: raid1xSummed(4096)}, nil, "mdraid", "assembled array", true},
		"RAID 1.0, FAT in it":   {map[int64][]byte{0: toGo[:400], 510: toGo[510:], -8192: raid1xSummed(end - 8192)}, nil, "mdraid", "assembled array", true},
		"RAID 0.90":             {map[int64][]byte{-65536: raid090()}, nil, "mdraid", "assembled array", true},
		"ZFS":                   {map[int64][]byte{0: zpool(le), zfsLabel: zpool(le), -2 * zfsLabel: zpool(le), -zfsLabel: zpool(le)}, nil, "zfs", "zfs send", true},
		"ZFS, big-endian":       {map[int64][]byte{0: zpool(be)}, nil, "zfs", "zfs send", true},
		"ZFS by its end":        {map[int64][]byte{-zfsLabel: zpool(le)}, nil, "zfs", "zfs send", true},
	} {
		t.Run(name, func(t *testing.T) {
			path := written(t, c.pieces)
			if c.tool != nil {
				run(t, c.tool[0], append(c.tool[1:], path)...)
			}
			f, length := open(t, path)
			r, err := Scan(f, length, Options{})
			if err != nil || r.Kind != KindFull || r.FS != c.fs || !strings.Contains(r.Warning, c.remedy) {
				t.Errorf("%+v, %v; want %s with a warning about %q", r, err, c.fs, c.remedy)
			}
			if _, err := Scan(f, length, Options{RefuseOpaque: true}); !errors.Is(err, ErrOpaque) || !strings.Contains(err.Error(), c.remedy) {
				t.Errorf("error %v, want ErrOpaque with the remedy %q", err, c.remedy)
			}
			if r, err := Scan(f, length, Options{RefuseOpaque: true, Full: true}); err != nil || r.Kind != KindFull {
				t.Errorf("%+v, %v; want a map in full", r, err)
			}
			if c.blkid {
				compareBlkid(t, path)
			}
		})
	}
}

// On a dynamic disk the clusters behind the part of a spanned volume that lies here are another volume's.
func TestPartitionOfAPoolIsCopiedInFull(t *testing.T) {
	t.Parallel()
	b := emptyNTFS(t)
	length := int64(len(b))
	r, err := Scan(memory{b, length}, length, Options{Pool: true})
	if err != nil || r.Kind != KindFull || r.FS != "ntfs" || len(r.Used) != 1 || r.Used[0].Length != length || !strings.Contains(r.Warning, "basic disk") {
		t.Errorf("%+v, %v; want a copy in full with the remedy", r, err)
	}
	if _, err := Scan(memory{b, length}, length, Options{Pool: true, RefuseOpaque: true}); !errors.Is(err, ErrOpaque) {
		t.Errorf("error %v, want ErrOpaque", err)
	}
	b[takeApart(t, b).attribute(ntfsVolume, ntfsVolumeInfo)+24+10] |= 1
	if _, err := Scan(memory{b, length}, length, Options{Pool: true}); !errors.Is(err, ErrDirty) {
		t.Errorf("error %v, want ErrDirty", err)
	}
}
