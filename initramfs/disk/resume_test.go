package disk

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"seedbed/appliance/job"
	"seedbed/images"
	"seedbed/initramfs/disk/disktest"
)

// fetchHashes serves the tile layers of an image, and counts the ranges.
func fetchHashes(t *testing.T, img *disktest.Image, count *int) FetchHashes {
	return func(_ context.Context, partition int, ranges []images.Extent) (parts [][]byte, err error) {
		layer, err := img.Fetch(img.Manifest.Partitions[partition].TileLayer)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range ranges {
			parts = append(parts, layer[e.Offset:e.End()])
			*count++
		}
		return parts, nil
	}
}

// search looks at the disk as an agent does and returns the pieces found.
func searchDisk(t *testing.T, img *disktest.Image, s *Storage) (worth bool, ranges int) {
	t.Helper()
	worth, err := s.Probe(t.Context(), fetchHashes(t, img, &ranges))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Look(t.Context(), func(int) {}, nothing); err != nil {
		t.Fatal(err)
	}
	return worth, ranges
}

// hashesOf returns the hashes of the data tiles of a piece of the image.
func hashesOf(img *disktest.Image, piece int) (hashes []images.Digest) {
	for tile := range img.Layout.Data(piece).All() {
		hashes = append(hashes, images.TileHash(img.Tile(piece, tile)))
	}
	return hashes
}

// deployed makes a disk that holds the image, its zero tiles included.
func deployed(t *testing.T, img *disktest.Image) (*Device, string) {
	t.Helper()
	d, file, _ := noiseDisk(t, disktest.DiskLength)
	s := NewStorage(d, img.Layout)
	if err := s.WriteZeros(t.Context(), len(img.Manifest.Partitions), nothing); err != nil {
		t.Fatal(err)
	}
	fetchAll(t, img, s)
	if err := s.Sync(); err != nil {
		t.Fatal(err)
	}
	return d, file
}

// spoil flips a byte of each of the ranges, relative to a partition of a piece.
func spoil(t *testing.T, img *disktest.Image, file string, piece int, ranges ...images.Extent) {
	t.Helper()
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, e := range ranges {
		at := img.Layout.DiskOffset(img.Layout.Span(piece).Partition) + e.Offset
		b := make([]byte, 1)
		if _, err := f.ReadAt(b, at); err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt([]byte{b[0] ^ 1}, at); err != nil {
			t.Fatal(err)
		}
	}
}

func TestNothingThatIsRightIsWritten(t *testing.T) {
	img := disktest.New(t)
	d, _ := deployed(t, img)
	before, _ := d.Written()
	s := NewStorage(d, img.Layout)
	worth, _ := searchDisk(t, img, s)
	if fetched := fetchAll(t, img, s); fetched != 0 || !worth {
		t.Errorf("%d bytes were fetched for a disk that holds the image; worth %v", fetched, worth)
	}
	if after, _ := d.Written(); after != before {
		t.Errorf("%d bytes were written on a disk that holds the image", after-before)
	}
	if _, err := s.Verify(t.Context(), img.Manifest, job.VerifyFull, nothing); err != nil {
		t.Error(err)
	}
}

// TestOnlyWhatIsWrongIsFetchedAndWritten breaks pieces as a whole, single tiles, and zero tiles.
func TestOnlyWhatIsWrongIsFetchedAndWritten(t *testing.T) {
	img := disktest.New(t)
	d, file := deployed(t, img)
	lost, zeros := int64(0), int64(0)
	for piece := range img.Layout.Count() {
		for tile := range img.Layout.Data(piece).All() {
			if piece%3 == 0 || piece%3 == 1 && tile == 2 {
				spoil(t, img, file, piece, img.Layout.WriteExtents(nil, piece, tile, 1)[0])
				lost += int64(img.Layout.TileLength(piece, tile))
			}
		}
		for tile := range img.Layout.Zero(piece).All() {
			if piece%4 == 0 {
				used := img.Layout.WriteExtents(nil, piece, tile, 1)
				spoil(t, img, file, piece, used...)
				zeros += images.TotalLength(used)
			}
		}
	}
	before, _ := d.Written()
	s := NewStorage(d, img.Layout)
	searchDisk(t, img, s)
	if after, _ := d.Written(); after-before != zeros || zeros == 0 {
		t.Errorf("%d bytes of zeros were written, %d were wrong", after-before, zeros)
	}
	parts := 0
	for piece := range img.Layout.Count() {
		if s.InPart(piece) {
			parts++
			s.Learn(piece, hashesOf(img, piece))
		}
	}
	total := img.Layout.DataLength()
	if held, resumed := s.Progress(); held != total-lost || resumed != held || parts == 0 {
		t.Errorf("held %d, resumed %d of %d, %d were lost; %d pieces in part", held, resumed, total, lost, parts)
	}
	if fetched := fetchAll(t, img, s); fetched != lost {
		t.Errorf("fetched %d bytes, %d were lost", fetched, lost)
	}
	if err := s.Sync(); err != nil {
		t.Fatal(err)
	}
	verified := atomic.Int64{}
	if _, err := s.Verify(t.Context(), img.Manifest, job.VerifyFull, func(n int64) { verified.Add(n) }); err != nil || verified.Load() != total {
		t.Errorf("verified %d of %d: %v", verified.Load(), total, err)
	}
	// What was written is read back, also in pieces that were right in part.
	piece := 1
	for !img.Layout.Data(piece).Has(2) {
		piece += 3
	}
	spoil(t, img, file, piece, img.Layout.WriteExtents(nil, piece, 2, 1)...)
	if _, err := s.Verify(t.Context(), img.Manifest, job.VerifyFull, nothing); !errors.As(err, new(*ErrContent)) {
		t.Errorf("a byte behind the search was changed: %v", err)
	}
}

