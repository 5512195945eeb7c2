package swarm

import (
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"sync"
	"time"

	"seedbed/images/peerwire"
)

// misconduct is what no peer that means well does: its certificate is barred for the run.
type misconduct struct{ what string }

func (m misconduct) Error() string { return m.what }

// meter measures what a peer sends beside tiles and hashes. Owned by the goroutine that reads the link.
type meter struct {
	left   float64 // of the allowance, in bytes
	limit  float64
	last   time.Time
	blocks bool // blocks are content
}

// What a peer may send beside content: an allowance to begin with, so much more for each piece, so much each second. A
// message costs its length and messageCost. A peer says of each piece that it has it, asks for it, and takes that back: some
// 500 bytes by this reckoning. Requests of blocks cost little: a piece of 16 MiB takes 1,024 of them.
const (
	allowance      = 8 << 20
	pieceAllowance = 1 << 10
	secondAllows   = 256 << 10
	messageCost    = 64
	spanCost       = 4
)

func newMeter(pieces int, now time.Time) meter {
	limit := float64(allowance + pieces*pieceAllowance)
	return meter{left: limit, limit: limit, last: now}
}

// count takes one message into account. The error is misconduct.
func (m *meter) count(message peerwire.Message, tile peerwire.TileMessage, now time.Time) error {
	cost := messageCost
	switch x := message.(type) {
	case peerwire.Block:
		if m.blocks {
			return nil // what was not asked for is counted as waste
		}
		cost += len(x.Data)
	case peerwire.Span:
		cost = spanCost
	case peerwire.Bitfield:
		cost += len(x.Bits)
	case peerwire.Unknown:
		cost += len(x.Payload)
	case peerwire.Extended:
		switch tile.(type) {
		case peerwire.Tiles, peerwire.Hashes:
			return nil
		}
		cost += len(x.Payload)
	}
	m.left = min(m.limit, m.left+now.Sub(m.last).Seconds()*secondAllows) - float64(cost)
	m.last = now
	if m.left < 0 {
		return misconduct{"floods us with messages"}
	}
	return nil
}

// Content that was of no use: a peer may send so much of it, and so many times what was of use. Tiles that were asked
// for come too late now and then; a peer that sends nothing else costs bandwidth for nothing.
const (
	wasteAllowed = 256 << 20
	wasteFactor  = 4
)

// waste counts content of a peer, in bytes. The error is misconduct.
func (l *link) waste(useful, wasted int64) error {
	l.useful += useful
	l.wasted += wasted
	if l.wasted > wasteAllowed+wasteFactor*l.useful {
		return misconduct{"floods us with tiles that nobody asked for"}
	}
	return nil
}

// guests counts connections that others opened to us, by certificate, from the end of the TLS handshake on. Safe for
// concurrent use.
type guests struct {
	most int // for each certificate

	mu     sync.Mutex // guards the rest
	count  map[[32]byte]int
	barred map[[32]byte]bool
}

// linksPerCertificate is how many connections to each of our endpoints one certificate may open: one for each of its
// own interfaces, and as many that are dead and not noticed yet.
const linksPerCertificate = 8

// linksPerAddress is how many connections to each of our endpoints one address may open in an open swarm: there may be many
// peers behind it.
const linksPerAddress = 64

func newGuests(endpoints int, open bool) *guests {
	most := endpoints * linksPerCertificate
	if open {
		most = endpoints * linksPerAddress
	}
	return &guests{most: most, count: map[[32]byte]int{}, barred: map[[32]byte]bool{}}
}

// enter lets a connection in; leave has to be called at its end.
func (g *guests) enter(identity [32]byte) (leave func(), err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.barred[identity]:
		return nil, errors.New("the peer is barred")
	case g.count[identity] >= g.most:
		return nil, fmt.Errorf("the peer has %d connections to us already", g.most)
	}
	g.count[identity]++
	return sync.OnceFunc(func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.count[identity]--; g.count[identity] == 0 {
			delete(g.count, identity)
		}
	}), nil
}

func (g *guests) bar(identity [32]byte) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.barred[identity] = true
}

// identityOf is a name for a peer that it cannot choose: the hash of its certificate, of its address in an open swarm. The TLS
// handshake is done.
func identityOf(conn session) [32]byte {
	if secure, ok := conn.(*tls.Conn); ok {
		return sha256.Sum256(secure.ConnectionState().PeerCertificates[0].Raw)
	}
	return sha256.Sum256([]byte("open " + addrPort(conn.RemoteAddr()).Addr().String()))
}

// maxStrikes is how often a certificate may break the protocol. What breaks it once may be a race or a fault of a disk.
const maxStrikes = 3

// offend drops a link whose peer broke the protocol, and bars the peer if it did so on purpose or again and again. An
// appliance is only dropped: without it nothing goes on.
func (st *state) offend(l *link, err error) {
	var deliberate misconduct
	ok := errors.As(err, &deliberate)
	if !ok {
		st.strikes[l.identity]++
	}
	switch {
	case !ok && st.strikes[l.identity] < maxStrikes || st.banned[l.identity]:
	case l.appliance:
		st.cfg.Log.Warn("the appliance breaks the protocol; is it of another version?", "peer", l.remote, "err", err)
	case ok:
		st.bar(l, deliberate.what)
	default:
		st.bar(l, fmt.Sprintf("broke the protocol %d times", maxStrikes))
	}
	st.leave(l, "broke the protocol", err)
}
