package repository

import (
	"context"
	"errors"
	"fmt"

	"seedbed/images"
	"seedbed/images/intake"
	"seedbed/images/layout"
)

// ErrVersionExists says that an image has that version already. Versions never change.
var ErrVersionExists = intake.ErrVersionExists

// Draft is an image whose tiles have been put and that is to be published.
type Draft struct {
	Manifest *images.Manifest
	// Layers are the layers that the manifest names, in any order.
	Layers [][]byte
	// Tiles are the locations of the data tiles of each partition, in ascending order.
	Tiles [][]Location
	// Sign returns the detached signature over the encoded manifest.
	Sign func(manifest []byte) []byte
}

// Publish makes an image exist: it seals all tiles into packs, checks that tiles, layers and manifest agree, and writes
// layers, placements, signature, manifest and at last the version, each durable before the next. A crash anywhere
// before the end leaves no image and loses nothing that another image needs. Publishing the same manifest again is no
// error; another one under the same name and version is ErrVersionExists.
func (r *Repository) Publish(ctx context.Context, draft *Draft) (*Image, error) {
	done, err := r.begin()
	if err != nil {
		return nil, err
	}
	defer done()
	return r.publish(ctx, draft, nil)
}

// errLeftover says that objects named by the manifest's digest are there, from a publication that was cut short, and are
// about to be removed.
var errLeftover = errors.New("what an interrupted publication of the same image left is being removed; capture again")

// publish publishes under a hold; nil means one that begins when all tiles are in packs.
func (r *Repository) publish(ctx context.Context, draft *Draft, h *hold) (*Image, error) {
	m := draft.Manifest
	raw, d, err := m.Encode()
	if err != nil {
		return nil, err
	}
	fail := func(err error) (*Image, error) {
		return nil, fmt.Errorf("publish image %s:%s: %w", m.Name, m.Version, err)
	}
	switch known, err := r.version(ctx, m.Name, m.Version); {
	case err == nil && known == d:
		// It may be the work of a process that was killed before it had made the version durable.
		if err := r.putVersion(ctx, m, d); err != nil {
			return fail(err)
		}
		return r.Manifest(ctx, d)
	case err == nil:
		return fail(ErrVersionExists)
	case !errors.Is(err, ErrNoImage):
		return fail(err)
	}
	if err := r.expectNotRemoved(ctx, m.Name, m.Version); err != nil {
		return fail(err)
	}
	layers, err := draft.check()
	if err != nil {
		return fail(err)
	}
	if err := r.sealAll(ctx); err != nil {
		return fail(err)
	}
	soon, err := r.refreshMarks(ctx)
	if err != nil {
		return fail(err)
	}
	if h == nil {
		h = &hold{begun: now(), life: r.cfg.SessionLife, marked: soon}
	}
	for _, key := range imageKeys(m, d) {
		if soon.has(key) {
			return fail(errLeftover)
		}
	}
	placements, err := r.place(ctx, draft, layers, h)
	if err != nil {
		return fail(err)
	}
	image := &Image{Manifest: m, Raw: raw, Signature: draft.Sign(raw), Digest: d}
	if err := r.write(ctx, image, layers, placements, soon); err != nil {
		return fail(err)
	}
	if err := h.check(); err != nil {
		return fail(err)
	}
	if err := r.putVersion(ctx, m, d); err != nil {
		return fail(err)
	}
	r.log.Info("image published", "image", m.Name+":"+m.Version, "digest", d)
	return image, nil
}

// imageKeys are the keys of the objects that an image alone has.
func imageKeys(m *images.Manifest, d images.Digest) []string {
	keys := []string{manifestKey(d), signatureKey(d)}
	for i := range m.Partitions {
		keys = append(keys, placementKey(d, &m.Partitions[i]))
	}
	return keys
}

// write creates the objects of an image, but for its version, in the order in which they depend on each other.
func (r *Repository) write(ctx context.Context, image *Image, layers map[images.Digest][]byte, placements []*placement, soon marked) error {
	for d, b := range layers {
		if err := r.putLayer(ctx, d, b, soon, r.bucket.Delete); err != nil {
			return err
		}
	}
	for i, p := range placements {
		if p.tiles == 0 {
			continue
		}
		if err := r.putSame(ctx, placementKey(image.Digest, &image.Manifest.Partitions[i]), p.encode()); err != nil {
			return err
		}
	}
	if err := r.putSame(ctx, signatureKey(image.Digest), image.Signature); err != nil {
		return err
	}
	return r.putSame(ctx, manifestKey(image.Digest), image.Raw)
}

// check returns the layers by digest after checking that the manifest's layers are there, and that maps, tile layers,
// piece layers and roots agree with each other.
func (draft *Draft) check() (map[images.Digest][]byte, error) {
	m := draft.Manifest
	given := map[images.Digest][]byte{}
	for _, b := range draft.Layers {
		given[images.Sum(b)] = b
	}
	layers := map[images.Digest][]byte{} // those that are named
	need := func(ref images.Ref) ([]byte, error) {
		b, ok := given[ref.Digest]
		if !ok || int64(len(b)) != ref.Length {
			return nil, fmt.Errorf("layer %s of %d bytes is missing", ref.Digest.Short(), ref.Length)
		}
		layers[ref.Digest] = b
		return b, nil
	}
	for _, ref := range m.Frame.Region {
		if _, err := need(ref); err != nil {
			return nil, err
		}
	}
	shape, err := layout.Load(m, need)
	if err != nil {
		return nil, err
	}
	if len(draft.Tiles) != len(m.Partitions) {
		return nil, fmt.Errorf("tiles of %d partitions, the manifest has %d", len(draft.Tiles), len(m.Partitions))
	}
	for i := range m.Partitions {
		p := &m.Partitions[i]
		if int64(len(draft.Tiles[i])) != p.DataTiles {
			return nil, fmt.Errorf("partition %d: %d tiles were put, the manifest has %d", p.Number, len(draft.Tiles[i]), p.DataTiles)
		}
		if p.DataTiles == 0 {
			continue
		}
		b, err := need(p.TileLayer)
		if err != nil {
			return nil, fmt.Errorf("partition %d: %w", p.Number, err)
		}
		if err := checkTiles(shape, i, b); err != nil {
			return nil, fmt.Errorf("partition %d: %w", p.Number, err)
		}
	}
	return layers, nil
}

// checkTiles checks the tile layer of a partition against the hashes of its pieces.
func checkTiles(shape *layout.Layout, partition int, tileLayer []byte) error {
	hashes, err := splitDigests(tileLayer, int64(len(tileLayer)/32))
	if err != nil {
		return err
	}
	first, end := shape.Pieces(partition)
	for piece := first; piece < end; piece++ {
		n := shape.Data(piece).Len()
		if n == 0 {
			continue
		}
		if n > len(hashes) {
			return errors.New("the tile layer is too short")
		}
		if err := shape.CheckHashes(piece, hashes[:n]); err != nil {
			return err
		}
		hashes = hashes[n:]
	}
	if len(hashes) > 0 {
		return errors.New("the tile layer is too long")
	}
	return nil
}
