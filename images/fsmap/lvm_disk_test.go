//go:build linux

package fsmap

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
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
