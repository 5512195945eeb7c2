// Package seed keeps the appliance's seeders running: one peer with all content in each swarm that machines need.
package seed

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"seedbed/images"
	"seedbed/images/relay"
	"seedbed/images/repository"
	"seedbed/images/swarm"
)

// Wanted is one swarm to be served.
type Wanted struct {
	Image    images.Digest
	InfoHash images.InfoHash
	// Open is that of an open swarm; nil is a closed one.
	Open *swarm.Open
}

// Config of Seeders. All but Layer and LayerRange, Refused, Others, Damaged, Transport, MemoryBytes and Log are needed.
type Config struct {
	// Mux is the listener that all seeders share; its owner runs it.
	Mux *swarm.Mux
	// Open opens an image for reading: (*repository.Repository).OpenImage.
	Open func(ctx context.Context, d images.Digest) (*repository.Reader, error)
	// Layer returns what the manifest of an image names, checked, and LayerRange a part of it, unchecked: (*repository.Repository)'s.
	// Machines that know each other by the Mux get it from there; without Layer they ask elsewhere.
	Layer      func(ctx context.Context, d images.Digest) ([]byte, error)
	LayerRange func(ctx context.Context, d images.Digest, offset, length int64) ([]byte, error)
	// Certificate returns the seeder's certificate for a swarm, with swarm.URIRoleAppliance among its URIs.
	Certificate func(h images.InfoHash) (tls.Certificate, error)
	CA          *x509.Certificate
	// Refused returns an error where the holder of a certificate that names the swarm was shut out since: there are no new links with it.
	// nil is nobody.
	Refused func(*x509.Certificate) error
	// Wanted returns the swarms to serve now; Changed a channel that is closed when that may have changed.
	Wanted  func() []Wanted
	Changed func() <-chan struct{}
	// Others returns where others are that share the hand-out of a swarm: the seeders of the site's other appliances, and seed
	// nodes. nil means that there are none. A seeder waits a moment for them before it shows the first piece.
	Others func(h images.InfoHash) []netip.AddrPort
	// Damaged returns the tiles of a piece that are known to be damaged; nil means none. It must not block.
	Damaged func(image images.Digest, piece int) images.TileSet
	// Transport is how the seeders use the network. Its limits are each seeder's; Shared is for all together. The Mux's
	// listener should be made by it.
	Transport swarm.Transport
	// MemoryBytes bounds the encoded tiles that one seeder holds; 0 is the swarm's default.
	MemoryBytes int64
	Log         *slog.Logger // nil discards
}

// Seeders are the appliance's seeders. Stats is safe for concurrent use; Run is called once.
type Seeders struct {
	config Config
	log    *slog.Logger

	mu      sync.Mutex // guards running
	running map[images.InfoHash]*seeder
}

// seeder is one peer in one swarm.
type seeder struct {
	cancel  context.CancelFunc
	done    chan struct{} // closed when it has ended
	swarm   *swarm.Swarm  // nil while the image is being opened; guarded by Seeders.mu, as all below
	storage *Storage
	image   images.Digest
	relay   *relay.Server // nil in an open swarm
}

// New checks the configuration and starts nothing.
func New(c Config) (*Seeders, error) {
	if c.Mux == nil || c.Open == nil || c.Certificate == nil || c.CA == nil || c.Wanted == nil || c.Changed == nil {
		return nil, errors.New("seeders: the configuration is not complete")
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &Seeders{config: c, log: c.Log, running: map[images.InfoHash]*seeder{}}, nil
}

// retryAfter is how long a seeder that failed waits: its image may be damaged, which a person has to see to, or its
// storage away for a moment.
const retryAfter = 5 * time.Second

// Run serves the wanted swarms until ctx is done and waits for all seeders. One that fails is started again; it never
// stops the others.
func (s *Seeders) Run(ctx context.Context) error {
	var group sync.WaitGroup
	defer group.Wait()
	for fresh := false; ; fresh = true { // who is wanted at the start was served before it
		changed := s.config.Changed() // before Wanted, so that no change is missed
		s.settle(ctx, &group, fresh)
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-time.After(lookAgain): // others come and go without a change here
		}
	}
}

// lookAgain is after how long at most seeders look again for others.
const lookAgain = 5 * time.Second

// settle starts seeders that are wanted and stops the others.
func (s *Seeders) settle(ctx context.Context, group *sync.WaitGroup, fresh bool) {
	wanted := map[images.InfoHash]bool{}
	for _, w := range s.config.Wanted() {
		wanted[w.InfoHash] = true
		s.mu.Lock()
		one, running := s.running[w.InfoHash]
		var peer *swarm.Swarm
		if running {
			peer = one.swarm
		}
		s.mu.Unlock()
		if peer != nil && s.config.Others != nil { // one may have come since
			peer.AddPeers(s.config.Others(w.InfoHash))
		}
		if running || ctx.Err() != nil {
			continue
		}
		own, cancel := context.WithCancel(ctx)
		one = &seeder{cancel: cancel, done: make(chan struct{})}
		s.mu.Lock()
		s.running[w.InfoHash] = one
		s.mu.Unlock()
		group.Go(func() {
			defer close(one.done)
			defer cancel()
			s.keep(own, w, one, fresh)
		})
	}
	for h, one := range s.list() {
		if wanted[h] {
			continue
		}
		one.cancel()
		<-one.done // so that the swarm can be served again at once
		s.mu.Lock()
		delete(s.running, h)
		s.mu.Unlock()
		s.log.Info("seeder stopped", "infohash", h.String())
	}
}

