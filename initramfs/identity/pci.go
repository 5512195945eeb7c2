package identity

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"seedbed/appliance/job"
)

// Classes of PCI devices (PCI Code and ID Assignment 1.15, §1), as sysfs shows their first digits.
const (
	classStorage = "01"
	classRAID    = "0104"
	classNetwork = "02"
)

// vmd are Intel's Volume Management Devices (Linux, drivers/pci/controller/vmd.c), which have the class of RAID controllers.
var vmd = map[string]bool{"8086:201d": true, "8086:28c0": true, "8086:467f": true, "8086:4c3d": true, "8086:a77f": true, "8086:7d0b": true,
	"8086:ad0b": true, "8086:9a0b": true, "8086:b60b": true, "8086:b06f": true}

// intel is the vendor whose RAID mode hides disks; RAID controllers of others are disks of their own.
const intel = "8086:"

// pci returns the storage controllers, and the network controllers that no driver took, as sysfs shows them.
func pci(root string) (controllers []job.Controller, noDriver []job.PCI) {
	dirs, err := filepath.Glob(filepath.Join(root, "sys/bus/pci/devices/*"))
	if err != nil {
		return nil, nil
	}
	for _, dir := range dirs { // sorted by slot
		read := func(name string) string {
			b, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil {
				return ""
			}
			return strings.TrimPrefix(strings.TrimSpace(string(b)), "0x")
		}
		class := read("class")
		if len(class) < 4 {
			continue
		}
		device := job.PCI{Slot: filepath.Base(dir), ID: read("vendor") + ":" + read("device")}
		driver := ""
		if link, err := os.Readlink(filepath.Join(dir, "driver")); err == nil {
			driver = filepath.Base(link)
		}
		switch {
		case strings.HasPrefix(class, classStorage):
			c := job.Controller{PCI: device, Class: class[:4], Driver: driver}
			c.Hidden, _ = strconv.Atoi(read("remapped_nvme")) // Documentation/ABI, sysfs-driver-ahci; most have none
			switch {
			case vmd[c.ID]:
				c.Mode = job.ModeVMD
			case c.Class == classRAID && strings.HasPrefix(c.ID, intel):
				c.Mode = job.ModeRAID
			}
			controllers = append(controllers, c)
		case strings.HasPrefix(class, classNetwork) && driver == "":
			noDriver = append(noDriver, device)
		}
	}
	return controllers, noDriver
}
