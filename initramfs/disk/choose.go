package disk

import (
	"fmt"
	"strings"
)

// Need is what a job asks of the disk that it writes.
type Need struct {
	Image        string // "debian-lab:1", for people
	Serial       string // the only disk that may be written, "" for any
	SectorLength int    // bytes: the image's tables and file systems are made for it
	Length       int64  // bytes: the least that holds the image and its table
}

// Codes of refusals.
const (
	CodeNoDisk     = "no-disk"
	CodeTooSmall   = "too-small"
	CodeAmbiguous  = "ambiguous-disk"
	CodeSectorSize = "sector-size"
)

// Refusal says why no disk was chosen. Nothing was written.
type Refusal struct {
	Code     string
	Sentence string // what happened, to what, what to do
	// Wait says that another disk would do: the job is paused until there is one. Without it the job has failed.
	Wait bool
}

func (r *Refusal) Error() string { return r.Sentence }

// Choose returns the disk that the job writes. A removable, read-only or USB disk is never chosen, nor one of several
// that would do.
func Choose(disks []Disk, need Need) (Disk, *Refusal) {
	var fixed, fit, small, otherSector []Disk
	for _, d := range disks {
		switch {
		case d.Removable || d.ReadOnly || d.Bus == "usb":
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
		return Disk{}, &Refusal{Code: CodeAmbiguous, Sentence: fmt.Sprintf("%d disks would do for image %s: %s. Nothing was "+
			"written. Deploy again and name the disk's serial number, or take the other disks out.", len(fit), need.Image, names(fit))}
	case len(fixed) == 0 && need.Serial != "":
		return Disk{}, &Refusal{Code: CodeNoDisk, Wait: true, Sentence: fmt.Sprintf("no fixed disk here has the serial number %s, "+
			"which the job names; there is: %s. Nothing was written. Put that disk in, or deploy again with another serial number.",
			need.Serial, names(disks))}
	case len(fixed) == 0:
		return Disk{}, &Refusal{Code: CodeNoDisk, Wait: true, Sentence: fmt.Sprintf("no fixed disk was found for image %s; there is: "+
			"%s. Check the disk's cable, and set the storage controller to AHCI or NVMe in the firmware if it is set to RAID.",
			need.Image, names(disks))}
	case len(otherSector) > 0:
		return Disk{}, &Refusal{Code: CodeSectorSize, Wait: true, Sentence: fmt.Sprintf("image %s is made for disks with sectors of "+
			"%d bytes, and the sectors of %s are of %d bytes. Nothing was written. Put in a disk with sectors of %d bytes, or "+
			"capture an image from a disk of this kind.", need.Image, need.SectorLength, names(otherSector),
			otherSector[0].SectorLength, need.SectorLength)}
	}
	return Disk{}, &Refusal{Code: CodeTooSmall, Wait: true, Sentence: fmt.Sprintf("image %s needs a disk of %d bytes (%s), and there "+
		"is %s. Nothing was written. Put in a larger disk: the job goes on by itself.", need.Image, need.Length, Size(need.Length),
		names(small))}
}

// names lists disks for people.
func names(disks []Disk) string {
	if len(disks) == 0 {
		return "no disk at all"
	}
	var out []string
	for _, d := range disks {
		out = append(out, Describe(d))
	}
	return strings.Join(out, "; ")
}

// Describe returns a disk for people: "vda (virtio, serial SN1, 1073741824 bytes, 1.1 GB)".
func Describe(d Disk) string {
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
