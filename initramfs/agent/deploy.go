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

// deployment carries out one job that is not a capture: most put an image on a disk. Its steps run one after the other on the
// caller's goroutine; reports and the swarm run beside them.
type deployment struct {
	a *Agent
	j job.Job

	manifest  *images.Manifest
	about     description
	layout    *layout.Layout
	frame     []parttable.Region
	need      disk.Need
	transport swarm.Transport
	keep      []int        // indexes of the partitions that stay as they are
	spared    bool         // the disk has the image's table already, and keeps it
	src       *disk.Source // of a job that only reads

	group sync.WaitGroup // of what runs beside the steps

	verified atomic.Int64 // bytes
	total    atomic.Int64 // bytes
	looked   atomic.Int64 // bytes of what the disk held that were looked at, or zeroed
	kick     chan struct{}

	telling sync.Mutex // held from the moment that a report is of until it was answered: none overtakes a later one
	parted  bool       // the last report was sent; guarded by telling

	mu      sync.Mutex // guards everything below
	status  status
	dev     *disk.Device
	store   *disk.Storage
	swarm   *swarm.Swarm
	left    string        // what is on the disk if the job ends now, for people
	found   *job.Finding  // of a verify
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
	switch {
	case d.src != nil:
		_ = d.src.Close() // it was only read
	case dev != nil:
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
	switch d.j.Kind {
	case job.VerifyDisk:
		return d.compare(ctx)
	case job.RepairDisk:
		return d.write(ctx, d.inspect)
	case job.WipeDisk:
		return d.wipe(ctx)
	case job.InventoryOf:
		return d.tell(ctx)
	}
	return d.write(ctx, d.overwrite)
}

// write puts the image on a disk, which ready makes ready for that.
func (d *deployment) write(ctx context.Context, ready func(context.Context) error) error {
	for _, step := range []func(context.Context) error{d.prepare, d.choose, ready} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	fetch := newContent(d)
	defer fetch.stop()
	if err := fetch.run(ctx); err != nil {
		return err
	}
	if err := d.zeroFree(ctx); err != nil {
		return err
	}
	proven, err := d.verify(ctx)
	if err != nil {
		return err
	}
	table, err := d.table()
	if err != nil {
		return err
	}
	r := job.Receipt{Roots: proven.Roots, Unproven: proven.Unproven, Level: d.j.Options.Verify, Kept: d.j.Options.Keep, Table: table, Changes: d.changesToCome()}
	if d.j.Kind == job.RepairDisk {
		r.Found = &job.Finding{Table: !d.spared, Damage: d.store.Fixed(d.manifest)}
		if r.Result = "repaired"; r.Found.IsClean() {
			r.Result, r.Found = "right", nil
		}
	}
	if err := d.receipt(ctx, r); err != nil {
		return err
	}
	if err := d.seed(ctx); err != nil {
		return err
	}
	d.part(ctx)
	return nil
}

// part says that the machine leaves the job.
func (d *deployment) part(ctx context.Context) {
	detail := "then " + d.j.After
	if d.dev != nil {
		detail = "disk " + d.dev.Name + ", " + detail
	}
	d.enter(job.PhaseReboot, detail)
	d.telling.Lock()
	defer d.telling.Unlock()
	d.parted = true
	_ = d.report(ctx, d.snapshot()) // the receipt has said it all
}

// overwrite takes the old system off the disk, and looks whether it holds something of the image.
func (d *deployment) overwrite(ctx context.Context) error {
	if err := d.clear(ctx); err != nil {
		return err
	}
	return d.look(ctx)
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
	var err error
	if d.keep, err = disk.KeptPartitions(d.manifest, d.j.Options.Keep); err != nil {
		return d.imageFailure(err)
	}
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
		chosen, refusal := d.fitting(disks)
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

// fitting returns the disk that the job is about.
func (d *deployment) fitting(disks []disk.Disk) (disk.Disk, *disk.Refusal) {
	if d.j.Kind == job.WipeDisk {
		return disk.ChooseWipe(disks, d.need.Serial)
	}
	return disk.Choose(disks, d.need)
}

// openDisk opens a disk: a job that only reads sets it read-only for the whole kernel.
func (d *deployment) openDisk(name string) (dev *disk.Device, close func(), err error) {
	if d.j.Kind.Writes() {
		if dev, err = d.a.cfg.Machine.Open(name); err != nil {
			return nil, nil, err
		}
		return dev, func() { _ = dev.Close() }, nil
	}
	src, err := d.a.cfg.Machine.OpenSource(name)
	if err != nil {
		return nil, nil, err
	}
	d.src = src
	return src.Device(), func() { _ = src.Close(); d.src = nil }, nil
}

// open opens the disk that was chosen from a list. It returns false if the list is another one by then: a name may mean
// another disk than the one that was looked at.
func (d *deployment) open(chosen disk.Disk, disks []disk.Disk) (same bool, err error) {
	dev, closeDisk, err := d.openDisk(chosen.Name)
	if now, e := d.a.cfg.Machine.Disks(); e != nil || !slices.EqualFunc(now, disks, sameDisk) {
		if err == nil {
			closeDisk() // nothing was written
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
	if d.need.SectorLength != 0 && (dev.Length < d.need.Length || dev.SectorLength != d.need.SectorLength) {
		return false, &Failure{Code: disk.CodeTooSmall, Sentence: fmt.Sprintf("disk %s has %d bytes in sectors of %d, the image needs %d in "+
			"sectors of %d. Nothing was written", dev.Name, dev.Length, dev.SectorLength, d.need.Length, d.need.SectorLength)}
	}
	d.a.screen.Say("disk %s", disk.Describe(chosen))
	return true, nil
}

// clear has the old table saved at the appliance, durably, and then takes it off the disk: from here to the new table
// the disk boots nothing. Where partitions are kept the old table stays until the new one takes its place.
func (d *deployment) clear(ctx context.Context) error {
	d.enter(job.PhaseFrame, "disk "+d.dev.Name)
	if len(d.keep) > 0 {
		refusal, err := d.dev.CanKeep(d.manifest, d.frame, d.keep)
		if err != nil {
			return d.diskFailure(err)
		}
		if refusal != nil {
			return &Failure{Code: refusal.Code, Sentence: refusal.Sentence, Err: refusal}
		}
	}
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
	if len(d.keep) > 0 {
		d.leave("the disk has its old table and the partitions that are kept, and the others are written in part")
		return nil
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
	store.Keep(d.keep)
	store.Hint(d.j.Hint)
	d.total.Store(store.DataLength())
	if d.manifest.Frame.Table == parttable.None {
		if err := store.HoldFirst(); err != nil {
			return d.diskFailure(err)
		}
	}
	_, err := d.probe(ctx, store)
	return err
}

// probe finds out whether it is worth while to look at what the disk holds.
func (d *deployment) probe(ctx context.Context, store *disk.Storage) (worth bool, err error) {
	d.mu.Lock()
	d.store = store
	d.mu.Unlock()
	worth, err = store.Probe(ctx, d.tileHashes)
	if err != nil {
		return false, d.diskFailure(err)
	}
	if worth {
		d.a.screen.Say("what the disk holds already is looked for while content comes")
	}
	return worth, nil
}

// tileHashes implements disk.FetchHashes.
func (d *deployment) tileHashes(ctx context.Context, partition int, ranges []images.Extent) ([][]byte, error) {
	parts, err := d.fetchRanges(ctx, d.manifest.Partitions[partition].TileLayer, ranges)
	if err != nil {
		err = d.imageFailure(err)
	}
	return parts, err
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
func (d *deployment) verify(ctx context.Context) (proven disk.Proven, err error) {
	d.enter(job.PhaseVerify, "disk "+d.dev.Name)
	if err := d.dev.Sync(); err != nil {
		return proven, d.diskFailure(err)
	}
	proven, err = d.store.Verify(ctx, d.manifest, d.j.Options.Verify, func(n int64) { d.verified.Add(n) })
	if wrong := (*disk.ErrContent)(nil); errors.As(err, &wrong) {
		return proven, &Failure{Code: "verify-error", Sentence: wrong.Error(), Err: err}
	}
	if err != nil {
		return proven, d.diskFailure(err)
	}
	return proven, nil
}

// table writes the new table: from here on the disk boots.
func (d *deployment) table() (images.Digest, error) {
	d.enter(job.PhaseTable, "disk "+d.dev.Name)
	if err := d.store.WriteFirst(); err != nil {
		return images.Digest{}, d.diskFailure(err)
	}
	d.leave("the disk holds the image, but there is no receipt for it")
	put := d.dev.WriteTable
	switch {
	case d.spared:
		put = d.dev.TableSum // it was read and right
	case len(d.keep) > 0:
		put = d.dev.ReplaceTable
	}
	sum, err := put(d.frame, d.manifest.Frame.Table)
	if err != nil {
		return sum, d.diskFailure(err)
	}
	if d.spared {
		return sum, nil
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
	d.discardFree(ctx)
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
	if d.storage() != nil {
		return &Failure{Code: "image-error", Sentence: fmt.Sprintf("image %s cannot be used: %v. Run `seedbed image verify` on the appliance", d.j.ImageName, err), Err: err}
	}
	return &Failure{Code: "image-error", Sentence: fmt.Sprintf("image %s cannot be used: %v. Nothing was written. Run `seedbed image verify` on the appliance", d.j.ImageName, err), Err: err}
}
