package schedule

import (
	"encoding/binary"
	"fmt"
	"math/bits"
)

// Set is a set of piece indexes: bit 63-i%64 of word i/64 is piece i, so that its big-endian bytes are the bitfield
// of BEP 3. Bits behind the last piece are zero.
type Set []uint64

func NewSet(n int) Set { return make(Set, (n+63)/64) }

func (b Set) Has(i int) bool { return b[i>>6]<<(i&63)>>63 == 1 }
func (b Set) Add(i int)      { b[i>>6] |= 1 << (63 - i&63) }
func (b Set) Remove(i int)   { b[i>>6] &^= 1 << (63 - i&63) }

func (b Set) Len() (n int) {
	for _, w := range b {
		n += bits.OnesCount64(w)
	}
	return n
}

// union adds the pieces of o.
func (b Set) Union(o Set) {
	for i := range b {
		b[i] |= o[i]
	}
}

// lacks reports whether o holds a piece that b does not.
func (b Set) Lacks(o Set) bool {
	for i := range b {
		if o[i]&^b[i] != 0 {
			return true
		}
	}
	return false
}

// LacksMany reports whether o holds at least n pieces that b does not.
func (b Set) LacksMany(o Set, n int) bool {
	for i := range b {
		if n -= bits.OnesCount64(o[i] &^ b[i]); n <= 0 {
			return true
		}
	}
	return false
}

// intersects reports whether b and o have a piece in common.
func (b Set) Intersects(o Set) bool {
	for i := range b {
		if b[i]&o[i] != 0 {
			return true
		}
	}
	return false
}

// all yields the pieces in ascending order.
func (b Set) All() func(yield func(int) bool) {
	return func(yield func(int) bool) {
		for w, word := range b {
			for word != 0 {
				z := bits.LeadingZeros64(word)
				if !yield(w<<6 + z) {
					return
				}
				word &^= 1 << (63 - z)
			}
		}
	}
}

// From yields the pieces in ascending order beginning at one, and then those before it.
func (b Set) From(at int) func(yield func(int) bool) {
	return func(yield func(int) bool) {
		for half := range 2 {
			for w := range b {
				word := b[w]
				switch low := ^uint64(0) >> (at & 63); { // of the word that at lies in, those from at on
				case w == at>>6 && half == 0:
					word &= low
				case w == at>>6:
					word &^= low
				case (w > at>>6) != (half == 0):
					continue
				}
				for word != 0 {
					z := bits.LeadingZeros64(word)
					if !yield(w<<6 + z) {
						return
					}
					word &^= 1 << (63 - z)
				}
			}
		}
	}
}

// longRows removes the pieces that are not in a row of at least n.
func (b Set) longRows(n int) {
	first, last := 0, -1
	end := func() {
		if last-first+1 < n {
			for i := first; i <= last; i++ {
				b.Remove(i)
			}
		}
	}
	for i := range b.All() {
		if i != last+1 {
			end()
			first = i
		}
		last = i
	}
	end()
}

// bitfield returns the bytes of BEP 3 for n pieces.
func (b Set) Bitfield(n int) []byte {
	buf := make([]byte, 0, 8*len(b))
	for _, w := range b {
		buf = binary.BigEndian.AppendUint64(buf, w)
	}
	return buf[:(n+7)/8]
}

// ParseBitfield reads a bitfield of n pieces; another length or a spare bit that is set is an error.
func ParseBitfield(p []byte, n int) (Set, error) {
	if len(p) != (n+7)/8 {
		return nil, fmt.Errorf("bitfield of %d bytes for %d pieces", len(p), n)
	}
	b := NewSet(n)
	buf := make([]byte, 8*len(b))
	copy(buf, p)
	for i := range b {
		b[i] = binary.BigEndian.Uint64(buf[8*i:])
	}
	if spare := n & 63; spare != 0 && b[len(b)-1]<<spare != 0 {
		return nil, fmt.Errorf("bitfield of %d pieces with spare bits", n)
	}
	return b, nil
}
