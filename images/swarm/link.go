package swarm

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
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
	conn      net.Conn
	peer      [20]byte       // the peer's ID
	remote    netip.AddrPort // address of the other end
	dialled   netip.AddrPort // what we dialled; zero when the peer did
	appliance bool
	part      bool     // it wants a part of the content
	identity  [32]byte // of the peer's certificate
	out       *outbox

	received atomic.Int64 // when the last byte came; see clock
	sent     atomic.Int64 // when the last byte went
	tileKind atomic.Int32 // number under which the peer wants sb_tile messages; zero before it said so

	linkState
}

// linkState is what the swarm knows of a peer. Owned by the swarm's goroutine.
type linkState struct {
	address          netip.AddrPort         // where the peer can be dialled; zero if unknown
	*schedule.Source                        // what it has and was asked for, piece by piece
	bits             bool                   // its bitfield came, or a message in its place
	partial          map[int]images.TileSet // announced tiles of other pieces
	asks             map[int]*assembly      // pieces asked for
	asked            time.Time              // when the last request went
	waitMemory       bool
}

// origin is what clock counts from. A machine may set its wall clock by years; this one only goes forward.
var origin = time.Now()

// clock returns a time as nanoseconds since origin.
func clock(t time.Time) int64 { return int64(t.Sub(origin)) }

// tileKind is the number under which we want sb_tile messages.
const tileKind = 1

// close ends the connection without waiting for anything; the reading goroutine notices.
func (l *link) close() { l.conn.(progressConn).raw.Close() }

// sendTile queues an sb_tile message; false says that the peer does not read.
func (l *link) sendTile(m peerwire.TileMessage) bool {
	return l.out.sendTile(byte(l.tileKind.Load()), m)
}

// tilesPerRead is how many tiles are read from the storage at once: 1 MiB.
const tilesPerRead = 16

// progressConn notes when bytes come and bounds how long one write may take.
type progressConn struct {
	net.Conn
	raw     net.Conn // below TLS
	l       *link
	timeout time.Duration
}

func (c progressConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 {
		c.l.received.Store(clock(time.Now()))
	}
	return n, err
}

func (c progressConn) Write(b []byte) (int, error) {
	c.Conn.SetWriteDeadline(time.Now().Add(c.timeout))
	n, err := c.Conn.Write(b)
	c.l.sent.Store(clock(time.Now()))
	return n, err
}

// dial connects to an address and runs the link, until it is closed or ctx ends.
func (s *Swarm) dial(ctx context.Context, a netip.AddrPort) {
	limit, cancel := context.WithTimeout(ctx, s.cfg.timing.handshake)
	conn, err := new(net.Dialer).DialContext(limit, "tcp", a.String())
	if err == nil {
		secure := tls.Client(conn, s.cfg.TLS)
		if err = secure.HandshakeContext(limit); err == nil {
			cancel()
			s.runLink(ctx, secure, a)
			return
		}
		conn.Close()
	}
	cancel()
	s.tell(dialFailed{a, err})
}

