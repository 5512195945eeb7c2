package agent

import (
	"context"
	"fmt"
	"sync"

	"seedbed/appliance/job"
	"seedbed/images/swarm"
)

// content is the machine's part in the swarm: fetching first, serving from the first piece to the end of the job.
type content struct {
	d     *deployment
	group sync.WaitGroup
	quit  context.CancelFunc
	err   chan error // of the swarm's Run, once
	// looked gets the end of the look at the disk, once.
	looked chan error
}

func newContent(d *deployment) *content { return &content{d: d, quit: func() {}} }

// run fetches the data, while the disk is looked at and zeros are written. It returns when all is held and durable, and
// the swarm goes on serving until stop.
func (c *content) run(ctx context.Context) error {
	d := c.d
	d.enter(job.PhaseContent, "disk "+d.dev.Name)
	for {
		if err := c.start(ctx); err != nil {
			return err
		}
		done, err := c.watch(ctx)
		if err != nil || done {
			return err
		}
		c.stop()
		if err := c.hold(ctx); err != nil {
			return err
		}
	}
}

// watch waits until everything is held, the job is paused, which is no error, or something fails.
func (c *content) watch(ctx context.Context) (done bool, err error) {
	d := c.d
	held, looked := d.swarm.Done(), c.looked
	for held != nil || looked != nil {
		d.mu.Lock()
		changed, paused := d.changed, d.held
		d.mu.Unlock()
		if paused {
			return false, nil
		}
		select {
		case <-held:
			held = nil
		case err = <-looked:
			looked = nil
		case err = <-c.err:
			held = nil
		case <-changed:
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			return false, context.Cause(ctx)
		}
		if err != nil {
			return false, d.diskFailure(err)
		}
	}
	return true, nil
}

// standsStill is why a job does by the appliance's word.
const standsStill = "the appliance holds the job: a person paused it, or as many machines as may are at work; it goes on by itself when that is over"

// hold waits while a person has paused the job, or there is no place for it.
func (c *content) hold(ctx context.Context) error {
	d := c.d
	d.wait("operator", standsStill)
	for {
		d.mu.Lock()
		changed, still := d.changed, d.held
		d.mu.Unlock()
		if !still {
			d.enter(job.PhaseContent, "disk "+d.dev.Name)
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// start joins the swarm.
func (c *content) start(ctx context.Context) error {
	d := c.d
	var barred [][32]byte
	for _, l := range d.about.liars {
		barred = append(barred, l.Certificate)
	}
	pieces, part := d.store.Pieces()
	sw, err := d.a.join(swarm.Config{
		InfoHash: d.j.InfoHash, Pieces: pieces, Part: part, Storage: d.store, TLS: d.swarmTLS(), Mux: d.about.mux,
		ListenAddr: d.a.cfg.ListenAddr, Seeds: d.j.Seeds, Barred: barred, MemoryBytes: d.a.cfg.MemoryBytes, Log: d.a.log,
		Transport: d.transport, Workers: d.j.Transport.HashThreads,
	})
	if err != nil {
		return &Failure{Code: "swarm-error", Sentence: fmt.Sprintf("the swarm cannot be joined: %v. Restart the machine", err), Err: err}
	}
	ctx, c.quit = context.WithCancel(ctx)
	c.err, c.looked = make(chan error, 1), make(chan error, 1)
	d.mu.Lock()
	d.swarm = sw
	d.mu.Unlock()
	c.group.Go(func() {
		defer d.giveOn(sw)()
		c.err <- sw.Run(ctx)
	})
	c.group.Go(func() { d.announce(ctx, sw) })
	c.group.Go(func() { d.watchReach(ctx, sw) })
	c.group.Go(func() {
		c.looked <- d.store.Look(ctx, func(piece int) { sw.Found(piece) }, func(n int64) { d.looked.Add(n) })
	})
	return nil
}

// stop leaves the swarm and waits for everything that start started. What was counted stays counted.
func (c *content) stop() {
	c.quit()
	c.group.Wait()
	d := c.d
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.swarm == nil {
		return
	}
	d.status.past = sumStats(d.status.past, d.swarm.Stats())
	d.swarm = nil
}
