package limit

import (
	"net"
	"net/http"
	"net/netip"
	"testing"
)

// line is a connection from an address.
type line struct {
	net.Conn
	from   string
	closed bool
}

func (l *line) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(l.from)) }
func (l *line) Close() error         { l.closed = true; return nil }

func TestTheCrowdMakesRoom(t *testing.T) {
	c := NewConnections(3, 5)
	come := func(from string) *line {
		l := &line{from: from}
		c.Note(l, http.StateNew)
		return l
	}
	var crowd []*line
	for range 3 {
		crowd = append(crowd, come("10.0.0.1:1"))
	}
	c.Note(crowd[0], http.StateActive)
	if crowd = append(crowd, come("[::ffff:10.0.0.1]:2")); !crowd[1].closed || crowd[0].closed || crowd[3].closed {
		t.Errorf("a fourth one of an address: %+v", crowd)
	}
	others := []*line{come("10.0.0.2:1"), come("10.0.0.3:1")}
	if last := come("10.0.0.4:1"); last.closed || others[0].closed || others[1].closed || !crowd[2].closed {
		t.Errorf("one too many: the crowd keeps what it has: %+v", crowd)
	}
	if n := c.Refusals(); n != 2 {
		t.Errorf("%d were closed, want 2", n)
	}
	c.Note(crowd[0], http.StateIdle)
	c.Note(crowd[0], http.StateClosed)
	c.Note(crowd[0], http.StateClosed)
	if c.count != 4 || len(c.from) != 4 {
		t.Errorf("%d connections of %d addresses are known, want 4 of 4", c.count, len(c.from))
	}
}

func TestWhereAllAreAtWorkTheNewcomerGoes(t *testing.T) {
	c := NewConnections(2, 10)
	var list []*line
	for range 3 {
		l := &line{from: "[2001:db8::1]:1"}
		list = append(list, l)
		c.Note(l, http.StateNew)
		c.Note(l, http.StateActive)
	}
	if list[0].closed || list[1].closed || !list[2].closed {
		t.Errorf("%+v", list)
	}
}
