package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"seedbed/appliance/api"
	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
	"seedbed/images"
	"seedbed/images/file"
	"seedbed/images/restore"
	"seedbed/images/swarm"
	"seedbed/images/tile"
)

// getting is one `seedbed get`.
type getting struct {
	order *getOrder
	out   *getOut
	g     *guest
	show  *os.File
	tell  func(*GetReport) error // is given the report before others are served

	d     *described
	image *restore.Image // nil for a partition
	index int            // of the partition
	part  *file.Part
	store *file.Storage
	peer  *peer
	// looked is the end of the look at what was there.
	looked chan error
}

// run fetches, checks, names, and serves for as long as was asked.
func (r *getting) run(ctx context.Context) (err error) {
	start, begun := time.Now(), r.out.held != nil
	defer func() {
		if err != nil && !begun {
			r.out.abandon()
			r.g.giveUp()
		}
	}()
	single := r.order.partition >= 0
	joined, err := r.g.join(ctx, r.order.image, single)
	if err != nil {
		return err
	}
	if r.d, err = r.g.describe(ctx, joined, ""); err != nil {
		return err
	}
	if err := r.prepare(); err != nil {
		return err
	}
	m, err := r.g.membership(joined, single)
	if err != nil {
		return err
	}
	looking, cancel := context.WithCancel(ctx)
	if err := r.start(looking, m, joined); err != nil {
		cancel()
		return err
	}
	begun = true
	defer r.peer.stop()
	defer cancel()
	if err := r.fetch(ctx); err != nil {
		return err
	}
	report := &GetReport{Image: joined.ImageName, Digest: joined.Image, Path: r.out.final, Length: r.length(), DataLength: r.part.DataLength()}
	if single {
		report.Partition = &r.order.partition
	}
	stats := r.peer.Stats()
	report.Resumed, report.FromAppliance, report.FromPeers = stats.Resumed, stats.FromAppliance, stats.FromPeers
	report.FromAppliance += r.d.received.FromAppliance
	report.FromPeers += r.d.received.FromPeers
	if err := r.finish(ctx, report); err != nil {
		return diskRefusal(err)
	}
	if err := r.out.commit(); err != nil {
		return err
	}
	r.g.forget()
	report.Took = time.Since(start)
	err = r.tell(report)
	r.serve(ctx)
	return err
}

// length is that of what is written, in bytes.
func (r *getting) length() int64 {
	if r.image == nil {
		return r.d.manifest.Partitions[r.index].Length
	}
	if r.out.device {
		return r.out.disk.Length
	}
	return r.d.manifest.DiskLength
}

// prepare finds what is to be fetched, and opens where it goes.
func (r *getting) prepare() (err error) {
	m, l := r.d.manifest, r.d.layout
	config := file.Config{Layout: l, Workers: r.order.network.hashThreads}
	need := m.DiskLength
	if r.order.partition >= 0 {
		if r.index, err = partitionIndex(m, r.order.partition); err != nil {
			return err
		}
		first, end := l.Pieces(r.index)
		r.part = file.NewPart(l, func(piece int) bool { return piece >= first && piece < end })
		config.Base = func(p int) int64 {
			if p != r.index {
				return -1
			}
			return 0
		}
		need = m.Partitions[r.index].Length
	} else {
		r.part = file.NewPart(l, func(int) bool { return true })
		if r.out.device {
			need = 0 // a disk of another length may do
		}
	}
	if err := r.out.prepare(need, r.part.DataLength()); err != nil {
		return err
	}
	config.Disk, config.Part, config.Fresh = r.out.disk, r.part, r.out.fresh
	if r.order.partition < 0 {
		if err := r.prepareDisk(&config); err != nil {
			return err
		}
	}
	r.store, err = file.New(config)
	return err
}

// prepareDisk checks that a whole disk fits, and takes its old table away.
func (r *getting) prepareDisk(config *file.Config) (err error) {
	tiles := lateTiles{r}
	if r.image, err = restore.New(r.d.manifest, r.d.layout, tiles, r.d.layer); err != nil {
		return err
	}
	if err := r.image.Fits(r.out.disk.Length, r.out.disk.SectorLength); err != nil {
		return diskRefusal(fmt.Errorf("%s: %w", r.out.path, err))
	}
	if !r.out.device {
		return nil
	}
	config.HoldFirst = r.d.manifest.Frame.Table == "none"
	return r.out.wipe(r.d.manifest.SectorLength)
}

// lateTiles are what a getting has written: restore takes from there what it writes last.
type lateTiles struct{ *getting }

func (t lateTiles) TileHashes(piece int) []images.Digest { return t.store.TileHashes(piece) }

func (t lateTiles) ReadPiece(ctx context.Context, piece int, tiles images.TileSet) ([]tile.Encoded, error) {
	return t.store.Read(ctx, piece, tiles, nil)
}

