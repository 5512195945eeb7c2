package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"seedbed/appliance/api"
	"seedbed/appliance/fleet"
	"seedbed/appliance/seed"
	"seedbed/images"
	"seedbed/images/layout"
	"seedbed/images/repository"
	"seedbed/images/swarm"
	"seedbed/images/torrent"
)

// Codes of refusals about open swarms.
const (
	codeImageOpen    = "image-open"
	codeImageNotOpen = "image-not-open"
	codeNoTracker    = "no-tracker"
)

// openSwarms are the images that a running appliance serves to stock clients. Safe for concurrent use.
type openSwarms struct {
	mu     sync.Mutex // guards what follows
	list   map[images.Digest]*openImage
	change chan struct{} // closed and replaced at every change, also of the fleet's
}

// openImage is one of them. Immutable.
type openImage struct {
	image  *repository.Image
	info   *torrent.Info
	layers [][]byte
	config *swarm.Open
}

func newOpenSwarms() *openSwarms {
	return &openSwarms{list: map[images.Digest]*openImage{}, change: make(chan struct{})}
}

// changed returns a channel that is closed at the next change.
func (o *openSwarms) changed() <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.change
}

// set makes an image served, or no more if one is nil, and says so.
func (o *openSwarms) set(d images.Digest, one *openImage) {
	o.mu.Lock()
	if one == nil {
		delete(o.list, d)
	} else {
		o.list[d] = one
	}
	o.mu.Unlock()
	o.notify()
}

func (o *openSwarms) notify() {
	o.mu.Lock()
	defer o.mu.Unlock()
	close(o.change)
	o.change = make(chan struct{})
}

// all returns the images in the order of their names.
func (o *openSwarms) all() []*openImage {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.SortedFunc(maps.Values(o.list), func(a, b *openImage) int { return strings.Compare(a.fileName(), b.fileName()) })
}

// named returns the image that a .torrent file is of, or nil, and whether it is the plain one. Of two with one name, as the plain
// one of version 1 and the other of a version 1.v1, it is the latter.
func (o *openSwarms) named(file string) (one *openImage, plain bool) {
	for _, i := range o.all() {
		switch file {
		case i.fileName():
			return i, false
		case i.plainName():
			one, plain = i, true
		}
	}
	return one, plain
}

// follow passes the fleet's changes on until ctx is done, so that the seeders hear of both.
func (o *openSwarms) follow(ctx context.Context, changed func() <-chan struct{}) error {
	for {
		next := changed()
		o.notify()
		select {
		case <-next:
		case <-ctx.Done():
			return nil
		}
	}
}

func (i *openImage) fileName() string {
	return i.image.Manifest.Name + "-" + i.image.Manifest.Version + ".torrent"
}

// plainName is that of the plain v1 torrent.
func (i *openImage) plainName() string {
	return i.image.Manifest.Name + "-" + i.image.Manifest.Version + plainSuffix
}

// plainSuffix is how names of plain v1 torrents end.
const plainSuffix = ".v1.torrent"

func (i *openImage) wanted() seed.Wanted {
	return seed.Wanted{Image: i.image.Digest, InfoHash: i.info.InfoHash, Open: i.config}
}

// openConfig returns the names of an open swarm.
func openConfig(info *torrent.Info, shape *layout.Layout) *swarm.Open {
	return &swarm.Open{
		V1: info.V1, Plain: info.Plain, Info: info.Bytes, PlainInfo: info.PlainBytes, Hashes: torrent.NewTrees(shape).Hashes,
	}
}

// metainfo returns the .torrent file, of the hybrid torrent or of the plain v1 one.
func (i *openImage) metainfo(plain bool, announce string) ([]byte, error) {
	if plain {
		return i.info.PlainMetainfo(announce)
	}
	return i.info.Metainfo(i.layers, announce)
}

// openOf returns an open image, whose signature is checked. Its sums are read from the repository.
func (l *library) openOf(ctx context.Context, image *repository.Image) (*openImage, error) {
	sums, err := l.repo.OpenSums(ctx, image.Digest)
	if err != nil {
		return nil, err
	}
	reader, err := l.repo.OpenImage(ctx, image.Digest)
	if err != nil {
		return nil, err
	}
	info, err := torrent.Hybrid(image.Manifest, sums)
	if err != nil {
		return nil, err
	}
	return &openImage{image: image, info: info, layers: torrent.Layers(reader.Layout()), config: openConfig(info, reader.Layout())}, nil
}

// loadOpen takes up the images that are open. One that cannot be read is left out, with an error in the log.
func (l *library) loadOpen(ctx context.Context) error {
	list, err := l.repo.OpenImages(ctx)
	if err != nil {
		return err
	}
	for _, d := range list {
		image, err := l.image(ctx, d.String())
		var one *openImage
		if err == nil {
			one, err = l.openOf(ctx, image)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			l.log.Error("open image is not served to stock clients", "image", d.String(), "err", err)
			continue
		}
		l.open.set(d, one)
	}
	return nil
}

