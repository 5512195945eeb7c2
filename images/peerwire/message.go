package peerwire

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
)

// MaxMessageLength bounds a message behind its length prefix, in bytes: a bitfield of two million pieces, or tiles of
// MaxTilesLength.
const MaxMessageLength = 256 << 10

// MaxBlockLength bounds the data of a request and of a Block, in bytes. Stock clients use 16 KiB.
const MaxBlockLength = 128 << 10

// ID is the first byte of a message (BEP 3, "peer messages").
type ID byte

// Message types.
const (
	IDChoke         ID = 0
	IDUnchoke       ID = 1
	IDInterested    ID = 2
	IDNotInterested ID = 3
	IDHave          ID = 4
	IDBitfield      ID = 5
	IDRequest       ID = 6
	IDBlock         ID = 7 // "piece"
	IDCancel        ID = 8
	IDSuggest       ID = 13 // BEP 6, as the next four
	IDHaveAll       ID = 14
	IDHaveNone      ID = 15
	IDReject        ID = 16
	IDAllowedFast   ID = 17
	IDExtended      ID = 20 // BEP 10
)

// Message is one of the types below.
type Message interface {
	// append appends the message without its length prefix.
	append(dst []byte) []byte
}

type (
	// KeepAlive is the message of length zero.
	KeepAlive struct{}
	// Bare is a message that is nothing but its ID: Choke, Unchoke, Interested, NotInterested, HaveAll, HaveNone.
	Bare struct{ ID ID }
	// Indexed is a message about one piece: Have, Suggest, AllowedFast.
	Indexed struct {
		ID    ID
		Piece uint32
	}
	// Bitfield tells which pieces the sender has: bit 7 of byte 0 is piece 0, spare bits are zero.
	Bitfield struct{ Bits []byte }
	// Span is a message about bytes of one piece: Request, Cancel, Reject.
	Span struct {
		ID                   ID
		Piece, Begin, Length uint32
	}
	// Block carries bytes of one piece ("piece" in BEP 3).
	Block struct {
		Piece, Begin uint32
		Data         []byte
	}
	// Extended is a message of the extension protocol: Kind 0 is its handshake, the others are as the receiver's own
	// handshake numbered them.
	Extended struct {
		Kind    byte
		Payload []byte
	}
	// Unknown is a message of another ID. A receiver ignores it (BEP 3).
	Unknown struct {
		ID      ID
		Payload []byte
	}
)

// Messages without fields.
var (
	Choke         = Bare{IDChoke}
	Unchoke       = Bare{IDUnchoke}
	Interested    = Bare{IDInterested}
	NotInterested = Bare{IDNotInterested}
	HaveAll       = Bare{IDHaveAll}
	HaveNone      = Bare{IDHaveNone}
)

// Have announces one piece.
func Have(piece int) Indexed { return Indexed{IDHave, uint32(piece)} }

func (KeepAlive) append(dst []byte) []byte  { return dst }
func (m Bare) append(dst []byte) []byte     { return append(dst, byte(m.ID)) }
func (m Bitfield) append(dst []byte) []byte { return append(append(dst, byte(IDBitfield)), m.Bits...) }
func (m Extended) append(dst []byte) []byte {
	return append(append(dst, byte(IDExtended), m.Kind), m.Payload...)
}
func (m Unknown) append(dst []byte) []byte { return append(append(dst, byte(m.ID)), m.Payload...) }
func (m Indexed) append(dst []byte) []byte {
	return binary.BigEndian.AppendUint32(append(dst, byte(m.ID)), m.Piece)
}

func (m Span) append(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint32(append(dst, byte(m.ID)), m.Piece)
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(dst, m.Begin), m.Length)
}

func (m Block) append(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint32(append(dst, byte(IDBlock)), m.Piece)
	return append(binary.BigEndian.AppendUint32(dst, m.Begin), m.Data...)
}

// Append appends the message with its length prefix to dst.
func Append(dst []byte, m Message) []byte {
	start := len(dst)
	dst = m.append(append(dst, 0, 0, 0, 0))
	binary.BigEndian.PutUint32(dst[start:], uint32(len(dst)-start-4))
	return dst
}

// Decode reads one message without its length prefix. The message's slices lie in b.
func Decode(b []byte) (Message, error) {
	if len(b) == 0 {
		return KeepAlive{}, nil
	}
	id, p := ID(b[0]), b[1:]
	length := func(ok bool) error {
		if ok {
			return nil
		}
		return fmt.Errorf("message %d of %d bytes", id, len(b))
	}
	word := func(i int) uint32 { return binary.BigEndian.Uint32(p[4*i:]) }
	switch id {
	case IDChoke, IDUnchoke, IDInterested, IDNotInterested, IDHaveAll, IDHaveNone:
		return Bare{id}, length(len(p) == 0)
	case IDHave, IDSuggest, IDAllowedFast:
		if err := length(len(p) == 4); err != nil {
			return nil, err
		}
		return Indexed{id, word(0)}, nil
	case IDBitfield:
		return Bitfield{p}, nil
	case IDRequest, IDCancel, IDReject:
		if err := length(len(p) == 12); err != nil {
			return nil, err
		}
		m := Span{id, word(0), word(1), word(2)}
		if m.Length == 0 || m.Length > MaxBlockLength {
			return nil, fmt.Errorf("message %d about %d bytes, want 1 to %d", id, m.Length, MaxBlockLength)
		}
		return m, nil
	case IDBlock:
		if err := length(len(p) > 8 && len(p) <= 8+MaxBlockLength); err != nil {
			return nil, err
		}
		return Block{word(0), word(1), p[8:]}, nil
	case IDExtended:
		if err := length(len(p) > 0); err != nil {
			return nil, err
		}
		return Extended{p[0], p[1:]}, nil
	}
	return Unknown{id, p}, nil
}

// Reader reads messages from a stream. Owned by one goroutine.
type Reader struct {
	r *bufio.Reader
	// Limit bounds a message behind its prefix in bytes; zero means MaxMessageLength.
	Limit int
	// Room gives the n bytes that a message is read into; nil means memory of its own.
	Room func(n int) []byte
}

// NewReader reads messages from r: short ones in steps of 4 KiB, long ones straight into their place.
func NewReader(r io.Reader) *Reader { return &Reader{r: bufio.NewReaderSize(r, 4<<10)} }

// Next reads one message. Its slices lie in memory from Room, or in memory of their own that is never used again. At the end
// between two messages the error is io.EOF.
func (r *Reader) Next() (Message, error) {
	var prefix [4]byte
	if _, err := io.ReadFull(r.r, prefix[:]); err != nil {
		return nil, err
	}
	limit, n := uint32(MaxMessageLength), binary.BigEndian.Uint32(prefix[:])
	if r.Limit > 0 {
		limit = uint32(r.Limit)
	}
	if n > limit {
		return nil, fmt.Errorf("message of %d bytes, more than %d", n, limit)
	}
	room := r.Room
	if room == nil {
		room = func(n int) []byte { return make([]byte, n) }
	}
	b := room(int(n))
	if _, err := io.ReadFull(r.r, b); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	return Decode(b)
}