func partitionIndex(m *images.Manifest, number int) (int, error) {
	var have []int
	for i := range m.Partitions {
		if m.Partitions[i].Number == number {
			return i, nil
		}
		have = append(have, m.Partitions[i].Number)
	}
	return 0, &fleet.Refusal{Code: fleet.CodeImageUnknown, Detail: fmt.Sprintf("image %s:%s has no partition %d; it has %v", m.Name, m.Version, number, have)}
}

// start joins the swarm, and looks at what is there already.
func (r *getting) start(ctx context.Context, m *membership, joined *job.Joined) (err error) {
	n := &r.order.network
	config := swarm.Config{Pieces: r.d.layout, Storage: r.store, ListenAddr: n.listen, Seeds: joined.Seeds, Transport: n.transport, Workers: n.hashThreads}
	if r.order.partition >= 0 {
		config.Pieces, config.Part = r.part, true
	}
	r.peer, err = r.g.takePart(ctx, m, r.d, config, func() int64 { return r.part.DataLength() - r.store.HeldLength() })
	if err != nil {
		return err
	}
	r.looked = make(chan error, 1)
	r.peer.group.Go(func() {
		r.looked <- r.store.Look(ctx, func(piece int) { r.peer.Found(piece) }, nil)
	})
	return nil
}

// fetch waits until everything is held and durable.
func (r *getting) fetch(ctx context.Context) error {
	show := newMeter(r.show, "fetched")
	defer show.end()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	held, looked := r.peer.Done(), r.looked
	for held != nil || looked != nil {
		select {
		case <-held:
			held = nil
		case err := <-looked:
			if err != nil {
				return err
			}
			looked = nil
		case <-r.peer.ended:
			return errors.Join(ctx.Err(), r.peer.err)
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		show.update(api.Progress{Done: r.store.HeldLength(), Total: r.part.DataLength()})
	}
	return nil
}

// finish reads everything back, unless it was asked not to, and makes a disk whole by its table.
func (r *getting) finish(ctx context.Context, report *GetReport) error {
	disk := r.out.disk
	if err := disk.Sync(); err != nil {
		return err
	}
	if !r.order.unverified {
		past, err := r.verify(ctx)
		if err != nil {
			return err
		}
		report.Verified, report.FromDisk = true, past
	}
	if r.image == nil {
		return nil
	}
	compare := r.image.CompareFrame
	if r.store.HoldFirst { // the first tile is what makes the disk whole
		compare = func(d io.ReaderAt, length int64) (*restore.Difference, error) {
			return r.image.Compare(ctx, d, length, nil)
		}
	}
	d, err := compare(disk, disk.Length)
	if err != nil {
		return err
	}
	if tiles, _, _ := d.Count(); tiles > 1 {
		return r.wrong(fmt.Errorf("%d tiles are wrong", tiles))
	}
	done, err := d.Repair(ctx, disk, nil)
	if err != nil {
		return err
	}
	if len(done.Left) > 0 {
		return r.wrong(done.Left[0])
	}
	if err := disk.RereadTable(); err != nil && r.out.device {
		r.g.log.Warn("the kernel still has the old partitions of this disk", "device", r.out.path, "err", err)
	}
	return nil
}

// wrong says that what was right when it was written is not.
func (r *getting) wrong(err error) error {
	return &fleet.Refusal{Code: codeDiskWrong, Detail: fmt.Sprintf("%s: %v; the disk, its cable or this machine's memory is faulty", r.out.path, err)}
}

// verify reads everything back.
func (r *getting) verify(ctx context.Context) (past bool, err error) {
	show := newMeter(r.show, "verified")
	defer show.end()
	var mu sync.Mutex // guards done and past
	done, total := int64(0), r.part.DataLength()
	past = true
	open := func() (file.Reader, error) {
		d, direct, err := r.out.disk.Direct()
		mu.Lock()
		defer mu.Unlock()
		past = past && direct
		return d, err
	}
	err = r.store.Verify(ctx, open, func(n int64) {
		mu.Lock()
		defer mu.Unlock()
		done += n
		show.update(api.Progress{Done: done, Total: max(total, done)})
	})
	if wrong, ok := errors.AsType[*file.WrongError](err); ok {
		return past, r.wrong(fmt.Errorf("in partition %d it returned other bytes than the image has, bytes %v, although they were right when they were written",
			r.d.manifest.Partitions[wrong.Partition].Number, wrong.Extent))
	}
	return past, err
}

// serve serves other machines for as long as was asked.
func (r *getting) serve(ctx context.Context) {
	if r.order.seedFor == 0 {
		return
	}
	select {
	case <-ctx.Done():
	case <-r.peer.ended:
	case <-time.After(r.order.seedFor):
	}
}
