package swarm

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	mrand "math/rand/v2"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"seedbed/images"
	"seedbed/images/tile"
	"seedbed/images/trust/trusttest"
)

func TestMain(m *testing.M) {
	spoil = func(b []byte) {
		for i := range b[:cap(b)] {
			b[:cap(b)][i] = 0xEE
		}
	}
	goleak.VerifyTestMain(m)
}

// content is one partition as swarm content: Pieces, and the truth.
type content struct {
	raw         []byte
	pieceLength int
	data        []images.TileSet
	hashes      [][]images.Digest // of data tiles
	roots       []images.Digest
	encoded     [][]tile.Encoded // of data tiles
}

// newContent draws n bytes: random, with a zero tile here and there, and a piece without data if there are several.
func newContent(n, pieceLength int) *content {
	c := &content{raw: make([]byte, n), pieceLength: pieceLength}
	random := mrand.NewChaCha8([32]byte{1})
	random.Read(c.raw)
	tiles := pieceLength / images.TileLength
	for i := 0; i*images.TileLength < n; i++ {
		if i%13 == 5 || (i/tiles == 3 && n > 8*pieceLength) {
			clear(c.raw[i*images.TileLength : min(n, (i+1)*images.TileLength)])
		}
	}
	zero := make([]byte, images.TileLength)
	for p := range c.Count() {
		var data images.TileSet
		var hashes []images.Digest
		var encoded []tile.Encoded
		for i := 0; i < tiles && p*pieceLength+i*images.TileLength < n; i++ {
			b := c.tile(p, i)
			if bytes.Equal(b, zero[:len(b)]) {
				continue
			}
			data.Add(i)
			hashes = append(hashes, tile.Hash(b))
			encoded = append(encoded, tile.Encoded{Codec: tile.Stored, Length: int32(len(b)), Bytes: b})
		}
		c.data, c.hashes, c.encoded = append(c.data, data), append(c.hashes, hashes), append(c.encoded, encoded)
		c.roots = append(c.roots, c.root(p, hashes))
	}
	return c
}

func (c *content) tile(piece, i int) []byte {
	at := piece*c.pieceLength + i*images.TileLength
	return c.raw[at : at+c.TileLength(piece, i)]
}

func (c *content) root(piece int, data []images.Digest) images.Digest {
	all, rank := []images.Digest{}, 0
	length := min(c.pieceLength, len(c.raw)-piece*c.pieceLength)
	for i := 0; i*images.TileLength < length; i++ {
		if c.data[piece:] != nil && c.data[piece].Has(i) {
			all = append(all, data[rank])
			rank++
		} else {
			all = append(all, images.ZeroTileHash(c.TileLength(piece, i)))
		}
	}
	return images.PieceHash(all, int64(length), int64(c.pieceLength), int64(len(c.raw)))
}

func (c *content) Count() int                    { return (len(c.raw) + c.pieceLength - 1) / c.pieceLength }
func (c *content) Data(piece int) images.TileSet { return c.data[piece] }
func (c *content) TileLength(piece, tile int) int {
	return min(images.TileLength, len(c.raw)-piece*c.pieceLength-tile*images.TileLength)
}

func (c *content) CheckHashes(piece int, hashes []images.Digest) error {
	if len(hashes) != c.data[piece].Len() || c.root(piece, hashes) != c.roots[piece] {
		return fmt.Errorf("hashes of piece %d", piece)
	}
	return nil
}

// dataLength returns the bytes of data tiles.
func (c *content) dataLength() (n int64) {
	for p := range c.Count() {
		for i := range c.data[p].All() {
			n += int64(c.TileLength(p, i))
		}
	}
	return n
}

// hashLength returns the bytes of the data tiles' hashes.
func (c *content) hashLength() (n int64) {
	for p := range c.Count() {
		n += int64(32 * c.data[p].Len())
	}
	return n
}

// store is a Storage in memory. The funcs, where set, come between.
type store struct {
	c  *content
	mu sync.Mutex // guards the rest
	// raw is what was written; nil in a store that was full from the start.
	raw                  []byte
	held                 []images.TileSet
	hashes               [][]images.Digest
	reads, syncs, writes int

	read  func(piece int, tiles []tile.Encoded) ([]tile.Encoded, error)
	learn []images.Digest // hashes to tell in place of the right ones
	write func() error
}

func fullStore(c *content) *store { return &store{c: c, held: c.data, hashes: c.hashes} }

func emptyStore(c *content) *store {
	return &store{c: c, raw: make([]byte, len(c.raw)), held: make([]images.TileSet, c.Count()), hashes: make([][]images.Digest, c.Count())}
}

func (s *store) Held(piece int) images.TileSet {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.held[piece]
}

