package intake

import (
	"crypto/sha256"
	"fmt"
	"testing"

	"seedbed/images"
)

func TestTheRootIsThatOfAllPiecesHoweverMany(t *testing.T) {
	for _, n := range []int64{1, 2, 3, 4095, 4096, 4097, 8192, 8193, 12_289, 20_000} {
		piece := func(i int64) images.Digest { return sha256.Sum256(fmt.Append(nil, i)) }
		all := make([]images.Digest, n)
		for i := range all {
			all[i] = piece(int64(i))
		}
		if got, want := rootOf(n, 256<<10, piece), images.PartitionRoot(all, 256<<10); got != want {
			t.Errorf("%d pieces: root %v, want %v", n, got, want)
		}
	}
}