func (s *Seeders) list() map[images.InfoHash]*seeder {
	s.mu.Lock()
	defer s.mu.Unlock()
	copied := make(map[images.InfoHash]*seeder, len(s.running))
	for h, one := range s.running {
		copied[h] = one
	}
	return copied
}

// keep serves one swarm until ctx is done.
func (s *Seeders) keep(ctx context.Context, w Wanted, one *seeder, fresh bool) {
	for ; ; fresh = false {
		err := s.serve(ctx, w, one, fresh)
		if ctx.Err() != nil {
			return
		}
		s.log.Error("seeder failed; it is started again", "image", w.Image.String(), "infohash", w.InfoHash.String(), "err", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(retryAfter):
		}
	}
}

func (s *Seeders) serve(ctx context.Context, w Wanted, one *seeder, fresh bool) error {
	reader, err := s.config.Open(ctx, w.Image)
	if err != nil {
		return err
	}
	var secure *tls.Config
	if w.Open == nil {
		cert, err := s.config.Certificate(w.InfoHash)
		if err != nil {
			return fmt.Errorf("certificate of the seeder: %w", err)
		}
		secure = s.guarded(swarm.TLSConfig(cert, s.config.CA, w.InfoHash))
	}
	storage := newStorage(reader, s.config.Damaged)
	var others []netip.AddrPort
	if s.config.Others != nil {
		others = s.config.Others(w.InfoHash)
	}
	peer, err := swarm.New(swarm.Config{
		InfoHash: w.InfoHash, Pieces: reader.Layout(), Storage: storage, Mux: s.config.Mux, HandOut: true, Fresh: fresh,
		TLS: secure, Open: w.Open, MemoryBytes: s.config.MemoryBytes, Log: s.log,
		Transport: s.config.Transport, Seeds: others,
	})
	if err != nil {
		return err
	}
	server, stop, err := s.relay(reader, w, secure)
	if err != nil {
		return err
	}
	defer stop()
	s.mu.Lock()
	one.swarm, one.storage, one.image = peer, storage, w.Image
	if server != nil {
		one.relay = server
	}
	s.mu.Unlock()
	s.log.Info("seeder started", "image", w.Image.String(), "infohash", w.InfoHash.String())
	return peer.Run(ctx)
}

// guarded has a swarm's TLS leave out those who were shut out, too.
func (s *Seeders) guarded(c *tls.Config) *tls.Config {
	invited := c.VerifyConnection
	if s.config.Refused != nil {
		c.VerifyConnection = func(cs tls.ConnectionState) error {
			if err := invited(cs); err != nil {
				return err
			}
			return s.config.Refused(cs.PeerCertificates[0])
		}
	}
	return c
}

// relay gives machines what describes the image, before they take part in its swarm, until stop is called.
func (s *Seeders) relay(reader *repository.Reader, w Wanted, secure *tls.Config) (server *relay.Server, stop func(), err error) {
	if secure == nil || s.config.Layer == nil || s.config.LayerRange == nil {
		return nil, func() {}, nil
	}
	t := &s.config.Transport
	server, err = relay.NewServer(relay.ServerConfig{InfoHash: w.InfoHash, TLS: secure, Objects: s.describe(reader.Image().Manifest), Limits: t.Shared,
		PeerUploadLimit: t.PeerUploadLimit, MaxConnections: relayConnections, Log: s.log})
	if err != nil {
		return nil, nil, err
	}
	stop, err = server.Serve(s.config.Mux)
	return server, stop, err
}

// relayConnections bounds those over which one seeder gives what describes its image.
const relayConnections = 128

// Reopen makes the seeders of an image read it anew: some of its tiles lie elsewhere now.
func (s *Seeders) Reopen(ctx context.Context, image images.Digest) {
	for h, one := range s.list() {
		s.mu.Lock()
		storage, own := one.storage, one.image
		s.mu.Unlock()
		if storage == nil || own != image {
			continue
		}
		reader, err := s.config.Open(ctx, image)
		if err != nil {
			s.log.Error("seeder reads the image as it was before it was healed", "image", image.String(), "infohash", h.String(), "err", err)
			continue
		}
		storage.current.Store(reader)
	}
}

// Stats returns the counters of each seeder that serves.
func (s *Seeders) Stats() map[images.InfoHash]swarm.Stats {
	stats := map[images.InfoHash]swarm.Stats{}
	s.mu.Lock()
	defer s.mu.Unlock()
	for h, one := range s.running {
		if one.swarm != nil {
			stats[h] = one.stats()
		}
	}
	return stats
}

// stats are those of the swarm, with what describes the image among what was sent. The caller holds mu.
func (s *seeder) stats() swarm.Stats {
	stats := s.swarm.Stats()
	if s.relay != nil {
		stats.ToPeers += s.relay.Sent()
	}
	return stats
}
