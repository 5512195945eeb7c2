package peerwire

import (
	"encoding/binary"
	"errors"
	"fmt"

	"seedbed/images"
	"seedbed/images/tile"
)

// TileVersion is the version of sb_tile that this package speaks.
const TileVersion = 1

// MaxTilesLength bounds an sb_tile Tiles message, in bytes. A sender that cuts behind the tile with which a message
// reaches TilesTarget stays below it.
const (
	MaxTilesLength = MaxMessageLength - 2
	TilesTarget    = 128 << 10
)

// First byte of an sb_tile payload.
const (
	kindVersion byte = 0
	kindHashes  byte = 1
	kindHave    byte = 2
	kindRequest byte = 3
	kindTiles   byte = 4
	kindReject  byte = 5
	kindCancel  byte = 6
	kindShown   byte = 7
	kindBack    byte = 8
	kindHolds   byte = 9
	kindWants   byte = 10
)

// TileMessage is one of the sb_tile messages below. All numbers are big-endian; a piece is 4 bytes; a set of tiles is
// its length in bytes (one byte, 0-32) and so many bytes, bit 7 of the first is tile 0, the last is not zero.
type TileMessage interface{ appendTile(dst []byte) []byte }

type (
	// Version is the first sb_tile message of each side: the version it speaks, and what it is.
	Version struct {
		Version uint16
		// HandsOut says that the sender does not announce what it holds, but to each peer what that peer should fetch first.
		HandsOut bool
	}
	// Hashes are the hashes of the piece's data tiles in ascending order.
	Hashes struct {
		Piece  int
		Hashes []images.Digest
	}
	// HaveTiles announces tiles of a piece that the sender does not hold as a whole.
	HaveTiles struct {
		Piece int
		Tiles images.TileSet
	}
	// Request asks for tiles of a piece, and for the hashes of its tiles ahead of them.
	Request struct {
		Piece  int
		Hashes bool
		Tiles  images.TileSet
	}
	// Tiles carries tiles of a piece, each encoded as it is stored, Index ascending.
	Tiles struct {
		Piece int
		Tiles []IndexedTile
	}
	// Reject says that the sender will not send these tiles (or, with none, the hashes) of the piece.
	Reject struct {
		Piece int
		Tiles images.TileSet
	}
	// Cancel takes a request back; tiles on their way may still arrive.
	Cancel struct {
		Piece int
		Tiles images.TileSet
	}
	// Shown tells another peer that hands out what the sender announced to whom, by peer ID.
	Shown struct {
		Piece int
		Guest [20]byte
	}
	// TakenBack says that nobody is expected any more to fetch a piece of which Shown spoke.
	TakenBack struct{ Piece int }
	// Holds tells another peer that hands out what the sender holds, as a bitfield (BEP 3); what it gets later follows as
	// Have. It comes once, behind the version.
	Holds struct{ Bits []byte }
	// Wants tells who hands out which pieces a peer wants that takes a part of the content only, as a bitfield (BEP 3). It comes once,
	// behind the version of the other side, from who said in its handshake that it would.
	Wants struct{ Bits []byte }
)

// IndexedTile is one encoded tile and its index in the piece.
type IndexedTile struct {
	Index int
	tile.Encoded
}

// TileOverhead is what a tile costs in a Tiles message beside its bytes: index, codec, decoded and encoded length.
const TileOverhead = 1 + 1 + 4 + 4

func (m Version) appendTile(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint16(append(dst, kindVersion), m.Version)
	return append(dst, flag(m.HandsOut))
}

func (m Hashes) appendTile(dst []byte) []byte {
	dst = appendPiece(dst, kindHashes, m.Piece)
	for i := range m.Hashes {
		dst = append(dst, m.Hashes[i][:]...)
	}
	return dst
}

func (m HaveTiles) appendTile(dst []byte) []byte {
	return appendSet(appendPiece(dst, kindHave, m.Piece), m.Tiles)
}
func (m Request) appendTile(dst []byte) []byte {
	return appendSet(append(appendPiece(dst, kindRequest, m.Piece), flag(m.Hashes)), m.Tiles)
}
func (m Reject) appendTile(dst []byte) []byte {
	return appendSet(appendPiece(dst, kindReject, m.Piece), m.Tiles)
}
func (m Cancel) appendTile(dst []byte) []byte {
	return appendSet(appendPiece(dst, kindCancel, m.Piece), m.Tiles)
}

