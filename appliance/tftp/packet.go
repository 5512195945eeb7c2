package tftp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Kinds of packets (RFC 1350 §5, RFC 2347).
const (
	opRead    = 1
	opData    = 3
	opAck     = 4
	opError   = 5
	opOptions = 6
)

const (
	blockHeader  = 4   // bytes before a block's content
	defaultBlock = 512 // RFC 1350 §2
	maxBlock     = 65464
	minBlock     = defaultBlock // RFC 2348 allows 8: a megabyte would be 131,072 packets
	// maxWindow bounds the blocks in flight (RFC 7440). EDK2 asks for 4; 16 of 1,468 bytes are 24 KB, which a card holds.
	maxWindow = 16
)

// request is a read request.
type request struct {
	name, mode string // mode in lower case
	options    []option
}

// option is one that a machine asks for, or is granted; the name in lower case.
type option struct{ name, value string }

// maxOptions bounds the options that are looked at.
const maxOptions = 16

// parseRequest reads a request. It keeps nothing of b.
func parseRequest(b []byte) (*request, error) {
	if len(b) < 4 || binary.BigEndian.Uint16(b) != opRead {
		return nil, errors.New("no read request")
	}
	words := strings.Split(string(b[2:]), "\x00")
	if len(words) < 3 { // the last word is what follows the last zero
		return nil, errors.New("a read request without a mode")
	}
	q := &request{name: words[0], mode: strings.ToLower(words[1])}
	for words = words[2:]; len(words) > 2 && len(q.options) < maxOptions; words = words[2:] {
		q.options = append(q.options, option{strings.ToLower(words[0]), words[1]})
	}
	return q, nil
}

// packOptions is the packet that grants options.
func packOptions(granted []option) []byte {
	b := []byte{0, opOptions}
	for _, o := range granted {
		b = append(append(b, o.name...), 0)
		b = append(append(b, o.value...), 0)
	}
	return b
}

// packError is the packet that refuses. Code 1 is "file not found", the one that all firmware goes on after (RFC 1350, appendix).
func packError(text string) []byte {
	return append(append([]byte{0, opError, 0, 1}, text...), 0)
}

// parseError reads what a machine broke a transfer off with.
func parseError(b []byte) error {
	if len(b) < 4 {
		return errors.New("broken off")
	}
	text, _, _ := bytes.Cut(b[4:], []byte{0})
	return fmt.Errorf("broken off with error %d: %q", binary.BigEndian.Uint16(b[2:]), text[:min(len(text), 100)])
}

// terms are what a transfer agreed on.
type terms struct {
	block, window int // bytes of a block, blocks in flight
	granted       []option
}

// agree grants of the options what can be done: blocks up to limit bytes, the length of the file. What is malformed or unknown is
// left out, which the machine reads as refused (RFC 2347). Each is granted once.
func agree(asked []option, limit int, length int64) terms {
	t := terms{block: defaultBlock, window: 1}
	seen := map[string]bool{}
	for _, o := range asked {
		n, err := strconv.Atoi(o.value)
		if err != nil || seen[o.name] {
			continue
		}
		switch {
		case o.name == "blksize" && n >= minBlock && n <= maxBlock:
			t.block = min(n, limit)
			n = t.block
		case o.name == "windowsize" && n >= 1 && n <= 65535:
			t.window = min(n, maxWindow)
			n = t.window
		case o.name == "tsize" && n == 0:
			n = int(length)
		default:
			continue
		}
		seen[o.name] = true
		t.granted = append(t.granted, option{o.name, strconv.Itoa(n)})
	}
	return t
}
