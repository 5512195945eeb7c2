package repository

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"seedbed/images"
	"seedbed/images/tile"
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
	if err != nil {
		return fmt.Errorf("object %s is nothing that can be restored", d.Object)
	}
	from, ok := h.source.(LayerSource)
	if !ok {
		return errors.New("nobody was given who has it; capture the disk again")
	}
	b, err := from.Layer(ctx, digest)
	if err != nil {
		return err
	}
	if images.Sum(b) != digest {
		return errors.New("what was given for it has another digest")
	}
	if err := h.replace(ctx, d.Object, b); err != nil {
		return err
	}
	if d.Object == manifestKey(h.digest) {
		if _, err := h.r.Manifest(ctx, h.digest); err != nil { // its signature may be lost too
			return h.signature(ctx)
		}
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

// replace writes an object anew.
func (h *healing) replace(ctx context.Context, key string, b []byte) error {
	if err := h.claim.delete(ctx, key); err != nil {
		return err
	}
	if err := h.r.bucket.Put(ctx, key, bytes.NewReader(b), int64(len(b))); err != nil {
		return err
	}
	h.report.Objects = append(h.report.Objects, key)
	return nil
}

// brokenTile is a data tile of the image whose record is damaged.
type brokenTile struct {
	damage    *Damage
	partition int
	tile      int64
	key       images.TileKey
	at        packRecord
}

// tiles heals tiles.
func (h *healing) tiles(ctx context.Context, x *Reader, damage []*Damage) error {
	var broken []brokenTile
	bad := map[images.Digest]badRecords{}
	for _, d := range damage {
		list, err := h.broken(ctx, x, d)
		if err != nil {
			return err
		}
		for _, b := range list {
			broken = append(broken, b)
			bad[b.at.pack] = bad[b.at.pack].with(badRecords{ordinals: map[uint32]bool{b.at.ordinal: true}})
		}
	}
	// Nobody finds them from here on, so that what is stored below is not taken for known.
	if err := h.r.condemnAll(ctx, bad); err != nil {
		return err
	}
	var good []brokenTile
	for _, b := range broken {
		copied, err := h.store(ctx, b)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			h.fail(b.damage, fmt.Errorf("tile %d of partition %d: %w", b.tile, x.parts[b.partition].p.Number, err))
			continue
		}
		if good = append(good, b); copied {
			h.report.Copied++
		}
	}
	if err := h.r.sealAll(ctx); err != nil {
		return err
	}
	for _, b := range good {
		to, err := h.locate(b.key)
		if err != nil {
			return err
		}
		h.moved[b.at] = to
	}
	h.report.Tiles = len(good)
	return h.lead(ctx)
}

// broken returns the tiles of a damaged range that really cannot be read.
func (h *healing) broken(ctx context.Context, x *Reader, d *Damage) (list []brokenTile, err error) {
	for i := range x.parts {
		if x.parts[i].p.Number != d.Partition {
			continue
		}
		for t := d.Extent.Offset / images.TileLength; t*images.TileLength < d.Extent.End(); t++ {
			rank, ok := x.rank(i, t)
			if !ok {
				continue
			}
			piece, _ := x.shape.Piece(i, t)
			hashes, err := x.pieceHashes(ctx, piece)
			if err != nil {
				if ctx.Err() != nil {
					return nil, ctx.Err()
				}
				h.fail(d, err)
				return nil, nil
			}
			b := brokenTile{damage: d, partition: i, tile: t, key: images.TileKey{Hash: hashes[rank-x.before[piece]],
				Length: int32(min(images.TileLength, x.parts[i].p.Length-t*images.TileLength))}}
			b.at.pack, b.at.ordinal = x.parts[i].placement.at(rank)
			if _, known := h.packs[b.at.pack]; !known {
				h.packs[b.at.pack] = h.r.checkFrame(ctx, b.at.pack)
			}
			one, err := x.read(ctx, i, []int64{t}, x.fetchDirect)
			if err == nil && h.packs[b.at.pack] == nil {
				var raw []byte
				if raw, err = one[0].Decode(nil); err == nil && tile.KeyOf(raw) == b.key {
					continue // it is good
				}
			}
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			list = append(list, b)
		}
	}
	return list, nil
}

