package repository

import (
	"context"
	"errors"
	"fmt"

	"seedbed/images"
	"seedbed/images/intake"
)

// Commit implements intake.Sink. A Commit that is repeated, because its answer was lost, returns the same again.
func (s *Session) Commit(ctx context.Context, spec *intake.Spec) (*intake.Published, error) {
	s.committing.Lock()
	defer s.committing.Unlock()
	ctx, leave, err := s.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	if s.published != nil {
		return s.repeat(ctx, spec)
	}
	if s.published, err = s.commit(ctx, *spec); err != nil {
		return nil, s.fail(ctx, s.r.explainFull(err, 0))
	}
	return s.published, nil
}

// repeat answers a Commit after one that succeeded.
func (s *Session) repeat(ctx context.Context, spec *intake.Spec) (*intake.Published, error) {
	image, err := s.r.Manifest(ctx, s.published.Digest)
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	again := *spec
	again.Created = image.Manifest.Created
	m, _, err := intake.Assemble(&again, s.published.Name, s.published.Version)
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	if _, d, err := m.Encode(); err != nil || d != s.published.Digest {
		return nil, s.fail(ctx, fmt.Errorf("this capture has published version %s; begin another one", s.published.Version))
	}
	return s.published, nil
}

func (s *Session) commit(ctx context.Context, spec intake.Spec) (*intake.Published, error) {
	for {
		version := s.cfg.Version
		if version == "" {
			var err error
			if version, err = s.r.NextVersion(ctx, s.cfg.Name); err != nil {
				return nil, err
			}
		}
		draft, err := s.draft(&spec, version)
		if err != nil {
			return nil, err
		}
		image, err := s.r.publish(ctx, draft, s.hold)
		switch {
		case s.cfg.Version == "" && errors.Is(err, ErrVersionExists):
			continue // another capture published it meanwhile
		case errors.Is(err, errLeftover):
			spec.Created++ // another digest, whose objects are not about to go
			continue
		case err != nil:
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
	missing, first := 0, ""
	for i := range m.Partitions {
		p := &m.Partitions[i]
		tail := lastTileLength(layers, p)
		tiles := make([]Location, 0, p.DataTiles)
		for b := layers[p.TileLayer.Digest]; len(b) > 0; b = b[32:] {
			key := images.TileKey{Hash: images.Digest(b[:32]), Length: images.TileLength}
			if len(b) == 32 {
				key.Length = tail
			}
			at, ok, err := s.find(key)
			if err != nil {
				return nil, err
			}
			if !ok {
				if missing++; missing == 1 {
					first = fmt.Sprintf("partition %d, bytes %v", p.Number, dataExtent(layers, p, int64(len(tiles))))
				}
			}
			tiles = append(tiles, at)
		}
		d.Tiles = append(d.Tiles, tiles)
	}
	if missing > 0 {
		return nil, fmt.Errorf("%w: %d of %d, the first of %s", intake.ErrMissing, missing, m.DataTiles(), first)
	}
	return d, nil
}

// find looks a tile up. Packs that were marked since the session began are good enough where there is no other: the
// session ends before they go.
func (s *Session) find(key images.TileKey) (Location, bool, error) {
	at, ok, err := s.r.Find(key)
	if !ok && err == nil {
		at, ok, err = s.r.index.find(key, func(at Location) bool {
			return s.r.avoid.lost(at) || s.hold.marked.has(s.r.packKeyOf(at.pack))
		})
	}
	if ok {
		s.pin(at)
	}
	return at, ok, err
}

// packKeyOf returns the key of a pack in the bucket, "" if the handle is that of a segment.
func (r *Repository) packKeyOf(handle uint32) string {
	p, err := r.packs.pack(handle)
	if err != nil {
		return ""
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.id.IsZero() {
		return ""
	}
	return packKey(p.id)
}

// dataExtent returns the bytes of data tile number rank of a partition whose map is among the layers.
func dataExtent(layers map[images.Digest][]byte, p *images.Partition, rank int64) images.Extent {
	m, err := images.DecodeMap(layers[p.Map.Digest])
	if err != nil {
		return images.Extent{Length: p.Length}
	}
	for t := range images.TileCount(p.Length) {
		if m.State(t) != images.TileData {
			continue
		}
		if rank--; rank < 0 {
			at := t * images.TileLength
			return images.Extent{Offset: at, Length: min(images.TileLength, p.Length-at)}
		}
	}
	return images.Extent{Length: p.Length}
}
