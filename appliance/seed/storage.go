package seed

import (
	"context"
	"errors"

	"seedbed/images"
	"seedbed/images/repository"
	"seedbed/images/tile"
)

// Storage is the swarm's storage over an image in the repository: everything is held, nothing is written. Safe for
// concurrent use.
type Storage struct{ reader *repository.Reader }

// NewStorage returns the storage of an opened image.
func NewStorage(r *repository.Reader) *Storage { return &Storage{r} }

// Held implements swarm.Storage: all data tiles.
func (s *Storage) Held(piece int) images.TileSet { return s.reader.Layout().Data(piece) }

// TileHashes implements swarm.Storage.
func (s *Storage) TileHashes(piece int) []images.Digest { return s.reader.TileHashes(piece) }

// Learn implements swarm.Storage; the hashes are known.
func (s *Storage) Learn(int, []images.Digest) {}

// Read implements swarm.Storage.
func (s *Storage) Read(ctx context.Context, piece int, tiles images.TileSet) ([]tile.Encoded, error) {
	return s.reader.ReadPiece(ctx, piece, tiles)
}

// Write implements swarm.Storage; it is never called, since nothing is lacking.
func (s *Storage) Write(int, int, []byte) error {
	return errors.New("an image in the repository is never written")
}

// Sync implements swarm.Storage.
func (s *Storage) Sync() error { return nil }
