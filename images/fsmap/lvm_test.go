//go:build linux

package fsmap

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"seedbed/images"
)

// A server's layout: root, home, swap, and room between them where a volume was.
func TestLVMPoison(t *testing.T) {
	t.Parallel()
	d := newLVM(t, 260<<20+3*512, 1)
	d.create("root", 20)
	d.create("gone", 20)
	d.create("home", 40)
	d.create("swap", 16)
	d.lvm("lvremove", "-y", "vg/gone")
	d.lvm("lvextend", "-L", "64m", "vg/root") // in three parts
	d.create("small", 44)
	want := map[string]map[string]images.Digest{}
	root, home := makeExt4(t, 64), exact(t, makeXFS(t, 40, ""), 40)
	mounted(t, root, "", func(dir string) {
		age(t, dir, 20<<20)
		grow(t, dir)
		want["root"] = listing(t, dir)
	})
	want["home"] = ageXFS(t, home, 40)
	swap := noise(t, 16<<20)
	run(t, "mkswap", "-q", swap)
	fat := noise(t, 44<<20)
	run(t, "mkfs.fat", "-F", "32", "-s", "1", fat)
	sum := int64(0)
	for name, path := range map[string]string{"root": root, "home": home, "swap": swap, "small": fat} {
		d.write(name, path)
		sum += images.TotalLength(scan(t, path).Used)
	}
	r := mapped(t, d.path, "lvm")
	if id := strings.TrimSpace(run(t, "blkid", "-p", "-o", "value", "-s", "UUID", d.path)); r.UUID != id {
		t.Errorf("UUID %s, blkid says %s", r.UUID, id)
	}
	if !slices.Equal(r.Dropped, []Dropped{{"swap space of LV vg/swap", 16<<20 - 4096}}) {
		t.Errorf("dropped %v", r.Dropped)
	}
	if len(d.parts("root")) < 2 {
		t.Errorf("root is in one part: %v", d.parts("root"))
	}
	length := int64(260<<20 + 3*512)
	const start, extent = 1 << 20, 4 << 20
	if got, want := images.TotalLength(r.Used), sum+start+(length-start)%extent; got != want {
		t.Errorf("used %d bytes; the file systems, the metadata and the rest are %d", got, want)
	}
	out := poisoned(t, d.path, r.Used)
	if got, want := d.textOf(out), d.textOf(d.path); got != want || !strings.Contains(got, "logical_volumes") {
		t.Errorf("pvck says %s, of the source %s", got, want)
	}
	for name, check := range map[string]func(string){"root": func(p string) { run(t, "e2fsck", "-fn", p) }, "home": repairXFS(t)} {
		path := d.read(name, out)
		check(path)
		mounted(t, path, "ro", func(dir string) { sameTree(t, listing(t, dir), want[name]) })
	}
	run(t, "fsck.fat", "-n", d.read("small", out))
	if info := run(t, "blkid", "-p", "-o", "value", "-s", "TYPE", d.read("swap", out)); info != "swap\n" {
		t.Errorf("swap is now %q", info)
	}
}

func TestLVMRefusesByVolume(t *testing.T) {
	t.Parallel()
	d := newLVM(t, 100<<20, 1)
	d.create("root", 24)
	d.create("other", 24)
	d.write("other", makeExt4(t, 24))
	dirty := makeExt4(t, 24)
	patch(t, dirty, 0x60, 0xc6)
	d.write("root", dirty)
	f, length := open(t, d.path)
	_, err := Scan(f, length, Options{})
	if !errors.Is(err, ErrDirty) || !strings.Contains(err.Error(), "LV vg/root") || !strings.Contains(err.Error(), "e2fsck") {
		t.Errorf("error %v, want ErrDirty that names the volume", err)
	}
	r, err := Scan(f, length, Options{Full: true})
	if err != nil || r.Kind != KindUsed || !strings.Contains(r.Warning, "LV vg/root: ext4") || strings.Contains(r.Warning, "vg/other") {
		t.Fatalf("as asked: %+v, %v", r, err)
	}
	for _, e := range d.parts("root") {
		if !slices.ContainsFunc(r.Used, func(u images.Extent) bool { return u.Intersect(e) == e }) {
			t.Errorf("%v of root is not in %v", e, r.Used)
		}
	}
	luks := noise(t, 24<<20)
	p, _ := open(t, luks)
	if _, err := p.WriteAt([]byte("LUKS\xba\xbe\x00\x02"), 0); err != nil {
		t.Fatal(err)
	}
	d.write("root", luks)
	if _, err = Scan(f, length, Options{RefuseOpaque: true}); !errors.Is(err, ErrOpaque) || !strings.Contains(err.Error(), "LV vg/root") {
		t.Errorf("error %v, want ErrOpaque that names the volume", err)
	}
	if r := scan(t, d.path); r.Kind != KindUsed || !strings.Contains(r.Warning, "LV vg/root: luks") || images.TotalLength(r.Used) > 40<<20 {
		t.Errorf("%q %q, %d bytes", r.Kind, r.Warning, images.TotalLength(r.Used))
	}
}

