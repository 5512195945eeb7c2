package heal_test

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
	"net/netip"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"seedbed/appliance/heal"
	"seedbed/appliance/site"
	"seedbed/images"
	"seedbed/images/capture"
	"seedbed/images/layout"
	"seedbed/images/repository"
	"seedbed/images/swarm"
	"seedbed/images/tile"
	"seedbed/images/torrent"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// machine is the storage of a machine that holds an image but for some tiles.
type machine struct {
	shape  *layout.Layout
	hashes func(piece int) []images.Digest
	disk   []byte
	lacks  map[int]images.TileSet
}

func (m *machine) Held(piece int) images.TileSet             { return m.shape.Data(piece).Minus(m.lacks[piece]) }
func (m *machine) TileHashes(piece int) []images.Digest      { return m.hashes(piece) }
func (m *machine) Learn(int, []images.Digest)                {}
func (m *machine) Sync() error                               { return nil }
func (m *machine) Write(piece, tile int, raw [][]byte) error { return nil }
func (m *machine) Read(_ context.Context, piece int, tiles images.TileSet, _ []byte) (list []tile.Encoded, err error) {
	for t := range tiles.All() {
		e := m.shape.TileExtent(piece, t, 1)
		list = append(list, tile.Encoded{Codec: tile.Stored, Length: int32(e.Length), Bytes: m.disk[e.Offset:e.End()]})
	}
	return list, nil
}

// room is an image in a repository, and one machine with the same content.
type room struct {
	site   *site.Site
	reader *repository.Reader
	info   images.InfoHash
	disk   []byte
	peer   netip.AddrPort
}

func newRoom(t *testing.T, lacks map[int]images.TileSet) *room {
	t.Helper()
	dir := t.TempDir()
	s, err := site.Open(filepath.Join(dir, "site"))
	if err != nil {
		t.Fatal(err)
	}
	bucket, err := repository.OpenDir(filepath.Join(dir, "repository"))
	if err != nil {
		t.Fatal(err)
	}
	repo, err := repository.Open(t.Context(), bucket, repository.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { repo.Close() })
	r := &room{site: s, disk: make([]byte, 4<<20)}
	mathrand.NewChaCha8([32]byte{1}).Read(r.disk)
	session, err := repo.Begin(t.Context(), repository.SessionConfig{Name: "a", Sign: s.SignManifest})
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	result, err := capture.Disk(t.Context(), bytes.NewReader(r.disk), int64(len(r.disk)), 512, session, capture.Options{Codec: tile.Zstd})
	if err != nil {
		t.Fatal(err)
	}
	if r.reader, err = repo.OpenImage(t.Context(), result.Image.Digest); err != nil {
		t.Fatal(err)
	}
	info, err := torrent.FromManifest(r.reader.Image().Manifest)
	if err != nil {
		t.Fatal(err)
	}
	r.info = info.InfoHash
	m := &machine{shape: r.reader.Layout(), hashes: r.reader.TileHashes, disk: r.disk, lacks: lacks}
	peer, err := swarm.New(swarm.Config{
		InfoHash: r.info, Pieces: m.shape, Storage: m, ListenAddr: "127.0.0.1:0", TLS: swarm.TLSConfig(r.machine(t), s.CA(), r.info),
	})
	if err != nil {
		t.Fatal(err)
	}
	r.peer = peer.Addr()
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	group.Go(func() { peer.Run(ctx) })
	t.Cleanup(func() { cancel(); group.Wait() })
	return r
}

// machine returns a certificate as machines have it.
func (r *room) machine(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	pub, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	der, err := r.site.Machine(pub, time.Now(), swarm.InfoHashURI(r.info))
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// unreadable is a repository in which some tiles cannot be read.
type unreadable struct {
	*repository.Reader
	damaged map[int]images.TileSet
}

func (u unreadable) ReadPiece(ctx context.Context, piece int, tiles images.TileSet) ([]tile.Encoded, error) {
	if !tiles.Intersect(u.damaged[piece]).IsEmpty() {
		return nil, errors.New("damaged")
	}
	return u.Reader.ReadPiece(ctx, piece, tiles)
}

func set(list ...int) (s images.TileSet) {
	for _, t := range list {
		s.Add(t)
	}
	return s
}

func (r *room) fetch(t *testing.T, damaged map[int]images.TileSet, put func(piece, tile int, raw []byte) error) (map[int]images.TileSet, error) {
	t.Helper()
	cert, err := r.site.Peer(swarm.InfoHashURI(r.info))
	if err != nil {
		t.Fatal(err)
	}
	return heal.Fetch(t.Context(), heal.Config{
		InfoHash: r.info, Layout: r.reader.Layout(), Tiles: unreadable{r.reader, damaged}, Damaged: damaged,
		Peers: func() []netip.AddrPort { return []netip.AddrPort{r.peer} }, Certificate: cert, CA: r.site.CA(), Put: put,
		Patience: 3 * time.Second,
	})
}

func TestDamagedTilesComeFromAMachine(t *testing.T) {
	r := newRoom(t, nil)
	damaged := map[int]images.TileSet{0: set(0, 2), 5: set(1, 2, 3), 15: set(3)}
	var mu sync.Mutex
	n := 0
	got, err := r.fetch(t, damaged, func(piece, tile int, raw []byte) error {
		mu.Lock()
		defer mu.Unlock()
		n++
		e := r.reader.Layout().TileExtent(piece, tile, 1)
		if !damaged[piece].Has(tile) || !bytes.Equal(raw, r.disk[e.Offset:e.End()]) {
			t.Errorf("tile %d of piece %d: other bytes, or not asked for", tile, piece)
		}
		return nil
	})
	if err != nil || n != 6 || len(got) != 3 || got[5] != damaged[5] {
		t.Errorf("%d tiles: %v %v", n, got, err)
	}
}

func TestWhatNoMachineHasIsGivenUp(t *testing.T) {
	r := newRoom(t, map[int]images.TileSet{1: set(0)})
	got, err := r.fetch(t, map[int]images.TileSet{1: set(0, 1), 3: set(3)}, func(int, int, []byte) error { return nil })
	if err != nil || got[3] != set(3) || got[1].Has(0) {
		t.Errorf("%v %v", got, err)
	}
}

func TestATileThatCannotBeKeptEndsIt(t *testing.T) {
	r := newRoom(t, nil)
	full := errors.New("disk full")
	if _, err := r.fetch(t, map[int]images.TileSet{1: set(0)}, func(int, int, []byte) error { return full }); !errors.Is(err, full) {
		t.Error(err)
	}
}
