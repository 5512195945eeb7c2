package images

import (
	"crypto/sha256"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// The reference is BEP 52 read literally: all leaves of the file in one list, filled up to a power of two with 32 zero
// bytes each, joined in pairs.

// reference returns the layers of the tree, leaves first.
func reference(b []byte) [][][32]byte {
	var layer [][32]byte
	for len(b) > 0 {
		n := min(16384, len(b))
		layer = append(layer, sha256.Sum256(b[:n]))
		b = b[n:]
	}
	for len(layer)&(len(layer)-1) != 0 {
		layer = append(layer, [32]byte{})
	}
	layers := [][][32]byte{layer}
	for len(layer) > 1 {
		var next [][32]byte
		for i := 0; i < len(layer); i += 2 {
			next = append(next, sha256.Sum256(append(layer[i][:], layer[i+1][:]...)))
		}
		layer = next
		layers = append(layers, layer)
	}
	return layers
}

// ours hashes a partition as capture and read-back do: tile by tile, piece by piece.
func ours(b []byte, pieceLength int64) (pieces []Digest, root Digest) {
	for start := int64(0); start < int64(len(b)); start += pieceLength {
		piece := b[start:min(int64(len(b)), start+pieceLength)]
		var tiles []Digest
		for off := 0; off < len(piece); off += TileLength {
			tiles = append(tiles, TileHash(piece[off:min(len(piece), off+TileLength)]))
		}
		pieces = append(pieces, PieceHash(tiles, int64(len(piece)), pieceLength, int64(len(b))))
	}
	return pieces, PartitionRoot(slices.Clone(pieces), pieceLength)
}

func compareTrees(t interface{ Fatalf(string, ...any) }, b []byte, pieceLength int64) {
	layers := reference(b)
	pieces, root := ours(b, pieceLength)
	if want := Digest(layers[len(layers)-1][0]); root != want {
		t.Fatalf("%d bytes, pieces of %d: root %s, want %s", len(b), pieceLength, root.Short(), want.Short())
	}
	if int64(len(b)) <= pieceLength {
		return // no piece layer
	}
	height := 0
	for LeafLength<<height < pieceLength {
		height++
	}
	for i, p := range pieces {
		if p != Digest(layers[height][i]) {
			t.Fatalf("%d bytes, pieces of %d: piece %d is %s, want %s", len(b), pieceLength, i, p.Short(), Digest(layers[height][i]).Short())
		}
	}
}

func noise(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}

func TestTreeIsThatOfBEP52AtEveryEdge(t *testing.T) {
	b := noise(8<<20 + 1024)
	for _, base := range []int{512, LeafLength, TileLength, 1 << 20, 4 << 20, 3 * LeafLength, 5 * TileLength, 256 << 10, 8 << 20} {
		for _, n := range []int{base - 512, base, base + 512} {
			for _, pieceLength := range []int64{MinPieceLength, 1 << 20, 4 << 20} {
				if n > 0 {
					compareTrees(t, b[:n], pieceLength)
				}
			}
		}
	}
}

func TestTreeIsThatOfBEP52ForAnyLength(t *testing.T) {
	b := noise(3 << 20)
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, len(b)).Draw(t, "length")
		pieceLength := int64(MinPieceLength) << rapid.IntRange(0, 4).Draw(t, "piece length")
		compareTrees(t, b[:n], pieceLength)
	})
}

func TestZeroTileHashes(t *testing.T) {
	for _, n := range []int{1, 512, LeafLength, LeafLength + 1, 3 * LeafLength, TileLength - 512, TileLength} {
		layers := reference(make([]byte, n))
		if got := ZeroTileHash(n); got != Digest(layers[len(layers)-1][0]) {
			t.Errorf("%d zeros hash to %s", n, got)
		}
	}
}

func TestTileHashAllocatesNothing(t *testing.T) {
	b := noise(TileLength)
	if n := testing.AllocsPerRun(10, func() { TileHash(b) }); n != 0 {
		t.Errorf("%v allocations a tile", n)
	}
}

func TestPieceLengthFor(t *testing.T) {
	for _, c := range []struct{ data, disk, want int64 }{
		{0, 1 << 30, 256 << 10},
		{300 << 20, 8 << 30, 256 << 10},
		{1 << 30, 8 << 30, 512 << 10},
		{4 << 30, 64 << 30, 2 << 20},
		{8 << 30, 64 << 30, 4 << 20},
		{60 << 30, 512 << 30, 4 << 20},
		{600e9, 1 << 40, 8 << 20},
		{3 << 40, 4 << 40, 16 << 20},
		{1 << 30, 2 << 40, 4 << 20}, // the disk's length counts
		{1 << 30, 64 << 40, 16 << 20},
	} {
		if got := PieceLengthFor(c.data, c.disk); got != c.want {
			t.Errorf("%d bytes of data on a disk of %d: pieces of %d, want %d", c.data, c.disk, got, c.want)
		}
	}
}

func BenchmarkTileHash(b *testing.B) {
	raw := noise(TileLength)
	b.SetBytes(TileLength)
	for b.Loop() {
		TileHash(raw)
	}
}
