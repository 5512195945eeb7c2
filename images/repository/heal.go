package repository

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"seedbed/images"
)

// TileSource has tiles of images: a machine that holds the image on its disk, for example. Whatever it returns is checked.
type TileSource interface {
	// Tile returns the decoded, masked bytes of a tile. partition is an index into the manifest's partitions, tile counts
	// from the partition's start.
	Tile(ctx context.Context, image images.Digest, partition int, tile int64, key images.TileKey) ([]byte, error)
}

// LayerSource is a TileSource that also has maps, layers, frame regions and manifests, by their digest.
type LayerSource interface {
	Layer(ctx context.Context, d images.Digest) ([]byte, error)
}

// Signer is a TileSource that can sign manifests.
type Signer interface {
	Sign(manifest []byte) []byte
}

// HealReport says what was healed.
type HealReport struct {
	Tiles   int      // that were damaged and are good now
	Copied  int      // of them, found elsewhere in the repository
	Objects []string // that were written anew: layers, manifests, signatures, placements
	Images  []string // whose placements lead elsewhere now
	// Failed is what could not be healed, and why.
	Failed []*Damage
}

// Heal makes good what Verify found damaged of an image. A tile is taken from another pack of the repository if it is there,
// else from source, which may be nil; its hash is checked. Good tiles go into new packs, every image that used a damaged
// record gets a new placement, and nobody uses the record again. Layers, manifests and signatures come from a source that is
// a LayerSource and a Signer too. It waits while the repository is pruned. What could not be healed is in the report; an
// error says that healing was cut short, and may be repeated.
func (r *Repository) Heal(ctx context.Context, d images.Digest, damage []*Damage, source TileSource) (*HealReport, error) {
	done, err := r.begin()
	if err != nil {
		return nil, err
	}
	defer done()
	h := &healing{r: r, digest: d, source: source, report: &HealReport{}, moved: map[packRecord]packRecord{}, packs: map[images.Digest]error{}}
	if h.claim, err = r.waitForClaim(ctx); err != nil {
		return h.report, fmt.Errorf("heal image %s: %w", d.Short(), err)
	}
	defer h.claim.release()
	if err := h.run(ctx, damage); err != nil {
		return h.report, fmt.Errorf("heal image %s: %w", d.Short(), err)
	}
	r.log.Info("image healed", "digest", d, "tiles", h.report.Tiles, "copied", h.report.Copied, "objects", len(h.report.Objects),
		"failed", len(h.report.Failed))
	return h.report, nil
}

// claimAgain is how often a claim that another process has is asked for.
const claimAgain = 5 * time.Second

// waitForClaim is claim, once nobody else has it.
func (r *Repository) waitForClaim(ctx context.Context) (*claim, error) {
	for {
		c, err := r.claim(ctx)
		if !errors.Is(err, ErrPruning) {
			return c, err
		}
		select {
		case <-time.After(claimAgain): // another computer has it, which tells nobody when it is done
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), err)
		}
	}
}

// packRecord is a record of a pack.
type packRecord struct {
	pack    images.Digest
	ordinal uint32
}

// healing is one Heal.
type healing struct {
	r      *Repository
	digest images.Digest
	source TileSource
	claim  *claim
	report *HealReport
	moved  map[packRecord]packRecord // from damaged records to good ones
	packs  map[images.Digest]error   // what is wrong with a pack as a whole
}

func (h *healing) fail(d *Damage, err error) {
	failed := *d
	failed.Err = err
	h.report.Failed = append(h.report.Failed, &failed)
}

func (h *healing) run(ctx context.Context, damage []*Damage) error {
	if _, err := h.r.refresh(ctx); err != nil {
		return err
	}
	var tiles, places []*Damage
	objects := map[string]bool{}
	for _, d := range damage {
		switch prefix, _, _ := strings.Cut(d.Object, "/"); {
		case prefix == "packs":
			tiles = append(tiles, d)
		case prefix == "placements":
			places = append(places, d)
		case !objects[d.Object]:
			objects[d.Object] = true
			if err := h.object(ctx, d); err != nil {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				h.fail(d, err)
			}
		}
	}
	if len(places) > 0 {
		if err := h.places(ctx, places); err != nil {
			return err
		}
	}
	if len(tiles) == 0 {
		return nil
	}
	x, err := h.r.OpenImage(ctx, h.digest)
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		for _, d := range tiles {
			h.fail(d, fmt.Errorf("the image cannot be opened: %w", err))
		}
		return nil
	}
	return h.tiles(ctx, x, tiles)
}

