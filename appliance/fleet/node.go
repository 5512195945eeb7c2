package fleet

import (
	"cmp"
	"context"
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
	"time"

	"seedbed/appliance/job"
	"seedbed/images"
)

// node is a seed node that reports, here or to another appliance, which tells of it. It lives in memory: after a restart of
// the appliance nodes report again.
type node struct {
	id     string // of the guest
	addr   netip.AddrPort
	first  time.Time // when this appliance learnt of it
	last   time.Time
	here   time.Time // its last report to this appliance itself
	report job.NodeReport
	sum    string // of the report, and since which beat of this appliance it is that
	since  int64
}

// Waits about seed nodes. Those that are switched on together come within seconds, and are to share the pieces without
// any having fetched another's.
const (
	nodeSettle = 2 * time.Second
	nodeSilent = 30 * time.Second
	nodePoll   = 3 * time.Second
)

// Bounds of images that seed nodes are told to hold, and of bytes of the name of one: NAME:VERSION; of what a node reports, images that
// it serves, those that it keeps beside, and bytes of a sentence about one.
const (
	maxWarmed      = 100
	maxImageName   = 2*64 + 1
	maxNodeImages  = 4 * maxWarmed
	maxNodeKept    = maxGuestImages
	maxNodeProblem = 300
)

// NodeView is a seed node as people see it.
type NodeView struct {
	ID    string         `json:"id"`
	Addr  netip.AddrPort `json:"addr"` // where it serves
	Since time.Time      `json:"since"`
	Heard time.Time      `json:"heard"`
	Rank  int            `json:"rank"`
	Count int            `json:"count"`
	job.NodeReport
}

// NodeReport takes what a seed node says, and answers with its order when there is a new one, or after a while.
func (f *Fleet) NodeReport(ctx context.Context, c Caller, remote netip.Addr, r job.NodeReport) (job.NodeOrder, error) {
	g := c.session.Guest
	switch {
	case g == nil || g.Role != job.RoleSeed:
		return job.NodeOrder{}, refuse(CodeUnauthorised, "this certificate is not that of a seed node")
	case len(r.Images) > maxNodeImages || len(r.Kept) > maxNodeKept:
		return job.NodeOrder{}, refuse(CodeInvalid, "a seed node serves at most %d images and keeps %d beside; drop some (`seedbed seed drop`), or start it with fewer", maxNodeImages, maxNodeKept)
	case len(r.Name) > maxGuestName:
		return job.NodeOrder{}, refuse(CodeInvalid, "the name of a seed node has at most %d bytes", maxGuestName)
	case slices.ContainsFunc(r.Images, func(i job.NodeImage) bool { return len(i.ImageName) > maxImageName }),
		slices.ContainsFunc(r.Kept, func(k job.NodeKept) bool { return len(k.ImageName) > maxImageName }):
		return job.NodeOrder{}, refuse(CodeInvalid, "the name of an image has at most %d bytes", maxImageName)
	}
	liars := make([][]job.Liar, len(r.Images))
	r.Images = slices.Clone(r.Images)
	for i := range r.Images { // what is kept, and told to the other appliances
		liars[i], r.Images[i].Liars = r.Images[i].Liars, nil
		cut(&r.Images[i].Problem, maxNodeProblem)
	}
	encoded, err := json.Marshal(r)
	if err != nil {
		return job.NodeOrder{}, refuse(CodeInvalid, "the report cannot be kept: %v", err)
	}
	f.mu.Lock()
	n, known := f.nodes[c.session.ID]
	if !known {
		n = &node{id: c.session.ID, first: f.now()}
		f.nodes[n.id] = n
		f.wake()
	}
	n.addr, n.last, n.here, n.report = netip.AddrPortFrom(remote, r.Port), f.now(), f.now(), r
	if sum := sumOf(encoded); n.sum != sum {
		n.sum, n.since = sum, f.beat+1
	}
	for _, i := range r.Images {
		if need, ok := f.needs[i.InfoHash]; ok && i.Held < i.Wanted {
			need.until = f.now().Add(needFor)
			f.needs[i.InfoHash] = need
		}
	}
	f.mu.Unlock()
	for i, list := range liars {
		f.accuse(ctx, c, g.Name, r.Images[i].ImageName, list)
	}
	if !known {
		f.log.Info("seed node came", "machine", r.Name, "peer", n.addr.String())
	}
	limit := time.NewTimer(nodePoll)
	defer limit.Stop()
	for {
		f.mu.RLock()
		changed, order, settled := f.changed, f.orderFor(c.session.ID, r.All), f.settled()
		f.mu.RUnlock()
		if order.Count > 0 && order.Number != r.Order {
			return order, nil
		}
		var settle <-chan time.Time
		if settled > 0 {
			settle = time.After(settled)
		}
		select {
		case <-changed:
		case <-settle:
		case <-limit.C:
			return order, nil
		case <-ctx.Done():
			return order, nil
		}
	}
}

