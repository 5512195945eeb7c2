package swarm

import (
	"context"
	"crypto/tls"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"seedbed/images"
	"seedbed/images/peerwire"
)

var errTimeout = os.ErrDeadlineExceeded

func handshakeOf(s *site) []byte {
	return peerwire.Handshake{
		Reserved: peerwire.Features(), InfoHash: s.hash.Wire(), PeerID: images.InfoHash(images.Sum([]byte("somebody"))).Wire(),
	}.Append(nil)
}

func dialTLS(t *testing.T, p *peer, cfg *tls.Config) *tls.Conn {
	t.Helper()
	conn, err := tls.Dial("tcp", p.Addr().String(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

// tryTLS returns nil if the TLS handshake and the peer's BitTorrent handshake arrive.
func tryTLS(p *peer, s *site, cfg *tls.Config) error {
	d := tls.Dialer{Config: cfg, NetDialer: &net.Dialer{Timeout: 5 * time.Second}}
	conn, err := d.DialContext(context.Background(), "tcp", p.Addr().String())
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := conn.Write(handshakeOf(s)); err != nil {
		return err
	}
	_, err = peerwire.ReadHandshake(conn)
	return err
}

func TestOnlyInvitedPeersGetIn(t *testing.T) {
	s, c := newSite(t), newContent(mib, 256<<10)
	a := s.appliance(c, fullStore(c), nil)
	stranger := newSite(t)
	with := func(cert tls.Certificate) *tls.Config {
		cfg := s.tls()
		cfg.Certificates = []tls.Certificate{cert}
		return cfg
	}
	other := images.InfoHash(images.Sum([]byte("another image")))
	named := s.tls()
	named.ServerName = ServerName(other)
	for name, cfg := range map[string]*tls.Config{
		"without a certificate":     with(tls.Certificate{}),
		"of another swarm":          with(s.cert(time.Hour, InfoHashURI(other))),
		"of no swarm":               with(s.cert(time.Hour, "urn:seedbed:machine:1")),
		"that has expired":          with(s.cert(-time.Hour, InfoHashURI(s.hash))),
		"by another site":           with(stranger.cert(time.Hour, InfoHashURI(s.hash))),
		"asking for another swarm":  named,
		"speaking TLS 1.2":          {InsecureSkipVerify: true, ServerName: ServerName(s.hash), MaxVersion: tls.VersionTLS12, Certificates: s.tls().Certificates},
		"speaking another protocol": {InsecureSkipVerify: true, ServerName: ServerName(s.hash), NextProtos: []string{"h2"}, Certificates: s.tls().Certificates},
	} {
		if err := tryTLS(a, s, cfg); err == nil {
			t.Errorf("a peer %s got in", name)
		}
	}
	if err := tryTLS(a, s, s.tls()); err != nil {
		t.Errorf("an invited peer stays out: %v", err)
	}
}

// A machine does not take an appliance of another site for its own.
func TestMachineRefusesForeignAppliance(t *testing.T) {
	s, c := newSite(t), newContent(mib, 256<<10)
	stranger := newSite(t)
	foreign := stranger.appliance(c, fullStore(c), nil)
	cfg := s.tls()
	if _, err := tls.Dial("tcp", foreign.Addr().String(), cfg); err == nil || !strings.Contains(err.Error(), "certificate of peer") {
		t.Errorf("handshake with a foreign appliance: %v", err)
	}
}

func TestSwarmsShareAListener(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	mux := NewMux(l, testLog(t))
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := mux.Run(ctx); err != nil {
			t.Errorf("Mux.Run: %v", err)
		}
	})
	defer running.Wait()
	defer cancel()
	one, two := newSite(t), newSite(t)
	two.hash = images.InfoHash(images.Sum([]byte("two")))
	shared := func(cfg *Config) { cfg.ListenAddr, cfg.Mux = "", mux }
	c1, c2 := newContent(4*mib, 256<<10), newContent(3*mib+512, 256<<10)
	a1, a2 := one.appliance(c1, fullStore(c1), shared), two.appliance(c2, fullStore(c2), shared)
	d1, d2 := emptyStore(c1), emptyStore(c2)
	m1, m2 := one.run(c1, d1, nil), two.run(c2, d2, nil)
	meet(a1, m1)
	meet(a2, m2)
	wait(t, m1, 10*time.Second)
	wait(t, m2, 10*time.Second)
	equal(t, d1)
	equal(t, d2)
	if a1.Addr() != a2.Addr() {
		t.Errorf("listeners %v and %v", a1.Addr(), a2.Addr())
	}
	again, err := New(Config{InfoHash: one.hash, Pieces: c1, Storage: fullStore(c1), TLS: one.tls(), Mux: mux})
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Run(ctx); err == nil || !strings.Contains(err.Error(), "runs already") {
		t.Errorf("the same swarm twice: %v", err)
	}
	a1.stop()
	if err := tryTLS(a1, one, one.tls()); err == nil {
		t.Error("a swarm that ended takes peers")
	}
}

func TestConfigIsChecked(t *testing.T) {
	s, c := newSite(t), newContent(mib, 256<<10)
	for name, cfg := range map[string]Config{
		"no pieces":   {Storage: fullStore(c), TLS: s.tls()},
		"no storage":  {Pieces: c, TLS: s.tls()},
		"no TLS":      {Pieces: c, Storage: fullStore(c)},
		"bad address": {Pieces: c, Storage: fullStore(c), TLS: s.tls(), ListenAddr: "127.0.0.1:-1"},
	} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	p, err := New(Config{Pieces: c, Storage: fullStore(c), TLS: s.tls(), ListenAddr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Close(); err != nil || p.PeerID() == [20]byte{} {
		t.Errorf("close: %v, peer ID %x", err, p.PeerID())
	}
}

// sized is content of another number of pieces.
type sized struct {
	*content
	pieces int
}

func (c sized) Count() int { return c.pieces }

// Whatever can be captured can be deployed: little data on a large disk too.
func TestEveryPieceLengthIsGoodForASwarm(t *testing.T) {
	s, c := newSite(t), newContent(mib, 256<<10)
	for _, disk := range []int64{240e9, 500e9, 1e12, 2e12, 4e12, 8e12} {
		for data := int64(100 << 20); data < disk; data *= 2 {
			const tails = 128 // a piece for the rest of each partition
			pieces := int(disk/images.PieceLengthFor(data, disk)) + tails
			if _, err := New(Config{Pieces: sized{c, pieces}, Storage: fullStore(c), TLS: s.tls()}); err != nil {
				t.Errorf("%d bytes of data on a disk of %d: %v", data, disk, err)
			}
		}
	}
}
