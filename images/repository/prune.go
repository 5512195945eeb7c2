package repository

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// PruneConfig says how to prune; the zero value is usable.
type PruneConfig struct {
	// Grace is how long what no image uses stays after it was marked; 0 means a twenty-fourth longer than
	// Config.SessionLife, which is also the least: captures under way may still come to use it.
	Grace time.Duration
	// DryRun changes nothing and reports what would be done now.
	DryRun bool
	// MaxRewrite bounds the bytes that compaction writes in one run; 0 means 16 GiB, less than 0 none.
	MaxRewrite int64
	// Progress, if not nil, is called often and one at a time; it must not block. Done and Total count objects, in
	// compaction bytes.
	Progress func(phase PrunePhase, p Progress)
}

// PrunePhase is a part of pruning.
type PrunePhase string

// The phases in their order.
const (
	PruneLook    PrunePhase = "look"    // at what images use
	PruneSweep   PrunePhase = "sweep"   // delete what was marked long ago
	PruneCompact PrunePhase = "compact" // rewrite packs
	PruneMark    PrunePhase = "mark"    // what no image uses
)

// Amount is a number of objects and their bytes.
type Amount struct {
	Objects int
	Bytes   int64
}

func (a *Amount) add(bytes int64) { a.Objects, a.Bytes = a.Objects+1, a.Bytes+bytes }

// PruneReport says what was done, or with DryRun what would be done.
type PruneReport struct {
	Deleted  Amount
	Marked   Amount // now, to be deleted by a prune after the grace
	Waiting  Amount // marked before; their grace is not over
	Unmarked Amount // marked before, and used again
	Young    Amount // used by no image, but too young to be marked: a capture may be making one
	// Next is when the first of Marked and Waiting can be deleted, by the bucket's clock; zero if there is none.
	Next    time.Time
	Compact CompactReport
}

// Prune removes what no image uses. It takes two runs, Grace apart: the first marks objects, and from then on new captures
// do not build on them; the second deletes those that are still used by no image. Between the two it compacts: packs with
// more than 40 % dead bytes are rewritten, and images whose pieces lie scattered are brought together. It works beside
// captures, readers and other appliances; one at a time prunes (ErrPruning). When it is cut short at any moment nothing that
// an image uses is lost, and the next run goes on. While an image cannot be read nothing is removed.
func (r *Repository) Prune(ctx context.Context, cfg PruneConfig) (*PruneReport, error) {
	done, err := r.begin()
	if err != nil {
		return nil, err
	}
	defer done()
	least := r.cfg.SessionLife + r.cfg.SessionLife/24
	if cfg.Grace == 0 {
		cfg.Grace = least
	}
	if cfg.Grace < least {
		return nil, fmt.Errorf("prune: a grace of %v is too short: captures may last %v; give at least %v", cfg.Grace, r.cfg.SessionLife, least)
	}
	if cfg.MaxRewrite == 0 {
		cfg.MaxRewrite = 16 << 30
	}
	p := &pruning{r: r, cfg: cfg, report: &PruneReport{}}
	if err := p.run(ctx); err != nil {
		return p.report, fmt.Errorf("prune: %w", err)
	}
	r.log.Info("pruned", "deleted", p.report.Deleted.Objects, "deleted_bytes", p.report.Deleted.Bytes, "marked", p.report.Marked.Objects,
		"marked_bytes", p.report.Marked.Bytes, "rewritten_bytes", p.report.Compact.Written)
	return p.report, nil
}

// pruning is one Prune.
type pruning struct {
	r      *Repository
	cfg    PruneConfig
	claim  *claim // nil in a dry run
	report *PruneReport
	now    time.Time // by the bucket's clock, when the run began
	images []*liveImage
	used   map[string]bool
	// objects are what is there, by key.
	objects map[string]Object
	lists   []*markList
}

