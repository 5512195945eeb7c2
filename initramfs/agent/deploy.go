package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"seedbed/appliance/job"
	"seedbed/images"
	"seedbed/images/layout"
	"seedbed/images/parttable"
	"seedbed/images/swarm"
	"seedbed/initramfs/disk"
)

// deployment carries out one job that writes an image to a disk. Its steps run one after the other on the caller's
// goroutine; reports and the swarm run beside them.
type deployment struct {
	a *Agent
	j job.Job

	manifest  *images.Manifest
	about     description
	layout    *layout.Layout
	frame     []parttable.Region
	need      disk.Need
	transport swarm.Transport

	group sync.WaitGroup // of what runs beside the steps

	verified atomic.Int64 // bytes
	total    atomic.Int64 // bytes
	looked   atomic.Int64 // bytes of what the disk held that were looked at, or zeroed
	kick     chan struct{}

	mu      sync.Mutex // guards everything below
	status  status
	dev     *disk.Device
	store   *disk.Storage
	swarm   *swarm.Swarm
	left    string        // what is on the disk if the job ends now, for people
	held    bool          // a person paused the job
	changed chan struct{} // closed and replaced when held or status.released change
}

func newDeployment(a *Agent, j job.Job) *deployment {
	return &deployment{a: a, j: j, kick: make(chan struct{}, 1), changed: make(chan struct{}),
		left: "nothing was written", status: status{phase: job.PhaseStart, state: job.Running, heard: time.Now()}}
}

func (d *deployment) storage() *disk.Storage {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.store
}

// run carries the job out. An error is a *Failure, or the end of ctx; the disk is not written after it.
func (d *deployment) run(ctx context.Context) (err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	d.group.Go(func() { d.reports(ctx, func(err error) { d.over(err, cancel) }) })
	if err = d.steps(ctx); err != nil {
		d.fence(err)
		if ctx.Err() != nil {
			err = context.Cause(ctx) // what ended the job explains more than the step that it ended
		}
	}
	d.mu.Lock()
	phase, dev := d.status.phase, d.dev
	d.mu.Unlock()
	if f := (*Failure)(nil); errors.As(err, &f) {
		f.at = phase
	}
	cancel(nil)
	d.group.Wait()
	if dev != nil {
		err = errors.Join(err, dev.Close())
	}
	return err
}

// over ends the job by the appliance's word. One that is done already only ends its seeding.
func (d *deployment) over(err error, cancel context.CancelCauseFunc) {
	d.mu.Lock()
	done := d.status.phase == job.PhaseSeed || d.status.phase == job.PhaseReboot
	if done {
		d.status.released = true
		close(d.changed)
		d.changed = make(chan struct{})
	}
	d.mu.Unlock()
	if !done {
		d.fence(err)
		cancel(err)
	}
}

// steps is the sequence of the job. The swarm has been left when it returns.
func (d *deployment) steps(ctx context.Context) error {
	for _, step := range []func(context.Context) error{d.prepare, d.choose, d.clear, d.look} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	fetch := newContent(d)
	defer fetch.stop()
	if err := fetch.run(ctx); err != nil {
		return err
	}
	roots, err := d.verify(ctx)
	if err != nil {
		return err
	}
	table, err := d.table()
	if err != nil {
		return err
	}
	if err := d.receipt(ctx, roots, table); err != nil {
		return err
	}
	if err := d.seed(ctx); err != nil {
		return err
	}
	d.enter(job.PhaseReboot, fmt.Sprintf("disk %s, then %s", d.dev.Name, d.j.After))
	_ = d.report(ctx, d.snapshot()) // the receipt has said it all
	return nil
}

// prepare fetches what says how the image lies on a disk, and checks all of it.
func (d *deployment) prepare(ctx context.Context) error {
	d.enter(job.PhaseStart, "image "+d.j.ImageName)
	d.a.client.identify(d.j.Certificate, false, nil) // by which machines know each other, and the tracker knows them
	d.transport = d.jobTransport()
	if err := d.fetchManifest(ctx); err != nil {
		return err
	}
	if err := d.describe(ctx); err != nil {
		return err
	}
	d.total.Store(d.layout.DataLength())
	length, err := disk.Needed(d.manifest, d.frame)
	if err != nil {
		return d.imageFailure(err)
	}
	d.need = disk.Need{Image: d.j.ImageName, Serial: d.j.DiskSerial, SectorLength: d.manifest.SectorLength, Length: length}
	return nil
}

