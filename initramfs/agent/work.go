package agent

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"seedbed/appliance/job"
	"seedbed/initramfs/disk"
)

// compare reads the disk and compares it with the image; nothing is written. Where something differs the error is a Failure with
// what was found.
func (d *deployment) compare(ctx context.Context) error {
	for _, step := range []func(context.Context) error{d.prepare, d.choose} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	d.enter(job.PhaseVerify, "disk "+d.dev.Name)
	same, err := d.dev.HasTable(d.frame, d.manifest.Frame.Table)
	if err != nil {
		return d.readFailure(err)
	}
	store := disk.NewStorage(d.dev, d.layout) // reports say nothing of it: it holds nothing for others
	store.Keep(d.keep)
	d.total.Store(store.DataLength())
	damage, roots, err := store.Survey(ctx, d.manifest, d.tileHashes, func(n int64) {
		d.verified.Add(n)
		_ = d.gate(ctx) // the survey sees the end of ctx itself
	})
	if err != nil {
		return d.readFailure(err)
	}
	found := &job.Finding{Table: !same, Damage: damage}
	if !found.IsClean() {
		d.mu.Lock()
		d.found = found
		d.mu.Unlock()
		return &Failure{Code: job.CodeDamaged, found: found, Sentence: fmt.Sprintf("disk %s is not as image %s has it: %s. Nothing was written. "+
			"Order a repair of the machine: it writes only what differs", d.dev.Name, d.j.ImageName, findingText(found))}
	}
	sum, err := d.dev.TableSum(d.frame, d.manifest.Frame.Table)
	if err != nil {
		return d.readFailure(err)
	}
	if err := d.receipt(ctx, job.Receipt{Roots: roots, Level: job.VerifyFull, Kept: d.j.Options.Keep, Table: sum, Result: "right"}); err != nil {
		return err
	}
	d.part(ctx)
	return nil
}

// findingText says for people what differs: "the partition table; 17 of 1234 tiles (1.1 MB) of partition 2".
func findingText(f *job.Finding) string {
	var parts []string
	if f.Table {
		parts = append(parts, "the partition table differs")
	}
	for _, p := range f.Damage {
		parts = append(parts, fmt.Sprintf("%d of %d tiles (%s) of partition %d differ", p.Tiles, p.Of, disk.Size(p.Bytes), p.Partition))
	}
	return strings.Join(parts, "; ")
}

// readFailure turns an error of a job that only reads into a failure.
func (d *deployment) readFailure(err error) error {
	if errors.Is(err, context.Canceled) || errors.As(err, new(*Failure)) {
		return err
	}
	return &Failure{Code: "disk-error", Sentence: fmt.Sprintf("%v. Nothing was written. The disk or its cable is faulty: replace it and deploy", err), Err: err}
}

