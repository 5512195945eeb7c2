package repository

import (
	"context"
	"sync"

	"golang.org/x/sync/errgroup"

	"seedbed/images"
	"seedbed/images/intake"
)

// recordAt is a record of a pack, by the pack's number in a compaction.
type recordAt struct{ pack, ordinal uint32 }

// mover copies records into new packs, in the order in which it is told of them. Not safe for concurrent use.
type mover struct {
	r        *Repository
	packs    []*packUse
	progress func(done int64)

	moved   map[recordAt]recordAt // from a number in packs to one in fresh
	seen    map[images.TileKey]recordAt
	fresh   []images.Digest // new packs; zero while one is being written
	segment *segment
	batch   []recordAt
	pending int64 // bytes of batch, about
	written int64
	damaged int
}

// batchLength is how many bytes of records are fetched before they are written: what is near one another in the old packs
// is then fetched together.
const batchLength = 32 << 20

func newMover(r *Repository, packs []*packUse, progress func(done int64)) *mover {
	return &mover{r: r, packs: packs, progress: progress, moved: map[recordAt]recordAt{}, seen: map[images.TileKey]recordAt{}}
}

// add moves a record, if it was not moved before.
func (m *mover) add(ctx context.Context, at recordAt) error {
	if _, ok := m.moved[at]; ok {
		return nil
	}
	m.moved[at] = recordAt{} // set by flush
	m.batch = append(m.batch, at)
	if m.pending += m.packs[at.pack].bytes(1); m.pending < batchLength {
		return nil
	}
	return m.flush(ctx)
}

// flush fetches the records of the batch and appends them to the new pack.
func (m *mover) flush(ctx context.Context) error {
	raw := make([][]byte, len(m.batch))
	byPack := map[uint32][]int{}
	for i, at := range m.batch {
		byPack[at.pack] = append(byPack[at.pack], i)
	}
	var mu sync.Mutex // guards unreadable
	unreadable := map[uint32]error{}
	group, fetching := errgroup.WithContext(ctx)
	group.SetLimit(4)
	for pack, list := range byPack {
		group.Go(func() error {
			err := m.fetch(fetching, pack, list, raw)
			if err != nil && fetching.Err() == nil {
				mu.Lock()
				defer mu.Unlock()
				unreadable[pack] = err
			}
			return fetching.Err()
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	for pack, err := range unreadable {
		m.r.log.Warn("tiles cannot be moved; verify the images", "pack", m.packs[pack].id, "err", err)
	}
	for i, at := range m.batch {
		if err := m.append(ctx, at, raw[i]); err != nil {
			return err
		}
	}
	m.batch, m.pending = m.batch[:0], 0
	m.progress(m.written)
	return nil
}

// fetch reads records of one pack; list are their indexes in the batch.
func (m *mover) fetch(ctx context.Context, pack uint32, list []int, raw [][]byte) error {
	id := m.packs[pack].id
	f, err := m.r.frame(ctx, id)
	if err != nil {
		return err
	}
	var wanted []wantedRecord
	var buf []byte
	for _, i := range list {
		if at := m.batch[i]; int(at.ordinal) < f.count() {
			start, end := f.record(at.ordinal)
			wanted = append(wanted, wantedRecord{at: i, start: start, end: end})
		}
	}
	for _, part := range partsOf(wanted) {
		b, err := fetchRange(ctx, m.r.bucket, packKey(id), part.start, part.end-part.start)
		if err != nil {
			return err
		}
		for _, w := range part.wanted {
			record := b[w.start-part.start : w.end-part.start]
			if isTile(record, &buf) {
				raw[w.at] = record
			}
		}
	}
	return nil
}

// isTile reports whether a record holds the tile that it says. One that does not must not be moved: a good one of the same
// key would be taken for the same, and nobody would know the new record as damaged. buf is scratch memory.
func isTile(record []byte, buf *[]byte) bool {
	key, t, err := decodeRecord(record)
	if err != nil {
		return false
	}
	*buf, err = intake.Tile{Key: key, Encoded: t}.Check(*buf)
	return err == nil
}

// append writes one record into the new pack. A damaged one stays where it is.
func (m *mover) append(ctx context.Context, at recordAt, raw []byte) error {
	key, t, err := decodeRecord(raw)
	if err != nil {
		m.damaged++
		delete(m.moved, at)
		return nil
	}
	if to, ok := m.seen[key]; ok {
		m.moved[at] = to
		return nil
	}
	if m.segment == nil {
		m.r.mu.Lock()
		m.segment, err = m.r.newSegment()
		m.r.mu.Unlock()
		if err != nil {
			return err
		}
		m.fresh = append(m.fresh, images.Digest{})
	}
	ordinal, err := m.segment.add(key, t)
	if err != nil {
		return err
	}
	to := recordAt{uint32(len(m.fresh) - 1), uint32(ordinal)}
	m.moved[at], m.seen[key] = to, to
	m.written += int64(len(raw))
	if m.segment.length() >= m.r.cfg.PackLength {
		return m.seal(ctx)
	}
	return nil
}

// seal puts the new pack into the bucket.
func (m *mover) seal(ctx context.Context) error {
	if err := m.r.seal(ctx, m.segment); err != nil {
		return err
	}
	m.fresh[len(m.fresh)-1], m.segment = m.segment.id, nil
	return nil
}

// finish moves what is left; then all new packs are in the bucket.
func (m *mover) finish(ctx context.Context) error {
	if err := m.flush(ctx); err != nil || m.segment == nil {
		return err
	}
	return m.seal(ctx)
}

// abandon gives up a pack that was not finished.
func (m *mover) abandon() {
	if m.segment != nil {
		_ = m.segment.abandon()
		_ = m.r.fs.Remove(m.segment.name) // else the next start makes a pack of it, which nobody uses
	}
}
