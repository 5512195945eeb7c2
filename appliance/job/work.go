package job

import "fmt"

// Kinds of job that belong to no deployment.
const (
	VerifyDisk Kind = "verify" // the disk is read and compared with an image; nothing is written
	RepairDisk Kind = "repair" // what differs from an image is fetched and written, nothing else
	WipeDisk   Kind = "wipe"   // everything on the disk is made unreadable
)

// Writes reports whether a job of this kind changes the disk.
func (k Kind) Writes() bool { return k == Deploy || k == RepairDisk || k == WipeDisk }

// Swarms reports whether machines with a job of this kind take part in the swarm of its image.
func (k Kind) Swarms() bool { return k == Deploy || k == RepairDisk }

// OfImage reports whether a job of this kind is about an image that there is: its machine may read what describes it.
func (k Kind) OfImage() bool { return k == Deploy || k == RepairDisk || k == VerifyDisk }

// WipeMethod is how a disk is wiped. Whatever it is, samples are read afterwards, and where one of them is not zero, or the
// disk cannot do what was asked, zeros are written.
type WipeMethod string

const (
	WipeZero    WipeMethod = "zero"    // zeros everywhere; also if empty
	WipeDiscard WipeMethod = "discard" // everything is given back to the disk (TRIM, UNMAP)
	WipeSecure  WipeMethod = "secure"  // the disk erases its copies of the data too (BLKSECDISCARD)
)

// Check completes the method, or says that there is none of that name.
func (m *WipeMethod) Check() error {
	switch *m {
	case "":
		*m = WipeZero
	case WipeZero, WipeDiscard, WipeSecure:
	default:
		return fmt.Errorf("a disk is wiped by zeros, a discard or a secure discard (zero, discard, secure), not %q", *m)
	}
	return nil
}

// Phases of jobs that belong to no deployment, and of free space.
const (
	PhaseWipe Phase = "wipe" // everything on the disk is made zero
	PhaseFree Phase = "free" // free space is made zero, or given back to the disk
)

// CodeDamaged is why a verify failed that found a disk to be other than the image.
const CodeDamaged = "damaged"

// Finding is what a verify found, or what a repair has put right.
type Finding struct {
	// Table says that the partition table, or what else lies outside the partitions, differed.
	Table bool `json:"table,omitempty"`
	// Damage is of each partition in which something differed.
	Damage []Damage `json:"damage,omitempty"`
}

// Damage is what differs in a partition.
type Damage struct {
	Partition int   `json:"partition"` // number
	Tiles     int64 `json:"tiles"`     // of 64 KiB
	Bytes     int64 `json:"bytes"`     // in those tiles
	Of        int64 `json:"of"`        // tiles of the partition that are in use
}

// IsClean reports whether nothing differed.
func (f *Finding) IsClean() bool { return f == nil || !f.Table && len(f.Damage) == 0 }

// Sum returns all tiles and bytes that differed.
func (f *Finding) Sum() (tiles, bytes int64) {
	if f == nil {
		return 0, 0
	}
	for _, d := range f.Damage {
		tiles, bytes = tiles+d.Tiles, bytes+d.Bytes
	}
	return tiles, bytes
}

// Unproven is a partition of which not everything was read back.
type Unproven struct {
	Number int   `json:"number"`
	Proven int64 `json:"proven"` // bytes of its data that were read from the disk and right
	Total  int64 `json:"total"`  // bytes of its data
}

// Wiped is what a wipe did.
type Wiped struct {
	Asked WipeMethod `json:"asked"`
	Done  WipeMethod `json:"done"`
	// Why is a sentence where Done is not what was asked.
	Why string `json:"why,omitempty"`
	// Samples are the places that were read afterwards, past the page cache, and were zero; Bytes their length together.
	Samples int   `json:"samples"`
	Bytes   int64 `json:"bytes"`
}
