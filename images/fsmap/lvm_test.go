//go:build linux

package fsmap

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"seedbed/images"
)

// lvmDisk is a physical volume in a partition, made by LVM itself but for activation, which tests do without.
type lvmDisk struct {
	t       testing.TB
	path    string
	devices []string
	config  string
}

// newLVM makes the volume group vg on partitions of length bytes each.
func newLVM(t testing.TB, length int64, count int, args ...string) *lvmDisk {
	t.Helper()
	d := &lvmDisk{t: t, config: t.TempDir()}
	for i := range count {
		path := noise(t, length)
		if i == 0 {
			d.path = path
		}
		run(t, "wipefs", "-q", "-a", path)
		device, _ := lvmDevice(t, path)
		d.devices = append(d.devices, device)
	}
	config := fmt.Sprintf(`devices { filter=["a|^(%s)$|","r|.*|"] use_devicesfile=0 scan=["/dev"] obtain_device_list_from_udev=0 external_device_info_source="none" }
global { locking_dir="%s/lock" use_lvmpolld=0 event_activation=0 thin_check_executable="" }
activation { udev_sync=0 udev_rules=0 monitoring=0 thin_pool_autoextend_threshold=100 }
backup { backup=0 archive=0 }
`, strings.Join(d.devices, "|"), d.config)
	if err := os.WriteFile(filepath.Join(d.config, "lvm.conf"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, device := range d.devices {
		d.lvm(append([]string{"pvcreate", device}, args...)...)
	}
	d.lvm(append([]string{"vgcreate", "vg"}, d.devices...)...)
	return d
}

// lvmDevice makes a loop device of a partition until detach is called, at the latest at the end of the test.
func lvmDevice(t testing.TB, path string) (device string, detach func()) {
	t.Helper()
	device = strings.TrimSpace(run(t, "losetup", "--find", "--show", path))
	detach = sync.OnceFunc(func() { run(t, "losetup", "-d", device) })
	t.Cleanup(detach)
	return device, detach
}

// lvm runs a command of LVM without device-mapper.
func (d *lvmDisk) lvm(args ...string) string {
	d.t.Helper()
	return run(d.t, "env", append([]string{"LVM_SYSTEM_DIR=" + d.config, "LVM_SUPPRESS_FD_WARNINGS=1", "lvm", args[0], "--driverloaded", "n"}, args[1:]...)...)
}

func (d *lvmDisk) create(name string, mib int, args ...string) {
	d.t.Helper()
	d.lvm(append([]string{"lvcreate", "-an", "-Zn", "-Wn", "-L", fmt.Sprint(mib, "m"), "-n", name, "vg"}, args...)...)
}

// parts asks LVM where a volume lies.
func (d *lvmDisk) parts(name string) (list []images.Extent) {
	d.t.Helper()
	number := func(command, field, of string) (n int64) {
		out := strings.Fields(d.lvm(command, "--noheadings", "--units", "b", "--nosuffix", "-o", field, of)) // warnings first
		if _, err := fmt.Sscan(out[len(out)-1], &n); err != nil {
			d.t.Fatal(out, err)
		}
		return n
	}
	start, extent := number("pvs", "pe_start", d.devices[0]), number("vgs", "vg_extent_size", "vg")
	for _, m := range rangeLine.FindAllStringSubmatch(d.lvm("lvs", "--noheadings", "-o", "seg_pe_ranges", "vg/"+name), -1) {
		var first, last int64
		fmt.Sscan(m[1], &first)
		fmt.Sscan(m[2], &last)
		list = append(list, images.Extent{Offset: start + first*extent, Length: (last - first + 1) * extent})
	}
	return list
}

var rangeLine = regexp.MustCompile(`(?m)^ +/dev/\S+:(\d+)-(\d+) *$`)

// write puts a file system into a volume, read takes one out.
func (d *lvmDisk) write(name, content string) { d.t.Helper(); d.copy(name, content, d.path, true) }

func (d *lvmDisk) read(name, disk string) string {
	d.t.Helper()
	path := filepath.Join(scratch(d.t), name)
	d.copy(name, path, disk, false)
	return path
}

func (d *lvmDisk) copy(name, path, disk string, in bool) {
	d.t.Helper()
	p, _ := open(d.t, disk)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	at := int64(0)
	for _, e := range d.parts(name) {
		if in {
			_, err = io.Copy(io.NewOffsetWriter(p, e.Offset), io.NewSectionReader(f, at, e.Length))
		} else {
			_, err = io.Copy(io.NewOffsetWriter(f, at), io.NewSectionReader(p, e.Offset, e.Length))
		}
		if err != nil {
			d.t.Fatal(err)
		}
		at += e.Length
	}
}

// makeExt4 and its like make a file system of the length of a volume.
func makeExt4(t testing.TB, mib int64) string {
	t.Helper()
	path := noise(t, mib<<20)
	run(t, "mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-E", "nodiscard", path)
	return path
}

func exact(t testing.TB, path string, mib int64) string {
	t.Helper()
	if err := os.Truncate(path, mib<<20); err != nil {
		t.Fatal(err)
	}
	return path
}

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

// textOf lets pvck read the metadata of a copy.
func (d *lvmDisk) textOf(path string) string {
	d.t.Helper()
	b, err := os.ReadFile(filepath.Join(d.config, "lvm.conf"))
	if err != nil {
		d.t.Fatal(err)
	}
	device, detach := lvmDevice(d.t, path)
	defer detach()
	if err := os.WriteFile(filepath.Join(d.config, "lvm.conf"), []byte(strings.ReplaceAll(string(b), d.devices[0], device)), 0o600); err != nil {
		d.t.Fatal(err)
	}
	defer os.WriteFile(filepath.Join(d.config, "lvm.conf"), b, 0o600)
	out := filepath.Join(d.t.TempDir(), "metadata")
	d.lvm("pvck", "--dump", "metadata", "-f", out, device)
	text, err := os.ReadFile(out)
	if err != nil {
		d.t.Fatal(err)
	}
	return string(text)
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

// otherVolumes is metadata text of volumes that are not linear. Without device-mapper LVM creates none, but it checks and
// restores them. raid takes physical extents 20-31, base and its snapshot 32-43, pool and thin 44-57, striped 58-63.
var otherVolumes = strings.Join([]string{
	lvmText("raid", "VISIBLE", `type = "raid1" device_count = 2 region_size = 4096 raids = ["raid_rmeta_0", "raid_rimage_0", "raid_rmeta_1", "raid_rimage_1"]`, 5),
	linearText("raid_rmeta_0", 20, 1), linearText("raid_rimage_0", 21, 5), linearText("raid_rmeta_1", 26, 1), linearText("raid_rimage_1", 27, 5),
	strings.Replace(linearText("base", 32, 6), `"WRITE"`, `"WRITE", "VISIBLE"`, 1), strings.Replace(linearText("shot", 38, 6), `"WRITE"`, `"WRITE", "VISIBLE"`, 1),
	lvmText("snapshot0", "VISIBLE", `type = "snapshot" chunk_size = 8 origin = "base" cow_store = "shot"`, 6),
	lvmText("pool", "VISIBLE", `type = "thin-pool" metadata = "pool_tmeta" pool = "pool_tdata" transaction_id = 1 chunk_size = 128 discards = "passdown" zero_new_blocks = 1`, 10),
	linearText("pool_tmeta", 44, 4), linearText("pool_tdata", 48, 10),
	lvmText("thin", "VISIBLE", `type = "thin" thin_pool = "pool" transaction_id = 0 device_id = 1`, 50),
	lvmText("striped", "VISIBLE", `type = "striped" stripe_count = 2 stripe_size = 128 stripes = ["pv0", 58, "pv0", 61]`, 6),
}, "\n")

// lvmText describes a volume of one segment of n extents.
func lvmText(name, status, segment string, n int) string {
	b := make([]byte, 16)
	rand.NewChaCha8([32]byte([]byte(fmt.Sprintf("%-32s", name)))).Read(b)
	h := fmt.Sprintf("%x", b)
	id := strings.Join([]string{h[:6], h[6:10], h[10:14], h[14:18], h[18:22], h[22:26], h[26:32]}, "-")
	if status != "" {
		status = `, "` + status + `"`
	}
	segment = strings.NewReplacer(` = `, `=`, `, `, `,`).Replace(segment)
	return fmt.Sprintf("%s {\nid=%q\nstatus=[\"READ\", \"WRITE\"%s]\nflags=[]\nsegment_count=1\nsegment1 {\nstart_extent=0\nextent_count=%d\n%s\n}\n}\n",
		name, id, status, n, strings.ReplaceAll(segment, " ", "\n"))
}

func linearText(name string, at, n int) string {
	return lvmText(name, "", fmt.Sprintf(`type = "striped" stripe_count = 1 stripes = ["pv0", %d]`, at), n)
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
		if _, err := f.WriteAt([]byte("x"), at); err != nil {
			t.Fatal(err)
		}
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
