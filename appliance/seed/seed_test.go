package seed_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	mathrand "math/rand/v2"
	"net"
	"net/netip"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"seedbed/appliance/seed"
	"seedbed/appliance/site"
	"seedbed/images"
	"seedbed/images/capture"
	"seedbed/images/layout"
	"seedbed/images/relay"
	"seedbed/images/repository"
	"seedbed/images/swarm"
	"seedbed/images/tile"
	"seedbed/images/torrent"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// memory is the storage of a machine: it keeps what the swarm writes in one array per piece.
type memory struct {
	shape *layout.Layout
	mu    sync.Mutex // guards all below
	held  map[int]images.TileSet
	known map[int][]images.Digest
	bytes map[[2]int][]byte // by piece and tile
}

func newMemory(shape *layout.Layout) *memory {
	return &memory{shape: shape, held: map[int]images.TileSet{}, known: map[int][]images.Digest{}, bytes: map[[2]int][]byte{}}
}

func (m *memory) Held(piece int) images.TileSet {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.held[piece]
}
func (m *memory) TileHashes(piece int) []images.Digest {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.known[piece]
}
func (m *memory) Learn(piece int, h []images.Digest) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.known[piece] = h
}
func (m *memory) Sync() error { return nil }

func (m *memory) Read(_ context.Context, piece int, tiles images.TileSet, _ []byte) (list []tile.Encoded, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for t := range tiles.All() {
		b := m.bytes[[2]int{piece, t}]
		list = append(list, tile.Encoded{Codec: tile.Stored, Length: int32(len(b)), Bytes: b})
	}
	return list, nil
}

func (m *memory) Write(piece, first int, raw [][]byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	set := m.held[piece]
	for i := range raw {
		m.bytes[[2]int{piece, first + i}] = bytes.Clone(raw[i])
		set.Add(first + i)
	}
	m.held[piece] = set
	return nil
}

// room is a repository with images and the seeders over it.
type room struct {
	t       *testing.T
	site    *site.Site
	repo    *repository.Repository
	mux     *swarm.Mux
	seeders *seed.Seeders

	mu      sync.Mutex // guards all below
	wanted  []seed.Wanted
	changed chan struct{}
	refused error // of everybody
}

func newRoom(t *testing.T) *room {
	t.Helper()
	dir := t.TempDir()
	r := &room{t: t, changed: make(chan struct{})}
	var err error
	if r.site, err = site.Open(filepath.Join(dir, "site")); err != nil {
		t.Fatal(err)
	}
	bucket, err := repository.OpenDir(filepath.Join(dir, "repository"))
	if err != nil {
		t.Fatal(err)
	}
	if r.repo, err = repository.Open(t.Context(), bucket, repository.Config{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.repo.Close() })
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.mux = swarm.NewMux(l, nil)
	r.seeders, err = seed.New(seed.Config{
		Mux: r.mux, CA: r.site.CA(), Open: r.repo.OpenImage, Layer: r.repo.Layer, LayerRange: r.repo.LayerRange,
		Certificate: func(h images.InfoHash) (tls.Certificate, error) {
			return r.site.Peer(swarm.InfoHashURI(h), swarm.URIRoleAppliance)
		},
		Refused: func(*x509.Certificate) error { r.mu.Lock(); defer r.mu.Unlock(); return r.refused },
		Wanted:  func() []seed.Wanted { r.mu.Lock(); defer r.mu.Unlock(); return r.wanted },
		Changed: func() <-chan struct{} { r.mu.Lock(); defer r.mu.Unlock(); return r.changed },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	group.Go(func() { r.mux.Run(ctx) })
	group.Go(func() { r.seeders.Run(ctx) })
	t.Cleanup(func() { cancel(); group.Wait() })
	return r
}

// want says which swarms machines need.
func (r *room) want(list ...seed.Wanted) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.wanted = list
	close(r.changed)
	r.changed = make(chan struct{})
}

// add puts an image of a disk of random bytes into the repository.
func (r *room) add(name string, seedValue uint64) (seed.Wanted, []byte) {
	r.t.Helper()
	disk := make([]byte, 3<<20)
	mathrand.NewChaCha8([32]byte{byte(seedValue)}).Read(disk[:2<<20]) // the rest are zeros
	session, err := r.repo.Begin(r.t.Context(), repository.SessionConfig{Name: name, Sign: r.site.SignManifest})
	if err != nil {
		r.t.Fatal(err)
	}
	defer session.Close()
	result, err := capture.Disk(r.t.Context(), bytes.NewReader(disk), int64(len(disk)), 512, session, capture.Options{Codec: tile.Zstd})
	if err != nil {
		r.t.Fatal(err)
	}
	image, err := r.repo.Manifest(r.t.Context(), result.Image.Digest)
	if err != nil {
		r.t.Fatal(err)
	}
	info, err := torrent.FromManifest(image.Manifest)
	if err != nil {
		r.t.Fatal(err)
	}
	return seed.Wanted{Image: result.Image.Digest, InfoHash: info.InfoHash}, disk
}

// fetch runs a machine until it has all content, or until ctx is done, and returns it.
func (r *room) fetch(ctx context.Context, w seed.Wanted, more ...netip.AddrPort) (content []byte, stats swarm.Stats) {
	r.t.Helper()
	reader, err := r.repo.OpenImage(r.t.Context(), w.Image)
	if err != nil {
		r.t.Fatal(err)
	}
	m := newMemory(reader.Layout())
	peer, err := swarm.New(swarm.Config{
		InfoHash: w.InfoHash, Pieces: reader.Layout(), Storage: m, Seeds: append(more, r.mux.Addr()),
		TLS: r.tls(w),
	})
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(ctx)
	var group sync.WaitGroup
	group.Go(func() { peer.Run(ctx) })
	select {
	case <-peer.Done():
	case <-ctx.Done():
	}
	cancel()
	group.Wait()
	content = make([]byte, reader.Image().Manifest.Partitions[0].Length)
	for at, b := range m.bytes {
		copy(content[reader.Layout().Span(at[0]).Offset+int64(at[1])*images.TileLength:], b)
	}
	return content, peer.Stats()
}

// tls returns that of a machine in the swarm.
func (r *room) tls(w seed.Wanted) *tls.Config {
	r.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		r.t.Fatal(err)
	}
	pub, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		r.t.Fatal(err)
	}
	der, err := r.site.Machine(pub, time.Now(), swarm.InfoHashURI(w.InfoHash))
	if err != nil {
		r.t.Fatal(err)
	}
	return swarm.TLSConfig(tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, r.site.CA(), w.InfoHash)
}

