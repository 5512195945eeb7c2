package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/spf13/pflag"

	"seedbed/appliance/job"
	"seedbed/images/announce"
	"seedbed/images/relay"
	"seedbed/images/swarm"
)

// peerFlags are a guest's flags about its part in swarms.
type peerFlags struct {
	listen                             string
	download, upload, linkDown, linkUp rate
	hashThreads                        int
	transport                          swarm.Transport
}

// add defines the flags; listen is the default of the one of that name.
func (n *peerFlags) add(f *pflag.FlagSet, listen string) {
	f.StringVar(&n.listen, "listen", listen, "`ADDRESS` at which other machines are served")
	f.Var(&n.download, "limit", "receive at most so much, `RATE` in bytes a second (50M) or bits (100Mbit); 0 is no limit")
	f.Var(&n.upload, "upload-limit", "send at most so much, `RATE`")
	f.Var(&n.linkDown, "peer-limit", "receive at most so much from each machine, `RATE`")
	f.Var(&n.linkUp, "peer-upload-limit", "send at most so much to each machine, `RATE`")
	f.IntVar(&n.hashThreads, "hash-threads", 0, "`NUMBER` of threads that decode, hash and compare (default: up to four in the swarm, one per processor on the disk)")
	f.IntVar(&n.transport.DSCP, "dscp", 0, "mark packets with this DSCP `NUMBER` (0 to 63; 8 is CS1)")
	f.StringVar(&n.transport.Congestion, "congestion", "", "congestion control, `NAME` of the kernel's: cubic or bbr (default: cubic)")
}

// addInterfaces defines the flag that names network interfaces.
func (n *peerFlags) addInterfaces(f *pflag.FlagSet) {
	f.StringSliceVar(&n.transport.Interfaces, "interface", nil, "use this `NIC`; with more than one, named again or after a comma, each has links of its own")
}

// check reads what the flags say.
func (n *peerFlags) check() error {
	t := &n.transport
	t.DownloadLimit, t.UploadLimit = int64(n.download), int64(n.upload)
	t.PeerDownloadLimit, t.PeerUploadLimit = int64(n.linkDown), int64(n.linkUp)
	if n.hashThreads < 0 || n.hashThreads > 256 {
		return usageError{fmt.Errorf("--hash-threads is a number from 0 to 256, not %d", n.hashThreads)}
	}
	if err := t.Check(); err != nil {
		return usageError{err}
	}
	if _, err := net.ResolveTCPAddr("tcp", n.listen); err != nil {
		return usageError{fmt.Errorf("--listen: %w", err)}
	}
	return nil
}

// share makes the limits those of all that the program sends and receives in swarms, and returns them.
func (n *peerFlags) share() *swarm.Limits {
	t := &n.transport
	t.Shared = swarm.NewLimits(t.UploadLimit, t.DownloadLimit)
	t.UploadLimit, t.DownloadLimit = 0, 0
	return t.Shared
}

// peer is a guest's peer in one swarm that runs.
type peer struct {
	*swarm.Swarm
	quit  context.CancelFunc
	group sync.WaitGroup
	ended chan struct{} // closed when err is set
	idle  []func()      // close idle connections
	relay *relay.Server // nil where no description is given
	liars []relay.Liar  // who lied about the description
	err   error         // of the swarm
}

// takePart starts a peer, which announces itself, and renews its certificate. left returns the bytes that it lacks. The
// caller stops it. Others get the description of the image from it.
func (g *guest) takePart(ctx context.Context, m *membership, d *described, c swarm.Config, left func() int64) (*peer, error) {
	for _, l := range d.liars {
		c.Barred = append(c.Barred, l.Certificate)
	}
	c.InfoHash, c.TLS, c.Log = m.hash, m.tls(), g.log
	sw, err := swarm.New(c)
	if err != nil {
		return nil, err
	}
	p := &peer{Swarm: sw, ended: make(chan struct{})}
	ctx, p.quit = context.WithCancel(ctx)
	server, stop := d.give(m, sw, &c.Transport)
	p.relay, p.liars = server, d.liars
	p.group.Go(func() {
		defer stop()
		p.err = sw.Run(ctx)
		close(p.ended)
	})
	p.group.Go(func() { m.renew(ctx, func(j *job.Joined) { sw.AddPeers(j.Seeds) }) })
	g.mu.Lock()
	appliances := g.pass.Appliances
	g.mu.Unlock()
	for _, end := range sw.Endpoints() {
		client, idle := m.http(&c.Transport, end.Interface)
		p.idle = append(p.idle, idle)
		for _, base := range appliances {
			a := announce.Client{URL: base + job.PathAnnounce, HTTP: client, Log: g.log}
			a.Answered = func(r announce.Response) { sw.Answered(base+end.Interface, r) }
			p.group.Go(func() {
				a.Run(ctx, func() announce.Request {
					s := p.Stats()
					return announce.Request{InfoHash: m.hash.Wire(), PeerID: end.PeerID, Port: end.Addr.Port(),
						Uploaded: s.ToPeers, Downloaded: s.FromAppliance + s.FromPeers, Left: left()}
				}, nil)
			})
		}
	}
	return p, nil
}

// Stats are those of the swarm, with descriptions among what was sent.
func (p *peer) Stats() swarm.Stats {
	s := p.Swarm.Stats()
	if p.relay != nil {
		s.ToPeers += p.relay.Sent()
	}
	return s
}

// Liars are those of the swarm, and those who lied about descriptions or flooded us with requests for them.
func (p *peer) Liars() []swarm.Liar {
	list := p.Swarm.Liars()
	about := p.liars
	if p.relay != nil {
		about = slices.Concat(about, p.relay.Liars())
	}
	for _, l := range about {
		list = append(list, l.Liar)
	}
	return list
}

// stop leaves the swarm and waits for everything that takePart started.
func (p *peer) stop() {
	p.quit()
	p.group.Wait()
	for _, closeIdle := range p.idle {
		closeIdle()
	}
}

// http returns a client that shows the certificate of the swarm, which a tracker wants, over an interface if one is named:
// the tracker learns the peer's address from where the announce comes.
func (m *membership) http(t *swarm.Transport, device string) (client *http.Client, closeIdle func()) {
	transport := m.g.http.Transport.(*http.Transport).Clone()
	transport.TLSClientConfig.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return m.cert.Load(), nil }
	transport.IdleConnTimeout = 5 * time.Second // shorter than the interval: a renewed certificate is shown
	if device != "" {
		transport.DialContext = t.Dialer(device).DialContext
	}
	return &http.Client{Transport: transport}, transport.CloseIdleConnections
}
