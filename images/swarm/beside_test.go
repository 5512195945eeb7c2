package swarm

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"io"
	"net"
	"testing"
	"time"
)

func TestAnotherProtocolSharesTheListenerOfASwarm(t *testing.T) {
	s := newSite(t)
	c := newContent(1<<20, 256<<10)
	a := s.appliance(c, fullStore(c), nil)
	mux := a.Muxes()[0]
	echo := func(ctx context.Context, conn *tls.Conn) {
		defer conn.Close()
		defer context.AfterFunc(ctx, func() { conn.NetConn().Close() })()
		io.Copy(conn, conn)
	}
	remove, err := mux.Handle(s.hash, "echo/1", s.tls(), echo)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := mux.Handle(s.hash, "echo/1", s.tls(), echo); err == nil {
		t.Error("the same protocol is answered twice")
	}
	says := func(cfg *tls.Config, protocol string) error {
		cfg = cfg.Clone()
		cfg.NextProtos = []string{protocol}
		d := tls.Dialer{Config: cfg, NetDialer: &net.Dialer{Timeout: 10 * time.Second}}
		conn, err := d.DialContext(t.Context(), "tcp", mux.Addr().String())
		if err != nil {
			return err
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(10 * time.Second))
		if _, err := conn.Write([]byte("hello")); err != nil {
			return err
		}
		_, err = io.ReadFull(conn, make([]byte, 5))
		return err
	}
	if err := says(s.tls(), "echo/1"); err != nil {
		t.Error(err)
	}
	if says(s.tls(), "echo/2") == nil {
		t.Error("a protocol that nobody answers is answered")
	}
	other := newSite(t)
	stranger := other.tls()
	stranger.InsecureSkipVerify, stranger.VerifyConnection = true, nil
	if says(stranger, "echo/1") == nil {
		t.Error("a stranger is answered")
	}
	m := s.run(c, emptyStore(c), nil) // links are not disturbed
	meet(a, m)
	wait(t, m, 20*time.Second)
	remove()
	if says(s.tls(), "echo/1") == nil {
		t.Error("it is answered after it was removed")
	}
}

func TestWhoLiedBeforeHasNoLink(t *testing.T) {
	s := newSite(t)
	c := newContent(1<<20, 256<<10)
	cfg := s.tls()
	liar := s.run(c, fullStore(c), func(own *Config) { own.TLS = cfg })
	a := s.appliance(c, fullStore(c), nil)
	m := s.run(c, emptyStore(c), func(own *Config) {
		own.Barred = [][32]byte{sha256.Sum256(cfg.Certificates[0].Certificate[0])}
	})
	meet(a, m, liar)
	wait(t, m, 20*time.Second)
	until(t, 10*time.Second, "the link to the liar is cut", func() bool { return m.Stats().Peers == 1 })
	if got := m.Stats().FromPeers; got != 0 {
		t.Errorf("%d bytes came from one who lied before", got)
	}
}
