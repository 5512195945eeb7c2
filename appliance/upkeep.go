package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"seedbed/appliance/api"
	"seedbed/appliance/fleet"
	"seedbed/appliance/store"
	"seedbed/images"
	"seedbed/images/layout"
	"seedbed/images/repository"
)

// Codes of refusals about what the repository keeps.
const (
	codeImageUsed = "image-used" // by a deployment
	codePruning   = "pruning"    // another prune is at work
)

// Remove implements api.Upkeep.
func (l *library) Remove(ctx context.Context, ref string) error {
	name, version, exact := strings.Cut(ref, ":")
	if !exact || !images.ValidName(name) || !images.ValidName(version) {
		return &fleet.Refusal{Code: fleet.CodeInvalid, Detail: fmt.Sprintf("say which version is to be removed: NAME:VERSION, not %q", ref)}
	}
	d, err := l.repo.Resolve(ctx, ref)
	if errors.Is(err, repository.ErrNoImage) {
		return asRefusal(err)
	}
	if err == nil { // a damaged version names no image that could be in use
		use := l.usedBy
		if use == nil {
			use = l.usedByRecords
		}
		by, err := use(ctx, d)
		if err != nil {
			return err
		}
		if by != "" {
			return &fleet.Refusal{Code: codeImageUsed, Detail: fmt.Sprintf("image %s is used by %s", ref, by)}
		}
	}
	return asRefusal(l.repo.Remove(ctx, name, version))
}

// usedByRecords looks for deployments of an image in the records of an appliance that does not run.
func (l *library) usedByRecords(ctx context.Context, d images.Digest) (string, error) {
	path := filepath.Join(l.data, "records.db")
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	records, err := store.Open(ctx, path)
	if err != nil {
		return "", err
	}
	defer records.Close()
	s, err := records.Load(ctx, time.Now())
	if err != nil {
		return "", err
	}
	var jobs []fleet.Job
	for _, j := range s.Jobs {
		jobs = append(jobs, *j)
	}
	var deployments []fleet.Deployment
	for _, dep := range s.Deployments {
		deployments = append(deployments, *dep)
	}
	return userOf(d, deployments, jobs), nil
}

// usedByFleet looks for deployments of an image in a running fleet.
func usedByFleet(f *fleet.Fleet) func(context.Context, images.Digest) (string, error) {
	return func(_ context.Context, d images.Digest) (string, error) {
		var jobs []fleet.Job
		for _, j := range f.Jobs() {
			jobs = append(jobs, fleet.Job{ID: j.ID, Image: j.Image, State: j.State, Deployment: j.Deployment})
		}
		return userOf(d, f.Deployments(), jobs), nil
	}
}

// userOf names what uses an image and how that is ended, or returns "".
func userOf(d images.Digest, deployments []fleet.Deployment, jobs []fleet.Job) string {
	for _, dep := range deployments {
		if dep.Image == d && dep.All && !dep.Closed {
			return fmt.Sprintf("deployment %s to all machines; end it with `seedbed deployment close %s`", dep.ID, dep.ID)
		}
	}
	for _, j := range jobs {
		if j.Image == d && !j.State.Ended() {
			return fmt.Sprintf("job %s of deployment %s; wait for it, or end it with `seedbed job cancel %s`", j.ID, j.Deployment, j.ID)
		}
	}
	return ""
}

// isRefusal reports whether an error is the request's and not the appliance's.
func isRefusal(err error) bool {
	_, refused := errors.AsType[*fleet.Refusal](err)
	return refused
}

// Diff implements api.Upkeep.
func (l *library) Diff(ctx context.Context, from, to string) (*api.ImageDiff, error) {
	a, err := l.open(ctx, from)
	if err != nil {
		return nil, err
	}
	b, err := l.open(ctx, to)
	if err != nil {
		return nil, err
	}
	out := &api.ImageDiff{From: nameOf(a), To: nameOf(b), Partitions: []api.PartitionDiff{}}
	for p := range b.Image().Manifest.Partitions {
		d, err := diffPartition(ctx, a, b, p)
		if err != nil {
			return nil, asRefusal(err)
		}
		out.Partitions = append(out.Partitions, d)
	}
	return out, nil
}

func nameOf(r *repository.Reader) string {
	return r.Image().Manifest.Name + ":" + r.Image().Manifest.Version
}

// open opens an image, whose signature is checked.
func (l *library) open(ctx context.Context, ref string) (*repository.Reader, error) {
	image, err := l.image(ctx, ref)
	if err != nil {
		return nil, err
	}
	r, err := l.repo.OpenImage(ctx, image.Digest)
	return r, asRefusal(err)
}

