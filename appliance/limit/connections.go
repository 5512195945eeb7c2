package limit

import (
	"net"
	"net/http"
	"net/netip"
	"sync"
)

// Connections bounds the connections to a server, of one address and in all, so that who opens thousands and says nothing keeps
// nobody else out: where there are too many, the address that has most of them loses its oldest that no request is served on.
// Make it with NewConnections; its Note is the ConnState of an http.Server. Safe for concurrent use.
type Connections struct {
	each, all int

	mu     sync.Mutex // guards what follows
	number int64      // of the last one
	count  int
	from   map[netip.Addr]map[net.Conn]*guest
	closed int64
}

// guest is one connection; number tells which came first.
type guest struct {
	number int64
	busy   bool // a request is being served
}

// NewConnections returns bounds for each address, of IPv6 each network, and for all together.
func NewConnections(each, all int) *Connections {
	return &Connections{each: each, all: all, from: map[netip.Addr]map[net.Conn]*guest{}}
}

// Note follows a connection through its life, and closes one for another where there are too many.
func (c *Connections) Note(conn net.Conn, state http.ConnState) {
	if victim := c.note(conn, state); victim != nil {
		victim.Close()
	}
}

func (c *Connections) note(conn net.Conn, state http.ConnState) (victim net.Conn) {
	a := addressOf(conn)
	c.mu.Lock()
	defer c.mu.Unlock()
	switch state {
	case http.StateNew:
		c.number++
		if c.from[a] == nil {
			c.from[a] = map[net.Conn]*guest{}
		}
		c.from[a][conn] = &guest{number: c.number}
		c.count++
		switch {
		case len(c.from[a]) > c.each:
			return c.evict(a, conn)
		case c.count > c.all:
			return c.evict(c.crowd(), conn)
		}
	case http.StateActive, http.StateIdle:
		if g := c.from[a][conn]; g != nil {
			g.busy = state == http.StateActive
		}
	case http.StateClosed, http.StateHijacked:
		c.forget(a, conn)
	}
	return nil
}

// crowd returns the address that has most connections. The caller holds mu.
func (c *Connections) crowd() (a netip.Addr) {
	most := 0
	for b, list := range c.from {
		if len(list) > most {
			a, most = b, len(list)
		}
	}
	return a
}

// evict takes out the oldest connection of an address that serves nothing, or the newcomer. The caller holds mu.
func (c *Connections) evict(a netip.Addr, newcomer net.Conn) (victim net.Conn) {
	oldest := c.number + 1
	for conn, g := range c.from[a] {
		if !g.busy && g.number < oldest {
			victim, oldest = conn, g.number
		}
	}
	if victim == nil {
		victim, a = newcomer, addressOf(newcomer)
	}
	c.forget(a, victim)
	c.closed++
	return victim
}

// forget takes a connection out. The caller holds mu.
func (c *Connections) forget(a netip.Addr, conn net.Conn) {
	if c.from[a][conn] == nil {
		return
	}
	c.count--
	if delete(c.from[a], conn); len(c.from[a]) == 0 {
		delete(c.from, a)
	}
}

// Refusals returns how many connections were closed for others.
func (c *Connections) Refusals() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed
}

func addressOf(conn net.Conn) netip.Addr {
	tcp, ok := conn.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	return bucketOf(tcp.AddrPort().Addr())
}
