package repository

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"seedbed/images"
	"seedbed/images/intake"
)

// One flipped bit, and which test proves that it is found, named, and healed where there is another copy:
//
//	record of a pack          TestEachFlippedBitOfATileIsFoundAndItsPlaceNamed, TestTilesAreHealedFromAMachineForAllImages
//	index, trailer of a pack  TestAFlippedBitOfAnObjectIsFoundNamedAndHealed
//	placement, manifest       the same
//	map, piece layer, tile layer, frame region, signature  the same
//	version                   TestAFlippedBitOfAVersionIsFoundAndPrunesNothing
//	local index               TestADamagedIndexCostsSpaceAndNeverContent
//	segment of the journal    TestAFlippedBitInTheJournalIsCapturedAgain
//	disk of a machine         initramfs/agent TestAFlippedBitOnTheDiskIsFoundBeforeTheTableIsWritten, images/restore TestAFlippedBitIsNamedAndRepaired,
//	                          appliance TestADiskIsVerifiedAndRepaired
//	in flight                 images/swarm TestPeerThatLies, appliance/upload TestAFlippedBitInAnUploadIsRefusedAndSentAgain,
//	                          initramfs/agent TestAFlippedBitOfTheDescriptionIsFoundBeforeAnythingIsWritten,
//	                          TestAFlippedBitOfTheTileLayerCostsATileAtMost

// flip changes one bit of a file and returns how to change it back.
func flip(t *testing.T, name string, at int64, bit int) (back func()) {
	t.Helper()
	change := func() {
		spoilFile(t, name, func(b []byte) []byte { b[at] ^= 1 << bit; return b })
	}
	change()
	return change
}

// TestAFlippedBitOfAnObjectIsFoundNamedAndHealed flips bits all over each object of an image.
func TestAFlippedBitOfAnObjectIsFoundNamedAndHealed(t *testing.T) {
	random := rng(700)
	source := newSample(rng(701), "debian", "1", 1<<20, 100<<10, 2<<20)
	p := &source.m.Partitions[1]
	_, digest, err := source.m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	flips := 4
	if full() {
		flips = 40
	}
	index := func(b []byte) (start int64) { return int64(bytes.LastIndex(b, []byte(indexMagic))) }
	for _, object := range []struct {
		what, key string
		from      func(b []byte) int64 // bits from here on; nil: all
		packs     bool                 // what is healed are all tiles, in new packs
	}{
		{"manifest", manifestKey(digest), nil, false},
		{"frame", layerKey(source.m.Frame.Region[0].Digest), nil, false},
		{"map", layerKey(p.Map.Digest), nil, false},
		{"piece layer", layerKey(p.PieceLayer.Digest), nil, false},
		{"tile layer", layerKey(p.TileLayer.Digest), nil, false},
		{"placement", placementKey(digest, p), nil, false},
		{"index of a pack", "packs/*", index, true},
		{"trailer of a pack", "packs/*", func(b []byte) int64 { return int64(len(b)) - trailerLength }, true},
	} {
		t.Run(object.what, func(t *testing.T) {
			for range flips {
				folder := t.TempDir()
				r := openTest(t, folder)
				s := newSample(rng(701), "debian", "1", 1<<20, 100<<10, 2<<20)
				image, err := s.publish(t.Context(), r)
				if err != nil || image.Digest != digest {
					t.Fatal(image, err)
				}
				r.Close() // what is in memory of the packs goes
				names, err := filepath.Glob(filepath.Join(folder, filepath.FromSlash(object.key)))
				if err != nil || len(names) == 0 {
					t.Fatal(names, err)
				}
				b, err := os.ReadFile(names[0])
				if err != nil {
					t.Fatal(err)
				}
				from := int64(0)
				if object.from != nil {
					from = object.from(b)
				}
				at, bit := from+random.Int64N(int64(len(b))-from), random.IntN(8)
				flip(t, names[0], at, bit)
				r = openTest(t, folder)
				damage := expectDamage(t, r, digest)
				rel, _ := filepath.Rel(folder, names[0])
				for _, d := range damage {
					if d.Object != filepath.ToSlash(rel) || !strings.Contains(d.Error(), "debian:1") && object.what != "manifest" {
						t.Errorf("bit %d of byte %d of %s: damage found is %v", bit, at, rel, d)
					}
				}
				report, err := r.Heal(t.Context(), digest, damage, &holder{sample: s})
				if err != nil || len(report.Failed) > 0 || object.packs && report.Tiles == 0 || !object.packs && len(report.Objects) != 1 {
					t.Errorf("bit %d of byte %d of %s: healed %+v, %v", bit, at, rel, report, err)
				}
				if err := r.Verify(t.Context(), digest, nil); err != nil {
					t.Errorf("bit %d of byte %d of %s, healed: %v", bit, at, rel, err)
				}
				s.expectContent(t, r, digest)
				r.Close()
			}
		})
	}
}

