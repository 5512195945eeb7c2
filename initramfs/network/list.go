package network

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"seedbed/appliance/job"
)

// List returns the machine's network cards as sysfs shows them, sorted by name, with the addresses of leases. root is
// "/", or the root of a tree made for a test.
func List(root string, leases []Lease) []job.NIC {
	dir := filepath.Join(root, "sys/class/net")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var nics []job.NIC
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if read(path, "type") != "1" || e.Name() == "lo" { // 1 is Ethernet (linux/if_arp.h)
			continue
		}
		if _, err := os.Stat(filepath.Join(path, "device")); err != nil {
			continue // made by software
		}
		n := job.NIC{Name: e.Name(), MAC: read(path, "address")}
		if link, err := os.Readlink(filepath.Join(path, "device/driver")); err == nil {
			n.Driver = filepath.Base(link)
		}
		if speed, err := strconv.Atoi(read(path, "speed")); err == nil && speed > 0 {
			n.Mbit = speed
		}
		for _, l := range leases {
			if l.NIC == n.Name {
				n.Addr = l.Prefix.Addr().String()
			}
		}
		nics = append(nics, n)
	}
	slices.SortFunc(nics, func(a, b job.NIC) int { return strings.Compare(a.Name, b.Name) })
	return nics
}

// Unbound returns the PCI devices of class "network controller" (PCI Code and ID Assignment §1.3) that no driver took:
// "8086:15f3 at 0000:02:00.0".
func Unbound(root string) (list []string) {
	dirs, err := filepath.Glob(filepath.Join(root, "sys/bus/pci/devices/*"))
	if err != nil {
		return nil
	}
	for _, dir := range dirs {
		if !strings.HasPrefix(read(dir, "class"), "0x02") {
			continue
		}
		if _, err := os.Lstat(filepath.Join(dir, "driver")); err == nil {
			continue
		}
		list = append(list, fmt.Sprintf("%s:%s at %s", strings.TrimPrefix(read(dir, "vendor"), "0x"),
			strings.TrimPrefix(read(dir, "device"), "0x"), filepath.Base(dir)))
	}
	return list
}

func read(dir, name string) string {
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
