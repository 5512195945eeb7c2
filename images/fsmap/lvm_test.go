//go:build linux

package fsmap

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
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
	out := d.lvm("lvs", "--noheadings", "--units", "b", "--nosuffix", "-o", "vg_extent_size,pe_start,seg_pe_ranges", "vg/"+name)
	for _, line := range strings.Split(out, "\n") {
		words := strings.Fields(line)
		if len(words) < 3 || !strings.Contains(words[2], ":") {
			continue
		}
		var extent, start, first, last int64
		_, ranges, _ := strings.Cut(words[2], ":")
		if _, err := fmt.Sscan(words[0], &extent); err != nil {
			continue // a warning
		}
		fmt.Sscan(words[1], &start)
		fmt.Sscanf(ranges, "%d-%d", &first, &last)
		list = append(list, images.Extent{Offset: start + first*extent, Length: (last - first + 1) * extent})
	}
	return list
}

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
	compareBlkid(t, d.path)
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
	d := newLVM(t, 300<<20, 1, "--metadatacopies", "2")
	d.create("root", 24)
	d.write("root", makeExt4(t, 24))
	d.create("striped", 24, "--type", "raid1", "-m", "1", "--nosync", "--alloc", "anywhere")
	d.create("base", 24)
	d.write("base", makeExt4(t, 24))
	d.lvm("lvcreate", "-an", "-s", "-L", "12m", "-n", "shot", "vg/base")
	r := scan(t, d.path)
	if r.Kind != KindUsed || !strings.Contains(r.Warning, "LV vg/striped") || !strings.Contains(r.Warning, "LV vg/base") || strings.Contains(r.Warning, "vg/root") {
		t.Errorf("%q %q", r.Kind, r.Warning)
	}
	whole := d.parts("base")
	for _, name := range []string{"striped_rimage_0", "striped_rimage_1", "striped_rmeta_0", "shot"} {
		whole = append(whole, d.parts(name)...)
	}
	for _, e := range whole {
		if !slices.ContainsFunc(r.Used, func(u images.Extent) bool { return u.Intersect(e) == e }) {
			t.Errorf("%v is not in %v", e, r.Used)
		}
	}
	if used, bound := images.TotalLength(r.Used), images.TotalLength(whole)+20<<20; used > bound {
		t.Errorf("used %d bytes, more than %d", used, bound)
	}
	f, length := open(t, d.path)
	if _, err := Scan(f, length, Options{RefuseOpaque: true}); !errors.Is(err, ErrOpaque) {
		t.Errorf("error %v, want ErrOpaque", err)
	}
}

func TestLVMThatIsNotSureIsCopiedInFull(t *testing.T) {
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
	d := newLVM(t, 100<<20, 1, "--metadatasize", "60k", "--dataalignment", "64k")
	for i := range 60 {
		d.create(fmt.Sprint("volume", i), 4)
		if i > 0 {
			d.lvm("lvremove", "-y", fmt.Sprint("vg/volume", i-1))
		}
		if r := mapped(t, d.path, "lvm"); len(r.Used) == 0 {
			t.Fatal("nothing is in use")
		}
	}
}
