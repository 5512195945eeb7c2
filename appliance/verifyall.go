package main

import (
	"context"
	"errors"
	"slices"

	"seedbed/appliance/api"
	"seedbed/images"
	"seedbed/images/repository"
)

// verifyAll verifies all images. Each pack is read once, however many images use it; where that leaves open what is wrong
// with an image, it is read by itself.
func (l *library) verifyAll(ctx context.Context, o api.VerifyOrder, progress func(api.Progress)) (*api.VerifyReport, error) {
	list, err := l.repo.Images(ctx)
	if err != nil {
		return nil, err
	}
	report := &api.VerifyReport{Images: []api.VerifiedImage{}}
	open := map[int]bool{} // indexes of images whose content is to be looked at
	for _, i := range list {
		one, whole, err := l.checkSigned(ctx, i.Name+":"+i.Version, o)
		switch {
		case isRefusal(err): // it was removed a moment ago
			continue
		case err != nil:
			return nil, err
		}
		open[len(report.Images)] = whole
		report.Images = append(report.Images, *one)
	}
	config := repository.VerifyConfig{BytesPerSecond: o.BytesPerSecond}
	if progress != nil {
		config.Progress = func(p repository.Progress) { progress(api.Progress{Done: p.Done, Total: p.Total}) }
	}
	err = l.repo.VerifyAll(ctx, config)
	found, ok := errors.AsType[*repository.DamageError](err)
	if err != nil && !ok {
		return nil, err
	}
	config.Progress = nil
	for n := range report.Images {
		if !open[n] {
			continue
		}
		one := &report.Images[n]
		if err := l.findings(ctx, one, o, found, config); err != nil {
			return nil, err
		}
		one.Checked = l.dataLength(ctx, one.Digest)
	}
	return report, nil
}

// findings enters what was found of one image, and heals it if that is asked for.
func (l *library) findings(ctx context.Context, one *api.VerifiedImage, o api.VerifyOrder, found *repository.DamageError, config repository.VerifyConfig) error {
	own := &repository.DamageError{}
	if found != nil {
		for _, d := range found.Damage {
			if d.Image == one.Image {
				own.Damage = append(own.Damage, d)
			}
		}
	}
	// A pack that is gone may have been replaced while the others were read.
	gone := func(d *repository.Damage) bool { return errors.Is(d.Err, repository.ErrNotExist) }
	switch {
	case found != nil && found.More > 0 || slices.ContainsFunc(own.Damage, gone):
		return l.verifyContent(ctx, one, o, config)
	case len(own.Damage) == 0:
		l.damaged.set(one.Digest, nil)
		return nil
	}
	again, err := l.judge(ctx, one, o, own)
	if err != nil || !again {
		return err
	}
	return l.verifyContent(ctx, one, o, config)
}

// dataLength returns the bytes of an image's tiles; 0 if it cannot be opened.
func (l *library) dataLength(ctx context.Context, d images.Digest) int64 {
	r, err := l.repo.OpenImage(ctx, d)
	if err != nil {
		return 0
	}
	return r.Layout().DataLength()
}
