package swarm

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"seedbed/images"
	"seedbed/images/peerwire"
	"seedbed/images/schedule"
)

// link is one connection to a peer. Two goroutines do its reading and writing; the first group of fields is immutable,
// the second is theirs, the last belongs to the swarm's goroutine.
type link struct {
	id        int
	end       *endpoint // of ours
	conn      progressConn
	peer      [20]byte       // the peer's ID
	remote    netip.AddrPort // address of the other end
	dialled   netip.AddrPort // what we dialled; zero when the peer did
	appliance bool
	seed      bool     // it may hand out beside an appliance
	part      bool     // it wants a part of the content
	identity  [32]byte // of the peer's certificate; of its address in an open swarm
	name      [20]byte // of an open swarm, in the handshakes
	fast      bool     // it knows refusals (BEP 6)
	extended  bool     // it speaks the extension protocol (BEP 10)
	out       *outbox

	received atomic.Int64          // when the last byte came; see clock
	sent     atomic.Int64          // when the last byte went
	upward   atomic.Pointer[pacer] // what reads wait for besides down; nil is nothing
	tileKind atomic.Int32          // number under which the peer wants sb_tile messages; zero before it said so
	up, down pacer
	control  []byte      // the writing goroutine's buffer
	blocks   blockReader // the writing goroutine's
	readErr  error       // of the connection; the reading goroutine's

	linkState
}

// linkState is what the swarm knows of a peer. Owned by the swarm's goroutine.
type linkState struct {
	address          netip.AddrPort         // where the peer can be dialled; zero if unknown
	*schedule.Source                        // what it has and was asked for, piece by piece
	bits             bool                   // its bitfield came, or a message in its place
	partial          map[int]images.TileSet // announced tiles of other pieces
	untold           schedule.Set           // pieces held in part that it is to be told of; nil: none
	asks             map[int]*assembly      // pieces asked for
	asked            time.Time              // when the last request went
	fellow           bool                   // it hands out as we do
	tells            bool                   // it wants a part, and tells us who hand out which; wants says that it did
	wants            bool
	unnamed          bool // it is none of the neighbours that there may be, see SetNeighbours
	leftOut          int  // how often in a row it was not named
	waitMemory       bool
	useful, wasted   int64     // bytes of content that it sent
	stock            *stock    // of a peer that does not speak sb_tile; else nil
	blockAt          time.Time // when a stock peer was asked for blocks, or gave one
	metadata         byte      // number under which a peer wants ut_metadata messages; zero where it does not
}

// origin is what clock counts from. A machine may set its wall clock by years; this one only goes forward.
var origin = time.Now()

// clock returns a time as nanoseconds since origin.
func clock(t time.Time) int64 { return int64(t.Sub(origin)) }

// tileKind is the number under which we want sb_tile messages.
const tileKind = 1

// close ends the connection without waiting for anything; the reading goroutine notices.
func (l *link) close() { l.conn.raw.Close() }

// sendTile queues an sb_tile message; false says that the peer does not read.
func (l *link) sendTile(m peerwire.TileMessage) bool {
	return l.out.sendTile(byte(l.tileKind.Load()), m)
}

// dial connects to an address from one of our endpoints and runs the link, until it is closed or ctx ends.
func (s *Swarm) dial(ctx context.Context, e *endpoint, a netip.AddrPort) {
	limit, cancel := context.WithTimeout(ctx, s.cfg.timing.handshake)
	conn, err := s.net.transport.Dialer(e.device).DialContext(limit, "tcp", a.String())
	if err == nil && s.cfg.Open != nil {
		cancel()
		s.runLink(ctx, e, plain{Conn: conn}, a)
		return
	}
	if err == nil {
		secure := tls.Client(&gather{Conn: conn}, s.cfg.TLS)
		if err = secure.HandshakeContext(limit); err == nil {
			cancel()
			s.runLink(ctx, e, secure, a)
			return
		}
		conn.Close()
	}
	cancel()
	s.tell(dialFailed{e, a, err})
}

