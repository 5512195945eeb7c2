package disk

import (
	"errors"
	"os"
	"testing"

	"seedbed/appliance/job"
	"seedbed/images"
	"seedbed/initramfs/disk/disktest"
)

// tileAt names a tile.
type tileAt struct{ piece, tile int }

// usedTiles returns all tiles of the image that are in use.
func usedTiles(img *disktest.Image, s *Storage) (list []tileAt) {
	for piece := range img.Layout.Count() {
		for tile := range s.used(piece).All() {
			list = append(list, tileAt{piece, tile})
		}
	}
	return list
}

// unprovenTiles returns the tiles that would be read back.
func unprovenTiles(img *disktest.Image, s *Storage) map[tileAt]bool {
	set := map[tileAt]bool{}
	for piece := range img.Layout.Count() {
		tiles, _ := s.unproven(piece)
		for tile := range tiles.All() {
			set[tileAt{piece, tile}] = true
		}
	}
	return set
}

// looked looks at a disk.
func looked(t *testing.T, img *disktest.Image, d *Device) *Storage {
	t.Helper()
	s := NewStorage(d, img.Layout)
	s.expect()
	if err := s.Look(t.Context(), func(int) {}, nothing); err != nil {
		t.Fatal(err)
	}
	return s
}

// redeployed looks at a disk that holds the image but for some spoiled tiles, and fetches those.
func redeployed(t *testing.T, img *disktest.Image, wrong ...tileAt) (*Storage, string) {
	t.Helper()
	d, file := deployed(t, img)
	for _, at := range wrong {
		spoil(t, img, file, at.piece, img.Layout.WriteExtents(nil, at.piece, at.tile, 1)[0])
	}
	s := looked(t, img, d)
	for piece := range img.Layout.Count() {
		if s.InPart(piece) {
			s.Learn(piece, hashesOf(img, piece))
		}
	}
	fetchAll(t, img, s)
	if err := s.Sync(); err != nil {
		t.Fatal(err)
	}
	return s, file
}

// TestOnlyWhatWasWrittenIsReadBack spoils single tiles, zeros among them: those, and no others, are read back, whatever
// happens to them between the write and the proof.
func TestOnlyWhatWasWrittenIsReadBack(t *testing.T) {
	img := disktest.New(t)
	all := usedTiles(img, NewStorage(nil, img.Layout))
	var wrong []tileAt
	for i := 5; i < len(all); i += 7 {
		wrong = append(wrong, all[i])
	}
	s, file := redeployed(t, img, wrong...)
	unproven := unprovenTiles(img, s)
	if len(unproven) < len(wrong) || len(unproven) > 3*len(wrong) || len(unproven) > len(all)/2 {
		t.Errorf("%d of %d tiles are read back, %d were written", len(unproven), len(all), len(wrong))
	}
	if _, err := s.Verify(t.Context(), img.Manifest, job.VerifyFull, nothing); err != nil {
		t.Fatal(err)
	}
	for _, at := range wrong {
		if !unproven[at] {
			t.Fatalf("%v was written and is not read back", at)
		}
		one := img.Layout.WriteExtents(nil, at.piece, at.tile, 1)[0]
		spoil(t, img, file, at.piece, one)
		if _, err := s.Verify(t.Context(), img.Manifest, job.VerifyFull, nothing); !errors.As(err, new(*ErrContent)) {
			t.Fatalf("%v is wrong, and verification said %v", at, err)
		}
		spoil(t, img, file, at.piece, one) // and right again
	}
}

