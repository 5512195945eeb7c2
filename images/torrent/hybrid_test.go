package torrent

import (
	"bytes"
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"seedbed/images/bencode"
)

// sumsOf hashes the partitions of a job as BEP 3 has it, each padded to whole pieces where there are several.
func sumsOf(t *testing.T, j *job) (sums []byte) {
	t.Helper()
	for _, f := range j.Files {
		content, err := os.ReadFile(filepath.Join(j.Folder, j.Name, f[0].(string)))
		if err != nil {
			t.Fatal(err)
		}
		if rest := int64(len(content)) % j.PieceLength; rest > 0 && len(j.Files) > 1 {
			content = append(content, make([]byte, j.PieceLength-rest)...)
		}
		for len(content) > 0 {
			n := min(int64(len(content)), j.PieceLength)
			sum := sha1.Sum(content[:n])
			sums, content = append(sums, sum[:]...), content[n:]
		}
	}
	return sums
}

// TestLibtorrentMakesTheSameHybridTorrentFromTheSameBytes covers one file and many, aligned or not, shorter than a piece
// and longer.
func TestLibtorrentMakesTheSameHybridTorrentFromTheSameBytes(t *testing.T) {
	const mib = 1 << 20
	rng := rand.New(rand.NewPCG(5, 6))
	var jobs []*job
	for _, pieceLength := range []int64{256 << 10, mib} {
		for _, lengths := range [][]int64{
			{512}, {pieceLength}, {pieceLength + 512}, {3*pieceLength - 4096}, {512, 512}, {pieceLength, 2 * pieceLength},
			{5*pieceLength + 512, 64 << 10, pieceLength - 512, 2 * pieceLength, 512}, {512, pieceLength},
		} {
			j := newJob(t, rng, pieceLength, lengths...)
			j.Hybrid = true
			jobs = append(jobs, j)
		}
	}
	made := libtorrent(t, jobs)
	for i, j := range jobs {
		info, err := Hybrid(j.manifest, sumsOf(t, j))
		if err != nil {
			t.Fatal(err)
		}
		if v1 := fmt.Sprintf("%x", info.V1); v1 != made[i].V1 || info.InfoHash.String() != made[i].InfoHash {
			theirs, _ := hex.DecodeString(made[i].Info)
			t.Errorf("%v in pieces of %d: v1 %s, v2 %s; libtorrent has %s, %s\n%q\n%q", j.Files, j.PieceLength,
				v1, info.InfoHash, made[i].V1, made[i].InfoHash, info.Bytes, theirs)
		}
		raw, err := info.Metainfo(j.layers, "http://10.77.0.1/announce")
		if err != nil {
			t.Fatal(err)
		}
		decoded, err := bencode.Decode(raw)
		if err != nil {
			t.Fatal(err)
		}
		top := decoded.(map[string]any)
		if top["announce"] != "http://10.77.0.1/announce" || !bytes.Equal(bencode.Encode(top["info"]), info.Bytes) {
			t.Errorf("the metainfo does not carry the tracker and the info dictionary: %v", top["announce"])
		}
	}
}

func TestSumsThatDoNotFitAreRefused(t *testing.T) {
	j := newJob(t, rand.New(rand.NewPCG(7, 8)), 256<<10, 3<<20, 512)
	for _, n := range []int{0, 12 * sha1.Size, 13*sha1.Size - 1, 14 * sha1.Size} {
		if _, err := Hybrid(j.manifest, make([]byte, n)); err == nil {
			t.Errorf("%d bytes of sums were taken for 13 pieces", n)
		}
	}
}
