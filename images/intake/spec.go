package intake

import (
	"errors"
	"fmt"

	"seedbed/images"
)

// Spec is what a capture found: all of an image but its name and what can be computed from this.
type Spec struct {
	Created      int64 `cbor:"1,keyasint"` // seconds since 1970, UTC
	DiskLength   int64 `cbor:"2,keyasint"` // bytes
	SectorLength int   `cbor:"3,keyasint"` // logical, bytes: 512 or 4096
	// PieceLength in bytes; 0 means as images.PieceLengthFor says.
	PieceLength int64    `cbor:"4,keyasint"`
	Table       string   `cbor:"5,keyasint"` // images.Frame.Table: "gpt", "mbr" or "none"
	Regions     []Region `cbor:"6,keyasint"` // the frame
	Firmware    names    `cbor:"7,keyasint,omitempty"`
	// Partitions in ascending order of Number.
	Partitions []Partition `cbor:"8,keyasint"`
	Origin     string      `cbor:"9,keyasint,omitempty"` // images.Manifest.Origin
}

// Region is one region of the frame, raw.
type Region struct {
	Kind   string `cbor:"1,keyasint"`
	Offset int64  `cbor:"2,keyasint"`
	Bytes  []byte `cbor:"3,keyasint"`
}

// Partition is one partition of a Spec.
type Partition struct {
	Number  int    `cbor:"1,keyasint"`
	Offset  int64  `cbor:"2,keyasint"` // bytes from the start of the disk
	Length  int64  `cbor:"3,keyasint"`
	Type    string `cbor:"4,keyasint"`
	GUID    string `cbor:"5,keyasint,omitempty"`
	Label   string `cbor:"6,keyasint,omitempty"`
	FS      string `cbor:"7,keyasint,omitempty"`
	FSUUID  string `cbor:"8,keyasint,omitempty"`
	MapKind string `cbor:"9,keyasint"`
	// Map is the encoded images.Map with its zero tiles.
	Map []byte `cbor:"10,keyasint"`
	// Tiles are the hashes of the data tiles in order, 32 bytes each: the tile layer.
	Tiles []byte `cbor:"11,keyasint"`
	// Dropped names what was left out by choice, as images.Partition has it.
	Dropped names `cbor:"12,keyasint,omitempty"`
}

// Assemble computes the manifest of an image, with name and version as given, and its layers by digest: maps, tile layers,
// piece layers and frame regions. It trusts nothing of s: maps are decoded, counted and compared with the tiles, the
// roots are computed, and the manifest is checked as a whole. The layers share the memory of s.
func Assemble(s *Spec, name, version string) (*images.Manifest, map[images.Digest][]byte, error) {
	m := &images.Manifest{
		Format: images.FormatVersion, Name: name, Version: version, Created: s.Created,
		DiskLength: s.DiskLength, SectorLength: s.SectorLength, PieceLength: s.PieceLength,
		Frame: images.Frame{Table: s.Table}, Firmware: s.Firmware, Origin: s.Origin,
	}
	layers := map[images.Digest][]byte{}
	add := func(b []byte) images.Ref {
		if len(b) == 0 {
			return images.Ref{}
		}
		d := images.Sum(b)
		layers[d] = b
		return images.Ref{Digest: d, Length: int64(len(b))}
	}
	for _, r := range s.Regions {
		ref := add(r.Bytes)
		ref.Kind, ref.Offset = r.Kind, r.Offset
		m.Frame.Region = append(m.Frame.Region, ref)
	}
	dataLength := int64(0)
	for i := range s.Partitions {
		p := &s.Partitions[i]
		mp, err := images.DecodeMap(p.Map) // again below: one at a time is in memory
		if err != nil {
			return nil, nil, fmt.Errorf("partition %d: %w", p.Number, err)
		}
		n, err := count(p, mp)
		if err != nil {
			return nil, nil, fmt.Errorf("partition %d: %w", p.Number, err)
		}
		n.Map, n.TileLayer = add(p.Map), add(p.Tiles)
		m.Partitions = append(m.Partitions, n)
		dataLength += n.DataTiles * images.TileLength
	}
	if m.PieceLength == 0 {
		m.PieceLength = images.PieceLengthFor(dataLength, m.DiskLength)
	}
	if err := m.Check(); err != nil { // the trees below rely on it
		return nil, nil, err
	}
	pieces := int64(0)
	for i := range m.Partitions {
		if pieces += (m.Partitions[i].Length + m.PieceLength - 1) / m.PieceLength; pieces > images.MaxPieces {
			return nil, nil, fmt.Errorf("the disk has more than %d pieces of %d bytes; take longer pieces", images.MaxPieces, m.PieceLength)
		}
	}
	for i := range m.Partitions {
		mp, err := images.DecodeMap(s.Partitions[i].Map)
		if err != nil {
			return nil, nil, err
		}
		layer, root := tree(mp, s.Partitions[i].Tiles, m.PieceLength)
		m.Partitions[i].Root, m.Partitions[i].PieceLayer = root, add(layer)
	}
	return m, layers, m.Check()
}

// count returns the manifest's entry for a partition without its tree.
func count(p *Partition, m *images.Map) (n images.Partition, err error) {
	if m.Length != p.Length {
		return n, fmt.Errorf("its map is for %d bytes, it has %d", m.Length, p.Length)
	}
	if len(p.Tiles)%len(images.Digest{}) != 0 {
		return n, errors.New("its tile hashes are cut off")
	}
	data, zero := m.CountTiles()
	if have := int64(len(p.Tiles) / len(images.Digest{})); data != have {
		return n, fmt.Errorf("its map has %d data tiles, %d hashes were given", data, have)
	}
	return images.Partition{
		Number: p.Number, Offset: p.Offset, Length: p.Length, Type: p.Type, GUID: p.GUID, Label: p.Label, FS: p.FS, FSUUID: p.FSUUID,
		MapKind: p.MapKind, UsedLength: images.TotalLength(m.Extents), DataTiles: data, ZeroTiles: zero,
		Dropped: p.Dropped,
	}, nil
}
