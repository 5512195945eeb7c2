package images

import (
	"crypto/sha256"
	"math/bits"
)

// The merkle tree of BEP 52, "file tree" and "piece layers": SHA-256 of 16 KiB leaves, joined in pairs. Leaves past the
// end of the file are 32 zero bytes (not the hash of a zero leaf).

// zeroLeaf is the hash of a leaf of 16 KiB zeros.
var zeroLeaf = Sum(make([]byte, LeafLength))

// padRoot[h] is the root of a tree of height h whose leaves all lie past the end.
var padRoot = func() (p [48]Digest) {
	for h := 1; h < len(p); h++ {
		p[h] = join(p[h-1], p[h-1])
	}
	return p
}()

func join(a, b Digest) Digest {
	var buf [2 * sha256.Size]byte
	copy(buf[:], a[:])
	copy(buf[sha256.Size:], b[:])
	return sha256.Sum256(buf[:])
}

// LeafCount returns how many leaves n bytes have.
func LeafCount(n int64) int64 { return (n + LeafLength - 1) / LeafLength }

// TileCount returns how many tiles n bytes have.
func TileCount(n int64) int64 { return (n + TileLength - 1) / TileLength }

// height returns the height of the smallest tree that holds n leaves (0 for one leaf).
func height(n int64) int {
	if n <= 1 {
		return 0
	}
	return bits.Len64(uint64(n - 1))
}

// AppendLeaves appends the hash of each 16 KiB leaf of b to dst; the last leaf may be shorter.
func AppendLeaves(dst []Digest, b []byte) []Digest {
	for canPair && len(b) >= 2*LeafLength {
		first, second := pair((*[LeafLength]byte)(b), (*[LeafLength]byte)(b[LeafLength:]))
		dst = append(dst, first, second)
		b = b[2*LeafLength:]
	}
	for len(b) > 0 {
		n := min(LeafLength, len(b))
		dst = append(dst, Sum(b[:n]))
		b = b[n:]
	}
	return dst
}

// Root returns the root over hashes that are themselves roots of trees of height h, padded to a power of two with
// subtrees past the end. No hashes give the root of such a subtree. It overwrites hashes.
func Root(hashes []Digest, h int) Digest {
	if len(hashes) == 0 {
		return padRoot[h]
	}
	for ; len(hashes) > 1; h++ {
		n := 0
		for i := 0; i < len(hashes); i += 2 {
			right := padRoot[h]
			if i+1 < len(hashes) {
				right = hashes[i+1]
			}
			hashes[n] = join(hashes[i], right)
			n++
		}
		hashes = hashes[:n]
	}
	return hashes[0]
}

// Lift raises a root of height from to height to by joining it with subtrees past the end.
func Lift(d Digest, from, to int) Digest {
	for ; from < to; from++ {
		d = join(d, padRoot[from])
	}
	return d
}

// Heights of the trees under a full tile.
const tileHeight = 2

// TileHash returns the merkle root over the leaves of one tile (at most TileLength bytes), padded to the next power of
// two of its own leaf count. It allocates nothing.
func TileHash(b []byte) Digest {
	var leaves [LeavesPerTile]Digest
	return Root(AppendLeaves(leaves[:0], b), 0)
}

// ZeroTileHash returns the TileHash of n zero bytes, 0 < n <= TileLength.
func ZeroTileHash(n int) Digest {
	if n == TileLength {
		return zeroTile
	}
	return TileHash(zeros[:n])
}

var (
	zeros    [TileLength]byte
	zeroTile = func() Digest {
		l := []Digest{zeroLeaf, zeroLeaf, zeroLeaf, zeroLeaf}
		return Root(l, 0)
	}()
)

// PieceHash returns the root of one piece from the hashes of its tiles. pieceBytes is the number of bytes that the
// piece holds, partitionLength the length of its partition: a partition of at most one piece has a lower tree, every
// other piece a tree of full piece height. It overwrites tiles.
func PieceHash(tiles []Digest, pieceBytes, pieceLength, partitionLength int64) Digest {
	if k := len(tiles); k > 0 {
		if tail := LeafCount(pieceBytes - int64(k-1)*TileLength); tail < LeavesPerTile && (k > 1 || partitionLength > pieceLength) {
			tiles[k-1] = Lift(tiles[k-1], height(tail), tileHeight)
		}
	}
	if partitionLength <= pieceLength {
		if len(tiles) == 1 {
			return tiles[0] // the height of its own leaves
		}
		return Root(tiles, tileHeight)
	}
	n := int64(len(tiles))
	return Lift(Root(tiles, tileHeight), tileHeight+height(n), tileHeight+height(pieceLength/TileLength))
}

// PartitionRoot returns the "pieces root" of BEP 52 from the hashes of all pieces of a partition. It overwrites pieces.
func PartitionRoot(pieces []Digest, pieceLength int64) Digest {
	if len(pieces) == 1 {
		return pieces[0]
	}
	return Root(pieces, height(pieceLength/LeafLength))
}
