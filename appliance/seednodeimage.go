package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"sync"
	"time"

	"seedbed/appliance/job"
	"seedbed/images"
	"seedbed/images/file"
	"seedbed/images/layout"
	"seedbed/images/restore"
	"seedbed/images/swarm"
	"seedbed/images/tile"
)

// share is what a seed node is to hold of an image.
type share struct {
	preload     float64 // 0 to 1
	rank, count int     // the stripe; count 0: everything of the share
}

// part returns the pieces of a share, and those that are held whole.
func (s share) part(l *layout.Layout, held func(piece int) images.TileSet) *file.Part {
	limit, k := int(math.Ceil(s.preload*float64(l.DataPieces()))), -1
	return file.NewPart(l, func(piece int) bool {
		k++
		return k < limit && (s.count == 0 || k%s.count == s.rank) || held(piece) == l.Data(piece)
	})
}

// nodeStorage is where a seed node's tiles lie.
type nodeStorage interface {
	swarm.Storage
	HeldLength() int64
}

// nodeImage is one image of a seed node. Run by one goroutine.
type nodeImage struct {
	n       *seedNode
	joined  *job.Joined
	changed chan struct{} // holds a token when want has changed
	quit    context.CancelFunc
	ended   chan struct{}

	mu      sync.Mutex // guards what follows
	want    share
	full    bool // there is no room: what is held is served, and nothing fetched
	problem string
	used    time.Time // when something was last fetched or sent
	// usedFiled is what the file of that name says.
	usedFiled time.Time
	d         *described
	storage   nodeStorage
	part      *file.Part
	peer      *peer
	before    swarm.Stats // of peers that were stopped
	sent      swarm.Stats // at the last report
	at        time.Time   // of the last report
}

// set changes what is to be held.
func (i *nodeImage) set(s share) {
	i.mu.Lock()
	same := i.want == s
	i.want = s
	i.mu.Unlock()
	if !same {
		i.look()
	}
}

// look makes the image's goroutine look again what is to be held.
func (i *nodeImage) look() {
	select {
	case i.changed <- struct{}{}:
	default:
	}
}

// run serves the image until ctx is done. What goes wrong is said and tried again.
func (i *nodeImage) run(ctx context.Context) {
	defer close(i.ended)
	defer func() {
		i.mu.Lock()
		defer i.mu.Unlock()
		if !i.used.IsZero() {
			i.fileUse()
		}
	}()
	for ctx.Err() == nil {
		err := i.serve(ctx)
		if ctx.Err() != nil {
			return
		}
		i.mu.Lock()
		full := !i.full && (errors.Is(err, errNoRoom) || isFull(err))
		if i.problem = ""; err != nil {
			i.problem = err.Error()
		}
		if full {
			i.full, i.problem = true, i.n.noRoom(i.joined.ImageName)
		}
		i.mu.Unlock()
		if full {
			i.n.log.Warn(i.n.noRoom(i.joined.ImageName), "image", i.joined.ImageName)
			continue
		}
		if err != nil && i.n.order.device != "" {
			i.n.failed <- err
			return
		}
		if err != nil {
			i.n.log.Error("image is not served; it is tried again", "image", i.joined.ImageName, "err", err)
			select {
			case <-ctx.Done():
			case <-time.After(imageRetry):
			}
		}
	}
}

// folder is where what belongs to the image is kept.
func (i *nodeImage) folder() string { return filepath.Join(i.n.dir, i.joined.Image.String()) }

// joinedFile keeps the answer to the last join, for a start without an appliance.
const joinedFile = "joined.json"