// TestWriteUnprovesItsNeighbours: a write takes the proof from every tile of which it shares 64 KiB of the disk, in its own
// partition or the next, no matter whether it comes before or after the look; and from no other.
func TestWriteUnprovesItsNeighbours(t *testing.T) {
	img := disktest.NewUnaligned(t)
	extentOf := func(at tileAt) images.Extent {
		e := img.Layout.TileExtent(at.piece, at.tile, 1)
		e.Offset += img.Layout.DiskOffset(img.Layout.Span(at.piece).Partition)
		return e
	}
	d, file := deployed(t, img)
	clean := looked(t, img, d)
	if n := len(unprovenTiles(img, clean)); n != 0 {
		t.Fatalf("%d tiles of a disk that holds the image are read back", n)
	}
	all := usedTiles(img, clean)
	across := 0
	for _, w := range all {
		data := img.Layout.Data(w.piece).Has(w.tile)
		if !data { // Look makes it zeros, and enters its neighbours afterwards
			spoil(t, img, file, w.piece, img.Layout.WriteExtents(nil, w.piece, w.tile, 1)...)
		}
		s := looked(t, img, d)
		if data {
			if err := s.Write(w.piece, w.tile, [][]byte{img.Tile(w.piece, w.tile)}); err != nil {
				t.Fatal(err)
			}
		}
		unproven := unprovenTiles(img, s)
		var written []images.Extent
		base := img.Layout.DiskOffset(img.Layout.Span(w.piece).Partition)
		for _, e := range img.Layout.WriteExtents(nil, w.piece, w.tile, 1) {
			start, end := (base+e.Offset)&^(touchUnit-1), (base+e.End()+touchUnit-1)&^(touchUnit-1)
			written = append(written, images.Extent{Offset: start, Length: end - start})
		}
		for _, at := range all {
			near := false
			for _, e := range written {
				near = near || e.Intersect(extentOf(at)).Length > 0
			}
			if near != unproven[at] {
				t.Errorf("%v was written: %v is near: %v, read back: %v", w, at, near, unproven[at])
			}
			if near && img.Layout.Span(at.piece).Partition != img.Layout.Span(w.piece).Partition {
				across++
			}
		}
	}
	if across == 0 {
		t.Error("no write was near to another partition")
	}
}

// TestUnreadableIsNotProven: what cannot be read is not right when it is looked at, and an error when it is read back.
func TestUnreadableIsNotProven(t *testing.T) {
	img := disktest.New(t)
	d, file := deployed(t, img)
	length := d.Length / 2 // from here on nothing can be read
	if err := os.Truncate(file, length); err != nil {
		t.Fatal(err)
	}
	s := NewStorage(d, img.Layout)
	s.expect()
	r, err := s.newRunReader()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	lost := 0
	for piece := range img.Layout.Count() {
		e := img.Layout.TileExtent(piece, 0, img.Layout.Tiles(piece))
		if img.Layout.DiskOffset(img.Layout.Span(piece).Partition)+e.End() <= length || s.used(piece).IsEmpty() {
			continue
		}
		if _, err := s.readBack(r, piece, nothing); err == nil {
			t.Errorf("piece %d lies behind the end and was read back", piece)
		}
		if err := s.look(r, piece, nothing); err != nil {
			t.Fatal(err)
		}
		if tiles, _ := s.unproven(piece); tiles != s.used(piece) {
			t.Errorf("piece %d could not be read; %v is to be read back of %v", piece, tiles, s.used(piece))
		}
		lost++
		if err := os.Truncate(file, length); err != nil { // the zeros made it longer
			t.Fatal(err)
		}
	}
	if lost == 0 {
		t.Fatal("no piece lies behind the end")
	}
	if _, err := s.Verify(t.Context(), img.Manifest, job.VerifyFull, nothing); err == nil || errors.As(err, new(*ErrContent)) {
		t.Errorf("a disk that cannot be read: %v", err)
	}
}

// TestForgottenHashesMeanReadingWhole: a piece that is proven in part has to be read whole when its hashes went.
func TestForgottenHashesMeanReadingWhole(t *testing.T) {
	img := disktest.New(t)
	var wrong tileAt
	for piece := range img.Layout.Count() {
		if img.Layout.Data(piece).Len() == images.MinPieceLength/images.TileLength {
			wrong = tileAt{piece, 1}
		}
	}
	s, _ := redeployed(t, img, wrong)
	if tiles, _ := s.unproven(wrong.piece); tiles.Len() != 1 {
		t.Errorf("%v is to be read back", tiles)
	}
	s.mu.Lock()
	delete(s.hashes, wrong.piece)
	s.mu.Unlock()
	if tiles, _ := s.unproven(wrong.piece); tiles != s.used(wrong.piece) {
		t.Errorf("%v is to be read back", tiles)
	}
	if _, err := s.Verify(t.Context(), img.Manifest, job.VerifyFull, nothing); err != nil {
		t.Error(err)
	}
}
