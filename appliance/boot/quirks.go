package boot

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// grubConnections gives GRUB one connection per request and ends it without a trace.
//
// Deviation: GRUB 2.12 opens every connection from port 21550 with an initial sequence number near zero
// (grub-core/net/tcp.c). Whatever is left of an earlier connection of that machine (established, FIN-WAIT, TIME-WAIT)
// answers the SYN with a challenge ACK (RFC 5961 §4), GRUB retries for some 20 s and drops to its prompt. Hence: no
// keep-alive, wait until GRUB has acknowledged every byte, then reset.
func (s *Server) grubConnections(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		hijacker, ok := w.(http.Hijacker)
		if !ok || !strings.HasPrefix(r.UserAgent(), "GRUB") {
			next.ServeHTTP(w, r)
			return
		}
		conn, _, err := hijacker.Hijack()
		if err != nil {
			s.cfg.Log.Warn("connection of GRUB not taken over", "client", r.RemoteAddr, "err", err)
			return
		}
		defer s.conns.forget(conn)
		defer reset(conn)
		conn.SetDeadline(time.Time{}) // the server's header timeout is over
		g := &grubWriter{conn: conn, out: bufio.NewWriterSize(conn, 64<<10), head: r.Method == http.MethodHead, header: make(http.Header)}
		next.ServeHTTP(g, r)
		g.WriteHeader(http.StatusOK)
		if err := g.out.Flush(); err != nil {
			s.cfg.Log.Debug("GRUB went away", "client", r.RemoteAddr, "err", err)
			return
		}
		drain(conn)
	})
}

// grubWriter is the http.ResponseWriter on a connection that was taken over. Owned by one request.
type grubWriter struct {
	conn   net.Conn
	out    *bufio.Writer
	head   bool
	header http.Header
	wrote  bool
}

func (g *grubWriter) Header() http.Header { return g.header }

func (g *grubWriter) WriteHeader(status int) {
	if g.wrote {
		return
	}
	g.wrote = true
	g.header.Set("Connection", "close")
	fmt.Fprintf(g.out, "HTTP/1.1 %d %s\r\n", status, http.StatusText(status))
	g.header.Write(g.out)
	io.WriteString(g.out, "\r\n")
}

func (g *grubWriter) Write(b []byte) (int, error) {
	g.WriteHeader(http.StatusOK)
	if g.head {
		return len(b), nil
	}
	return g.out.Write(b)
}

// ReadFrom implements io.ReaderFrom: a file goes to the connection without a way through the program (sendfile(2)).
func (g *grubWriter) ReadFrom(r io.Reader) (int64, error) {
	g.WriteHeader(http.StatusOK)
	if g.head {
		return io.Copy(io.Discard, r)
	}
	if err := g.out.Flush(); err != nil {
		return 0, err
	}
	return io.Copy(g.conn, r)
}

// drainTimeout bounds the wait for a client that stopped acknowledging; drainPoll is how often the kernel is asked,
// since it does not tell when a send queue is empty.
const (
	drainTimeout = silentTimeout
	drainPoll    = 2 * time.Millisecond
)

// drain waits until the client has acknowledged every byte sent.
func drain(conn net.Conn) {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return
	}
	ticker := time.NewTicker(drainPoll)
	defer ticker.Stop()
	for end := time.Now().Add(drainTimeout); time.Now().Before(end); <-ticker.C {
		queued := 0
		err := raw.Control(func(fd uintptr) {
			if queued, err = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ); err != nil {
				queued = 0
			}
		})
		if err != nil || queued == 0 {
			return
		}
	}
}
