package storm

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// How a loader gets files over HTTP: the scripts try the download five times, 5 s apart; TCP gives up after silence.
const (
	httpTries   = 5
	httpPause   = 5 * time.Second
	httpConnect = 20 * time.Second
	httpSilence = 30 * time.Second
	portHTTP    = 80
)

// web is a loader's way to the server.
type web struct {
	m     *machine
	own   netip.Addr
	agent string
	// keep is one connection for all files, as iPXE has it; GRUB makes one for each.
	keep   bool
	socket *socket
}

func (w *web) close() {
	if w.socket != nil {
		w.socket.close()
		w.socket = nil
	}
}

// errStatus is an answer that is not 200.
type errStatus int

func (e errStatus) Error() string { return fmt.Sprintf("the server answers %d", int(e)) }

// get loads what is at the path. Where sum is not nil the body is hashed, otherwise its bytes are counted and nothing
// copies them; text returns them. It is tried again as loaders' scripts do.
func (w *web) get(ctx context.Context, from netip.Addr, path string, text io.Writer) (n int64, err error) {
	for try := range httpTries {
		if try > 0 {
			w.m.again.HTTP++
			select {
			case <-time.After(httpPause):
			case <-ctx.Done():
				return 0, ctx.Err()
			}
		}
		if b, ok := text.(interface{ Reset() }); ok {
			b.Reset()
		}
		if n, err = w.once(ctx, from, path, text); err == nil {
			w.m.bytes += n
			return n, nil
		}
		w.close()
	}
	return n, fmt.Errorf("http://%s%s: %w", from, path, err)
}

// once is one request.
func (w *web) once(ctx context.Context, from netip.Addr, path string, text io.Writer) (int64, error) {
	if w.socket == nil {
		s, err := w.m.room.open(unix.SOCK_STREAM, netip.AddrPortFrom(w.own, 0),
			func(fd int) error { return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1) })
		if err != nil {
			return 0, err
		}
		w.socket = s
		if err := s.connect(netip.AddrPortFrom(from, portHTTP), httpConnect); err != nil {
			return 0, fmt.Errorf("connect: %w", err)
		}
	}
	if !w.keep {
		defer w.close()
	}
	stop := context.AfterFunc(ctx, func() { w.socket.file.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	connection := ""
	if w.keep {
		connection = "Connection: keep-alive\r\n"
	}
	request := fmt.Sprintf("GET %s HTTP/1.1\r\n%sUser-Agent: %s\r\nHost: %s\r\n\r\n", path, connection, w.agent, from)
	if _, err := w.socket.file.Write([]byte(request)); err != nil {
		return 0, err
	}
	head := make([]byte, 0, 4096)
	for {
		b, err := w.receive(ctx, head[len(head):cap(head)], 0)
		if err != nil {
			return 0, fmt.Errorf("answer: %w", err)
		}
		head = head[:len(head)+b]
		if end := bytes.Index(head, []byte("\r\n\r\n")); end >= 0 {
			length, err := parseHead(string(head[:end]))
			if err != nil {
				return 0, err
			}
			return w.body(ctx, head[end+4:], length, text)
		}
		if len(head) == cap(head) {
			return 0, errors.New("the answer's header has no end within 4 KiB")
		}
	}
}

// parseHead returns the length of the body.
func parseHead(head string) (length int64, err error) {
	lines := strings.Split(head, "\r\n")
	fields := strings.Fields(lines[0])
	if len(fields) < 2 {
		return 0, fmt.Errorf("the answer begins with %q", lines[0])
	}
	if status, _ := strconv.Atoi(fields[1]); status != 200 {
		return 0, errStatus(status)
	}
	for _, l := range lines[1:] {
		if name, value, _ := strings.Cut(l, ":"); strings.EqualFold(name, "Content-Length") {
			return strconv.ParseInt(strings.TrimSpace(value), 10, 64)
		}
	}
	return 0, errors.New("the answer says no length")
}

// shared is what nobody reads: bodies that are only counted are not copied.
var shared [1 << 20]byte

// body takes the bytes of the body, of which first came with the header.
func (w *web) body(ctx context.Context, first []byte, length int64, text io.Writer) (n int64, err error) {
	n = int64(len(first))
	if text != nil {
		text.Write(first)
	}
	var buf []byte
	if text != nil {
		buf = make([]byte, min(length, 64<<10))
	}
	for n < length {
		var got int
		if text == nil {
			// The kernel throws the bytes away (tcp(7), MSG_TRUNC).
			got, err = w.receive(ctx, shared[:min(int64(len(shared)), length-n)], unix.MSG_TRUNC)
		} else {
			got, err = w.receive(ctx, buf[:min(int64(len(buf)), length-n)], 0)
			text.Write(buf[:got])
		}
		if err != nil {
			return n, fmt.Errorf("after %d of %d bytes: %w", n, length, err)
		}
		n += int64(got)
	}
	if n > length {
		return n, fmt.Errorf("%d bytes came where %d were announced", n, length)
	}
	return n, nil
}

// receive takes what came; the end of the connection is an error.
func (w *web) receive(ctx context.Context, b []byte, flags int) (int, error) {
	if ctx.Err() != nil {
		return 0, ctx.Err()
	}
	w.socket.until(time.Now().Add(httpSilence))
	n, _, err := w.socket.receive(b, flags)
	if err == nil && n == 0 {
		err = io.ErrUnexpectedEOF
	}
	return max(n, 0), err
}

// file loads a file and checks it: wholly where hash is set, else its length.
func (w *web) file(ctx context.Context, from netip.Addr, path, name string, hash bool) error {
	var text io.Writer
	h := sha256.New()
	if hash {
		text = h
	}
	n, err := w.get(ctx, from, path, text)
	if err != nil {
		return err
	}
	if hash && [sha256.Size]byte(h.Sum(nil)) != w.m.files.sums[name] || n != w.m.files.sizes[name] {
		return fmt.Errorf("http://%s%s: %d bytes that are not those of %s, which has %d", from, path, n, name, w.m.files.sizes[name])
	}
	return nil
}
