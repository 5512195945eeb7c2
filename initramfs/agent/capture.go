package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"seedbed/appliance/job"
	"seedbed/images/capture"
	"seedbed/images/fsmap"
	"seedbed/images/intake"
	"seedbed/initramfs/disk"
)

// capturing carries out one job that makes an image of a disk, which is never written. Its steps run one after the other
// on the caller's goroutine; reports and uploads run beside them.
type capturing struct {
	a *Agent
	j job.Job

	done, total atomic.Int64 // bytes read, bytes to be read
	sent        atomic.Int64 // encoded bytes that the appliance has taken
	kick        chan struct{}

	mu       sync.Mutex // guards everything below
	phase    job.Phase
	state    job.State
	code     string
	reason   string
	disk     disk.Disk
	warnings []string
	held     bool          // a person paused the job
	changed  chan struct{} // closed and replaced when held changes
}

func newCapturing(a *Agent, j job.Job) *capturing {
	return &capturing{a: a, j: j, kick: make(chan struct{}, 1), changed: make(chan struct{}), phase: job.PhaseStart, state: job.Running}
}

// run carries the job out. An error is a *Failure, or the end of ctx.
func (c *capturing) run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	var group sync.WaitGroup
	group.Go(func() { c.reports(ctx, cancel) })
	err := c.steps(ctx)
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx) // what ended the job explains more than the step that it ended
	}
	if f := (*Failure)(nil); errors.As(err, &f) {
		c.mu.Lock()
		f.at = c.phase
		c.mu.Unlock()
	}
	cancel(nil)
	group.Wait()
	return err
}

func (c *capturing) steps(ctx context.Context) error {
	if c.j.Capture == nil {
		return &Failure{Code: "job-wrong", Sentence: "the appliance gave a capture without saying what to capture; give the appliance and its initramfs the same version"}
	}
	codec, level, err := c.j.Capture.Codec()
	if err != nil {
		return &Failure{Code: "job-wrong", Sentence: err.Error(), Err: err}
	}
	src, err := c.choose(ctx)
	if err != nil {
		return err
	}
	defer src.Close() // it was only read
	sink := newSink(ctx, c)
	defer sink.Close()
	if err := sink.begin(ctx, ""); err != nil {
		return err
	}
	order := c.j.Capture
	o := capture.Options{
		Codec: codec, Level: level, PieceLength: order.PieceLength, Partitions: order.Partitions, Full: order.Full,
		KeepContents: order.KeepContents, RefuseOpaque: order.RefuseOpaque, Progress: c.progress,
		Log: slog.New(&warnings{Handler: c.a.log.Handler(), c: c}),
	}
	for try := 1; ; try++ {
		c.enter(job.PhaseMap, "disk "+src.Name)
		result, err := capture.Disk(ctx, src, src.Length, src.SectorLength, sink, o)
		if errors.Is(err, intake.ErrMissing) && try < maxReads && ctx.Err() == nil {
			c.a.screen.Say("the appliance lacks parts of the image; the disk is read again: %v", err)
			continue
		}
		if err != nil {
			return c.failure(err)
		}
		c.a.screen.Say("captured %s:%s: %s read, %s sent", result.Image.Name, result.Image.Version, disk.Size(c.done.Load()), disk.Size(c.sent.Load()))
		c.enter(job.PhaseReboot, "disk "+src.Name+", then "+c.j.After)
		return nil
	}
}

// maxReads is how often a disk is read at most, where the appliance lost what it had taken.
const maxReads = 3

// choose finds the disk and opens it for reading. Where another disk would do, the job is paused until there is one.
func (c *capturing) choose(ctx context.Context) (*disk.Source, error) {
	c.enter(job.PhaseCheck, "disks")
	var before []disk.Disk
	for {
		disks, err := c.a.cfg.Machine.Disks()
		if err != nil {
			return nil, &Failure{Code: disk.CodeNoDisk, Sentence: "the machine's disks cannot be listed: " + err.Error(), Err: err}
		}
		if !slices.Equal(disks, before) {
			// Controllers show their disks one after the other: only a list that has come to rest is looked at.
			before = disks
			if err := sleep(ctx, c.a.cfg.timing.rest); err != nil {
				return nil, err
			}
			continue
		}
		chosen, refusal := disk.ChooseSource(disks, c.j.DiskSerial)
		switch {
		case refusal == nil:
			if src, err := c.open(chosen, disks); src != nil || err != nil {
				return src, err
			}
			before = nil
			continue
		case !refusal.Wait:
			return nil, &Failure{Code: refusal.Code, Sentence: refusal.Sentence, Err: refusal}
		}
		c.set(func() { c.state, c.code, c.reason = job.Paused, refusal.Code, refusal.Sentence })
		c.a.screen.SayOnce("paused", "paused: %s", refusal.Sentence)
		if err := sleep(ctx, c.a.cfg.timing.rescan); err != nil {
			return nil, err
		}
	}
}

