package upload

import (
	"context"
	"errors"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"seedbed/appliance/job"
	"seedbed/images"
	"seedbed/images/capture"
	"seedbed/images/intake"
	"seedbed/images/tile"
)

// crash kills the appliance and starts it from what its disk held at that moment.
func (b *bed) crash() {
	b.t.Helper()
	at := b.t.TempDir()
	if err := os.CopyFS(at, os.DirFS(b.dir)); err != nil {
		b.t.Fatal(err)
	}
	b.stop() // the files that it tidies up are looked at no more
	if err := os.RemoveAll(b.dir); err != nil {
		b.t.Fatal(err)
	}
	b.dir = at
	b.start()
}

var (
	errMachineKilled = errors.New("the machine was killed")
	errAsked         = errors.New("the appliance was killed, and the capture began anew")
)

// sender is a machine's view of an appliance of which one of the two is killed now and then.
type sender struct {
	b      *bed
	m      *booted
	id     string
	random *mathrand.Rand
	most   int // requests between two kills
	budget *int

	mu   sync.Mutex // held for a request; guards left
	left int        // requests until the next kill

	acknowledged map[images.TileKey]bool
	sent, again  *int64 // encoded bytes; again: of tiles that had been acknowledged
}

// request makes one request, or kills somebody before it or before its answer.
func (s *sender) request(fn func() error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.left--
	if s.left >= 0 || *s.budget == 0 {
		return fn()
	}
	s.left = s.random.IntN(s.most)
	*s.budget--
	switch s.random.IntN(4) {
	case 0:
		return errMachineKilled
	case 1:
		if err := fn(); err != nil {
			return err
		}
		return errMachineKilled
	case 2:
		if err := fn(); err != nil { // its answer is lost
			return err
		}
	}
	s.b.crash()
	s.m.authenticate(s.b)
	a, err := s.b.Begin(s.b.t.Context(), s.m.Caller, job.CaptureBegin{Job: s.m.job.ID, Epoch: s.m.job.Epoch})
	if err != nil {
		return err
	}
	s.id = a.ID
	return errAsked
}

func (s *sender) Have(ctx context.Context, keys []images.TileKey) (had []bool, err error) {
	for {
		err = s.request(func() error { had, err = s.b.Have(ctx, s.m.Caller, s.id, keys); return err })
		if !errors.Is(err, errAsked) {
			return had, err
		}
	}
}

func (s *sender) Put(ctx context.Context, tiles []intake.Tile) error {
	for _, t := range tiles {
		for {
			err := s.request(func() error {
				*s.sent += int64(len(t.Encoded.Bytes))
				if s.acknowledged[t.Key] {
					*s.again += int64(len(t.Encoded.Bytes))
				}
				return s.b.Put(ctx, s.m.Caller, s.id, []intake.Tile{t})
			})
			if err == nil {
				s.acknowledged[t.Key] = true
				break
			}
			if !errors.Is(err, errAsked) {
				return err
			}
			had, err := s.Have(ctx, []images.TileKey{t.Key})
			if err != nil {
				return err
			}
			if had[0] {
				break
			}
		}
	}
	return nil
}

func (s *sender) Commit(ctx context.Context, spec *intake.Spec) (p *intake.Published, err error) {
	for {
		err = s.request(func() error { p, err = s.b.Commit(ctx, s.m.Caller, s.id, spec); return err })
		if !errors.Is(err, errAsked) {
			return p, err
		}
		if j := s.b.state(s.m.job.ID); !j.Image.IsZero() { // it had been published
			return &intake.Published{Digest: j.Image, Name: "debian"}, nil
		}
		if _, err := s.Have(ctx, acknowledged(s.acknowledged)); err != nil { // as the agent does
			return nil, err
		}
	}
}

func (s *sender) Close() error { return nil }

func acknowledged(set map[images.TileKey]bool) (list []images.TileKey) {
	for k := range set {
		list = append(list, k)
	}
	return list
}

