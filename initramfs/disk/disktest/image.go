// Package disktest makes small images for the agent's tests: real tables by sgdisk, partitions with used, free and zero
// parts.
package disktest

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"seedbed/images"
	"seedbed/images/layout"
	"seedbed/images/parttable"
)

// Image is an image with all its content in memory.
type Image struct {
	Manifest *images.Manifest
	Raw      []byte // encoded manifest
	Digest   images.Digest
	Layers   map[images.Digest][]byte
	Layout   *layout.Layout
	Disk     []byte // the captured disk, free bytes included
}

// PieceLength of every image, in bytes.
const PieceLength = images.MinPieceLength

// DiskLength of the captured disk, in bytes.
const DiskLength = 32 << 20

var once struct {
	sync.Mutex
	image *Image
}

// New returns a disk with a GPT of two partitions, the first of an odd length, captured. All tests of a program share it
// and must not change it.
func New(t testing.TB) *Image {
	t.Helper()
	once.Lock()
	defer once.Unlock()
	if once.image == nil {
		once.image = makeImage(t)
	}
	return once.image
}

// NewBare returns an image of a disk of 4 MiB without a table.
func NewBare(t testing.TB) *Image {
	t.Helper()
	return take(t, make([]byte, 4<<20))
}

// NewLong returns an image of a disk of 40 MiB without a table: with more tiles than are looked at one by one.
func NewLong(t testing.TB) *Image {
	t.Helper()
	return take(t, make([]byte, 40<<20))
}

// NewUnaligned returns an image of a disk of 8 MiB with an MBR, as old systems made it: the first of two partitions begins
// at sector 63, and the second in the middle of a page, right behind it.
func NewUnaligned(t testing.TB) *Image {
	t.Helper()
	b := make([]byte, 8<<20)
	for i, e := range [][2]uint32{{63, 8019}, {8082, 8019}} { // first sector, sectors
		entry := b[446+16*i:]
		entry[4] = 0x83 // Linux
		binary.LittleEndian.PutUint32(entry[8:], e[0])
		binary.LittleEndian.PutUint32(entry[12:], e[1])
	}
	b[510], b[511] = 0x55, 0xAA
	return take(t, b)
}

func makeImage(t testing.TB) *Image {
	t.Helper()
	file := filepath.Join(t.TempDir(), "golden.img")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, DiskLength); err != nil {
		t.Fatal(err)
	}
	if _, err := exec.LookPath("sgdisk"); err != nil {
		t.Fatal("sgdisk is missing: apt-get install gdisk")
	}
	out, err := exec.Command("sgdisk", "-n", "1:2048:12346", "-t", "1:ef00", "-n", "2:16384:+20M", "-t", "2:8300", file).CombinedOutput()
	if err != nil {
		t.Fatalf("sgdisk: %v %s", err, out)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	copy(b, "boot code") // LBA 0 of an image that boots from a BIOS
	return take(t, b)
}

// take makes an image of a disk whose partitions are filled here.
func take(t testing.TB, b []byte) *Image {
	t.Helper()
	table, err := parttable.Read(bytes.NewReader(b), int64(len(b)), 512)
	if err != nil {
		t.Fatal(err)
	}
	m := &images.Manifest{Format: images.FormatVersion, Name: "test", Version: "1", Created: 1, DiskLength: int64(len(b)),
		SectorLength: 512, PieceLength: PieceLength, Frame: images.Frame{Table: table.Kind}}
	img := &Image{Manifest: m, Layers: map[images.Digest][]byte{}, Disk: b}
	for _, r := range table.Frame() {
		ref := img.layer(r.Bytes)
		ref.Kind, ref.Offset = r.Kind, r.Offset
		m.Frame.Region = append(m.Frame.Region, ref)
	}
	random := rand.New(rand.NewPCG(7, 7))
	var maps []*images.Map
	var pieceLayers [][]byte
	for _, e := range table.Partitions {
		content := b[e.Offset : e.Offset+e.Length]
		pm := fill(random, content)
		p := images.Partition{Number: e.Number, Offset: e.Offset, Length: e.Length, Type: e.Type, GUID: e.GUID, MapKind: "used",
			UsedLength: images.TotalLength(pm.Extents)}
		pieceLayer := img.describe(&p, pm, content)
		m.Partitions = append(m.Partitions, p)
		maps, pieceLayers = append(maps, pm), append(pieceLayers, pieceLayer)
	}
	if img.Raw, img.Digest, err = m.Encode(); err != nil {
		t.Fatal(err)
	}
	if img.Layout, err = layout.New(m, maps, pieceLayers); err != nil {
		t.Fatal(err)
	}
	return img
}

