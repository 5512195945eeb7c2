package repository

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"runtime"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"seedbed/images"
	"seedbed/images/intake"
)

// VerifyAll verifies all images. Each pack that images use is read once, from its beginning to its end, and every tile in
// it is decoded and hashed. It returns a *DamageError as VerifyImage does; a damaged tile is named for each image that
// uses it. Progress is in bytes of packs.
func (r *Repository) VerifyAll(ctx context.Context, cfg VerifyConfig) error {
	done, err := r.begin()
	if err != nil {
		return err
	}
	defer done()
	a := &verifyAll{r: r, cfg: cfg, pace: newPace(cfg.BytesPerSecond), checked: map[images.Digest]error{}, uses: map[images.Digest][]tileUse{},
		bad: map[images.Digest]badRecords{}}
	list, err := r.Images(ctx)
	if err != nil {
		return err
	}
	for _, l := range list {
		if err := a.image(ctx, l); err != nil {
			return err
		}
	}
	if err := a.packs(ctx); err != nil {
		return err
	}
	r.condemnAll(ctx, a.bad)
	if err := a.name(ctx); err != nil {
		return err
	}
	if len(a.found.Damage) > 0 {
		slices.SortStableFunc(a.found.Damage, func(x, y *Damage) int { return cmp.Compare(x.Image, y.Image) })
		return &a.found
	}
	return nil
}

// verifyAll is one VerifyAll.
type verifyAll struct {
	r       *Repository
	cfg     VerifyConfig
	pace    *pace
	checked map[images.Digest]error // layers
	images  []verifiedPart
	uses    map[images.Digest][]tileUse // by pack
	found   DamageError

	mu    sync.Mutex
	done  Progress                     // guarded by mu, as all below
	bad   map[images.Digest]badRecords // not to be used any more
	wrong []wrongTile
}

// verifiedPart is a partition of an image.
type verifiedPart struct {
	name string
	p    *images.Partition
}

// tileUse says that an image has a run of records of a pack.
type tileUse struct {
	part        int // in images
	rank, count int64
	ordinal     uint32
}

// wrongTile is a tile of an image that cannot be read.
type wrongTile struct {
	part int
	rank int64
	pack images.Digest
	err  error
}

// image checks everything of an image but the records of its tiles.
func (a *verifyAll) image(ctx context.Context, l Listing) error {
	image, err := a.r.Manifest(ctx, l.Digest)
	if err != nil || l.Problem != "" {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		object := manifestKey(l.Digest)
		if l.Digest.IsZero() {
			object, err = versionKey(l.Name, l.Version), errors.New(l.Problem)
		}
		a.found.Damage = append(a.found.Damage, &Damage{Image: l.Name + ":" + l.Version, Partition: -1, Object: object, Err: err})
		return nil
	}
	v := &verification{r: a.r, image: image, checked: a.checked, pace: a.pace}
	if err := v.layers(ctx); err != nil {
		return err
	}
	if len(v.found.Damage) == 0 {
		if err := a.places(ctx, v); err != nil {
			return err
		}
	}
	v.found.sort()
	a.found.Damage, a.found.More = append(a.found.Damage, v.found.Damage...), a.found.More+v.found.More
	return nil
}

// places checks the tile layers against the pieces and the placements against the indexes of the packs, and notes which
// records the image uses.
func (a *verifyAll) places(ctx context.Context, v *verification) error {
	x, err := a.r.OpenImage(ctx, v.image.Digest)
	if err != nil {
		return err
	}
	indexes := newCache[images.Digest, []entry](a.r, 64<<20)
	first := len(a.images)
	for i := range x.parts {
		a.images = append(a.images, verifiedPart{v.name(), x.parts[i].p})
		place := x.parts[i].placement
		for k, run := range place.runs {
			id := place.packs[run.pack]
			a.uses[id] = append(a.uses[id], tileUse{first + i, run.start, place.end(k) - run.start, run.ordinal})
		}
	}
	for piece := range x.shape.Count() {
		if x.shape.Data(piece).IsEmpty() {
			continue
		}
		partition := x.shape.Span(piece).Partition
		hashes, err := x.pieceHashes(ctx, piece)
		var damage *Damage
		if errors.As(err, &damage) {
			v.add(damage)
			continue
		}
		if err != nil {
			return err
		}
		for i, h := range hashes {
			rank := x.before[piece] + int64(i)
			id, ordinal := x.parts[partition].placement.at(rank)
			entries, err := indexes.get(ctx, id, 0, func(ctx context.Context) ([]entry, int64, error) {
				list, err := readIndex(ctx, a.r.bucket, id)
				return list, int64(len(list)) * 64, err
			})
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err == nil && (int(ordinal) >= len(entries) || entries[ordinal].key.Hash != h) {
				a.wrong = append(a.wrong, wrongTile{first + partition, rank, id, fmt.Errorf("its record %d is not the tile %s", ordinal, h.Short())})
			}
		}
	}
	return nil
}

// packs reads all packs that images use, in their order, on all cores.
func (a *verifyAll) packs(ctx context.Context) error {
	ids := slices.SortedFunc(maps.Keys(a.uses), func(x, y images.Digest) int { return bytes.Compare(x[:], y[:]) })
	for _, id := range ids {
		if o, err := a.r.bucket.Stat(ctx, packKey(id)); err == nil {
			a.done.Total += o.Length
		}
	}
	group, reading := errgroup.WithContext(ctx)
	group.SetLimit(runtime.NumCPU())
	for _, id := range ids {
		if reading.Err() != nil {
			break
		}
		group.Go(func() error { return a.pack(reading, id) })
	}
	return group.Wait()
}