// open opens the disk that was chosen from a list. It returns nil if the list is another one by then: a name may mean
// another disk than the one that was looked at.
func (c *capturing) open(chosen disk.Disk, disks []disk.Disk) (*disk.Source, error) {
	src, err := c.a.cfg.Machine.OpenSource(chosen.Name)
	if now, e := c.a.cfg.Machine.Disks(); e != nil || !slices.EqualFunc(now, disks, sameDisk) {
		if err == nil {
			src.Close() // nothing was read
		}
		c.a.screen.Say("the disks have changed and are looked at again")
		return nil, nil
	}
	switch {
	case errors.Is(err, unix.EBUSY):
		return nil, &Failure{Code: "disk-busy", Sentence: fmt.Sprintf("disk %s is in use, by an array or another program. Restart the machine", chosen.Name), Err: err}
	case err != nil:
		return nil, &Failure{Code: "disk-open", Sentence: fmt.Sprintf("%v. Check the disk and its cable", err), Err: err}
	}
	c.set(func() { c.disk, c.state, c.code, c.reason = chosen, job.Running, "", "" })
	c.a.screen.Say("disk %s, which is only read", disk.Describe(chosen))
	return src, nil
}

// sameDisk compares two entries of lists; opening a disk makes it read-only.
func sameDisk(a, b disk.Disk) bool {
	a.ReadOnly, b.ReadOnly = false, false
	return a == b
}

// progress is told how far the reading is; it does not block.
func (c *capturing) progress(p capture.Progress) {
	c.total.Store(p.Total)
	c.done.Store(p.Done)
	c.mu.Lock()
	mapping := c.phase == job.PhaseMap
	c.mu.Unlock()
	if mapping {
		c.enter(job.PhaseRead, fmt.Sprintf("%s of disk %s with %d cores", disk.Size(p.Total), c.disk.Name, runtime.GOMAXPROCS(0)))
	}
}

// set changes the status and has it reported at once.
func (c *capturing) set(change func()) {
	c.mu.Lock()
	change()
	c.mu.Unlock()
	select {
	case c.kick <- struct{}{}:
	default:
	}
}

// enter says that the sequence is in a new phase.
func (c *capturing) enter(p job.Phase, detail string) {
	c.set(func() { c.phase, c.state, c.code, c.reason = p, job.Running, "", "" })
	c.a.screen.Say("phase %s %s", p, detail)
}

// gate waits while the appliance holds the job.
func (c *capturing) gate(ctx context.Context) error {
	for {
		c.mu.Lock()
		still, changed := c.held, c.changed
		c.mu.Unlock()
		if !still {
			c.a.screen.Forget("held")
			return nil
		}
		c.a.screen.SayOnce("held", standsStill)
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// failure turns an error of a capture into words and a code. Nothing is ever tried again blindly: the source has to be
// put right first.
func (c *capturing) failure(err error) error {
	if errors.Is(err, context.Canceled) || errors.As(err, new(*Failure)) {
		return err
	}
	again := "Nothing was captured and nothing written."
	switch {
	case errors.Is(err, fsmap.ErrDirty):
		return &Failure{Code: "source-dirty", Sentence: fmt.Sprintf("%v. %s Put it right and capture again, or copy it whole with --full", err, again), Err: err}
	case errors.Is(err, fsmap.ErrUnknownFeature):
		return &Failure{Code: "source-unknown", Sentence: fmt.Sprintf("%v. %s Copy it whole with --full", err, again), Err: err}
	case errors.Is(err, fsmap.ErrOpaque):
		return &Failure{Code: "source-encrypted", Sentence: fmt.Sprintf("%v. %s Decrypt it and capture again, or capture without --refuse-encrypted", err, again), Err: err}
	case errors.Is(err, intake.ErrMissing):
		return &Failure{Code: job.CodeTilesMissing, Sentence: fmt.Sprintf("%v, though the disk was read %d times. Check the disk of the appliance", err, maxReads), Err: err}
	case errors.Is(err, unix.EIO):
		return &Failure{Code: "disk-error", Sentence: fmt.Sprintf("%v. %s The disk or its cable is faulty", err, again), Err: err}
	}
	return &Failure{Code: "source-error", Sentence: fmt.Sprintf("%v. %s", err, again), Err: err}
}

// warnings shows the warnings of a capture and keeps them for the reports.
type warnings struct {
	slog.Handler
	c *capturing
}

// maxWarnings bounds those that a report carries.
const maxWarnings = 20

func (w *warnings) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelInfo }

func (w *warnings) Handle(ctx context.Context, r slog.Record) error {
	r.Attrs(func(a slog.Attr) bool {
		if text := a.Value.String(); a.Key == "warning" {
			w.c.set(func() {
				if len(w.c.warnings) < maxWarnings && !slices.Contains(w.c.warnings, text) {
					w.c.warnings = append(w.c.warnings, text)
				}
			})
		}
		return true
	})
	return w.Handler.Handle(ctx, r)
}

// timeLeft is how long the rest takes at a rate.
func timeLeft(rest int64, bytesPerSecond float64) time.Duration {
	if bytesPerSecond <= 0 || rest <= 0 {
		return 0
	}
	return time.Duration(float64(rest) / bytesPerSecond * float64(time.Second)).Round(time.Second)
}
