package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"math"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/pflag"

	"seedbed/appliance/job"
	"seedbed/images/announce"
	"seedbed/images/swarm"
)

// peerFlags are a guest's flags about its part in swarms.
type peerFlags struct {
	listen, limit, upload, peerLimit, peerUpload string
	hashThreads                                  int
	transport                                    swarm.Transport
}

// add defines the flags; listen is the default of the one of that name.
func (n *peerFlags) add(f *pflag.FlagSet, listen string) {
	f.StringVar(&n.listen, "listen", listen, "`ADDRESS` at which other machines are served")
	f.StringVar(&n.limit, "limit", "", "receive at most so many bytes a second, as `RATE`: 50M, 800K")
	f.StringVar(&n.upload, "upload-limit", "", "send at most so many bytes a second, as `RATE`")
	f.StringVar(&n.peerLimit, "peer-limit", "", "receive at most so many bytes a second from each machine, as `RATE`")
	f.StringVar(&n.peerUpload, "peer-upload-limit", "", "send at most so many bytes a second to each machine, as `RATE`")
	f.IntVar(&n.hashThreads, "hash-threads", 0, "hash, decode and compare on so many processors (default: up to four in the swarm, all on the disk)")
	f.IntVar(&n.transport.DSCP, "dscp", 0, "mark packets with this `NUMBER`, 0 to 63")
	f.StringVar(&n.transport.Congestion, "congestion", "", "TCP's congestion control, `NAME`: cubic or bbr (default: cubic)")
}

// check reads what the flags say.
func (n *peerFlags) check() error {
	for flag, to := range map[string]*int64{"limit": &n.transport.DownloadLimit, "upload-limit": &n.transport.UploadLimit,
		"peer-limit": &n.transport.PeerDownloadLimit, "peer-upload-limit": &n.transport.PeerUploadLimit} {
		text := map[string]string{"limit": n.limit, "upload-limit": n.upload, "peer-limit": n.peerLimit, "peer-upload-limit": n.peerUpload}[flag]
		rate, err := parseRate(text)
		if err != nil {
			return usageError{fmt.Errorf("--%s: %w", flag, err)}
		}
		*to = rate
	}
	if n.hashThreads < 0 || n.hashThreads > 1024 {
		return usageError{fmt.Errorf("--hash-threads is a number from 1 to 1024, not %d", n.hashThreads)}
	}
	if err := n.transport.Check(); err != nil {
		return usageError{err}
	}
	return nil
}

var rateText = regexp.MustCompile(`^(?i)(\d{1,12}(?:\.\d{1,3})?)([KMG]?)(?:B?(?:/s)?)$`)

// parseRate reads bytes a second, in decimal units as network rates are: "50M", "1.5MB/s"; "" and "0" are none.
func parseRate(s string) (int64, error) {
	if s == "" || s == "0" {
		return 0, nil
	}
	m := rateText.FindStringSubmatch(s)
	if m == nil {
		return 0, fmt.Errorf("%q is no rate; say bytes a second, such as 50M or 800K", s)
	}
	n, err := strconv.ParseFloat(m[1], 64)
	if err != nil {
		return 0, err
	}
	n *= map[string]float64{"": 1, "K": 1e3, "M": 1e6, "G": 1e9}[strings.ToUpper(m[2])]
	if n < swarm.MinLimit || n > math.MaxInt64/2 {
		return 0, fmt.Errorf("%s is too little; a rate is at least %d bytes a second, or 0 for none", s, swarm.MinLimit)
	}
	return int64(n), nil
}

// peer is a guest's peer in one swarm that runs.
type peer struct {
	*swarm.Swarm
	quit  context.CancelFunc
	group sync.WaitGroup
	ended chan struct{} // closed when err is set
	idle  []func()      // close idle connections
	err   error         // of the swarm
}

// takePart starts a peer, which announces itself, and renews its certificate. left returns the bytes that it lacks. The
// caller stops it.
func (g *guest) takePart(ctx context.Context, m *membership, c swarm.Config, left func() int64) (*peer, error) {
	c.InfoHash, c.TLS, c.Log = m.hash, m.tls(), g.log
	sw, err := swarm.New(c)
	if err != nil {
		return nil, err
	}
	p := &peer{Swarm: sw, ended: make(chan struct{})}
	ctx, p.quit = context.WithCancel(ctx)
	p.group.Go(func() {
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
			p.group.Go(func() {
				a.Run(ctx, func() announce.Request {
					s := sw.Stats()
					return announce.Request{InfoHash: m.hash.Wire(), PeerID: end.PeerID, Port: end.Addr.Port(),
						Uploaded: s.ToPeers, Downloaded: s.FromAppliance + s.FromPeers, Left: left()}
				}, sw.AddPeers)
			})
		}
	}
	return p, nil
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
