package s3_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"seedbed/images"
	"seedbed/images/capture"
	"seedbed/images/repository"
	"seedbed/images/repository/s3"
	"seedbed/images/repository/s3/s3test"
	"seedbed/images/tile"
)

func openRepository(t testing.TB, b repository.Bucket, spool string) *repository.Repository {
	t.Helper()
	r, err := repository.Open(t.Context(), b, repository.Config{Spool: spool, PackLength: 20 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// captureDisk captures a disk without a table.
func captureDisk(t testing.TB, r *repository.Repository, disk []byte) images.Digest {
	t.Helper()
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	session, err := r.Begin(t.Context(), repository.SessionConfig{Name: "debian", Sign: func(m []byte) []byte { return images.Sign(key, m) }})
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	result, err := capture.Disk(t.Context(), bytes.NewReader(disk), int64(len(disk)), 512, session, capture.Options{Codec: tile.Zstd})
	if err != nil {
		t.Fatal(err)
	}
	return result.Image.Digest
}

// expectDisk reads every tile of the image and compares.
func expectDisk(t *testing.T, r *repository.Repository, d images.Digest, disk []byte) {
	t.Helper()
	x, err := r.OpenImage(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(disk))
	for piece := range x.Layout().Count() {
		data := x.Layout().Data(piece)
		list, err := x.ReadPiece(t.Context(), piece, data)
		if err != nil {
			t.Fatal(err)
		}
		for i := range data.All() {
			e := x.Layout().TileExtent(piece, i, 1)
			raw, err := list[0].Decode(nil)
			if err != nil {
				t.Fatal(err)
			}
			copy(got[e.Offset:e.End()], raw)
			list = list[1:]
		}
	}
	if sha256.Sum256(got) != sha256.Sum256(disk) {
		t.Errorf("image %s is not the disk", d.Short())
	}
}

// packs returns the keys of the packs.
func packs(t *testing.T, b repository.Bucket) (keys []string) {
	t.Helper()
	for o, err := range b.List(t.Context(), "packs/") {
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, o.Key)
	}
	return keys
}

func TestARepositoryLivesOnS3(t *testing.T) {
	location := "s3://images/site/a?endpoint=" + s3test.Start(t, "images")
	disk := make([]byte, 48<<20)
	rand.NewChaCha8([32]byte{1}).Read(disk[1<<20 : 40<<20])
	b := open(t, location)
	spool := t.TempDir()
	r := openRepository(t, b, spool)
	first := captureDisk(t, r, disk)
	before := len(packs(t, b))
	if before < 2 {
		t.Errorf("%d packs", before)
	}
	changed := bytes.Clone(disk)
	rand.NewChaCha8([32]byte{2}).Read(changed[5<<20 : 6<<20])
	second := captureDisk(t, r, changed)
	if n := len(packs(t, b)); n != before+1 {
		t.Errorf("a version that differs in 1 MiB made %d packs of %d", n, before)
	}
	for _, d := range []images.Digest{first, second} {
		if err := r.Verify(t.Context(), d, nil); err != nil {
			t.Error(err)
		}
	}
	// Another appliance, without this one's spool and index.
	other := openRepository(t, open(t, location), t.TempDir())
	expectDisk(t, other, first, disk)
	expectDisk(t, other, second, changed)
	if third := captureDisk(t, other, disk); third == first {
		t.Error("a version has the digest of another")
	}
	if n := len(packs(t, b)); n != before+1 {
		t.Errorf("an appliance that made its index from the bucket stored %d packs more", n-before-1)
	}
	if d, err := r.Resolve(t.Context(), "debian"); err != nil || d == second {
		t.Errorf("the version of the other appliance is not seen: %v", err)
	}
}

func TestDamageOnS3IsFound(t *testing.T) {
	endpoint := s3test.Start(t, "images")
	b := open(t, "s3://images?endpoint="+endpoint)
	r := openRepository(t, b, t.TempDir())
	disk := make([]byte, 8<<20)
	rand.NewChaCha8([32]byte{3}).Read(disk)
	d := captureDisk(t, r, disk)
	key := packs(t, b)[0]
	object, err := b.Read(t.Context(), key, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	content, err := io.ReadAll(object)
	object.Close()
	if err != nil {
		t.Fatal(err)
	}
	content[1<<20] ^= 1
	if err := errors.Join(b.Delete(t.Context(), key), b.Put(t.Context(), key, bytes.NewReader(content), int64(len(content)))); err != nil {
		t.Fatal(err)
	}
	var damage *repository.DamageError
	if err := r.Verify(t.Context(), d, nil); !errors.As(err, &damage) || len(damage.Damage) != 1 || damage.Damage[0].Object != key {
		t.Errorf("verify says %v", err)
	}
}

func TestTilesLeftInTheSpoolAreStoredAtTheNextStart(t *testing.T) {
	spool := t.TempDir()
	b := open(t, "s3://images?endpoint="+s3test.Start(t, "images"))
	r := openRepository(t, b, spool)
	content := bytes.Repeat([]byte{1}, images.TileLength)
	e, err := tile.Encode(tile.Stored, 0, content)
	if err == nil {
		_, err = r.Put(t.Context(), tile.KeyOf(content), e)
	}
	if err == nil {
		err = errors.Join(r.Sync(), r.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(filepath.Join(spool, "journal", "*.segment")); len(left) != 1 {
		t.Errorf("in the spool: %v", left)
	}
	r = openRepository(t, b, spool)
	if _, ok, err := r.Find(tile.KeyOf(content)); err != nil || !ok || len(packs(t, b)) != 1 {
		t.Errorf("the tile is not in a pack: %v, %v", ok, err)
	}
	if _, err := os.Stat(filepath.Join(spool, "lock")); err != nil {
		t.Error(err)
	}
}

func TestALocationCarriesNoSecret(t *testing.T) {
	for _, location := range []string{"s3://id:key@images", "s3://images?secret=x"} {
		if _, err := s3.Parse(location); err == nil || strings.Contains(err.Error(), "id:key") {
			t.Errorf("%s: %v", location, err)
		}
	}
}
