//go:build linux

package fsmap

import (
	"bytes"
	"io"
	"os"
	"testing"

	"seedbed/images"
)

// mutation is a partition of which a few bytes are other than they were: what mend makes of the unit of bytes around each.
type mutation struct {
	base  []byte
	units map[int64][]byte // by offset
	unit  int64
	read  *int64 // bytes
}

func (m mutation) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || off+int64(len(p)) > int64(len(m.base)) {
		return 0, io.EOF
	}
	*m.read += int64(len(p))
	copy(p, m.base[off:])
	for at, b := range m.units {
		whole := images.Extent{Offset: off, Length: int64(len(p))}
		if x := whole.Intersect(images.Extent{Offset: at, Length: int64(len(b))}); x.Length > 0 {
			copy(p[x.Offset-off:], b[x.Offset-at:x.End()-at])
		}
	}
	return len(p), nil
}

// change puts b at off and mends the unit that it begins in; what lies in the next is left out.
func (m mutation) change(off int64, b []byte, mend func(at int64, unit []byte)) {
	at := off / m.unit * m.unit
	if m.units[at] == nil {
		m.units[at] = bytes.Clone(m.base[at:min(at+m.unit, int64(len(m.base)))])
	}
	copy(m.units[at][min(off-at, int64(len(m.units[at]))):], b)
	mend(at, m.units[at])
}

// fuzzMap changes file systems at two places: each place is given by one that matters and a distance from it.
func fuzzMap(f *testing.F, unit int64, seeds [][]byte, places [][]int64, mend func(at int64, unit []byte)) {
	for s := range seeds {
		for p := 0; p < len(places[s]); p += 1 + len(places[s])/64 {
			f.Add(byte(s), byte(p), uint16(8), []byte{1}, byte(p/2), uint16(40), []byte{0xff, 0xff})
		}
	}
	f.Fuzz(func(t *testing.T, seed, place byte, distance uint16, change []byte, place2 byte, distance2 uint16, change2 []byte) {
		s := int(seed) % len(seeds)
		m := mutation{base: seeds[s], units: map[int64][]byte{}, unit: unit, read: new(int64)}
		length := int64(len(m.base))
		m.change((places[s][int(place)%len(places[s])]+int64(distance)%unit)%length, change, mend)
		m.change((places[s][int(place2)%len(places[s])]+int64(distance2)%unit)%length, change2, mend)
		r, err := Scan(m, length, Options{})
		if *m.read > 4*length+64<<20 {
			t.Fatalf("%d bytes were read of %d", *m.read, length)
		}
		if err != nil {
			return
		}
		end := int64(-1)
		for _, e := range r.Used {
			if e.Offset <= end || e.Length <= 0 || e.End() > length {
				t.Fatalf("range %v does not follow byte %d", e, end)
			}
			end = e.End()
		}
		if r.Kind == KindFull && (images.TotalLength(r.Used) != length || r.Warning == "") {
			t.Fatalf("a full map of %d bytes, warning %q", images.TotalLength(r.Used), r.Warning)
		}
	})
}

// bytesOf reads a partition.
func bytesOf(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// signs returns where units begin that has accepts.
func signs(b []byte, unit int64, has func(unit []byte) bool) (list []int64) {
	for at := int64(0); at+unit <= int64(len(b)); at += unit {
		if has(b[at : at+unit]) {
			list = append(list, at)
		}
	}
	return list
}

func FuzzXFS(f *testing.F) {
	var seeds [][]byte
	var places [][]int64
	for _, args := range []string{"-b size=512 -i size=256 -m crc=0", "-b size=1024"} {
		path := makeXFS(f, 40, args)
		if args == "-b size=1024" { // the kernel may not mount the other, of version 4
			mounted(f, path, "", func(dir string) { grow(f, dir) })
		}
		b := bytesOf(f, path)
		seeds = append(seeds, b)
		places = append(places, signs(b, 512, func(u []byte) bool {
			switch string(u[:4]) {
			case "XFSB", "XAGF", "ABTB", "AB3B", "\xfe\xed\xba\xbe":
				return true
			}
			return false
		}))
	}
	fuzzMap(f, 4096, seeds, places, func(_ int64, unit []byte) {
		for at := 0; at < len(unit); at += 512 {
			sector, n := unit[at:], map[string]int{"XFSB": 224, "XAGF": 216}[string(unit[at:at+4])]
			switch {
			case n > 0:
				le.PutUint32(sector[n:], xfsSum(sector[:512], n))
			case string(sector[:4]) == "AB3B" && at%1024 == 0:
				le.PutUint32(sector[52:], xfsSum(sector[:1024], 52))
			}
		}
	})
}

func FuzzBtrfs(f *testing.F) {
	var seeds [][]byte
	var places [][]int64
	for _, args := range []string{"-M -n 4096 -m single -d single", "-M -m dup -d dup"} {
		path := makeBtrfs(f, 160, args)
		mounted(f, path, "", func(dir string) { grow(f, dir) })
		b := bytesOf(f, path)
		fsid := b[64<<10+32:][:16]
		seeds = append(seeds, b)
		places = append(places, signs(b, 4096, func(u []byte) bool { return bytes.Equal(u[32:48], fsid) }))
	}
	fuzzMap(f, 4096, seeds, places, func(_ int64, unit []byte) {
		sum, _ := btrfsSum(0, unit[32:])
		copy(unit, sum[:])
	})
}

func FuzzLVM(f *testing.F) {
	d := newLVM(f, 30<<20+512, 1)
	d.create("first", 4)
	d.create("second", 8)
	d.create("third", 4)
	d.lvm("lvremove", "-y", "vg/second")
	d.lvm("lvextend", "-L", "16m", "vg/first")
	content := noise(f, 16<<20)
	run(f, "mkswap", "-q", content)
	d.write("first", content)
	b := bytesOf(f, d.path)
	at := 4096 + int64(le.Uint64(b[4096+40:]))
	length := int64(le.Uint64(b[4096+48:]))
	places := []int64{512, 4096}
	for i := int64(0); i < length; i += 64 {
		places = append(places, at+i)
	}
	fuzzMap(f, 1<<20, [][]byte{b}, [][]int64{places}, func(_ int64, unit []byte) {
		le.PutUint32(unit[512+16:], lvmSum(unit[512+20:1024]))
		h := unit[4096:][:lvmAreaSize]
		if from, n := le.Uint64(h[40:]), le.Uint64(h[48:]); from < 1<<19 && n < 1<<18 {
			le.PutUint32(h[56:], lvmSum(unit[4096+from:][:n]))
		}
		le.PutUint32(h, lvmSum(h[4:]))
	})
}

// FuzzLVMText reads text alone: most of what LVM's metadata can get wrong.
func FuzzLVMText(f *testing.F) {
	f.Add("vg {\nid = \"a\"\nstatus = [\"READ\", \"WRITE\"] # comment\nextent_size = 8192\npv { pe_start = 1.5 list = [1, 2, ] }\n}\n")
	f.Add(otherVolumes)
	f.Add("a{b{c{d{e{f{g{h{i{")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := parseLVMText(text)
		if err != nil {
			return
		}
		for _, name := range s.order {
			if s.sections[name] == nil {
				t.Fatalf("section %q has no content", name)
			}
		}
		parseLVMGroup(&volume{length: 1 << 40}, s)
	})
}
