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
	"seedbed/images/tile"
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
	unnamed          bool                   // it is none of the neighbours that there may be, see SetNeighbours
	leftOut          int                    // how often in a row it was not named
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

// tilesPerRead is how many tiles are read from the storage at once: 1 MiB. tilesPerNear is it where the storage is near.
const (
	tilesPerRead = 16
	tilesPerNear = 4
)

// readBuffers are for the tiles of one read of a storage that is near, and what it keeps between them: a link has one only
// while it sends.
var readBuffers = sync.Pool{New: func() any { b := make([]byte, tilesPerNear*(images.TileLength+1<<10)); return &b }}

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

// upload sends tiles, and the hashes ahead of them where asked for. data is a buffer to use again. The error is the
// connection's: tiles that cannot be read are refused.
func (s *Swarm) upload(ctx context.Context, l *link, u upload, data []byte) ([]byte, error) {
	kind := byte(l.tileKind.Load())
	data = data[:0]
	sent := int64(0)
	if u.hashes {
		hashes := s.cfg.Storage.TileHashes(u.piece)
		if hashes == nil {
			return s.refuse(l, u, data)
		}
		data = peerwire.AppendTile(data, kind, peerwire.Hashes{Piece: u.piece, Hashes: hashes})
		sent = int64(len(hashes) * len(images.Digest{}))
	}
	if !s.memory.holds(u.piece) { // what waits in the outbox does not wait for the storage
		if err := l.writeControl(); err != nil {
			return data, err
		}
	}
	var buf []byte
	if s.perRead == tilesPerNear {
		read := readBuffers.Get().(*[]byte)
		defer func() {
			if spoil != nil {
				spoil(*read)
			}
			readBuffers.Put(read)
		}()
		buf = *read
	}
	tiles, err := s.readTiles(ctx, u, buf)
	if err != nil {
		if ctx.Err() != nil {
			return data, ctx.Err()
		}
		s.cfg.Log.Warn("tiles could not be read", "piece", u.piece, "peer", l.remote, "err", err)
		return s.refuse(l, u, data)
	}
	target := l.up.share(peerwire.TilesTarget, messageTime, 1)
	for first := true; len(tiles) > 0 || len(data) > 0; first = false {
		if !l.up.limited() {
			data = l.appendControl(data)
		} else if !first {
			if err := l.writeControl(); err != nil {
				return data, err
			}
		}
		n, length := 0, 0
		for n < len(tiles) && length < target {
			length += len(tiles[n].Bytes) + peerwire.TileOverhead
			n++
		}
		var parts [][]byte
		if n > 0 {
			data, parts = peerwire.AppendTiles(data, kind, peerwire.Tiles{Piece: u.piece, Tiles: tiles[:n]})
		} else {
			parts = [][]byte{data}
		}
		if err := l.writeData(ctx, parts...); err != nil {
			return data, err
		}
		for _, t := range tiles[:n] {
			sent += int64(len(t.Bytes))
		}
		s.count.toPeers.Add(sent)
		tiles, data, sent = tiles[n:], data[:0], 0
	}
	return data, nil
}

// refuse says that the tiles, or the hashes, cannot be read. What data holds goes ahead.
func (s *Swarm) refuse(l *link, u upload, data []byte) ([]byte, error) {
	s.tell(unreadable{l, u.piece})
	data = peerwire.AppendTile(data, byte(l.tileKind.Load()), peerwire.Reject{Piece: u.piece, Tiles: u.tiles})
	_, err := l.conn.Write(data)
	return data, err
}

// readTiles takes tiles from the cache, and the rest from the storage, which may put them into buf.
func (s *Swarm) readTiles(ctx context.Context, u upload, buf []byte) ([]peerwire.IndexedTile, error) {
	found := s.memory.find(u.piece, u.tiles)
	rest := u.tiles
	for i := range found {
		rest.Remove(i)
	}
	var read []tile.Encoded
	if !rest.IsEmpty() {
		var err error
		if read, err = s.cfg.Storage.Read(ctx, u.piece, rest, buf); err != nil {
			return nil, err
		}
		if len(read) != rest.Len() {
			return nil, fmt.Errorf("storage gave %d tiles of %d", len(read), rest.Len())
		}
	}
	list := make([]peerwire.IndexedTile, 0, u.tiles.Len())
	for i := range u.tiles.All() {
		t, ok := found[i]
		if !ok {
			t, read = read[0], read[1:]
		}
		list = append(list, peerwire.IndexedTile{Index: i, Encoded: t})
	}
	return list, nil
}