// settled returns how long no orders are given still, since nodes come. The caller holds mu.
func (f *Fleet) settled() (wait time.Duration) {
	for _, n := range f.nodes {
		wait = max(wait, nodeSettle-f.now().Sub(n.first))
	}
	return wait
}

// orderFor returns what a node is to do. Its Number follows from the order's content, so that an appliance that was
// started again gives the same. The caller holds mu.
func (f *Fleet) orderFor(id string, all bool) job.NodeOrder {
	if f.settled() > 0 {
		return job.NodeOrder{}
	}
	order := job.NodeOrder{Rank: -1, Count: len(f.nodes)}
	for i, n := range f.ranked() {
		if n.id == id {
			order.Rank = i
		}
	}
	if order.Rank < 0 {
		return job.NodeOrder{}
	}
	standing := f.state.standing()
	order.Serve = slices.Clone(standing.Warm)
	for _, dep := range f.preloads() {
		if !slices.ContainsFunc(order.Serve, func(t job.NodeTask) bool { return t.Image == dep.Image && t.Preload >= dep.Preload }) {
			order.Serve = append(order.Serve, job.NodeTask{Image: dep.Image, ImageName: dep.ImageName, Preload: dep.Preload, Warmed: dep.Created})
		}
	}
	if all {
		order.Serve = append(order.Serve, f.deployed(order.Serve)...)
	}
	for _, t := range f.deployed(nil) {
		order.InUse = append(order.InUse, t.Image)
	}
	for _, d := range standing.Drop {
		if !slices.Contains(order.InUse, d) {
			order.Drop = append(order.Drop, d)
		}
	}
	order.Number = order.Sum()
	return order
}

// ranked returns the nodes in an order that only depends on who is there. The caller holds mu.
func (f *Fleet) ranked() (list []*node) {
	for _, n := range f.nodes {
		list = append(list, n)
	}
	slices.SortFunc(list, func(a, b *node) int { return cmp.Compare(a.id, b.id) })
	return list
}

// deployed returns the images of jobs that have not ended, without those in list. The caller holds mu.
func (f *Fleet) deployed(list []job.NodeTask) (more []job.NodeTask) {
	seen := map[images.Digest]bool{}
	for _, t := range list {
		seen[t.Image] = true
	}
	for _, j := range f.open {
		if j.Kind.Swarms() && !seen[j.Image] {
			seen[j.Image] = true
			more = append(more, job.NodeTask{Image: j.Image, ImageName: j.ImageName})
		}
	}
	slices.SortFunc(more, func(a, b job.NodeTask) int { return cmp.Compare(a.Image.String(), b.Image.String()) })
	return more
}

// tidyNodes forgets nodes that are silent, and reports whether there was one. The caller holds mu.
func (f *Fleet) tidyNodes(now time.Time) (changed bool) {
	for id, n := range f.nodes {
		if now.Sub(n.last) > nodeSilent {
			delete(f.nodes, id)
			changed = true
			f.log.Warn("seed node is silent", "machine", n.report.Name, "peer", n.addr.String())
		}
	}
	return changed
}

// Nodes returns the seed nodes that report, in the order of their ranks.
func (f *Fleet) Nodes() []NodeView {
	f.mu.RLock()
	defer f.mu.RUnlock()
	list := make([]NodeView, 0, len(f.nodes))
	for rank, n := range f.ranked() {
		list = append(list, NodeView{ID: n.id, Addr: n.addr, Since: n.first, Heard: n.last, Rank: rank, Count: len(f.nodes), NodeReport: n.report})
	}
	return list
}

// Warm has all seed nodes fetch a share of an image now, from 0 to 1, and keep it. It returns how many nodes there are.
func (f *Fleet) Warm(ctx context.Context, ref string, share float64) (nodes int, err error) {
	if err := may(ctx, RoleOperator, "have seed nodes fetch images"); err != nil {
		return 0, err
	}
	if !(share >= 0 && share <= 1) {
		return 0, refuse(CodeInvalid, "a share of an image is from 0 to 100 %%")
	}
	image, err := f.config.Library.Image(ctx, ref)
	if err != nil {
		return 0, err
	}
	err = f.change(ctx, func(d *draft) error {
		d.editStanding().warm(job.NodeTask{Image: image.Digest, ImageName: image.Name(), Preload: share, Warmed: f.now().UTC()})
		d.event(by(ctx, Event{Kind: "image.warm", Text: "the seed nodes fetch " + image.Name()}))
		return nil
	})
	if err != nil {
		return 0, err
	}
	f.mu.RLock()
	defer f.mu.RUnlock()
	return len(f.nodes), nil
}