// open fetches the description, and opens what holds the tiles.
func (i *nodeImage) open(ctx context.Context) (closeStorage func(), err error) {
	if err := os.MkdirAll(i.folder(), 0o700); err != nil {
		return nil, err
	}
	before, err := folderSize(i.folder())
	if err != nil {
		return nil, err
	}
	b, err := json.Marshal(i.joined)
	if err == nil {
		err = replaceFile(filepath.Join(i.folder(), joinedFile), b)
	}
	if err != nil {
		return nil, err
	}
	d, err := i.n.g.describe(ctx, i.joined, i.folder())
	if err != nil {
		return nil, err
	}
	i.recall()
	after, err := folderSize(i.folder())
	if err != nil {
		return nil, err
	}
	i.n.space.add(after - before)
	var storage nodeStorage
	if i.n.order.device != "" {
		storage, closeStorage, err = i.openDevice(ctx, d)
	} else {
		var shelf *file.Shelf
		if shelf, err = file.OpenShelf(filepath.Join(i.folder(), "tiles"), i.joined.Image, d.layout, tile.Zstd); err == nil {
			shelf.Room = i.n.space.take
			storage, closeStorage = shelf, func() { shelf.Close() }
		}
	}
	if err != nil {
		return nil, err
	}
	i.mu.Lock()
	i.d, i.storage = d, storage
	i.before = sum(i.before, d.received)
	i.mu.Unlock()
	return closeStorage, nil
}

// openDevice compares a disk with the image, and serves what is right.
func (i *nodeImage) openDevice(ctx context.Context, d *described) (nodeStorage, func(), error) {
	disk, err := restore.Open(i.n.order.device, false)
	if err != nil {
		return nil, nil, diskRefusal(err)
	}
	s, err := file.New(file.Config{Disk: disk, Layout: d.layout, ReadOnly: true, Workers: i.n.order.network.hashThreads})
	if err == nil {
		i.n.log.Info("disk is compared with the image", "device", i.n.order.device, "image", i.joined.ImageName, "bytes", s.LookLength())
		err = s.Look(ctx, nil, nil)
	}
	if err == nil && s.HeldLength() == 0 {
		err = &wrongDisk{i.n.order.device, i.joined.ImageName}
	}
	if err != nil {
		disk.Close()
		return nil, nil, err
	}
	i.n.log.Info("disk holds the image", "device", i.n.order.device, "image", i.joined.ImageName, "right", s.HeldLength(), "of", d.layout.DataLength())
	return s, func() { disk.Close() }, nil
}

// serve takes part in the swarm until ctx is done or something fails.
func (i *nodeImage) serve(ctx context.Context) error {
	closeStorage, err := i.open(ctx)
	if err != nil {
		return err
	}
	defer closeStorage()
	for ctx.Err() == nil {
		part := i.plan()
		i.mu.Lock()
		i.part = part
		i.mu.Unlock()
		if err := i.take(ctx, part); err != nil {
			return err
		}
	}
	return nil
}

// plan returns the pieces to hold now.
func (i *nodeImage) plan() *file.Part {
	i.mu.Lock()
	defer i.mu.Unlock()
	want := i.want
	if i.n.order.device != "" || i.full {
		want.preload = 0
	}
	return want.part(i.d.layout, i.storage.Held)
}

// take takes part with a part of the image, until another is to be held, or all of it is there and is to be handed out.
func (i *nodeImage) take(ctx context.Context, part *file.Part) error {
	if part.DataPieces() == 0 {
		return i.wait(ctx, part, nil, nil)
	}
	joined := i.joined
	if again, err := i.n.g.join(ctx, joined.Image.String(), !part.IsWhole()); err == nil {
		joined = again
	} else if fatal(err) || time.Now().After(joined.Expires) {
		return err
	}
	m, err := i.n.g.membership(joined, !part.IsWhole())
	if err != nil {
		return err
	}
	lacking := part.DataLength() - heldOf(part, i.storage)
	config := swarm.Config{Pieces: part, Part: !part.IsWhole(), Storage: i.storage, Seeds: joined.Seeds, HandOut: true,
		Transport: i.n.transport, Workers: i.n.order.network.hashThreads}
	if len(i.n.transport.Interfaces) > 0 {
		config.Muxes = i.n.muxes
	} else {
		config.Mux = i.n.muxes[0]
	}
	p, err := i.n.g.takePart(ctx, m, i.d, config, func() int64 { return part.DataLength() - heldOf(part, i.storage) })
	if err != nil {
		return err
	}
	i.mu.Lock()
	i.peer = p
	i.mu.Unlock()
	defer func() {
		p.stop()
		i.mu.Lock()
		defer i.mu.Unlock()
		i.before, i.peer = sum(i.before, p.Stats()), nil
	}()
	var complete <-chan struct{}
	if lacking > 0 {
		complete = p.Done()
	}
	return i.wait(ctx, part, p, complete)
}

