// Package packed writes disks as compressed streams, and reads those that people bring.
package packed

import (
	"encoding/binary"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// Suffix is how names of disks end that Writer wrote; Kind is their media type (RFC 8878 §7.1).
const (
	Suffix = ".img.zst"
	Kind   = "application/zstd"
)

// zeroRun is how many zeros, in bytes, one frame holds that is made once: 4 KB as it travels.
const zeroRun = 64 << 20

// window is how far back a stream refers, in bytes: what writer and reader keep of it.
const window = 4 << 20

// A file begins with a frame that unpackers skip (RFC 8878 §3.1.2), which says how long the disk is: a file that is cut off between two
// frames looks whole else.
const (
	skippedMagic = 0x184d2a5d // one of 16 that mean the same
	noteWord     = "seedbed disk"
	noteLength   = 8 + len(noteWord) + 8 // magic, length of what follows; the word, the length of the disk
)

// noteOf is that frame for a disk of length bytes.
func noteOf(length int64) []byte {
	b := binary.LittleEndian.AppendUint32(make([]byte, 0, noteLength), skippedMagic)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(noteWord)+8))
	return binary.LittleEndian.AppendUint64(append(b, noteWord...), uint64(length))
}

// notedLength is the length of the disk that a file's first bytes tell; -1 is none.
func notedLength(head []byte) int64 {
	if len(head) < noteLength || string(head[:noteLength-8]) != string(noteOf(0)[:noteLength-8]) {
		return -1
	}
	return int64(binary.LittleEndian.Uint64(head[noteLength-8:]))
}

// Writer writes a disk as zstd (RFC 8878), frame after frame with a checksum each, in memory of some 30 MB whatever the disk's length.
// Long runs of zeros cost next to nothing. Owned by one goroutine.
type Writer struct {
	w      io.Writer
	e      *zstd.Encoder
	open   bool  // a frame has begun
	done   int64 // bytes of the disk
	length int64 // of the disk
}

// NewWriter returns a writer of a disk of length bytes; after an error nothing more is to be written, and Finish may be left out.
func NewWriter(w io.Writer, length int64) (*Writer, error) {
	e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(2), zstd.WithWindowSize(window), zstd.WithEncoderCRC(true))
	if err != nil {
		return nil, fmt.Errorf("compress a disk: %w", err)
	}
	if _, err := w.Write(noteOf(length)); err != nil {
		return nil, err
	}
	return &Writer{w: w, e: e, length: length}, nil
}

// Write writes bytes of the disk, which come in ascending order; what is left out before them is zero.
func (p *Writer) Write(offset int64, b []byte) error {
	if err := p.zeros(offset); err != nil {
		return err
	}
	n, err := p.in(b)
	p.done += int64(n)
	return err
}

// Finish writes the zeros up to the end of the disk, and ends the stream; length is that of NewWriter.
func (p *Writer) Finish(length int64) error {
	if length != p.length {
		return fmt.Errorf("compress a disk: it was begun with %d bytes, and ends with %d", p.length, length)
	}
	if err := p.zeros(length); err != nil {
		return err
	}
	return p.end()
}

// in writes into a frame.
func (p *Writer) in(b []byte) (int, error) {
	if !p.open {
		p.e.Reset(p.w)
		p.open = true
	}
	return p.e.Write(b)
}

// end ends the frame.
func (p *Writer) end() error {
	if !p.open {
		return nil
	}
	p.open = false
	return p.e.Close()
}

var zeroPage [1 << 20]byte

// zeroFrame is a frame of zeroRun zeros.
var zeroFrame = sync.OnceValues(func() ([]byte, error) {
	e, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(window), zstd.WithEncoderCRC(true))
	if err != nil {
		return nil, err
	}
	return e.EncodeAll(make([]byte, zeroRun), nil), nil
})

func (p *Writer) zeros(end int64) error {
	for p.done < end {
		if end-p.done >= zeroRun {
			b, err := zeroFrame()
			if err != nil {
				return err
			}
			if err := p.end(); err != nil {
				return err
			}
			if _, err := p.w.Write(b); err != nil {
				return err
			}
			p.done += zeroRun
			continue
		}
		n, err := p.in(zeroPage[:min(end-p.done, int64(len(zeroPage)))])
		p.done += int64(n)
		if err != nil {
			return err
		}
	}
	return nil
}
