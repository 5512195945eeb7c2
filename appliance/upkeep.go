package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"seedbed/appliance/api"
	"seedbed/appliance/fleet"
	"seedbed/images"
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
	if err == nil {
		if err := l.refuseOpen(ctx, ref, d); err != nil {
			return err
		}
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

// resolving finds the image that a name means.
type resolving func(ctx context.Context, ref string) (images.Digest, error)

// usedByFleet looks for deployments of an image in a running fleet, and for groups that are kept clean by it.
func usedByFleet(f *fleet.Fleet, resolve resolving) func(context.Context, images.Digest) (string, error) {
	return func(ctx context.Context, d images.Digest) (string, error) {
		var jobs []fleet.Job
		for _, j := range f.Jobs() {
			jobs = append(jobs, fleet.Job{ID: j.ID, Image: j.Image, State: j.State, Deployment: j.Deployment})
		}
		if by := userOf(d, f.Deployments(), jobs); by != "" {
			return by, nil
		}
		var groups []fleet.Group
		for _, g := range f.Groups() {
			groups = append(groups, g.Group)
		}
		var machines []fleet.Machine
		for _, m := range f.Machines() {
			machines = append(machines, m.Machine)
		}
		return cleanedBy(ctx, d, groups, machines, resolve), nil
	}
}

// cleanedBy names a group whose machines are kept clean by an image and how that is ended, or returns "": without the image they
// would boot as people left them.
func cleanedBy(ctx context.Context, d images.Digest, groups []fleet.Group, machines []fleet.Machine, resolve resolving) string {
	for _, g := range groups {
		if g.KeepClean == nil {
			continue
		}
		used := slices.ContainsFunc(machines, func(m fleet.Machine) bool {
			return g.KeepClean.Image == "" && m.MergedInto == "" && m.Deployed != nil && m.Deployed.Image == d && slices.Contains(m.Groups, g.ID)
		})
		if g.KeepClean.Image != "" {
			by, err := resolve(ctx, g.KeepClean.Image)
			used = err == nil && by == d
		}
		if used {
			return fmt.Sprintf("group %s, whose machines are kept clean by it; deploy another image on them, or end that with `seedbed group edit %s --keep-clean=false`",
				g.Name, g.Name)
		}
	}
	return ""
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
