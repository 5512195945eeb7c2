package upload

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
	"seedbed/appliance/site"
	"seedbed/appliance/store"
	"seedbed/images"
	"seedbed/images/capture"
	"seedbed/images/intake"
	"seedbed/images/repository"
	"seedbed/images/tile"
)

// bed is an appliance without its network: real records, site and repository, and a clock.
type bed struct {
	*Uploads
	t     *testing.T
	dir   string
	site  *site.Site
	store *store.Store
	repo  *repository.Repository
	fleet *fleet.Fleet
	mu    sync.Mutex
	now   time.Time // guarded by mu
	wrap  func(intake.Sink) intake.Sink
}

func newBed(t *testing.T) *bed {
	t.Helper()
	b := &bed{t: t, dir: t.TempDir(), now: time.Date(2026, 5, 4, 8, 0, 0, 0, time.UTC), wrap: func(s intake.Sink) intake.Sink { return s }}
	var err error
	if b.site, err = site.Open(filepath.Join(b.dir, "site")); err != nil {
		t.Fatal(err)
	}
	b.start()
	t.Cleanup(b.stop)
	return b
}

func (b *bed) clock() time.Time { b.mu.Lock(); defer b.mu.Unlock(); return b.now }

func (b *bed) wait(d time.Duration) { b.mu.Lock(); defer b.mu.Unlock(); b.now = b.now.Add(d) }

func (b *bed) start() {
	b.t.Helper()
	var err error
	if b.store, err = store.Open(b.t.Context(), filepath.Join(b.dir, "records.db")); err != nil {
		b.t.Fatal(err)
	}
	bucket, err := repository.OpenDir(filepath.Join(b.dir, "repository"))
	if err != nil {
		b.t.Fatal(err)
	}
	if b.repo, err = repository.Open(b.t.Context(), bucket, repository.Config{Spool: filepath.Join(b.dir, "spool")}); err != nil {
		b.t.Fatal(err)
	}
	b.fleet, err = fleet.New(b.t.Context(), fleet.Config{Records: b.store, Authority: b.site, Library: b, Admit: fleet.AdmitAuto, Now: b.clock,
		ClaimPoll: 20 * time.Millisecond, InfoHashURI: images.InfoHash.String, NextVersion: b.repo.NextVersion})
	if err != nil {
		b.t.Fatal(err)
	}
	b.Uploads = New(Config{Fleet: b.fleet, Library: b, Sync: b.repo.Sync, Now: b.clock,
		Begin: func(ctx context.Context, name, version string) (intake.Sink, error) {
			s, err := b.repo.Begin(ctx, repository.SessionConfig{Name: name, Version: version, Sign: b.site.SignManifest})
			if err != nil {
				return nil, err
			}
			return b.wrap(s), nil
		}})
}

// stop ends the appliance without a word to its sessions, as a kill does.
func (b *bed) stop() {
	if err := errors.Join(b.repo.Close(), b.store.Close()); err != nil {
		b.t.Error(err)
	}
}

// Image implements fleet.Library.
func (b *bed) Image(ctx context.Context, ref string) (*fleet.Image, error) {
	d, err := b.repo.Resolve(ctx, ref)
	if errors.Is(err, repository.ErrNoImage) {
		return nil, &fleet.Refusal{Code: fleet.CodeImageUnknown, Detail: err.Error()}
	}
	if err != nil {
		return nil, err
	}
	image, err := b.repo.Manifest(ctx, d)
	if err != nil {
		return nil, err
	}
	return &fleet.Image{Digest: d, Manifest: image.Manifest}, nil
}

// booted is one boot of a machine's agent with a claimed capture.
type booted struct {
	fleet.Caller
	job *job.Job
	key *ecdsa.PrivateKey
}

// boot boots the machine's agent and claims its job.
func (b *bed) boot(mac string) *booted {
	b.t.Helper()
	m := b.arrive(mac)
	m.claim(b)
	return m
}

