package relay

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"seedbed/images"
	"seedbed/images/swarm"
	"seedbed/images/trust/trusttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// site is a certificate authority with one swarm.
type site struct {
	t    testing.TB
	ca   *trusttest.Authority
	hash images.InfoHash
}

func newSite(t testing.TB) *site {
	return &site{t: t, ca: trusttest.New(t), hash: images.InfoHash(images.Sum([]byte(t.Name())))}
}

// tls returns the TLS of a machine, with more URIs in its certificate, for a swarm.
func (s *site) tls(h images.InfoHash, more ...string) *tls.Config {
	return swarm.TLSConfig(s.ca.Issue(s.t, nil, append(more, swarm.InfoHashURI(h))...), s.ca.Certificate, h)
}

// source is a machine that gives objects on a listener of its own.
type source struct {
	*Server
	mux *swarm.Mux
	at  netip.AddrPort
}

// source starts a machine that gives objects until the test ends.
func (s *site) source(o Objects, change func(*ServerConfig), more ...string) *source {
	s.t.Helper()
	cfg := ServerConfig{InfoHash: s.hash, TLS: s.tls(s.hash, more...), Objects: o}
	if change != nil {
		change(&cfg)
	}
	server, err := NewServer(cfg)
	if err != nil {
		s.t.Fatal(err)
	}
	m := s.listener()
	if _, err := server.Serve(m); err != nil {
		s.t.Fatal(err)
	}
	return &source{server, m, m.Addr()}
}

// listener runs until the test ends.
func (s *site) listener() *swarm.Mux {
	s.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		s.t.Fatal(err)
	}
	m := swarm.NewMux(l, nil)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- m.Run(ctx) }()
	s.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			s.t.Error(err)
		}
	})
	return m
}

// fetcher is a machine that is told of the addresses, one answer after the other.
func (s *site) fetcher(answers ...[]netip.AddrPort) (f *Fetcher, failed *[]netip.AddrPort) {
	failed = new([]netip.AddrPort)
	return &Fetcher{TLS: s.tls(s.hash), Sources: func(_ context.Context, gone []netip.AddrPort) ([]netip.AddrPort, error) {
		*failed = slices.Clone(gone)
		if len(answers) == 0 {
			return nil, nil
		}
		list := answers[0]
		answers = answers[1:]
		return list, nil
	}}, failed
}

// objects makes some of given lengths.
func objects(lengths ...int64) (m Memory, refs []images.Ref) {
	m = Memory{}
	for _, n := range lengths {
		b := make([]byte, n)
		rand.Read(b)
		d := images.Sum(b)
		m[d] = b
		refs = append(refs, images.Ref{Digest: d, Length: n})
	}
	return m, refs
}

// warnings is a log that keeps what it is told.
type warnings struct {
	slog.Handler
	mu    sync.Mutex // guards lines
	lines []string
}

func (w *warnings) Enabled(context.Context, slog.Level) bool { return true }
func (w *warnings) WithAttrs([]slog.Attr) slog.Handler       { return w }
func (w *warnings) Handle(_ context.Context, r slog.Record) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if r.Level >= slog.LevelWarn {
		w.lines = append(w.lines, r.Message)
	}
	return nil
}

func (w *warnings) has(part string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.ContainsFunc(w.lines, func(l string) bool { return strings.Contains(l, part) })
}

// until fails the test if the condition does not become true.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it did not come to this: %s", what)
		}
	}
}

func TestObjectsComeFromWhoeverHasThem(t *testing.T) {
	s := newSite(t)
	all, refs := objects(5<<20+7, 1, MaxRange, 3*MaxRange)
	some := Memory{refs[1].Digest: all[refs[1].Digest], refs[0].Digest: all[refs[0].Digest]}
	machine, appliance := s.source(some, nil), s.source(all, nil, swarm.URIRoleAppliance)
	f, failed := s.fetcher([]netip.AddrPort{machine.at}, []netip.AddrPort{appliance.at})
	got, err := f.Fetch(t.Context(), append(refs, images.Ref{}))
	if err != nil || !got.has(refs) {
		t.Fatalf("%d of %d objects: %v", len(got.Objects), len(refs), err)
	}
	until(t, "what was sent is counted", func() bool { return machine.Sent()+appliance.Sent() >= all.Total() })
	if int64(5<<20+8) != machine.Sent() || int64(4*MaxRange) != appliance.Sent() || got.FromPeers < machine.Sent() ||
		got.FromAppliance < appliance.Sent() || got.FromPeers+got.FromAppliance > all.Total()+1000 {
		t.Errorf("sent %d and %d; received %d and %d", machine.Sent(), appliance.Sent(), got.FromPeers, got.FromAppliance)
	}
	if !slices.Equal(*failed, []netip.AddrPort{machine.at}) || len(got.Liars) != 0 {
		t.Errorf("failed: %v, liars: %v", *failed, got.Liars)
	}
}

// TestAllListenersGive: but for those on which somebody gives already, and until it is over.
func TestAllListenersGive(t *testing.T) {
	s, log := newSite(t), &warnings{}
	all, refs := objects(1000)
	server, err := NewServer(ServerConfig{InfoHash: s.hash, TLS: s.tls(s.hash), Objects: all, Log: slog.New(log)})
	if err != nil {
		t.Fatal(err)
	}
	taken := s.source(all, nil)
	one, other := s.listener(), s.listener()
	remove := server.ServeAll([]*swarm.Mux{one, taken.mux, other})
	if !log.has("is not given to other machines") || len(log.lines) != 1 {
		t.Errorf("log: %q", log.lines)
	}
	fetched := func(m *swarm.Mux) bool {
		f, _ := s.fetcher([]netip.AddrPort{m.Addr()})
		got, err := f.Fetch(t.Context(), refs)
		return err == nil && got.has(refs)
	}
	if !fetched(one) || !fetched(other) {
		t.Error("a listener does not give")
	}
	until(t, "what was sent is counted", func() bool { return server.Sent() == 2*all.Total() })
	remove()
	if fetched(one) || fetched(other) || !fetched(taken.mux) {
		t.Error("what was removed gives, or what was not does not")
	}
}