// object restores a layer, a manifest or a signature.
func (h *healing) object(ctx context.Context, d *Damage) error {
	if d.Object == signatureKey(h.digest) {
		return h.signature(ctx)
	}
	name := d.Object[strings.LastIndexByte(d.Object, '/')+1:]
	name, _ = generationOf(name)
	digest, err := images.ParseDigest(name)
	switch {
	case err != nil:
		return fmt.Errorf("object %s is nothing that can be restored", d.Object)
	case strings.HasPrefix(d.Object, "layers/"):
		return h.layer(ctx, digest)
	case d.Object == manifestKey(h.digest):
		return h.manifest(ctx)
	}
	return fmt.Errorf("object %s is nothing that can be restored", d.Object)
}

// layer makes a layer readable, from another generation if one is good.
func (h *healing) layer(ctx context.Context, d images.Digest) error {
	b, found, err := h.r.goodLayer(ctx, d)
	if found {
		return nil // it could not be read for a moment only
	}
	if err != nil {
		if b, err = h.given(ctx, d); err != nil {
			return err
		}
	}
	if err := h.r.putLayer(ctx, d, b, nil, h.claim.delete); err != nil {
		return err
	}
	keys, err := h.r.layerKeys(ctx, d)
	if err != nil {
		return err
	}
	for _, key := range keys { // a damaged one that no reader comes to would stay for ever
		if same, err := h.r.same(ctx, key, b); err == nil && !same {
			if err := h.claim.delete(ctx, key); err != nil {
				return err
			}
		}
	}
	h.report.Objects = append(h.report.Objects, layerKey(d))
	return nil
}

// given returns what the source has for a digest.
func (h *healing) given(ctx context.Context, d images.Digest) ([]byte, error) {
	from, ok := h.source.(LayerSource)
	if !ok {
		return nil, errors.New("nobody was given who has it; capture the disk again")
	}
	b, err := from.Layer(ctx, d)
	if err == nil && images.Sum(b) != d {
		err = errors.New("what was given for it has another digest")
	}
	return b, err
}

// manifest restores the manifest, and its signature if that is lost too.
func (h *healing) manifest(ctx context.Context) error {
	if _, err := h.r.Manifest(ctx, h.digest); err == nil {
		return nil // it could not be read for a moment only
	}
	raw, err := fetch(ctx, h.r.bucket, manifestKey(h.digest), images.MaxManifestLength)
	if err != nil && !h.r.certain(err) {
		return err
	}
	if err != nil || images.Sum(raw) != h.digest {
		if raw, err = h.given(ctx, h.digest); err != nil {
			return err
		}
		if err := h.replace(ctx, manifestKey(h.digest), raw); err != nil {
			return err
		}
	}
	if _, err := h.r.Manifest(ctx, h.digest); err != nil {
		return h.signature(ctx)
	}
	return nil
}

// signature signs the manifest anew.
func (h *healing) signature(ctx context.Context) error {
	raw, err := fetch(ctx, h.r.bucket, manifestKey(h.digest), images.MaxManifestLength)
	if err != nil {
		return err
	}
	by, ok := h.source.(Signer)
	if !ok || images.Sum(raw) != h.digest {
		return errors.New("it cannot be signed again")
	}
	return h.replace(ctx, signatureKey(h.digest), by.Sign(raw))
}

// replace writes a manifest or a signature anew.
func (h *healing) replace(ctx context.Context, key string, b []byte) error {
	if same, err := h.r.same(ctx, key, b); same || err != nil {
		return err
	}
	if err := h.claim.delete(ctx, key); err != nil {
		return err
	}
	err := h.r.put(ctx, key, b)
	if errors.Is(err, ErrExists) { // an attempt whose answer was lost
		if same, e := h.r.same(ctx, key, b); same && e == nil {
			err = nil
		}
	}
	if err == nil {
		h.report.Objects = append(h.report.Objects, key)
	}
	return err
}