// gate waits while the appliance holds the job.
func (d *deployment) gate(ctx context.Context) error {
	for {
		d.mu.Lock()
		still, changed := d.held, d.changed
		d.mu.Unlock()
		if !still {
			return nil
		}
		d.a.screen.SayOnce("held", standsStill)
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// inspect finds out what has to be repaired. A disk that has the image's table, and some of its content, keeps the table: only what
// differs is written. Any other is treated as one that gets the image for the first time.
func (d *deployment) inspect(ctx context.Context) error {
	d.enter(job.PhaseHash, "disk "+d.dev.Name)
	same, err := d.dev.HasTable(d.frame, d.manifest.Frame.Table)
	if err != nil {
		return d.diskFailure(err)
	}
	if same {
		store := disk.NewStorage(d.dev, d.layout)
		store.Keep(d.keep)
		store.Hint(d.j.Hint)
		d.total.Store(store.DataLength())
		worth, err := d.probe(ctx, store)
		if err != nil {
			return err
		}
		if worth {
			d.spared = true
			d.leave("the disk has its table, and is repaired in part")
			return nil
		}
	}
	d.a.screen.Say("the disk has another table than the image, or nothing of it: all of it is written anew")
	return d.overwrite(ctx)
}

// zeroFree makes free space zeros where the deployment says so.
func (d *deployment) zeroFree(ctx context.Context) error {
	if d.j.Options.Free != job.FreeZero {
		return nil
	}
	d.enter(job.PhaseFree, "disk "+d.dev.Name)
	free, err := d.store.FreeExtents(d.manifest, d.frame)
	if err != nil {
		return d.imageFailure(err)
	}
	if err := d.store.ZeroFree(ctx, free, func(n int64) { d.looked.Add(n) }); err != nil {
		return d.diskFailure(err)
	}
	return nil
}

// changesToCome are sentences for the receipt about what follows it.
func (d *deployment) changesToCome() []string {
	switch {
	case d.j.Options.Free != job.FreeDiscard:
		return nil
	case !d.dev.CanDiscard():
		return []string{"free space was to be given back to the disk, but the disk takes no discards: it stays as it is"}
	}
	return []string{"free space is given back to the disk after this receipt"}
}

// discardFree gives free space back to the disk where the deployment says so. The disk is right and proven: what goes wrong here
// is said, and fails nothing.
func (d *deployment) discardFree(ctx context.Context) {
	if d.j.Options.Free != job.FreeDiscard {
		return
	}
	free, err := d.store.FreeExtents(d.manifest, d.frame)
	if err == nil && !d.dev.CanDiscard() {
		err = disk.ErrNoDiscard
	}
	total := int64(0)
	if err == nil {
		err = d.dev.Discard(ctx, free, func(n int64) { total += n })
	}
	if err != nil {
		d.a.screen.Say("free space stays as it is: %v", err)
		return
	}
	d.a.screen.Say("%s of free space given back to the disk", disk.Size(total))
}

// tell has the appliance know what the machine is now.
func (d *deployment) tell(ctx context.Context) error {
	d.enter(job.PhaseStart, "inventory")
	d.a.client.identify(d.j.Certificate, false, nil)
	if _, err := d.a.inventory(ctx); err != nil {
		return err
	}
	if err := d.receipt(ctx, job.Receipt{Result: "told"}); err != nil {
		return err
	}
	d.part(ctx)
	return nil
}

// wipe makes everything on a disk unreadable, and reads samples to prove it.
func (d *deployment) wipe(ctx context.Context) error {
	d.enter(job.PhaseStart, "disk to be wiped")
	d.a.client.identify(d.j.Certificate, false, nil)
	wiped := job.Wiped{Asked: d.j.Method}
	if err := wiped.Asked.Check(); err != nil {
		return &Failure{Code: "job-wrong", Sentence: err.Error() + ". Nothing was written", Err: err}
	}
	d.need = disk.Need{Serial: d.j.DiskSerial}
	if err := d.choose(ctx); err != nil {
		return err
	}
	if err := d.clear(ctx); err != nil {
		return err
	}
	d.total.Store(d.dev.Length)
	d.leave("the disk is wiped in part and holds no system")
	d.enter(job.PhaseWipe, "disk "+d.dev.Name+" by "+string(wiped.Asked))
	if err := d.erase(ctx, &wiped); err != nil {
		return err
	}
	d.enter(job.PhaseVerify, "disk "+d.dev.Name)
	samples, bytes, at, err := d.dev.Blank(ctx)
	if err != nil {
		return d.diskFailure(err)
	}
	if at >= 0 {
		return &Failure{Code: disk.CodeWipe, Sentence: fmt.Sprintf("disk %s returned other bytes than zeros at byte %d after it was wiped. It is "+
			"faulty, and what was on it may be there still: destroy it", d.dev.Name, at)}
	}
	wiped.Samples, wiped.Bytes = samples, bytes
	if err := d.dev.RereadTable(); err != nil {
		d.a.log.Warn("the kernel did not take notice that there is no table", "err", err) // the next start will
	}
	if wiped.Why != "" {
		d.a.screen.Say("wiped by %s, not by %s: %s", wiped.Done, wiped.Asked, wiped.Why)
	}
	if err := d.receipt(ctx, job.Receipt{Result: "wiped", Wiped: &wiped}); err != nil {
		return err
	}
	d.part(ctx)
	return nil
}

// erase does what was asked, or zeros where the disk cannot, or did not.
func (d *deployment) erase(ctx context.Context, w *job.Wiped) error {
	w.Done = w.Asked
	count := func(n int64) { d.looked.Add(n) }
	var err error
	switch {
	case w.Asked == job.WipeSecure:
		err = d.dev.SecureDiscard(ctx, d.dev.Everything(), count)
	case w.Asked == job.WipeDiscard && !d.dev.CanDiscard():
		err = disk.ErrNoDiscard
	case w.Asked == job.WipeDiscard:
		err = d.dev.Discard(ctx, d.dev.Everything(), count)
	}
	if w.Asked != job.WipeZero && err == nil {
		if err = d.dev.Sync(); err == nil {
			var at int64
			if _, _, at, err = d.dev.Blank(ctx); err == nil && at >= 0 {
				w.Done, w.Why = job.WipeZero, fmt.Sprintf("after the discard the disk still returned data at byte %d", at)
			}
		}
	}
	if errors.Is(err, disk.ErrNoDiscard) {
		w.Done, w.Why, err = job.WipeZero, "the disk does not know the request", nil
	}
	if err != nil {
		return d.diskFailure(err)
	}
	if w.Done != job.WipeZero {
		return nil
	}
	d.looked.Store(0)
	err = d.dev.ZeroAll(ctx, func(n int64) error { count(n); return d.gate(ctx) })
	if err != nil {
		return d.diskFailure(err)
	}
	return nil
}
