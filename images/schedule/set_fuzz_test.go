package schedule

import (
	"bytes"
	"testing"
)

func FuzzParseBitfield(f *testing.F) {
	f.Add([]byte{0xff, 0x80}, uint16(9))
	f.Add([]byte{}, uint16(0))
	f.Add(make([]byte, 8), uint16(64))
	f.Fuzz(func(t *testing.T, b []byte, pieces uint16) {
		n := int(pieces)
		s, err := ParseBitfield(b, n)
		if err != nil {
			return
		}
		if again := s.Bitfield(n); !bytes.Equal(again, b) {
			t.Errorf("%x of %d pieces reads as %x", b, n, again)
		}
		for i := range s.All() {
			if i >= n {
				t.Errorf("%x of %d pieces holds piece %d", b, n, i)
			}
		}
	})
}