// wait returns when another part is to be held, or the part has become complete. An error ended the peer.
func (i *nodeImage) wait(ctx context.Context, part *file.Part, p *peer, complete <-chan struct{}) error {
	var ended chan struct{}
	if p != nil {
		ended = p.ended
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ended:
			return p.err
		case <-complete:
			i.n.log.Info("share is held", "image", i.joined.ImageName, "pieces", part.DataPieces(), "bytes", part.DataLength())
			return nil
		case <-i.changed:
			if !i.plan().Equal(part) {
				return nil
			}
		}
	}
}

// heldOf returns the decoded length of what is held of a part, in bytes.
func heldOf(part *file.Part, s nodeStorage) (n int64) {
	for piece := range part.Count() {
		if held := s.Held(piece); part.Has(piece) {
			for t := range held.Intersect(part.Data(piece)).All() {
				n += int64(part.TileLength(piece, t))
			}
		}
	}
	return n
}

func sum(a, b swarm.Stats) swarm.Stats {
	a.FromAppliance += b.FromAppliance
	a.FromPeers += b.FromPeers
	a.ToPeers += b.ToPeers
	return a
}

// report says what is held, with the rates since the last report.
func (i *nodeImage) report() job.NodeImage {
	i.mu.Lock()
	defer i.mu.Unlock()
	size, _ := folderSize(i.folder())
	r := job.NodeImage{Size: size, LastUse: i.used, Pinned: i.n.pinned(i.joined.Image), InUse: i.n.inUse(i.joined.Image), Image: i.joined.Image, ImageName: i.joined.ImageName, InfoHash: i.joined.InfoHash, Problem: i.problem, FromDisk: i.n.order.device != ""}
	if i.d == nil {
		return r
	}
	r.Total, r.Held = i.d.layout.DataLength(), i.storage.HeldLength()
	if i.part != nil {
		r.Wanted = i.part.DataLength()
	}
	total := i.before
	if i.peer != nil {
		stats := i.peer.Stats()
		total, r.Peers = sum(total, stats), stats.Peers
		for _, l := range i.peer.Liars() {
			r.Liars = append(r.Liars, job.Liar(l))
		}
	}
	r.Received, r.Sent = total.FromAppliance+total.FromPeers, total.ToPeers
	now := time.Now()
	if total.ToPeers != i.sent.ToPeers || r.Received != i.sent.FromAppliance+i.sent.FromPeers || r.InUse {
		i.touch(now)
		r.LastUse = i.used
	}
	if took := now.Sub(i.at).Seconds(); !i.at.IsZero() && took > 0 {
		r.ReceivedRate = float64(r.Received-i.sent.FromAppliance-i.sent.FromPeers) / took
		r.SentRate = float64(r.Sent-i.sent.ToPeers) / took
	}
	i.sent, i.at = total, now
	return r
}

// readJoined returns what a join of an earlier run answered.
func readJoined(dir string) (*job.Joined, error) {
	b, err := os.ReadFile(filepath.Join(dir, joinedFile))
	if err != nil {
		return nil, err
	}
	j := new(job.Joined)
	if err := json.Unmarshal(b, j); err != nil || j.Image.IsZero() {
		return nil, fmt.Errorf("%s in %s: %w", joinedFile, dir, errors.Join(err, errors.New("it is not whole")))
	}
	return j, nil
}
