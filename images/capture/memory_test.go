package capture

import (
	"context"
	"math/rand/v2"
	"runtime"
	"runtime/debug"
	"testing"

	"seedbed/images"
	"seedbed/images/intake"
	"seedbed/images/tile"
)

// synthetic is a disk without a table, a quarter of whose tiles is made up on the fly, a quarter equal, the rest zero.
type synthetic struct{ noise []byte }

func (s synthetic) ReadAt(b []byte, offset int64) (int, error) {
	clear(b)
	for at := 0; at < len(b); {
		pos := offset + int64(at)
		n := min(int(images.TileLength-pos%images.TileLength), len(b)-at)
		switch t := pos / images.TileLength; {
		case t == 0 || t%4 > 1:
		case t%4 == 1:
			copy(b[at:at+n], s.noise[pos%images.TileLength:])
		default:
			copy(b[at:at+n], s.noise[(t*37)%images.TileLength:])
		}
		at += n
	}
	return len(b), nil
}

// discard is a sink that keeps nothing.
type discard struct{}

func (discard) Have(_ context.Context, keys []images.TileKey) ([]bool, error) {
	return make([]bool, len(keys)), nil
}
func (discard) Put(context.Context, []intake.Tile) error { return nil }
func (discard) Commit(context.Context, *intake.Spec) (*intake.Published, error) {
	return &intake.Published{}, nil
}
func (discard) Close() error { return nil }

func TestMemoryStaysBounded(t *testing.T) {
	noise := make([]byte, 2*images.TileLength)
	rand.NewChaCha8([32]byte{3}).Read(noise)
	const length = 256 * mib
	var before, now runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	peak := uint64(0)
	defer debug.SetGCPercent(debug.SetGCPercent(25)) // what is in use counts, not what waits to be collected
	o := options("large")
	o.Codec, o.Workers = tile.LZ4, 16
	n := 0
	o.Progress = func(Progress) {
		if n++; n%16 == 0 {
			runtime.ReadMemStats(&now)
			peak = max(peak, now.HeapInuse)
		}
	}
	if _, err := Disk(t.Context(), synthetic{noise}, length, 512, discard{}, o.Options); err != nil {
		t.Fatal(err)
	}
	if grown := int64(peak) - int64(before.HeapInuse); grown > 96*mib {
		t.Errorf("the heap grew by %d bytes", grown)
	}
}
