package job

import (
	"fmt"
	"strings"
)

// DiskNeed is what a job asks of the disk that it writes.
type DiskNeed struct {
	Image        string // "debian-lab:1", for people
	Serial       string // the only disk that may be written, "" for any
	SectorLength int    // bytes: the image's tables and file systems are made for it
	Length       int64  // bytes: the least that holds the image and its table
}

// Codes of refusals of disks.
const (
	CodeNoDisk        = "no-disk"
	CodeTooSmall      = "too-small"
	CodeAmbiguousDisk = "ambiguous-disk"
	CodeSectorSize    = "sector-size"
)

// DiskRefusal says why no disk was chosen. Nothing was written.
type DiskRefusal struct {
	Code     string
	Sentence string // what happened, to what, what to do
	// Wait says that another disk would do: the job is paused until there is one. Without it the job has failed.
	Wait bool
}

func (r *DiskRefusal) Error() string { return r.Sentence }

// ChooseDisk returns the disk that the job writes: the agent asks it of the disks that it sees, a dry run of those that the
// last inventory told. A removable, read-only or USB disk is never chosen, nor one of several that would do.
func ChooseDisk(disks []Disk, need DiskNeed) (Disk, *DiskRefusal) {
	var fixed, fit, small, otherSector []Disk
	for _, d := range disks {
		switch {
		case !d.IsFixed():
			continue
		case need.Serial != "" && d.Serial != need.Serial && d.WWN != need.Serial:
			continue
		}
		fixed = append(fixed, d)
		switch {
		case d.Length < need.Length:
			small = append(small, d)
		case d.SectorLength != need.SectorLength:
			otherSector = append(otherSector, d)
		default:
			fit = append(fit, d)
		}
	}
	switch {
	case len(fit) == 1:
		return fit[0], nil
	case len(fit) > 1:
		return Disk{}, &DiskRefusal{Code: CodeAmbiguousDisk, Sentence: fmt.Sprintf("%d disks would do for image %s: %s. Nothing was "+
			"written. Deploy again and name the disk's serial number, or take the other disks out.", len(fit), need.Image, diskNames(fit))}
	case len(fixed) == 0 && need.Serial != "":
		return Disk{}, &DiskRefusal{Code: CodeNoDisk, Wait: true, Sentence: fmt.Sprintf("no fixed disk here has the serial number %s, "+
			"which the job names; there is: %s. Nothing was written. Put that disk in, or deploy again with another serial number.",
			need.Serial, diskNames(disks))}
	case len(fixed) == 0:
		return Disk{}, &DiskRefusal{Code: CodeNoDisk, Wait: true, Sentence: fmt.Sprintf("no fixed disk was found for image %s; there is: "+
			"%s. Check the disk's cable, and set the storage controller to AHCI or NVMe in the firmware if it is set to RAID.",
			need.Image, diskNames(disks))}
	case len(otherSector) > 0:
		return Disk{}, &DiskRefusal{Code: CodeSectorSize, Wait: true, Sentence: fmt.Sprintf("image %s is made for disks with sectors of "+
			"%d bytes, and the sectors of %s are of %d bytes. Nothing was written. Put in a disk with sectors of %d bytes, or "+
			"capture an image from a disk of this kind.", need.Image, need.SectorLength, diskNames(otherSector),
			otherSector[0].SectorLength, need.SectorLength)}
	}
	return Disk{}, &DiskRefusal{Code: CodeTooSmall, Wait: true, Sentence: fmt.Sprintf("image %s needs a disk of %d bytes (%s), and there "+
		"is %s. Nothing was written. Put in a larger disk: the job goes on by itself.", need.Image, need.Length, Size(need.Length),
		diskNames(small))}
}

// IsFixed reports whether a disk may be written at all.
func (d *Disk) IsFixed() bool { return !d.Removable && !d.ReadOnly && d.Bus != "usb" }

