package swarm

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"seedbed/images/peerwire"
)

// Swarm is one peer in one swarm: it fetches what its storage lacks and gives others what it holds. One goroutine owns
// all state; links and workers tell it events. The exported methods are safe for concurrent use.
type Swarm struct {
	cfg    Config
	memory *memory
	count  counters
	links  atomic.Int64 // IDs given to links
	mux    *Mux
	ownMux bool

	events chan any
	jobs   chan *assembly
	done   chan struct{} // closed when everything is held and durable
	closed chan struct{} // closed when Run takes no more events
	bits   atomic.Pointer[[]byte]

	mu      sync.Mutex // guards pending and found
	pending []netip.AddrPort
	found   []int         // pieces that were looked at
	wake    chan struct{} // holds one token after AddPeers or Found
}

// Events that links, workers and listeners tell the swarm, besides verdict.
type (
	arrived  struct{ conn *tls.Conn }
	linkUp   struct{ l *link }
	linkDown struct {
		l   *link
		err error
	}
	dialFailed struct {
		address netip.AddrPort // zero when the peer dialled us
		err     error
	}
	received struct {
		l       *link
		message peerwire.Message
		tile    peerwire.TileMessage // decoded; nil for other messages
	}
	unreadable struct {
		l     *link
		piece int
	}
	synced struct{ err error }
)

// New checks the configuration and listens where it says so. It starts nothing; Run or Close gives the listener back.
func New(cfg Config) (*Swarm, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	s := &Swarm{
		cfg: cfg, memory: newMemory(cfg.MemoryBytes), mux: cfg.Mux,
		events: make(chan any), jobs: make(chan *assembly), done: make(chan struct{}), closed: make(chan struct{}),
		wake: make(chan struct{}, 1),
	}
	if s.mux == nil && (cfg.Listener != nil || cfg.ListenAddr != "") {
		l := cfg.Listener
		if l == nil {
			if l, err = net.Listen("tcp", cfg.ListenAddr); err != nil {
				return nil, fmt.Errorf("swarm: %w", err)
			}
		}
		s.mux, s.ownMux = NewMux(l, cfg.Log), true
	}
	return s, nil
}

// Close gives back the listener of a swarm that is never run.
func (s *Swarm) Close() error {
	if s.ownMux {
		return s.mux.Close()
	}
	return nil
}

// Addr is the address that the swarm is reached at, as its listener knows it; zero when it only dials.
func (s *Swarm) Addr() netip.AddrPort {
	if s.mux == nil {
		return netip.AddrPort{}
	}
	return s.mux.Addr()
}

// PeerID is the name under which this peer announces itself.
func (s *Swarm) PeerID() [20]byte { return s.cfg.PeerID }

// Done is closed when every data tile is held and durable. The swarm goes on serving until Run's context ends.
func (s *Swarm) Done() <-chan struct{} { return s.done }

// Bitfield returns the pieces held as BEP 3 writes them: bit 7 of byte 0 is piece 0. It is up to a second old, and nil
// before Run. The caller must not change it.
func (s *Swarm) Bitfield() []byte {
	if b := s.bits.Load(); b != nil {
		return *b
	}
	return nil
}

// AddPeers makes addresses known, our own among them or not. It never blocks.
func (s *Swarm) AddPeers(addresses []netip.AddrPort) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pending = append(s.pending, addresses...)
	if n := len(s.pending); n > maxAddresses {
		s.pending = s.pending[n-maxAddresses:]
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *Swarm) takePending() []netip.AddrPort {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := s.pending
	s.pending = nil
	return list
}

// tell gives an event to the swarm's goroutine; false says that it takes no more.
func (s *Swarm) tell(event any) bool {
	select {
	case s.events <- event:
		return true
	case <-s.closed:
		return false
	}
}

// accept takes a connection whose TLS handshake is done, or closes it.
func (s *Swarm) accept(ctx context.Context, conn *tls.Conn) {
	select {
	case s.events <- arrived{conn}:
	case <-s.closed:
		conn.Close()
	case <-ctx.Done():
		conn.Close()
	}
}

// Run takes part in the swarm until ctx ends, which is no error, or the storage fails, and waits for everything that it
// started. It may be called once.
func (s *Swarm) Run(ctx context.Context) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	var group sync.WaitGroup
	defer group.Wait()
	defer cancel()
	defer close(s.closed)
	st := newState(s, ctx, &group)
	if s.mux != nil {
		remove, err := s.mux.add(s)
		if err != nil {
			return err
		}
		defer remove()
	}
	listener := make(chan error, 1)
	if s.ownMux {
		group.Go(func() { listener <- s.mux.Run(ctx) })
	}
	for range s.cfg.Workers {
		group.Go(func() { s.work(ctx) })
	}
	return st.loop(ctx, listener)
}

// loop handles one event at a time. It does no I/O.
func (st *state) loop(ctx context.Context, listener <-chan error) error {
	tick := time.NewTicker(st.cfg.timing.tick)
	defer tick.Stop()
	st.now = time.Now()
	st.tick()
	for st.err == nil {
		var jobs chan<- *assembly
		var next *assembly
		if len(st.ready) > 0 {
			jobs, next = st.jobs, st.ready[0]
		}
		select {
		case e := <-st.events:
			st.now = time.Now()
			st.handle(e)
		case jobs <- next:
			st.ready = st.ready[1:]
		case <-st.wake:
			for _, a := range st.takePending() {
				st.book.add(a, false)
			}
			st.now = time.Now()
			st.look()
			st.connect()
		case <-tick.C:
			st.now = time.Now()
			st.tick()
		case err := <-listener:
			if ctx.Err() == nil && err != nil {
				return fmt.Errorf("swarm: %w", err)
			}
			listener = nil
		case <-ctx.Done():
			return nil
		}
	}
	return st.err
}