func (p *pruning) run(ctx context.Context) (err error) {
	if p.cfg.DryRun {
		p.now = time.Now()
	} else {
		if p.claim, err = p.r.claim(ctx); err != nil {
			return err
		}
		defer p.claim.release()
		if err := p.r.finishRemovals(ctx); err != nil {
			return err
		}
		if p.now, err = p.r.bucketTime(ctx); err != nil {
			return err
		}
	}
	// Marks come first: what they name and what is used afterwards was used by a capture that knew of them.
	if err := p.readLists(ctx); err != nil {
		return err
	}
	if err := p.look(ctx); err != nil {
		return err
	}
	if err := p.sweep(ctx); err != nil {
		return err
	}
	// A full disk keeps packs from being rewritten, but not what no image uses from being marked.
	compacted := p.compact(ctx)
	if ctx.Err() != nil {
		return compacted
	}
	p.used = usedKeys(p.images)
	if err := p.mark(ctx); err != nil {
		return errors.Join(compacted, err)
	}
	if p.cfg.DryRun || compacted != nil {
		return p.r.explainFull(compacted, 0)
	}
	if err := p.forgetDamaged(ctx); err != nil {
		return err
	}
	if err := p.forgetClocks(ctx); err != nil {
		return err
	}
	_, err = p.r.refresh(ctx)
	return err
}

// forgetClocks removes what processes that were killed left of asking for the bucket's time.
func (p *pruning) forgetClocks(ctx context.Context) error {
	var keys []string
	for o, err := range p.r.bucket.List(ctx, clockPrefix) {
		if err != nil {
			return err
		}
		if p.now.Sub(o.Modified) > staleAfter {
			keys = append(keys, o.Key)
		}
	}
	for _, key := range keys {
		if err := p.claim.delete(ctx, key); err != nil {
			return err
		}
	}
	return nil
}

func (p *pruning) progress(phase PrunePhase, done, total int64) {
	if p.cfg.Progress != nil {
		p.cfg.Progress(phase, Progress{Done: done, Total: total})
	}
}

func (p *pruning) readLists(ctx context.Context) error {
	lists, err := p.r.readMarks(ctx, nil)
	if err != nil {
		return err
	}
	for _, l := range lists {
		p.lists = append(p.lists, l)
	}
	slices.SortFunc(p.lists, func(a, b *markList) int { return strings.Compare(a.key, b.key) })
	return nil
}

// look lists objects and what images use of them. Objects come first: one that is listed and not used afterwards is of
// nobody, or of a capture that is not finished.
func (p *pruning) look(ctx context.Context) (err error) {
	p.objects = map[string]Object{}
	for _, prefix := range prunable {
		for o, err := range p.r.bucket.List(ctx, prefix) {
			if err != nil {
				return fmt.Errorf("list objects: %w", err)
			}
			p.objects[o.Key] = o
			p.progress(PruneLook, int64(len(p.objects)), int64(len(p.objects)))
		}
	}
	if p.images, err = p.r.live(ctx); err != nil {
		return err
	}
	p.used = usedKeys(p.images)
	return nil
}

// pinned are the keys of the packs that captures of this process rely on.
func (p *pruning) pinned() map[string]bool {
	keys := map[string]bool{}
	for h := range p.r.sessions.pins() {
		keys[p.r.packKeyOf(h)] = true
	}
	return keys
}

// mark marks what no image uses and no list names yet. What is younger than a capture can last may be part of one.
func (p *pruning) mark(ctx context.Context) error {
	named := marked{}
	for _, l := range p.lists {
		for _, key := range l.keys {
			named[key] = struct{}{}
		}
	}
	pinned := p.pinned()
	var keys []string
	for key, o := range p.objects {
		if inUse(p.used, key) || named.has(key) {
			continue
		}
		if pinned[key] || p.now.Sub(o.Modified) < p.r.cfg.SessionLife {
			p.report.Young.add(o.Length)
			continue
		}
		keys = append(keys, key)
		p.report.Marked.add(o.Length)
	}
	slices.Sort(keys)
	p.progress(PruneMark, int64(len(keys)), int64(len(keys)))
	if len(keys) > 0 {
		p.next(p.now)
	}
	if p.cfg.DryRun || len(keys) == 0 {
		return nil
	}
	if err := p.claim.check(ctx); err != nil {
		return err
	}
	return p.r.writeMarks(ctx, keys)
}

// forgetDamaged removes what says that records of packs are damaged that are gone.
func (p *pruning) forgetDamaged(ctx context.Context) error {
	var keys []string
	for o, err := range p.r.bucket.List(ctx, damagedPrefix) {
		if err != nil {
			return err
		}
		id, _, _ := strings.Cut(strings.TrimPrefix(o.Key, damagedPrefix), "/")
		if _, err := p.r.bucket.Stat(ctx, "packs/"+id); errors.Is(err, ErrNotExist) {
			keys = append(keys, o.Key)
		} else if err != nil {
			return err
		}
	}
	for _, key := range keys {
		if err := p.claim.delete(ctx, key); err != nil {
			return err
		}
	}
	return nil
}
