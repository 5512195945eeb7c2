// Package bencode encodes and decodes bencoded values (BEP 3, "bencoding"): integers, byte strings, lists, dictionaries.
//
// Decoding is strict: only the one canonical encoding of a value is accepted, so that what was decoded encodes to the
// same bytes and a digest over them is a digest over the value.
package bencode

import (
	"fmt"
	"math"
	"slices"
	"strconv"
)

// Bounds on what Decode accepts.
const (
	// MaxLength is the length of an encoded value in bytes. The piece layers of a torrent of 8 TiB in pieces of 4 MiB
	// are 64 MiB.
	MaxLength = 256 << 20
	// MaxDepth is how deep lists and dictionaries may lie in each other. A v2 torrent's file tree needs 5.
	MaxDepth = 16
)

// Encode returns the canonical encoding of v: an int64, int, string, []byte, []any, []string or map[string]any of such
// values. Keys are sorted as raw bytes. Another type is a mistake of the caller and panics. Safe for concurrent use.
func Encode(v any) []byte { return Append(nil, v) }

// Append appends the encoding of v to dst; see Encode.
func Append(dst []byte, v any) []byte {
	switch v := v.(type) {
	case int64:
		return append(strconv.AppendInt(append(dst, 'i'), v, 10), 'e')
	case int:
		return append(strconv.AppendInt(append(dst, 'i'), int64(v), 10), 'e')
	case string:
		return append(appendLength(dst, len(v)), v...)
	case []byte:
		return append(appendLength(dst, len(v)), v...)
	case []any:
		dst = append(dst, 'l')
		for _, e := range v {
			dst = Append(dst, e)
		}
		return append(dst, 'e')
	case []string:
		dst = append(dst, 'l')
		for _, e := range v {
			dst = Append(dst, e)
		}
		return append(dst, 'e')
	case map[string]any:
		keys := make([]string, 0, len(v))
		for k := range v {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		dst = append(dst, 'd')
		for _, k := range keys {
			dst = Append(Append(dst, k), v[k])
		}
		return append(dst, 'e')
	}
	panic(fmt.Sprintf("bencode: no encoding for %T", v))
}

func appendLength(dst []byte, n int) []byte {
	return append(strconv.AppendInt(dst, int64(n), 10), ':')
}

// Decode reads one value that fills b: an int64, string, []any or map[string]any. Integers with leading zeros or beyond
// 64 bits, keys out of order or twice, and bytes behind the value are errors, which name the first wrong byte. The
// result shares nothing with b. Safe for concurrent use.
func Decode(b []byte) (any, error) {
	if len(b) > MaxLength {
		return nil, fmt.Errorf("bencode: %d bytes, more than %d", len(b), MaxLength)
	}
	d := decoder{b: b}
	v := d.value(0)
	if d.err == nil && d.pos != len(b) {
		d.fail("%d bytes behind the value", len(b)-d.pos)
	}
	if d.err != nil {
		return nil, d.err
	}
	return v, nil
}

// decoder reads values and keeps its first error.
type decoder struct {
	b   []byte
	pos int
	err error
}

func (d *decoder) fail(format string, a ...any) {
	if d.err == nil {
		d.err = fmt.Errorf("bencode: byte %d: "+format, append([]any{d.pos}, a...)...)
	}
}

// peek returns the next byte, or 0, which begins no value, at the end.
func (d *decoder) peek() byte {
	if d.err != nil || d.pos >= len(d.b) {
		return 0
	}
	return d.b[d.pos]
}

func (d *decoder) value(depth int) any {
	if depth > MaxDepth {
		d.fail("deeper than %d", MaxDepth)
	}
	switch c := d.peek(); {
	case c == 'i':
		d.pos++
		return d.number('e', true)
	case c >= '0' && c <= '9':
		return d.text()
	case c == 'l':
		return d.list(depth)
	case c == 'd':
		return d.dictionary(depth)
	case d.pos >= len(d.b):
		d.fail("the value is cut off")
	default:
		d.fail("%q begins no value", c)
	}
	return nil
}

// number reads digits up to the byte end: the shortest form only, "-0" is none.
func (d *decoder) number(end byte, negative bool) int64 {
	start, sign := d.pos, int64(1)
	if negative && d.peek() == '-' {
		sign = -1
		d.pos++
	}
	first, v := d.pos, int64(0)
	for ; d.peek() >= '0' && d.peek() <= '9'; d.pos++ {
		digit := int64(d.b[d.pos] - '0')
		// Counted downwards, as the most negative number has no positive counterpart.
		if v < (math.MinInt64+digit)/10 {
			d.fail("number beyond 64 bits")
			return 0
		}
		v = v*10 - digit
	}
	switch {
	case d.pos == first:
		d.fail("a digit is missing")
	case d.b[first] == '0' && (d.pos > first+1 || sign < 0):
		d.pos = start
		d.fail("number with a leading zero or sign")
	case d.peek() != end:
		d.fail("number does not end in %q", end)
	case sign > 0 && v == math.MinInt64:
		d.fail("number beyond 64 bits")
	}
	d.pos++
	return -sign * v
}

func (d *decoder) text() string {
	n := d.number(':', false)
	if d.err == nil && n > int64(len(d.b)-d.pos) {
		d.fail("string of %d bytes, %d are left", n, len(d.b)-d.pos)
	}
	if d.err != nil {
		return ""
	}
	s := string(d.b[d.pos : d.pos+int(n)])
	d.pos += int(n)
	return s
}

func (d *decoder) list(depth int) []any {
	d.pos++
	list := []any{}
	for d.err == nil && d.peek() != 'e' {
		list = append(list, d.value(depth+1))
	}
	d.pos++
	return list
}

func (d *decoder) dictionary(depth int) map[string]any {
	d.pos++
	dict, last := map[string]any{}, ""
	for d.err == nil && d.peek() != 'e' {
		at := d.pos
		if c := d.peek(); c < '0' || c > '9' {
			d.fail("a key must be a string")
			return nil
		}
		key := d.text()
		if d.err == nil && len(dict) > 0 && key <= last {
			d.pos = at
			d.fail("key %.40q does not come behind %.40q", key, last)
		}
		last = key
		dict[key] = d.value(depth + 1)
	}
	d.pos++
	return dict
}
