package api

import (
	"context"
	"time"

	"seedbed/images"
)

// VerifyOrder asks to read and hash images in the repository.
type VerifyOrder struct {
	Image string `json:"image,omitempty"` // a reference; empty means all images
	// BytesPerSecond bounds what is read; 0 means as fast as it goes.
	BytesPerSecond int64 `json:"bytes_per_second,omitempty"`
	// Heal replaces damaged tiles by right ones from other packs, from HealFrom, and from machines that hold the image.
	Heal bool `json:"heal,omitempty"`
	// HealFrom is the absolute path of a disk, or of a file with one, that holds the image.
	HealFrom string `json:"heal_from,omitempty"`
}

// VerifyReport says what Verify found.
type VerifyReport struct {
	Images []VerifiedImage `json:"images"`
}

// VerifiedImage is one image of a VerifyReport.
type VerifiedImage struct {
	Image   string        `json:"image"` // "debian:1"
	Digest  images.Digest `json:"digest"`
	Checked int64         `json:"checked"` // bytes of tiles, decoded
	// Damage is what was damaged, at most MaxRanges; More is not listed.
	Damage []Damage `json:"damage"`
	More   int      `json:"more,omitempty"`
}

// Damage is content of an image that is missing or wrong.
type Damage struct {
	Partition int    `json:"partition"` // number; -1 if it is in none
	Offset    int64  `json:"offset"`    // bytes of the partition
	Length    int64  `json:"length"`
	Object    string `json:"object"` // key of the object
	Text      string `json:"text"`   // a sentence about all of this
	Healed    bool   `json:"healed,omitempty"`
}

// IsWhole reports whether nothing is damaged now.
func (r *VerifyReport) IsWhole() bool {
	for _, i := range r.Images {
		if !i.IsWhole() {
			return false
		}
	}
	return true
}

// IsWhole reports whether nothing of the image is damaged now.
func (i *VerifiedImage) IsWhole() bool {
	for _, d := range i.Damage {
		if !d.Healed {
			return false
		}
	}
	return i.More == 0
}

// PruneOrder asks to remove what no image uses.
type PruneOrder struct {
	DryRun bool `json:"dry_run,omitempty"`
	// Grace is how long what nothing uses stays after it was marked; 0 means the least that is safe.
	Grace time.Duration `json:"grace,omitempty"`
}

// Amount is a number of objects and their bytes.
type Amount struct {
	Objects int   `json:"objects"`
	Bytes   int64 `json:"bytes"`
}

// PruneReport says what was done, or would be.
type PruneReport struct {
	DryRun   bool   `json:"dry_run,omitempty"`
	Deleted  Amount `json:"deleted"`
	Marked   Amount `json:"marked"`   // now, to be deleted by a later prune
	Waiting  Amount `json:"waiting"`  // marked before
	Unmarked Amount `json:"unmarked"` // marked before, and used again
	Young    Amount `json:"young"`    // used by no image, and too young to be marked
	// Rewritten are bytes that were written into new packs, so that old ones can go and pieces lie together.
	Rewritten int64 `json:"rewritten"`
	// Next is when the first of Marked and Waiting can be deleted.
	Next time.Time `json:"next,omitzero"`
}

// ImageDiff says what a machine with one image must fetch for another.
type ImageDiff struct {
	From       string          `json:"from"` // "debian:1"
	To         string          `json:"to"`
	Partitions []PartitionDiff `json:"partitions"`
}

// PartitionDiff is one partition of the image that a machine gets.
type PartitionDiff struct {
	Number int `json:"number"`
	// Tiles are the data tiles that the machine's disk does not hold in their place, of Total.
	Tiles int64 `json:"tiles"`
	Total int64 `json:"total"`
	// Length are the bytes of these tiles, Encoded as they travel, where each distinct tile counts once.
	Length  int64 `json:"length"`
	Encoded int64 `json:"encoded"`
	// ZeroTiles are to be written as zeros, and were not zero before.
	ZeroTiles int64 `json:"zero_tiles"`
}

// ImageUsage says what an image takes, in bytes.
type ImageUsage struct {
	DataLength    int64 `json:"data_length"`    // of its data tiles, decoded
	EncodedLength int64 `json:"encoded_length"` // of its distinct data tiles: what a machine that has nothing fetches
	// Stored is what its tiles take in the packs, each once; Own is the part of it that no other image uses.
	Stored int64 `json:"stored"`
	Own    int64 `json:"own"`
	Packs  int   `json:"packs"`
	// Pieces are those that hold data, Requests what reading each of them by itself takes.
	Pieces   int64 `json:"pieces"`
	Requests int64 `json:"requests"`
	// Shared says what other images use too, whatever their name.
	Shared []SharedTiles `json:"shared"`
}

// SharedTiles is what an image has in common with another.
type SharedTiles struct {
	Image  string `json:"image"`  // "debian:2"
	Stored int64  `json:"stored"` // bytes in the packs
}

// Upkeep are the operations on what the repository keeps. Safe for concurrent use; progress may be nil, is called often,
// one call at a time.
type Upkeep interface {
	// Verify reads and hashes images. Damage is no error.
	Verify(ctx context.Context, o VerifyOrder, progress func(Progress)) (*VerifyReport, error)
	// Remove makes a version, NAME:VERSION, exist no more. One that a deployment uses is refused.
	Remove(ctx context.Context, ref string) error
	Prune(ctx context.Context, o PruneOrder, progress func(Progress)) (*PruneReport, error)
	Diff(ctx context.Context, from, to string) (*ImageDiff, error)
	Usage(ctx context.Context, ref string) (*ImageUsage, error)
}
