package disk

import (
	"slices"

	"seedbed/appliance/job"
)

// What is asked of disks and why none was chosen: package job has it, since the appliance says before what a machine will do.
type (
	Need    = job.DiskNeed
	Refusal = job.DiskRefusal
)

// Codes of refusals.
const (
	CodeNoDisk     = job.CodeNoDisk
	CodeTooSmall   = job.CodeTooSmall
	CodeAmbiguous  = job.CodeAmbiguousDisk
	CodeSectorSize = job.CodeSectorSize
)

// Choose returns the disk that the job writes, see job.ChooseDisk.
func Choose(disks []Disk, need Need) (Disk, *Refusal) {
	return chosen(disks, func(told []job.Disk) (job.Disk, *Refusal) { return job.ChooseDisk(told, need) })
}

// ChooseWipe returns the disk to wipe, see job.ChooseWipe.
func ChooseWipe(disks []Disk, serial string) (Disk, *Refusal) {
	return chosen(disks, func(told []job.Disk) (job.Disk, *Refusal) { return job.ChooseWipe(told, serial) })
}

// ChooseSource returns the disk to capture, see job.ChooseSource.
func ChooseSource(disks []Disk, serial string) (Disk, *Refusal) {
	return chosen(disks, func(told []job.Disk) (job.Disk, *Refusal) { return job.ChooseSource(told, serial) })
}

// chosen returns the disk that choose takes of what the appliance is told of the disks.
func chosen(disks []Disk, choose func([]job.Disk) (job.Disk, *Refusal)) (Disk, *Refusal) {
	told := make([]job.Disk, len(disks))
	for i, d := range disks {
		told[i] = d.Disk
	}
	found, refusal := choose(told)
	if refusal != nil {
		return Disk{}, refusal
	}
	return disks[slices.IndexFunc(disks, func(d Disk) bool { return d.Name == found.Name })], nil // the kernel gives no name twice
}

// Describe returns a disk for people: "vda (virtio, serial SN1, 1073741824 bytes, 1.1 GB)".
func Describe(d Disk) string { return job.DescribeDisk(d.Disk) }

// Size returns a byte count for people, in decimal units as on a disk's label: "256.1 GB".
func Size(n int64) string { return job.Size(n) }
