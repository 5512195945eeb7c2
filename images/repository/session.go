package repository

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"seedbed/images"
	"seedbed/images/intake"
)

// SessionConfig says what a session makes.
type SessionConfig struct {
	Name string // of the image
	// Version "" means the next whole number.
	Version string
	// Sign returns the detached signature over the encoded manifest.
	Sign func(manifest []byte) []byte
	// Check decodes and hashes every tile that is put: for tiles that come over a network. It implies Durable.
	Check bool
	// Durable makes Put return only when the tiles are durable in the spool.
	Durable bool
	// Expire is the silence after which the session ends by itself; 0 means an hour.
	Expire time.Duration
}

// Session is one image on its way into the repository. It implements intake.Sink. Safe for concurrent use.
type Session struct {
	r    *Repository
	cfg  SessionConfig
	hold *hold

	committing sync.Mutex        // serialises Commit
	published  *intake.Published // guarded by committing

	mu     sync.Mutex
	last   instant         // end of the last call; guarded by mu, as all below
	active int             // calls under way
	ended  error           // why no call is taken any more
	pinned map[uint32]bool // handles of packs that Have and Put told of
}

var _ intake.Sink = (*Session)(nil)

// Begin starts a session. One at a time makes the same name and version: others get intake.ErrBusy. A version that
// exists, or was removed, is intake.ErrVersionExists. Sessions without a version run side by side and get different ones.
// A session ends by Close, after cfg.Expire without a call, and at last after Config.SessionLife; from then on every call
// returns intake.ErrExpired. The caller closes.
func (r *Repository) Begin(ctx context.Context, cfg SessionConfig) (*Session, error) {
	if !images.ValidName(cfg.Name) || (cfg.Version != "" && !images.ValidName(cfg.Version)) {
		return nil, fmt.Errorf("image name %.80q and version %.80q must be 1-64 of a-z 0-9 . _ -", cfg.Name, cfg.Version)
	}
	if cfg.Sign == nil {
		return nil, errors.New("begin an image: no key to sign with")
	}
	if cfg.Expire <= 0 {
		cfg.Expire = time.Hour
	}
	done, err := r.begin()
	if err != nil {
		return nil, err
	}
	defer done()
	s := &Session{r: r, cfg: cfg, last: now(), pinned: map[uint32]bool{}, hold: &hold{begun: now(), life: r.cfg.SessionLife}}
	if err := r.sessions.add(s); err != nil {
		return nil, err
	}
	if s.hold.marked, err = r.refresh(ctx); err == nil && cfg.Version != "" {
		err = r.expectFree(ctx, cfg.Name, cfg.Version)
	}
	if err != nil {
		s.Close()
		return nil, fmt.Errorf("begin %s: %w", s.name(), err)
	}
	return s, nil
}

// expectFree returns an error that wraps ErrVersionExists unless a version can be made.
func (r *Repository) expectFree(ctx context.Context, name, version string) error {
	if _, err := r.bucket.Stat(ctx, versionKey(name, version)); err == nil {
		return fmt.Errorf("%w; versions never change", ErrVersionExists)
	} else if !errors.Is(err, ErrNotExist) {
		return err
	}
	return r.expectNotRemoved(ctx, name, version)
}

func (s *Session) name() string {
	if s.cfg.Version == "" {
		return "image " + s.cfg.Name
	}
	return "image " + s.cfg.Name + ":" + s.cfg.Version
}

// over returns why the session takes no more calls, nil while it does.
func (s *Session) over() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended != nil {
		return s.ended
	}
	if err := s.hold.check(); err != nil {
		s.ended = err
	} else if s.active == 0 && s.last.age() > s.cfg.Expire {
		s.ended = fmt.Errorf("%w: nothing was heard of it for %v; begin it again, what was stored stays for the next try",
			intake.ErrExpired, s.cfg.Expire)
	}
	return s.ended
}

// enter begins a call. The caller calls leave at its end, and uses the context, which ends with the session's life.
func (s *Session) enter(ctx context.Context) (_ context.Context, leave func(), err error) {
	if err := s.over(); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", s.name(), err)
	}
	done, err := s.r.begin()
	if err != nil {
		return nil, nil, err
	}
	s.mu.Lock()
	s.active++
	s.mu.Unlock()
	ctx, cancel := context.WithTimeoutCause(ctx, s.hold.life-s.hold.begun.age(), intake.ErrExpired)
	return ctx, func() {
		cancel()
		s.mu.Lock()
		s.active--
		s.last = now()
		s.mu.Unlock()
		done()
	}, nil
}

// fail describes the error of a call.
func (s *Session) fail(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil && errors.Is(cause, intake.ErrExpired) {
		err = cause
	}
	return fmt.Errorf("%s: %w", s.name(), err)
}

func (s *Session) pin(list ...Location) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, at := range list {
		s.pinned[at.pack] = true
	}
}

// Have implements intake.Sink.
func (s *Session) Have(ctx context.Context, keys []images.TileKey) ([]bool, error) {
	if len(keys) > intake.MaxHave {
		return nil, fmt.Errorf("%d tiles were asked for at once, at most %d can be", len(keys), intake.MaxHave)
	}
	ctx, leave, err := s.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	s.r.refreshSometimes(ctx)
	list, at := make([]bool, len(keys)), make([]Location, 0, len(keys))
	for i, k := range keys {
		loc, ok, err := s.r.Find(k)
		if err != nil {
			return nil, s.fail(ctx, err)
		}
		if ok {
			list[i], at = true, append(at, loc)
		}
	}
	s.pin(at...)
	return list, nil
}

// Put implements intake.Sink. With Check nothing is stored unless every tile is what its key names.
func (s *Session) Put(ctx context.Context, tiles []intake.Tile) error {
	ctx, leave, err := s.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	s.r.refreshSometimes(ctx)
	if s.cfg.Check {
		if err := checkAll(ctx, tiles); err != nil {
			return s.fail(ctx, err)
		}
	}
	need := int64(0)
	for _, t := range tiles {
		need += recordHeaderLength + int64(len(t.Encoded.Bytes))
	}
	for _, t := range tiles {
		at, err := s.r.Put(ctx, t.Key, t.Encoded)
		if err != nil {
			return s.fail(ctx, s.r.explainFull(err, need))
		}
		s.pin(at)
		need -= recordHeaderLength + int64(len(t.Encoded.Bytes))
	}
	if s.cfg.Durable || s.cfg.Check {
		if err := s.r.Sync(); err != nil {
			return s.fail(ctx, s.r.explainFull(err, 0))
		}
	}
	return nil
}

// checkAll decodes and hashes tiles on all cores.
func checkAll(ctx context.Context, tiles []intake.Tile) error {
	workers := min(runtime.NumCPU(), len(tiles))
	group, ctx := errgroup.WithContext(ctx)
	for i := range workers {
		group.Go(func() (err error) {
			var buf []byte
			for k := i; k < len(tiles) && err == nil && ctx.Err() == nil; k += workers {
				buf, err = tiles[k].Check(buf)
			}
			return err
		})
	}
	return group.Wait()
}

var errSessionClosed = errors.New("the capture is closed")

// Close implements intake.Sink.
func (s *Session) Close() error {
	s.mu.Lock()
	if s.ended == nil {
		s.ended = errSessionClosed
	}
	s.mu.Unlock()
	s.r.sessions.remove(s)
	return nil
}
