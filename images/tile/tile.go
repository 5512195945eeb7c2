// Package tile encodes, decodes and checks one tile: the unit of compression.
package tile

import (
	"seedbed/images"
)

// Codec says how a tile's bytes are stored and travel.
type Codec byte

const (
	Stored Codec = 0 // as they are
	LZ4    Codec = 1 // LZ4 block format
	Zstd   Codec = 2 // one Zstandard frame (RFC 8878)
)

// Encoded is one tile as it is stored and as it travels. Bytes belongs to whoever holds the Encoded; it is never
// changed after it was made, so it may be shared.
type Encoded struct {
	Codec Codec
	// Length is the length of the decoded tile: 1 to images.TileLength.
	Length int32
	Bytes  []byte
}

// Key is the tile's name; see images.TileKey.
type Key = images.TileKey
