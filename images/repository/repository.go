// Package repository keeps images as immutable objects on blob storage:
//
//	packs/ID                 encoded tiles; see pack.go
//	layers/DIGEST            maps, piece layers, tile layers, frame regions
//	manifests/DIGEST         canonical manifest; DIGEST.sig is its detached signature
//	placements/DIGEST/pNNNN  where the tiles of one partition lie
//	images/NAME/VERSION      the digest of a manifest, created if absent: what makes an image exist
//
// Tiles being captured are journalled in a local spool until their pack is sealed.
package repository

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"seedbed/images"
)

// Config is what a Repository may be told; the zero value is usable with a Dir.
type Config struct {
	// Spool is a local folder for the journal and the index; one process at a time holds it. Empty means ".spool" in
	// the folder of a Dir; other buckets need one.
	Spool string
	// Log takes what an operator should know; nil means discard.
	Log *slog.Logger
	// PackLength is the length in bytes at which a pack is sealed; 0 means 256 MiB, at most 1 GiB.
	PackLength int64
	// SealAfter is how long a pack waits for more tiles; 0 means 60 s.
	SealAfter time.Duration
	// CacheLength bounds the memory in bytes that read-ahead keeps; 0 means 64 MiB.
	CacheLength int64
	// SessionLife is how long a session can last at most, and Publish; 0 means 24 h. It is the same for all that work on
	// one bucket: what nobody uses is removed only after a longer time.
	SessionLife time.Duration

	claimExpiry time.Duration // 0 means claimExpiry

	files fileSystem // nil means the operating system's, with a lock on the spool
}

// Repository is images on a Bucket. Safe for concurrent use.
type Repository struct {
	bucket Bucket  // finds layers in every generation
	dir    *Dir    // the bucket, if it is a folder
	advise advised // the bucket, if the system keeps its objects
	cfg    Config
	log    *slog.Logger
	fs     fileSystem
	lock   io.Closer
	index  *index
	packs  packTable
	// cache has what readers will need soon, frames where records lie, layers parts of tile layers.
	cache  *cache[groupKey, *records]
	frames *cache[images.Digest, *frame]
	layers *cache[layerRangeKey, []byte]
	avoid  avoidance
	// sessions are those of this process.
	sessions sessionTable

	opening chan struct{} // holds one while ready works
	left    []string      // segments of an earlier process; guarded by opening
	isReady atomic.Bool   // packs and index are known

	ctx    context.Context // ends with Close; for work that no caller waits for
	cancel context.CancelFunc
	work   sync.WaitGroup

	mu       sync.Mutex
	current  *segment    // takes tiles; nil if none is open; guarded by mu, as all below
	timer    *time.Timer // seals current
	pending  []*segment  // full, not yet in the bucket
	segments int         // number of the next segment's file
	lost     error       // set once a segment was given up
	closed   bool
}

var errClosed = errors.New("the repository is closed")

