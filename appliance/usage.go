package main

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	"seedbed/appliance/api"
	"seedbed/images"
	"seedbed/images/repository"
)

// Usage implements api.Upkeep. Memory: 33 bytes for each data tile of the image.
func (l *library) Usage(ctx context.Context, ref string) (*api.ImageUsage, error) {
	r, err := l.open(ctx, ref)
	if err != nil {
		return nil, err
	}
	keys, length, err := keysOf(r)
	if err != nil {
		return nil, err
	}
	u := &api.ImageUsage{DataTiles: int64(len(keys)), DataLength: length, EncodedLength: r.EncodedLength(), Shared: []api.SharedTiles{}}
	list, err := l.repo.Images(ctx)
	if err != nil {
		return nil, err
	}
	elsewhere := make([]bool, len(keys))
	m := r.Image().Manifest
	for _, other := range list {
		if other.Name != m.Name || other.Digest == r.Image().Digest || other.Problem != "" {
			continue
		}
		o, err := l.repo.OpenImage(ctx, other.Digest)
		if err != nil {
			return nil, asRefusal(err)
		}
		s := api.SharedTiles{Image: other.Name + ":" + other.Version}
		seen := make([]bool, len(keys))
		err = eachTile(o, func(k images.TileKey) {
			if i, ok := slices.BinarySearchFunc(keys, k, compareKeys); ok && !seen[i] {
				seen[i], elsewhere[i] = true, true
				s.Tiles, s.Length = s.Tiles+1, s.Length+int64(k.Length)
			}
		})
		if err != nil {
			return nil, err
		}
		if s.Tiles > 0 {
			u.Shared = append(u.Shared, s)
		}
	}
	for i, shared := range elsewhere {
		if !shared {
			u.Own, u.OwnLength = u.Own+1, u.OwnLength+int64(keys[i].Length)
		}
	}
	return u, ctx.Err()
}

func compareKeys(a, b images.TileKey) int {
	if c := bytes.Compare(a.Hash[:], b.Hash[:]); c != 0 {
		return c
	}
	return int(a.Length) - int(b.Length)
}

// keysOf returns the distinct data tiles of an image in order, and their bytes.
func keysOf(r *repository.Reader) (keys []images.TileKey, length int64, err error) {
	keys = make([]images.TileKey, 0, r.Image().Manifest.DataTiles())
	if err := eachTile(r, func(k images.TileKey) { keys = append(keys, k) }); err != nil {
		return nil, 0, err
	}
	slices.SortFunc(keys, compareKeys)
	keys = slices.Compact(keys)
	for _, k := range keys {
		length += int64(k.Length)
	}
	return keys, length, nil
}

// eachTile calls fn with each data tile of an image, in the order of the manifest.
func eachTile(r *repository.Reader, fn func(images.TileKey)) error {
	shape := r.Layout()
	for piece := range shape.Count() {
		data := shape.Data(piece)
		if data.IsEmpty() {
			continue
		}
		hashes := r.TileHashes(piece)
		if len(hashes) != data.Len() {
			return fmt.Errorf("image %s: the hashes of its tiles cannot be read", nameOf(r))
		}
		rank := 0
		for t := range data.All() {
			fn(images.TileKey{Hash: hashes[rank], Length: int32(shape.TileLength(piece, t))})
			rank++
		}
	}
	return nil
}