func (img *Image) layer(b []byte) images.Ref {
	d := images.Sum(b)
	img.Layers[d] = b
	return images.Ref{Digest: d, Length: int64(len(b))}
}

// fill gives a partition noise everywhere, and returns a map that says that runs of 1 KiB to 200 KiB of it are used, some
// of them zero.
func fill(random *rand.Rand, content []byte) *images.Map {
	for i := 0; i+8 <= len(content); i += 8 {
		binary.LittleEndian.PutUint64(content[i:], random.Uint64())
	}
	m := &images.Map{Length: int64(len(content))}
	for at := int64(0); at < m.Length; {
		length := min(m.Length-at, int64(1+random.IntN(200))<<10)
		switch random.IntN(4) {
		case 0, 1:
			m.Extents = images.AppendExtent(m.Extents, images.Extent{Offset: at, Length: length})
		case 2:
			m.Extents = images.AppendExtent(m.Extents, images.Extent{Offset: at, Length: length})
			clear(content[at : at+length])
		}
		at += length
	}
	return m
}

// describe fills in what the manifest says of a partition and its zero tiles, and returns its piece layer.
func (img *Image) describe(p *images.Partition, m *images.Map, content []byte) (pieceLayer []byte) {
	masked := bytes.Clone(content)
	m.Mask(masked, 0)
	var tileLayer []byte
	var pieces []images.Digest
	for at := int64(0); at < p.Length; at += PieceLength {
		piece := masked[at:min(p.Length, at+PieceLength)]
		var tiles []images.Digest
		data := false
		for off := 0; off < len(piece); off += images.TileLength {
			raw := piece[off:min(len(piece), off+images.TileLength)]
			hash := images.TileHash(raw)
			tiles = append(tiles, hash)
			index := (at + int64(off)) / images.TileLength
			used := m.Used(nil, images.Extent{Offset: at + int64(off), Length: int64(len(raw))})
			switch {
			case len(used) == 0:
			case len(bytes.Trim(raw, "\x00")) == 0:
				p.ZeroTiles++
				if k := len(m.Zero) - 1; k >= 0 && m.Zero[k].First+m.Zero[k].Count == index {
					m.Zero[k].Count++
				} else {
					m.Zero = append(m.Zero, images.TileRun{First: index, Count: 1})
				}
			default:
				data = true
				p.DataTiles++
				tileLayer = append(tileLayer, hash[:]...)
			}
		}
		hash := images.PieceHash(tiles, int64(len(piece)), PieceLength, p.Length)
		pieces = append(pieces, hash)
		if data {
			pieceLayer = append(pieceLayer, hash[:]...)
		}
	}
	p.Root = images.PartitionRoot(pieces, PieceLength)
	p.Map, p.TileLayer, p.PieceLayer = img.layer(m.Encode()), img.layer(tileLayer), img.layer(pieceLayer)
	return pieceLayer
}

// Fetch returns a layer.
func (img *Image) Fetch(r images.Ref) ([]byte, error) { return img.Layers[r.Digest], nil }

// Tile returns the masked content of one tile.
func (img *Image) Tile(piece, tile int) []byte {
	e := img.Layout.TileExtent(piece, tile, 1)
	span := img.Layout.Span(piece)
	base := img.Layout.DiskOffset(span.Partition)
	raw := bytes.Clone(img.Disk[base+e.Offset : base+e.End()])
	img.Layout.Mask(span.Partition, raw, e.Offset)
	return raw
}

// Check reports how a disk differs from the image: used bytes that are not those of the image, and free bytes that are
// not those of before.
func (img *Image) Check(t testing.TB, got, before []byte) {
	t.Helper()
	for i, p := range img.Manifest.Partitions {
		at := int64(0)
		same := func(e images.Extent, want []byte, what string) {
			a, b := p.Offset+e.Offset, p.Offset+e.End()
			if !bytes.Equal(got[a:b], want[a:b]) {
				t.Errorf("partition %d: %s bytes %v differ", p.Number, what, e)
			}
		}
		for _, e := range img.Layout.Map(i).Extents {
			same(images.Extent{Offset: at, Length: e.Offset - at}, before, "free")
			same(e, img.Disk, "used")
			at = e.End()
		}
		same(images.Extent{Offset: at, Length: p.Length - at}, before, "free")
	}
}