// choose finds the disk to write and opens it; nothing is written. Where another disk would do, the job is paused until
// there is one.
func (d *deployment) choose(ctx context.Context) error {
	d.enter(job.PhaseCheck, "disks")
	var before []disk.Disk
	for {
		disks, err := d.a.cfg.Machine.Disks()
		if err != nil {
			return &Failure{Code: "no-disk", Sentence: "the machine's disks cannot be listed: " + err.Error(), Err: err}
		}
		if !slices.Equal(disks, before) {
			// Controllers show their disks one after the other: only a list that has come to rest is looked at.
			before = disks
			if err := sleep(ctx, d.a.cfg.timing.rest); err != nil {
				return err
			}
			continue
		}
		chosen, refusal := disk.Choose(disks, d.need)
		if refusal == nil {
			same, err := d.open(chosen, disks)
			if err != nil || same {
				return err
			}
			before = nil
			continue
		}
		if !refusal.Wait {
			return &Failure{Code: refusal.Code, Sentence: refusal.Sentence, Err: refusal}
		}
		d.wait(refusal.Code, refusal.Sentence)
		d.a.screen.SayOnce("paused", "paused: %s", refusal.Sentence)
		if err := sleep(ctx, d.a.cfg.timing.rescan); err != nil {
			return err
		}
	}
}

// open opens the disk that was chosen from a list. It returns false if the list is another one by then: a name may mean
// another disk than the one that was looked at.
func (d *deployment) open(chosen disk.Disk, disks []disk.Disk) (same bool, err error) {
	dev, err := d.a.cfg.Machine.Open(chosen.Name)
	if now, e := d.a.cfg.Machine.Disks(); e != nil || !slices.Equal(now, disks) {
		if err == nil {
			_ = dev.Close() // nothing was written
		}
		d.a.screen.Say("the disks have changed and are looked at again")
		return false, nil
	}
	switch {
	case errors.Is(err, unix.EBUSY):
		return false, &Failure{Code: "disk-busy", Sentence: fmt.Sprintf("disk %s is in use, by an array or another program. Nothing was "+
			"written. Restart the machine", chosen.Name), Err: err}
	case err != nil:
		return false, &Failure{Code: "disk-open", Sentence: fmt.Sprintf("%v. Nothing was written. Check the disk and its cable", err), Err: err}
	}
	d.mu.Lock()
	d.dev = dev
	d.mu.Unlock()
	d.set(func(s *status) { s.disk, s.state, s.code, s.reason = chosen, job.Running, "", "" })
	if dev.Length < d.need.Length || dev.SectorLength != d.need.SectorLength {
		return false, &Failure{Code: disk.CodeTooSmall, Sentence: fmt.Sprintf("disk %s has %d bytes in sectors of %d, the image needs %d in "+
			"sectors of %d. Nothing was written", dev.Name, dev.Length, dev.SectorLength, d.need.Length, d.need.SectorLength)}
	}
	d.a.screen.Say("disk %s", disk.Describe(chosen))
	return true, nil
}

// clear has the old table saved at the appliance, durably, and then takes it off the disk: from here to the new table
// the disk boots nothing.
func (d *deployment) clear(ctx context.Context) error {
	d.enter(job.PhaseFrame, "disk "+d.dev.Name)
	old, err := d.dev.OldFrame()
	if err != nil {
		return d.diskFailure(err)
	}
	if len(old) > 0 {
		if err := d.sendFrame(ctx, old); err != nil {
			return err
		}
	}
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	d.leave("the disk holds no system now")
	if err := d.dev.Wipe(); err != nil {
		return d.diskFailure(err)
	}
	return nil
}

