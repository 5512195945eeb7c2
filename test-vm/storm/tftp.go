package storm

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// reader is how a program reads files by TFTP.
type reader struct {
	// sizeFirst asks for the length and breaks that transfer off, before the download.
	sizeFirst bool
	// blksize and windowsize are asked for (RFC 2348, RFC 7440); windowsize 0 is not.
	blksize, windowsize int
	// wait is how long it waits for a packet, tries how often it repeats its own.
	wait  time.Duration
	tries int
}

var (
	// EDK2: PxeBcBoot.c, PxeBcImpl.h (PXEBC_MTFTP_TIMEOUT, PXEBC_MTFTP_RETRIES), PcdPxeTftpWindowSize.
	uefiReader = reader{sizeFirst: true, blksize: 1468, windowsize: 4, wait: 4 * time.Second, tries: 6}
	// Option ROMs of cards; the block is what Intel's asks for.
	biosReader = reader{sizeFirst: true, blksize: 1456, wait: 4 * time.Second, tries: 6}
	// GRUB 2: grub-core/net/tftp.c.
	grubReader = reader{blksize: 1024, wait: time.Second, tries: 8}
)

// Packets (RFC 1350 §5, RFC 2347).
const (
	opRead, opData, opAck, opError, opOptions = 1, 3, 4, 5, 6
	portTFTP                                  = 69
)

// load reads a file.
func (m *machine) load(ctx context.Context, r reader, from, own netip.Addr, name string) ([]byte, error) {
	began := time.Now()
	defer func() { m.took[phaseTFTP] += time.Since(began) }()
	if r.sizeFirst {
		if _, err := m.transfer(ctx, r, from, own, name, true); err != nil {
			return nil, fmt.Errorf("length of %s by TFTP: %w", name, err)
		}
	}
	b, err := m.transfer(ctx, r, from, own, name, false)
	if err != nil {
		return nil, fmt.Errorf("%s by TFTP, %d bytes so far: %w", name, len(b), err)
	}
	m.bytes += int64(len(b))
	return b, nil
}

// transfer is one in work.
type transfer struct {
	reader
	m      *machine
	socket *socket
	to     netip.AddrPort // its port is the server's for this transfer once it has answered
	last   []byte         // packet that was sent last
	block  uint16         // that came last, in order
	got    []byte
	within int  // blocks since the last acknowledgement
	behind bool // a block was missing; its acknowledgement was sent
}

func (m *machine) transfer(ctx context.Context, r reader, from, own netip.Addr, name string, onlySize bool) ([]byte, error) {
	s, err := m.room.open(unix.SOCK_DGRAM, netip.AddrPortFrom(own, 0))
	if err != nil {
		return nil, err
	}
	defer s.close()
	t := &transfer{reader: r, m: m, socket: s, to: netip.AddrPortFrom(from, portTFTP)}
	t.last = t.question(name, onlySize)
	if err := s.send(t.last, t.to); err != nil {
		return nil, err
	}
	t.blksize, t.windowsize = 512, 1 // until the server grants what was asked for
	buf := make([]byte, 2048)
	for tried := 0; ; {
		s.until(time.Now().Add(t.wait))
		n, peer, err := s.receive(buf, 0)
		if ctx.Err() != nil {
			return t.got, ctx.Err()
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			if tried++; tried > t.tries {
				return t.got, fmt.Errorf("no answer to %d packets", tried)
			}
			m.again.TFTP++
			if t.to.Port() != portTFTP {
				t.acknowledge()
			}
			err = s.send(t.last, t.to)
		}
		if err != nil {
			return t.got, err
		}
		if n < 4 || peer.Addr() != from || t.to.Port() != portTFTP && peer != t.to {
			continue
		}
		tried, t.to = 0, peer
		done, err := t.take(buf[:n], onlySize)
		if done || err != nil {
			return t.got, err
		}
	}
}

// question is the read request.
func (t *transfer) question(name string, onlySize bool) []byte {
	b := []byte{0, opRead}
	words := []string{name, "octet", "tsize", "0", "blksize", strconv.Itoa(t.blksize)}
	if t.windowsize > 0 && !onlySize {
		words = append(words, "windowsize", strconv.Itoa(t.windowsize))
	}
	for _, w := range words {
		b = append(append(b, w...), 0)
	}
	return b
}

func (t *transfer) acknowledge() {
	t.last = binary.BigEndian.AppendUint16([]byte{0, opAck}, t.block)
	t.within = 0
}

// take takes a packet of the server.
func (t *transfer) take(p []byte, onlySize bool) (done bool, err error) {
	switch binary.BigEndian.Uint16(p) {
	case opError:
		return true, fmt.Errorf("refused: %q", bytes.TrimRight(p[4:], "\x00"))
	case opOptions:
		if t.block > 0 {
			return false, nil
		}
		if onlySize {
			return true, t.socket.send([]byte{0, opError, 0, 8, 0}, t.to)
		}
		if err := t.granted(p[2:]); err != nil {
			return true, err
		}
		t.acknowledge()
		return false, t.socket.send(t.last, t.to)
	case opData:
		return t.data(binary.BigEndian.Uint16(p[2:]), p[4:])
	}
	return false, nil
}

// data takes a block. One that leaves a gap is answered once with what came in order (RFC 7440 §4), and so is the one that came
// last and comes again: its acknowledgement was lost (RFC 1350 §2).
func (t *transfer) data(number uint16, b []byte) (done bool, err error) {
	if number != t.block+1 {
		gap := int16(number-t.block) > 0
		if gap && t.behind || !gap && number != t.block {
			return false, nil
		}
		t.behind = t.behind || gap
		t.m.again.TFTP++
		t.acknowledge()
		return false, t.socket.send(t.last, t.to)
	}
	t.block, t.behind = number, false
	t.got = append(t.got, b...)
	done = len(b) < t.blksize
	if t.within++; done || t.within >= t.windowsize {
		t.acknowledge()
		return done, t.socket.send(t.last, t.to)
	}
	return false, nil
}

// granted takes over the options of the server.
func (t *transfer) granted(b []byte) error {
	words := bytes.Split(bytes.TrimSuffix(b, []byte{0}), []byte{0})
	for i := 0; i+1 < len(words); i += 2 {
		n, err := strconv.Atoi(string(words[i+1]))
		if err != nil || n < 0 {
			return fmt.Errorf("option %s is %q", words[i], words[i+1])
		}
		switch string(bytes.ToLower(words[i])) {
		case "blksize":
			t.blksize = n
		case "windowsize":
			t.windowsize = n
		case "tsize":
			t.got = make([]byte, 0, n)
		}
	}
	return nil
}
