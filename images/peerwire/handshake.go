package peerwire

import (
	"errors"
	"io"
)

// HandshakeLength is the length of the handshake in bytes (BEP 3).
const HandshakeLength = 1 + len(protocol) + 8 + 20 + 20

const protocol = "BitTorrent protocol"

// HandshakeFirst is the first byte of every handshake.
const HandshakeFirst = byte(len(protocol))

// Handshake is what both ends of a connection send first.
type Handshake struct {
	// Reserved are the feature bits; see the methods. Unknown ones are kept.
	Reserved [8]byte
	// InfoHash is the SHA-1 of a v1 torrent's info dictionary, or the first 20 bytes of the SHA-256 (BEP 52).
	InfoHash [20]byte
	PeerID   [20]byte
}

// Feature bits of Handshake.Reserved.
const (
	extensionByte, extensionBit = 5, 0x10 // BEP 10
	fastByte, fastBit           = 7, 0x04 // BEP 6
	v2Byte, v2Bit               = 7, 0x10 // BEP 52, "upgrade path"
)

// Features are the bits that Seedbed's peers set: extension protocol, fast extension, v2.
func Features() (r [8]byte) {
	r[extensionByte] |= extensionBit
	r[fastByte] |= fastBit
	r[v2Byte] |= v2Bit
	return r
}

// OnlyV1 returns the bits without that of v2: a client that knows a torrent by its v1 name alone refuses who offers more.
func OnlyV1(r [8]byte) [8]byte {
	r[v2Byte] &^= v2Bit
	return r
}

// Extended reports whether the peer speaks the extension protocol (BEP 10).
func (h Handshake) Extended() bool { return h.Reserved[extensionByte]&extensionBit != 0 }

// Fast reports whether the peer speaks the fast extension (BEP 6).
func (h Handshake) Fast() bool { return h.Reserved[fastByte]&fastBit != 0 }

// Append appends the handshake's bytes to dst.
func (h Handshake) Append(dst []byte) []byte {
	dst = append(dst, byte(len(protocol)))
	dst = append(dst, protocol...)
	dst = append(dst, h.Reserved[:]...)
	dst = append(dst, h.InfoHash[:]...)
	return append(dst, h.PeerID[:]...)
}

// ErrProtocol says that the other end does not speak BitTorrent.
var ErrProtocol = errors.New("the first bytes are no BitTorrent handshake")

// ReadHandshake reads HandshakeLength bytes.
func ReadHandshake(r io.Reader) (h Handshake, err error) {
	var b [HandshakeLength]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return h, err
	}
	if int(b[0]) != len(protocol) || string(b[1:1+len(protocol)]) != protocol {
		return h, ErrProtocol
	}
	rest := b[1+len(protocol):]
	copy(h.Reserved[:], rest)
	copy(h.InfoHash[:], rest[8:])
	copy(h.PeerID[:], rest[28:])
	return h, nil
}
