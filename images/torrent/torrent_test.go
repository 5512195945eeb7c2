package torrent

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"seedbed/images"
	"seedbed/images/bencode"
)

// judge makes the torrent of a folder with libtorrent and prints the info dictionary's and the piece layers' digests. A
// torrent has one piece length, so that one call judges many torrents.
const judge = `
import hashlib, json, sys
import libtorrent as lt
out = []
for job in json.load(sys.stdin):
    storage = lt.file_storage()
    for name, length in job["files"]:
        storage.add_file(job["name"] + "/" + name, length)
    flags = 0 if job["hybrid"] else lt.create_torrent_flags_t.v2_only
    t = lt.create_torrent(storage, job["piece_length"], flags)
    t.set_priv(True)
    lt.set_piece_hashes(t, job["folder"])
    made = t.generate()
    info = lt.bencode(made[b"info"])
    layers = {k.hex(): v.hex() for k, v in made.get(b"piece layers", {}).items()}
    out.append({"info": info.hex(), "infohash": hashlib.sha256(info).hexdigest(), "v1": hashlib.sha1(info).hexdigest(), "layers": layers})
json.dump(out, sys.stdout)
`

type job struct {
	Name        string   `json:"name"`
	Folder      string   `json:"folder"`
	Files       [][2]any `json:"files"`
	PieceLength int64    `json:"piece_length"`
	Hybrid      bool     `json:"hybrid"`

	manifest *images.Manifest
	info     *Info
	layers   [][]byte
}

// TestLibtorrentMakesTheSameTorrentFromTheSameBytes covers partitions around the sizes at which the tree changes shape.
func TestLibtorrentMakesTheSameTorrentFromTheSameBytes(t *testing.T) {
	const mib = 1 << 20
	var lengths []int64
	for _, n := range []int64{16 << 10, 64 << 10, 4 * mib} {
		lengths = append(lengths, n-512, n, n+512, n-4096, n+4096)
	}
	lengths = append(lengths, 512, 4096, mib, 2*mib+512, 13*mib+64<<10)
	rng := rand.New(rand.NewPCG(1, 2))
	var jobs []*job
	for _, pieceLength := range []int64{256 << 10, mib, 4 * mib} {
		jobs = append(jobs, newJob(t, rng, pieceLength, lengths...)) // all in one torrent
		for _, n := range lengths {
			jobs = append(jobs, newJob(t, rng, pieceLength, n)) // and each alone
		}
	}
	made := libtorrent(t, jobs)
	for i, j := range jobs {
		if made[i].InfoHash != j.info.InfoHash.String() {
			t.Errorf("%v in pieces of %d: infohash %s, libtorrent has %s", j.Files, j.PieceLength, j.info.InfoHash, made[i].InfoHash)
		}
		raw, err := j.info.Metainfo(j.layers, "")
		if err != nil {
			t.Fatal(err)
		}
		decoded, err := bencode.Decode(raw)
		if err != nil {
			t.Fatal(err)
		}
		layers := decoded.(map[string]any)["piece layers"].(map[string]any)
		if len(layers) != len(made[i].Layers) {
			t.Errorf("%d piece layers, libtorrent has %d", len(layers), len(made[i].Layers))
		}
		for root, layer := range layers {
			if hexOf(layer.(string)) != made[i].Layers[hexOf(root)] {
				t.Errorf("%v in pieces of %d: the piece layer of %x differs from libtorrent's", j.Files, j.PieceLength, root)
			}
		}
	}
}

func hexOf(s string) string {
	const digits = "0123456789abcdef"
	var b strings.Builder
	for i := range len(s) {
		b.WriteByte(digits[s[i]>>4])
		b.WriteByte(digits[s[i]&15])
	}
	return b.String()
}

type madeTorrent struct {
	Info     string            `json:"info"`
	InfoHash string            `json:"infohash"`
	V1       string            `json:"v1"`
	Layers   map[string]string `json:"layers"`
}

func libtorrent(t *testing.T, jobs []*job) (made []madeTorrent) {
	t.Helper()
	in, err := json.Marshal(jobs)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/usr/bin/python3", "-c", judge)
	cmd.Stdin = bytes.NewReader(in)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("libtorrent: %v (Debian: apt install python3-libtorrent)\n%s", err, stderr.String())
	}
	if err := json.Unmarshal(out, &made); err != nil {
		t.Fatal(err)
	}
	return made
}

