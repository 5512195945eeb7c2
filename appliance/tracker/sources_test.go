package tracker

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"seedbed/appliance/job"
	"seedbed/appliance/site"
	"seedbed/images"
	"seedbed/images/announce"
	"seedbed/images/relay"
	"seedbed/images/swarm"
)

// lab is a tracker over TLS with a seeder that gives one object, and a site that issues certificates.
type lab struct {
	t      *testing.T
	site   *site.Site
	tr     *Tracker
	server *httptest.Server
	all    relay.Memory
	refs   []images.Ref
	seeder *relay.Server
}

func newLab(t *testing.T, length int64, limits *swarm.Limits) *lab {
	t.Helper()
	s, err := site.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	l := &lab{t: t, site: s, tr: New(Config{})}
	b := make([]byte, length)
	rand.Read(b)
	d := images.Sum(b)
	l.all, l.refs = relay.Memory{d: b}, []images.Ref{{Digest: d, Length: length}}
	cert, err := s.Server([]netip.Addr{netip.MustParseAddr("127.0.0.1")})
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET "+job.PathAnnounce, l.tr)
	mux.Handle("GET "+job.PathSources, l.tr)
	mux.HandleFunc("GET "+job.PathLayer+"{digest}", func(w http.ResponseWriter, _ *http.Request) { w.Write(b) })
	l.server = httptest.NewUnstartedServer(mux)
	l.server.TLS = s.ServerTLS(cert)
	l.server.StartTLS()
	t.Cleanup(l.server.Close)
	peer, err := s.Peer(swarm.InfoHashURI(debian), swarm.URIRoleAppliance)
	if err != nil {
		t.Fatal(err)
	}
	var at netip.AddrPort
	l.seeder, at = l.serve(swarm.TLSConfig(peer, s.CA(), debian), limits)
	l.tr.AddSeed(debian, at)
	return l
}

// serve gives the object on a port of its own until the test ends.
func (l *lab) serve(c *tls.Config, limits *swarm.Limits) (*relay.Server, netip.AddrPort) {
	l.t.Helper()
	server, err := relay.NewServer(relay.ServerConfig{InfoHash: debian, TLS: c, Objects: l.all, Limits: limits})
	if err != nil {
		l.t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		l.t.Fatal(err)
	}
	mux := swarm.NewMux(listener, nil)
	if _, err := server.Serve(mux); err != nil {
		l.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	group.Go(func() { mux.Run(ctx) })
	l.t.Cleanup(func() { cancel(); group.Wait() })
	return server, mux.Addr()
}

// machine returns the TLS and the tracker of a machine.
func (l *lab) machine(uris ...string) (*tls.Config, *announce.Client) {
	l.t.Helper()
	peer, err := l.site.Peer(uris...)
	if err != nil {
		l.t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(l.site.CA())
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{peer}}}
	l.t.Cleanup(transport.CloseIdleConnections)
	return swarm.TLSConfig(peer, l.site.CA(), debian), &announce.Client{URL: l.server.URL + job.PathAnnounce, HTTP: &http.Client{Transport: transport}}
}

// fetch has so many machines fetch at once, each with a link of so many bytes a second, 0 for no limit, and gives when the
// last had it.
func (l *lab) fetch(machines int, link int64) (last time.Duration) {
	l.t.Helper()
	return l.fetchFrom(machines, link, nil)
}

// fetchFrom is fetch from one source alone, where it is given.
func (l *lab) fetchFrom(machines int, link int64, only []netip.AddrPort) (last time.Duration) {
	l.t.Helper()
	type ready struct {
		tls     *tls.Config
		tracker *announce.Client
	}
	var all []ready
	for n := range machines {
		c, tracker := l.machine(job.URIMachine+fmt.Sprint("m", n), swarm.InfoHashURI(debian))
		all = append(all, ready{c, tracker})
	}
	begin := time.Now()
	var group sync.WaitGroup
	var mu sync.Mutex // guards last
	for _, m := range all {
		group.Go(func() {
			limits := swarm.NewLimits(link, link)
			_, at := l.serve(m.tls, limits)
			request := announce.SourcesRequest{InfoHash: debian.Wire(), Port: at.Port(), Length: l.all.Total()}
			f := relay.Fetcher{TLS: m.tls, Limits: limits, Sources: func(ctx context.Context, failed []netip.AddrPort) ([]netip.AddrPort, error) {
				if request.Failed = failed; only != nil {
					return only, nil
				}
				return m.tracker.Sources(ctx, request)
			}}
			got, err := f.Fetch(l.t.Context(), l.refs)
			if err != nil || len(got.Objects) != len(l.refs) {
				l.t.Errorf("%d objects: %v", len(got.Objects), err)
			}
			mu.Lock()
			last = max(last, time.Since(begin))
			mu.Unlock()
			if request.Held, request.Failed = true, nil; only != nil {
				return
			}
			if _, err := m.tracker.Sources(l.t.Context(), request); err != nil {
				l.t.Error(err)
			}
		})
	}
	group.Wait()
	return last
}

