package relay

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"time"

	"seedbed/images"
	"seedbed/images/swarm"
)

// Fetcher fetches objects from other machines. TLS and Sources are needed.
type Fetcher struct {
	TLS *tls.Config // the swarm's, see swarm.TLSConfig
	// Sources returns whom to ask next, best first, and none where nobody is to be asked: what is left has to come another
	// way. An error is none, and the log is told (Debug). It is told who was asked in vain. It may block.
	Sources func(ctx context.Context, failed []netip.AddrPort) ([]netip.AddrPort, error)
	Dialer  *net.Dialer   // nil is the zero one
	Limits  *swarm.Limits // of all that the peer receives; nil is none
	Log     *slog.Logger  // is told of liars (Warn); nil discards

	silence time.Duration // zero means the constant
}

// Fetched is what came.
type Fetched struct {
	// Objects are those that came whole and right, by digest.
	Objects Memory
	// Bytes received, what was wrong among them.
	FromAppliance, FromPeers int64
	// Liars are those who sent wrong bytes, but for appliances.
	Liars []Liar
}

// Liar is a peer that did what none does that means well.
type Liar struct {
	swarm.Liar
	Certificate [32]byte // SHA-256 of the DER, as swarm.Config.Barred has it
}

func newLiar(conn *tls.Conn, what string) Liar {
	leaf := conn.ConnectionState().PeerCertificates[0]
	liar := Liar{Certificate: sha256.Sum256(leaf.Raw), Liar: swarm.Liar{What: what}}
	for _, u := range leaf.URIs {
		liar.Names = append(liar.Names, u.String())
	}
	if at, ok := conn.RemoteAddr().(*net.TCPAddr); ok {
		ap := at.AddrPort()
		liar.Peer = netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	return liar
}

// log returns what a warning names the peer by.
func (l Liar) log() []any {
	return []any{"peer", l.Peer.String(), "names", l.Names, "certificate", fmt.Sprintf("%x", l.Certificate[:8])}
}

// Least is the length of all objects together, in bytes, from which others are asked: less costs no more than to ask.
const Least = 8 << 10

// Waits and bounds of a Fetcher.
const (
	roundsOfSources = 3                      // how often Sources is asked
	nextDial        = 250 * time.Millisecond // until the next address is dialled as well
	dialTime        = 3 * time.Second
	silence         = 5 * time.Second // without a byte of what was asked for
	leastRate       = 32 << 10        // bytes a second, beside that: swarm.MinLimit for each of two who fetch at once
	requestsAhead   = 4
)

// Fetch fetches what refs name; their lengths are those of a checked manifest. It returns what came, which may be less than
// what was asked for; the error is that of ctx.
func (f *Fetcher) Fetch(ctx context.Context, refs []images.Ref) (*Fetched, error) {
	got := &Fetched{Objects: Memory{}}
	log := f.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	var failed []netip.AddrPort
	for range roundsOfSources {
		if got.has(refs) {
			break
		}
		list, err := f.Sources(ctx, failed)
		if err != nil {
			log.Debug("nobody is named who has the description of the image", "err", err)
			break
		}
		list = slices.DeleteFunc(slices.Clone(list), func(a netip.AddrPort) bool { return slices.Contains(failed, a) })
		if len(list) == 0 {
			break
		}
		for len(list) > 0 && !got.has(refs) && ctx.Err() == nil {
			conn, at, gone := f.connect(ctx, list)
			failed = append(failed, gone...)
			list = slices.DeleteFunc(list, func(a netip.AddrPort) bool { return a == at || slices.Contains(gone, a) })
			if conn == nil {
				break
			}
			if err := f.take(ctx, conn, refs, got); err != nil {
				failed = append(failed, at)
				got.blame(log, conn, at, err)
			}
			_ = conn.NetConn().Close()
		}
	}
	return got, ctx.Err()
}

// has reports whether everything is here.
func (g *Fetched) has(refs []images.Ref) bool {
	return !slices.ContainsFunc(refs, func(r images.Ref) bool { return r.Length > 0 && g.Objects[r.Digest] == nil })
}

// blame says who failed us, and how.
func (g *Fetched) blame(log *slog.Logger, conn *tls.Conn, at netip.AddrPort, err error) {
	var liar *liarError
	if !errors.As(err, &liar) {
		log.Debug("layers not had from a peer", "peer", at.String(), "err", err)
		return
	}
	if isAppliance(conn.ConnectionState().PeerCertificates[0]) {
		log.Warn("the appliance "+liar.what+"; verify the image there", "peer", at.String())
		return
	}
	one := newLiar(conn, liar.what)
	g.Liars = append(g.Liars, one)
	log.Warn("a peer "+liar.what+"; it is barred", one.log()...)
}

func isAppliance(c *x509.Certificate) bool {
	return slices.ContainsFunc(c.URIs, func(u *url.URL) bool { return u.String() == swarm.URIRoleAppliance })
}

// dialled is the end of one attempt to connect.
type dialled struct {
	conn *tls.Conn // nil if it failed
	at   netip.AddrPort
}

// connect connects to the first of the addresses that answers: the next is dialled when one failed, or takes long (as RFC
// 8305 does). gone are those that failed.
func (f *Fetcher) connect(ctx context.Context, list []netip.AddrPort) (conn *tls.Conn, at netip.AddrPort, gone []netip.AddrPort) {
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	results, under := make(chan dialled), 0
	defer func() {
		cancel()
		for ; under > 0; under-- {
			if late := <-results; late.conn != nil {
				_ = late.conn.NetConn().Close()
			}
		}
	}()
	next := time.NewTimer(0)
	defer next.Stop()
	for len(list) > 0 || under > 0 {
		select {
		case <-next.C:
			if len(list) == 0 {
				continue
			}
			to := list[0]
			list, under = list[1:], under+1
			go func() { results <- dialled{f.dial(ctx, to), to} }()
			next.Reset(nextDial)
		case d := <-results:
			if under--; d.conn != nil {
				return d.conn, d.at, gone
			}
			gone = append(gone, d.at)
			next.Reset(0)
		}
	}
	return nil, at, gone
}

func (f *Fetcher) dial(ctx context.Context, a netip.AddrPort) *tls.Conn {
	dialer := f.Dialer
	if dialer == nil {
		dialer = &net.Dialer{}
	}
	raw, err := dialer.DialContext(ctx, "tcp", a.String())
	if err != nil {
		return nil
	}
	cfg := f.TLS.Clone()
	cfg.NextProtos = []string{Protocol}
	conn := tls.Client(raw, cfg)
	if conn.HandshakeContext(ctx) != nil || conn.ConnectionState().NegotiatedProtocol != Protocol {
		raw.Close()
		return nil
	}
	return conn
}

// take fetches what is missing over one connection.
func (f *Fetcher) take(ctx context.Context, conn *tls.Conn, refs []images.Ref, got *Fetched) error {
	stop := context.AfterFunc(ctx, func() { conn.NetConn().Close() })
	defer stop()
	count := &got.FromPeers
	if isAppliance(conn.ConnectionState().PeerCertificates[0]) {
		count = &got.FromAppliance
	}
	for _, r := range refs {
		if r.Length <= 0 || got.Objects[r.Digest] != nil {
			continue
		}
		b, err := f.object(ctx, conn, r, count)
		if err != nil {
			return err
		}
		if images.Sum(b) != r.Digest {
			return &liarError{"sent wrong bytes for layer " + r.Digest.Short()}
		}
		got.Objects[r.Digest] = b
	}
	return nil
}

// object fetches one object, with a few requests ahead of the answers.
func (f *Fetcher) object(ctx context.Context, conn *tls.Conn, r images.Ref, count *int64) ([]byte, error) {
	var b []byte // grows with what comes: a peer that sends nothing costs no memory
	asked := int64(0)
	for int64(len(b)) < r.Length {
		for asked < r.Length && asked < int64(len(b))+requestsAhead*MaxRange {
			q := request{r.Digest, asked, int(min(MaxRange, r.Length-asked))}
			if err := conn.SetWriteDeadline(time.Now().Add(silence)); err != nil {
				return nil, err
			}
			if _, err := conn.Write(q.encode()); err != nil {
				return nil, err
			}
			asked += int64(q.length)
		}
		n := int(min(MaxRange, r.Length-int64(len(b))))
		from := len(b)
		b = slices.Grow(b, n)[:from+n]
		if err := f.Limits.WaitDownload(ctx, n); err != nil {
			return nil, err
		}
		err := readAnswer(f.timed(conn, n, count), b[from:])
		if err != nil {
			return nil, fmt.Errorf("layer %s: %w", r.Digest.Short(), err)
		}
	}
	return b, nil
}

// timed is a connection on which each read has to bring something in time, and all of them an answer: one that trickles would
// hold a machine up for ever. It counts what comes.
type timed struct {
	conn    net.Conn
	silence time.Duration
	end     time.Time
	count   *int64
}

// timed returns the connection for one answer of n bytes.
func (f *Fetcher) timed(conn net.Conn, n int, count *int64) *timed {
	t := &timed{conn: conn, silence: cmp.Or(f.silence, silence), count: count}
	t.end = time.Now().Add(t.silence + time.Duration(n)*time.Second/leastRate)
	return t
}

func (t *timed) Read(b []byte) (int, error) {
	by := time.Now().Add(t.silence)
	if t.end.Before(by) {
		by = t.end
	}
	if err := t.conn.SetReadDeadline(by); err != nil {
		return 0, err
	}
	n, err := t.conn.Read(b)
	*t.count += int64(n)
	return n, err
}
