package repository

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"seedbed/images"
	"seedbed/images/tile"
)

// A pack is
//
//	magic   "SBPACK1\n"
//	record  for each tile: header of 48 bytes, encoded bytes
//	index   magic "SBINDEX1", then 45 bytes for each record in order
//	trailer position of the index (8), magic "SBPEND1\n"
//
// and its ID is the SHA-256 of the index. All numbers are big-endian. A journal segment of the spool is a pack whose
// index is still to come, so that sealing copies nothing.
//
//	record header   magic "SBTL", codec (1), decoded length (3), encoded length (4), tile hash (32), CRC-32C (4) over
//	                all of the above and the encoded bytes
//	index entry     tile hash (32), codec (1), decoded length (4), encoded length (4), position of the record (4)
const (
	packMagic    = "SBPACK1\n"
	recordMagic  = "SBTL"
	indexMagic   = "SBINDEX1"
	trailerMagic = "SBPEND1\n"

	recordHeaderLength = 48
	entryLength        = 45
	trailerLength      = 16

	// maxPackLength keeps positions within 32 bits. Packs are sealed long before.
	maxPackLength = 1 << 31
	// maxRecordLength is the longest record: a stored tile.
	maxRecordLength = recordHeaderLength + images.TileLength
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// entry is one record of a pack, as its index lists it.
type entry struct {
	key    images.TileKey
	codec  tile.Codec
	length int32 // of the encoded bytes
	offset int64 // of the record's header in the pack
}

// end is the position after the record.
func (e entry) end() int64 { return e.offset + recordHeaderLength + int64(e.length) }

// appendRecord appends the record of one tile.
func appendRecord(dst []byte, key images.TileKey, t tile.Encoded) []byte {
	start := len(dst)
	dst = append(dst, recordMagic...)
	dst = append(dst, byte(t.Codec), byte(t.Length>>16), byte(t.Length>>8), byte(t.Length))
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(t.Bytes)))
	dst = append(dst, key.Hash[:]...)
	sum := crc32.Update(crc32.Checksum(dst[start:], castagnoli), castagnoli, t.Bytes)
	dst = binary.BigEndian.AppendUint32(dst, sum)
	return append(dst, t.Bytes...)
}

// errRecord says that bytes are no record, or a damaged one.
var errRecord = errors.New("not a whole record")

// decodeRecord reads the record that b begins with. The tile's Bytes lie in b.
func decodeRecord(b []byte) (key images.TileKey, t tile.Encoded, err error) {
	if len(b) < recordHeaderLength || string(b[:4]) != recordMagic {
		return key, t, errRecord
	}
	n := binary.BigEndian.Uint32(b[8:])
	if n > images.TileLength || int(n) > len(b)-recordHeaderLength {
		return key, t, errRecord
	}
	t.Codec, t.Length = tile.Codec(b[4]), int32(b[5])<<16|int32(b[6])<<8|int32(b[7])
	t.Bytes = b[recordHeaderLength : recordHeaderLength+int(n) : recordHeaderLength+int(n)]
	sum := crc32.Update(crc32.Checksum(b[:44], castagnoli), castagnoli, t.Bytes)
	if sum != binary.BigEndian.Uint32(b[44:]) || t.Check() != nil {
		return key, t, errRecord
	}
	return images.TileKey{Hash: images.Digest(b[12:44]), Length: t.Length}, t, nil
}

// encodeIndex returns the index and trailer of a pack whose records are entries, and the pack's ID.
func encodeIndex(entries []entry, end int64) ([]byte, images.Digest) {
	b := make([]byte, 0, len(indexMagic)+entryLength*len(entries)+trailerLength)
	b = append(b, indexMagic...)
	for _, e := range entries {
		b = append(b, e.key.Hash[:]...)
		b = append(b, byte(e.codec))
		b = binary.BigEndian.AppendUint32(b, uint32(e.key.Length))
		b = binary.BigEndian.AppendUint32(b, uint32(e.length))
		b = binary.BigEndian.AppendUint32(b, uint32(e.offset))
	}
	id := images.Sum(b)
	b = binary.BigEndian.AppendUint64(b, uint64(end))
	return append(b, trailerMagic...), id
}

// decodeIndex is the reverse of encodeIndex without the trailer; end is the position of the index in the pack. What it
// accepts are records that follow one another without gaps up to the index.
func decodeIndex(b []byte, end int64) ([]entry, error) {
	if len(b) < len(indexMagic) || string(b[:len(indexMagic)]) != indexMagic || (len(b)-len(indexMagic))%entryLength != 0 {
		return nil, errors.New("index: no magic, or not a whole number of entries")
	}
	b = b[len(indexMagic):]
	entries := make([]entry, 0, len(b)/entryLength)
	next := int64(len(packMagic))
	for i := 0; len(b) > 0; i++ {
		e := entry{
			key:    images.TileKey{Hash: images.Digest(b[:32]), Length: int32(binary.BigEndian.Uint32(b[33:]))},
			codec:  tile.Codec(b[32]),
			length: int32(binary.BigEndian.Uint32(b[37:])), offset: int64(binary.BigEndian.Uint32(b[41:])),
		}
		if e.offset != next || e.length < 1 || e.length > images.TileLength || e.key.Length < 1 ||
			e.key.Length > images.TileLength {
			return nil, fmt.Errorf("index: entry %d does not follow the one before", i)
		}
		entries, next, b = append(entries, e), e.end(), b[entryLength:]
	}
	if next != end {
		return nil, fmt.Errorf("index: records end at byte %d, the index begins at %d", next, end)
	}
	return entries, nil
}

func packKey(id images.Digest) string { return "packs/" + id.String() }

// usualIndex is the length of a pack over that of its index, for tiles of 20 KiB encoded and longer.
const usualIndex = 450

// errPackDamaged says that a pack is not what it was.
var errPackDamaged = errors.New("is damaged")

// readIndex fetches and checks the index of a pack. Errors name the pack.
func readIndex(ctx context.Context, b Bucket, id images.Digest) ([]entry, error) {
	key := packKey(id)
	o, err := b.Stat(ctx, key)
	if err != nil {
		return nil, err
	}
	damaged := func(format string, a ...any) error {
		return fmt.Errorf("pack %s %w: "+format, append([]any{id, errPackDamaged}, a...)...)
	}
	if o.Length < int64(len(packMagic)+len(indexMagic)+trailerLength) || o.Length > maxPackLength+maxPackLength/4 {
		return nil, damaged("it has %d bytes", o.Length)
	}
	// Where the index is not much longer than that of a usual pack one request is enough.
	tail := min(o.Length, max(o.Length/usualIndex, 4<<10))
	raw, err := fetchRange(ctx, b, key, o.Length-tail, tail)
	if err != nil {
		return nil, err
	}
	raw, trailer := raw[:tail-trailerLength], raw[tail-trailerLength:]
	end := binary.BigEndian.Uint64(trailer)
	if string(trailer[8:]) != trailerMagic || end < uint64(len(packMagic)) || end > uint64(o.Length-trailerLength) {
		return nil, damaged("its last %d bytes are not a trailer", trailerLength)
	}
	if from := o.Length - tail; int64(end) >= from {
		raw = raw[int64(end)-from:]
	} else {
		front, err := fetchRange(ctx, b, key, int64(end), from-int64(end))
		if err != nil {
			return nil, err
		}
		raw = append(front, raw...)
	}
	if images.Sum(raw) != id {
		return nil, damaged("its index is not the one it is named after")
	}
	entries, err := decodeIndex(raw, int64(end))
	if err != nil {
		return nil, damaged("%w", err)
	}
	return entries, nil
}