// A description of 1 MiB over links of 100 Mbit/s, from the appliance alone and by the tracker's word.
func TestARoomHandsOnWhatDescribesItsImage(t *testing.T) {
	const machines, length, link = 16, 1 << 20, 12_500_000
	l := newLab(t, length, swarm.NewLimits(link, link))
	alone := l.fetchFrom(machines, link, l.tr.swarms[debian.Wire()].seeds)
	before := l.seeder.Sent()
	last := l.fetch(machines, link)
	copies := float64(l.seeder.Sent()-before) / length
	t.Logf("%d machines have %d bytes after %v, from the appliance alone after %v; it gave %.1f copies", machines, length, last, alone, copies)
	if copies < 1 || copies > machines/2 || last > 3*alone {
		t.Errorf("the appliance gave %.1f copies; the last had it after %v, from the appliance alone after %v", copies, last, alone)
	}
}

// https has so many machines fetch the object from the appliance's endpoint at once.
func (l *lab) https(machines int) time.Duration {
	l.t.Helper()
	var clients []*announce.Client
	for n := range machines {
		_, c := l.machine(job.URIMachine+fmt.Sprint("m", n), swarm.InfoHashURI(debian))
		clients = append(clients, c)
	}
	begin := time.Now()
	var group sync.WaitGroup
	for _, c := range clients {
		group.Go(func() {
			res, err := c.HTTP.Get(l.server.URL + job.PathLayer + l.refs[0].Digest.String())
			if err != nil {
				l.t.Error(err)
				return
			}
			defer res.Body.Close()
			if b, err := io.ReadAll(res.Body); err != nil || images.Sum(b) != l.refs[0].Digest {
				l.t.Errorf("%d bytes: %v", len(b), err)
			}
		})
	}
	group.Wait()
	return time.Since(begin)
}

// Rooms that take 100 KiB each, over links without a limit: little is lost to questions.
func TestSmallRoomsStartFast(t *testing.T) {
	for _, machines := range []int{1, 8} {
		l := newLab(t, 100<<10, nil)
		https := l.https(machines)
		last := l.fetch(machines, 0)
		t.Logf("%d machines have 100 KiB after %v, %d copies by the appliance; over HTTPS from the appliance after %v", machines, last,
			l.seeder.Sent()/(100<<10), https)
		if last > https+2*time.Second || l.seeder.Sent() > 5*100<<10 {
			t.Errorf("%d machines: after %v, %d bytes of the appliance", machines, last, l.seeder.Sent())
		}
	}
}

func TestSourcesAreNamedToMachinesOfTheSwarm(t *testing.T) {
	l := newLab(t, 100, nil)
	request := announce.SourcesRequest{InfoHash: debian.Wire(), Port: 1, Length: 100}
	_, stranger := l.machine(job.URIMachine+"m1", swarm.InfoHashURI(windows))
	if list, err := stranger.Sources(t.Context(), request); err == nil || !strings.Contains(err.Error(), "does not name this swarm") {
		t.Errorf("%v, %v", list, err)
	}
	anyone := &announce.Client{URL: l.server.URL + job.PathAnnounce, HTTP: l.server.Client()}
	anyone.HTTP.Transport.(*http.Transport).TLSClientConfig = &tls.Config{InsecureSkipVerify: true}
	if list, err := anyone.Sources(t.Context(), request); err == nil {
		t.Errorf("without a certificate: %v", list)
	}
	_, machine := l.machine(job.URIMachine+"m1", swarm.InfoHashURI(debian))
	if list, err := machine.Sources(t.Context(), request); err != nil || len(list) != 1 {
		t.Errorf("%v, %v", list, err)
	}
	// Who goes away while it waits is forgotten, and who is told nothing asks again.
	_, second := l.machine(job.URIMachine+"m2", swarm.InfoHashURI(debian))
	_, third := l.machine(job.URIMachine+"m3", swarm.InfoHashURI(debian))
	if list, err := second.Sources(t.Context(), request); err != nil || len(list) != 1 {
		t.Errorf("%v, %v", list, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if list, err := third.Sources(ctx, request); err == nil {
		t.Errorf("a third copy at once, from %v", list)
	}
	waiting := func() (n int) {
		l.tr.mu.Lock()
		defer l.tr.mu.Unlock()
		return len(l.tr.swarms[debian.Wire()].desk.askers)
	}
	for deadline := time.Now().Add(10 * time.Second); waiting() != 2; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d are remembered", waiting())
		}
	}
	// A policy that is read again keeps nobody from going on.
	request.Held = true
	if _, err := machine.Sources(t.Context(), request); err != nil {
		t.Error(err)
	}
	request.Held = false
	l.tr.SetPolicy(l.tr.policy())
	if list, err := third.Sources(t.Context(), request); err != nil || len(list) == 0 {
		t.Errorf("%v, %v", list, err)
	}
	// A guest is one who asks, whatever ports it says.
	_, guest := l.machine(swarm.InfoHashURI(debian))
	before := waiting()
	for port := range uint16(3) {
		request.Port = 1 + port
		if list, err := guest.Sources(t.Context(), request); err != nil || len(list) == 0 {
			t.Errorf("%v, %v", list, err)
		}
	}
	if n := waiting() - before; n != 1 {
		t.Errorf("a guest with three ports is %d who ask", n)
	}
	if len(l.tr.Peers(debian)) != 0 {
		t.Errorf("who only asked takes part: %v", l.tr.Peers(debian))
	}
}