func (s *store) TileHashes(piece int) []images.Digest {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.hashes[piece]
}

func (s *store) Learn(piece int, hashes []images.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hashes[piece] = hashes
}

func (s *store) Read(_ context.Context, piece int, tiles images.TileSet, _ []byte) ([]tile.Encoded, error) {
	s.mu.Lock()
	s.reads++
	s.mu.Unlock()
	var list []tile.Encoded
	rank := 0
	for i := range s.c.data[piece].All() {
		if tiles.Has(i) {
			list = append(list, s.c.encoded[piece][rank])
		}
		rank++
	}
	if s.read != nil {
		return s.read(piece, list)
	}
	return list, nil
}

func (s *store) Write(piece, first int, parts [][]byte) error {
	raw := bytes.Join(parts, nil)
	if s.write != nil {
		if err := s.write(); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writes++
	at := piece*s.c.pieceLength + first*images.TileLength
	copy(s.raw[at:], raw)
	for n := 0; n < len(raw); first++ {
		if s.held[piece].Has(first) || !s.c.data[piece].Has(first) {
			return fmt.Errorf("tile %d of piece %d written twice or not of data", first, piece)
		}
		s.held[piece].Add(first)
		n += s.c.TileLength(piece, first)
	}
	return nil
}

func (s *store) Sync() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.syncs++
	return nil
}

// site is a certificate authority.
type site struct {
	t    testing.TB
	ca   *trusttest.Authority
	hash images.InfoHash
}

func newSite(t testing.TB) *site {
	return &site{t: t, ca: trusttest.New(t), hash: images.InfoHash(images.Sum([]byte(t.Name())))}
}

// cert issues a certificate with the URIs, valid for the time around now.
func (s *site) cert(valid time.Duration, uris ...string) tls.Certificate {
	return s.ca.Issue(s.t, func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(valid)
	}, uris...)
}

// tls returns the TLS of a machine, or with URIRoleAppliance that of a seeder.
func (s *site) tls(more ...string) *tls.Config {
	return TLSConfig(s.cert(time.Hour, append(more, InfoHashURI(s.hash))...), s.ca.Certificate, s.hash)
}

// peer is a running swarm.
type peer struct {
	*Swarm
	stop func() error // waits; may be called twice
}

// run starts a peer on loopback, to be stopped at the test's end at the latest.
func (s *site) run(c *content, storage Storage, change func(*Config)) *peer {
	s.t.Helper()
	cfg := Config{InfoHash: s.hash, Pieces: c, Storage: storage, TLS: s.tls(), ListenAddr: "127.0.0.1:0", Log: testLog(s.t)}
	if change != nil {
		change(&cfg)
	}
	p, err := New(cfg)
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	result := make(chan error, 1)
	go func() { result <- p.Run(ctx) }()
	stop := sync.OnceValue(func() error { cancel(); return <-result })
	s.t.Cleanup(func() { stop() })
	return &peer{p, stop}
}

// appliance starts a seeder that hands out.
func (s *site) appliance(c *content, storage Storage, change func(*Config)) *peer {
	return s.run(c, storage, func(cfg *Config) {
		cfg.TLS, cfg.HandOut = s.tls(URIRoleAppliance), true
		if change != nil {
			change(cfg)
		}
	})
}

// meet makes every machine know all other peers; an appliance dials nobody.
func meet(peers ...*peer) {
	var all []netip.AddrPort
	for _, p := range peers {
		all = append(all, p.Addr())
	}
	for _, p := range peers {
		if !p.cfg.HandOut {
			p.AddPeers(all)
		}
	}
}

// wait fails the test if the peer does not complete in time.
func wait(t testing.TB, p *peer, limit time.Duration) {
	t.Helper()
	select {
	case <-p.Done():
	case <-time.After(limit):
		t.Fatalf("not complete after %v: %+v", limit, p.Stats())
	}
}

// until fails the test if the condition does not become true in time.
func until(t testing.TB, limit time.Duration, what string, condition func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(limit); !condition(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("not in %v: %s", limit, what)
		}
	}
}

// equal fails the test if the store does not hold the content.
func equal(t testing.TB, s *store) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !bytes.Equal(s.raw, s.c.raw) {
		t.Error("the storage does not hold the content")
	}
	if s.syncs == 0 {
		t.Error("the storage was not synced")
	}
}

// testLog shows the engine's log with SWARM_LOG=1.
func testLog(t testing.TB) *slog.Logger {
	if os.Getenv("SWARM_LOG") == "" {
		return nil
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With("test", t.Name())
}

// addrs is the peer's address as a list.
func (p *peer) addrs() []netip.AddrPort { return []netip.AddrPort{p.Addr()} }
