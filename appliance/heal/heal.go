// Package heal fetches tiles that are damaged in the repository from machines that hold the image: it takes part in the
// image's swarm as a peer that lacks them.
package heal

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"seedbed/images"
	"seedbed/images/layout"
	"seedbed/images/swarm"
	"seedbed/images/tile"
)

// Tiles is what the repository has of an image. Safe for concurrent use.
type Tiles interface {
	TileHashes(piece int) []images.Digest
	ReadPiece(ctx context.Context, piece int, tiles images.TileSet) ([]tile.Encoded, error)
}

// Config of a Fetch. All but Patience and Log are needed.
type Config struct {
	InfoHash images.InfoHash
	Layout   *layout.Layout
	Tiles    Tiles
	// Damaged are the data tiles to fetch, by piece.
	Damaged map[int]images.TileSet
	// Peers returns the addresses of machines that may hold them; it is asked again each few seconds.
	Peers func() []netip.AddrPort
	// Certificate is for the swarm and does not claim to be an appliance's seeder: other rules hold among machines.
	Certificate tls.Certificate
	CA          *x509.Certificate
	// Put keeps a tile whose hash is right. raw is not kept. An error ends the Fetch.
	Put func(piece, tile int, raw []byte) error
	// Patience is how long nothing may come before the rest is given up; 0 means 15 s.
	Patience time.Duration
	Log      *slog.Logger // nil discards
}

// askEvery is how often addresses are asked for.
const askEvery = 2 * time.Second

// Fetch returns the tiles that it fetched, when all are there, or nothing comes any more, or ctx ends.
func Fetch(ctx context.Context, c Config) (map[int]images.TileSet, error) {
	if c.Layout == nil || c.Tiles == nil || c.Peers == nil || c.Put == nil || c.CA == nil {
		return nil, errors.New("heal: the configuration is not complete")
	}
	if c.Patience <= 0 {
		c.Patience = 15 * time.Second
	}
	s := &storage{config: c, fetched: map[int]images.TileSet{}, news: make(chan struct{}, 1)}
	peer, err := swarm.New(swarm.Config{
		InfoHash: c.InfoHash, Pieces: c.Layout, Storage: s, TLS: swarm.TLSConfig(c.Certificate, c.CA, c.InfoHash), Log: c.Log,
	})
	if err != nil {
		return nil, err
	}
	own, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- peer.Run(own) }()
	err = s.wait(own, peer, ended)
	cancel()
	if err == nil {
		err = <-ended
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fetched, errors.Join(err, ctx.Err())
}

// wait returns when everything is fetched or nothing comes any more.
func (s *storage) wait(ctx context.Context, peer *swarm.Swarm, ended chan error) error {
	ask := time.NewTicker(askEvery)
	defer ask.Stop()
	patience := time.NewTimer(s.config.Patience)
	defer patience.Stop()
	for {
		peer.AddPeers(s.config.Peers())
		select {
		case <-peer.Done():
			return nil
		case err := <-ended:
			ended <- nil // for who waits behind us
			return err
		case <-s.news:
			patience.Reset(s.config.Patience)
		case <-patience.C:
			return nil
		case <-ask.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// storage is the swarm's storage over an image of which some tiles are damaged. Safe for concurrent use.
type storage struct {
	config Config
	news   chan struct{} // holds a token after a tile came

	mu      sync.Mutex // guards fetched
	fetched map[int]images.TileSet
}

// Held implements swarm.Storage.
func (s *storage) Held(piece int) images.TileSet {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.config.Layout.Data(piece).Minus(s.config.Damaged[piece].Minus(s.fetched[piece]))
}

// TileHashes implements swarm.Storage.
func (s *storage) TileHashes(piece int) []images.Digest { return s.config.Tiles.TileHashes(piece) }

// Learn implements swarm.Storage; the hashes are known.
func (s *storage) Learn(int, []images.Digest) {}

// Read implements swarm.Storage. Tiles that were just fetched are refused where the repository still has them wrong:
// others have them.
func (s *storage) Read(ctx context.Context, piece int, tiles images.TileSet, _ []byte) ([]tile.Encoded, error) {
	return s.config.Tiles.ReadPiece(ctx, piece, tiles)
}

// Write implements swarm.Storage.
func (s *storage) Write(piece, first int, raw [][]byte) error {
	for i := range raw {
		if err := s.config.Put(piece, first+i, raw[i]); err != nil {
			return err
		}
		s.mu.Lock()
		set := s.fetched[piece]
		set.Add(first + i)
		s.fetched[piece] = set
		s.mu.Unlock()
	}
	select {
	case s.news <- struct{}{}:
	default:
	}
	return nil
}

// Sync implements swarm.Storage; Put is durable when its caller says so.
func (s *storage) Sync() error { return nil }