// ChooseWipe returns the disk to wipe: the one with the serial number or WWN, or else the only fixed one. A removable, read-only
// or USB disk is never chosen, nor one of several: where it waited for the others to go, a cable that comes off would choose.
func ChooseWipe(disks []Disk, serial string) (Disk, *DiskRefusal) {
	var fixed []Disk
	for _, d := range disks {
		if d.IsFixed() && (serial == "" || d.Serial == serial || d.WWN == serial) {
			fixed = append(fixed, d)
		}
	}
	switch {
	case len(fixed) == 1:
		return fixed[0], nil
	case len(fixed) > 1:
		return Disk{}, &DiskRefusal{Code: CodeAmbiguousDisk, Sentence: fmt.Sprintf("%d disks could be wiped: %s. Nothing was written. Order "+
			"the wipe again and name the disk's serial number, or take the other disks out and order it again.", len(fixed), diskNames(fixed))}
	case serial != "":
		return Disk{}, &DiskRefusal{Code: CodeNoDisk, Wait: true, Sentence: fmt.Sprintf("no fixed disk here has the serial number %s, which the order "+
			"to wipe names; there is: %s. Nothing was written. Put that disk in, or order the wipe again with another serial number.",
			serial, diskNames(disks))}
	}
	return Disk{}, &DiskRefusal{Code: CodeNoDisk, Wait: true, Sentence: fmt.Sprintf("no fixed disk was found to be wiped; there is: %s. Check the "+
		"disk's cable, and set the storage controller to AHCI or NVMe in the firmware if it is set to RAID.", diskNames(disks))}
}

// ChooseSource returns the disk to capture: the one with the serial number, or else the only one that is neither
// removable nor on USB.
func ChooseSource(disks []Disk, serial string) (Disk, *DiskRefusal) {
	var fit []Disk
	for _, d := range disks {
		if serial != "" && (d.Serial == serial || d.WWN == serial) || serial == "" && !d.Removable && d.Bus != "usb" {
			fit = append(fit, d)
		}
	}
	switch {
	case len(fit) == 1:
		return fit[0], nil
	case len(fit) > 1:
		return Disk{}, &DiskRefusal{Code: CodeAmbiguousDisk, Sentence: fmt.Sprintf("%d disks could be captured: %s. Capture again and name the "+
			"disk's serial number with --disk, or take the other disks out.", len(fit), diskNames(fit))}
	case serial != "":
		return Disk{}, &DiskRefusal{Code: CodeNoDisk, Wait: true, Sentence: fmt.Sprintf("no disk here has the serial number %s, which the job "+
			"names; there is: %s. Put that disk in, or capture again with another serial number.", serial, diskNames(disks))}
	}
	return Disk{}, &DiskRefusal{Code: CodeNoDisk, Wait: true, Sentence: fmt.Sprintf("no fixed disk was found; there is: %s. Check the disk's "+
		"cable, and set the storage controller to AHCI or NVMe in the firmware if it is set to RAID.", diskNames(disks))}
}

// diskNames lists disks for people.
func diskNames(disks []Disk) string {
	if len(disks) == 0 {
		return "no disk at all"
	}
	var out []string
	for _, d := range disks {
		out = append(out, DescribeDisk(d))
	}
	return strings.Join(out, "; ")
}

// DescribeDisk returns a disk for people: "vda (virtio, serial SN1, 1073741824 bytes, 1.1 GB)".
func DescribeDisk(d Disk) string {
	facts := []string{d.Bus}
	if d.Model != "" {
		facts = append(facts, d.Model)
	}
	if d.Serial != "" {
		facts = append(facts, "serial "+d.Serial)
	}
	if d.Removable {
		facts = append(facts, "removable")
	}
	if d.ReadOnly {
		facts = append(facts, "read-only")
	}
	facts = append(facts, fmt.Sprintf("%d bytes, %s", d.Length, Size(d.Length)))
	return fmt.Sprintf("%s (%s)", d.Name, strings.Join(facts, ", "))
}

// Size returns a byte count for people, in decimal units as on a disk's label: "256.1 GB".
func Size(n int64) string {
	for _, u := range []struct {
		unit string
		size float64
	}{{"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}} {
		if float64(n) >= u.size {
			return fmt.Sprintf("%.1f %s", float64(n)/u.size, u.unit)
		}
	}
	return fmt.Sprintf("%d bytes", n)
}