func TestProbe(t *testing.T) {
	img := disktest.NewLong(t)
	d, file, _ := noiseDisk(t, len(img.Disk))
	s := NewStorage(d, img.Layout)
	if worth, ranges := searchDisk(t, img, s); worth || ranges == 0 || ranges > probes {
		t.Errorf("a disk full of noise is worth a look: %v after %d ranges", worth, ranges)
	}
	if held, _ := s.Progress(); held != 0 {
		t.Errorf("%d bytes of noise are held", held)
	}
	for piece := range img.Layout.Count() {
		if s.Unseen(piece) {
			t.Fatalf("piece %d waits to be looked at", piece)
		}
	}
	if err := os.WriteFile(file, make([]byte, len(img.Disk)), 0o600); err != nil {
		t.Fatal(err)
	}
	if worth, ranges := searchDisk(t, img, NewStorage(d, img.Layout)); worth || ranges != 0 {
		t.Errorf("a blank disk is worth a look: %v after %d ranges", worth, ranges)
	}
	fetchAll(t, img, NewStorage(d, img.Layout))
	s = NewStorage(d, img.Layout)
	if worth, _ := searchDisk(t, img, s); !worth {
		t.Error("a disk that holds the image is not worth a look")
	}
	if held, _ := s.Progress(); held != img.Layout.DataLength() {
		t.Errorf("%d bytes of %d are held", held, img.Layout.DataLength())
	}
}

// allOnes is a bitmap that claims every piece.
func allOnes(n int) []byte { return bytes.Repeat([]byte{0xff}, n) }

// TestHintOrdersTheSearch: what was not reported is looked at first, in the order of the disk.
func TestHintOrdersTheSearch(t *testing.T) {
	img := disktest.New(t)
	d, _ := deployed(t, img)
	s := NewStorage(d, img.Layout)
	bits := make([]byte, (img.Layout.Count()+7)/8)
	var early, late, order []int
	for piece := range img.Layout.Count() {
		if piece%3 == 0 {
			bits[piece/8] |= 0x80 >> (piece % 8)
		}
		switch {
		case s.used(piece).IsEmpty():
		case piece%3 == 0:
			late = append(late, piece)
		default:
			early = append(early, piece)
		}
	}
	s.Hint(bits)
	s.expect()
	for piece, ok := s.nextUnseen(t.Context()); ok; piece, ok = s.nextUnseen(t.Context()) {
		order = append(order, piece)
	}
	if !slices.Equal(order, append(early, late...)) || len(late) == 0 {
		t.Errorf("looked at %v, want %v, then %v", order, early, late)
	}
}

// TestHintIsNoProof: a bitmap of any length and content, for a disk that holds some of the image, all of it or nothing,
// changes neither what is held nor what is written.
func TestHintIsNoProof(t *testing.T) {
	img := disktest.New(t)
	n := (img.Layout.Count() + 7) / 8
	for name, bits := range map[string][]byte{"none": nil, "empty": make([]byte, n), "short": {0xff}, "all": allOnes(n),
		"long": allOnes(4 * n), "half": bytes.Repeat([]byte{0xaa}, n)} {
		for _, spoiled := range []int{0, 3, 1} { // every n-th piece; 0 is none
			d, file := deployed(t, img)
			var wrong int64
			for piece := range img.Layout.Count() {
				for tile := range img.Layout.Data(piece).All() {
					if spoiled > 0 && piece%spoiled == 0 {
						spoil(t, img, file, piece, img.Layout.WriteExtents(nil, piece, tile, 1)[0])
						wrong += int64(img.Layout.TileLength(piece, tile))
					}
				}
			}
			s := NewStorage(d, img.Layout)
			s.Hint(bits)
			searchDisk(t, img, s)
			if fetched := fetchAll(t, img, s); fetched != wrong {
				t.Errorf("%s, %d: fetched %d bytes, %d were wrong", name, spoiled, fetched, wrong)
			}
			if err := s.Sync(); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Verify(t.Context(), img.Manifest, job.VerifyFull, nothing); err != nil {
				t.Errorf("%s, %d: %v", name, spoiled, err)
			}
		}
	}
}

