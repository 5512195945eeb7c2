package api

import (
	"context"
	"encoding/json"
	"time"

	"seedbed/appliance/job"
	"seedbed/images"
	"seedbed/images/capture"
)

// ImageOrder asks for an image of a disk.
type ImageOrder struct {
	// Path is absolute: of a disk, a raw file, its first volume, or a virtual machine's disk.
	Path    string `json:"path"`
	Name    string `json:"name"`
	Version string `json:"version,omitempty"` // empty is the next whole number
	// Compress is "zstd" (also if empty), "lz4" or "none"; a level may follow: "zstd:3".
	Compress string `json:"compress,omitempty"`
	// SectorLength is the logical sector of a disk file in bytes; 0 is what its table says, else 512.
	SectorLength int `json:"sector_length,omitempty"`
	// PieceLength is a power of two in bytes; 0 follows from the size.
	PieceLength int64 `json:"piece_length,omitempty"`
	// Partitions are the numbers of those to capture; none is all.
	Partitions []int `json:"partitions,omitempty"`
	// Full copies file systems whole that cannot be mapped safely (dirty, hibernated): all, or those of FullPartitions.
	Full           bool  `json:"full,omitempty"`
	FullPartitions []int `json:"full_partitions,omitempty"`
	// KeepContents keeps page files, hibernation files and swap space.
	KeepContents bool `json:"keep_contents,omitempty"`
	// RefuseEncrypted refuses what can only be copied in full: encrypted partitions, file systems without a map.
	RefuseEncrypted bool `json:"refuse_encrypted,omitempty"`
	// TrustSource takes the content of an earlier image of the same file, if that has not changed since, without reading it.
	TrustSource bool `json:"trust_source,omitempty"`
	// Live takes a disk that is mounted for writing as it is.
	Live bool `json:"live,omitempty"`
}

// Added says what was done for a new image.
type Added struct {
	Format string `json:"format"` // of the source: "disk", "raw", "volumes", "qcow2", ...
	// SourceRead is false where the content of an earlier image was taken over, as asked; From then names it.
	SourceRead bool   `json:"source_read"`
	From       string `json:"from,omitempty"`
	// UsedLength are bytes in use, DataLength and ZeroLength those of tiles with content and of tiles that are zero.
	UsedLength int64 `json:"used_length"`
	DataLength int64 `json:"data_length"`
	ZeroLength int64 `json:"zero_length"`
	// NewTiles were not in the repository, and take NewLength bytes there.
	NewTiles  int64             `json:"new_tiles"`
	NewLength int64             `json:"new_length"`
	Dropped   []capture.Dropped `json:"dropped,omitempty"`
}

// ImageListing is one version of an image.
type ImageListing struct {
	Name       string        `json:"name"`
	Version    string        `json:"version"`
	Digest     images.Digest `json:"digest"`
	Problem    string        `json:"problem,omitempty"`
	Created    time.Time     `json:"created,omitzero"`
	DiskLength int64         `json:"disk_length"` // bytes
	UsedLength int64         `json:"used_length"` // bytes
	// EncodedLength are the encoded bytes of the distinct data tiles, shared with other images or not.
	EncodedLength int64 `json:"encoded_length"`
	Partitions    int   `json:"partitions"`
	// Open is set where stock BitTorrent clients may have the image.
	Open *OpenState `json:"open,omitempty"`
}

// ImageDetail is everything about an image but its content.
type ImageDetail struct {
	Digest   images.Digest    `json:"digest"`
	InfoHash images.InfoHash  `json:"info_hash"`
	Signed   bool             `json:"signed"` // by this site's key
	Manifest *images.Manifest `json:"manifest"`
	// EncodedLength are the encoded bytes of the distinct data tiles: one image of traffic.
	EncodedLength int64 `json:"encoded_length"`
	// Warnings are sentences from the capture.
	Warnings []string `json:"warnings,omitempty"`
	// Open is set where stock BitTorrent clients may have the image.
	Open *OpenState `json:"open,omitempty"`
	// Added is set in the answer to the order for the image.
	Added *Added `json:"added,omitempty"`
}

// Progress says how far a long operation is, in bytes.
type Progress struct {
	Done  int64 `json:"done"`
	Total int64 `json:"total"`
}

// Images are the operations on images. Safe for concurrent use; progress may be nil, is called often, one call at a time.
type Images interface {
	Disks
	Upkeep
	Opening
	List(ctx context.Context) ([]ImageListing, error)
	Show(ctx context.Context, ref string) (*ImageDetail, error)
	Add(ctx context.Context, o ImageOrder, progress func(Progress)) (*ImageDetail, error)
}

// Line is one line of the answer to a long operation: progress, and at last either a problem or the end.
type Line struct {
	Progress *Progress    `json:"progress,omitempty"`
	Problem  *job.Problem `json:"problem,omitempty"`
	// Result is what the operation returned, if it returns something. It comes with End.
	Result json.RawMessage `json:"result,omitempty"`
	End    bool            `json:"end,omitempty"`
}
