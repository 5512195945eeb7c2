package images

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
)

// Digest is a SHA-256. The zero value is what the merkle tree of BEP 52 uses for leaves past the end of a file.
type Digest [sha256.Size]byte

// Sum returns the SHA-256 of b.
func Sum(b []byte) Digest { return sha256.Sum256(b) }

// String returns 64 lower-case hexadecimal digits.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// Short returns the first 12 hexadecimal digits, for people and logs.
func (d Digest) Short() string { return hex.EncodeToString(d[:6]) }

// IsZero reports whether all bytes are zero.
func (d Digest) IsZero() bool { return d == Digest{} }

// MarshalText encodes as hexadecimal digits (JSON, flags).
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText is the reverse of MarshalText.
func (d *Digest) UnmarshalText(b []byte) (err error) { *d, err = ParseDigest(string(b)); return err }

// ParseDigest reads 64 hexadecimal digits.
func ParseDigest(s string) (d Digest, err error) {
	if len(s) != 2*len(d) {
		return d, fmt.Errorf("digest %q: %d characters, want %d hexadecimal digits", clip(s), len(s), 2*len(d))
	}
	if _, err = hex.Decode(d[:], []byte(s)); err != nil {
		return Digest{}, fmt.Errorf("digest %q: %w", clip(s), err)
	}
	return d, nil
}

// InfoHash names a swarm: the SHA-256 of the bencoded info dictionary (BEP 52).
type InfoHash [sha256.Size]byte

// String returns 64 lower-case hexadecimal digits.
func (h InfoHash) String() string { return hex.EncodeToString(h[:]) }

// Wire returns the first 20 bytes, which the handshake and the tracker use (BEP 52, "info hash").
func (h InfoHash) Wire() (w [20]byte) { copy(w[:], h[:]); return w }

// MarshalText encodes as hexadecimal digits.
func (h InfoHash) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText is the reverse of MarshalText.
func (h *InfoHash) UnmarshalText(b []byte) (err error) {
	*h, err = ParseInfoHash(string(b))
	return err
}

// ParseInfoHash reads 64 hexadecimal digits.
func ParseInfoHash(s string) (InfoHash, error) {
	d, err := ParseDigest(s)
	return InfoHash(d), err
}

func clip(s string) string {
	if len(s) > 80 {
		return s[:80] + "..."
	}
	return s
}
