// Package swarm is one peer in one swarm: sessions, picker, links and the contract to where the content lies.
package swarm

import (
	"context"

	"seedbed/images"
	"seedbed/images/tile"
)

// Pieces is the shape of a swarm's content. Piece indexes count from 0 over all partitions, each partition beginning
// with a piece of its own, as in a v2 torrent. Immutable; safe for concurrent use.
type Pieces interface {
	// Count is the number of pieces.
	Count() int
	// Data are the tiles of the piece that hold data. Others are free or zero and never travel; a piece without data
	// tiles is complete from the start.
	Data(piece int) images.TileSet
	// TileLength is the length of one tile in bytes: images.TileLength but for the tail of a partition.
	TileLength(piece, tile int) int
	// CheckHashes returns nil if hashes, one per data tile in ascending order, give the piece's hash. It keeps nothing.
	CheckHashes(piece int, hashes []images.Digest) error
}

// Storage is where a peer's tiles lie: the repository of an appliance, the disk of a machine, a file. The engine calls
// it from several goroutines at once, never twice at once for one piece's Write.
type Storage interface {
	// Held returns the data tiles of the piece that are right and can be read. Called often; it must not block.
	Held(piece int) images.TileSet
	// TileHashes returns the hash of each data tile of the piece in ascending order, or nil if they are not known. It may
	// block on the disk where all data tiles of the piece are held, and must not otherwise.
	TileHashes(piece int) []images.Digest
	// Learn keeps the tile hashes of a piece, which the engine checked against Pieces.CheckHashes.
	Learn(piece int, hashes []images.Digest)
	// Read returns the tiles encoded, in ascending order; all of them are held. May block on the disk. Their bytes may lie in
	// buf, as far as its capacity is enough, and are then good until the caller uses it again. It may be nil.
	Read(ctx context.Context, piece int, tiles images.TileSet, buf []byte) ([]tile.Encoded, error)
	// Write puts the decoded bytes of successive data tiles, the first of them being tile, where they belong. Each tile's
	// hash has been checked. After it returned nil, Held has them. raw is neither kept nor changed. An error ends the swarm.
	Write(piece, tile int, raw [][]byte) error
	// Sync makes everything written so far durable.
	Sync() error
}

// Near is what a Storage implements of which few tiles at a time are read as fast as many, into memory of the caller. They are
// still in a core's cache then when they are sent.
type Near interface{ Near() bool }