// runLink exchanges handshakes, then reads and writes messages until the connection or ctx ends. It closes conn.
func (s *Swarm) runLink(ctx context.Context, e *endpoint, conn session, dialled netip.AddrPort) {
	raw := conn.NetConn() // closed as it is: the end of a TLS stream says nothing that a peer needs to know
	stop := context.AfterFunc(ctx, func() { raw.Close() })
	defer stop()
	defer raw.Close()
	s.net.joined(e, raw)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	l, err := s.greet(ctx, e, conn, dialled)
	if err != nil {
		s.cfg.Log.Debug("link refused", "peer", conn.RemoteAddr().String(), "err", err)
		s.tell(dialFailed{e, dialled, err})
		return
	}
	e.links.Add(1)
	defer e.links.Add(-1)
	s.tell(linkUp{l})
	written := make(chan struct{})
	go func() {
		defer close(written)
		if err := s.writeLink(ctx, l); err != nil {
			raw.Close()
		}
	}()
	err = s.readLink(l)
	cancel()
	raw.Close()
	<-written
	s.tell(linkDown{l, err})
}

// greet exchanges the BitTorrent handshakes and makes the link.
func (s *Swarm) greet(ctx context.Context, e *endpoint, conn session, dialled netip.AddrPort) (l *link, err error) {
	switch c := conn.(type) {
	case *tls.Conn:
		l, err = s.handshake(e, c, dialled)
	default:
		l, err = s.handshakeOpen(e, c, dialled)
	}
	if err != nil {
		return nil, err
	}
	l.id, l.end, l.remote, l.dialled, l.out = int(s.links.Add(1)), e, addrPort(conn.RemoteAddr()), dialled, newOutbox()
	l.up, l.down = s.net.pacers()
	l.conn = progressConn{conn, conn.NetConn(), l, ctx, s.cfg.timing.silence}
	now := clock(time.Now())
	l.received.Store(now)
	l.sent.Store(now)
	return l, nil
}

// handshake exchanges the BitTorrent handshakes on a connection whose TLS handshake is done.
func (s *Swarm) handshake(e *endpoint, conn *tls.Conn, dialled netip.AddrPort) (*link, error) {
	conn.SetDeadline(time.Now().Add(s.cfg.timing.handshake))
	mine := peerwire.Handshake{Reserved: peerwire.Features(), InfoHash: s.cfg.InfoHash.Wire(), PeerID: e.peerID}
	if _, err := conn.Write(mine.Append(nil)); err != nil {
		return nil, err
	}
	theirs, err := peerwire.ReadHandshake(conn)
	switch {
	case err != nil:
		return nil, err
	case theirs.InfoHash != mine.InfoHash:
		return nil, fmt.Errorf("handshake for swarm %x", theirs.InfoHash)
	case !theirs.Extended():
		return nil, errors.New("the peer does not speak the extension protocol")
	}
	conn.SetDeadline(time.Time{})
	leaf := conn.ConnectionState().PeerCertificates[0]
	seed := hasURI(leaf, URIRoleSeed) // what it holds and lacks it says among those who hand out
	return &link{
		peer: theirs.PeerID, appliance: hasURI(leaf, URIRoleAppliance), seed: seed, part: hasURI(leaf, URIRolePart) && !seed,
		identity: identityOf(conn), extended: true, fast: theirs.Fast(),
	}, nil
}

// longMessage is what a message of tiles comes to that are stored as they are, see peerwire.TilesTarget. Others are of any
// length, and would leave much of such memory empty.
const longMessage = peerwire.TilesTarget + 1<<10

// messages are for messages of tiles, which end in one piece. Those of a piece that nobody else wants are used again when it
// is written.
var messages = sync.Pool{New: func() any { b := make([]byte, longMessage); return &b }}

