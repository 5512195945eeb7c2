package seed

import (
	"context"
	"errors"
	"sync/atomic"

	"seedbed/images"
	"seedbed/images/repository"
	"seedbed/images/tile"
)

// Storage is the swarm's storage over an image in the repository: everything is held, nothing is written. Safe for
// concurrent use.
type Storage struct {
	current atomic.Pointer[repository.Reader]
	damaged func(images.Digest, int) images.TileSet // nil: nothing is known to be
}

// NewStorage returns the storage of an opened image.
func NewStorage(r *repository.Reader) *Storage { return newStorage(r, nil) }

func newStorage(r *repository.Reader, damaged func(images.Digest, int) images.TileSet) *Storage {
	s := &Storage{damaged: damaged}
	s.current.Store(r)
	return s
}

// reader returns the image as it was opened last.
func (s *Storage) reader() *repository.Reader { return s.current.Load() }

// Near implements swarm.Near.
func (s *Storage) Near() bool { return s.reader().Near() }

// Held implements swarm.Storage: all data tiles.
func (s *Storage) Held(piece int) images.TileSet { return s.reader().Layout().Data(piece) }

// TileHashes implements swarm.Storage.
func (s *Storage) TileHashes(piece int) []images.Digest { return s.reader().TileHashes(piece) }

// Learn implements swarm.Storage; the hashes are known.
func (s *Storage) Learn(int, []images.Digest) {}

// errDamaged says that a tile was found damaged and is not healed yet.
var errDamaged = errors.New("the tile is damaged in the repository")

// Read implements swarm.Storage. Tiles that are known to be damaged are not given out: whoever hands out shows their piece
// to nobody for a while then.
func (s *Storage) Read(ctx context.Context, piece int, tiles images.TileSet, buf []byte) ([]tile.Encoded, error) {
	if s.damaged != nil && !tiles.Intersect(s.damaged(s.reader().Image().Digest, piece)).IsEmpty() {
		return nil, errDamaged
	}
	return s.reader().ReadPieceInto(ctx, piece, tiles, buf)
}

// Write implements swarm.Storage; it is never called, since nothing is lacking.
func (s *Storage) Write(int, int, [][]byte) error {
	return errors.New("an image in the repository is never written")
}

// Sync implements swarm.Storage.
func (s *Storage) Sync() error { return nil }
