//go:build linux

package fsmap

import (
	"errors"
	"math/bits"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// ntfsParts tells where parts of a file system lie in its bytes.
type ntfsParts struct {
	t testing.TB
	n *ntfs
	b []byte
}

func takeApart(t testing.TB, b []byte) *ntfsParts {
	t.Helper()
	v, _, _, err := probe(memory{b, int64(len(b))}, int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	n, err := openNTFS(v)
	if err != nil {
		t.Fatal(err)
	}
	return &ntfsParts{t, n, b}
}

// record returns where a record lies.
func (p *ntfsParts) record(number int64) int { return int(p.n.mftLCN*p.n.cluster + number*p.n.record) }

// attribute returns where an attribute of a record lies.
func (p *ntfsParts) attribute(number int64, kind uint32) int {
	at := p.record(number)
	for a := at + int(le.Uint16(p.b[at+0x14:])); le.Uint32(p.b[a:]) != ntfsAttributeEnd; a += int(le.Uint32(p.b[a+4:])) {
		if le.Uint32(p.b[a:]) == kind {
			return a
		}
	}
	p.t.Fatalf("record %d has no attribute %#x", number, kind)
	return 0
}

// content returns where the first cluster of a system file lies.
func (p *ntfsParts) content(number int64) int {
	s, err := p.n.open(number, ntfsData, "")
	if err != nil {
		p.t.Fatal(err)
	}
	return int(s.extents(0)[0].Offset)
}

func emptyNTFS(t *testing.T, args ...string) []byte {
	t.Helper()
	path := newPartition(t, 8<<20)
	run(t, "mkntfs", append(append([]string{"-q", "-F", "-f"}, args...), path)...)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestNTFSThatIsNotSureIsCopiedInFullOrRefused(t *testing.T) {
	t.Parallel()
	good := emptyNTFS(t, "-c", "4096")
	p := takeApart(t, good)
	flags := p.attribute(ntfsVolume, ntfsVolumeInfo) + 24
	for name, c := range map[string]struct {
		off     int
		b       string
		want    string
		refusal error
	}{
		"dirty":              {flags + 10, "\x01", "marked dirty; start Windows, run chkdsk", ErrDirty},
		"log to resize":      {flags + 10, "\x02", "log is to be resized", ErrDirty},
		"to upgrade":         {flags + 10, "\x04", "upgraded", ErrDirty},
		"chkdsk at work":     {flags + 11, "\x40", "chkdsk is at work", ErrDirty},
		"version 1.2":        {flags + 8, "\x01\x02", "version 1.2", ErrUnknownFeature},
		"version 3.2":        {flags + 9, "\x02", "version 3.2", ErrUnknownFeature},
		"log overwritten":    {p.content(ntfsLogFile), "something", "no restart page", ErrDirty},
		"sectors":            {0x28, "\x00\x00\xff", "its partition has", nil},
		"table elsewhere":    {0x30, "\x09", "record 0", nil},
		"table outside":      {0x30, "\xff\xff\xff", "master file table begins", nil},
		"no clusters":        {0x0d, "\x03", "clusters of", nil},
		"torn record":        {p.record(ntfsVolume) + 510, "\xEE", "record 3", nil},
		"record of $Bitmap":  {p.record(ntfsBitmap), "BAAD", "record 6", nil},
		"bitmap is short":    {p.attribute(ntfsBitmap, ntfsData) + 0x30, "\x10\x00", "of which", nil},
		"bitmap is stale":    {p.content(ntfsBitmap), "\x00", "are free", nil},
		"bitmap forgets MFT": {p.content(ntfsBitmap), "\x03", "$MFT are free", nil},
		"bitmap compressed":  {p.attribute(ntfsBitmap, ntfsData) + 12, "\x01", "compressed", nil},
		"runs outside":       {p.attribute(ntfsBitmap, ntfsData) + 0x40, "\x21\x01\xff\x7f", "clusters from cluster", nil},
		"table without end":  {p.attribute(ntfsMFT, ntfsData) + 0x30, strings.Repeat("\x00", 17), "master file table is not where", nil},
		"root directory":     {p.attribute(ntfsRoot, ntfsIndexRoot) + 0x20 + 16, "\xff\xff", "root directory", nil},
	} {
		t.Run(name, func(t *testing.T) {
			b := slices.Clone(good)
			copy(b[c.off:], c.b)
			checkDoubtful(t, b, "ntfs", c.want, c.refusal)
		})
	}
	root := p.attribute(ntfsRoot, ntfsIndexRoot) + 12
	for name, c := range map[string]struct {
		off int
		b   string
	}{
		"flag of Windows 8 and later":             {flags + 10, "\x80\x00"},
		"modified by chkdsk":                      {flags + 10, "\x00\x80"},
		"new files in the root get compressed":    {root, "\x01\x00"}, // "compress this drive": the index itself never is
		"new files in the root will be encrypted": {root, "\x00\x40"},
	} {
		b := slices.Clone(good)
		copy(b[c.off:], c.b)
		if r, err := Scan(memory{b, int64(len(b))}, int64(len(b)), Options{}); err != nil || r.Kind != KindUsed {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
	}
}

// restart makes a restart page of $LogFile as Windows writes it.
func restart(length int, sign string, major uint16, lsn uint64, clients, flags uint16) []byte {
	b := make([]byte, 4096)
	copy(b, sign)
	le.PutUint16(b[4:], 0x1e)
	le.PutUint16(b[6:], 9)
	le.PutUint32(b[0x10:], 4096)
	le.PutUint32(b[0x14:], 4096)
	le.PutUint16(b[0x18:], 0x30)
	le.PutUint16(b[0x1a:], 2-major) // versions 1.1 and 2.0
	le.PutUint16(b[0x1c:], major)
	le.PutUint64(b[0x30:], lsn)
	le.PutUint16(b[0x38:], 1)        // one client,
	le.PutUint16(b[0x3a:], ^clients) // not free if in use
	le.PutUint16(b[0x3c:], clients)
	le.PutUint16(b[0x3e:], flags)
	le.PutUint32(b[0x40:], uint32(67-bits.Len(uint(length)))) // bits of a sequence number
	le.PutUint16(b[0x44:], 0x40+160)                          // of this area, with one client
	le.PutUint16(b[0x46:], 0x40)
	le.PutUint64(b[0x48:], uint64(length))
	le.PutUint16(b[0x54:], 0x30)
	le.PutUint16(b[0x56:], 0x40)
	le.PutUint32(b[0x70+0x10:], 0xFFFFFFFF) // no client before and behind it
	le.PutUint16(b[0x1e:], 0xABCD)
	for i := 510; i < len(b); i += 512 {
		le.PutUint16(b[i:], 0xABCD)
	}
	return b
}

func TestNTFSLogTellsAnUncleanShutdown(t *testing.T) {
	t.Parallel()
	const none, one, clean = 0xFFFF, 0, 2
	const length = 2 << 20 // of the log that mkntfs makes in 8 MiB
	torn := restart(length, "RSTR", 1, 200, one, 0)
	torn[1022]++
	for name, c := range map[string]struct {
		first, second []byte
		want          string // "": mapped
	}{
		"clean, no client":       {restart(length, "RSTR", 1, 100, none, 0), restart(length, "RSTR", 1, 90, none, 0), ""},
		"clean by its flag":      {restart(length, "RSTR", 1, 100, one, clean), restart(length, "RSTR", 1, 90, one, 0), ""},
		"after chkdsk":           {restart(length, "CHKD", 1, 100, none, 0), restart(length, "CHKD", 1, 100, none, 0), ""},
		"in use":                 {restart(length, "RSTR", 1, 100, one, 0), restart(length, "RSTR", 1, 90, none, clean), "has to be replayed"},
		"in use by the second":   {restart(length, "RSTR", 1, 100, none, 0), restart(length, "RSTR", 1, 110, one, 0), "has to be replayed"},
		"fast start-up":          {restart(length, "RSTR", 2, 100, none, clean), restart(length, "RSTR", 2, 90, none, clean), "powercfg /h off"},
		"the first is torn":      {torn, restart(length, "RSTR", 1, 90, none, 0), "not written whole"},
		"both are torn":          {torn, torn, "not written whole"},
		"records without a page": {restart(length, "RCRD", 1, 100, none, 0), restart(length, "RSTR", 1, 90, none, 0), "no restart page"},
	} {
		t.Run(name, func(t *testing.T) {
			b := emptyNTFS(t)
			log := takeApart(t, b).content(ntfsLogFile)
			copy(b[log:], c.first)
			copy(b[log+4096:], c.second)
			if c.want != "" {
				checkDoubtful(t, b, "ntfs", c.want, ErrDirty)
			} else if r, err := Scan(memory{b, int64(len(b))}, int64(len(b)), Options{}); err != nil || r.Kind != KindUsed {
				t.Errorf("%+v, %v; want a map", r, err)
			}
			// ntfs-3g is the judge: it mounts what is clean.
			path := filepath.Join(t.TempDir(), "judged.img")
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
			if got := canMount(t, path); got != (c.want == "") {
				t.Errorf("ntfs-3g mounts it: %v", got)
			}
		})
	}
}

func TestNTFSThatIsHibernatedIsRefused(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		content string
		clean   bool
	}{
		"hibernated":          {"hibr" + strings.Repeat("\x00", 200_000), false},
		"fast start-up":       {"HIBR" + strings.Repeat("\x00", 200_000), false},
		"being resumed":       {"RSTR" + strings.Repeat("\x00", 200_000), false},
		"other volume":        {"hibr", false},
		"resumed":             {"wake" + strings.Repeat("\x00", 200_000), true},
		"never hibernated":    {strings.Repeat("\x00", 200_000), true},
		"of 4096 bytes, zero": {strings.Repeat("\x00", 4096), true},
	} {
		t.Run(name, func(t *testing.T) {
			path := newNTFS(t, 8, "")
			dir, unmount := mount(t, "ntfs-3g", path)
			if err := os.WriteFile(filepath.Join(dir, "hiberfil.sys"), []byte(c.content), 0o600); err != nil {
				t.Fatal(err)
			}
			unmount()
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			for _, keep := range []bool{false, true} {
				r, err := Scan(memory{b, int64(len(b))}, int64(len(b)), Options{KeepContents: keep})
				if c.clean && (err != nil || r.Kind != KindUsed) || !c.clean && (!errors.Is(err, ErrDirty) || !strings.Contains(err.Error(), "powercfg /h off")) {
					t.Errorf("%+v, %v", r, err)
				}
			}
			if !strings.HasPrefix(c.content, "RSTR") { // ntfs-3g does not know that one
				if got := canMount(t, path); got != c.clean {
					t.Errorf("ntfs-3g mounts it: %v", got)
				}
			}
		})
	}
}
