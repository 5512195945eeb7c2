package job

import (
	"fmt"
	"slices"
)

// Verify is how much of a disk is read back before it counts as right.
type Verify string

const (
	VerifyFull   Verify = "full"   // every tile, against the image's roots; also if empty
	VerifySample Verify = "sample" // one piece in sixteen at random, the first and the last
	VerifyNone   Verify = "none"   // nothing: the receipt and every view say "unverified"
)

// Free is what becomes of the space that no file uses.
type Free string

const (
	FreeKeep    Free = "keep"    // stays as it is; also if empty
	FreeDiscard Free = "discard" // is given back to the disk (TRIM, UNMAP), after success only
	FreeZero    Free = "zero"    // is written with zeros
)

// Options are how a deployment writes a disk.
type Options struct {
	// Disk is the serial number or WWN of the only disk that may be written, for a deployment to one machine; "" is the machine's only
	// one that fits.
	Disk string `json:"disk,omitempty"`
	// Keep are the numbers of the image's partitions that are not written: the disk has each of them already, at the same place,
	// and it stays as it is.
	Keep   []int  `json:"keep,omitempty"`
	Verify Verify `json:"verify,omitempty"`
	Free   Free   `json:"free,omitempty"`
}

// maxSerial bounds the serial number of a disk, in bytes: ATA has 20, NVMe 20, SCSI's page 80h 252.
const maxSerial = 252

// Check completes the options, or says what is wrong with them.
func (o *Options) Check() error {
	if o.Verify == "" {
		o.Verify = VerifyFull
	}
	if o.Free == "" {
		o.Free = FreeKeep
	}
	if o.Verify != VerifyFull && o.Verify != VerifySample && o.Verify != VerifyNone {
		return fmt.Errorf("a disk is verified full, by sample or none, not %q", o.Verify)
	}
	if o.Free != FreeKeep && o.Free != FreeDiscard && o.Free != FreeZero {
		return fmt.Errorf("free space is kept, discarded or zeroed (keep, discard, zero), not %q", o.Free)
	}
	if len(o.Disk) > maxSerial {
		return fmt.Errorf("the serial number of a disk has %d characters at most", maxSerial)
	}
	slices.Sort(o.Keep)
	o.Keep = slices.Compact(o.Keep)
	return nil
}