// room returns memory for a message of n bytes, and of which of messages it is, if of one.
func room(n int) (b []byte, of *[]byte) {
	if n < peerwire.TilesTarget || n > longMessage {
		return make([]byte, n), nil
	}
	of = messages.Get().(*[]byte)
	return (*of)[:n], of
}

// readLink reads messages and tells them to the swarm until the connection ends. What cannot be read though the
// connection is sound is misconduct.
func (s *Swarm) readLink(l *link) error {
	r, m := peerwire.NewReader(l.conn), newMeter(s.cfg.Pieces.Count(), time.Now())
	m.blocks = s.cfg.Open != nil
	var memory *[]byte
	r.Room = func(n int) (b []byte) {
		b, memory = room(n)
		return b
	}
	for {
		memory = nil
		message, err := r.Next()
		if err != nil && l.readErr == nil {
			err = misconduct{"sends what is no message: " + err.Error()}
		}
		if err != nil {
			return err
		}
		e := received{l: l, message: message, memory: memory}
		x, ok := message.(peerwire.Extended)
		if ok = ok && x.Kind == tileKind; ok {
			if e.tile, err = peerwire.DecodeTile(x.Payload); err != nil {
				return misconduct{"sends what is no message: " + err.Error()}
			}
		}
		if err := m.count(message, e.tile, time.Now()); err != nil {
			return err
		}
		if ok && e.tile == nil {
			continue // of a later version
		}
		if !s.tell(e) {
			return net.ErrClosed
		}
	}
}

// writeLink sends what the outbox holds: messages first, then the tiles of one read, and so on.
func (s *Swarm) writeLink(ctx context.Context, l *link) error {
	var data []byte
	tiles := l.up.share(s.perRead*images.TileLength, readTime, images.TileLength) / images.TileLength
	for {
		next, ok := l.out.take(tiles)
		err := error(nil)
		if !ok || l.up.limited() { // else they go along with the tiles
			err = l.writeControl()
		}
		if err != nil {
			return err
		}
		if l.blocks.more, err = s.sendBlocks(ctx, l); err != nil {
			return err
		}
		if l.blocks.more {
			l.out.signal()
		}
		if ok {
			if data, err = s.upload(ctx, l, next, data); err != nil {
				return err
			}
			if cap(data) > 4*peerwire.MaxMessageLength { // many messages went along
				data = nil
			}
			continue
		}
		select {
		case <-l.out.wake:
		case <-ctx.Done():
			return nil
		}
	}
}

// Under a limit tiles are read for so long ahead, and go out in messages that take so long: until one is out, nothing
// else goes.
const (
	readTime    = 250 * time.Millisecond
	messageTime = 100 * time.Millisecond
)

// writeControl sends the messages in the outbox.
func (l *link) writeControl() (err error) {
	messages := l.out.takeControl(l.control)
	if len(messages) > 0 {
		_, err = l.conn.Write(messages)
	}
	l.reuse(messages)
	return err
}

// reuse keeps the buffer of messages for the next ones.
func (l *link) reuse(messages []byte) {
	if l.control = messages; cap(messages) > 64<<10 {
		l.control = nil
	}
}

// appendControl appends the messages in the outbox to data, so that they go along with it. Not where data is limited: they
// are not held up.
func (l *link) appendControl(data []byte) []byte {
	messages := l.out.takeControl(l.control)
	data = append(data, messages...)
	l.reuse(messages)
	return data
}

// writeData sends messages with content, which may lie in several pieces of memory, as fast as the limits allow.
func (l *link) writeData(ctx context.Context, parts ...[]byte) error {
	for len(parts) > 0 {
		some, rest := parts, [][]byte(nil)
		if l.up.limited() {
			some, rest = cut(parts, l.up.grain)
		}
		if err := l.up.take(ctx, length(some), nil); err != nil {
			return err
		}
		if _, err := l.conn.writeParts(some); err != nil {
			return err
		}
		parts = rest
	}
	return nil
}

func length(parts [][]byte) (n int) {
	for _, p := range parts {
		n += len(p)
	}
	return n
}
