// Package tile encodes, decodes and checks one tile: the unit of compression. All of it is safe for concurrent use.
package tile

import (
	"errors"
	"fmt"

	"seedbed/images"
)

// Codec says how a tile's bytes are stored and travel.
type Codec byte

const (
	Stored Codec = 0 // as they are
	LZ4    Codec = 1 // LZ4 block format
	Zstd   Codec = 2 // one Zstandard frame (RFC 8878)
)

// String returns the name that ParseCodec reads: "none", "lz4" or "zstd".
func (c Codec) String() string {
	switch c {
	case Stored:
		return "none"
	case LZ4:
		return "lz4"
	case Zstd:
		return "zstd"
	}
	return fmt.Sprintf("codec %d", byte(c))
}

// ParseCodec reads "none", "lz4" or "zstd".
func ParseCodec(s string) (Codec, error) {
	for _, c := range []Codec{Stored, LZ4, Zstd} {
		if s == c.String() {
			return c, nil
		}
	}
	return 0, fmt.Errorf("compression %.20q is unknown; choose zstd, lz4 or none", s)
}

// Encoded is one tile as it is stored and as it travels. Bytes belongs to whoever holds the Encoded; it is never
// changed after it was made, so it may be shared.
type Encoded struct {
	Codec Codec
	// Length is the length of the decoded tile: 1 to images.TileLength.
	Length int32
	Bytes  []byte
}

// Key is the tile's name; see images.TileKey.
type Key = images.TileKey

// Hash returns the merkle root over the leaves of a decoded tile of at most images.TileLength bytes.
func Hash(raw []byte) images.Digest { return images.TileHash(raw) }

// KeyOf returns the name of a decoded tile.
func KeyOf(raw []byte) Key { return Key{Hash: Hash(raw), Length: int32(len(raw))} }

// Check reports whether the sizes can be: a decoded length of 1 to images.TileLength, as many bytes for Stored, fewer
// for the codecs that compress. It does not decode.
func (e Encoded) Check() error {
	switch {
	case e.Length < 1 || e.Length > images.TileLength:
		return fmt.Errorf("tile of %d bytes, want 1 to %d", e.Length, images.TileLength)
	case e.Codec > Zstd:
		return fmt.Errorf("tile with unknown %v", e.Codec)
	case e.Codec == Stored && len(e.Bytes) != int(e.Length):
		return fmt.Errorf("stored tile of %d bytes carries %d", e.Length, len(e.Bytes))
	case e.Codec != Stored && (len(e.Bytes) == 0 || len(e.Bytes) >= int(e.Length)):
		return fmt.Errorf("%v tile of %d bytes carries %d", e.Codec, e.Length, len(e.Bytes))
	}
	return nil
}

// errLength says that a tile decodes to another length than it states.
var errLength = errors.New("decoded length differs from the stated one")

// Encode compresses the 1 to images.TileLength bytes of raw. Where the result would not be smaller, the tile is Stored.
// Level 0 is the codec's fastest; zstd takes 1-22 on the scale of the zstd program, lz4 takes 1-9. raw is not kept.
func Encode(codec Codec, level int, raw []byte) (Encoded, error) {
	return encode(codec, level, raw, func(b []byte) []byte { return append([]byte(nil), b...) })
}

// EncodeInPlace is Encode without memory of its own: the encoded bytes take the place of raw's, and belong to who owns raw.
func EncodeInPlace(codec Codec, level int, raw []byte) (Encoded, error) {
	return encode(codec, level, raw, func(b []byte) []byte { n := copy(raw, b); return raw[:n:n] })
}

// encode compresses into scratch memory and returns what keep makes of the result.
func encode(codec Codec, level int, raw []byte, keep func([]byte) []byte) (Encoded, error) {
	if len(raw) < 1 || len(raw) > images.TileLength {
		return Encoded{}, fmt.Errorf("encode tile: %d bytes, want 1 to %d", len(raw), images.TileLength)
	}
	buf := scratch.Get().(*[]byte)
	defer scratch.Put(buf)
	var n int
	var err error
	switch codec {
	case Stored:
	case LZ4:
		n, err = encodeLZ4(level, *buf, raw)
	case Zstd:
		n, err = encodeZstd(level, *buf, raw)
	default:
		err = fmt.Errorf("unknown %v", codec)
	}
	if err != nil {
		return Encoded{}, fmt.Errorf("encode tile: %w", err)
	}
	b := (*buf)[:n]
	if n == 0 || n >= len(raw) {
		codec, b = Stored, raw
	}
	return Encoded{Codec: codec, Length: int32(len(raw)), Bytes: keep(b)}, nil
}

// Decode returns the tile's bytes, in dst's memory where its capacity is enough (what dst holds is overwritten), else
// in memory of their own. It never writes more than Length bytes, and an encoding that decodes to any other length is
// an error. The hash is the caller's to check.
func (e Encoded) Decode(dst []byte) ([]byte, error) {
	if err := e.Check(); err != nil {
		return nil, fmt.Errorf("decode: %w", err)
	}
	n := int(e.Length)
	if cap(dst) < n {
		dst = make([]byte, n)
	}
	dst = dst[:n:n]
	var err error
	switch e.Codec {
	case Stored:
		copy(dst, e.Bytes)
	case LZ4:
		err = decodeLZ4(dst, e.Bytes)
	case Zstd:
		err = decodeZstd(dst, e.Bytes)
	}
	if err != nil {
		return nil, fmt.Errorf("decode %v tile of %d bytes: %w", e.Codec, n, err)
	}
	return dst, nil
}

// Raw is Decode without the copy of what is stored as it is: the bytes may be those of e, and are not to be changed.
func (e Encoded) Raw(dst []byte) ([]byte, error) {
	if e.Codec == Stored && e.Check() == nil {
		return e.Bytes, nil
	}
	return e.Decode(dst)
}

// Cut returns the bytes [from, to) of decoded tiles that follow one another, all but the last of which are of
// images.TileLength. They are not copied. A range outside the tiles is an error of the caller: it panics.
func Cut(raw [][]byte, from, to int64) (cut [][]byte) {
	for at := from; at < to; {
		t := at / images.TileLength
		start := t * images.TileLength
		end := min(to, start+int64(len(raw[t])))
		if end <= at {
			panic("tile.Cut: a range outside the tiles")
		}
		cut = append(cut, raw[t][at-start:end-start])
		at = end
	}
	return cut
}