// OpenSwarm implements api.Opening.
func (l *library) OpenSwarm(ctx context.Context, ref string, progress func(api.Progress)) (*api.OpenSwarm, error) {
	image, err := l.image(ctx, ref)
	if err != nil {
		return nil, err
	}
	if _, err := l.repo.OpenSums(ctx, image.Digest); errors.Is(err, repository.ErrNotOpen) {
		if err := l.makeSums(ctx, image.Digest, progress); err != nil {
			return nil, asRefusal(err)
		}
	}
	one, err := l.openOf(ctx, image)
	if err != nil {
		return nil, asRefusal(err)
	}
	l.open.set(image.Digest, one)
	return l.describe(one), nil
}

// makeSums reads an image and keeps the sums of its pieces, which opens it.
func (l *library) makeSums(ctx context.Context, d images.Digest, progress func(api.Progress)) error {
	reader, err := l.repo.OpenImage(ctx, d)
	if err != nil {
		return err
	}
	sums, err := torrent.Sums(ctx, reader, asProgress(progress))
	if err != nil {
		return err
	}
	return l.repo.PutOpen(ctx, d, sums)
}

func (l *library) describe(one *openImage) *api.OpenSwarm {
	s := &api.OpenSwarm{
		Image: nameOf(one.image.Manifest), Digest: one.image.Digest, InfoHash: one.info.InfoHash, V1: fmt.Sprintf("%x", one.info.V1),
		Plain: fmt.Sprintf("%x", one.info.Plain),
	}
	if l.web != "" {
		s.Announce, s.Torrent = l.web+pathAnnounce, l.web+pathTorrents+one.fileName()
		s.PlainTorrent = l.web + pathTorrents + one.plainName()
		s.Magnet = one.info.Magnet(strings.TrimSuffix(one.fileName(), ".torrent"), s.Announce)
	}
	return s
}

// openStates returns the state of all images that are open.
func (l *library) openStates(ctx context.Context) (map[images.Digest]*api.OpenState, error) {
	list, err := l.repo.OpenImages(ctx)
	if err != nil {
		return nil, err
	}
	states := map[images.Digest]*api.OpenState{}
	for _, d := range list {
		if since, err := l.repo.OpenSince(ctx, d); err == nil {
			states[d] = &api.OpenState{Since: since}
			l.countPeers(states[d], d)
		}
	}
	return states, ctx.Err()
}

// openState returns the state of an image with the names of its swarm; nil if it is not open.
func (l *library) openState(ctx context.Context, image *repository.Image) (*api.OpenState, error) {
	since, err := l.repo.OpenSince(ctx, image.Digest)
	if errors.Is(err, repository.ErrNotOpen) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	state := &api.OpenState{Since: since}
	if one, err := l.openOf(ctx, image); err == nil { // else its sums are damaged, which `image verify` tells
		state.Swarm = l.describe(one)
	}
	l.countPeers(state, image.Digest)
	return state, nil
}

func (l *library) countPeers(state *api.OpenState, d images.Digest) {
	l.open.mu.Lock()
	one := l.open.list[d]
	l.open.mu.Unlock()
	if l.openPeers == nil || one == nil {
		return
	}
	complete, lacking := l.openPeers(one.info.InfoHash)
	complete += lacking
	state.Guests, state.Lacking = &complete, &lacking
}

// CloseSwarm implements api.Opening.
func (l *library) CloseSwarm(ctx context.Context, ref string) error {
	d, err := l.repo.Resolve(ctx, ref)
	if err != nil {
		return asRefusal(err)
	}
	if err := l.repo.RemoveOpen(ctx, d); err != nil && !errors.Is(err, repository.ErrNotOpen) {
		return err
	} else if err != nil {
		return &fleet.Refusal{Code: codeImageNotOpen, Detail: fmt.Sprintf("image %s is not open", ref)}
	}
	l.open.set(d, nil)
	return nil
}

// Torrent implements api.Opening.
func (l *library) Torrent(ctx context.Context, ref string, o api.TorrentOrder) ([]byte, error) {
	image, err := l.image(ctx, ref)
	if err != nil {
		return nil, err
	}
	one, err := l.openOf(ctx, image)
	if errors.Is(err, repository.ErrNotOpen) {
		return nil, &fleet.Refusal{Code: codeImageNotOpen, Detail: fmt.Sprintf("image %s is not open; `seedbed image open %s` opens it to stock BitTorrent clients", ref, ref)}
	}
	if err != nil {
		return nil, asRefusal(err)
	}
	if o.Announce == "" {
		if l.web == "" {
			return nil, &fleet.Refusal{Code: codeNoTracker, Detail: "no appliance runs here that could be the tracker; start it with `seedbed serve`, or say --announce URL"}
		}
		o.Announce = l.web + pathAnnounce
	}
	return one.metainfo(o.Plain, o.Announce)
}

// refuseOpen returns a refusal for an image that is open.
func (l *library) refuseOpen(ctx context.Context, ref string, d images.Digest) error {
	switch _, err := l.repo.OpenSums(ctx, d); {
	case errors.Is(err, repository.ErrNotOpen):
		return nil
	case err != nil:
		return err
	}
	return &fleet.Refusal{Code: codeImageOpen, Detail: fmt.Sprintf("image %s is open to stock BitTorrent clients; `seedbed image close %s` first", ref, ref)}
}

// Paths of plain HTTP for stock clients.
const (
	pathAnnounce = "/announce"
	pathTorrents = "/torrents/"
)
