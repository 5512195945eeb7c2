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
	if o.Image == "" {
		return l.verifyAll(ctx, o, progress)
	}
	config := repository.VerifyConfig{BytesPerSecond: o.BytesPerSecond}
	checked := int64(0)
	config.Progress = func(p repository.Progress) {
		if checked = p.Done; progress != nil {
			progress(api.Progress{Done: p.Done, Total: p.Total})
		}
	}
	one, signed, err := l.checkSigned(ctx, o.Image, o)
	if err == nil && signed {
		err = l.verifyContent(ctx, one, o, config)
	}
	if err != nil {
		return nil, err
	}
	one.Checked = checked
	return &api.VerifyReport{Images: []api.VerifiedImage{*one}}, nil
}

// checkSigned resolves a reference and checks the signature; ok says that the content is worth looking at. A signature
// that is damaged is made again if healing is asked for, see signed.
func (l *library) checkSigned(ctx context.Context, ref string, o api.VerifyOrder) (one *api.VerifiedImage, ok bool, err error) {
	one = &api.VerifiedImage{Image: ref, Damage: []api.Damage{}}
	bad := func(object string, err error) *api.Damage {
		one.Damage = append(one.Damage, api.Damage{Partition: -1, Object: object, Text: err.Error()})
		return &one.Damage[0]
	}
	d, err := l.repo.Resolve(ctx, ref)
	switch {
	case errors.Is(err, repository.ErrNoImage):
		return nil, false, asRefusal(err)
	case ctx.Err() != nil:
		return nil, false, ctx.Err()
	case err != nil:
		bad("images/"+strings.ReplaceAll(ref, ":", "/"), err)
		return one, false, nil
	}
	one.Digest = d
	image, err := l.repo.Manifest(ctx, d)
	lost := errors.Is(err, repository.ErrNotExist) // its signature; a manifest that is lost is another error
	if err == nil {
		one.Image = nameOf(image.Manifest)
		err = images.Verify(l.site.PublicKey(), image.Raw, image.Signature)
	}
	if ctx.Err() != nil {
		return nil, false, ctx.Err()
	}
	if err == nil || image == nil && !lost {
		return one, true, nil // what is wrong with a manifest is found with its content
	}
	damage := bad(signatureKey(d), fmt.Errorf("image %s: %w", one.Image, err))
	if !o.Heal {
		return one, false, nil
	}
	if err := l.signAgain(ctx, d); err != nil {
		damage.Text += "; not healed: " + err.Error()
		return one, false, ctx.Err()
	}
	damage.Healed = true
	return one, true, nil
}

// verifyContent reads one image.
func (l *library) verifyContent(ctx context.Context, one *api.VerifiedImage, o api.VerifyOrder, config repository.VerifyConfig) error {
	for range maxHealRounds {
		again, err := l.verifyOnce(ctx, one, o, config)
		if err != nil || !again {
			return err
		}
	}
	return nil
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
	return l.judge(ctx, one, o, found)
}

// judge enters what was found of an image and heals it if that is asked for; again says that there is more to be found.
func (l *library) judge(ctx context.Context, one *api.VerifiedImage, o api.VerifyOrder, found *repository.DamageError) (again bool, err error) {
	d := one.Digest
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
