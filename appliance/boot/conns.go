package boot

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"seedbed/appliance/limit"
)

const (
	// headerTimeout is how long a client may take to say what it wants; loaders under emulation are slow.
	headerTimeout = 20 * time.Second
	// idleTimeout is how long a connection is kept for a next request.
	idleTimeout = 20 * time.Second
	// maxHeader bounds a request's header, in bytes: a loader's is some hundred.
	maxHeader = 16 << 10
	// connectionsOfOne bounds those of one address, where a room may be behind a relay, connectionsOfAll those of all.
	connectionsOfOne, connectionsOfAll = 1024, 8192
	// silentTimeout is how long sent bytes may stay unacknowledged before the kernel gives a connection up
	// (RFC 5482): a machine that was switched off in mid-download says nothing.
	silentTimeout = 30 * time.Second
	// stopTimeout is how long Run waits for downloads in work when it is told to stop.
	stopTimeout = 2 * time.Second
)

// Run serves Handler on the listener until ctx ends, which is no error. It closes the listener and all connections.
func (s *Server) Run(ctx context.Context, l net.Listener) error {
	crowd := limit.NewConnections(connectionsOfOne, connectionsOfAll)
	server := &http.Server{
		Handler:           withoutBody(s.Handler()),
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ConnState: func(conn net.Conn, state http.ConnState) {
			s.conns.note(conn, state)
			crowd.Note(conn, state)
		},
		ConnContext: func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connKey{}, c) },
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve boot files: %w", err)
		}
		return nil
	})
	g.Go(func() error {
		<-ctx.Done()
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer cancel()
		err := server.Shutdown(stop)
		s.conns.dropAll()
		if errors.Is(err, context.DeadlineExceeded) {
			return server.Close()
		}
		return err
	})
	return g.Wait()
}

// withoutBody refuses requests that have a body: nobody reads it, and one that never comes would keep its connection.
func withoutBody(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength == 0 {
			next.ServeHTTP(w, r)
			return
		}
		http.NewResponseController(w).SetReadDeadline(time.Now()) // the server looks no further
		w.Header().Set("Connection", "close")
		http.Error(w, "a request for a boot file has no body", http.StatusRequestEntityTooLarge)
	})
}

// connKey finds a request's connection in its context.
type connKey struct{}

// connections are the open ones by machine, so that those of a machine that started anew can be ended: their other end
// knows nothing of them any more. Safe for concurrent use.
type connections struct {
	mu     sync.Mutex // guards byAddr
	byAddr map[netip.Addr]map[net.Conn]bool
}

func newConnections() *connections {
	return &connections{byAddr: make(map[netip.Addr]map[net.Conn]bool)}
}

// note follows connections through their life; it is the http.Server's ConnState. A hijacked one stays until forget.
func (c *connections) note(conn net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		if tcp, ok := conn.(*net.TCPConn); ok {
			setUserTimeout(tcp, silentTimeout)
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		addr := peer(conn)
		if c.byAddr[addr] == nil {
			c.byAddr[addr] = make(map[net.Conn]bool)
		}
		c.byAddr[addr][conn] = true
	case http.StateClosed:
		c.forget(conn)
	}
}

func (c *connections) forget(conn net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	addr := peer(conn)
	delete(c.byAddr[addr], conn)
	if len(c.byAddr[addr]) == 0 {
		delete(c.byAddr, addr)
	}
}

// drop ends all connections of a machine without a farewell.
func (c *connections) drop(addr netip.Addr) {
	c.mu.Lock()
	conns := c.byAddr[addr]
	delete(c.byAddr, addr)
	c.mu.Unlock()
	for conn := range conns {
		reset(conn)
	}
}

// dropAll ends all connections.
func (c *connections) dropAll() {
	c.mu.Lock()
	var addrs []netip.Addr
	for addr := range c.byAddr {
		addrs = append(addrs, addr)
	}
	c.mu.Unlock()
	for _, addr := range addrs {
		c.drop(addr)
	}
}

func peer(conn net.Conn) netip.Addr {
	if a, ok := conn.RemoteAddr().(*net.TCPAddr); ok {
		return a.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}

// reset closes a connection so that nothing of it stays in the kernel: no FIN-WAIT, no TIME-WAIT.
func reset(conn net.Conn) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		tcp.SetLinger(0)
	}
	conn.Close()
}

// setUserTimeout is best effort: without it the kernel's own retransmission limit (some 15 minutes) holds.
func setUserTimeout(conn *net.TCPConn, d time.Duration) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return
	}
	raw.Control(func(fd uintptr) {
		unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(d.Milliseconds()))
	})
}
