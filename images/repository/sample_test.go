package repository

import (
	"bytes"
	"context"
	"crypto/sha256"
	"math/rand/v2"
	"testing"

	"seedbed/images"
	"seedbed/images/tile"
)

// sample is an image made for a test, with its content.
type sample struct {
	m       *images.Manifest
	maps    []*images.Map
	content [][]byte // masked, per partition
	layers  [][]byte
	keys    [][]images.TileKey // per partition and tile, once encoded
	encoded map[images.TileKey]tile.Encoded
}

const samplePiece = images.MinPieceLength

// newSample makes an image of partitions of the lengths given. Tiles are free, zero, or data drawn from a pool of pool
// different tiles, so that some are equal.
func newSample(rng *rand.Rand, name, version string, pool int, lengths ...int64) *sample {
	s := &sample{m: &images.Manifest{
		Format: images.FormatVersion, Name: name, Version: version, Created: 1, SectorLength: 512, PieceLength: samplePiece,
		Frame: images.Frame{Table: "none"},
	}, encoded: map[images.TileKey]tile.Encoded{}}
	boot := bytes.Repeat([]byte("boot"), 128)
	s.m.Frame.Region = []images.Ref{{Digest: images.Sum(boot), Length: 512, Kind: images.RegionLBA0}}
	s.layers = append(s.layers, boot)
	for i, n := range lengths {
		s.addPartition(rng, i+1, n, pool)
	}
	return s
}

func (s *sample) addPartition(rng *rand.Rand, number int, length int64, pool int) {
	content, m := make([]byte, length), &images.Map{Length: length}
	for t := int64(0); t*images.TileLength < length; t++ {
		at := t * images.TileLength
		raw := content[at:min(at+images.TileLength, length)]
		state := rng.IntN(6)
		if state == 0 {
			continue
		}
		m.Extents = images.AppendExtent(m.Extents, images.Extent{Offset: at, Length: int64(len(raw))})
		if state == 1 {
			if k := len(m.Zero) - 1; k >= 0 && m.Zero[k].First+m.Zero[k].Count == t {
				m.Zero[k].Count++
			} else {
				m.Zero = append(m.Zero, images.TileRun{First: t, Count: 1})
			}
			continue
		}
		fillTile(raw, rng.IntN(pool))
	}
	s.maps, s.content = append(s.maps, m), append(s.content, content)
	s.keys = append(s.keys, make([]images.TileKey, images.TileCount(length)))
	p := images.Partition{Number: number, Offset: s.m.DiskLength, Length: length, Type: "83", MapKind: "used",
		UsedLength: images.TotalLength(m.Extents)}
	s.m.DiskLength += length
	var tiles, pieces []byte
	var roots []images.Digest
	for at := int64(0); at < length; at += samplePiece {
		var hashes []images.Digest
		data := false
		end := min(at+samplePiece, length)
		for a := at; a < end; a += images.TileLength {
			h := images.TileHash(content[a:min(a+images.TileLength, end)])
			hashes = append(hashes, h)
			switch m.State(a / images.TileLength) {
			case images.TileData:
				data = true
				tiles = append(tiles, h[:]...)
				p.DataTiles++
			case images.TileZero:
				p.ZeroTiles++
			}
		}
		root := images.PieceHash(hashes, end-at, samplePiece, length)
		roots = append(roots, root)
		if data && length > samplePiece {
			pieces = append(pieces, root[:]...)
		}
	}
	p.Root = images.PartitionRoot(roots, samplePiece)
	p.Map, p.PieceLayer, p.TileLayer = s.layer(m.Encode()), s.layer(pieces), s.layer(tiles)
	s.m.Partitions = append(s.m.Partitions, p)
}

// fillTile writes the bytes of tile number n of the pool: half of them noise, so that it compresses to about half.
func fillTile(raw []byte, n int) {
	var seed [32]byte
	seed[0], seed[1], seed[2] = byte(n), byte(n>>8), byte(n>>16)
	noise := rand.NewChaCha8(sha256.Sum256(seed[:]))
	noise.Read(raw[:(len(raw)+1)/2])
	raw[0] |= 1
}

func (s *sample) layer(b []byte) images.Ref {
	if len(b) == 0 {
		return images.Ref{}
	}
	s.layers = append(s.layers, b)
	return images.Ref{Digest: images.Sum(b), Length: int64(len(b))}
}

// put puts every data tile and returns the draft.
func (s *sample) put(ctx context.Context, r *Repository) (*Draft, error) {
	d := &Draft{Manifest: s.m, Layers: s.layers, Sign: func(b []byte) []byte { h := sha256.Sum256(b); return h[:] }}
	for i, m := range s.maps {
		var list []Location
		for t := int64(0); t*images.TileLength < m.Length; t++ {
			if m.State(t) != images.TileData {
				continue
			}
			key, e := s.encode(i, t)
			at, err := r.Put(ctx, key, e)
			if err != nil {
				return nil, err
			}
			list = append(list, at)
		}
		d.Tiles = append(d.Tiles, list)
	}
	return d, nil
}

// encode returns a tile encoded; the second time from memory.
func (s *sample) encode(partition int, t int64) (images.TileKey, tile.Encoded) {
	key := s.keys[partition][t]
	if key.Length == 0 {
		key = tile.KeyOf(s.tile(partition, t))
		s.keys[partition][t] = key
	}
	e, ok := s.encoded[key]
	if !ok {
		var err error
		if e, err = tile.Encode(tile.LZ4, 0, s.tile(partition, t)); err != nil {
			panic(err)
		}
		s.encoded[key] = e
	}
	return key, e
}

// tile returns the bytes of one tile.
func (s *sample) tile(partition int, t int64) []byte {
	c := s.content[partition]
	return c[t*images.TileLength : min((t+1)*images.TileLength, int64(len(c)))]
}

// dataTiles returns the data tiles of a partition.
func (s *sample) dataTiles(partition int) (list []int64) {
	for t := int64(0); t*images.TileLength < s.maps[partition].Length; t++ {
		if s.maps[partition].State(t) == images.TileData {
			list = append(list, t)
		}
	}
	return list
}

// opened publishes the sample and opens its image.
func (s *sample) opened(t testing.TB, r *Repository) *Reader {
	t.Helper()
	image, err := s.publish(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	x, err := r.OpenImage(t.Context(), image.Digest)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// publish puts and publishes the image.
func (s *sample) publish(ctx context.Context, r *Repository) (*Image, error) {
	d, err := s.put(ctx, r)
	if err != nil {
		return nil, err
	}
	return r.Publish(ctx, d)
}

// expectContent reads every data tile of the image and compares.
func (s *sample) expectContent(t *testing.T, r *Repository, d images.Digest) {
	t.Helper()
	x, err := r.OpenImage(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	for i := range s.m.Partitions {
		tiles := s.dataTiles(i)
		got, err := x.Read(t.Context(), i, tiles)
		if err != nil {
			t.Fatal(err)
		}
		for k, e := range got {
			raw, err := e.Decode(nil)
			if err != nil || !bytes.Equal(raw, s.tile(i, tiles[k])) {
				t.Fatalf("partition %d, tile %d is wrong: %v", i, tiles[k], err)
			}
		}
	}
}

// openTest opens a repository with small packs on a folder and closes it with the test.
func openTest(t *testing.T, folder string) *Repository {
	t.Helper()
	b, err := OpenDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	r, err := Open(t.Context(), b, Config{PackLength: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}
