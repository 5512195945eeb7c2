package swarm

import (
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"time"

	"seedbed/images"
	"seedbed/images/schedule"
)

// Config says who a peer is and what it may use.
type Config struct {
	InfoHash images.InfoHash
	// PeerID names this peer for as long as it runs; zero draws a random one.
	PeerID [20]byte
	// Pieces is the shape of the content, Storage where it lies. Both are needed.
	Pieces  Pieces
	Storage Storage
	// TLS is the swarm's mutual TLS, see TLSConfig. It is needed, but in an open swarm: there are no links without it.
	TLS *tls.Config
	// Open makes the swarm an open one, without TLS and for stock clients too; nil is a closed one.
	Open *Open
	// Mux is a listener shared with other swarms. Without it the swarm listens on Listener, else on ListenAddr
	// ("10.77.0.2:6881", ":0"); without any of the three it only dials.
	Mux *Mux
	// Muxes are such listeners for each of Transport.Interfaces, in their order, made by Transport.ListenOn.
	Muxes      []*Mux
	Listener   net.Listener
	ListenAddr string
	// Seeds are addresses that are never given up: the appliances' seeders.
	Seeds []netip.AddrPort
	// HandOut makes a peer show each other peer different pieces, every piece once before any piece twice, in place of
	// announcing all of them: what an appliance's seeder does, and a seed node, which may lack some and fetches those from
	// machines, and from others who hand out while no machine lacks anything. All who hand out share the work, as soon as
	// they are linked; the certificate needs URIRoleAppliance or URIRoleSeed for that.
	HandOut bool
	// Part says that Pieces has no data where others have some: in the pieces that this peer neither wants nor holds. Its
	// certificate has URIRolePart.
	Part bool
	// Fresh says that nobody handed out this content here before. Else who hands out waits a moment after its start if peers
	// come that hold something: after a restart they come back one by one, and need not be shown what the others hold.
	Fresh bool
	// Barred are certificates (SHA-256 of the DER) of peers that lied before: there are no links with them.
	Barred [][32]byte
	// MemoryBytes bounds the encoded tiles held in memory: half for pieces on their way in, half for recent pieces to
	// pass on. The smallest that works is two pieces. Zero means 64 MiB. Decoding takes one piece per worker more.
	MemoryBytes int64
	// MaxLinks bounds the connections; zero means 40, and 4,096 with HandOut, for each endpoint.
	MaxLinks int
	// Workers decode, hash and write pieces; zero means one per processor, 4 at most.
	Workers int
	// Transport says how the network is used: limits, marks, congestion control, interfaces.
	Transport Transport
	// Log is told of links (Debug), liars (Warn) and completion (Info); nil discards.
	Log *slog.Logger

	timing timing
}

// timing holds the waits of the engine. Machines may be slow (an emulated processor decodes and decrypts 10-20 MB/s), so
// silence is measured by bytes on a link, and giving a request back costs no link.
type timing struct {
	tick      time.Duration // resolution of everything below
	hush      time.Duration // who hands out, and is silent so long with requests out, does not send soon what was announced ahead
	stall     time.Duration // a link with requests out and without a byte gives them back, if another has the piece
	silence   time.Duration // a link without a byte is closed; the other end sends a keep-alive each silence/5
	handshake time.Duration // TLS and BitTorrent handshake together
	backoff   time.Duration // first wait before dialling an address again; doubles
	seedMax   time.Duration // longest wait for one of Seeds
	peerMax   time.Duration // longest wait for another address
	isolated  time.Duration // a machine that gets nothing from its neighbours is fed by who hands out
	fellow    time.Duration // who hands out as we do is given up after so long a silence; a keep-alive each fellow/3
	await     time.Duration // who hands out waits so long at most for links to Seeds, which may hand out too
	restart   time.Duration // who hands out waits so long after its start, if peers come that hold something
}

var defaultTiming = timing{
	tick: 250 * time.Millisecond, hush: schedule.Tardy, stall: 5 * time.Second, silence: 20 * time.Second, handshake: 30 * time.Second,
	backoff: 500 * time.Millisecond, seedMax: 2 * time.Second, peerMax: 10 * time.Second, isolated: 8 * time.Second, fellow: 3 * time.Second,
	await: time.Second, restart: 3 * time.Second,
}

// withDefaults checks the configuration and fills in what zero means.
func (c Config) withDefaults() (Config, error) {
	switch {
	case c.Pieces == nil || c.Storage == nil:
		return c, errors.New("swarm: Pieces and Storage are needed")
	case c.TLS == nil && c.Open == nil:
		return c, errors.New("swarm: TLS is needed, see TLSConfig")
	case c.Pieces.Count() <= 0 || c.Pieces.Count() > images.MaxPieces:
		return c, fmt.Errorf("swarm: %d pieces, want 1 to %d", c.Pieces.Count(), images.MaxPieces)
	}
	if err := c.Transport.Check(); err != nil {
		return c, err
	}
	if err := c.Open.check(&c); err != nil {
		return c, err
	}
	if c.PeerID == [20]byte{} {
		c.PeerID = newPeerID()
	}
	if c.MemoryBytes <= 0 {
		c.MemoryBytes = 64 << 20
	}
	if c.MaxLinks <= 0 {
		c.MaxLinks = 40
		if c.HandOut {
			c.MaxLinks = 4096
		}
		c.MaxLinks *= max(1, len(c.Transport.Interfaces))
	}
	if c.Workers <= 0 {
		c.Workers = min(runtime.GOMAXPROCS(0), 4)
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	c.Log = c.Log.With("infohash", c.InfoHash.String()[:12])
	if c.timing == (timing{}) {
		c.timing = defaultTiming
	}
	return c, nil
}

// newPeerID draws a peer ID (BEP 20).
func newPeerID() (id [20]byte) {
	copy(id[:], "-SB0001-")
	rand.Read(id[8:])
	return id
}