func (m Shown) appendTile(dst []byte) []byte {
	return append(appendPiece(dst, kindShown, m.Piece), m.Guest[:]...)
}
func (m TakenBack) appendTile(dst []byte) []byte { return appendPiece(dst, kindBack, m.Piece) }
func (m Holds) appendTile(dst []byte) []byte     { return append(append(dst, kindHolds), m.Bits...) }
func (m Wants) appendTile(dst []byte) []byte     { return append(append(dst, kindWants), m.Bits...) }

func (m Tiles) appendTile(dst []byte) []byte {
	dst = appendPiece(dst, kindTiles, m.Piece)
	for i := range m.Tiles {
		t := &m.Tiles[i]
		dst = append(t.appendHead(dst), t.Bytes...)
	}
	return dst
}

// appendHead appends what stands before the tile's bytes.
func (t *IndexedTile) appendHead(dst []byte) []byte {
	dst = append(dst, byte(t.Index), byte(t.Codec))
	dst = binary.BigEndian.AppendUint32(dst, uint32(t.Length))
	return binary.BigEndian.AppendUint32(dst, uint32(len(t.Bytes)))
}

func flag(b bool) byte {
	if b {
		return 1
	}
	return 0
}

func appendPiece(dst []byte, kind byte, piece int) []byte {
	return binary.BigEndian.AppendUint32(append(dst, kind), uint32(piece))
}

// appendSet appends a set of tiles; see TileMessage.
func appendSet(dst []byte, s images.TileSet) []byte {
	at, n := len(dst), 0
	dst = append(dst, 0)
	for i := range s.All() {
		for n <= i/8 {
			dst, n = append(dst, 0), n+1
		}
		dst[at+1+i/8] |= 0x80 >> (i % 8)
	}
	dst[at] = byte(n)
	return dst
}

// AppendTile appends an sb_tile message with the length prefix to dst; kind is the number that the receiver chose.
func AppendTile(dst []byte, kind byte, m TileMessage) []byte {
	start := len(dst)
	dst = m.appendTile(append(dst, 0, 0, 0, 0, byte(IDExtended), kind))
	binary.BigEndian.PutUint32(dst[start:], uint32(len(dst)-start-4))
	return dst
}

// longTile is the length of a tile in bytes from which on AppendTiles leaves it where it lies.
const longTile = 32 << 10

// AppendTiles is AppendTile of tiles that copies no long ones: parts, written one behind the other, are what was in dst and the
// message. They lie in buf, which is dst with what was appended, and in the tiles.
func AppendTiles(dst []byte, kind byte, m Tiles) (buf []byte, parts [][]byte) {
	start, total := len(dst), 0
	var ends []int // in buf, of what goes before each long tile
	buf = appendPiece(append(dst, 0, 0, 0, 0, byte(IDExtended), kind), kindTiles, m.Piece)
	for i := range m.Tiles {
		t := &m.Tiles[i]
		if buf = t.appendHead(buf); len(t.Bytes) < longTile {
			buf = append(buf, t.Bytes...)
			continue
		}
		ends, total = append(ends, len(buf)), total+len(t.Bytes)
	}
	binary.BigEndian.PutUint32(buf[start:], uint32(len(buf)-start-4+total))
	at := 0
	for i := range m.Tiles {
		if b := m.Tiles[i].Bytes; len(b) >= longTile {
			parts = append(parts, buf[at:ends[0]], b)
			at, ends = ends[0], ends[1:]
		}
	}
	if at < len(buf) {
		parts = append(parts, buf[at:])
	}
	return buf, parts
}

