package relay

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"seedbed/images"
	"seedbed/images/swarm"
)

// Objects are what a Server gives out: only what the manifest of its swarm's image names. Safe for concurrent use.
type Objects interface {
	// Length returns the length of an object in bytes; false says that it is none of the image's, or not had here.
	Length(d images.Digest) (int64, bool)
	// Read returns the bytes [offset, offset+length) of an object, which lie within it. The caller does not change them.
	Read(ctx context.Context, d images.Digest, offset, length int64) ([]byte, error)
	// Total is the length of all objects in bytes.
	Total() int64
}

// Memory are objects in memory, by digest. Immutable.
type Memory map[images.Digest][]byte

// Length implements Objects.
func (m Memory) Length(d images.Digest) (int64, bool) { b, ok := m[d]; return int64(len(b)), ok }

// Read implements Objects.
func (m Memory) Read(_ context.Context, d images.Digest, offset, length int64) ([]byte, error) {
	return m[d][offset : offset+length], nil
}

// Total implements Objects.
func (m Memory) Total() (n int64) {
	for _, b := range m {
		n += int64(len(b))
	}
	return n
}

// ServerConfig of a Server. InfoHash, TLS and Objects are needed.
type ServerConfig struct {
	InfoHash images.InfoHash
	TLS      *tls.Config // the swarm's, see swarm.TLSConfig
	Objects  Objects
	// Limits are those of all that the peer sends, PeerUploadLimit that of each connection in bytes a second; nil and 0 are
	// none.
	Limits          *swarm.Limits
	PeerUploadLimit int64
	// MaxConnections bounds what is served at once; zero means 32.
	MaxConnections int
	// Log is told of those who flood us, and of a Mux of ServeAll on which nothing is given (Warn); nil discards.
	Log *slog.Logger
}

// Server answers other machines of a swarm. Safe for concurrent use; it starts nothing, and what a Mux gives it ends with the
// Mux.
type Server struct {
	cfg  ServerConfig
	sent atomic.Int64

	mu      sync.Mutex // guards the rest
	open    int        // connections
	callers map[[32]byte]*caller
	liars   []Liar
}

// caller is a certificate that connected.
type caller struct {
	open   int
	left   float64 // of its allowance, in bytes
	last   time.Time
	barred bool
}

// What a certificate may ask for: an allowance of every object three times and some, and every object once a minute. A
// request costs what it asks for and requestCost.
const (
	allowedTimes  = 3
	allowedBeside = 4 << 20
	allowedEach   = time.Minute
	requestCost   = 512
	callsAtOnce   = 4
	maxCallers    = 4096 // remembered
	defaultServed = 32
	idleTime      = 10 * time.Second // until the next request, and for a write of writeLength bytes
	writeLength   = 16 << 10
)

// NewServer checks the configuration and starts nothing.
func NewServer(c ServerConfig) (*Server, error) {
	if c.TLS == nil || c.Objects == nil {
		return nil, errors.New("relay: TLS and Objects are needed")
	}
	if c.MaxConnections <= 0 {
		c.MaxConnections = defaultServed
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &Server{cfg: c, callers: map[[32]byte]*caller{}}, nil
}

// Serve answers what reaches the listener until remove is called.
func (s *Server) Serve(m *swarm.Mux) (remove func(), err error) {
	return m.Handle(s.cfg.InfoHash, Protocol, s.cfg.TLS, s.serve)
}

// ServeAll is Serve for all of a peer's listeners. Of one on which nothing can be given the log is told: the others do.
func (s *Server) ServeAll(list []*swarm.Mux) (remove func()) {
	var removes []func()
	for _, m := range list {
		one, err := s.Serve(m)
		if err != nil {
			s.cfg.Log.Warn("the description of the image is not given to other machines", "err", err)
			continue
		}
		removes = append(removes, one)
	}
	return func() {
		for _, one := range removes {
			one()
		}
	}
}

// Sent counts the bytes of objects that were sent.
func (s *Server) Sent() int64 { return s.sent.Load() }

func (s *Server) serve(ctx context.Context, conn *tls.Conn) {
	defer conn.NetConn().Close()
	stop := context.AfterFunc(ctx, func() { conn.NetConn().Close() })
	defer stop()
	identity := sha256.Sum256(conn.ConnectionState().PeerCertificates[0].Raw)
	log := s.cfg.Log.With("peer", conn.RemoteAddr().String(), "certificate", fmt.Sprintf("%x", identity[:8]))
	leave, err := s.enter(identity)
	if err != nil {
		log.Debug("relay connection refused", "err", err)
		return
	}
	defer leave()
	err = s.answer(ctx, conn, identity)
	if liar := (*liarError)(nil); errors.As(err, &liar) {
		s.bar(newLiar(conn, liar.what))
		return
	}
	log.Debug("relay connection ended", "err", err)
	if errors.Is(err, io.EOF) {
		_ = conn.SetDeadline(time.Now().Add(time.Second))
		_ = conn.Close()
	}
}

var errBarred = errors.New("the peer is barred")

func (s *Server) enter(identity [32]byte) (leave func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.callers[identity]
	if c == nil {
		s.forget()
		c = &caller{left: s.allowance(), last: time.Now()}
	}
	switch {
	case c.barred:
		return nil, errBarred
	case c.open >= callsAtOnce, s.open >= s.cfg.MaxConnections:
		return nil, fmt.Errorf("%d connections of the peer, %d of all", c.open, s.open)
	}
	s.callers[identity] = c
	c.open++
	s.open++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		c.open--
		s.open--
	}, nil
}

