package main

import (
	"context"
	"crypto/sha1"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	machinenet "seedbed/initramfs/network"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"seedbed/appliance/job"
	"seedbed/appliance/seed"
	"seedbed/appliance/site"
	"seedbed/appliance/tracker"
	"seedbed/images"
	"seedbed/images/announce"
	"seedbed/images/schedule"
	"seedbed/images/swarm"
	"seedbed/images/tile"
	"seedbed/initramfs/disk"
)

// Ports of the swarm and of the appliance's tracker.
const (
	swarmPort   = "6881"
	trackerPort = "443"
)

// playAppliance is an appliance's seeder over the repository, and its tracker.
func playAppliance(ctx context.Context, a *actor) error {
	identity, peer, closeAll, err := a.seeder(ctx, "", swarm.URIRoleAppliance)
	if err != nil {
		return err
	}
	defer closeAll()
	policy, err := schedule.ParsePolicy([]byte(a.Policy))
	if err != nil {
		return err
	}
	t := tracker.New(tracker.Config{Policy: policy, Log: a.log})
	var own []netip.Addr
	for _, address := range append([]string{a.Addresses[0]}, a.More...) {
		own = append(own, netip.MustParseAddr(address))
		t.AddSeed(a.Content.InfoHash, netip.MustParseAddrPort(net.JoinHostPort(address, swarmPort)))
	}
	server, err := identity.Server(own)
	if err != nil {
		return err
	}
	listener, err := tls.Listen("tcp", ":"+trackerPort, identity.ServerTLS(server))
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle(job.PathAnnounce, t)
	return a.serve(ctx, listener, mux, peer.Run)
}

// seeder opens a repository and a peer that hands it out. What it returns closes the repository, and notes what was sent.
func (a *actor) seeder(ctx context.Context, which string, role string) (*site.Site, *swarm.Swarm, func(), error) {
	identity, err := site.Open(filepath.Join(a.Content.Folder, "site"))
	if err != nil {
		return nil, nil, nil, err
	}
	repo, err := a.Content.open(ctx, which)
	if err != nil {
		return nil, nil, nil, err
	}
	reader, err := repo.OpenImage(ctx, a.Content.Image)
	if err != nil {
		return nil, nil, nil, errors.Join(err, repo.Close())
	}
	cfg, err := a.swarmConfig(identity, role)
	if err != nil {
		return nil, nil, nil, errors.Join(err, repo.Close())
	}
	cfg.Pieces, cfg.Storage, cfg.HandOut, cfg.Fresh = reader.Layout(), seed.NewStorage(reader), true, true
	peer, err := swarm.New(cfg)
	if err != nil {
		return nil, nil, nil, errors.Join(err, repo.Close())
	}
	return identity, peer, func() { a.stats = statsOf(peer); repo.Close() }, nil
}

// playSeedNode is a seed node: a second one who hands out, which is linked with the appliance and announces like a machine.
func playSeedNode(ctx context.Context, a *actor) error {
	identity, peer, closeAll, err := a.seeder(ctx, seedCopy, swarm.URIRoleSeed)
	if err != nil {
		return err
	}
	defer closeAll()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return peer.Run(ctx) })
	group.Go(func() error { return a.announce(ctx, identity, peer, func() int64 { return 0 }) })
	group.Go(func() error {
		if err := a.ready(ctx); err != nil && !errors.Is(err, errStopped) {
			return err
		}
		return nil
	})
	return group.Wait()
}