// TestAFlippedBitOfASignatureIsSeen: who opens an image checks it with the site's key, and only the site can make it anew.
func TestAFlippedBitOfASignatureIsSeen(t *testing.T) {
	folder := t.TempDir()
	r := openTest(t, folder)
	s := newSample(rng(710), "debian", "1", 1<<20, 1<<20)
	image, err := s.publish(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	flip(t, filepath.Join(folder, filepath.FromSlash(signatureKey(image.Digest))), 20, 3)
	got, err := r.Manifest(t.Context(), image.Digest)
	if err != nil || bytes.Equal(got.Signature, testSign(got.Raw)) {
		t.Errorf("the signature is as it was: %v", err)
	}
	damage := []*Damage{{Partition: -1, Object: signatureKey(image.Digest)}}
	if report, err := r.Heal(t.Context(), image.Digest, damage, &holder{sample: s}); err != nil || len(report.Objects) != 1 {
		t.Errorf("%+v, %v", report, err)
	}
	if got, err = r.Manifest(t.Context(), image.Digest); err != nil || !bytes.Equal(got.Signature, testSign(got.Raw)) {
		t.Errorf("the signature was not made anew: %v", err)
	}
}

// TestAFlippedBitOfAVersionIsFoundAndPrunesNothing: each bit of the one object that says which manifest a version is.
func TestAFlippedBitOfAVersionIsFoundAndPrunesNothing(t *testing.T) {
	folder := t.TempDir()
	r := openTest(t, folder)
	s := newSample(rng(711), "debian", "1", 1<<20, 1<<20)
	image, err := s.publish(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(folder, "images", "debian", "1")
	for at := range int64(2 * len(images.Digest{})) {
		back := flip(t, name, at, int(at)%8)
		list, err := r.Images(t.Context())
		if err == nil && len(list) == 1 && list[0].Digest == image.Digest {
			back() // 'a' became 'A': the same digest
			continue
		}
		if err != nil || len(list) != 1 || list[0].Name != "debian" || list[0].Version != "1" || list[0].Problem == "" {
			t.Fatalf("byte %d: images %+v, %v", at, list, err)
		}
		if d, err := r.Resolve(t.Context(), "debian:1"); err == nil {
			if _, err := r.OpenImage(t.Context(), d); err == nil {
				t.Fatalf("byte %d: another image was opened", at)
			}
		}
		if _, err := r.Prune(t.Context(), PruneConfig{}); err == nil || !strings.Contains(err.Error(), "debian:1") {
			t.Fatalf("byte %d: pruned, %v", at, err)
		}
		back()
	}
	if err := r.Verify(t.Context(), image.Digest, nil); err != nil {
		t.Error(err)
	}
}

// TestAFlippedBitInTheJournalIsCapturedAgain: tiles that were acknowledged are damaged in the spool before their pack was
// sealed. They are not there any more, those before them are, and the capture that goes on sends what is missing.
func TestAFlippedBitInTheJournalIsCapturedAgain(t *testing.T) {
	random := rng(713)
	for range 8 {
		folder := t.TempDir()
		r := openTest(t, folder)
		s := newSample(rng(712), "debian", "1", 1<<20, 3<<20)
		session, err := r.Begin(t.Context(), SessionConfig{Name: "debian", Version: "1", Sign: testSign})
		if err == nil {
			err = session.Put(t.Context(), s.tiles())
		}
		if err == nil {
			err = r.Sync()
		}
		if err != nil {
			t.Fatal(err)
		}
		killed := t.TempDir() // as a kill at this moment leaves it
		if err := os.CopyFS(killed, os.DirFS(folder)); err != nil {
			t.Fatal(err)
		}
		session.Close()
		segments, err := filepath.Glob(filepath.Join(killed, ".spool", "journal", "*.segment"))
		if err != nil || len(segments) != 1 {
			t.Fatal(segments, err)
		}
		info, err := os.Stat(segments[0])
		if err != nil {
			t.Fatal(err)
		}
		flip(t, segments[0], int64(len(packMagic))+random.Int64N(info.Size()-int64(len(packMagic))), random.IntN(8))
		again := openTest(t, killed)
		if session, err = again.Begin(t.Context(), SessionConfig{Name: "debian", Version: "1", Sign: testSign}); err != nil {
			t.Fatal(err)
		}
		if _, err := session.Commit(t.Context(), s.spec()); !errors.Is(err, intake.ErrMissing) {
			t.Errorf("an image without a damaged tile was published: %v", err)
		}
		p, err := s.capture(t.Context(), session)
		if err != nil {
			t.Fatal(err)
		}
		session.Close()
		if err := again.Verify(t.Context(), p.Digest, nil); err != nil {
			t.Error(err)
		}
		s.expectContent(t, again, p.Digest)
	}
}
