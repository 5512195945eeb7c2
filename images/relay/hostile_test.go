package relay

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"seedbed/images"
)

// intruder is a connection with a right certificate, to speak by hand.
func (s *site) intruder(at netip.AddrPort, cfg *tls.Config) (*tls.Conn, error) {
	own := cfg.Clone()
	own.NextProtos = []string{Protocol}
	raw, err := net.Dial("tcp", at.String())
	if err != nil {
		return nil, err
	}
	conn := tls.Client(raw, own)
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		return nil, err
	}
	s.t.Cleanup(func() { raw.Close() })
	return conn, conn.Handshake()
}

// cut reports whether the other end has closed the connection.
func cut(conn *tls.Conn) bool {
	_, err := io.Copy(io.Discard, conn)
	var late net.Error
	return !(errors.As(err, &late) && late.Timeout())
}

func TestIntrudersAreBarred(t *testing.T) {
	s := newSite(t)
	all, refs := objects(1 << 20)
	for name, send := range map[string][]byte{
		"garbage":           bytes.Repeat([]byte("GET / HTTP/1.1\r\n"), 100),
		"nothing asked for": request{refs[0].Digest, 0, 0}.encode(),
		"too much":          request{refs[0].Digest, 0, MaxRange + 1}.encode(),
		"more than is":      request{refs[0].Digest, 1<<20 - 5, 6}.encode(),
		"far behind":        request{refs[0].Digest, 1 << 61, 1}.encode(),
		"before it":         request{refs[0].Digest, -1, 1}.encode(),
	} {
		t.Run(name, func(t *testing.T) {
			log := &warnings{}
			machine := s.source(all, func(c *ServerConfig) { c.Log = slog.New(log) })
			cfg := s.tls(s.hash, "urn:seedbed:machine:m9")
			conn, err := s.intruder(machine.at, cfg)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = conn.Write(send)
			if !cut(conn) {
				t.Error("it is not cut")
			}
			until(t, "a warning", func() bool { return log.has("it gets no layers any more") })
			if l := machine.Liars(); len(l) != 1 || l[0].Names[0] != "urn:seedbed:machine:m9" {
				t.Errorf("liars: %+v", l)
			}
			if again, err := s.intruder(machine.at, cfg); err == nil {
				_, _ = again.Write(request{refs[0].Digest, 0, 1}.encode())
				if n, _ := io.Copy(io.Discard, again); n > 0 {
					t.Error("it is answered when it comes back")
				}
			}
			if machine.Sent() != 0 {
				t.Errorf("%d bytes were sent", machine.Sent())
			}
			f, _ := s.fetcher([]netip.AddrPort{machine.at}) // others are served
			if got, err := f.Fetch(t.Context(), refs); err != nil || !got.has(refs) {
				t.Error("others are not served any more", err)
			}
		})
	}
}

func TestFloodsAreCut(t *testing.T) {
	s := newSite(t)
	all, refs := objects(1 << 20)
	_, foreign := objects(1)
	for name, q := range map[string]request{
		"of what is there": {refs[0].Digest, 0, MaxRange},
		"of single bytes":  {refs[0].Digest, 0, 1},
		"of what is not":   {foreign[0].Digest, 0, 1},
	} {
		t.Run(name, func(t *testing.T) {
			machine := s.source(all, nil)
			conn, err := s.intruder(machine.at, s.tls(s.hash))
			if err != nil {
				t.Fatal(err)
			}
			go func() {
				many := bytes.Repeat(q.encode(), 1000)
				for range 100 {
					if _, err := conn.Write(many); err != nil {
						return
					}
				}
			}()
			if !cut(conn) {
				t.Error("it is not cut")
			}
			if machine.Sent() > allowedTimes*all.Total()+2*allowedBeside {
				t.Errorf("%d bytes were sent", machine.Sent())
			}
		})
	}
}

