// Package torrent makes the torrents of an image: the v2 torrent (BEP 52) of its closed swarm, which follows from the
// manifest alone, and the hybrid one of an open swarm, for stock clients.
package torrent

import (
	"crypto/sha1"
	"crypto/sha256"
	"fmt"
	"maps"

	"seedbed/images"
	"seedbed/images/bencode"
)

// Info is the info dictionary of a torrent. Immutable.
type Info struct {
	// Bytes is the bencoded dictionary.
	Bytes []byte
	// InfoHash is the SHA-256 of Bytes.
	InfoHash images.InfoHash
	// V1 is the SHA-1 of Bytes, which v1 clients know the swarm by; zero for a closed swarm.
	V1 [sha1.Size]byte
	// PlainBytes is the dictionary of an open swarm without what v2 added, of the same pieces, and Plain its SHA-1: for
	// clients that do not read a hybrid one, as aria2 1.36 and transmission 3.
	PlainBytes []byte
	Plain      [sha1.Size]byte

	files       []file
	pieceLength int64
}

// file is one file of the torrent: a partition.
type file struct {
	name   string
	length int64
	root   images.Digest
}

// FromManifest returns the info dictionary of an image's closed swarm: v2 only, one file for each partition, private
// (BEP 27), so that no other client spreads word of it. It is named NAME-VERSION.
func FromManifest(m *images.Manifest) (*Info, error) {
	if err := m.Check(); err != nil {
		return nil, err
	}
	info := &Info{}
	info.encode(m, nil)
	return info, nil
}

// encode makes the dictionary, with the keys that v1 adds.
func (info *Info) encode(m *images.Manifest, v1 map[string]any) {
	info.pieceLength = m.PieceLength
	tree := map[string]any{}
	for i := range m.Partitions {
		p := &m.Partitions[i]
		info.files = append(info.files, file{p.FileName(), p.Length, p.Root})
		// BEP 52, "file tree": a file is a dictionary whose only key is the empty string.
		tree[p.FileName()] = map[string]any{"": map[string]any{"length": p.Length, "pieces root": string(p.Root[:])}}
	}
	dict := map[string]any{
		"file tree":    tree,
		"meta version": int64(2),
		"name":         m.Name + "-" + m.Version,
		"piece length": m.PieceLength,
		"private":      int64(1),
	}
	maps.Copy(dict, v1)
	info.Bytes = bencode.Encode(dict)
	info.InfoHash = sha256.Sum256(info.Bytes)
}

// Metainfo returns the .torrent file. layers are the full piece layers of all partitions as FullLayer returns them; they
// are checked against the roots. announce is the tracker's URL; empty means none.
func (info *Info) Metainfo(layers [][]byte, announce string) ([]byte, error) {
	if len(layers) != len(info.files) {
		return nil, fmt.Errorf("torrent: %d piece layers for %d files", len(layers), len(info.files))
	}
	dict := map[string]any{}
	for i, f := range info.files {
		if f.length <= info.pieceLength {
			continue // BEP 52, "piece layers": only of files larger than one piece
		}
		pieces := (f.length + info.pieceLength - 1) / info.pieceLength
		if int64(len(layers[i])) != pieces*sha256.Size {
			return nil, fmt.Errorf("torrent: file %s: a piece layer of %d bytes for %d pieces", f.name, len(layers[i]), pieces)
		}
		if rootOf(layers[i], info.pieceLength) != f.root {
			return nil, fmt.Errorf("torrent: file %s: the piece layer does not give the root %s", f.name, f.root.Short())
		}
		dict[string(f.root[:])] = string(layers[i])
	}
	decoded, err := bencode.Decode(info.Bytes)
	if err != nil {
		return nil, fmt.Errorf("torrent: %w", err)
	}
	metainfo := map[string]any{"info": decoded, "piece layers": dict}
	if announce != "" {
		metainfo["announce"] = announce
	}
	return bencode.Encode(metainfo), nil
}

// rootOf returns the root over a full piece layer.
func rootOf(layer []byte, pieceLength int64) images.Digest {
	hashes := make([]images.Digest, len(layer)/sha256.Size)
	for i := range hashes {
		hashes[i] = images.Digest(layer[i*sha256.Size:])
	}
	return images.PartitionRoot(hashes, pieceLength)
}

// FullLayer returns the piece layer that standard clients expect, which has the hash of every piece: those with data
// come from layer, the partition's piece layer as the image stores it, all others are constants. It is empty for a
// partition of at most one piece.
func FullLayer(m *images.Map, pieceLength int64, layer []byte) ([]byte, error) {
	if m.Length <= pieceLength {
		return nil, nil
	}
	pieces := (m.Length + pieceLength - 1) / pieceLength
	zero := zeroPiece(pieceLength, pieceLength, m.Length)
	full := make([]byte, 0, pieces*sha256.Size)
	for i := range pieces {
		length := min(pieceLength, m.Length-i*pieceLength)
		switch {
		case hasData(m, i*pieceLength, length):
			if len(layer) < sha256.Size {
				return nil, fmt.Errorf("torrent: the piece layer ends before piece %d", i)
			}
			full, layer = append(full, layer[:sha256.Size]...), layer[sha256.Size:]
		case length == pieceLength:
			full = append(full, zero[:]...)
		default:
			tail := zeroPiece(length, pieceLength, m.Length)
			full = append(full, tail[:]...)
		}
	}
	if len(layer) > 0 {
		return nil, fmt.Errorf("torrent: the piece layer has %d bytes too many", len(layer))
	}
	return full, nil
}

// hasData reports whether a piece has a data tile.
func hasData(m *images.Map, offset, length int64) bool {
	for _, e := range m.Used(nil, images.Extent{Offset: offset, Length: length}) {
		for t := e.Offset / images.TileLength; t*images.TileLength < e.End(); t++ {
			if m.State(t) == images.TileData {
				return true
			}
		}
	}
	return false
}

// zeroPiece returns the hash of a piece of zeros.
func zeroPiece(length, pieceLength, partitionLength int64) images.Digest {
	var tiles []images.Digest
	for at := int64(0); at < length; at += images.TileLength {
		tiles = append(tiles, images.ZeroTileHash(int(min(images.TileLength, length-at))))
	}
	return images.PieceHash(tiles, length, pieceLength, partitionLength)
}
