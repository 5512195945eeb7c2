package intake

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/fxamacker/cbor/v2"

	"seedbed/images"
	"seedbed/images/tile"
)

// Encodings for the network. Numbers are big-endian.
//
//	keys    36 bytes each: hash (32), decoded length (4)
//	bits    one bit for each key, bit 7 of byte 0 is the first; spare bits are zero
//	tiles   for each: hash (32), decoded length (4), codec (1), encoded length (4), encoded bytes
//	spec    deterministic CBOR (RFC 8949 §4.2.1)

const (
	keyLength        = 36
	tileHeaderLength = keyLength + 5
	// MaxKeysLength and MaxTilesLength bound the encodings in bytes.
	MaxKeysLength  = MaxHave * keyLength
	MaxTilesLength = MaxPutTiles*tileHeaderLength + MaxPutLength
	// MaxSpecLength bounds an encoded Spec: the tile hashes of 2 TiB of data are 1 GiB.
	MaxSpecLength = 1<<30 + 256<<20
)

func appendKey(b []byte, k images.TileKey) []byte {
	b = append(b, k.Hash[:]...)
	return binary.BigEndian.AppendUint32(b, uint32(k.Length))
}

// decodeKey reads the key at the beginning of b, which is long enough.
func decodeKey(b []byte) (k images.TileKey, err error) {
	n := binary.BigEndian.Uint32(b[32:])
	if n == 0 || n > images.TileLength {
		return k, fmt.Errorf("a tile of %d bytes", n)
	}
	return images.TileKey{Hash: images.Digest(b[:32]), Length: int32(n)}, nil
}

// EncodeKeys returns the keys' encoding.
func EncodeKeys(keys []images.TileKey) []byte {
	b := make([]byte, 0, len(keys)*keyLength)
	for _, k := range keys {
		b = appendKey(b, k)
	}
	return b
}

// DecodeKeys is the reverse of EncodeKeys. More than MaxHave are an error.
func DecodeKeys(b []byte) ([]images.TileKey, error) {
	if len(b)%keyLength != 0 || len(b) > MaxKeysLength {
		return nil, fmt.Errorf("tile keys: %d bytes are not 36 for each of at most %d", len(b), MaxHave)
	}
	keys := make([]images.TileKey, 0, len(b)/keyLength)
	for i := 0; i < len(b); i += keyLength {
		k, err := decodeKey(b[i:])
		if err != nil {
			return nil, fmt.Errorf("tile keys: byte %d: %w", i, err)
		}
		keys = append(keys, k)
	}
	return keys, nil
}

// EncodeBits returns one bit for each value.
func EncodeBits(list []bool) []byte {
	b := make([]byte, (len(list)+7)/8)
	for i, set := range list {
		if set {
			b[i/8] |= 0x80 >> (i % 8)
		}
	}
	return b
}

// DecodeBits is the reverse of EncodeBits for count values.
func DecodeBits(b []byte, count int) ([]bool, error) {
	if len(b) != (count+7)/8 {
		return nil, fmt.Errorf("%d bytes for %d bits", len(b), count)
	}
	if spare := len(b)*8 - count; spare > 0 && b[len(b)-1]&(1<<spare-1) != 0 {
		return nil, errors.New("spare bits are set")
	}
	list := make([]bool, count)
	for i := range list {
		list[i] = b[i/8]&(0x80>>(i%8)) != 0
	}
	return list, nil
}

// EncodeTiles returns the tiles' encoding.
func EncodeTiles(tiles []Tile) []byte {
	n := 0
	for _, t := range tiles {
		n += tileHeaderLength + len(t.Encoded.Bytes)
	}
	b := make([]byte, 0, n)
	for _, t := range tiles {
		b = appendKey(b, t.Key)
		b = append(b, byte(t.Encoded.Codec))
		b = binary.BigEndian.AppendUint32(b, uint32(len(t.Encoded.Bytes)))
		b = append(b, t.Encoded.Bytes...)
	}
	return b
}

