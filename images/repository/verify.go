package repository

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"seedbed/images"
	"seedbed/images/tile"
)

// Damage is content of an image that is missing or wrong in the repository.
type Damage struct {
	Image     string        // "debian:1"
	Partition int           // number of the partition; -1 if it is not in one
	Extent    images.Extent // bytes of the partition; its Length is 0 if Partition is -1
	Object    string        // key of the object: "packs/1f3a..."
	Err       error
}

func (d *Damage) Error() string {
	if d.Partition < 0 {
		return fmt.Sprintf("image %s: object %s: %v", d.Image, d.Object, d.Err)
	}
	return fmt.Sprintf("image %s: partition %d, bytes %v: object %s: %v", d.Image, d.Partition, d.Extent, d.Object, d.Err)
}

func (d *Damage) Unwrap() error { return d.Err }

// DamageError is all that Verify found.
type DamageError struct {
	Damage []*Damage // in ascending order within a partition; ranges that touch are joined
	More   int       // further damage that is not listed
}

func (e *DamageError) Error() string {
	var b strings.Builder
	for i, d := range e.Damage {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(d.Error())
	}
	if e.More > 0 {
		fmt.Fprintf(&b, "\nand %d more", e.More)
	}
	return b.String()
}

// maxDamage bounds the list of a DamageError.
const maxDamage = 1000

// Progress says how far a long operation is, in decoded bytes.
type Progress struct{ Done, Total int64 }

// VerifyConfig says how to verify; the zero value is usable.
type VerifyConfig struct {
	// BytesPerSecond bounds what is read from the bucket; 0 means no bound.
	BytesPerSecond int64
	// Progress, if not nil, is called often and one at a time; it must not block.
	Progress func(Progress)
}

// Verify is VerifyImage at full speed.
func (r *Repository) Verify(ctx context.Context, d images.Digest, progress func(Progress)) error {
	return r.VerifyImage(ctx, d, VerifyConfig{Progress: progress})
}

// VerifyImage reads everything that an image needs from the bucket, decodes and hashes every tile, and returns a
// *DamageError that names each damaged object and the byte ranges it concerns. No capture uses tiles that were found
// damaged: it stores them anew. The signature is the caller's to check. Progress is in decoded bytes.
func (r *Repository) VerifyImage(ctx context.Context, d images.Digest, cfg VerifyConfig) error {
	done, err := r.begin()
	if err != nil {
		return err
	}
	defer done()
	image, err := r.Manifest(ctx, d)
	if err != nil {
		if ctx.Err() != nil || errors.Is(err, ErrNoImage) {
			return err
		}
		return &DamageError{Damage: []*Damage{{Image: d.Short(), Partition: -1, Object: manifestKey(d), Err: err}}}
	}
	v := &verification{r: r, image: image, progress: cfg.Progress, pace: newPace(cfg.BytesPerSecond), bad: map[images.Digest]badRecords{}}
	if err := v.layers(ctx); err != nil {
		return err
	}
	if len(v.found.Damage) == 0 {
		if err := v.tiles(ctx); err != nil {
			return err
		}
	}
	r.condemnAll(ctx, v.bad)
	if len(v.found.Damage) > 0 {
		return &v.found
	}
	return nil
}

// verification is one VerifyImage.
type verification struct {
	r        *Repository
	image    *Image
	progress func(Progress)
	pace     *pace

	// checked says of layers what is wrong with them, once they were read; nil remembers nothing.
	checked map[images.Digest]error
	// packs says what is wrong with packs whose tiles are therefore damaged; set before tiles are read.
	packs map[images.Digest]error

	mu    sync.Mutex
	found DamageError // guarded by mu, as all below
	done  Progress
	bad   map[images.Digest]badRecords // not to be used any more
}

func (v *verification) name() string { return v.image.Manifest.Name + ":" + v.image.Manifest.Version }

