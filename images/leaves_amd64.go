//go:build !purego

package images

import (
	"encoding/binary"

	"github.com/klauspost/cpuid/v2"
)

// canPair says that this processor hashes two leaves in little more time than one.
var canPair = cpuid.CPU.Supports(cpuid.SHA, cpuid.SSE4, cpuid.SSSE3)

// twoBlocks takes n blocks of 64 bytes at p into the state a, and n at q into b. The words of a state stand as leafState has
// them.
//
//go:noescape
func twoBlocks(a, b *[8]uint32, p, q *byte, n int)

// leafState is the state that SHA-256 begins with (FIPS 180-4 §5.3.3), its words in the order F E B A, H G D C.
var leafState = [8]uint32{0x9b05688c, 0x510e527f, 0xbb67ae85, 0x6a09e667, 0x5be0cd19, 0x1f83d9ab, 0xa54ff53a, 0x3c6ef372}

// leafEnd is the block behind a whole leaf: a bit that is set, zeros, the length in bits (FIPS 180-4 §5.1.1).
var leafEnd = func() (b [64]byte) {
	b[0] = 0x80
	binary.BigEndian.PutUint64(b[56:], 8*LeafLength)
	return b
}()

// pair returns the hashes of two whole leaves.
func pair(p, q *[LeafLength]byte) (Digest, Digest) {
	a, b := leafState, leafState
	twoBlocks(&a, &b, &p[0], &q[0], LeafLength/len(leafEnd))
	twoBlocks(&a, &b, &leafEnd[0], &leafEnd[0], 1)
	return leafDigest(&a), leafDigest(&b)
}

func leafDigest(s *[8]uint32) (d Digest) {
	for i, w := range [8]uint32{s[3], s[2], s[7], s[6], s[1], s[0], s[5], s[4]} {
		binary.BigEndian.PutUint32(d[4*i:], w)
	}
	return d
}

// bigEndian turns the bytes of each of four words round.
var bigEndian = [16]byte{3, 2, 1, 0, 7, 6, 5, 4, 11, 10, 9, 8, 15, 14, 13, 12}

// rounds are the constants of the rounds (FIPS 180-4 §4.2.2).
var rounds = [64]uint32{
	0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
	0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
	0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
	0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
	0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
	0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
	0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
	0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
}