// look finds out whether the disk holds something of the image already; the rest is found out while content comes.
func (d *deployment) look(ctx context.Context) error {
	d.enter(job.PhaseHash, "disk "+d.dev.Name)
	store := disk.NewStorage(d.dev, d.layout)
	store.Hint(d.j.Hint)
	if d.manifest.Frame.Table == parttable.None {
		if err := store.HoldFirst(); err != nil {
			return d.diskFailure(err)
		}
	}
	d.mu.Lock()
	d.store = store
	d.mu.Unlock()
	worth, err := store.Probe(ctx, func(ctx context.Context, partition int, ranges []images.Extent) ([][]byte, error) {
		parts, err := d.fetchRanges(ctx, d.manifest.Partitions[partition].TileLayer, ranges)
		if err != nil {
			err = d.imageFailure(err)
		}
		return parts, err
	})
	if err != nil {
		return d.diskFailure(err)
	}
	if worth {
		d.a.screen.Say("what the disk holds already is looked for while content comes")
	}
	return nil
}

// leave notes what is on the disk from now on.
func (d *deployment) leave(sentence string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.left = sentence
}

// ended returns that others ended the job: the machine may take another one. how is "was cancelled".
func (d *deployment) ended(how string, err error) *Failure {
	d.mu.Lock()
	defer d.mu.Unlock()
	return &Failure{Code: "cancelled", over: true, Sentence: "job " + d.j.ID + " " + how + "; " + d.left, Err: err}
}

// verify makes everything durable and reads it back from the disk itself.
func (d *deployment) verify(ctx context.Context) ([]job.PartitionRoot, error) {
	d.enter(job.PhaseVerify, "disk "+d.dev.Name)
	if err := d.dev.Sync(); err != nil {
		return nil, d.diskFailure(err)
	}
	roots, err := d.store.Verify(ctx, d.manifest, func(n int64) { d.verified.Add(n) })
	if wrong := (*disk.ErrContent)(nil); errors.As(err, &wrong) {
		return nil, &Failure{Code: "verify-error", Sentence: wrong.Error(), Err: err}
	}
	if err != nil {
		return nil, d.diskFailure(err)
	}
	return roots, nil
}

// table writes the new table: from here on the disk boots.
func (d *deployment) table() (images.Digest, error) {
	d.enter(job.PhaseTable, "disk "+d.dev.Name)
	if err := d.store.WriteFirst(); err != nil {
		return images.Digest{}, d.diskFailure(err)
	}
	d.leave("the disk holds the image, but there is no receipt for it")
	sum, err := d.dev.WriteTable(d.frame, d.manifest.Frame.Table)
	if err != nil {
		return sum, d.diskFailure(err)
	}
	if err := d.dev.RereadTable(); err != nil {
		d.a.log.Warn("the kernel did not take the new table", "err", err) // the next start will
	}
	return sum, nil
}

// seed goes on serving other machines until none needs this one, or it has done so for long enough, or nothing was
// heard of the appliance for a while.
func (d *deployment) seed(ctx context.Context) error {
	d.enter(job.PhaseSeed, "disk "+d.dev.Name)
	var end <-chan time.Time
	if d.j.SeedFor > 0 {
		timer := time.NewTimer(d.j.SeedFor)
		defer timer.Stop()
		end = timer.C
	}
	look := time.NewTicker(d.a.cfg.timing.alone / 4)
	defer look.Stop()
	for {
		d.mu.Lock()
		released, heard, changed := d.status.released, d.status.heard, d.changed
		d.mu.Unlock()
		if released || time.Since(heard) > d.a.cfg.timing.alone {
			return nil
		}
		select {
		case <-changed:
		case <-look.C:
		case <-end:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// fence keeps the disk, where one was chosen, from being written any more.
func (d *deployment) fence(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.dev != nil {
		d.dev.Fence(err)
	}
}

// diskFailure turns an error of the disk into a failure; the end of a context stays what it is.
func (d *deployment) diskFailure(err error) error {
	if errors.Is(err, context.Canceled) || errors.As(err, new(*Failure)) {
		return err
	}
	d.fence(err)
	return &Failure{Code: "disk-error", Sentence: fmt.Sprintf("%v. The disk or its cable is faulty: replace it and deploy again", err), Err: err}
}

// imageFailure turns an error of the image's description into a failure.
func (d *deployment) imageFailure(err error) error {
	if errors.Is(err, context.Canceled) || errors.As(err, new(*Failure)) {
		return err
	}
	written := " Nothing was written."
	if d.storage() != nil {
		written = ""
	}
	return &Failure{Code: "image-error", Sentence: fmt.Sprintf("image %s cannot be used: %v.%s Run `seedbed image verify` on the "+
		"appliance", d.j.ImageName, err, written), Err: err}
}
