package disk

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// EDD is one disk as the BIOS counts them (BIOS Enhanced Disk Drive Services; Linux, drivers/firmware/edd.c).
type EDD struct {
	Drive   int    // INT 13h number, 0x80 and up
	Sectors int64  // of 512 bytes; 0 if the BIOS does not say
	PCI     string // address of the controller, "0000:00:1f.2"; "" if the BIOS does not say
	// Signature is the disk signature in LBA 0 (UEFI §5.2.1, "UniqueMBRSignature") when the kernel was started.
	Signature uint32
}

// ReadEDD returns what the module edd read from the BIOS, nothing on UEFI. root as in List.
func ReadEDD(root string) (list []EDD) {
	dirs, err := filepath.Glob(filepath.Join(root, "sys/firmware/edd/int13_dev*"))
	if err != nil {
		return nil
	}
	for _, dir := range dirs {
		drive, err := strconv.ParseInt(strings.TrimPrefix(filepath.Base(dir), "int13_dev"), 16, 32)
		if err != nil {
			continue
		}
		e := EDD{Drive: int(drive), Sectors: readInt(dir, "sectors"), Signature: uint32(readInt(dir, "mbr_signature"))}
		if link, err := os.Readlink(filepath.Join(dir, "pci_dev")); err == nil {
			e.PCI = filepath.Base(link)
		}
		list = append(list, e)
	}
	return list
}

// Signature returns the disk signature in LBA 0.
func Signature(lba0 []byte) uint32 {
	if len(lba0) < 512 {
		return 0
	}
	return binary.LittleEndian.Uint32(lba0[440:])
}

// NumberDrives sets BIOSDrive of each disk that exactly one drive of the BIOS can be: same controller, same length and
// same disk signature, as far as each is known. signatures holds the disks' signatures by name, read before anything was
// written. What stays ambiguous stays 0.
func NumberDrives(disks []Disk, edd []EDD, signatures map[string]uint32) {
	taken := map[int]bool{}
	for changed := true; changed; {
		changed = false
		for _, e := range edd {
			if taken[e.Drive] {
				continue
			}
			match, count := 0, 0
			for i := range disks {
				if disks[i].BIOSDrive == 0 && e.matches(&disks[i], signatures) {
					match = i
					count++
				}
			}
			if count == 1 {
				disks[match].BIOSDrive, taken[e.Drive], changed = e.Drive, true, true
			}
		}
	}
}

func (e EDD) matches(d *Disk, signatures map[string]uint32) bool {
	if e.PCI != "" && !strings.Contains(d.SysPath, "/"+e.PCI+"/") {
		return false
	}
	if e.Sectors != 0 && e.Sectors != d.Length/512 && e.Sectors != d.Length/int64(max(d.SectorLength, 512)) {
		return false
	}
	if sig, known := signatures[d.Name]; known && e.Signature != 0 && sig != e.Signature {
		return false
	}
	return true
}
