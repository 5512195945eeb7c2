package disk

import (
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"seedbed/initramfs/disk/disktest"
)

// BenchmarkLook hashes what a disk holds, on one core: what a record on the disk would save.
func BenchmarkLook(b *testing.B) {
	img := disktest.NewLong(b)
	file := filepath.Join(b.TempDir(), "disk.img")
	if err := os.WriteFile(file, img.Disk, 0o600); err != nil {
		b.Fatal(err)
	}
	d, err := Open(file, "vda")
	if err != nil {
		b.Fatal(err)
	}
	defer d.Close()
	s := NewStorage(d, img.Layout)
	r, err := s.newRunReader()
	if err != nil {
		b.Fatal(err)
	}
	defer r.Close()
	var read atomic.Int64
	for b.Loop() {
		s := NewStorage(d, img.Layout)
		for piece := range img.Layout.Count() {
			if err := s.look(r, piece, func(n int64) { read.Add(n) }); err != nil {
				b.Fatal(err)
			}
		}
		if held, _ := s.Progress(); held != img.Layout.DataLength() {
			b.Fatalf("%d bytes of %d are held", held, img.Layout.DataLength())
		}
	}
	b.SetBytes(read.Load() / int64(b.N))
}
