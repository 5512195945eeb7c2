package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
	"seedbed/images"
	"seedbed/images/swarm"
)

// seedNode is a running seed node. Its fields are owned by the goroutine of control, but for what images guard themselves.
type seedNode struct {
	order     *seedOrder
	g         *guest
	dir       string
	log       *slog.Logger
	muxes     []*swarm.Mux // one for each interface, or one for all
	transport swarm.Transport

	failed chan error // what ends a seed node that serves a disk

	space *space

	images map[images.Digest]*nodeImage
	// evicted are images that had to make room, with when they had been ordered last.
	evicted map[images.Digest]time.Time
	group   sync.WaitGroup // of images
	named   []job.NodeTask // that it was started with, as far as they are known
	orders  job.NodeOrder  // the last
	told    bool           // it is of this run
	away    bool           // the appliance did not answer last
}

// tasksFile keeps what a seed node is to serve, for a start without an appliance.
const tasksFile = "tasks.json"

// run serves until ctx is done.
func (n *seedNode) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, m := range n.muxes {
		g.Go(func() error { return m.Run(ctx) })
	}
	g.Go(func() error {
		select {
		case err := <-n.failed:
			return err
		case <-ctx.Done():
			return nil
		}
	})
	g.Go(func() error {
		defer n.group.Wait()
		return n.control(ctx)
	})
	return g.Wait()
}

// control joins, reports and does what the appliance orders.
func (n *seedNode) control(ctx context.Context) error {
	if used, total, err := n.space.state(); err == nil {
		n.log.Info("images are kept", "used", bytesText(used), "space", bytesText(total), "of", n.space.String())
	}
	n.log.Info("seed node is ready", "addr", n.muxes[0].Addr().String(), "interfaces", n.transport.Interfaces, "dir", n.dir)
	n.remember(ctx)
	for ctx.Err() == nil {
		err := n.turn(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			n.away = false
			continue
		case fatal(err) && len(n.images) == 0, unknownImage(err) && len(n.named) < len(n.order.images):
			return err // it was never let in, or told to serve what does not exist
		case !n.away:
			n.away = true
			n.log.Warn("the appliance is not reached, or refuses; what is held is served on", "err", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(nodeRetry):
		}
	}
	return nil
}

func unknownImage(err error) bool {
	refusal, refused := errors.AsType[*fleet.Refusal](err)
	return refused && refusal.Code == fleet.CodeImageUnknown
}

// turn is one exchange with the appliance.
func (n *seedNode) turn(ctx context.Context) error {
	if err := n.enter(ctx); err != nil {
		return err
	}
	report := job.NodeReport{Name: n.g.name, Port: n.muxes[0].Addr().Port(), Order: n.orders.Number, All: len(n.order.images) == 0, Images: []job.NodeImage{}}
	for _, d := range slices.SortedFunc(maps.Keys(n.images), func(a, b images.Digest) int { return strings.Compare(a.String(), b.String()) }) {
		report.Images = append(report.Images, n.images[d].report())
	}
	report.Kept = n.kept()
	report.Used, report.Space, _ = n.space.state()
	var order job.NodeOrder
	if err := n.g.post(ctx, job.PathNode, report, &order); err != nil {
		if refusal, ok := errors.AsType[*fleet.Refusal](err); ok && refusal.Code == fleet.CodeUnauthorised {
			_, err = n.g.join(ctx, "", false) // the appliance does not know the guest any more
		}
		return err
	}
	n.told = n.told || order.Count > 0
	if order.Count > 0 && order.Number != n.orders.Number {
		n.orders = order
		if err := n.obey(ctx); err != nil {
			return err
		}
	}
	return n.makeRoom()
}

// enter gets a certificate, and finds the images that the node was started with.
func (n *seedNode) enter(ctx context.Context) error {
	if len(n.named) < len(n.order.images) {
		for _, ref := range n.order.images[len(n.named):] {
			joined, err := n.g.join(ctx, ref, true)
			if err != nil {
				return err
			}
			n.named = append(n.named, job.NodeTask{Image: joined.Image, ImageName: joined.ImageName, Preload: n.order.preload})
			if n.order.device != "" { // it needs no order
				n.serve(ctx, joined, share{})
			}
		}
	}
	if cert := n.g.certificate(); len(cert.Certificate) > 0 && n.g.fresh() {
		return nil
	}
	_, err := n.g.join(ctx, "", false)
	return err
}

// tasks returns what is to be served: what the node was started with, and the order.
func (n *seedNode) tasks() (list []job.NodeTask) {
	list = slices.Clone(n.named)
	if n.order.device != "" {
		return list
	}
	for _, t := range n.orders.Serve {
		if since, evicted := n.evicted[t.Image]; evicted && !n.inUse(t.Image) && !t.Warmed.After(since) {
			continue
		}
		if len(n.order.images) == 0 {
			t.Preload = max(t.Preload, n.order.preload)
		}
		at := slices.IndexFunc(list, func(o job.NodeTask) bool { return o.Image == t.Image })
		if at < 0 {
			list = append(list, t)
			continue
		}
		list[at].Preload = max(list[at].Preload, t.Preload)
	}
	return list
}

// share returns what this node is to hold of a task.
func (n *seedNode) share(t job.NodeTask) share {
	if n.order.prefix {
		return share{preload: t.Preload}
	}
	return share{t.Preload, n.orders.Rank, n.orders.Count}
}

// obey serves what is to be served, and nothing else.
func (n *seedNode) obey(ctx context.Context) error {
	tasks := n.tasks()
	var failed error
	for _, t := range tasks {
		if i := n.images[t.Image]; i != nil {
			if n.order.device == "" {
				i.set(n.share(t))
			}
			continue
		}
		joined, err := n.g.join(ctx, t.Image.String(), true)
		if unknownImage(err) { // removed meanwhile, or not what the token is good for
			n.log.Warn("image is ordered and cannot be served", "image", t.ImageName, "err", err)
			continue
		}
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("join the swarm of image %s: %w", t.ImageName, err))
			n.orders.Number = 0 // it is asked for again
			continue
		}
		n.serve(ctx, joined, n.share(t))
	}
	for d, i := range n.images {
		if !slices.ContainsFunc(tasks, func(t job.NodeTask) bool { return t.Image == d }) {
			i.quit()
			<-i.ended
			delete(n.images, d)
			n.log.Info("image is not served any more", "image", i.joined.ImageName)
		}
	}
	for _, d := range n.orders.Drop {
		if n.images[d] == nil {
			failed = errors.Join(failed, n.remove(d))
		}
	}
	return errors.Join(failed, n.file(tasks))
}

