package repository

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"seedbed/images"
	"seedbed/images/layout"
)

// ErrVersionExists says that an image has that version already. Versions never change.
var ErrVersionExists = errors.New("the version exists already")

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
	layers, err := draft.check()
	if err != nil {
		return fail(err)
	}
	if err := r.sealAll(ctx); err != nil {
		return fail(err)
	}
	placements, err := r.place(ctx, draft, layers)
	if err != nil {
		return fail(err)
	}
	image := &Image{Manifest: m, Raw: raw, Signature: draft.Sign(raw), Digest: d}
	if err := r.write(ctx, image, layers, placements); err != nil {
		return fail(err)
	}
	r.log.Info("image published", "image", m.Name+":"+m.Version, "digest", d)
	return image, nil
}

// write creates the objects of an image in the order in which they depend on each other.
func (r *Repository) write(ctx context.Context, image *Image, layers map[images.Digest][]byte, placements []*placement) error {
	m := image.Manifest
	for d, b := range layers {
		if err := r.putSame(ctx, layerKey(d), b); err != nil {
			return err
		}
	}
	for i, p := range placements {
		if p.tiles == 0 {
			continue
		}
		if err := r.putSame(ctx, placementKey(image.Digest, &m.Partitions[i]), p.encode()); err != nil {
			return err
		}
	}
	if err := r.putSame(ctx, signatureKey(image.Digest), image.Signature); err != nil {
		return err
	}
	if err := r.putSame(ctx, manifestKey(image.Digest), image.Raw); err != nil {
		return err
	}
	return r.putVersion(ctx, m, image.Digest)
}

// putVersion makes the version name the digest, durably.
func (r *Repository) putVersion(ctx context.Context, m *images.Manifest, d images.Digest) error {
	name := []byte(d.String() + "\n")
	err := r.bucket.Put(ctx, versionKey(m.Name, m.Version), bytes.NewReader(name), int64(len(name)))
	if errors.Is(err, ErrExists) {
		if known, e := r.version(ctx, m.Name, m.Version); e == nil && known == d {
			return nil
		}
		return ErrVersionExists
	}
	return err
}

// putSame puts an object. One that exists with other bytes is damaged, or was left by a publication that was cut short:
// it is replaced.
func (r *Repository) putSame(ctx context.Context, key string, b []byte) error {
	err := r.bucket.Put(ctx, key, bytes.NewReader(b), int64(len(b)))
	if !errors.Is(err, ErrExists) {
		return err
	}
	there, err := fetch(ctx, r.bucket, key, math.MaxInt64)
	if err == nil && bytes.Equal(there, b) {
		return nil
	}
	r.log.Warn("object differs from what it should hold, writing it again", "object", key)
	if err := r.bucket.Delete(ctx, key); err != nil {
		return err
	}
	return r.bucket.Put(ctx, key, bytes.NewReader(b), int64(len(b)))
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

// reference is one data tile of a draft.
type reference struct {
	at        Location
	partition int32
	rank      int32 // data tiles of the partition before it
}

// errLocation says that the local index led to another tile than was asked for.
var errLocation = errors.New("the repository does not hold it where the local index says; capture again, it is then stored anew")

// place returns the placements of a draft. It looks every tile up in the index of its pack, which alone is evidence of
// what a pack holds, and counts the encoded length.
func (r *Repository) place(ctx context.Context, draft *Draft, layers map[images.Digest][]byte) ([]*placement, error) {
	m := draft.Manifest
	keys := make([]func(rank int32) images.TileKey, len(m.Partitions))
	var refs []reference
	for i, tiles := range draft.Tiles {
		p := &m.Partitions[i]
		layer := layers[p.TileLayer.Digest]
		tail := lastTileLength(layers, p)
		keys[i] = func(rank int32) images.TileKey {
			k := images.TileKey{Hash: images.Digest(layer[32*int64(rank):]), Length: images.TileLength}
			if int64(rank) == p.DataTiles-1 {
				k.Length = tail
			}
			return k
		}
		for rank, at := range tiles {
			refs = append(refs, reference{at, int32(i), int32(rank)})
		}
	}
	slices.SortFunc(refs, func(a, b reference) int {
		return cmp.Or(cmp.Compare(a.at.pack, b.at.pack), cmp.Compare(a.at.ordinal, b.at.ordinal),
			cmp.Compare(a.partition, b.partition), cmp.Compare(a.rank, b.rank))
	})
	lengths := make([]int64, len(m.Partitions))
	ids := map[uint32]images.Digest{}
	var entries []entry
	for i, ref := range refs {
		if i == 0 || ref.at.pack != refs[i-1].at.pack {
			id, list, err := r.indexOf(ctx, ref.at.pack)
			if err != nil {
				return nil, err
			}
			ids[ref.at.pack], entries = id, list
		}
		if int(ref.at.ordinal) >= len(entries) || entries[ref.at.ordinal].key != keys[ref.partition](ref.rank) {
			r.index.condemn(ref.at.pack)
			return nil, fmt.Errorf("partition %d: tile %d: %w", m.Partitions[ref.partition].Number, ref.rank, errLocation)
		}
		if i == 0 || ref.at != refs[i-1].at {
			lengths[ref.partition] += int64(entries[ref.at.ordinal].length)
		}
	}
	return placements(draft, ids, lengths), nil
}

// placements builds the placements from checked locations.
func placements(draft *Draft, ids map[uint32]images.Digest, lengths []int64) []*placement {
	var list []*placement
	for i, tiles := range draft.Tiles {
		p := &placement{encodedLength: lengths[i]}
		numbers := map[uint32]uint32{}
		for _, at := range tiles {
			n, ok := numbers[at.pack]
			if !ok {
				n = uint32(len(p.packs))
				numbers[at.pack] = n
				p.packs = append(p.packs, ids[at.pack])
			}
			p.add(n, at.ordinal)
		}
		list = append(list, p)
	}
	return list
}

// lastTileLength returns the length of the partition's last data tile.
func lastTileLength(layers map[images.Digest][]byte, p *images.Partition) int32 {
	if tail := p.Length % images.TileLength; tail != 0 {
		m, err := images.DecodeMap(layers[p.Map.Digest])
		if err == nil && m.State(p.Length/images.TileLength) == images.TileData {
			return int32(tail)
		}
	}
	return images.TileLength
}

// indexOf returns the ID and the index of a pack in the bucket.
func (r *Repository) indexOf(ctx context.Context, handle uint32) (images.Digest, []entry, error) {
	p, err := r.packs.pack(handle)
	if err != nil {
		return images.Digest{}, nil, err
	}
	p.mu.Lock()
	id := p.id
	p.mu.Unlock()
	if id.IsZero() {
		return id, nil, errors.New("tiles were lost in the spool, whose disk reported an error; capture again")
	}
	entries, err := readIndex(ctx, r.bucket, id)
	if err != nil && ctx.Err() == nil {
		r.index.condemn(handle)
		err = fmt.Errorf("%w; capture again, its tiles are then stored anew", err)
	}
	return id, entries, err
}