// store makes sure that the repository holds a good copy of a tile, and reports whether it did before.
func (h *healing) store(ctx context.Context, b brokenTile) (copied bool, err error) {
	for {
		at, ok, err := h.r.Find(b.key)
		if err != nil {
			return false, err
		}
		if !ok {
			break
		}
		if copied, err := h.r.holds(ctx, at, b.key); copied || err != nil {
			return copied, err
		}
	}
	if h.source == nil {
		return false, errors.New("no other copy is in the repository, and nobody was given who has it; capture the disk again, or heal from a machine that holds the image")
	}
	raw, err := h.source.Tile(ctx, h.digest, b.partition, b.tile, b.key)
	if err != nil {
		return false, err
	}
	if len(raw) == 0 || len(raw) > images.TileLength || tile.KeyOf(raw) != b.key {
		return false, errors.New("what was given for it has another hash")
	}
	e, err := tile.Encode(tile.Zstd, 0, raw)
	if err == nil {
		_, err = h.r.Put(ctx, b.key, e)
	}
	return false, err
}

// holds reports whether a location has the tile. One that has not is not found again.
func (r *Repository) holds(ctx context.Context, at Location, key images.TileKey) (bool, error) {
	name := r.packKeyOf(at.pack)
	if name == "" {
		return true, nil // it was just stored
	}
	id, _ := packID(name)
	f, err := r.frame(ctx, id)
	bad := badRecords{all: err != nil, ordinals: map[uint32]bool{at.ordinal: true}}
	if err == nil && int(at.ordinal) < f.count() {
		start, end := f.record(at.ordinal)
		var raw []byte
		if raw, err = fetchRange(ctx, r.bucket, name, start, end-start); err == nil {
			found, t, e := decodeRecord(raw)
			if e == nil && found == key {
				if raw, e = t.Decode(nil); e == nil && tile.KeyOf(raw) == key {
					return true, nil
				}
			}
		}
	}
	if ctx.Err() != nil {
		return false, ctx.Err()
	}
	return false, r.condemnRecords(ctx, id, bad)
}

// locate returns where a tile lies in the bucket.
func (h *healing) locate(key images.TileKey) (packRecord, error) {
	at, ok, err := h.r.Find(key)
	if err != nil {
		return packRecord{}, err
	}
	id, sealed := packID(h.r.packKeyOf(at.pack))
	if !ok || !sealed {
		return packRecord{}, fmt.Errorf("tile %v is not where it was put", key)
	}
	return packRecord{id, at.ordinal}, nil
}

// lead makes the placements of all images lead to the good records.
func (h *healing) lead(ctx context.Context) error {
	if len(h.moved) == 0 {
		return nil
	}
	list, err := h.r.Images(ctx)
	if err != nil {
		return err
	}
	for _, l := range list {
		i := &liveImage{name: l.Name, version: l.Version}
		if err := h.r.loadLive(ctx, i); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			h.r.log.Warn("image cannot be read and is not healed with others", "image", i.String(), "err", err)
			continue
		}
		if i.m == nil {
			continue
		}
		led := false
		for k, old := range i.places {
			place, changed := old.lead(h.moved)
			if !changed {
				continue
			}
			if err := h.claim.check(ctx); err != nil {
				return err
			}
			if _, err := h.r.putPlacement(ctx, i.digest, &i.m.Partitions[k], i.generations[k], place); err != nil {
				return err
			}
			led = true
		}
		if led {
			h.report.Images = append(h.report.Images, i.String())
		}
	}
	return nil
}