// pack reads one pack.
func (a *verifyAll) pack(ctx context.Context, id images.Digest) error {
	entries, err := a.r.readFrame(ctx, id)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		a.wrongRecords(id, badRecords{all: true}, err, errors.Is(err, errPackDamaged) || errors.Is(err, ErrNotExist))
		return nil
	}
	var buf []byte
	for first := 0; first < len(entries); {
		end := first + 1
		for end < len(entries) && entries[end].end()-entries[first].offset <= partLength {
			end++
		}
		if buf, err = a.records(ctx, id, entries, first, end, buf); err != nil {
			return err
		}
		first = end
	}
	return nil
}

// records reads the records [first, end) of a pack, together, and one at a time if they cannot be read. buf is scratch
// memory.
func (a *verifyAll) records(ctx context.Context, id images.Digest, entries []entry, first, end int, buf []byte) ([]byte, error) {
	start, length := entries[first].offset, entries[end-1].end()-entries[first].offset
	if err := a.pace.wait(ctx, length); err != nil {
		return buf, err
	}
	raw, err := fetchRange(ctx, a.r.bucket, packKey(id), start, length)
	if ctx.Err() != nil {
		return buf, ctx.Err()
	}
	if err != nil && end-first > 1 {
		for i := first; i < end; i++ {
			if buf, err = a.records(ctx, id, entries, i, i+1, buf); err != nil {
				return buf, err
			}
		}
		return buf, nil
	}
	if err != nil {
		damaged := errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, ErrNotExist)
		a.wrongRecords(id, badRecords{ordinals: map[uint32]bool{uint32(first): true}}, err, damaged)
		return buf, nil
	}
	for i := first; i < end; i++ {
		e := entries[i]
		key, t, err := decodeRecord(raw[e.offset-start : e.end()-start])
		if err == nil && key != e.key {
			err = fmt.Errorf("it holds %v where the index says %v", key, e.key)
		}
		if err == nil {
			if buf, err = (intake.Tile{Key: key, Encoded: t}).Check(buf); err != nil {
				err = fmt.Errorf("record %d: %w", i, err)
			}
		}
		if err != nil {
			a.wrongRecords(id, badRecords{ordinals: map[uint32]bool{uint32(i): true}}, err, true)
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.done.Done += length
	if a.cfg.Progress != nil {
		a.cfg.Progress(a.done)
	}
	return buf, nil
}

// wrongRecords notes for each image that uses them that records cannot be read, and if they are damaged for certain that
// nobody is to use them.
func (a *verifyAll) wrongRecords(id images.Digest, bad badRecords, err error, damaged bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if damaged {
		a.bad[id] = a.bad[id].with(bad)
	}
	for _, u := range a.uses[id] {
		for n := range u.count {
			if bad.has(u.ordinal + uint32(n)) {
				a.wrong = append(a.wrong, wrongTile{u.part, u.rank + n, id, err})
			}
		}
	}
}

// name makes damage of the wrong tiles: where they lie follows from the maps.
func (a *verifyAll) name(ctx context.Context) error {
	slices.SortStableFunc(a.wrong, func(x, y wrongTile) int { return cmp.Or(cmp.Compare(x.part, y.part), cmp.Compare(x.rank, y.rank)) })
	for len(a.wrong) > 0 {
		part := a.wrong[0].part
		n := slices.IndexFunc(a.wrong, func(w wrongTile) bool { return w.part != part })
		if n < 0 {
			n = len(a.wrong)
		}
		list := &DamageError{}
		p := a.images[part].p
		tiles, stop, err := a.r.pullTiles(ctx, p)
		if err != nil {
			return err
		}
		rank, t := int64(-1), int64(0)
		for i, w := range a.wrong[:n] {
			for rank < w.rank {
				t, _ = tiles()
				rank++
			}
			if i > 0 && w.rank == a.wrong[i-1].rank {
				continue // known
			}
			at := t * images.TileLength
			list.Damage = append(list.Damage, &Damage{a.images[part].name, p.Number,
				images.Extent{Offset: at, Length: min(images.TileLength, p.Length-at)}, packKey(w.pack), w.err})
		}
		stop()
		list.sort()
		a.found.Damage = append(a.found.Damage, list.Damage...)
		a.wrong = a.wrong[n:]
	}
	if more := len(a.found.Damage) - maxDamage; more > 0 {
		a.found.Damage, a.found.More = a.found.Damage[:maxDamage], a.found.More+more
	}
	return nil
}

// checkFrame reads what a pack has beside its records: magic, index and trailer.
func (r *Repository) checkFrame(ctx context.Context, id images.Digest) error {
	_, err := r.readFrame(ctx, id)
	return err
}

// readFrame is readIndex, and checks that the pack begins as one.
func (r *Repository) readFrame(ctx context.Context, id images.Digest) ([]entry, error) {
	entries, err := readIndex(ctx, r.bucket, id)
	if err != nil {
		return nil, err
	}
	magic, err := fetchRange(ctx, r.bucket, packKey(id), 0, int64(len(packMagic)))
	if err == nil && string(magic) != packMagic {
		err = fmt.Errorf("pack %s %w: it does not begin as a pack does", id, errPackDamaged)
	}
	return entries, err
}
