package agent

import (
	"cmp"
	"context"
	"crypto/tls"
	"net/netip"
	"slices"
	"time"

	"seedbed/appliance/job"
	"seedbed/images"
	"seedbed/images/announce"
	"seedbed/images/layout"
	"seedbed/images/relay"
	"seedbed/images/swarm"
	"seedbed/initramfs/disk"
)

// description is what a machine needs before it can join the swarm: maps, piece layers and frame. It comes from machines
// that have it, as the appliance names them, and is given to others from then on. Owned by the goroutine of the steps, but for
// relay, which the deployment's mu guards.
type description struct {
	refs    []images.Ref
	objects relay.Memory
	liars   []relay.Liar
	mux     *swarm.Mux    // nil where the swarm opens its port itself
	relay   *relay.Server // nil until there is something to give
}

// describe fetches what says how the image lies on a disk, and checks it.
func (d *deployment) describe(ctx context.Context) error {
	o := &d.about
	o.refs = d.manifest.Description()
	o.objects = relay.Memory{}
	asks := d.j.Kind.Swarms() && lengthOf(o.refs) >= cmp.Or(d.a.cfg.relayLeast, relay.Least)
	if asks {
		d.listen(ctx)
		if err := d.askMachines(ctx); err != nil {
			return context.Cause(ctx)
		}
	}
	layer := d.fetchLayer(ctx)
	fetch := func(r images.Ref) (b []byte, err error) {
		if b = o.objects[r.Digest]; b == nil {
			if b, err = layer(r); err == nil {
				o.objects[r.Digest] = b
			}
		}
		return b, err
	}
	var err error
	if d.layout, err = layout.Load(d.manifest, fetch); err == nil {
		d.frame, err = disk.LoadFrame(d.manifest, fetch)
	}
	if err != nil {
		return d.imageFailure(err)
	}
	if asks {
		d.give(ctx)
	}
	return nil
}

func lengthOf(refs []images.Ref) (n int64) {
	for _, r := range refs {
		n += r.Length
	}
	return n
}

// listen opens the swarm's port ahead of the swarm. Where that cannot be done the swarm will say so; with several cards each
// gets a port of its own then.
func (d *deployment) listen(ctx context.Context) {
	if len(d.transport.Interfaces) > 0 || lengthOf(d.about.refs) > d.a.mayGive() {
		return
	}
	l, err := d.transport.Listen(d.a.cfg.ListenAddr)
	if err != nil {
		d.a.log.Debug("port of the swarm not opened yet", "err", err)
		return
	}
	mux := swarm.NewMux(l, d.a.log)
	d.about.mux = mux
	d.group.Go(func() {
		if err := mux.Run(ctx); err != nil {
			d.a.log.Warn("no machine reaches this one any more", "err", err)
		}
	})
}

// mayGive is how long what is kept for others may be, in bytes: half of what the swarm may hold.
func (a *Agent) mayGive() int64 {
	if a.cfg.MemoryBytes == 0 {
		return 32 << 20
	}
	return a.cfg.MemoryBytes / 2
}

// port is where this machine gives what it has; 0 is nowhere yet.
func (o *description) port() uint16 {
	if o.mux == nil {
		return 0
	}
	return o.mux.Addr().Port()
}

func (d *deployment) swarmTLS() *tls.Config {
	cert := tls.Certificate{Certificate: [][]byte{d.j.Certificate}, PrivateKey: d.a.client.key}
	return swarm.TLSConfig(cert, d.a.ca, d.j.InfoHash)
}

func (d *deployment) sourcesRequest() announce.SourcesRequest {
	return announce.SourcesRequest{InfoHash: d.j.InfoHash.Wire(), Port: d.about.port(), Length: lengthOf(d.about.refs)}
}

// askMachines fetches what machines have of the description. The error is that of ctx.
func (d *deployment) askMachines(ctx context.Context) error {
	f := relay.Fetcher{TLS: d.swarmTLS(), Dialer: d.transport.Dialer(""), Limits: d.transport.Shared, Log: d.a.log,
		Sources: func(ctx context.Context, failed []netip.AddrPort) ([]netip.AddrPort, error) {
			request := d.sourcesRequest()
			request.Failed = failed
			var list []netip.AddrPort
			err := d.tracked(ctx, func(ctx context.Context, tracker *announce.Client) (err error) {
				list, err = tracker.Sources(ctx, request)
				return err
			})
			return list, err
		}}
	got, err := f.Fetch(ctx, slices.Clone(d.about.refs))
	d.about.objects = got.Objects
	d.mu.Lock()
	defer d.mu.Unlock()
	d.status.past.FromAppliance += got.FromAppliance
	d.status.past.FromPeers += got.FromPeers
	for _, l := range got.Liars {
		d.about.liars = append(d.about.liars, l)
		d.status.liars = append(d.status.liars, job.Liar(l.Liar))
	}
	return err
}

// give lets other machines have the description, and tells the appliance so.
func (d *deployment) give(ctx context.Context) {
	o := &d.about
	if lengthOf(o.refs) <= d.a.mayGive() {
		server, err := relay.NewServer(relay.ServerConfig{InfoHash: d.j.InfoHash, TLS: d.swarmTLS(), Objects: o.objects,
			Limits: d.transport.Shared, Log: d.a.log})
		if err == nil && o.mux != nil {
			_, err = server.Serve(o.mux)
		}
		if err != nil {
			d.a.log.Warn("the description of the image is not given to other machines", "err", err)
		} else {
			d.mu.Lock()
			o.relay = server
			d.mu.Unlock()
		}
	}
	request := d.sourcesRequest()
	request.Held = true
	if o.relay == nil {
		request.Port = 0
	}
	d.group.Go(func() {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		err := d.tracked(ctx, func(ctx context.Context, tracker *announce.Client) error {
			_, err := tracker.Sources(ctx, request)
			return err
		})
		if err != nil {
			d.a.log.Debug("the appliance was not told that this machine has the description", "err", err)
		}
	})
}

// giveOn lets the swarm's own ports give the description too, until the returned function is called.
func (d *deployment) giveOn(sw *swarm.Swarm) (stop func()) {
	if d.about.relay == nil || d.about.mux != nil {
		return func() {}
	}
	return d.about.relay.ServeAll(sw.Muxes())
}

// given counts the bytes of descriptions that other machines got, and returns those who were barred for how they asked.
func (d *deployment) given() (n int64, liars []job.Liar) {
	d.mu.Lock()
	server := d.about.relay
	liars = slices.Clone(d.status.liars)
	d.mu.Unlock()
	if server == nil {
		return 0, liars
	}
	for _, l := range server.Liars() {
		liars = append(liars, job.Liar(l.Liar))
	}
	return server.Sent(), liars
}

// jobTransport is how the job's machine uses its network: its limits hold for the swarm and beside it together.
func (d *deployment) jobTransport() swarm.Transport {
	t := d.a.transport(d.j.Transport)
	t.Shared = swarm.NewLimits(t.UploadLimit, t.DownloadLimit)
	t.UploadLimit, t.DownloadLimit = 0, 0
	return t
}