// Dropped says what became of an order to drop an image.
type Dropped struct {
	ImageName string `json:"image_name"`
	Nodes     int    `json:"nodes"`  // that hold something of it, and remove that
	Pinned    int    `json:"pinned"` // that were started with it, and keep it
}

// DropImage has all seed nodes remove what they hold of an image, but those that were started with it. An image that a
// deployment uses is not dropped. One that the repository does not have any more is named by what the nodes say.
func (f *Fleet) DropImage(ctx context.Context, ref string) (*Dropped, error) {
	if err := may(ctx, RoleOperator, "have seed nodes drop images"); err != nil {
		return nil, err
	}
	var d job.NodeKept
	if image, err := f.config.Library.Image(ctx, ref); err == nil { // whatever nodes call by that name
		d = job.NodeKept{Image: image.Digest, ImageName: image.Name()}
	} else {
		list := f.onNodes(ref)
		switch len(list) {
		case 0:
			return nil, err
		case 1:
			d = list[0]
		default:
			return nil, refuse(CodeAmbiguous, "the seed nodes have %d images of the name %q, which the repository has not; name one by its digest: %s and %s",
				len(list), ref, list[0].Image.Short(), list[1].Image.Short())
		}
	}
	f.mu.RLock()
	used := slices.ContainsFunc(f.deployed(nil), func(t job.NodeTask) bool { return t.Image == d.Image })
	f.mu.RUnlock()
	if used {
		return nil, refuse(CodeImageUsed, "a deployment uses image %s; cancel its jobs (`seedbed job ls`), or wait until it is done", d.ImageName)
	}
	err := f.change(ctx, func(draft *draft) error {
		draft.editStanding().drop(d.Image)
		draft.event(by(ctx, Event{Kind: "image.dropped", Text: "the seed nodes remove what they hold of " + d.ImageName}))
		return nil
	})
	if err != nil {
		return nil, err
	}
	f.mu.RLock()
	defer f.mu.RUnlock()
	done := &Dropped{ImageName: d.ImageName}
	for _, n := range f.nodes {
		pinned := slices.ContainsFunc(n.report.Images, func(i job.NodeImage) bool { return i.Image == d.Image && (i.Pinned || i.FromDisk) })
		held := slices.ContainsFunc(n.report.Images, func(i job.NodeImage) bool { return i.Image == d.Image }) ||
			slices.ContainsFunc(n.report.Kept, func(k job.NodeKept) bool { return k.Image == d.Image })
		switch {
		case pinned:
			done.Pinned++
		case held:
			done.Nodes++
		}
	}
	return done, nil
}

// onNodes returns the images that seed nodes have under a name, or under at least six digits of a digest.
func (f *Fleet) onNodes(ref string) (list []job.NodeKept) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	is := func(k job.NodeKept) {
		known := slices.ContainsFunc(list, func(o job.NodeKept) bool { return o.Image == k.Image })
		if !known && (k.ImageName == ref || len(ref) >= 6 && strings.HasPrefix(k.Image.String(), ref)) {
			list = append(list, k)
		}
	}
	for _, n := range f.nodes {
		for _, i := range n.report.Images {
			is(job.NodeKept{Image: i.Image, ImageName: i.ImageName})
		}
		for _, k := range n.report.Kept {
			is(k)
		}
	}
	return list
}

// OtherSeeders returns the addresses of the seeders of the site's other appliances that are there.
func (f *Fleet) OtherSeeders() []netip.AddrPort {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.seeders()[len(f.config.Seeds):]
}

// SeedNodes returns the addresses of seed nodes that hold something of a swarm.
func (f *Fleet) SeedNodes(h images.InfoHash) []netip.AddrPort {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.holders(h)
}

// seeds returns the addresses of the appliances' seeders, and of the seed nodes that hold something of a swarm.
func (f *Fleet) seeds(h images.InfoHash) []netip.AddrPort {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return append(f.seeders(), f.holders(h)...)
}

// holders returns the addresses of seed nodes that hold something of a swarm. The caller holds mu.
func (f *Fleet) holders(h images.InfoHash) (list []netip.AddrPort) {
	for _, n := range f.ranked() {
		for _, i := range n.report.Images {
			if i.InfoHash == h && i.Held > 0 && n.addr.Port() != 0 {
				list = append(list, n.addr)
			}
		}
	}
	return list
}
