package job

import (
	"fmt"
	"math/bits"
	"slices"
	"strconv"
	"strings"
	"time"

	"seedbed/images"
	"seedbed/images/intake"
	"seedbed/images/tile"
)

// Capture is the kind of job that makes an image of a machine's disk. Nothing is written to the disk.
const Capture Kind = "capture"

// Paths of a capture, for the machine whose claimed job it is. Encodings are those of package images/intake. The order:
// one CaptureBegin, then have and tiles as often as needed, at last commit. After a 404 with CodeCaptureExpired the agent
// begins again and is told by have what arrived.
const (
	PathCaptures      = "/agent/v1/captures" // POST CaptureBegin -> CaptureSession
	PathCaptureHave   = "/have"              // POST PathCaptures/ID/have: keys -> bits; what is there is kept until commit or expiry
	PathCaptureTiles  = "/tiles"             // POST PathCaptures/ID/tiles: tiles -> 204 when checked and durable
	PathCaptureCommit = "/commit"            // POST PathCaptures/ID/commit: Spec (CBOR) -> intake.Published
	// DELETE PathCaptures/ID gives up a capture: 204.
)

// Phases of a capture, after PhaseCheck and before PhaseReboot.
const (
	PhaseMap    Phase = "map"    // partition table and file systems
	PhaseRead   Phase = "read"   // read, hash, compress, send what the repository lacks
	PhaseCommit Phase = "commit" // the appliance computes the roots, signs and publishes
)

// Codes of problems that an agent treats in a way of its own.
const (
	// CodeCaptureExpired says that the appliance knows no such capture (any more): begin again.
	CodeCaptureExpired = "capture-expired"
	// CodeTilesMissing says that a commit names tiles that are not there: read the disk again.
	CodeTilesMissing = "tiles-missing"
	// CodeRepositoryFull says that there is no room; the detail has the figures.
	CodeRepositoryFull = "repository-full"
)

// CaptureOrder says what a capture makes. The zero value of everything but Name is usable.
type CaptureOrder struct {
	// Name and Version of the image: 1-64 of a-z 0-9 . _ -
	Name    string `json:"name"`
	Version string `json:"version"`
	// Compress is "zstd" (also if empty), "zstd:N" with N of 1-22, "lz4" or "none".
	Compress string `json:"compress,omitempty"`
	// KeepContents keeps the contents of page files, hibernation files and swap space.
	KeepContents bool `json:"keep_contents,omitempty"`
	// Full copies whole what would be refused: file systems that are dirty, hibernated or have unknown features.
	Full bool `json:"full,omitempty"`
	// RefuseOpaque refuses what can only be copied in full: encrypted partitions and file systems without a map.
	RefuseOpaque bool `json:"refuse_opaque,omitempty"`
	// Partitions are the numbers of those to capture, ascending; empty means all.
	Partitions []int `json:"partitions,omitempty"`
	// PieceLength of the image in bytes, a power of two; 0 means as the length of the data asks for.
	PieceLength int64 `json:"piece_length,omitempty"`
}

// maxPartitionNumber is the highest number of a partition in an image.
const maxPartitionNumber = 9999

// Check returns an error, as a sentence for people, unless the order can be carried out. Version may be empty.
func (o *CaptureOrder) Check() error {
	if !images.ValidName(o.Name) || o.Version != "" && !images.ValidName(o.Version) {
		return fmt.Errorf("image name %.80q and version %.80q must be 1-64 of a-z 0-9 . _ -", o.Name, o.Version)
	}
	if _, _, err := o.Codec(); err != nil {
		return err
	}
	for i, n := range o.Partitions {
		if n < 0 || n > maxPartitionNumber || i > 0 && n <= o.Partitions[i-1] {
			return fmt.Errorf("partition numbers must ascend from 0 to %d: %v", maxPartitionNumber, o.Partitions)
		}
	}
	if n := o.PieceLength; n != 0 && (n < images.MinPieceLength || n > images.MaxPieceLength || bits.OnesCount64(uint64(n)) != 1) {
		return fmt.Errorf("a piece of %d bytes: it must be a power of two from %d to %d", n, images.MinPieceLength, images.MaxPieceLength)
	}
	return nil
}

// Codec returns what Compress names; level 0 is the codec's fastest.
func (o *CaptureOrder) Codec() (codec tile.Codec, level int, err error) {
	name, number, leveled := strings.Cut(o.Compress, ":")
	if o.Compress == "" {
		name = tile.Zstd.String()
	}
	if codec, err = tile.ParseCodec(name); err != nil || !leveled {
		return codec, 0, err
	}
	level, err = strconv.Atoi(number)
	if most := map[tile.Codec]int{tile.Zstd: 22, tile.LZ4: 9}[codec]; err != nil || level < 1 || level > most {
		return 0, 0, fmt.Errorf("compression %.20q: the level of zstd is 1-22, of lz4 1-9, and none has no level", o.Compress)
	}
	return codec, level, nil
}

// Clone returns a copy that shares nothing.
func (o *CaptureOrder) Clone() *CaptureOrder {
	own := *o
	own.Partitions = slices.Clone(o.Partitions)
	return &own
}

// CaptureBegin begins the capture of a claimed job, or begins it again.
type CaptureBegin struct {
	Job   string `json:"job"`
	Epoch int64  `json:"epoch"`
}

// CaptureSession answers CaptureBegin.
type CaptureSession struct {
	ID string `json:"id"`
	// Expires is after how long without a request the capture is forgotten.
	Expires time.Duration `json:"expires"`
	// Published is set where the job has made its image already: the answer to its commit was lost.
	Published *intake.Published `json:"published,omitempty"`
}
