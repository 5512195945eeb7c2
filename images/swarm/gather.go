package swarm

import (
	"net"
	"sync"
)

// gather is a connection below TLS, which writes every record of 16 KiB by itself. What is written behind hold goes out at
// once with flush. Safe for concurrent use, as far as the connection is.
type gather struct {
	net.Conn

	mu      sync.Mutex // guards the rest
	holding bool
	held    *[]byte // of gathered
}

// gathered are buffers for one step of a write in its records: a link has one only while it writes.
var gathered = sync.Pool{New: func() any { b := make([]byte, 0, writeStep+writeStep/8); return &b }}

// NetConn returns the connection below.
func (g *gather) NetConn() net.Conn { return g.Conn }

func (g *gather) Write(b []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.holding {
		return g.Conn.Write(b)
	}
	if g.held == nil {
		g.held = gathered.Get().(*[]byte)
	}
	*g.held = append(*g.held, b...)
	return len(b), nil
}

// hold keeps what is written until flush.
func (g *gather) hold() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.holding = true
}

// flush writes what was kept.
func (g *gather) flush() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.holding = false
	if g.held == nil {
		return nil
	}
	_, err := g.Conn.Write(*g.held)
	*g.held = (*g.held)[:0]
	gathered.Put(g.held)
	g.held = nil
	return err
}
