package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"seedbed/appliance/api"
	"seedbed/images"
	"seedbed/images/repository"
)

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