// runLink exchanges handshakes, then reads and writes messages until the connection or ctx ends. It closes conn.
func (s *Swarm) runLink(ctx context.Context, conn *tls.Conn, dialled netip.AddrPort) {
	raw := conn.NetConn() // closed as it is: the end of a TLS stream says nothing that a peer needs to know
	stop := context.AfterFunc(ctx, func() { raw.Close() })
	defer stop()
	defer raw.Close()
	l, err := s.handshake(conn, dialled)
	if err != nil {
		s.cfg.Log.Debug("link refused", "peer", conn.RemoteAddr().String(), "err", err)
		s.tell(dialFailed{dialled, err})
		return
	}
	s.tell(linkUp{l})
	ctx, cancel := context.WithCancel(ctx)
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

// handshake exchanges the BitTorrent handshakes on a connection whose TLS handshake is done.
func (s *Swarm) handshake(conn *tls.Conn, dialled netip.AddrPort) (*link, error) {
	conn.SetDeadline(time.Now().Add(s.cfg.timing.handshake))
	mine := peerwire.Handshake{Reserved: peerwire.Features(), InfoHash: s.cfg.InfoHash.Wire(), PeerID: s.cfg.PeerID}
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
	l := &link{
		id: int(s.links.Add(1)), peer: theirs.PeerID, remote: addrPort(conn.RemoteAddr()), dialled: dialled,
		appliance: hasURI(leaf, URIRoleAppliance), part: hasURI(leaf, URIRolePart), identity: sha256.Sum256(leaf.Raw), out: newOutbox(),
	}
	l.conn = progressConn{conn, conn.NetConn(), l, s.cfg.timing.silence}
	now := clock(time.Now())
	l.received.Store(now)
	l.sent.Store(now)
	return l, nil
}

// readLink reads messages and tells them to the swarm until the connection ends.
func (s *Swarm) readLink(l *link) error {
	r := peerwire.NewReader(l.conn)
	for {
		m, err := r.Next()
		if err != nil {
			return err
		}
		e := received{l: l, message: m}
		if x, ok := m.(peerwire.Extended); ok && x.Kind == tileKind {
			if e.tile, err = peerwire.DecodeTile(x.Payload); err != nil {
				return err
			}
			if e.tile == nil {
				continue // of a later version
			}
		}
		if !s.tell(e) {
			return net.ErrClosed
		}
	}
}

// writeLink sends what the outbox holds: messages first, then the tiles of one read, and so on.
func (s *Swarm) writeLink(ctx context.Context, l *link) error {
	var control, data []byte
	for {
		var next upload
		var ok bool
		control, next, ok = l.out.take(control, tilesPerRead)
		if len(control) > 0 {
			if _, err := l.conn.Write(control); err != nil {
				return err
			}
			if cap(control) > 64<<10 {
				control = nil
			}
		}
		if ok {
			var err error
			if data, err = s.upload(ctx, l, next, data); err != nil {
				return err
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

// upload sends tiles, and the hashes ahead of them where asked for. data is a buffer to use again. The error is the
// connection's: tiles that cannot be read are refused.
func (s *Swarm) upload(ctx context.Context, l *link, u upload, data []byte) ([]byte, error) {
	kind := byte(l.tileKind.Load())
	data = data[:0]
	if u.hashes {
		hashes := s.cfg.Storage.TileHashes(u.piece)
		if hashes == nil {
			return s.refuse(l, u, data)
		}
		data = peerwire.AppendTile(data, kind, peerwire.Hashes{Piece: u.piece, Hashes: hashes})
	}
	tiles, err := s.readTiles(ctx, u)
	if err != nil {
		if ctx.Err() != nil {
			return data, ctx.Err()
		}
		s.cfg.Log.Warn("tiles could not be read", "piece", u.piece, "peer", l.remote, "err", err)
		return s.refuse(l, u, data)
	}
	for len(tiles) > 0 || len(data) > 0 {
		n, length := 0, 0
		for n < len(tiles) && length < peerwire.TilesTarget {
			length += len(tiles[n].Bytes) + peerwire.TileOverhead
			n++
		}
		if n > 0 {
			data = peerwire.AppendTile(data, kind, peerwire.Tiles{Piece: u.piece, Tiles: tiles[:n]})
		}
		if _, err := l.conn.Write(data); err != nil {
			return data, err
		}
		sent := int64(0)
		for _, t := range tiles[:n] {
			sent += int64(len(t.Bytes))
		}
		s.count.toPeers.Add(sent)
		tiles, data = tiles[n:], data[:0]
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

// readTiles takes tiles from the cache, and the rest from the storage.
func (s *Swarm) readTiles(ctx context.Context, u upload) ([]peerwire.IndexedTile, error) {
	found := s.memory.find(u.piece, u.tiles)
	rest := u.tiles
	for i := range found {
		rest.Remove(i)
	}
	var read []tile.Encoded
	if !rest.IsEmpty() {
		var err error
		if read, err = s.cfg.Storage.Read(ctx, u.piece, rest); err != nil {
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