func TestConnectionsAreBounded(t *testing.T) {
	s := newSite(t)
	all, refs := objects(8 << 20)
	machine := s.source(all, func(c *ServerConfig) { c.MaxConnections = 6 })
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	one := s.tls(s.hash)
	served := func(cfg *tls.Config) bool {
		conn, err := s.intruder(machine.at, cfg)
		if err != nil {
			return false
		}
		for range 4 { // and it reads nothing but the first byte
			_, _ = conn.Write(request{refs[0].Digest, 0, MaxRange}.encode())
		}
		n, _ := conn.Read(make([]byte, 1))
		return n > 0
	}
	count := 0
	for range 12 {
		if served(one) {
			count++
		}
	}
	if count != callsAtOnce {
		t.Errorf("one certificate has %d connections, want %d", count, callsAtOnce)
	}
	for range 12 {
		if served(s.tls(s.hash)) {
			count++
		}
	}
	if count != 6 {
		t.Errorf("%d connections, want 6", count)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 16<<20 {
		t.Errorf("%d bytes more are held", grown)
	}
}

// TestSourceThatPromisesMuch: what a source says costs no memory before it comes, and nothing that was not asked for.
func TestSourceThatPromisesMuch(t *testing.T) {
	for name, answer := range map[string][]byte{
		"a length":      {statusBytes, 0xff, 0xff, 0xff, 0xff},
		"a status":      {7, 0, 0, 0, 0},
		"nothing":       {statusBytes, 0, 0, 0, 0},
		"a long lack":   {statusAbsent, 0, 0, 0, 9},
		"half a header": {statusBytes, 0},
	} {
		into := make([]byte, 1000)
		if err := readAnswer(bytes.NewReader(append(answer, make([]byte, 5)...)), into); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
	if err := readAnswer(bytes.NewReader(appendAnswer(nil, statusAbsent, 0)), make([]byte, 5)); !errors.Is(err, errAbsent) {
		t.Error(err)
	}
}

// TestSourceThatTrickles: an answer that comes byte by byte costs a machine no more time than none, and then another is asked.
func TestSourceThatTrickles(t *testing.T) {
	s := newSite(t)
	all, refs := objects(10_000)
	slow, right := s.trickling(all[refs[0].Digest]), s.source(all, nil)
	f, failed := s.fetcher([]netip.AddrPort{slow}, []netip.AddrPort{right.at})
	f.silence = 500 * time.Millisecond
	begin := time.Now()
	got, err := f.Fetch(t.Context(), refs)
	if took := time.Since(begin); err != nil || !got.has(refs) || took > 5*time.Second {
		t.Errorf("%d objects after %v: %v", len(got.Objects), took, err)
	}
	if !slices.Equal(*failed, []netip.AddrPort{slow}) || len(got.Liars) != 0 {
		t.Errorf("failed: %v, liars: %v", *failed, got.Liars)
	}
}

// trickling is a source that answers with a byte each 2 ms.
func (s *site) trickling(b []byte) netip.AddrPort {
	cfg := s.tls(s.hash)
	cfg.NextProtos = []string{Protocol}
	l, err := tls.Listen("tcp", "127.0.0.1:0", cfg)
	if err != nil {
		s.t.Fatal(err)
	}
	var group sync.WaitGroup
	s.t.Cleanup(func() { l.Close(); group.Wait() })
	group.Go(func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		if _, err := io.ReadFull(conn, make([]byte, requestLength)); err != nil {
			return
		}
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		for answer := append(appendAnswer(nil, statusBytes, len(b)), b...); err == nil && len(answer) > 0; <-tick.C {
			_, err = conn.Write(answer[:1])
			answer = answer[1:]
		}
	})
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// TestBarredOnAllConnections: who is barred over one connection is not answered over the others it has.
func TestBarredOnAllConnections(t *testing.T) {
	s := newSite(t)
	all, refs := objects(1 << 20)
	machine := s.source(all, nil)
	cfg := s.tls(s.hash)
	one, err := s.intruder(machine.at, cfg)
	if err != nil {
		t.Fatal(err)
	}
	other, err := s.intruder(machine.at, cfg)
	if err != nil {
		t.Fatal(err)
	}
	ask := func() error {
		_, _ = one.Write(request{refs[0].Digest, 0, 1}.encode())
		return readAnswer(one, make([]byte, 1))
	}
	if err := ask(); err != nil {
		t.Fatal(err)
	}
	_, _ = other.Write(request{refs[0].Digest, 0, 0}.encode())
	until(t, "the certificate is barred", func() bool { return len(machine.Liars()) == 1 })
	if ask() == nil {
		t.Error("it is answered over its other connection")
	}
}

func FuzzRequest(f *testing.F) {
	f.Add(request{images.Sum(nil), 1 << 40, MaxRange}.encode())
	f.Add(make([]byte, requestLength))
	f.Fuzz(func(t *testing.T, b []byte) {
		q, err := decodeRequest(b)
		if err != nil {
			return
		}
		if q.length < 1 || q.length > MaxRange || q.offset < 0 || q.offset+int64(q.length) < q.offset {
			t.Errorf("%+v", q)
		}
		if !bytes.Equal(q.encode(), b) {
			t.Errorf("%x reads as %+v", b, q)
		}
	})
}

func FuzzAnswer(f *testing.F) {
	some := make([]byte, 64)
	rand.Read(some)
	f.Add(append(appendAnswer(nil, statusBytes, len(some)), some...), 64)
	f.Add(appendAnswer(nil, statusAbsent, 0), 64)
	f.Fuzz(func(t *testing.T, b []byte, want int) {
		if want < 1 || want > MaxRange {
			return
		}
		into := make([]byte, want)
		r := bytes.NewReader(b)
		if err := readAnswer(r, into); err == nil && !bytes.Equal(into, b[answerHeader:answerHeader+want]) {
			t.Error("other bytes are taken than came")
		}
	})
}