// DecodeTile reads the payload of an Extended that is an sb_tile message. Tile bytes lie in payload. An unknown kind,
// which a later version may send, is nil without error.
func DecodeTile(payload []byte) (TileMessage, error) {
	d := decoder{b: payload}
	kind := d.byte()
	if d.err == nil && kind > kindWants {
		return nil, nil
	}
	var m TileMessage
	switch kind {
	case kindVersion:
		m = Version{d.uint16(), d.flag()}
	case kindHolds:
		m = Holds{d.take(len(d.b))}
	case kindWants:
		m = Wants{d.take(len(d.b))}
	default:
		piece := d.piece()
		switch kind {
		case kindHashes:
			m = Hashes{piece, d.hashes()}
		case kindHave:
			m = HaveTiles{piece, d.set()}
		case kindRequest:
			m = Request{piece, d.flag(), d.set()}
		case kindTiles:
			m = Tiles{piece, d.tiles()}
		case kindReject:
			m = Reject{piece, d.set()}
		case kindCancel:
			m = Cancel{piece, d.set()}
		case kindShown:
			m = Shown{piece, [20]byte(d.take(20))}
		case kindBack:
			m = TakenBack{piece}
		}
	}
	if d.err == nil && len(d.b) != 0 {
		d.fail("%d bytes behind the message", len(d.b))
	}
	if d.err != nil {
		return nil, fmt.Errorf("%s message %d: %w", TileExtension, kind, d.err)
	}
	return m, nil
}

// decoder reads in wire order and keeps its first error.
type decoder struct {
	b   []byte
	err error
}

func (d *decoder) fail(format string, a ...any) {
	if d.err == nil {
		d.err = fmt.Errorf(format, a...)
	}
}

var errShort = errors.New("cut off")

// take returns the next n bytes; after an error as many zeros, n being at most 32 but for checked lengths.
func (d *decoder) take(n int) []byte {
	if d.err == nil && n > len(d.b) {
		d.err = errShort
	}
	if d.err != nil {
		return make([]byte, min(n, 32))
	}
	b := d.b[:n:n]
	d.b = d.b[n:]
	return b
}

func (d *decoder) byte() byte     { return d.take(1)[0] }
func (d *decoder) uint16() uint16 { return binary.BigEndian.Uint16(d.take(2)) }
func (d *decoder) uint32() uint32 { return binary.BigEndian.Uint32(d.take(4)) }

func (d *decoder) flag() bool {
	f := d.byte()
	if f > 1 {
		d.fail("flag %d", f)
	}
	return f == 1
}

func (d *decoder) piece() int {
	p := d.uint32()
	if p > 1<<31-1 {
		d.fail("piece %d", p)
	}
	return int(p)
}

func (d *decoder) set() (s images.TileSet) {
	n := int(d.byte())
	if n > images.MaxPieceTiles/8 {
		d.fail("set of %d bytes", n)
		return s
	}
	b := d.take(n)
	if d.err == nil && n > 0 && b[n-1] == 0 {
		d.fail("set ends in a zero byte")
	}
	for i := range b {
		for bit := range 8 {
			if b[i]&(0x80>>bit) != 0 {
				s.Add(8*i + bit)
			}
		}
	}
	return s
}

func (d *decoder) hashes() []images.Digest {
	if d.err == nil && (len(d.b) == 0 || len(d.b)%32 != 0 || len(d.b)/32 > images.MaxPieceTiles) {
		d.fail("hashes of %d bytes", len(d.b))
	}
	if d.err != nil {
		return nil
	}
	hashes := make([]images.Digest, len(d.b)/32)
	for i := range hashes {
		copy(hashes[i][:], d.take(32))
	}
	return hashes
}

func (d *decoder) tiles() (tiles []IndexedTile) {
	for last := -1; d.err == nil && len(d.b) > 0; {
		t := IndexedTile{Index: int(d.byte()), Encoded: tile.Encoded{Codec: tile.Codec(d.byte())}}
		length, encoded := d.uint32(), d.uint32()
		switch {
		case d.err != nil:
		case t.Index <= last:
			d.fail("tile %d behind tile %d", t.Index, last)
		case t.Codec > tile.Zstd:
			d.fail("tile %d: codec %d", t.Index, t.Codec)
		case length == 0 || length > images.TileLength:
			d.fail("tile %d of %d bytes", t.Index, length)
		case encoded == 0 || encoded > length:
			d.fail("tile %d of %d bytes in %d", t.Index, length, encoded)
		default:
			t.Length, t.Bytes = int32(length), d.take(int(encoded))
			if err := t.Check(); d.err == nil && err != nil {
				d.fail("tile %d: %w", t.Index, err)
			}
			tiles, last = append(tiles, t), t.Index
		}
	}
	if d.err == nil && len(tiles) == 0 {
		d.fail("no tiles")
	}
	return tiles
}
