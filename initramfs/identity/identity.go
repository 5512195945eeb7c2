// Package identity reads what a machine says of itself: SMBIOS, firmware, Secure Boot, memory, processors.
package identity

import (
	"bufio"
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"seedbed/appliance/job"
)

// Read returns the inventory without disks and NICs. What a machine does not tell stays empty. root is "/", or the root
// of a tree made for a test.
func Read(root string) job.Inventory {
	dmi := func(name string) string {
		b, err := os.ReadFile(filepath.Join(root, "sys/class/dmi/id", name))
		if err != nil {
			return ""
		}
		return strings.TrimSpace(string(b))
	}
	inv := job.Inventory{
		UUID: dmi("product_uuid"), Manufacturer: dmi("sys_vendor"), Product: dmi("product_name"), Serial: dmi("product_serial"),
		Firmware: "bios", MemoryBytes: memory(root), Cores: cores(root),
	}
	inv.Controllers, inv.NoDriver = pci(root)
	if _, err := os.Stat(filepath.Join(root, "sys/firmware/efi")); err == nil {
		inv.Firmware = "uefi"
		inv.SecureBoot = secureBoot(filepath.Join(root, "sys/firmware/efi/efivars"))
		inv.SecureBootDB = secureBootDB(filepath.Join(root, "sys/firmware/efi/efivars"))
	}
	return inv
}

// secureBootVariable is UEFI 2.10 §3.3, "SecureBoot": one byte, 1 while the firmware checks signatures.
const secureBootVariable = "SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"

// secureBoot returns "on", "off", or "" if the firmware's variables cannot be read. Firmware that has variables and not
// this one cannot check signatures (OVMF without Secure Boot).
func secureBoot(dir string) string {
	b, err := os.ReadFile(filepath.Join(dir, secureBootVariable))
	if errors.Is(err, fs.ErrNotExist) {
		if others, err := os.ReadDir(dir); err == nil && len(others) > 0 {
			return "off"
		}
	}
	const attributes = 4 // bytes before the variable's own (Linux, filesystems/efivarfs.rst)
	if err != nil || len(b) != attributes+1 {
		return ""
	}
	if b[attributes] == 1 {
		return "on"
	}
	return "off"
}

// memory returns MemTotal in bytes.
func memory(root string) int64 { return meminfo(root, "MemTotal:") }

// MemoryAvailable returns the bytes of memory that programs can take without anything being swapped out or lost, 0 if that
// is not known. root is "/", or the root of a copy of proc.
func MemoryAvailable(root string) int64 { return meminfo(root, "MemAvailable:") }

// meminfo returns a value of /proc/meminfo (proc(5)) in bytes.
func meminfo(root, name string) int64 {
	b, err := os.ReadFile(filepath.Join(root, "proc/meminfo"))
	if err != nil {
		return 0
	}
	for s := bufio.NewScanner(bytes.NewReader(b)); s.Scan(); {
		f := strings.Fields(s.Text())
		if len(f) == 3 && f[0] == name {
			kib, err := strconv.ParseInt(f[1], 10, 64)
			if err != nil {
				return 0
			}
			return kib << 10
		}
	}
	return 0
}

// cores counts the processors of /proc/cpuinfo.
func cores(root string) (n int) {
	b, err := os.ReadFile(filepath.Join(root, "proc/cpuinfo"))
	if err != nil {
		return 0
	}
	for s := bufio.NewScanner(bytes.NewReader(b)); s.Scan(); {
		if strings.HasPrefix(s.Text(), "processor") {
			n++
		}
	}
	return n
}
