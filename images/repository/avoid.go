package repository

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"seedbed/images"
)

// avoidance is what the index must not answer with, although the local index knows it: tiles of packs that are marked
// for removal or gone, and damaged records. Safe for concurrent use.
type avoidance struct {
	refreshing sync.Mutex // serialises refresh

	mu        sync.RWMutex
	refreshed time.Time // guarded by mu, as all below
	lists     map[string]*markList
	marked    marked                       // the keys of lists
	gone      map[images.Digest]bool       // packs that are not in the bucket any more
	damaged   map[images.Digest]badRecords // by pack
	twins     map[images.Digest][]uint32   // further handles of a pack that was sealed again

	// soon and never are made from the above: packs that may go soon, and records that cannot be used at all.
	soon  map[uint32]bool
	never map[uint32]badRecords
}

// refreshEvery is how old the knowledge of marks may be while captures run.
const refreshEvery = time.Minute

// avoids reports whether new images should use another copy of the tile.
func (a *avoidance) avoids(at Location) bool {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.soon[at.pack] || a.never[at.pack].has(at.ordinal)
}

// lost reports whether the tile cannot be used by anyone.
func (a *avoidance) lost(at Location) bool {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.never[at.pack].has(at.ordinal)
}

// taken reports whether a new pack cannot have this ID: the pack that has it is about to go, or damaged.
func (a *avoidance) taken(id images.Digest) bool {
	a.mu.RLock()
	defer a.mu.RUnlock()
	_, damaged := a.damaged[id]
	return damaged || a.marked.has(packKey(id))
}

// marks returns what is marked, as of the last refresh.
func (a *avoidance) marks() marked {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.marked
}

func (a *avoidance) age() time.Duration {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return time.Since(a.refreshed)
}

// sealed says that a pack is in the bucket under a handle.
func (r *Repository) sealed(handle uint32, id images.Digest) {
	r.packs.sealed(handle, id)
	a := &r.avoid
	a.mu.Lock()
	defer a.mu.Unlock()
	if first, _ := r.packs.handle(id); first != handle {
		if a.twins == nil {
			a.twins = map[images.Digest][]uint32{}
		}
		a.twins[id] = append(a.twins[id], handle)
	}
	if a.gone[id] {
		delete(a.gone, id)
		r.applyAvoidance()
	}
}

// applyAvoidance makes soon and never anew. The caller holds mu.
func (r *Repository) applyAvoidance() {
	a := &r.avoid
	a.soon, a.never = map[uint32]bool{}, map[uint32]badRecords{}
	each := func(id images.Digest, do func(handle uint32)) {
		if h, ok := r.packs.handle(id); ok {
			do(h)
		}
		for _, h := range a.twins[id] {
			do(h)
		}
	}
	for key := range a.marked {
		if id, ok := packID(key); ok {
			each(id, func(h uint32) { a.soon[h] = true })
		}
	}
	for id, bad := range a.damaged {
		each(id, func(h uint32) { a.never[h] = bad })
	}
	for id := range a.gone {
		each(id, func(h uint32) { a.never[h] = badRecords{all: true} })
	}
}

// packID returns the pack that an object is.
func packID(key string) (images.Digest, bool) {
	name, ok := strings.CutPrefix(key, "packs/")
	if !ok {
		return images.Digest{}, false
	}
	id, err := images.ParseDigest(name)
	return id, err == nil
}

// refresh reads what other appliances did: marks, damaged records, packs that came and packs that went. It returns what is
// marked. Whatever is marked later is not removed before a session that begins now has ended.
func (r *Repository) refresh(ctx context.Context) (marked, error) {
	all, err := r.refreshMarks(ctx)
	if err != nil {
		return nil, err
	}
	// Later than the marks: a pack that is gone by now was marked then.
	return all, r.refreshPacks(ctx)
}

// refreshMarks reads marks and damaged records only.
func (r *Repository) refreshMarks(ctx context.Context) (marked, error) {
	a := &r.avoid
	a.refreshing.Lock()
	defer a.refreshing.Unlock()
	now := time.Now()
	a.mu.RLock()
	lists, damaged := a.lists, a.damaged
	a.mu.RUnlock()
	lists, err := r.readMarks(ctx, lists)
	if err != nil {
		return nil, err
	}
	damaged, err = r.readDamaged(ctx, damaged)
	if err != nil {
		return nil, err
	}
	all := marked{}
	for _, l := range lists {
		if l.damaged != nil {
			r.log.Warn("mark list is damaged, the next prune removes it", "object", l.key, "err", l.damaged)
		}
		for _, k := range l.keys {
			all[k] = struct{}{}
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.lists, a.marked, a.damaged, a.refreshed = lists, all, damaged, now
	r.applyAvoidance()
	return all, nil
}

// refreshPacks looks which packs came and went.
func (r *Repository) refreshPacks(ctx context.Context) error {
	if err := r.ready(ctx); err != nil {
		return err
	}
	a := &r.avoid
	a.refreshing.Lock()
	defer a.refreshing.Unlock()
	known := r.packs.all() // before the listing, which may miss packs that are sealed meanwhile
	gone := maps.Clone(known)
	var fresh []images.Digest
	for o, err := range r.bucket.List(ctx, "packs/") {
		if err != nil {
			return err
		}
		if id, ok := packID(o.Key); ok {
			delete(gone, id)
			if _, ok := known[id]; !ok {
				fresh = append(fresh, id)
			}
		}
	}
	if err := r.addPacks(ctx, fresh); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.gone = map[images.Digest]bool{}
	for id := range gone {
		a.gone[id] = true
	}
	r.applyAvoidance()
	return nil
}

// addPacks enters packs of other appliances into the index.
func (r *Repository) addPacks(ctx context.Context, ids []images.Digest) error {
	return r.indexPacks(ctx, slices.DeleteFunc(slices.Compact(ids), func(id images.Digest) bool {
		_, ok := r.packs.handle(id) // sealed meanwhile
		return ok
	}))
}

// refreshSometimes refreshes if the last time is long ago. Errors are logged: what was known at the session's begin is
// enough.
func (r *Repository) refreshSometimes(ctx context.Context) {
	if r.avoid.age() < refreshEvery || !r.avoid.refreshing.TryLock() {
		return
	}
	r.avoid.refreshing.Unlock()
	if _, err := r.refresh(ctx); err != nil && ctx.Err() == nil {
		r.log.Warn("marks cannot be read now", "err", err)
	}
}
