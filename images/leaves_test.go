package images

import (
	"bytes"
	"crypto/sha256"
	"math/rand/v2"
	"testing"
)

// Leaves that are hashed two at a time are hashed as the library hashes one.
func TestLeavesAreSHA256(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	contents := [][]byte{make([]byte, 4*LeafLength), bytes.Repeat([]byte{0xff}, 4*LeafLength), bytes.Repeat([]byte{0x80, 0, 0, 0}, LeafLength)}
	for range 50 {
		b := make([]byte, 1+r.IntN(6*LeafLength))
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		contents = append(contents, b, b[len(b)/3:]) // the second one lies at any address
	}
	for _, b := range contents {
		leaves := AppendLeaves([]Digest{{1}}, b)
		if n := LeafCount(int64(len(b))); int64(len(leaves)) != 1+n {
			t.Fatalf("%d leaves of %d bytes, want %d", len(leaves)-1, len(b), n)
		}
		for i, got := range leaves[1:] {
			if leaf := b[i*LeafLength : min((i+1)*LeafLength, len(b))]; got != Digest(sha256.Sum256(leaf)) {
				t.Errorf("leaf %d of %d bytes: %v", i, len(b), got)
			}
		}
	}
}

func BenchmarkSum(b *testing.B) {
	tile := make([]byte, TileLength)
	b.SetBytes(TileLength)
	for b.Loop() {
		Sum(tile)
	}
}
