package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"golang.org/x/sync/errgroup"

	"seedbed/appliance/api"
	"seedbed/appliance/fleet"
	"seedbed/appliance/site"
	"seedbed/images"
	"seedbed/images/fsmap"
	"seedbed/images/repository"
	"seedbed/images/torrent"
)

// Codes of refusals about images, beside those of the fleet.
const (
	codeImageExists = "image-exists"
	codeDirty       = "source-dirty"
	codeDamaged     = "image-damaged"
)

// library is the site's images: what fleet, agents and operators ask of the repository. Safe for concurrent use.
type library struct {
	repo            *repository.Repository
	closeBucket     func() error
	site            *site.Site
	log             *slog.Logger
	data            string // directory of what this appliance keeps
	records         string // location of the records, see recordsAt
	recordsPassword string // path of a file, see recordsWith
	// usedBy names what uses an image, or returns ""; nil asks the records, where no appliance runs.
	usedBy func(context.Context, images.Digest) (string, error)
	// fromMachines fetches damaged tiles from machines; nil: no appliance runs that could.
	fromMachines func(ctx context.Context, r *repository.Reader, damaged map[int]images.TileSet, put putTile) error
	damaged      damagedTiles
	// reopen makes the seeder of an image read what was healed; nil: there is none.
	reopen func(ctx context.Context, image images.Digest)
	bucket repository.Bucket // under repo
	open   *openSwarms
	// openPeers counts the peers of an open swarm that a running appliance knows; else nil.
	openPeers func(h images.InfoHash) (complete, lacking int)
	web       string // "http://10.77.0.1" of a running appliance, where stock clients find tracker and torrents; else ""
	signed    *signed
}

// openLibrary opens the repository at a location, see openBucket, with its spool in the data directory, under its lock, and the identity, which no other process makes
// at the same time then.
func openLibrary(ctx context.Context, data, location string, log *slog.Logger) (*library, error) {
	if err := os.MkdirAll(data, 0o700); err != nil {
		return nil, fmt.Errorf("make the data directory: %w", err)
	}
	bucket, closeBucket, err := openBucket(ctx, data, location)
	if err != nil {
		return nil, err
	}
	repo, err := repository.Open(ctx, bucket, repository.Config{Spool: filepath.Join(data, "spool"), Log: log})
	if err != nil {
		return nil, errors.Join(err, closeBucket())
	}
	s, err := site.Open(filepath.Join(data, "site"))
	if err != nil {
		return nil, errors.Join(err, repo.Close(), closeBucket())
	}
	if end, err := sweepSpool(importSpool(data)); err != nil {
		log.Warn("what an interrupted import left is not removed", "err", err)
	} else if err := end(); err != nil {
		log.Warn("what an interrupted import left is removed, its folder not given back", "err", err)
	}
	return &library{open: newOpenSwarms(), repo: repo, closeBucket: closeBucket, site: s, log: log, data: data, bucket: bucket,
		signed: &signed{path: filepath.Join(data, "published")}}, nil
}

func (l *library) close() error { return errors.Join(l.repo.Close(), l.closeBucket()) }

// image finds an image and checks its signature.
func (l *library) image(ctx context.Context, ref string) (*repository.Image, error) {
	d, err := l.repo.Resolve(ctx, ref)
	if err != nil {
		return nil, asRefusal(err)
	}
	image, err := l.repo.Manifest(ctx, d)
	if err != nil {
		return nil, asRefusal(err)
	}
	if err := images.Verify(l.site.PublicKey(), image.Raw, image.Signature); err != nil {
		return nil, fmt.Errorf("image %s: %w", ref, err)
	}
	return image, nil
}

// Image implements fleet.Library.
func (l *library) Image(ctx context.Context, ref string) (*fleet.Image, error) {
	image, err := l.image(ctx, ref)
	if err != nil {
		return nil, err
	}
	info, err := torrent.FromManifest(image.Manifest)
	if err != nil {
		return nil, err
	}
	return &fleet.Image{Digest: image.Digest, Manifest: image.Manifest, InfoHash: info.InfoHash}, nil
}

// Manifest implements api.Content.
func (l *library) Manifest(ctx context.Context, d images.Digest) (manifest, signature []byte, err error) {
	image, err := l.repo.Manifest(ctx, d)
	if err != nil {
		return nil, nil, asRefusal(err)
	}
	return image.Raw, image.Signature, nil
}

// Layer implements api.Content.
func (l *library) Layer(ctx context.Context, d images.Digest) ([]byte, error) {
	return l.repo.Layer(ctx, d)
}

// LayerRange implements api.Content.
func (l *library) LayerRange(ctx context.Context, d images.Digest, offset, length int64) ([]byte, error) {
	return l.repo.LayerRange(ctx, d, offset, length)
}

// List implements api.Images.
func (l *library) List(ctx context.Context) ([]api.ImageListing, error) {
	found, err := l.repo.Images(ctx)
	if err != nil {
		return nil, err
	}
	list := make([]api.ImageListing, 0, len(found))
	for _, i := range found {
		list = append(list, api.ImageListing{
			Name: i.Name, Version: i.Version, Digest: i.Digest, Problem: i.Problem, Created: i.Created,
			DiskLength: i.DiskLength, UsedLength: i.UsedLength, Partitions: i.Partitions,
		})
	}
	open, err := l.openStates(ctx)
	if err != nil {
		return nil, err
	}
	var g errgroup.Group
	g.SetLimit(8) // storage may be far away
	for i := range list {
		list[i].Open = open[list[i].Digest]
		if list[i].Problem == "" {
			g.Go(func() error {
				r, err := l.repo.OpenImage(ctx, list[i].Digest)
				if err != nil {
					list[i].Problem = err.Error()
					return ctx.Err()
				}
				list[i].EncodedLength = r.EncodedLength()
				return nil
			})
		}
	}
	return list, g.Wait()
}

// Show implements api.Images.
func (l *library) Show(ctx context.Context, ref string) (*api.ImageDetail, error) {
	d, err := l.repo.Resolve(ctx, ref)
	if err != nil {
		return nil, asRefusal(err)
	}
	reader, err := l.repo.OpenImage(ctx, d)
	if err != nil {
		return nil, asRefusal(err)
	}
	image := reader.Image()
	info, err := torrent.FromManifest(image.Manifest)
	if err != nil {
		return nil, err
	}
	open, err := l.openState(ctx, image)
	if err != nil {
		return nil, err
	}
	return &api.ImageDetail{
		Open: open, Digest: d, InfoHash: info.InfoHash, Manifest: image.Manifest, EncodedLength: reader.EncodedLength(),
		Signed: images.Verify(l.site.PublicKey(), image.Raw, image.Signature) == nil,
	}, nil
}

// asRefusal gives the errors that an operator can act on their code; the others are the appliance's own.
func asRefusal(err error) error {
	code := ""
	if _, ok := errors.AsType[*repository.DamageError](err); ok {
		code = codeDamaged
	}
	switch {
	case errors.Is(err, repository.ErrNoImage):
		return &fleet.Refusal{Code: fleet.CodeImageUnknown, Detail: err.Error() + "; `seedbed image ls` lists them"}
	case errors.Is(err, repository.ErrVersionExists):
		code = codeImageExists
	case errors.Is(err, fsmap.ErrDirty):
		code = codeDirty
	}
	if code == "" {
		return err
	}
	return &fleet.Refusal{Code: code, Detail: err.Error()}
}