// DecodeTiles is the reverse of EncodeTiles. The tiles share the memory of b. Whether a tile decodes to what its key
// names is for the caller to check.
func DecodeTiles(b []byte) ([]Tile, error) {
	if len(b) > MaxTilesLength {
		return nil, fmt.Errorf("tiles: %d bytes, at most %d are taken at once", len(b), MaxTilesLength)
	}
	var tiles []Tile
	for at := 0; at < len(b); {
		if len(b)-at < tileHeaderLength {
			return nil, fmt.Errorf("tiles: byte %d: a tile's header is cut off", at)
		}
		if len(tiles) == MaxPutTiles {
			return nil, fmt.Errorf("tiles: byte %d: more than %d tiles at once", at, MaxPutTiles)
		}
		key, err := decodeKey(b[at:])
		if err != nil {
			return nil, fmt.Errorf("tiles: byte %d: %w", at, err)
		}
		codec, n := tile.Codec(b[at+keyLength]), int64(binary.BigEndian.Uint32(b[at+keyLength+1:]))
		at += tileHeaderLength
		if n > int64(len(b)-at) {
			return nil, fmt.Errorf("tiles: byte %d: %d bytes of a tile, %d are there", at, n, len(b)-at)
		}
		t := Tile{key, tile.Encoded{Codec: codec, Length: key.Length, Bytes: b[at : at+int(n) : at+int(n)]}}
		if err := t.Encoded.Check(); err != nil {
			return nil, fmt.Errorf("tiles: byte %d: %w", at, err)
		}
		tiles, at = append(tiles, t), at+int(n)
	}
	return tiles, nil
}

// Check decodes the tile and returns an error unless it is what its key names. buf is scratch memory; Check returns it, or
// a longer one, for the next call.
func (t Tile) Check(buf []byte) ([]byte, error) {
	raw, err := t.Encoded.Decode(buf)
	if err != nil {
		return buf, fmt.Errorf("tile %v: %w", t.Key, err)
	}
	if tile.KeyOf(raw) != t.Key {
		return raw, fmt.Errorf("tile %v: its bytes have another hash", t.Key)
	}
	return raw, nil
}

var (
	encoding = must(cbor.CoreDetEncOptions().UserBufferEncMode())
	decoding = decodingOf(1 << 17)
	few      = decodingOf(images.MaxDropped)
)

// decodingOf reads arrays of at most so many elements.
func decodingOf(elements int) cbor.DecMode {
	return must(cbor.DecOptions{
		DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden, TagsMd: cbor.TagsForbidden,
		ExtraReturnErrors: cbor.ExtraDecErrorUnknownField, MaxArrayElements: elements, MaxNestedLevels: 8,
	}.DecMode())
}

// names are at most images.MaxDropped: an empty one takes 16 times as much memory as it has bytes.
type names []string

// UnmarshalCBOR implements cbor.Unmarshaler.
func (n *names) UnmarshalCBOR(b []byte) error { return few.Unmarshal(b, (*[]string)(n)) }

func must[T any](v T, err error) T {
	if err != nil {
		panic(err) // options are constants
	}
	return v
}

// Encode returns the encoding of a Spec.
func (s *Spec) Encode() ([]byte, error) {
	var b bytes.Buffer
	n := 4 << 10 // of all but what is long, which the buffer takes without being moved
	for i := range s.Regions {
		n += len(s.Regions[i].Bytes) + 64
	}
	for i := range s.Partitions {
		n += len(s.Partitions[i].Map) + len(s.Partitions[i].Tiles) + 512
	}
	b.Grow(n)
	if err := encoding.MarshalToBuffer(s, &b); err != nil {
		return nil, err
	}
	if b.Len() > MaxSpecLength {
		return nil, fmt.Errorf("the description of the image has %d bytes, at most %d are taken: the disk holds too much data", b.Len(), MaxSpecLength)
	}
	return b.Bytes(), nil
}

// DecodeSpec is the reverse of Encode.
func DecodeSpec(b []byte) (*Spec, error) {
	s := new(Spec)
	if len(b) > MaxSpecLength {
		return nil, fmt.Errorf("description of an image: %d bytes, at most %d are taken", len(b), MaxSpecLength)
	}
	if err := decoding.Unmarshal(b, s); err != nil {
		return nil, fmt.Errorf("description of an image: %w", err)
	}
	return s, nil
}
