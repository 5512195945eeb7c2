package main

import (
	"context"

	"seedbed/appliance/api"
)

// Usage implements api.Upkeep. It reads the placements of all images and the indexes of this one's packs.
func (l *library) Usage(ctx context.Context, ref string) (*api.ImageUsage, error) {
	image, err := l.image(ctx, ref)
	if err != nil {
		return nil, err
	}
	r, err := l.repo.OpenImage(ctx, image.Digest)
	if err != nil {
		return nil, asRefusal(err)
	}
	found, err := l.repo.Usage(ctx, image.Digest)
	if err != nil {
		return nil, asRefusal(err)
	}
	u := &api.ImageUsage{DataLength: r.Layout().DataLength(), EncodedLength: found.Encoded, Stored: found.Stored, Own: found.Unique,
		Packs: found.Packs, Shared: []api.SharedTiles{}}
	for _, s := range found.Shared {
		u.Shared = append(u.Shared, api.SharedTiles{Image: s.Image, Stored: s.Bytes})
	}
	if u.Pieces, u.Requests, err = r.Requests(ctx); err != nil {
		return nil, asRefusal(err)
	}
	return u, nil
}
