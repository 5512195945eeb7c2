package disk

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"seedbed/appliance/job"
)

// Disk is one disk with what the kernel knows of where it hangs.
type Disk struct {
	job.Disk
	// SysPath is the device's folder below /sys/devices, all links resolved.
	SysPath string
	// Sequence is the kernel's number of this disk, which no other has had since the kernel started (sysfs, diskseq): a
	// name may come to mean another disk. 0 if the kernel does not tell.
	Sequence int64
}

// notDisks are block devices that never hold a system: made by the kernel itself, optical, floppies, boot areas of eMMC.
var notDisks = regexp.MustCompile(`^(loop|ram|zram|sr|fd|dm-|md|nbd|mmcblk\d+(boot|rpmb|gp))`)

// List returns the disks of the machine as sysfs shows them, sorted by name. root is "/", or the root of a tree made for
// a test. Devices without a medium are left out.
func List(root string) ([]Disk, error) {
	dir := filepath.Join(root, "sys/block")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var disks []Disk
	for _, e := range entries {
		name := e.Name()
		if notDisks.MatchString(name) || readInt(dir, name, "hidden") == 1 {
			continue
		}
		path, err := filepath.EvalSymlinks(filepath.Join(dir, name))
		if err != nil {
			continue // it was pulled meanwhile
		}
		d := Disk{SysPath: path, Sequence: readInt(path, "diskseq")}
		d.Name = name
		d.Length = readInt(path, "size") * 512 // sysfs counts in 512 bytes whatever the disk's sector
		d.SectorLength = int(readInt(path, "queue/logical_block_size"))
		// The kernel calls a reader with a slot removable, but not the SD card in a slot of the machine's own.
		d.Removable = readInt(path, "removable") == 1 || strings.HasPrefix(firstText(path, "device/type"), "SD")
		d.ReadOnly = readInt(path, "ro") == 1
		d.Rotational = readInt(path, "queue/rotational") == 1
		d.Bus = busOf(path)
		d.Model = firstText(path, "device/model", "device/name")
		d.Serial = serialOf(path)
		d.WWN = firstText(path, "wwid", "device/wwid")
		if d.Length > 0 {
			disks = append(disks, d)
		}
	}
	slices.SortFunc(disks, func(a, b Disk) int { return strings.Compare(a.Name, b.Name) })
	return disks, nil
}

// buses are looked for in a device's path, in this order: a USB disk hangs on a SCSI host, too.
var buses = []struct {
	part *regexp.Regexp
	bus  string
}{
	{regexp.MustCompile(`/usb\d+/`), "usb"},
	{regexp.MustCompile(`/nvme\d+/`), "nvme"},
	{regexp.MustCompile(`/mmc_host/`), "mmc"},
	{regexp.MustCompile(`/ata\d+/`), "sata"},
	{regexp.MustCompile(`/host\d+/`), "scsi"},
	{regexp.MustCompile(`/virtio\d+/`), "virtio"},
	{regexp.MustCompile(`/vmbus|VMBUS`), "hyperv"},
}

func busOf(path string) string {
	for _, b := range buses {
		if b.part.MatchString(path) {
			return b.bus
		}
	}
	return "other"
}

// serialOf returns a disk's serial number: a file for virtio, NVMe and eMMC, the page "unit serial number" for SCSI and
// SATA (SPC-4 §7.8.15: four bytes of header, then text).
func serialOf(path string) string {
	if s := firstText(path, "serial", "device/serial"); s != "" {
		return s
	}
	if b, err := os.ReadFile(filepath.Join(path, "device/vpd_pg80")); err == nil && len(b) > 4 {
		return strings.TrimSpace(strings.TrimRight(string(b[4:]), "\x00"))
	}
	// A USB disk's serial is that of the USB device above it.
	for dir := path; strings.Contains(dir, "/usb"); dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "idVendor")); err == nil {
			return firstText(dir, "serial")
		}
	}
	return ""
}

// firstText returns the trimmed content of the first file that has any.
func firstText(dir string, names ...string) string {
	for _, name := range names {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			continue
		}
		if s := strings.TrimSpace(strings.Trim(string(b), "\x00\n ")); s != "" {
			return s
		}
	}
	return ""
}

// readInt returns the number in a file, 0 where there is none.
func readInt(parts ...string) int64 {
	b, err := os.ReadFile(filepath.Join(parts...))
	if err != nil {
		return 0
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 0, 64)
	if err != nil {
		return 0
	}
	return n
}