// TestKillsOverACaptureSendNothingTwice kills machine and appliance at random requests of captures, 24 times, or 200 with
// SEEDBED_FULL=1: before a request and after it, when its answer is lost. What was acknowledged is never sent again.
func TestKillsOverACaptureSendNothingTwice(t *testing.T) {
	kills := 24
	if os.Getenv("SEEDBED_FULL") != "" {
		kills = 200
	}
	const seed = 21
	t.Logf("seed %d", seed)
	random := mathrand.New(mathrand.NewPCG(seed, seed))
	b := newBed(t)
	var sent, again, total int64
	killed := kills
	for n := byte(2); kills > 0; n++ {
		disk := noiseDisk(n)
		order := b.order(macA, "debian", "")
		acks := map[images.TileKey]bool{}
		var p *intake.Published
		for p == nil {
			m := b.boot(macA)
			s := &sender{b: b, m: m, id: b.begin(m), random: random, most: 30, left: random.IntN(30), budget: &kills, acknowledged: acks, sent: &sent, again: &again}
			r, err := capture.Disk(t.Context(), readerAt(disk), int64(len(disk)), 512, s, capture.Options{Codec: tile.Stored, Created: time.Unix(1e9, 0)})
			switch {
			case err == nil:
				p = r.Image
			case errors.Is(err, errMachineKilled):
				if j := b.state(order.ID); j.State == job.Succeeded { // it was killed after the commit
					p = &intake.Published{Digest: j.Image}
				}
			default:
				t.Fatal(err)
			}
		}
		total += int64(len(acks)) * images.TileLength
		if j := b.state(order.ID); j.State != job.Succeeded || j.Image != p.Digest {
			t.Fatalf("job %+v", j)
		}
		if err := b.repo.Verify(t.Context(), p.Digest, nil); err != nil {
			t.Fatal(err)
		}
	}
	if again > total/20 {
		t.Errorf("%d bytes of %d that had been acknowledged were sent again", again, total)
	}
	t.Logf("%d kills over captures of %d bytes: %d travelled, %d of them were sent again though acknowledged", killed, total, sent, again)
}

// noiseDisk returns a disk without a table that has nothing in common with those of other seeds.
func noiseDisk(seed byte) []byte {
	disk := make([]byte, 4<<20)
	mathrand.NewChaCha8([32]byte{seed, 9}).Read(disk)
	clear(disk[510:512])
	return disk
}

// TestAFlippedBitInAnUploadIsRefusedAndSentAgain flips bits all over the body of an upload.
func TestAFlippedBitInAnUploadIsRefusedAndSentAgain(t *testing.T) {
	random := mathrand.New(mathrand.NewPCG(5, 5))
	b := newBed(t)
	r := record(t, 2)
	b.order(macA, "debian", "")
	m := b.boot(macA)
	id := b.begin(m)
	body := intake.EncodeTiles(r.tiles[:3])
	for range 300 {
		at, bit := random.IntN(len(body)), random.IntN(8)
		if at > len(body)/2 {
			at = random.IntN(60) // the head of a tile
		}
		body[at] ^= 1 << bit
		tiles, err := intake.DecodeTiles(body)
		if err == nil {
			if err = b.Put(t.Context(), m.Caller, id, tiles); err != nil && code(t, err) != CodeTileWrong {
				t.Errorf("bit %d of byte %d: %v", bit, at, err)
			}
		}
		if err == nil {
			t.Errorf("bit %d of byte %d of an upload was flipped, and it was taken", bit, at)
		}
		body[at] ^= 1 << bit
	}
	had, err := b.Have(t.Context(), m.Caller, id, keys(r.tiles[:3]))
	if err != nil || had[0] || had[1] || had[2] {
		t.Errorf("tiles of refused uploads are there: %v, %v", had, err)
	}
	b.send(m, id, r)
	p, err := b.Commit(t.Context(), m.Caller, id, r.spec)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.repo.Verify(t.Context(), p.Digest, nil); err != nil {
		t.Error(err)
	}
	if entries, err := filepath.Glob(filepath.Join(b.dir, "repository", "packs", "*")); err != nil || len(entries) != 1 {
		t.Errorf("packs %v, %v", entries, err)
	}
}
