package repository

import (
	"context"
	"strings"
	"time"
)

// sweep deletes what was marked long enough ago and is used by no image. A list goes when all that it names is deleted or
// in use. Packs go last: an earlier placement must not be there, for when the one that counts is damaged, without its packs.
func (p *pruning) sweep(ctx context.Context) error {
	pinned := p.pinned()
	var kept, aged []*markList
	for _, l := range p.lists {
		if l.damaged == nil && p.now.Sub(l.written) < p.cfg.Grace {
			kept = append(kept, l)
			p.wait(l)
			continue
		}
		aged = append(aged, l)
	}
	for _, packs := range []bool{false, true} {
		for _, l := range aged {
			for i, key := range l.keys {
				if strings.HasPrefix(key, "packs/") != packs {
					continue
				}
				p.progress(PruneSweep, int64(i), int64(len(l.keys)))
				if err := p.sweepObject(ctx, key, pinned); err != nil {
					return err
				}
			}
		}
	}
	for _, l := range aged {
		if p.cfg.DryRun {
			continue
		}
		if err := p.claim.delete(ctx, l.key); err != nil {
			return err
		}
	}
	p.lists = kept
	return nil
}

// sweepObject deletes an object whose grace is over, unless it is used. A pinned pack is marked again by a later run.
func (p *pruning) sweepObject(ctx context.Context, key string, pinned map[string]bool) error {
	o, there := p.objects[key]
	if inUse(p.used, key) {
		p.report.Unmarked.add(o.Length)
		return nil
	}
	if !there || pinned[key] {
		return nil
	}
	if !p.cfg.DryRun {
		if err := p.claim.delete(ctx, key); err != nil {
			return err
		}
	}
	delete(p.objects, key)
	p.report.Deleted.add(o.Length)
	return nil
}

// wait counts what a list names whose grace is not over.
func (p *pruning) wait(l *markList) {
	for _, key := range l.keys {
		if o, there := p.objects[key]; there && !inUse(p.used, key) {
			p.report.Waiting.add(o.Length)
			p.next(l.written)
		}
	}
}

// next notes when something that was marked at a time can be deleted.
func (p *pruning) next(written time.Time) {
	if t := written.Add(p.cfg.Grace); p.report.Next.IsZero() || t.Before(p.report.Next) {
		p.report.Next = t
	}
}