func (v *verification) add(d *Damage) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.found.Damage) == maxDamage {
		v.found.More++
		return
	}
	v.found.Damage = append(v.found.Damage, d)
}

// layers checks every layer and placement by itself. Without them no tile can be looked for.
func (v *verification) layers(ctx context.Context) error {
	m := v.image.Manifest
	check := func(p *images.Partition, object string, err error) error {
		if err == nil || ctx.Err() != nil {
			return ctx.Err()
		}
		damage := &Damage{Image: v.name(), Partition: -1, Object: object, Err: err}
		if p != nil {
			damage.Partition, damage.Extent = p.Number, images.Extent{Length: p.Length}
		}
		v.add(damage)
		return nil
	}
	for _, ref := range m.Frame.Region {
		err := v.layer(ctx, ref)
		if err := check(nil, layerKey(ref.Digest), err); err != nil {
			return err
		}
	}
	for i := range m.Partitions {
		p := &m.Partitions[i]
		for _, ref := range []images.Ref{p.Map, p.PieceLayer, p.TileLayer} {
			if ref.Length == 0 {
				continue
			}
			err := v.layer(ctx, ref)
			if err := check(p, layerKey(ref.Digest), err); err != nil {
				return err
			}
		}
		if p.DataTiles == 0 {
			continue
		}
		_, _, err := v.r.placement(ctx, v.image.Digest, p)
		if err := check(p, placementKey(v.image.Digest, p), err); err != nil {
			return err
		}
	}
	return nil
}

// layer checks one layer.
func (v *verification) layer(ctx context.Context, ref images.Ref) error {
	if err, known := v.checked[ref.Digest]; known {
		return err
	}
	err := v.pace.wait(ctx, ref.Length)
	if err == nil {
		err = v.r.checkLayer(ctx, ref)
	}
	if v.checked != nil && ctx.Err() == nil {
		v.checked[ref.Digest] = err
	}
	return err
}

// tiles checks every tile, and the tile layers against the pieces, on all cores.
func (v *verification) tiles(ctx context.Context) error {
	x, err := v.r.OpenImage(ctx, v.image.Digest)
	if err != nil {
		return err
	}
	v.done.Total = x.shape.DataLength()
	if err := v.checkPacks(ctx, x); err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.NumCPU())
	for piece := range x.shape.Count() {
		if x.shape.Data(piece).IsEmpty() {
			continue
		}
		if ctx.Err() != nil {
			break
		}
		group.Go(func() error { return v.piece(ctx, x, piece) })
	}
	if err := group.Wait(); err != nil {
		return err
	}
	v.found.sort()
	return nil
}

// checkPacks reads the frame of every pack: magic, index and trailer, which may be in memory from earlier.
func (v *verification) checkPacks(ctx context.Context, x *Reader) error {
	v.packs = map[images.Digest]error{}
	for i := range x.parts {
		for _, id := range x.parts[i].placement.packs {
			v.packs[id] = nil
		}
	}
	var mu sync.Mutex // guards v.packs
	group, fetching := errgroup.WithContext(ctx)
	group.SetLimit(parallelFetches)
	for _, id := range slices.Collect(maps.Keys(v.packs)) {
		group.Go(func() error {
			err := v.r.checkFrame(fetching, id)
			mu.Lock()
			defer mu.Unlock()
			v.packs[id] = err
			if errors.Is(err, errPackDamaged) || errors.Is(err, ErrNotExist) {
				v.bad[id] = badRecords{all: true}
			}
			return fetching.Err()
		})
	}
	return group.Wait()
}

// fetch returns what reads tiles: from the bucket as it is now, and not from packs that are broken.
func (v *verification) fetch(x *Reader) fetcher {
	return func(ctx context.Context, id images.Digest, start, end int64) ([]byte, error) {
		if err := v.packs[id]; err != nil {
			return nil, err
		}
		if err := v.pace.wait(ctx, end-start); err != nil {
			return nil, err
		}
		return x.fetchDirect(ctx, id, start, end)
	}
}