// TestHintFindsTheLittleThatWasWritten: a disk with one right piece among hundreds passes for one that holds nothing,
// unless it was reported; a lie costs the look at a few tiles.
func TestHintFindsTheLittleThatWasWritten(t *testing.T) {
	img := disktest.NewLong(t)
	d, _, _ := noiseDisk(t, len(img.Disk))
	piece := 0
	for img.Layout.Data(piece).IsEmpty() {
		piece++
	}
	for tile := range img.Layout.Data(piece).All() {
		if err := NewStorage(d, img.Layout).Write(piece, tile, [][]byte{img.Tile(piece, tile)}); err != nil {
			t.Fatal(err)
		}
	}
	s := NewStorage(d, img.Layout)
	nothingHeld := s.Bitmap() // pieces without data are held
	bits := bytes.Clone(nothingHeld)
	bits[piece/8] |= 0x80 >> (piece % 8)
	s.Hint(bits)
	if b := s.Bitmap(); !bytes.Equal(b, bits) {
		t.Errorf("before the disk was looked at, %x is reported", b)
	}
	var ranges int
	worth, err := s.Probe(t.Context(), fetchHashes(t, img, &ranges))
	if err != nil || !worth {
		t.Fatalf("a disk with a piece that was reported is worth no look: %v", err)
	}
	if b := s.Bitmap(); !bytes.Equal(b, bits) {
		t.Errorf("after the probe, %x is reported", b)
	}
	if err := s.Look(t.Context(), func(int) {}, nothing); err != nil {
		t.Fatal(err)
	}
	if held, _ := s.Progress(); held == 0 || !bytes.Equal(s.Bitmap(), bits) {
		t.Errorf("%d bytes are held, %x is reported", held, s.Bitmap())
	}
	noise, _, _ := noiseDisk(t, len(img.Disk))
	s = NewStorage(noise, img.Layout)
	s.Hint(allOnes(len(bits)))
	if worth, ranges := searchDisk(t, img, s); worth || ranges > probes+hintProbes {
		t.Errorf("a lie made noise worth a look: %v after %d ranges", worth, ranges)
	}
	if b := s.Bitmap(); !bytes.Equal(b, nothingHeld) {
		t.Errorf("the lie is reported again: %x", b)
	}
}

// TestLookingWaitsForHashesAndServesWants: with room for the hashes of one piece, it goes on as they are learnt, and what is
// wanted is looked at all the same.
func TestLookingWaitsForHashesAndServesWants(t *testing.T) {
	img := disktest.New(t)
	d, file := deployed(t, img)
	var pieces []int
	for piece := range img.Layout.Count() {
		if data := img.Layout.Data(piece); data.Len() > 1 {
			pieces = append(pieces, piece)
			spoil(t, img, file, piece, img.Layout.WriteExtents(nil, piece, 0, img.Layout.Tiles(piece))...)
			for tile := range data.All() { // one is right
				if e := img.Layout.WriteExtents(nil, piece, tile, 1); len(e) > 0 {
					raw := img.Tile(piece, tile)
					at := img.Layout.TileExtent(piece, tile, 1)
					for _, x := range e {
						d.WriteAt(raw[x.Offset-at.Offset:x.End()-at.Offset], img.Layout.DiskOffset(img.Layout.Span(piece).Partition)+x.Offset)
					}
					break
				}
			}
		}
	}
	s := NewStorage(d, img.Layout)
	s.maxFound = 1
	s.expect()
	var mu sync.Mutex
	var found []int
	seen := make(chan struct{}, img.Layout.Count())
	over := make(chan error, 1)
	go func() {
		over <- s.Look(t.Context(), func(piece int) {
			mu.Lock()
			found = append(found, piece)
			mu.Unlock()
			seen <- struct{}{}
		}, nothing)
	}()
	full := func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.foundKept >= s.maxFound
	}
	for deadline := time.Now().Add(10 * time.Second); !full(); {
		select {
		case <-seen:
		case <-time.After(time.Until(deadline)):
			t.Fatal("nothing was found in part")
		}
	}
	last := pieces[len(pieces)-1]
	s.Want(last)
	for deadline := time.Now().Add(10 * time.Second); s.Unseen(last); {
		select {
		case <-seen:
		case <-time.After(time.Until(deadline)):
			t.Fatal("a wanted piece waits for the others")
		}
	}
	s.mu.Lock()
	kept := s.foundKept
	s.mu.Unlock()
	if limit := (s.workers() + 2) * images.MaxPieceTiles; kept > limit {
		t.Errorf("%d hashes are kept", kept)
	}
	for {
		for _, piece := range rand.Perm(img.Layout.Count()) {
			if s.InPart(piece) {
				s.Learn(piece, hashesOf(img, piece))
			}
		}
		select {
		case err := <-over:
			if err != nil {
				t.Fatal(err)
			}
			if s.search.any() {
				t.Error("the end came before everything was looked at")
			}
			return
		case <-seen:
		}
	}
}