// file keeps what is served, for a start without an appliance.
func (n *seedNode) file(tasks []job.NodeTask) error {
	b, err := json.Marshal(nodeFile{tasks, n.orders, n.evicted})
	if err == nil {
		err = replaceFile(filepath.Join(n.dir, tasksFile), b)
	}
	return err
}

// nodeFile is what tasksFile holds.
type nodeFile struct {
	Tasks   []job.NodeTask              `json:"tasks"`
	Order   job.NodeOrder               `json:"order"`
	Evicted map[images.Digest]time.Time `json:"evicted,omitempty"`
}

// serve begins to serve an image.
func (n *seedNode) serve(ctx context.Context, joined *job.Joined, s share) {
	if n.images[joined.Image] != nil {
		return
	}
	own, quit := context.WithCancel(ctx)
	i := &nodeImage{n: n, joined: joined, changed: make(chan struct{}, 1), quit: quit, ended: make(chan struct{}), want: s}
	n.images[joined.Image] = i
	n.log.Info("image is served", "image", joined.ImageName, "infohash", joined.InfoHash.String())
	n.group.Go(func() { i.run(own) })
}

// remember serves what was served before, so that a seed node starts without an appliance.
func (n *seedNode) remember(ctx context.Context) {
	var kept nodeFile
	b, err := os.ReadFile(filepath.Join(n.dir, tasksFile))
	if err != nil || json.Unmarshal(b, &kept) != nil || n.order.device != "" || n.g.local != nil {
		return
	}
	n.orders.Rank, n.orders.Count, n.orders.InUse = kept.Order.Rank, kept.Order.Count, kept.Order.InUse
	if kept.Evicted != nil {
		n.evicted = kept.Evicted
	}
	for _, t := range kept.Tasks {
		joined, err := readJoined(filepath.Join(n.dir, t.Image.String()))
		if err != nil || time.Now().After(joined.Expires) {
			continue // the appliance has to be asked
		}
		n.serve(ctx, joined, n.share(t))
	}
}
