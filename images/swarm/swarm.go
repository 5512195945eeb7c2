package swarm

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"seedbed/images/announce"
	"seedbed/images/peerwire"
)

// Swarm is one peer in one swarm: it fetches what its storage lacks and gives others what it holds. One goroutine owns
// all state; links and workers tell it events. The exported methods are safe for concurrent use.
type Swarm struct {
	cfg    Config
	memory *memory
	count  counters
	links  atomic.Int64 // IDs given to links
	net    *network
	guests *guests
	plain  plainPeers

	near    bool // few tiles at a time are read from the storage, see Near
	perRead int  // tiles that are read from the storage at once

	events   chan any
	arrivals chan arrived
	jobs     chan *assembly
	done     chan struct{} // closed when everything is held and durable
	closed   chan struct{} // closed when Run takes no more events
	bits     atomic.Pointer[[]byte]

	mu      sync.Mutex // guards what follows but wake
	pending []netip.AddrPort
	answers map[string]announce.Response // of trackers with a topology, see Answered
	// neighbours were given last, and are new if that was not taken yet.
	neighbours    *Neighbours
	newNeighbours bool
	liars         []Liar        // see Liars
	found         []int         // pieces that were looked at
	wake          chan struct{} // holds one token after AddPeers or Found
}

// arrived is a connection that a listener gives the swarm.
type arrived struct {
	conn  session
	end   *endpoint
	leave func() // to be called once it is closed
}

// Events that links and workers tell the swarm, besides verdict.
type (
	linkUp   struct{ l *link }
	linkDown struct {
		l   *link
		err error
	}
	dialFailed struct {
		end     *endpoint
		address netip.AddrPort // zero when the peer dialled us
		err     error
	}
	received struct {
		l       *link
		message peerwire.Message
		tile    peerwire.TileMessage // decoded; nil for other messages
		memory  *[]byte              // of messages, where the message lies; nil: in memory of its own
	}
	unreadable struct {
		l     *link
		piece int
	}
	synced struct{ err error }
)

// New checks the configuration and listens where it says so. It starts nothing; Run or Close gives the listener back.
// On Linux the timers of the process are up to a millisecond late from then on, where it may ask for that.
func New(cfg Config) (*Swarm, error) {
	slacken()
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	opened, err := openNetwork(cfg)
	if err != nil {
		return nil, err
	}
	storage, ok := cfg.Storage.(Near)
	near, perRead := ok && storage.Near(), tilesPerRead
	if near {
		perRead = tilesPerNear
	}
	return &Swarm{
		cfg: cfg, near: near, perRead: perRead, memory: newMemory(cfg.MemoryBytes), net: opened, guests: newGuests(len(opened.ends), cfg.Open != nil),
		events: make(chan any, maxEvents), arrivals: make(chan arrived), jobs: make(chan *assembly), done: make(chan struct{}), closed: make(chan struct{}),
		wake: make(chan struct{}, 1), answers: map[string]announce.Response{},
	}, nil
}

// Close gives back the listeners of a swarm that is never run.
func (s *Swarm) Close() error { return s.net.close() }

// Addr is the address that the swarm is reached at, as its first listener knows it; zero when it only dials.
func (s *Swarm) Addr() netip.AddrPort { return s.Endpoints()[0].Addr }

// PeerID is the name under which this peer announces itself, on the first of its Endpoints.
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

// AddPeers makes addresses known, our own among them or not; see SetNeighbours. It never blocks.
func (s *Swarm) AddPeers(addresses []netip.AddrPort) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pending = append(s.pending, addresses...)
	if n := len(s.pending); n > maxAddresses {
		s.pending = s.pending[n-maxAddresses:]
	}
	s.notify()
}

// notify makes the swarm's goroutine look at what it was given.
func (s *Swarm) notify() {
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

// maxEvents is how many events may wait: who reads a link goes on reading while the swarm's goroutine waits for a
// processor.
const maxEvents = 64

// tell gives an event to the swarm's goroutine; false says that it takes no more. An event that it took may be forgotten
// when the swarm ends.
func (s *Swarm) tell(event any) bool {
	select {
	case s.events <- event:
		return true
	case <-s.closed:
		return false
	}
}

// accept takes a connection that is for this swarm, or closes it.
func (s *Swarm) accept(ctx context.Context, e *endpoint, conn session) {
	leave, err := s.guests.enter(identityOf(conn))
	if err != nil {
		s.cfg.Log.Debug("swarm connection refused", "peer", conn.RemoteAddr().String(), "err", err)
		conn.NetConn().Close()
		return
	}
	select {
	case s.arrivals <- arrived{conn, e, leave}:
		return
	case <-s.closed:
	case <-ctx.Done():
	}
	conn.NetConn().Close()
	leave()
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
	for _, e := range s.net.ends {
		if e.mux == nil {
			continue
		}
		remove, err := e.mux.add(s, e)
		if err != nil {
			return err
		}
		defer remove()
	}
	listener := make(chan error, len(s.net.ends))
	for _, e := range s.net.ends {
		if e.ownMux {
			group.Go(func() { listener <- e.mux.Run(ctx) })
		}
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
		case a := <-st.arrivals:
			st.now = time.Now()
			st.take(a)
		case jobs <- next:
			st.ready = st.ready[1:]
		case <-st.wake:
			st.now = time.Now()
			if n, ok := st.takeNeighbours(); ok {
				st.settle(n)
			}
			for _, a := range st.takePending() {
				for _, b := range st.books {
					b.add(a, false)
				}
			}
			st.look()
			st.connect()
		case <-tick.C:
			st.now = time.Now()
			st.tick()
		case err := <-listener:
			if ctx.Err() == nil && err != nil {
				return fmt.Errorf("swarm: %w", err)
			}
		case <-ctx.Done():
			return nil
		}
	}
	return st.err
}
