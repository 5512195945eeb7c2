// Package intake is the contract between what captures a disk and what keeps images: which tiles are there already,
// tiles to store, and at last what the image consists of. Capture and repository speak it in one process, and over a
// network in the encodings of wire.go.
package intake

import (
	"context"
	"errors"

	"seedbed/images"
	"seedbed/images/tile"
)

// Limits of one call.
const (
	// MaxHave is how many keys one Have asks for.
	MaxHave = 4096
	// MaxPutTiles and MaxPutLength bound the tiles of one Put and their encoded bytes.
	MaxPutTiles  = 256
	MaxPutLength = MaxPutTiles * images.TileLength
)

// Tile is one data tile on its way into a repository.
type Tile struct {
	Key     images.TileKey
	Encoded tile.Encoded
}

// Sink takes one image: tiles in the order of the disk, then what it consists of. A capture that was cut short begins
// anew and is told by Have what arrived. Safe for concurrent use.
type Sink interface {
	// Have reports for each key whether the repository holds that tile, whatever codec it was stored with. What it holds
	// stays until the sink is closed or expires.
	Have(ctx context.Context, keys []images.TileKey) ([]bool, error)
	// Put stores tiles; those that are there already are no error. When it returns nil they are durable, or will be
	// before Commit returns. Afterwards the caller uses the memory of the tiles' bytes anew. A capture has one Put under
	// way at a time, with the tiles that became ready meanwhile.
	Put(ctx context.Context, tiles []Tile) error
	// Commit computes the roots, checks that every tile is there, signs and publishes. An error that wraps ErrMissing
	// names tiles that have to be put again.
	Commit(ctx context.Context, s *Spec) (*Published, error)
	// Close gives back what Have and Put held on to. Tiles that were put stay for the next try.
	Close() error
}

// Published is the image that a Commit made.
type Published struct {
	Digest  images.Digest `cbor:"1,keyasint" json:"digest"`
	Name    string        `cbor:"2,keyasint" json:"name"`
	Version string        `cbor:"3,keyasint" json:"version"`
}

// Errors of a Sink.
var (
	// ErrMissing says that tiles of the Spec are not in the repository.
	ErrMissing = errors.New("tiles are missing in the repository")
	// ErrBusy says that another capture makes the same name and version.
	ErrBusy = errors.New("another capture makes this version now")
	// ErrVersionExists says that the version exists already. Versions never change.
	ErrVersionExists = errors.New("the version exists already")
	// ErrExpired says that a capture was silent for too long; begin it again.
	ErrExpired = errors.New("the capture has expired")
	// ErrFull says that the repository has no room left. The error that wraps it has the figures.
	ErrFull = errors.New("the repository is full")
)