// held is what a disk with an image has at the places of another image's partition.
type held struct {
	r         *repository.Reader
	shape     *layout.Layout
	partition int // index of the partition at the same place; -1: none
}

// at returns the state of a tile and its hash, if it holds data. Free tiles may hold anything.
func (h held) at(tile int64, length int) (images.TileState, images.Digest) {
	if h.partition < 0 || tile >= images.TileCount(h.shape.Map(h.partition).Length) {
		return images.TileFree, images.Digest{}
	}
	piece, in := h.shape.Piece(h.partition, tile)
	state := h.shape.Map(h.partition).State(tile)
	if state != images.TileData || h.shape.TileLength(piece, in) != length {
		return state, images.Digest{}
	}
	rank, hashes := 0, h.r.TileHashes(piece)
	for t := range h.shape.Data(piece).All() {
		if t == in {
			break
		}
		rank++
	}
	if rank >= len(hashes) {
		return images.TileFree, images.Digest{}
	}
	return state, hashes[rank]
}

// diffPartition compares partition p of b with what lies at its place on a disk with a.
func diffPartition(ctx context.Context, a, b *repository.Reader, p int) (api.PartitionDiff, error) {
	part := &b.Image().Manifest.Partitions[p]
	d := api.PartitionDiff{Number: part.Number, Total: part.DataTiles}
	old := held{r: a, shape: a.Layout(), partition: -1}
	for i := range a.Image().Manifest.Partitions {
		if a.Image().Manifest.Partitions[i].Offset == part.Offset {
			old.partition = i
		}
	}
	shape := b.Layout()
	first, end := shape.Pieces(p)
	for piece := first; piece < end; piece++ {
		var missing images.TileSet
		rank, hashes := 0, b.TileHashes(piece)
		data, start := shape.Data(piece), shape.Span(piece).Offset/images.TileLength
		if len(hashes) != data.Len() {
			return d, fmt.Errorf("image %s: the hashes of partition %d cannot be read", nameOf(b), part.Number)
		}
		for t := range data.All() {
			n := shape.TileLength(piece, t)
			if state, hash := old.at(start+int64(t), n); state != images.TileData || hash != hashes[rank] {
				missing.Add(t)
				d.Tiles++
				d.Length += int64(n)
			}
			rank++
		}
		for t := range shape.Zero(piece).All() {
			if state, _ := old.at(start+int64(t), 0); state != images.TileZero {
				d.ZeroTiles++
			}
		}
		n, err := encodedLength(ctx, b, piece, missing)
		if err != nil {
			return d, err
		}
		d.Encoded += n
	}
	return d, nil
}

// encodedLength reads tiles and counts their encoded bytes.
func encodedLength(ctx context.Context, r *repository.Reader, piece int, tiles images.TileSet) (n int64, err error) {
	if tiles.IsEmpty() {
		return 0, ctx.Err()
	}
	list, err := r.ReadPiece(ctx, piece, tiles)
	for _, e := range list {
		n += int64(len(e.Bytes))
	}
	return n, err
}

// Verify implements api.Upkeep.
func (l *library) Verify(ctx context.Context, o api.VerifyOrder, progress func(api.Progress)) (*api.VerifyReport, error) {
	refs := []string{o.Image}
	if o.Image == "" {
		list, err := l.repo.Images(ctx)
		if err != nil {
			return nil, err
		}
		refs = refs[:0]
		for _, i := range list {
			refs = append(refs, i.Name+":"+i.Version)
		}
	}
	report := &api.VerifyReport{Images: []api.VerifiedImage{}}
	done, total := int64(0), int64(0)
	for n, ref := range refs {
		base := done
		told := func(p repository.Progress) {
			done, total = base+p.Done, base+p.Total
			if n+1 < len(refs) {
				total++ // more follow
			}
			if progress != nil {
				progress(api.Progress{Done: done, Total: total})
			}
		}
		one, err := l.verify(ctx, ref, o, told)
		if err != nil {
			return nil, err
		}
		one.Checked = done - base
		report.Images = append(report.Images, *one)
	}
	return report, nil
}

