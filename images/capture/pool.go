package capture

import "slices"

// poolTypes are types of partitions of which a disk's volumes are made: one may hold several volumes, or a part of one.
var poolTypes = []string{
	"42",                                   // MBR: dynamic disk
	"AF9B60A0-1431-4F62-BC68-3311714A69AD", // GPT: data of a dynamic disk (winioctl.h, PARTITION_LDM_DATA_GUID)
	"E75CAF8F-F680-4CEE-AFA3-B001E56EFC2D", // GPT: storage spaces (PARTITION_SPACES_GUID)
}

// isPool reports whether a partition of that type belongs to a pool.
func isPool(kind string) bool { return slices.Contains(poolTypes, kind) }