// arrive boots the machine's agent as far as its inventory.
func (b *bed) arrive(mac string) *booted {
	b.t.Helper()
	token, err := b.fleet.BootToken(b.t.Context(), mac, netip.MustParseAddr("10.77.0.100"))
	m := &booted{}
	if err == nil {
		m.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	if err != nil {
		b.t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(&m.key.PublicKey)
	if err != nil {
		b.t.Fatal(err)
	}
	if _, err := b.fleet.Hello(b.t.Context(), netip.Addr{}, job.Hello{Token: token.Token, MAC: mac, PublicKey: der}); err != nil {
		b.t.Fatal(err)
	}
	m.authenticate(b)
	if _, err := b.fleet.Inventory(b.t.Context(), m.Caller, job.Inventory{Serial: mac, NICs: []job.NIC{{MAC: mac}}}); err != nil {
		b.t.Fatal(err)
	}
	m.authenticate(b)
	return m
}

// authenticate is what each request begins with.
func (m *booted) authenticate(b *bed) {
	b.t.Helper()
	der, err := x509.MarshalPKIXPublicKey(&m.key.PublicKey)
	if err == nil {
		m.Caller, err = b.fleet.Authenticate(&x509.Certificate{RawSubjectPublicKeyInfo: der})
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

func (m *booted) claim(b *bed) {
	b.t.Helper()
	j, err := b.fleet.Claim(b.t.Context(), m.Caller, job.Claim{Machine: m.Machine()})
	if err != nil || j == nil || j.Kind != job.Capture || j.Capture == nil {
		b.t.Fatalf("claimed %+v, %v", j, err)
	}
	m.job = j
}

// order gives a machine that was seen a capture.
func (b *bed) order(mac, name, version string) *fleet.JobView {
	b.t.Helper()
	if err := b.fleet.Sighted(b.t.Context(), fleet.Sighting{MAC: mac, Stage: "dhcp"}); err != nil {
		b.t.Fatal(err)
	}
	j, err := b.fleet.Capture(b.t.Context(), fleet.CaptureOrder{Machine: mac, CaptureOrder: job.CaptureOrder{Name: name, Version: version}})
	if err != nil {
		b.t.Fatal(err)
	}
	return j
}

func (b *bed) begin(m *booted) string {
	b.t.Helper()
	s, err := b.Begin(b.t.Context(), m.Caller, job.CaptureBegin{Job: m.job.ID, Epoch: m.job.Epoch})
	if err != nil || s.ID == "" || s.Expires == 0 {
		b.t.Fatalf("%+v, %v", s, err)
	}
	return s.ID
}

// code is that of a refusal.
func code(t *testing.T, err error) string {
	t.Helper()
	r, ok := errors.AsType[*fleet.Refusal](err)
	if !ok {
		t.Fatalf("no refusal: %v", err)
	}
	if r.Detail == "" || strings.HasSuffix(r.Detail, ".") {
		t.Errorf("refusal %q says %q", r.Code, r.Detail)
	}
	return r.Code
}

// recorder is a sink that keeps what a capture would send.
type recorder struct {
	mu    sync.Mutex
	tiles []intake.Tile
	spec  *intake.Spec
}

func (r *recorder) Have(_ context.Context, keys []images.TileKey) ([]bool, error) {
	return make([]bool, len(keys)), nil
}

func (r *recorder) Put(_ context.Context, tiles []intake.Tile) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tiles = append(r.tiles, tiles...)
	return nil
}

func (r *recorder) Commit(_ context.Context, s *intake.Spec) (*intake.Published, error) {
	r.spec = s
	return &intake.Published{}, nil
}

func (r *recorder) Close() error { return nil }

// record captures a disk of noise without a table: the tiles of [from, to) differ from disk to disk by the seed.
func record(t *testing.T, seed byte) *recorder {
	t.Helper()
	disk := make([]byte, 4<<20+512)
	mathrand.NewChaCha8([32]byte{1}).Read(disk)
	mathrand.NewChaCha8([32]byte{seed}).Read(disk[3<<20:])
	clear(disk[510:512])
	clear(disk[1<<20 : 1<<20+2*images.TileLength])
	r := new(recorder)
	_, err := capture.Disk(t.Context(), readerAt(disk), int64(len(disk)), 512, r, capture.Options{Codec: tile.Zstd, Created: time.Unix(1e9, 0)})
	if err != nil || len(r.tiles) < 40 {
		t.Fatalf("%d tiles, %v", len(r.tiles), err)
	}
	return r
}

type readerAt []byte

func (r readerAt) ReadAt(b []byte, at int64) (int, error) {
	if n := copy(b, r[at:]); n < len(b) {
		return n, fmt.Errorf("%d bytes at %d: the disk ends", len(b), at)
	}
	return len(b), nil
}

// keys are those of tiles.
func keys(tiles []intake.Tile) (list []images.TileKey) {
	for _, t := range tiles {
		list = append(list, t.Key)
	}
	return list
}