func TestStrangersGetNothing(t *testing.T) {
	s, other := newSite(t), newSite(t)
	all, refs := objects(1 << 20)
	machine := s.source(all, nil)
	for name, cfg := range map[string]*tls.Config{
		"of another site":  other.tls(s.hash),
		"of another image": s.tls(images.InfoHash{1}),
	} {
		cfg.ServerName = swarm.ServerName(s.hash) // it proves nothing
		f, failed := s.fetcher([]netip.AddrPort{machine.at})
		f.TLS = cfg
		f.TLS.VerifyConnection = nil
		got, err := f.Fetch(t.Context(), refs)
		if err != nil || len(got.Objects) != 0 || got.FromPeers != 0 || machine.Sent() != 0 {
			t.Errorf("a certificate %s: %d objects, %d bytes, %v", name, len(got.Objects), got.FromPeers, err)
		}
		if !slices.Contains(*failed, machine.at) {
			t.Errorf("a certificate %s: the handshake is not known to have failed", name)
		}
	}
	// The right certificate gets nothing of other images.
	_, foreign := objects(100)
	f, _ := s.fetcher([]netip.AddrPort{machine.at})
	if got, err := f.Fetch(t.Context(), foreign); err != nil || len(got.Objects) != 0 || len(got.Liars) != 0 || machine.Sent() != 0 {
		t.Errorf("an object of another image: %+v, %v", got, err)
	}
}

// liar gives wrong bytes.
type liar struct{ Memory }

func (l liar) Read(ctx context.Context, d images.Digest, offset, length int64) ([]byte, error) {
	b, err := l.Memory.Read(ctx, d, offset, length)
	b = slices.Clone(b)
	b[len(b)-1] ^= 1
	return b, err
}

func TestLiarsAreNamedAndOthersAsked(t *testing.T) {
	s := newSite(t)
	all, refs := objects(2<<20, 100)
	wrong, wrongAppliance, right := s.source(liar{all}, nil, "urn:seedbed:machine:m7"), s.source(liar{all}, nil, swarm.URIRoleAppliance), s.source(all, nil)
	log := &warnings{}
	f, failed := s.fetcher([]netip.AddrPort{wrong.at, wrongAppliance.at}, []netip.AddrPort{wrong.at, right.at})
	f.Log = slog.New(log)
	got, err := f.Fetch(t.Context(), refs)
	if err != nil || !got.has(refs) {
		t.Fatalf("%d of %d objects: %v", len(got.Objects), len(refs), err)
	}
	for d, b := range got.Objects {
		if images.Sum(b) != d {
			t.Error("wrong bytes were taken")
		}
	}
	if len(got.Liars) != 1 || got.Liars[0].Peer != wrong.at || !slices.Contains(got.Liars[0].Names, "urn:seedbed:machine:m7") ||
		!strings.HasPrefix(got.Liars[0].What, "sent wrong bytes") {
		t.Errorf("liars: %+v", got.Liars)
	}
	if !log.has("a peer sent wrong bytes") || !log.has("the appliance sent wrong bytes") || len(*failed) != 2 || wrong.Sent() > 2<<20 {
		t.Errorf("log %q, failed %v, the liar sent %d bytes", log.lines, *failed, wrong.Sent())
	}
}

// TestSourcesThatSayNothing: what hangs costs a quarter of a second before the next is tried.
func TestSourcesThatSayNothing(t *testing.T) {
	s := newSite(t)
	all, refs := objects(100 << 10)
	hole, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer hole.Close()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	right := s.source(all, nil)
	f, _ := s.fetcher([]netip.AddrPort{hole.Addr().(*net.TCPAddr).AddrPort(), closed.Addr().(*net.TCPAddr).AddrPort(), right.at})
	begin := time.Now()
	got, err := f.Fetch(t.Context(), refs)
	if took := time.Since(begin); err != nil || !got.has(refs) || took > 2*time.Second {
		t.Errorf("%d objects after %v: %v", len(got.Objects), took, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	f, _ = s.fetcher([]netip.AddrPort{hole.Addr().(*net.TCPAddr).AddrPort()})
	time.AfterFunc(50*time.Millisecond, cancel)
	if _, err := f.Fetch(ctx, refs); !errors.Is(err, context.Canceled) {
		t.Errorf("%v after it was cancelled", err)
	}
}

func TestLimitsHold(t *testing.T) {
	s := newSite(t)
	all, refs := objects(600 << 10)
	slow := s.source(all, func(c *ServerConfig) { c.Limits = swarm.NewLimits(1<<20, 0) })
	slower := s.source(all, func(c *ServerConfig) { c.PeerUploadLimit = 1 << 20 })
	free := s.source(all, nil)
	for name, c := range map[string]struct {
		at     netip.AddrPort
		limits *swarm.Limits
	}{"of the peer": {slow.at, nil}, "of a connection": {slower.at, nil}, "of who fetches": {free.at, swarm.NewLimits(0, 1<<20)}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f, _ := s.fetcher([]netip.AddrPort{c.at})
			f.Limits = c.limits
			begin := time.Now()
			got, err := f.Fetch(t.Context(), refs)
			if took := time.Since(begin); err != nil || !got.has(refs) || took < 500*time.Millisecond {
				t.Errorf("%d bytes at 1 MiB/s came in %v: %v", refs[0].Length, took, err)
			}
		})
	}
}
