// Package relay hands what describes an image from machine to machine: maps, layers and the regions of the frame, each by its
// digest. A machine needs them before it can join the swarm, so they travel beside it: on the swarm's port and under its
// mutual TLS, over a short connection with a protocol of its own.
package relay

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"seedbed/images"
)

// Protocol is the name in the TLS handshake (RFC 7301) of these connections.
const Protocol = "seedbed-relay/1"

// MaxRange is the most that one request may ask for, in bytes.
const MaxRange = 256 << 10

// request asks for the bytes [offset, offset+length) of an object. On the wire: digest (32 bytes), offset (8), length (4); numbers
// are big-endian.
type request struct {
	digest images.Digest
	offset int64
	length int // 1 to MaxRange
}

const requestLength = 32 + 8 + 4

func (q request) encode() []byte {
	b := make([]byte, 0, requestLength)
	b = append(b, q.digest[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(q.offset))
	return binary.BigEndian.AppendUint32(b, uint32(q.length))
}

// decodeRequest reads a request of requestLength bytes.
func decodeRequest(b []byte) (q request, err error) {
	if len(b) != requestLength {
		return q, fmt.Errorf("a request of %d bytes, want %d", len(b), requestLength)
	}
	copy(q.digest[:], b)
	offset, length := binary.BigEndian.Uint64(b[32:]), binary.BigEndian.Uint32(b[40:])
	if length == 0 || length > MaxRange || offset > 1<<62 {
		return q, fmt.Errorf("a request of %d bytes from %d, want 1 to %d", length, offset, MaxRange)
	}
	q.offset, q.length = int64(offset), int(length)
	return q, nil
}

// Answers begin with a status (1 byte) and a length (4 bytes); as many bytes follow.
const (
	statusBytes  = 0 // what was asked for
	statusAbsent = 1 // it is not had here, or is of no concern to this swarm; length 0
)

const answerHeader = 1 + 4

func appendAnswer(b []byte, status byte, length int) []byte {
	return binary.BigEndian.AppendUint32(append(b, status), uint32(length))
}

// errAbsent says that a peer does not have an object.
var errAbsent = errors.New("the peer does not have it")

// readAnswer reads the answer to a request into into, which is as long as what was asked for.
func readAnswer(r io.Reader, into []byte) error {
	var header [answerHeader]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return err
	}
	length := binary.BigEndian.Uint32(header[1:])
	switch {
	case header[0] == statusAbsent && length == 0:
		return errAbsent
	case header[0] != statusBytes || int64(length) != int64(len(into)):
		return &liarError{fmt.Sprintf("answers with status %d and %d bytes, where %d were asked for", header[0], length, len(into))}
	}
	_, err := io.ReadFull(r, into)
	return err
}

// liarError says what no peer that means well does.
type liarError struct{ what string }

func (e *liarError) Error() string { return e.what }
