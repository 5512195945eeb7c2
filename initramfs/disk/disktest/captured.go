package disktest

import (
	"bytes"
	"context"
	"testing"
	"time"

	"seedbed/images"
	"seedbed/images/capture"
	"seedbed/images/intake"
	"seedbed/images/layout"
)

// Captured returns the image that a capture makes of a disk, which is kept and must not be changed.
func Captured(t testing.TB, disk []byte) *Image {
	t.Helper()
	s := &shelf{img: &Image{Disk: disk}}
	_, err := capture.Disk(t.Context(), bytes.NewReader(disk), int64(len(disk)), 512, s, capture.Options{PieceLength: PieceLength, Created: time.Unix(1e9, 0)})
	if err != nil {
		t.Fatal(err)
	}
	return s.img
}

// shelf takes one capture. It keeps no tiles: those are on the disk.
type shelf struct{ img *Image }

func (s *shelf) Have(_ context.Context, keys []images.TileKey) ([]bool, error) {
	have := make([]bool, len(keys))
	for i := range have {
		have[i] = true
	}
	return have, nil
}

func (s *shelf) Put(context.Context, []intake.Tile) error { return nil }

func (s *shelf) Commit(_ context.Context, spec *intake.Spec) (_ *intake.Published, err error) {
	img := s.img
	if img.Manifest, img.Layers, err = intake.Assemble(spec, "test", "1"); err != nil {
		return nil, err
	}
	if img.Layout, err = layout.Load(img.Manifest, img.Fetch); err != nil {
		return nil, err
	}
	img.Raw, img.Digest, err = img.Manifest.Encode()
	return &intake.Published{Digest: img.Digest, Name: "test", Version: "1"}, err
}

func (s *shelf) Close() error { return nil }
