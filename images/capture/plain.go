package capture

import (
	"slices"

	"seedbed/images/parttable"
)

// plainTypes are types of partitions that hold no file system by design. Every byte of one is kept, and that is no reason
// for a warning.
var plainTypes = []string{
	"E3C9E316-0B5C-4DB8-817D-F92DF00215AE", // Microsoft reserved: 16 MiB, 128 MiB before Windows 10 (PARTITION_MSFT_RESERVED_GUID)
	"9E1A2D38-C612-4316-AA26-8B49521E5A8B", // PReP boot
	parttable.TypeBIOSBoot,
}

// isPlain reports whether a partition of that type holds no file system.
func isPlain(kind string) bool { return slices.Contains(plainTypes, kind) }
