package repository

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"seedbed/images"
	"seedbed/images/tile"
)

// Find returns where the repository holds a tile, whatever codec it was stored with.
func (r *Repository) Find(key images.TileKey) (Location, bool, error) { return r.index.find(key) }

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
	r.mu.Lock()
	loc, full, err := r.append(key, t)
	r.mu.Unlock()
	if err != nil {
		return Location{}, fmt.Errorf("put tile %v: %w", key, err)
	}
	if full != nil {
		if err := r.seal(ctx, full); err != nil && ctx.Err() == nil {
			r.log.Warn("pack cannot be sealed now, its tiles stay in the spool", "err", err)
		}
	}
	return loc, nil
}

// append adds the tile to the current segment and returns the segment if that has become full. The caller holds mu.
func (r *Repository) append(key images.TileKey, t tile.Encoded) (loc Location, full *segment, err error) {
	if loc, ok, err := r.index.find(key); ok || err != nil {
		return loc, nil, err
	}
	if r.lost != nil {
		return loc, nil, r.lost
	}
	if len(r.pending) > maxPending {
		return loc, nil, fmt.Errorf("%d packs wait in the spool %s: the storage behind the repository takes none",
			len(r.pending), r.cfg.Spool)
	}
	if r.current == nil {
		if r.current, err = r.newSegment(); err != nil {
			return loc, nil, err
		}
		s := r.current
		r.timer = time.AfterFunc(r.cfg.SealAfter, func() { r.sealAged(s) })
	}
	ordinal, err := r.current.add(key, t)
	if err != nil {
		return loc, nil, err
	}
	loc = Location{pack: r.current.handle, ordinal: uint32(ordinal)}
	r.index.put(key, loc)
	if r.current.length() >= r.cfg.PackLength {
		full = r.rotate()
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

// rotate takes the current segment out of use. The caller holds mu, and seals what it gets.
func (r *Repository) rotate() *segment {
	s := r.current
	if s != nil {
		r.timer.Stop()
		r.pending = append(r.pending, s)
		r.current = nil
	}
	return s
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
	if err := r.seal(r.ctx, s); err != nil && r.ctx.Err() == nil {
		r.log.Warn("pack cannot be sealed now, its tiles stay in the spool", "err", err)
	}
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
	open := slices.Clone(r.pending)
	r.mu.Unlock()
	for _, s := range open {
		if err := r.seal(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

// seal turns a full segment into a pack: index, sync, object, local index; only then the file in the spool goes. It may
// be repeated after an error, and by the next Open after a crash at any point.
func (r *Repository) seal(ctx context.Context, s *segment) error {
	s.sealMu.Lock()
	defer s.sealMu.Unlock()
	if s.sealed {
		return nil
	}
	if err := s.finish(); err != nil {
		if s.broken() {
			r.drop(s, err)
		}
		return err
	}
	if err := r.putPack(ctx, s.id, s.name); err != nil {
		return err
	}
	r.packs.sealed(s.handle, s.id)
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

// putPack makes a finished file an object. One that is there already has the same name because it has the same tiles: it
// is the work of an interrupted seal, or it is damaged and replaced.
func (r *Repository) putPack(ctx context.Context, id images.Digest, name string) error {
	err := r.putFile(ctx, packKey(id), name)
	if !errors.Is(err, ErrExists) {
		return err
	}
	same, err := r.sameFile(ctx, packKey(id), name)
	if err != nil || same {
		return err
	}
	r.log.Warn("pack is damaged, writing it again", "object", packKey(id))
	if err := r.bucket.Delete(ctx, packKey(id)); err != nil {
		return err
	}
	return r.putFile(ctx, packKey(id), name)
}

func (r *Repository) putFile(ctx context.Context, key, name string) error {
	if d, ok := r.bucket.(*Dir); ok {
		return d.PutFile(ctx, key, name)
	}
	return putCopy(ctx, r.fs, r.bucket, key, name)
}

// sameFile reports whether an object has the bytes of a file in the spool.
func (r *Repository) sameFile(ctx context.Context, key, name string) (bool, error) {
	f, err := r.fs.Open(name)
	if err != nil {
		return false, err
	}
	defer f.Close()
	object, err := r.bucket.Read(ctx, key, 0, -1)
	if err != nil {
		return false, err
	}
	defer object.Close()
	a, b := make([]byte, windowLength), make([]byte, windowLength)
	for offset := int64(0); ; offset += windowLength {
		n, err := f.ReadAt(a, offset)
		if err != nil && err != io.EOF {
			return false, err
		}
		m, err := io.ReadFull(object, b)
		if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
			return false, err
		}
		if !bytes.Equal(a[:n], b[:m]) {
			return false, nil
		}
		if n < windowLength {
			return true, nil
		}
	}
}

// recover seals the segments that an earlier process left.
func (r *Repository) recover(ctx context.Context) error {
	files, err := r.fs.ReadDir(r.journal())
	if err != nil {
		return err
	}
	for _, f := range files {
		name := filepath.Join(r.journal(), f.Name())
		n := 0
		if k, err := fmt.Sscanf(f.Name(), "%d.segment", &n); k != 1 || err != nil || !strings.HasSuffix(name, ".segment") {
			continue
		}
		r.segments = max(r.segments, n+1)
		if err := r.recoverFile(ctx, name); err != nil {
			return fmt.Errorf("recover spool segment %s: %w", name, err)
		}
	}
	return nil
}

func (r *Repository) recoverFile(ctx context.Context, name string) error {
	f, err := r.fs.Append(name)
	if err != nil {
		return err
	}
	defer f.Close()
	found, err := recoverSegment(f)
	if err != nil {
		return err
	}
	if len(found.entries) > 0 {
		if found.id, err = completeSegment(f, found); err != nil {
			return err
		}
		if err := r.putPack(ctx, found.id, name); err != nil {
			return err
		}
		_, known := r.packs.handle(found.id)
		if handle := r.packs.add(found.id); !known {
			r.index.addPack(found.id, handle, found.entries)
		}
	}
	r.log.Info("recovered tiles of an interrupted capture", "file", name, "tiles", len(found.entries), "cut_bytes", found.extra)
	return r.fs.Remove(name)
}

// completeSegment cuts off what is no record, writes the index and makes all of it durable, which a process that was
// killed may not have come to. A file that is whole is not written to: it may be one with the object.
func completeSegment(f file, found recovered) (images.Digest, error) {
	if !found.id.IsZero() {
		return found.id, f.Sync()
	}
	if err := f.Truncate(found.end); err != nil {
		return images.Digest{}, err
	}
	index, id := encodeIndex(found.entries, found.end)
	if _, err := f.Write(index); err != nil {
		return id, err
	}
	return id, f.Sync()
}
