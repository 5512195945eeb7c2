package swarm

import (
	"context"
	"errors"
	"net"
	"time"
)

// progressConn notes when bytes come and go, bounds how long a write may make no progress, and holds reads back where
// what comes in is limited.
type progressConn struct {
	net.Conn
	raw     net.Conn // below TLS
	l       *link
	ctx     context.Context // of the link
	timeout time.Duration
}

// writeStep is what has to pass within the time-out of a write.
const writeStep = 64 << 10

func (c progressConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 {
		c.alive()
		c.l.end.received.Add(int64(n))
		// What is not read stays in the kernel, and TCP tells the sender. That the link is silent meanwhile is our doing.
		held := c.l.down.take(c.ctx, n, c.alive)
		if upward := c.l.upward.Load(); upward != nil && held == nil {
			held = upward.take(c.ctx, n, c.alive)
		}
		if held != nil && err == nil {
			err = held
		}
	}
	if err != nil {
		c.l.readErr = err
	}
	return n, err
}

func (c progressConn) alive() { c.l.received.Store(clock(time.Now())) }

func (c progressConn) Write(b []byte) (int, error) { return c.writeParts([][]byte{b}) }

// writeParts writes pieces of memory one behind the other.
func (c progressConn) writeParts(parts [][]byte) (written int, err error) {
	for len(parts) > 0 && err == nil {
		step, rest := cut(parts, writeStep)
		c.Conn.SetWriteDeadline(time.Now().Add(c.timeout))
		n := 0
		n, err = c.step(step)
		c.l.sent.Store(clock(time.Now()))
		c.l.end.sent.Add(int64(n))
		written, parts = written+n, rest
	}
	return written, err
}

// cut parts pieces of memory behind n bytes; a short rest of a piece stays with what is before it.
func cut(parts [][]byte, n int) (head, rest [][]byte) {
	left := n
	for i, p := range parts {
		if left <= 0 {
			return parts[:i:i], parts[i:]
		}
		if len(p) > left+n/16 {
			head = append(parts[:i:i], p[:left])
			return head, append([][]byte{p[left:]}, parts[i+1:]...)
		}
		left -= len(p)
	}
	return parts, nil
}

// step writes parts in one step, over TLS with all their records.
func (c progressConn) step(parts [][]byte) (written int, err error) {
	below, ok := c.raw.(*gather)
	if !ok {
		if len(parts) == 1 {
			return c.Conn.Write(parts[0])
		}
		together := net.Buffers(parts)
		n, err := together.WriteTo(c.raw)
		return int(n), err
	}
	below.hold()
	for _, p := range parts {
		n := 0
		n, err = c.Conn.Write(p)
		if written += n; err != nil {
			break
		}
	}
	return written, errors.Join(err, below.flush())
}