func TestMachinesGetWhatDescribesAnImageFromItsSeeder(t *testing.T) {
	r := newRoom(t)
	a, _ := r.add("a", 1)
	b, _ := r.add("b", 2)
	r.want(a, b)
	manifest := func(w seed.Wanted) *images.Manifest {
		image, err := r.repo.Manifest(t.Context(), w.Image)
		if err != nil {
			t.Fatal(err)
		}
		return image.Manifest
	}
	p, other := manifest(a).Partitions[0], manifest(b).Partitions[0]
	refs := append(manifest(a).Frame.Region, p.Map, p.PieceLayer, p.TileLayer)
	length := int64(0)
	for _, one := range refs {
		length += one.Length
	}
	fetch := func(refs ...images.Ref) *relay.Fetched {
		f := relay.Fetcher{TLS: r.tls(a), Sources: func(context.Context, []netip.AddrPort) ([]netip.AddrPort, error) {
			return []netip.AddrPort{r.mux.Addr()}, nil
		}}
		got, err := f.Fetch(t.Context(), refs)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	for deadline := time.Now().Add(30 * time.Second); len(r.seeders.Stats()) < 2 && time.Now().Before(deadline); {
		<-time.After(time.Millisecond)
	}
	before := r.seeders.Stats()[a.InfoHash].ToPeers
	got := fetch(refs...)
	for _, one := range refs {
		if one.Length > 0 && images.Sum(got.Objects[one.Digest]) != one.Digest {
			t.Errorf("%+v did not come", one)
		}
	}
	sent := func() int64 { return r.seeders.Stats()[a.InfoHash].ToPeers - before }
	for deadline := time.Now().Add(10 * time.Second); sent() < length && time.Now().Before(deadline); {
		<-time.After(time.Millisecond) // it is counted when it has left
	}
	if sent() != length || got.FromAppliance < length || got.FromPeers != 0 {
		t.Errorf("%d bytes: %d sent, %d received from the appliance, %d from peers", length, sent(), got.FromAppliance, got.FromPeers)
	}
	if foreign := fetch(other.PieceLayer); len(foreign.Objects) != 0 {
		t.Error("a certificate of one image gets layers of another")
	}
}

// TestWhoWasShutOutGetsNothing though the certificate is good for hours: neither content nor what describes it.
func TestWhoWasShutOutGetsNothing(t *testing.T) {
	r := newRoom(t)
	a, disk := r.add("a", 1)
	r.want(a)
	image, err := r.repo.Manifest(t.Context(), a.Image)
	if err != nil {
		t.Fatal(err)
	}
	refs := []images.Ref{image.Manifest.Partitions[0].PieceLayer}
	describe := func() error {
		f := relay.Fetcher{TLS: r.tls(a), Sources: func(context.Context, []netip.AddrPort) ([]netip.AddrPort, error) {
			return []netip.AddrPort{r.mux.Addr()}, nil
		}}
		got, err := f.Fetch(t.Context(), refs)
		if err == nil && len(got.Objects) == 0 {
			err = errors.New("nothing came")
		}
		return err
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if got, _ := r.fetch(ctx, a); !bytes.Equal(got, disk) {
		t.Fatal("a machine that may does not get the image")
	}
	if err := describe(); err != nil {
		t.Fatalf("what describes it, for one that may: %v", err)
	}
	r.mu.Lock()
	r.refused = errors.New("was shut out")
	r.mu.Unlock()
	short, stop := context.WithTimeout(t.Context(), 2*time.Second)
	defer stop()
	if _, stats := r.fetch(short, a); stats.Held != 0 || stats.FromAppliance != 0 {
		t.Errorf("one that was shut out gets %d bytes", stats.FromAppliance)
	}
	if describe() == nil {
		t.Error("one that was shut out gets what describes the image")
	}
}

func TestMachinesGetTwoImagesFromOneListener(t *testing.T) {
	r := newRoom(t)
	a, diskA := r.add("a", 1)
	b, diskB := r.add("b", 2)
	r.want(a, b)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for w, disk := range map[seed.Wanted][]byte{a: diskA, b: diskB} {
		got, stats := r.fetch(ctx, w)
		if !bytes.Equal(got, disk) {
			t.Fatalf("image %s arrived otherwise than it was captured; %+v", w.Image.Short(), stats)
		}
		if stats.FromAppliance < 2<<20 || stats.FromPeers != 0 {
			t.Errorf("bytes from the appliance: %d, from peers: %d", stats.FromAppliance, stats.FromPeers)
		}
	}
	if n := len(r.seeders.Stats()); n != 2 {
		t.Errorf("%d seeders", n)
	}
}

func TestSeederThatIsNotWantedStopsAndStartsAgain(t *testing.T) {
	r := newRoom(t)
	a, disk := r.add("a", 1)
	r.want(a)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	r.fetch(ctx, a)
	r.want()
	for len(r.seeders.Stats()) > 0 && ctx.Err() == nil {
		<-time.After(time.Millisecond)
	}
	if n := len(r.seeders.Stats()); n != 0 {
		t.Fatalf("%d seeders", n)
	}
	r.want(a)
	if got, _ := r.fetch(ctx, a); !bytes.Equal(got, disk) {
		t.Fatal("nothing arrived after the second start")
	}
}

func TestOneImageThatCannotBeOpenedStopsNoOther(t *testing.T) {
	r := newRoom(t)
	a, disk := r.add("a", 1)
	r.want(seed.Wanted{Image: images.Sum([]byte("gone")), InfoHash: images.InfoHash(images.Sum([]byte("gone")))}, a)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if got, _ := r.fetch(ctx, a); !bytes.Equal(got, disk) {
		t.Fatal("the other image did not arrive")
	}
}

func TestImageInTheRepositoryIsNeverWritten(t *testing.T) {
	if err := seed.NewStorage(nil).Write(0, 0, nil); err == nil {
		t.Fatal("written")
	}
}

// Two appliances of a site hand out one image together.
func TestTwoAppliancesOfASiteShareTheHandOut(t *testing.T) {
	r := newRoom(t)
	a, disk := r.add("a", 1)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	mux := swarm.NewMux(l, nil)
	second, err := seed.New(seed.Config{
		Mux: mux, CA: r.site.CA(), Open: r.repo.OpenImage, Others: func(images.InfoHash) []netip.AddrPort { return []netip.AddrPort{r.mux.Addr()} },
		Certificate: func(h images.InfoHash) (tls.Certificate, error) {
			return r.site.Peer(swarm.InfoHashURI(h), swarm.URIRoleAppliance)
		},
		Wanted:  func() []seed.Wanted { return []seed.Wanted{a} },
		Changed: func() <-chan struct{} { return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var group sync.WaitGroup
	group.Go(func() { mux.Run(ctx) })
	group.Go(func() { second.Run(ctx) })
	defer group.Wait()
	defer cancel()
	r.want(a)
	for second.Stats()[a.InfoHash].Seeders == 0 && ctx.Err() == nil {
		<-time.After(time.Millisecond)
	}
	if got, stats := r.fetch(ctx, a, mux.Addr()); !bytes.Equal(got, disk) || stats.Seeders != 2 {
		t.Fatalf("%+v", stats)
	}
	if sent := r.seeders.Stats()[a.InfoHash].ToPeers + second.Stats()[a.InfoHash].ToPeers; sent > 3<<20 {
		t.Errorf("they sent %d bytes of an image of 2 MiB", sent)
	}
}
