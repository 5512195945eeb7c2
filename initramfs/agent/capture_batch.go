package agent

import (
	"context"
	"errors"

	"seedbed/appliance/job"
	"seedbed/images"
	"seedbed/images/intake"
)

// Uploads. What an appliance that is killed had not stored is sent again: three batches at most, 12 MiB.
const (
	batchLength = 4 << 20 // of tiles in one request, in bytes
	batches     = 4       // in memory: three on their way, one being filled
)

// batch is tiles on their way. Owned by whoever took it from sink.free.
type batch struct {
	keys []images.TileKey
	ends []int  // of each tile's encoding in body
	body []byte // encoding of all
}

func (b *batch) reset() { b.keys, b.ends, b.body = b.keys[:0], b.ends[:0], b.body[:0] }

// keep drops the tiles that the appliance has.
func (b *batch) keep(had []bool) {
	keys, ends, body, from := b.keys[:0], b.ends[:0], b.body[:0], 0
	for i, end := range b.ends {
		if !had[i] {
			body = append(body, b.body[from:end]...)
			keys, ends = append(keys, b.keys[i]), append(ends, len(body))
		}
		from = end
	}
	b.keys, b.ends, b.body = keys, ends, body
}

// Put implements intake.Sink: it returns when the tiles are on their way, and blocks while too many are.
func (s *sink) Put(ctx context.Context, tiles []intake.Tile) error {
	s.filling.Lock()
	defer s.filling.Unlock()
	for _, t := range tiles {
		s.mu.Lock()
		err := s.err
		_, twice := s.pending[t.Key]
		s.pending[t.Key] = struct{}{}
		s.mu.Unlock()
		if err != nil {
			return err
		}
		if twice {
			continue
		}
		if s.batch == nil {
			if err := s.fresh(ctx); err != nil {
				return err
			}
		}
		b := s.batch
		b.body = append(b.body, intake.EncodeTiles([]intake.Tile{t})...)
		b.keys, b.ends = append(b.keys, t.Key), append(b.ends, len(b.body))
		if len(b.keys) == intake.MaxPutTiles || len(b.body) >= batchLength {
			s.start()
		}
	}
	return nil
}

// fresh takes an empty batch. The caller holds filling.
func (s *sink) fresh(ctx context.Context) error {
	select {
	case s.batch = <-s.free:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// start sends the batch that is being filled. The caller holds filling.
func (s *sink) start() {
	b := s.batch
	s.batch = nil
	s.uploads.Go(func() {
		all := append([]images.TileKey(nil), b.keys...)
		err := s.upload(s.ctx, b)
		s.mu.Lock()
		for _, k := range all {
			delete(s.pending, k)
		}
		if s.err == nil {
			s.err = err
		}
		s.mu.Unlock()
		b.reset()
		s.free <- b // it has room for all
	})
}

// upload sends a batch until the appliance has all of it.
func (s *sink) upload(ctx context.Context, b *batch) error {
	for len(b.keys) > 0 {
		_, err := s.ask(ctx, "take a part of the image", job.PathCaptureTiles, "application/octet-stream", tilesTimeout, b.body)
		if err == nil {
			s.c.sent.Add(int64(len(b.body)))
			return nil
		}
		for errors.Is(err, errAnew) {
			var had []bool
			if had, err = s.has(ctx, b.keys); err == nil {
				before := len(b.body)
				b.keep(had)
				s.c.sent.Add(int64(before - len(b.body))) // it had arrived, but not the answer
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// flush returns when everything that was put is durable at the appliance.
func (s *sink) flush() error {
	s.filling.Lock()
	defer s.filling.Unlock()
	if s.batch != nil {
		s.start()
	}
	s.uploads.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}