// What LVM makes of several volumes is copied whole, but no more than that.
func TestLVMCopiesOtherVolumesInFull(t *testing.T) {
	t.Parallel()
	d := newLVM(t, 300<<20, 1, "--metadatacopies", "2")
	d.create("root", 24)
	file := filepath.Join(d.config, "backup")
	d.lvm("vgcfgbackup", "-f", file, "vg")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	text = []byte(strings.Replace(string(text), "logical_volumes {", "logical_volumes {\n"+otherVolumes, 1))
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	d.lvm("vgcfgrestore", "--force", "-f", file, "vg")
	content := makeExt4(t, 24)
	d.write("root", content)
	d.write("base", content) // looks like a file system of its own, and changes when the snapshot is merged
	d.write("raid_rimage_0", exact(t, makeExt4(t, 16), 20))
	r := scan(t, d.path)
	for _, name := range []string{"raid", "base", "snapshot0", "pool", "thin", "striped"} {
		if !strings.Contains(r.Warning, "LV vg/"+name+": it is not linear") {
			t.Errorf("no warning about %s: %s", name, r.Warning)
		}
	}
	if r.Kind != KindUsed || strings.Contains(r.Warning, "vg/root") || strings.Count(r.Warning, "LV ") != 6 {
		t.Errorf("%q %q", r.Kind, r.Warning)
	}
	const start, extent = 1 << 20, 4 << 20
	tail := images.Extent{Offset: start + 74*extent, Length: 300<<20 - start - 74*extent} // the second metadata area
	for _, e := range []images.Extent{{Offset: 0, Length: start}, {Offset: start + 20*extent, Length: (64 - 20) * extent}, tail} {
		if !slices.ContainsFunc(r.Used, func(u images.Extent) bool { return u.Intersect(e) == e }) {
			t.Errorf("%v is not in %v", e, r.Used)
		}
	}
	if got, want := images.TotalLength(r.Used), start+44*extent+tail.Length+images.TotalLength(scan(t, content).Used); got != want {
		t.Errorf("used %d bytes, want %d", got, want)
	}
	f, length := open(t, d.path)
	if _, err := Scan(f, length, Options{RefuseOpaque: true}); !errors.Is(err, ErrOpaque) {
		t.Errorf("error %v, want ErrOpaque", err)
	}
	if got, want := d.textOf(poisoned(t, d.path, r.Used)), d.textOf(d.path); got != want {
		t.Errorf("pvck says %s, of the source %s", got, want)
	}
}

func TestLVMThatIsNotSureIsCopiedInFull(t *testing.T) {
	t.Parallel()
	notSure(t, newLVM(t, 30<<20, 2).path, "lvm", "has 2 physical volumes", nil)
	orphan := noise(t, 30<<20)
	run(t, "wipefs", "-q", "-a", orphan)
	d := newLVM(t, 30<<20, 1)
	d.lvm("vgremove", "vg")
	notSure(t, d.path, "lvm", "no metadata of a volume group", nil)
	for at, want := range map[int64]string{512 + 40: "checksum of its label", 4096 + 100: "metadata area at 4096 is damaged", 4096 + 512 + 30: "checksum of its metadata"} {
		d := newLVM(t, 30<<20, 1)
		f, _ := open(t, d.path)
		flip(t, f, at)
		notSure(t, d.path, "lvm", want, nil)
	}
}

// A ring of metadata that is full goes on at its start.
func TestLVMMetadataGoesAround(t *testing.T) {
	t.Parallel()
	d := newLVM(t, 40<<20, 1)
	d.create("volume0", 8)
	for i := range 2 { // a longer text goes around sooner
		var tags []string
		for k := range 60 {
			tags = append(tags, "--addtag", fmt.Sprintf("%d.%d.%s", i, k, strings.Repeat("long", 200)))
		}
		d.lvm(append(append([]string{"vgchange"}, tags...), "vg")...)
	}
	around := 0
	for i := range 15 {
		d.lvm("lvrename", "vg", fmt.Sprint("volume", i), fmt.Sprint("volume", i+1))
		f, length := open(t, d.path)
		h := make([]byte, lvmAreaSize)
		if _, err := f.ReadAt(h, 4096); err != nil {
			t.Fatal(err)
		}
		if at, n, ring := le.Uint64(h[40:]), le.Uint64(h[48:]), le.Uint64(h[32:]); at+n > ring {
			around++
		}
		r, err := Scan(f, length, Options{})
		if want := fmt.Sprintf("LV vg/volume%d: no file system", i+1); err != nil || r.Kind != KindUsed && !strings.Contains(r.Warning, want) {
			t.Fatalf("%+v, %v", r, err)
		}
	}
	if around == 0 {
		t.Error("the text never went around the end of its ring")
	}
}

// flip changes one byte, whatever it is.
func flip(t *testing.T, f *os.File, at int64) {
	t.Helper()
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1
	if _, err := f.WriteAt(b, at); err != nil {
		t.Fatal(err)
	}
}
