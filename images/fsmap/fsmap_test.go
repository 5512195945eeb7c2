package fsmap

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"seedbed/images"
)

// memory is a partition that begins with b and goes on with zeros.
type memory struct {
	b      []byte
	length int64
}

func (m memory) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || off+int64(len(p)) > m.length {
		return 0, io.EOF
	}
	clear(p)
	if off < int64(len(m.b)) {
		copy(p, m.b[off:])
	}
	return len(p), nil
}

func at(off int, s string) []byte { return append(make([]byte, off), s...) }

func TestWhatHasNoMapIsCopiedInFullAndSaysWhy(t *testing.T) {
	for name, c := range map[string]struct {
		b    []byte
		fs   string
		want string
	}{
		"xfs":            {at(0, "XFSB"), "xfs", "file-system blocks of 0 bytes"},
		"btrfs":          {at(0x10040, "_BHRfS_M"), "btrfs", "checksum of its superblock"},
		"lvm":            {at(512, "LABELONE"+strings.Repeat("\x00", 16)+"LVM2 001"), "lvm", "checksum of its label"},
		"two signatures": {append(at(0, "XFSB"), at(0x10040-4, "_BHRfS_M")...), "xfs+btrfs", "several"},
		"noise":          {at(0, "something else"), "", "no file system was recognised"},
		"squashfs":       {at(0, "hsqs"), "squashfs", ""},
	} {
		r, err := Scan(memory{c.b, 64 << 20}, 64<<20, Options{})
		if err != nil || r.Kind != KindFull || r.FS != c.fs || !strings.Contains(r.Warning, c.want) || (c.want == "") != (r.Warning == "") {
			t.Errorf("%s: %+v, %v; want %s with a warning about %q", name, r, err, c.fs, c.want)
		}
		if len(r.Used) != 1 || r.Used[0] != (images.Extent{Offset: 0, Length: 64 << 20}) {
			t.Errorf("%s: %v", name, r.Used)
		}
	}
}

func TestShortPartitionsAndBIOSBootGiveNoWarning(t *testing.T) {
	for _, length := range []int64{512, 4096, 1 << 20} {
		r, err := Scan(memory{[]byte("core.img"), length}, length, Options{})
		if err != nil || r.Kind != KindFull || r.Warning != "" || images.TotalLength(r.Used) != length {
			t.Errorf("%d bytes: %+v, %v", length, r, err)
		}
	}
	if _, err := Scan(memory{}, 0, Options{}); err == nil {
		t.Error("a partition of no bytes has a map")
	}
}

func TestAReadErrorIsNoReasonToGuess(t *testing.T) {
	if _, err := Scan(memory{length: 4096}, 1<<20, Options{}); err == nil {
		t.Error("a partition that cannot be read has a map")
	}
}

func TestNTFSNamesAreThoseOfBlkid(t *testing.T) {
	path := newPartition(t, 8<<20)
	run(t, "mkntfs", "-q", "-F", "-f", path)
	compareBlkid(t, path)
	if r := scan(t, path); r.Kind != KindUsed || r.Warning != "" {
		t.Errorf("%+v", r)
	}
}

// FuzzScan changes bytes of real file systems: the input is the first 68 KiB as runs of what differs from a seed.
func FuzzScan(f *testing.F) {
	var seeds [][]byte
	for _, args := range [][]string{
		{"mke2fs", "-q", "-F", "-t", "ext4", "-b", "1024", "-g", "512"}, {"mke2fs", "-q", "-F", "-t", "ext4", "-O", "^metadata_csum,uninit_bg,bigalloc"},
		{"mke2fs", "-q", "-F", "-t", "ext2", "-b", "1024"}, {"mkfs.fat", "-F", "12"}, {"mkfs.fat", "-F", "16", "-s", "1"},
		{"mkfs.fat", "-F", "32", "-s", "1"}, {"mkswap", "-q"},
	} {
		path := newPartition(f, 4<<20)
		run(f, args[0], append(args[1:], path)...)
		file, length := open(f, path)
		b := make([]byte, length)
		if _, err := file.ReadAt(b, 0); err != nil {
			f.Fatal(err)
		}
		seeds = append(seeds, b)
		f.Add(byte(len(seeds)-1), uint32(0), []byte{})
		f.Add(byte(len(seeds)-1), uint32(1024), bytes.Clone(b[1024:1024+256]))
		f.Add(byte(len(seeds)-1), uint32(0), bytes.Clone(b[:512]))
		f.Add(byte(len(seeds)-1), uint32(2048), bytes.Clone(b[2048:2048+256]))
	}
	f.Fuzz(func(t *testing.T, seed byte, off uint32, change []byte) {
		b := bytes.Clone(seeds[int(seed)%len(seeds)])
		copy(b[int(off)%len(b):], change)
		if sb := b[1024:2048]; le.Uint16(sb[0x38:]) == 0xEF53 {
			le.PutUint32(sb[0x3fc:], extCRC(^uint32(0), sb[:0x3fc]))
		}
		r, err := Scan(bytes.NewReader(b), int64(len(b)), Options{})
		if err != nil {
			return
		}
		end := int64(-1)
		for _, e := range r.Used {
			if e.Offset <= end || e.Length <= 0 || e.End() > int64(len(b)) {
				t.Fatalf("range %v does not follow byte %d", e, end)
			}
			end = e.End()
		}
		if r.Kind == KindFull && images.TotalLength(r.Used) != int64(len(b)) {
			t.Fatalf("a full map of %d bytes", images.TotalLength(r.Used))
		}
	})
}