func (s *Server) allowance() float64 {
	return float64(allowedTimes*s.cfg.Objects.Total() + allowedBeside)
}

// forget makes room for another certificate: those whose allowance is whole again are as if they had never come. The caller
// holds mu.
func (s *Server) forget() {
	if len(s.callers) < maxCallers {
		return
	}
	for identity, c := range s.callers {
		if c.open == 0 && !c.barred && time.Since(c.last) > (allowedTimes+1)*allowedEach {
			delete(s.callers, identity)
		}
	}
}

// maxLiars bounds the list; further peers are barred all the same.
const maxLiars = 64

func (s *Server) bar(l Liar) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.callers[l.Certificate]; c != nil && !c.barred {
		c.barred = true
		s.cfg.Log.Warn("a peer "+l.What+"; it gets no layers any more", l.log()...)
		if len(s.liars) < maxLiars {
			s.liars = append(s.liars, l)
		}
	}
}

// Liars returns the peers that are not answered any more, the first ones first.
func (s *Server) Liars() []Liar {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.liars)
}

// charge takes what a certificate asks for from its allowance.
func (s *Server) charge(identity [32]byte, cost int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, now := s.callers[identity], time.Now()
	limit := s.allowance()
	refill := now.Sub(c.last).Seconds() / allowedEach.Seconds() * float64(s.cfg.Objects.Total()+allowedBeside)
	c.left, c.last = min(limit, c.left+refill)-float64(cost), now
	switch {
	case c.barred: // over another connection
		return errBarred
	case c.left < 0:
		return &liarError{"floods us with requests for layers"}
	}
	return nil
}

// answer answers one request after the other; the next is read when the one before was sent.
func (s *Server) answer(ctx context.Context, conn *tls.Conn, identity [32]byte) error {
	own := swarm.NewLimits(s.cfg.PeerUploadLimit, 0)
	var raw [requestLength]byte
	for {
		if err := conn.SetReadDeadline(time.Now().Add(idleTime)); err != nil {
			return err
		}
		if _, err := io.ReadFull(conn, raw[:]); err != nil {
			return err
		}
		q, err := decodeRequest(raw[:])
		if err != nil {
			return &liarError{"sends what is no request: " + err.Error()}
		}
		if err := s.charge(identity, q.length+requestCost); err != nil {
			return err
		}
		length, ok := s.cfg.Objects.Length(q.digest)
		if ok && (q.offset > length || int64(q.length) > length-q.offset) {
			return &liarError{fmt.Sprintf("asks for bytes [%d, %d) of %d", q.offset, q.offset+int64(q.length), length)}
		}
		if !ok {
			if err := write(conn, appendAnswer(nil, statusAbsent, 0)); err != nil {
				return err
			}
			continue
		}
		b, err := s.cfg.Objects.Read(ctx, q.digest, q.offset, int64(q.length))
		if err == nil && len(b) != q.length {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return fmt.Errorf("read layer %s: %d bytes of %d: %w", q.digest.Short(), len(b), q.length, err)
		}
		if err := s.send(ctx, conn, own, b); err != nil {
			return err
		}
	}
}

// send sends the bytes as fast as the limits have it.
func (s *Server) send(ctx context.Context, conn net.Conn, own *swarm.Limits, b []byte) error {
	if err := write(conn, appendAnswer(nil, statusBytes, len(b))); err != nil {
		return err
	}
	for len(b) > 0 {
		n := min(len(b), writeLength)
		if err := errors.Join(own.WaitUpload(ctx, n), s.cfg.Limits.WaitUpload(ctx, n)); err != nil {
			return err
		}
		if err := write(conn, b[:n]); err != nil {
			return err
		}
		s.sent.Add(int64(n))
		b = b[n:]
	}
	return nil
}

func write(conn net.Conn, b []byte) error {
	if err := conn.SetWriteDeadline(time.Now().Add(idleTime)); err != nil {
		return err
	}
	_, err := conn.Write(b)
	return err
}
