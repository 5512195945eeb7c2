package packed

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// mostWindow bounds how far back a stream may refer, in bytes: what `zstd` itself reads without being asked for more.
const mostWindow = 128 << 20

// ErrDamaged says that a stream cannot be unpacked.
var ErrDamaged = errors.New("the packed file is damaged or cut off")

// format is a way to pack a disk.
type format struct {
	name string
	is   func(head []byte) bool
	open func(r io.Reader) (io.ReadCloser, error)
}

func begins(magic string) func(head []byte) bool {
	return func(head []byte) bool { return bytes.HasPrefix(head, []byte(magic)) }
}

// isZstd reports whether a stream begins with a frame, or with one that is skipped: so begins what Writer and pzstd write (RFC 8878
// §3.1.1, §3.1.2).
func isZstd(head []byte) bool {
	return begins("\x28\xb5\x2f\xfd")(head) || len(head) >= HeadLength && head[0]&0xf0 == 0x50 && string(head[1:HeadLength]) == "\x2a\x4d\x18"
}

// formats are those that are read. xz is not among them: its streams say how much memory they take, up to 4 GiB.
var formats = []format{
	{"zstd", isZstd, func(r io.Reader) (io.ReadCloser, error) {
		d, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(mostWindow), zstd.WithDecoderLowmem(true))
		if err != nil {
			return nil, err
		}
		return d.IOReadCloser(), nil
	}},
	{"gzip", begins("\x1f\x8b\x08"), func(r io.Reader) (io.ReadCloser, error) { return gzip.NewReader(r) }}, // RFC 1952 §2.3.1
}

// HeadLength is how many bytes Recognise needs.
const HeadLength = 4

// Recognise names the format of a stream by its first bytes; "" is none that is read here.
func Recognise(head []byte) string {
	for _, f := range formats {
		if f.is(head) {
			return f.name
		}
	}
	return ""
}

// Unpack writes what a stream of a format holds, in bounded memory. What is wrong with the stream itself is an ErrDamaged; errors of r
// and w stay as they are.
func Unpack(w io.Writer, r io.Reader, name string) (err error) {
	buffered := bufio.NewReader(r)
	head, _ := buffered.Peek(noteLength) // a shorter file tells no length, and an error comes again
	length := notedLength(head)
	in := &keeping{r: buffered}
	out := &refusing{w: w}
	for _, f := range formats {
		if f.name != name {
			continue
		}
		d, err := f.open(in)
		if err == nil {
			defer d.Close()
			if _, err = io.CopyBuffer(struct{ io.Writer }{out}, struct{ io.Reader }{d}, make([]byte, 1<<20)); out.err != nil {
				return out.err
			}
		}
		switch {
		case in.err != nil:
			return in.err
		case err != nil:
			return fmt.Errorf("%w: %w", ErrDamaged, err)
		case length >= 0 && out.done != length:
			return fmt.Errorf("%w: it says that the disk has %d bytes, and holds %d of them", ErrDamaged, length, out.done)
		}
		return nil
	}
	return fmt.Errorf("%q is no format that is unpacked", name)
}

// keeping keeps the error of a reader, but for its end.
type keeping struct {
	r   io.Reader
	err error
}

func (k *keeping) Read(b []byte) (int, error) {
	n, err := k.r.Read(b)
	if err != nil && err != io.EOF {
		k.err = err
	}
	return n, err
}

// refusing keeps the error of a writer, and counts what it took.
type refusing struct {
	w    io.Writer
	err  error
	done int64 // bytes
}

func (k *refusing) Write(b []byte) (int, error) {
	n, err := k.w.Write(b)
	k.err = err
	k.done += int64(n)
	return n, err
}