// newJob writes partitions of the lengths given, with runs of free and of zero tiles, and makes their torrent.
func newJob(t *testing.T, rng *rand.Rand, pieceLength int64, lengths ...int64) *job {
	t.Helper()
	m := &images.Manifest{
		Format: images.FormatVersion, Name: "room", Version: "7", SectorLength: 512, PieceLength: pieceLength,
		Frame: images.Frame{Table: "none"},
	}
	j := &job{Name: "room-7", Folder: t.TempDir(), PieceLength: pieceLength}
	folder := filepath.Join(j.Folder, j.Name)
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	for i, n := range lengths {
		content, mp := randomContent(rng, n)
		layer, root := hashTree(mp, content, pieceLength)
		p := images.Partition{
			Number: i + 1, Offset: m.DiskLength, Length: n, Type: "83", MapKind: "used", Root: root,
			UsedLength: images.TotalLength(mp.Extents), Map: images.Ref{Length: 1},
		}
		m.DiskLength += n
		m.Partitions = append(m.Partitions, p)
		full, err := FullLayer(mp, pieceLength, layer)
		if err != nil {
			t.Fatal(err)
		}
		j.layers = append(j.layers, full)
		j.Files = append(j.Files, [2]any{p.FileName(), n})
		if err := os.WriteFile(filepath.Join(folder, p.FileName()), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	info, err := FromManifest(m)
	if err != nil {
		t.Fatal(err)
	}
	j.manifest, j.info = m, info
	return j
}

// randomContent returns masked content and its map: about half the tiles hold data, the others are free or zero, in
// runs that are longer than a piece now and then.
func randomContent(rng *rand.Rand, length int64) ([]byte, *images.Map) {
	content, m := make([]byte, length), &images.Map{Length: length}
	for at := int64(0); at < length; {
		n := min((1+rng.Int64N(1+rng.Int64N(80)))*images.TileLength, length-at)
		switch state := rng.IntN(4); state {
		case 0: // free
		case 1:
			m.Extents = images.AppendExtent(m.Extents, images.Extent{Offset: at, Length: n})
			m.Zero = append(m.Zero, images.TileRun{First: at / images.TileLength, Count: images.TileCount(n)})
		default:
			m.Extents = images.AppendExtent(m.Extents, images.Extent{Offset: at, Length: n})
			for k := range n {
				content[at+k] = byte(rng.Uint32() | 1)
			}
		}
		at += n
	}
	return content, m
}

// hashTree hashes content piece by piece and keeps the hashes of pieces with data.
func hashTree(m *images.Map, content []byte, pieceLength int64) (layer []byte, root images.Digest) {
	length := int64(len(content))
	var pieces []images.Digest
	for at := int64(0); at < length; at += pieceLength {
		piece := content[at:min(at+pieceLength, length)]
		var tiles []images.Digest
		for b := piece; len(b) > 0; b = b[min(images.TileLength, len(b)):] {
			tiles = append(tiles, images.TileHash(b[:min(images.TileLength, len(b))]))
		}
		d := images.PieceHash(tiles, int64(len(piece)), pieceLength, length)
		pieces = append(pieces, d)
		if length > pieceLength && hasData(m, at, int64(len(piece))) {
			layer = append(layer, d[:]...)
		}
	}
	return layer, images.PartitionRoot(pieces, pieceLength)
}

func TestAPieceLayerThatDoesNotFitIsRefused(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	const pieceLength = 256 << 10
	j := newJob(t, rng, pieceLength, 3<<20)
	bad := bytes.Clone(j.layers[0])
	bad[sha256.Size] ^= 1
	for name, layer := range map[string][]byte{"flipped": bad, "short": bad[:32], "none": nil} {
		if _, err := j.info.Metainfo([][]byte{layer}, ""); err == nil {
			t.Errorf("%s: a wrong piece layer was taken", name)
		}
	}
	if _, err := j.info.Metainfo(nil, ""); err == nil {
		t.Error("a missing piece layer was taken")
	}
	m := &images.Map{Length: 1 << 20, Extents: []images.Extent{{Offset: 0, Length: 1 << 20}}}
	for _, n := range []int{0, 3 * 32, 5 * 32, 33} {
		if _, err := FullLayer(m, pieceLength, make([]byte, n)); err == nil {
			t.Errorf("a layer of %d bytes was taken for four pieces", n)
		}
	}
}