// serve answers requests, and runs what works beside it, until ctx ends.
func (a *actor) serve(ctx context.Context, l net.Listener, handler http.Handler, beside func(context.Context) error) error {
	server := &http.Server{Handler: handler}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return beside(ctx) })
	group.Go(func() error {
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	group.Go(func() error {
		if err := a.ready(ctx); err != nil && !errors.Is(err, errStopped) {
			return err
		}
		<-ctx.Done()
		return server.Close()
	})
	return group.Wait()
}

// swarmConfig is a peer's configuration but for its content.
func (a *actor) swarmConfig(identity *site.Site, uris ...string) (swarm.Config, error) {
	h := a.Content.InfoHash
	cert, err := identity.Peer(append(uris, swarm.InfoHashURI(h))...)
	if err != nil {
		return swarm.Config{}, err
	}
	cfg := swarm.Config{InfoHash: h, TLS: swarm.TLSConfig(cert, identity.CA(), h), ListenAddr: net.JoinHostPort(a.Addresses[a.Own], swarmPort),
		Transport: a.Engine.Transport, Log: a.log}
	if a.Engine.Plain {
		cfg.TLS, cfg.Open = nil, &swarm.Open{V1: sha1.Sum(h[:])}
	}
	if len(a.More) > 0 {
		cfg.ListenAddr = ":" + swarmPort
	}
	policy, err := schedule.ParsePolicy([]byte(a.Policy)) // an empty one is no policy
	if err != nil {
		return cfg, err
	}
	toAppliance := a.Own > 0 && policy.MayReachAppliance(schedule.Who{Address: netip.MustParseAddr(a.Addresses[a.Own])})
	for _, seed := range append([]string{a.Addresses[0]}, a.More...) {
		if toAppliance { // as a job tells its machine
			cfg.Seeds = append(cfg.Seeds, netip.MustParseAddrPort(net.JoinHostPort(seed, swarmPort)))
		}
	}
	return cfg, nil
}

func statsOf(s *swarm.Swarm) actorStats {
	v := s.Stats()
	return actorStats{FromAppliance: v.FromAppliance, FromPeers: v.FromPeers, ToPeers: v.ToPeers, Wasted: v.Wasted}
}

// playPeer is a machine: the agent's storage on a file, the swarm, and announces to the tracker.
func playPeer(ctx context.Context, a *actor) error {
	if a.Engine.Seed {
		return playSeedNode(ctx, a)
	}
	machinenet.Tune() // as the agent's system does
	identity, err := site.Open(filepath.Join(a.Content.Folder, "site"))
	if err != nil {
		return err
	}
	shape, err := a.Content.layout()
	if err != nil {
		return err
	}
	dev, err := disk.Open(a.Disk, filepath.Base(a.Disk))
	if err != nil {
		return err
	}
	defer dev.Close()
	store := disk.NewStorage(dev, shape)
	cfg, err := a.swarmConfig(identity, a.part()...)
	if err != nil {
		return err
	}
	cfg.Pieces, cfg.Part, cfg.Storage = shape, a.Engine.Part, store
	lies := &liar{Storage: store, every: int64(a.Engine.Lies)}
	if a.Engine.Lies > 0 {
		// What is in memory is given away as it came: little is, so that nearly all comes from the storage.
		cfg.Storage, cfg.MemoryBytes = lies, 4<<20
	}
	peer, err := swarm.New(cfg)
	if err != nil {
		return err
	}
	defer func() { a.stats = statsOf(peer); a.stats.Lies = lies.told.Load() }()
	if err := a.ready(ctx); err != nil {
		return errors.Join(err, peer.Close())
	}
	total := shape.DataLength()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return peer.Run(ctx) })
	group.Go(func() error {
		return a.announce(ctx, identity, peer, func() int64 { held, _ := store.Progress(); return total - held })
	})
	group.Go(func() error {
		return a.watch(ctx, peer.Done(), func() (float64, error) {
			held, _ := store.Progress()
			return float64(held) / float64(total), nil
		})
	})
	return group.Wait()
}

// part are the names in the certificate of a machine that keeps partitions.
func (a *actor) part() []string {
	if !a.Engine.Part {
		return nil
	}
	return []string{swarm.URIRolePart, job.URIKept + "1"}
}

// announce tells the tracker of the peer, each endpoint by itself, and the peer of those that the tracker names.
func (a *actor) announce(ctx context.Context, identity *site.Site, peer *swarm.Swarm, left func() int64) error {
	uris := append(a.part(), swarm.InfoHashURI(a.Content.InfoHash))
	if a.Engine.Seed {
		uris = append(uris, swarm.URIRoleSeed)
	}
	cert, err := identity.Peer(uris...)
	if err != nil {
		return err
	}
	var group sync.WaitGroup
	for i, end := range peer.Endpoints() {
		address := a.Addresses[0]
		if i > 0 && i <= len(a.More) {
			address = a.More[i-1]
		}
		client := announce.Client{URL: "https://" + net.JoinHostPort(address, trackerPort) + job.PathAnnounce, Log: a.log,
			HTTP: trackerClient(identity, cert, a.Engine.Transport.Dialer(end.Interface))}
		client.Answered = func(r announce.Response) { peer.Answered(end.Interface, r) }
		group.Go(func() {
			client.Run(ctx, func() announce.Request {
				s := peer.Stats()
				return announce.Request{InfoHash: a.Content.InfoHash.Wire(), PeerID: end.PeerID, Port: end.Addr.Port(),
					Uploaded: s.ToPeers, Downloaded: s.FromAppliance + s.FromPeers, Left: left()}
			}, nil)
		})
	}
	group.Wait()
	return nil
}

// trackerClient speaks to the tracker with the certificate of the peer.
func trackerClient(identity *site.Site, peer tls.Certificate, dialer *net.Dialer) *http.Client {
	roots := x509.NewCertPool()
	roots.AddCert(identity.CA())
	return &http.Client{
		Transport: &http.Transport{DialContext: dialer.DialContext,
			TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{peer}, MinVersion: tls.VersionTLS13}},
		Timeout: time.Minute,
	}
}

// liar is a storage that gives away wrong tiles.
type liar struct {
	*disk.Storage
	every int64
	given atomic.Int64
	told  atomic.Int64
}

// Read implements swarm.Storage: the tiles as they are, but for one of so many.
func (l *liar) Read(ctx context.Context, piece int, tiles images.TileSet, buf []byte) ([]tile.Encoded, error) {
	list, err := l.Storage.Read(ctx, piece, tiles, buf)
	for i := range list {
		if l.given.Add(1)%l.every != 0 {
			continue
		}
		raw, e := list[i].Decode(nil)
		if e != nil {
			return nil, fmt.Errorf("lie about piece %d: %w", piece, e)
		}
		raw = slices.Clone(raw)
		raw[len(raw)/2] ^= 1
		l.told.Add(1)
		if list[i], e = tile.Encode(tile.LZ4, 0, raw); e != nil {
			return nil, e
		}
	}
	return list, err
}
