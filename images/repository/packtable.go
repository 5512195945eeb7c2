package repository

import (
	"fmt"
	"maps"
	"sync"

	"seedbed/images"
)

// packTable gives each pack a handle: a small number that is good while the repository is open. Safe for concurrent
// use.
type packTable struct {
	mu      sync.RWMutex
	list    []*pack                  // by handle; guarded by mu
	handles map[images.Digest]uint32 // of packs in the bucket; guarded by mu
}

// pack is one pack, or the segment that becomes one.
type pack struct {
	handle uint32

	mu sync.Mutex
	id images.Digest // zero while it is a segment; guarded by mu
}

// reserve returns a handle for a pack that is being written.
func (t *packTable) reserve() uint32 {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.list = append(t.list, &pack{handle: uint32(len(t.list))})
	return uint32(len(t.list) - 1)
}

// add returns the handle of a pack in the bucket.
func (t *packTable) add(id images.Digest) uint32 {
	t.mu.Lock()
	defer t.mu.Unlock()
	if h, ok := t.handles[id]; ok {
		return h
	}
	h := uint32(len(t.list))
	t.list = append(t.list, &pack{handle: h, id: id})
	t.handles[id] = h
	return h
}

// sealed says that the pack of a reserved handle is in the bucket.
func (t *packTable) sealed(handle uint32, id images.Digest) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := t.handles[id]; !ok {
		t.handles[id] = handle
	}
	p := t.list[handle]
	p.mu.Lock()
	p.id = id
	p.mu.Unlock()
}

// handle returns the handle of a pack in the bucket.
func (t *packTable) handle(id images.Digest) (uint32, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	h, ok := t.handles[id]
	return h, ok
}

// all returns the packs in the bucket.
func (t *packTable) all() map[images.Digest]uint32 {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return maps.Clone(t.handles)
}

func (t *packTable) pack(handle uint32) (*pack, error) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if int(handle) >= len(t.list) {
		return nil, fmt.Errorf("no pack has handle %d", handle)
	}
	return t.list[handle], nil
}