// verify reads one image.
func (l *library) verify(ctx context.Context, ref string, o api.VerifyOrder, told func(repository.Progress)) (*api.VerifiedImage, error) {
	one := &api.VerifiedImage{Image: ref, Damage: []api.Damage{}}
	bad := func(object string, err error) {
		one.Damage = append(one.Damage, api.Damage{Partition: -1, Object: object, Text: err.Error()})
	}
	d, err := l.repo.Resolve(ctx, ref)
	switch {
	case errors.Is(err, repository.ErrNoImage):
		return nil, asRefusal(err)
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case err != nil:
		bad("images/"+strings.ReplaceAll(ref, ":", "/"), err)
		return one, nil
	}
	one.Digest = d
	if image, err := l.repo.Manifest(ctx, d); err == nil {
		one.Image = image.Manifest.Name + ":" + image.Manifest.Version
		if err := images.Verify(l.site.PublicKey(), image.Raw, image.Signature); err != nil {
			bad("manifests/"+d.String()+".sig", fmt.Errorf("image %s: %w", one.Image, err))
			return one, nil
		}
	}
	config := repository.VerifyConfig{BytesPerSecond: o.BytesPerSecond, Progress: told}
	for range maxHealRounds {
		again, err := l.verifyOnce(ctx, one, o, config)
		if err != nil || !again {
			return one, err
		}
	}
	return one, nil
}

// maxHealRounds bounds how often an image is verified again because more was damaged than one list holds.
const maxHealRounds = 100

// verifyOnce verifies an image and heals it if that is asked for; again says that there is more to be found.
func (l *library) verifyOnce(ctx context.Context, one *api.VerifiedImage, o api.VerifyOrder, config repository.VerifyConfig) (again bool, err error) {
	d := one.Digest
	err = l.repo.VerifyImage(ctx, d, config)
	found, ok := errors.AsType[*repository.DamageError](err)
	switch {
	case errors.Is(err, repository.ErrNoImage): // the version names a manifest that is gone
		one.Damage = append(one.Damage, api.Damage{Partition: -1, Object: "manifests/" + d.String(),
			Text: fmt.Sprintf("image %s: its manifest is lost: %v", one.Image, err)})
		return false, nil
	case err != nil && !ok:
		return false, err
	case err == nil:
		one.More = 0
		l.damaged.set(d, nil)
		return false, nil
	}
	if r, err := l.repo.OpenImage(ctx, d); err == nil {
		l.damaged.set(d, tilesOf(r, found.Damage))
	}
	failed := found.Damage
	if o.Heal {
		if failed, err = l.heal(ctx, d, found.Damage, o.HealFrom); err != nil {
			return false, err
		}
		if r, err := l.repo.OpenImage(ctx, d); err == nil {
			l.damaged.set(d, tilesOf(r, failed))
		}
	}
	one.More = found.More
	for _, e := range found.Damage {
		same := func(f *repository.Damage) bool {
			return f.Partition == e.Partition && f.Extent == e.Extent && f.Object == e.Object
		}
		a := api.Damage{Partition: e.Partition, Offset: e.Extent.Offset, Length: e.Extent.Length, Object: e.Object, Text: e.Error(), Healed: true}
		if i := slices.IndexFunc(failed, same); i >= 0 {
			if a.Healed = false; o.Heal && failed[i].Err != e.Err {
				a.Text += "; not healed: " + failed[i].Err.Error()
			}
		}
		if one.Damage = append(one.Damage, a); len(one.Damage) == api.MaxRanges {
			return false, nil
		}
	}
	return found.More > 0 && len(failed) == 0 || o.Heal && slices.ContainsFunc(found.Damage, isLayer) && len(failed) == 0, nil
}

// isLayer reports whether damage hides what else is damaged: without its layers the tiles of an image are not looked at.
func isLayer(d *repository.Damage) bool { return !strings.HasPrefix(d.Object, "packs/") }

// Prune implements api.Upkeep.
func (l *library) Prune(ctx context.Context, o api.PruneOrder, progress func(api.Progress)) (*api.PruneReport, error) {
	config := repository.PruneConfig{DryRun: o.DryRun, Grace: o.Grace, Progress: func(phase repository.PrunePhase, p repository.Progress) {
		if progress != nil && phase == repository.PruneCompact { // the others count objects, and are short
			progress(api.Progress{Done: p.Done, Total: p.Total})
		}
	}}
	r, err := l.repo.Prune(ctx, config)
	switch {
	case errors.Is(err, repository.ErrPruning):
		return nil, &fleet.Refusal{Code: codePruning, Detail: err.Error() + "; wait for it"}
	case err != nil:
		return nil, err
	}
	amount := func(a repository.Amount) api.Amount { return api.Amount{Objects: a.Objects, Bytes: a.Bytes} }
	return &api.PruneReport{
		DryRun: o.DryRun, Deleted: amount(r.Deleted), Marked: amount(r.Marked), Waiting: amount(r.Waiting), Unmarked: amount(r.Unmarked),
		Young: amount(r.Young), Rewritten: r.Compact.Written, Next: r.Next,
	}, nil
}
