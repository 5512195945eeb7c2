package repository

import (
	"bytes"
	"crypto/sha1"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"seedbed/images/torrent"
)

// TestAnOpenImageStaysOpenUntilItIsClosed covers the sums of a real image, a restart, a second opening, and closing.
func TestAnOpenImageStaysOpenUntilItIsClosed(t *testing.T) {
	folder := t.TempDir()
	r := openTest(t, folder)
	s := newSample(rng(1), "room", "1", 100, 5*samplePiece+512, 2*samplePiece, 512)
	image, err := s.publish(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.OpenSums(t.Context(), image.Digest); !errors.Is(err, ErrNotOpen) {
		t.Errorf("an image that nobody opened: %v", err)
	}
	reader, err := r.OpenImage(t.Context(), image.Digest)
	if err != nil {
		t.Fatal(err)
	}
	told := int64(0)
	sums, err := torrent.Sums(t.Context(), reader, func(done, _ int64) { told = done })
	if err != nil {
		t.Fatal(err)
	}
	if want := s.sums(); !bytes.Equal(sums, want) {
		t.Errorf("the sums are %x, want %x", sums, want)
	}
	if told != reader.Layout().DataLength() {
		t.Errorf("progress ended at %d of %d bytes", told, reader.Layout().DataLength())
	}
	for range 2 {
		if err := r.PutOpen(t.Context(), image.Digest, sums); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	r = openTest(t, folder)
	if list, err := r.OpenImages(t.Context()); err != nil || len(list) != 1 || list[0] != image.Digest {
		t.Errorf("open images are %v, %v", list, err)
	}
	if got, err := r.OpenSums(t.Context(), image.Digest); err != nil || !bytes.Equal(got, sums) {
		t.Errorf("the sums were not kept: %v", err)
	}
	for range 2 {
		err = r.RemoveOpen(t.Context(), image.Digest)
		if list, e := r.OpenImages(t.Context()); e != nil || len(list) != 0 {
			t.Errorf("still open: %v, %v", list, e)
		}
	}
	if !errors.Is(err, ErrNotOpen) {
		t.Errorf("closing twice: %v", err)
	}
}

func TestDamagedSumsAreNamed(t *testing.T) {
	folder := t.TempDir()
	r := openTest(t, folder)
	s := newSample(rng(2), "room", "1", 100, 2*samplePiece)
	image, err := s.publish(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.PutOpen(t.Context(), image.Digest, s.sums()); err != nil {
		t.Fatal(err)
	}
	object := filepath.Join(folder, openKey(image.Digest))
	whole, err := os.ReadFile(object)
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []int{0, 31, 32, len(whole) - 1} {
		bad := bytes.Clone(whole)
		bad[at] ^= 1
		if err := os.WriteFile(object, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := r.OpenSums(t.Context(), image.Digest); err == nil || !bytes.Contains([]byte(err.Error()), []byte(openKey(image.Digest))) {
			t.Errorf("a bit flipped in byte %d: %v", at, err)
		}
	}
	for _, n := range []int{0, 31, 32, len(whole) - 20} {
		if err := os.WriteFile(object, whole[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := r.OpenSums(t.Context(), image.Digest); err == nil {
			t.Errorf("%d bytes of %d were taken", n, len(whole))
		}
	}
}

// sums returns the SHA-1 of all pieces, each padded to its full length where there are several partitions.
func (s *sample) sums() (sums []byte) {
	for _, content := range s.content {
		for at := int64(0); at < int64(len(content)); at += samplePiece {
			piece := bytes.Clone(content[at:min(at+samplePiece, int64(len(content)))])
			if len(s.content) > 1 {
				piece = append(piece, make([]byte, samplePiece-len(piece))...)
			}
			sum := sha1.Sum(piece)
			sums = append(sums, sum[:]...)
		}
	}
	return sums
}