// condemn notes the record of a tile as damaged.
func (v *verification) condemn(x *Reader, partition int, t int64) {
	rank, _ := x.rank(partition, t)
	id, ordinal := x.parts[partition].placement.at(rank)
	v.mu.Lock()
	defer v.mu.Unlock()
	v.bad[id] = v.bad[id].with(badRecords{ordinals: map[uint32]bool{ordinal: true}})
}

// piece checks the tiles of one piece: together, and one at a time if something is wrong.
func (v *verification) piece(ctx context.Context, x *Reader, piece int) error {
	opened := x
	x = opened.now()
	s, data := x.shape.Span(piece), x.shape.Data(piece)
	var tiles []int64
	length := int64(0)
	for t := range data.All() {
		tiles = append(tiles, s.Offset/images.TileLength+int64(t))
		length += int64(x.shape.TileLength(piece, t))
	}
	hashes, err := x.pieceHashes(ctx, piece)
	var damage *Damage
	if errors.As(err, &damage) {
		v.add(damage)
	} else if err != nil {
		return err
	} else if list, err := x.read(ctx, s.Partition, tiles, v.fetch(x), false); packGone(err) && x == opened {
		// A prune may have rewritten the pack since the image was opened.
		if _, err := opened.renew(ctx, x); err != nil {
			return err
		}
		return v.piece(ctx, opened, piece)
	} else if err == nil {
		for i, t := range tiles {
			v.hash(x, piece, t, list[i], hashes)
		}
	} else {
		for _, t := range tiles {
			one, err := x.read(ctx, s.Partition, []int64{t}, v.fetch(x), false)
			var damage *Damage
			if errors.As(err, &damage) {
				v.add(damage)
				if errors.Is(err, errRecord) {
					v.condemn(x, s.Partition, t)
				}
			} else if err != nil {
				return err
			} else {
				v.hash(x, piece, t, one[0], hashes)
			}
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.done.Done += length
	if v.progress != nil {
		v.progress(v.done)
	}
	return nil
}

// hash decodes a tile and compares its hash.
func (v *verification) hash(x *Reader, piece int, t int64, e tile.Encoded, hashes []images.Digest) {
	partition := x.shape.Span(piece).Partition
	rank, _ := x.rank(partition, t)
	raw, err := e.Decode(nil)
	if err == nil && tile.Hash(raw) != hashes[rank-x.before[piece]] {
		err = errors.New("the tile has another hash")
	}
	if err != nil {
		place := x.parts[partition].placement
		id := place.packs[place.runs[place.find(rank)].pack]
		v.add(x.damage(context.Background(), partition, []int64{t}, packKey(id), err).(*Damage))
		v.condemn(x, partition, t)
	}
}

// damage describes tiles that cannot be read; the end of ctx is no damage.
func (x *Reader) damage(ctx context.Context, partition int, tiles []int64, object string, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	p := x.parts[partition].p
	start, end := tiles[0]*images.TileLength, (tiles[len(tiles)-1]+1)*images.TileLength
	m := x.image.Manifest
	return &Damage{m.Name + ":" + m.Version, p.Number, images.Extent{Offset: start, Length: min(end, p.Length) - start}, object, err}
}

// sort orders the list by partition and position, and joins ranges of one object that touch.
func (e *DamageError) sort() {
	slices.SortFunc(e.Damage, func(a, b *Damage) int {
		return cmp.Or(cmp.Compare(a.Partition, b.Partition), cmp.Compare(a.Extent.Offset, b.Extent.Offset))
	})
	joined := e.Damage[:0]
	for _, d := range e.Damage {
		if k := len(joined); k > 0 {
			last := joined[k-1]
			if last.Partition == d.Partition && last.Object == d.Object && d.Partition >= 0 && last.Extent.End() == d.Extent.Offset {
				last.Extent.Length += d.Extent.Length
				continue
			}
		}
		joined = append(joined, d)
	}
	e.Damage = joined
}
