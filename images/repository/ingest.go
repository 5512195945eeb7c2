package repository

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"seedbed/images"
	"seedbed/images/tile"
)

// Find returns where the repository holds a tile, whatever codec it was stored with. Tiles that are damaged, or in packs
// that are about to go, are not found.
func (r *Repository) Find(key images.TileKey) (Location, bool, error) {
	if err := r.ready(r.ctx); err != nil {
		return Location{}, false, err
	}
	return r.index.find(key, r.avoid.avoids)
}

// Put stores a tile, unless the repository holds it, and returns where. The caller vouches for the key. The tile is
// durable once Sync, called after Put, has returned nil. A tile that fills a pack waits for its sealing, so that the
// spool stays bounded.
func (r *Repository) Put(ctx context.Context, key images.TileKey, t tile.Encoded) (Location, error) {
	if err := t.Check(); err != nil {
		return Location{}, fmt.Errorf("put tile %v: %w", key, err)
	}
	if t.Length != key.Length {
		return Location{}, fmt.Errorf("put tile %v: it has %d bytes", key, t.Length)
	}
	done, err := r.begin()
	if err != nil {
		return Location{}, err
	}
	defer done()
	if err := r.ready(ctx); err != nil {
		return Location{}, err
	}
	r.mu.Lock()
	loc, full, err := r.append(key, t)
	r.mu.Unlock()
	if err != nil {
		return Location{}, fmt.Errorf("put tile %v: %w", key, err)
	}
	if full {
		if err := r.sealPending(ctx); err != nil && r.pendingPacks() > maxPending {
			return Location{}, fmt.Errorf("put tile %v: the spool %s is full of packs that the storage does not take: %w", key,
				r.cfg.Spool, err)
		}
	}
	return loc, nil
}

// append adds the tile to the current segment and reports whether that has become full. The caller holds mu.
func (r *Repository) append(key images.TileKey, t tile.Encoded) (loc Location, full bool, err error) {
	if loc, ok, err := r.index.find(key, r.avoid.avoids); ok || err != nil {
		return loc, false, err
	}
	if r.lost != nil {
		return loc, false, r.lost
	}
	if err := r.expectRoom(); err != nil {
		return loc, false, err
	}
	if r.current == nil {
		if r.current, err = r.newSegment(); err != nil {
			return loc, false, err
		}
		s := r.current
		r.timer = time.AfterFunc(r.cfg.SealAfter, func() { r.sealAged(s) })
	}
	ordinal, err := r.current.add(key, t)
	if err != nil {
		return loc, false, err
	}
	loc = Location{pack: r.current.handle, ordinal: uint32(ordinal)}
	r.index.put(key, loc)
	if full = r.current.length() >= r.cfg.PackLength; full {
		r.rotate()
	}
	return loc, full, nil
}

// maxPending is how many full packs may wait for the bucket before Put fails: 2 GiB of spool.
const maxPending = 8

func (r *Repository) newSegment() (*segment, error) {
	name := filepath.Join(r.journal(), fmt.Sprintf("%08d.segment", r.segments))
	r.segments++
	return createSegment(r.fs, r.journal(), name, r.packs.reserve())
}

// rotate takes the current segment out of use. The caller holds mu.
func (r *Repository) rotate() {
	if r.current != nil {
		r.timer.Stop()
		r.pending = append(r.pending, r.current)
		r.current = nil
	}
}

// sealAged seals a segment that waited long enough, if it is still the current one.
func (r *Repository) sealAged(s *segment) {
	done, err := r.begin()
	if err != nil {
		return
	}
	defer done()
	r.mu.Lock()
	if r.current == s {
		r.rotate()
	}
	r.mu.Unlock()
	_ = r.sealPending(r.ctx) // logged; the next pack or publication tries again
}

// Sync returns nil when every tile put before is durable: in a pack, or in the spool's journal. After an error of the
// spool's disk it never does again.
func (r *Repository) Sync() error {
	done, err := r.begin()
	if err != nil {
		return err
	}
	defer done()
	r.mu.Lock()
	open := slices.Clone(r.pending)
	if r.current != nil {
		open = append(open, r.current)
	}
	r.mu.Unlock()
	for _, s := range open {
		if err := s.sync(); err != nil {
			r.drop(s, err)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lost
}

// drop gives up a segment whose file cannot be trusted any more: its tiles are not found again. From then on the spool
// takes no tiles and vouches for none, since it is not known who put those that are lost.
func (r *Repository) drop(s *segment, err error) {
	r.mu.Lock()
	if r.lost == nil {
		r.lost = fmt.Errorf("the spool lost tiles; check the disk of %s and restart: %w", r.cfg.Spool, err)
	}
	if r.current == s {
		r.rotate()
	}
	r.pending = slices.DeleteFunc(r.pending, func(p *segment) bool { return p == s })
	r.mu.Unlock()
	s.mu.Lock()
	entries := s.entries
	s.mu.Unlock()
	r.index.forget(entries, s.handle)
	s.abandon()
}

// sealAll puts every tile into packs in the bucket.
func (r *Repository) sealAll(ctx context.Context) error {
	r.mu.Lock()
	r.rotate()
	r.mu.Unlock()
	return r.sealPending(ctx)
}

// sealPending seals the full segments, the oldest first.
func (r *Repository) sealPending(ctx context.Context) error {
	r.mu.Lock()
	open := slices.Clone(r.pending)
	r.mu.Unlock()
	for _, s := range open {
		if err := r.seal(ctx, s); err != nil {
			if ctx.Err() == nil {
				r.log.Warn("pack cannot be sealed now, its tiles stay in the spool", "err", err)
			}
			return err
		}
	}
	return nil
}

func (r *Repository) pendingPacks() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.pending)
}

// seal turns a full segment into a pack: index, sync, object, local index; only then the file in the spool goes. It may
// be repeated after an error, and by the next Open after a crash at any point.
func (r *Repository) seal(ctx context.Context, s *segment) error {
	s.sealMu.Lock()
	defer s.sealMu.Unlock()
	if s.sealed {
		return nil
	}
	if err := s.finish(r.avoid.taken); err != nil {
		if s.broken() {
			r.drop(s, err)
		}
		return err
	}
	if err := r.putPack(ctx, s.id, s.name); err != nil {
		return err
	}
	r.sealed(s.handle, s.id)
	r.index.addPack(s.id, s.handle, s.entries)
	s.sealed = true
	r.mu.Lock()
	r.pending = slices.DeleteFunc(r.pending, func(p *segment) bool { return p == s })
	r.mu.Unlock()
	if err := r.fs.Remove(s.name); err != nil {
		r.log.Warn("spool segment cannot be removed, the next start does", "file", s.name, "err", err)
	}
	return nil
}
