package repository

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"seedbed/images"
	"seedbed/images/intake"
)

// SessionConfig says what a session makes.
type SessionConfig struct {
	Name string // of the image
	// Version "" means the next whole number.
	Version string
	// Sign returns the detached signature over the encoded manifest.
	Sign func(manifest []byte) []byte
	// Check decodes and hashes every tile that is put: for tiles that come over a network.
	Check bool
}

// Session is one image on its way into the repository. It implements intake.Sink. Safe for concurrent use.
type Session struct {
	r   *Repository
	cfg SessionConfig

	mu     sync.Mutex
	closed bool // guarded by mu
}

var _ intake.Sink = (*Session)(nil)

// Begin starts a session. One at a time makes the same name and version: others get intake.ErrBusy. A version that
// exists already is intake.ErrVersionExists. The caller closes.
func (r *Repository) Begin(ctx context.Context, cfg SessionConfig) (*Session, error) {
	if !images.ValidName(cfg.Name) || (cfg.Version != "" && !images.ValidName(cfg.Version)) {
		return nil, fmt.Errorf("image name %.80q and version %.80q must be 1-64 of a-z 0-9 . _ -", cfg.Name, cfg.Version)
	}
	if cfg.Sign == nil {
		return nil, errors.New("begin an image: no key to sign with")
	}
	return &Session{r: r, cfg: cfg}, nil
}

// Have implements intake.Sink.
func (s *Session) Have(_ context.Context, keys []images.TileKey) ([]bool, error) {
	if len(keys) > intake.MaxHave {
		return nil, fmt.Errorf("%d tiles were asked for at once, at most %d can be", len(keys), intake.MaxHave)
	}
	list := make([]bool, len(keys))
	for i, k := range keys {
		_, ok, err := s.r.Find(k)
		if err != nil {
			return nil, err
		}
		list[i] = ok
	}
	return list, nil
}

// Put implements intake.Sink.
func (s *Session) Put(ctx context.Context, tiles []intake.Tile) error {
	var buf []byte
	for _, t := range tiles {
		if s.cfg.Check {
			var err error
			if buf, err = t.Check(buf); err != nil {
				return err
			}
		}
		if _, err := s.r.Put(ctx, t.Key, t.Encoded); err != nil {
			return err
		}
	}
	return nil
}

// Commit implements intake.Sink.
func (s *Session) Commit(ctx context.Context, spec *intake.Spec) (*intake.Published, error) {
	for {
		version := s.cfg.Version
		if version == "" {
			var err error
			if version, err = s.r.NextVersion(ctx, s.cfg.Name); err != nil {
				return nil, err
			}
		}
		draft, err := s.draft(spec, version)
		if err != nil {
			return nil, fmt.Errorf("image %s:%s: %w", s.cfg.Name, version, err)
		}
		image, err := s.r.Publish(ctx, draft)
		if s.cfg.Version == "" && errors.Is(err, ErrVersionExists) {
			continue // another capture published it meanwhile
		}
		if err != nil {
			return nil, err
		}
		return &intake.Published{Digest: image.Digest, Name: image.Manifest.Name, Version: image.Manifest.Version}, nil
	}
}

// draft assembles the image and finds its tiles.
func (s *Session) draft(spec *intake.Spec, version string) (*Draft, error) {
	m, layers, err := intake.Assemble(spec, s.cfg.Name, version)
	if err != nil {
		return nil, err
	}
	d := &Draft{Manifest: m, Sign: s.cfg.Sign}
	for _, b := range layers {
		d.Layers = append(d.Layers, b)
	}
	missing := 0
	for i := range m.Partitions {
		p := &m.Partitions[i]
		tail := lastTileLength(layers, p)
		tiles := make([]Location, 0, p.DataTiles)
		for b := layers[p.TileLayer.Digest]; len(b) > 0; b = b[32:] {
			key := images.TileKey{Hash: images.Digest(b[:32]), Length: images.TileLength}
			if len(b) == 32 {
				key.Length = tail
			}
			at, ok, err := s.r.Find(key)
			if err != nil {
				return nil, err
			}
			if !ok {
				missing++
			}
			tiles = append(tiles, at)
		}
		d.Tiles = append(d.Tiles, tiles)
	}
	if missing > 0 {
		return nil, fmt.Errorf("%w: %d of %d", intake.ErrMissing, missing, m.DataTiles())
	}
	return d, nil
}

// Close implements intake.Sink.
func (s *Session) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	return nil
}
