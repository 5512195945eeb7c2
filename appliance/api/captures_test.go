package api

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"testing"

	"seedbed/images/intake"
)

func TestABodyTakesMemoryAsItComes(t *testing.T) {
	content := make([]byte, 3*intake.MaxTilesLength)
	rand.NewChaCha8([32]byte{1}).Read(content)
	for _, n := range []int64{0, 1, intake.MaxTilesLength, intake.MaxTilesLength + 1, int64(len(content))} {
		b, err := readGrowing(bytes.NewReader(content), n)
		if err != nil || !bytes.Equal(b, content[:n]) || int64(cap(b)) != n {
			t.Errorf("%d bytes: %d in memory for %d, %v", n, len(b), cap(b), err)
		}
	}
	b, err := readGrowing(bytes.NewReader(content[:100]), intake.MaxSpecLength)
	if !errors.Is(err, io.ErrUnexpectedEOF) || len(b) != 100 || cap(b) > intake.MaxTilesLength {
		t.Errorf("100 bytes of many: %d in memory for %d, %v", len(b), cap(b), err)
	}
}