// Open opens the repository on a bucket, takes the lock on its spool (ErrLocked if another process has it) and seals what
// an earlier process left in the spool, or leaves it there where that fails. It asks the bucket for nothing else: the index
// of tiles is opened, or made, when a tile is first looked for, and what was left is sealed by then. The caller closes.
func Open(ctx context.Context, b Bucket, cfg Config) (*Repository, error) {
	d, local := b.(*Dir)
	if cfg.Spool == "" && local {
		cfg.Spool = filepath.Join(d.path, ".spool")
	}
	if cfg.Spool == "" {
		return nil, errors.New("open repository: this kind of storage needs a local spool folder")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.PackLength == 0 {
		cfg.PackLength = 256 << 20
	}
	cfg.PackLength = min(cfg.PackLength, maxPackLength/2)
	if cfg.SealAfter == 0 {
		cfg.SealAfter = time.Minute
	}
	if cfg.SessionLife == 0 {
		cfg.SessionLife = 24 * time.Hour
	}
	if cfg.claimExpiry == 0 {
		cfg.claimExpiry = claimExpiry
	}
	if cfg.CacheLength == 0 {
		cfg.CacheLength = 64 << 20
	}
	r := &Repository{bucket: generations{b}, dir: d, cfg: cfg, log: cfg.Log, fs: cfg.files}
	r.advise, _ = b.(advised)
	if r.fs == nil {
		r.fs = localFiles{}
	}
	r.packs.handles = map[images.Digest]uint32{}
	r.index = newIndex(r.fs, filepath.Join(cfg.Spool, "index"), cfg.Log)
	r.ctx, r.cancel = context.WithCancel(context.Background())
	r.opening = make(chan struct{}, 1)
	r.cache = newCache[groupKey, *records](r, cfg.CacheLength)
	r.frames = newCache[images.Digest, *frame](r, frameCache)
	r.layers = newCache[layerRangeKey, []byte](r, layerCache)
	if err := r.open(ctx); err != nil {
		r.cancel()
		if r.lock != nil {
			r.lock.Close()
		}
		return nil, fmt.Errorf("open repository: %w", err)
	}
	return r, nil
}

func (r *Repository) open(ctx context.Context) (err error) {
	if err := makeDirs(r.fs, r.journal()); err != nil {
		return err
	}
	if r.cfg.files == nil {
		if r.lock, err = lockFile(filepath.Join(r.cfg.Spool, "lock")); err != nil {
			return err
		}
	}
	return r.recover(ctx)
}

// manyPacks is how many packs take long enough to index that an operator should know: some 10 s for 4,096 of them.
const manyPacks = 256

// ready lists the packs and opens the index, once: what storing tiles needs and serving images does not. Packs that no file
// of the index covers are read.
func (r *Repository) ready(ctx context.Context) error {
	if r.isReady.Load() {
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(r.ctx, cancel)() // Close does not wait for a large index
	select {
	case r.opening <- struct{}{}:
		defer func() { <-r.opening }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if r.isReady.Load() {
		return nil
	}
	if err := r.recoverLeft(ctx); err != nil {
		return err
	}
	started := time.Now()
	for o, err := range r.bucket.List(ctx, "packs/") {
		if err != nil {
			return fmt.Errorf("open the index of tiles: %w", err)
		}
		if id, ok := packID(o.Key); ok {
			r.packs.add(id)
		}
	}
	covered, err := r.index.load(r.packs.handle)
	if err != nil {
		return err
	}
	var missing []images.Digest
	for id := range r.packs.all() {
		if !covered[id] {
			missing = append(missing, id)
		}
	}
	if len(missing) > manyPacks {
		r.log.Info("making the index of tiles", "packs", len(missing))
	}
	if err := r.indexPacks(ctx, missing); err != nil {
		return fmt.Errorf("open the index of tiles: %w", err)
	}
	if _, err := r.refreshMarks(ctx); err != nil {
		return err
	}
	r.isReady.Store(true)
	if len(missing) > manyPacks {
		r.log.Info("index of tiles made", "packs", len(missing), "took", time.Since(started).Round(time.Second))
	}
	return nil
}

// journal is the folder of the segments.
func (r *Repository) journal() string { return filepath.Join(r.cfg.Spool, "journal") }

// Close waits for the work under way, leaves tiles that are in no pack yet in the spool, where the next Open finds
// them, and gives the lock back.
func (r *Repository) Close() error {
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return nil
	}
	r.closed = true
	if r.timer != nil {
		r.timer.Stop()
	}
	open := r.pending
	if r.current != nil {
		open = append(open, r.current)
	}
	r.current, r.pending = nil, nil
	r.mu.Unlock()

	r.cancel()
	r.work.Wait()
	var errs []error
	for _, s := range open {
		errs = append(errs, s.sync(), s.abandon())
	}
	r.index.close()
	if r.lock != nil {
		errs = append(errs, r.lock.Close())
	}
	return errors.Join(errs...)
}

// begin counts one piece of work that Close waits for; the caller calls the returned function when it is done.
func (r *Repository) begin() (done func(), err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, errClosed
	}
	r.work.Add(1)
	return r.work.Done, nil
}
