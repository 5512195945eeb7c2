package intake

import (
	"fmt"

	"seedbed/images"
)

// SpecOf describes an image that exists, for another version with the same content: the reverse of Assemble. layer returns a layer
// by its digest; the Spec shares its memory. The origin is not taken over.
func SpecOf(m *images.Manifest, layer func(images.Digest) ([]byte, error)) (*Spec, error) {
	s := &Spec{
		Created: m.Created, DiskLength: m.DiskLength, SectorLength: m.SectorLength, PieceLength: m.PieceLength,
		Table: m.Frame.Table, Firmware: m.Firmware,
	}
	content := func(ref images.Ref) ([]byte, error) {
		if ref.Length == 0 {
			return nil, nil
		}
		b, err := layer(ref.Digest)
		if err == nil && int64(len(b)) != ref.Length {
			err = fmt.Errorf("layer %s has %d bytes, want %d", ref.Digest.Short(), len(b), ref.Length)
		}
		return b, err
	}
	for _, ref := range m.Frame.Region {
		b, err := content(ref)
		if err != nil {
			return nil, err
		}
		s.Regions = append(s.Regions, Region{Kind: ref.Kind, Offset: ref.Offset, Bytes: b})
	}
	for i := range m.Partitions {
		p := &m.Partitions[i]
		encoded, err := content(p.Map)
		if err != nil {
			return nil, fmt.Errorf("partition %d: %w", p.Number, err)
		}
		tiles, err := content(p.TileLayer)
		if err != nil {
			return nil, fmt.Errorf("partition %d: %w", p.Number, err)
		}
		s.Partitions = append(s.Partitions, Partition{
			Number: p.Number, Offset: p.Offset, Length: p.Length, Type: p.Type, GUID: p.GUID, Label: p.Label, FS: p.FS, FSUUID: p.FSUUID,
			MapKind: p.MapKind, Map: encoded, Tiles: tiles, Dropped: p.Dropped,
		})
	}
	return s, nil
}

// Keys returns the keys of the partition's data tiles in order.
func (p *Partition) Keys() ([]images.TileKey, error) {
	m, err := images.DecodeMap(p.Map)
	if err != nil {
		return nil, err
	}
	n, err := count(p, m)
	if err != nil {
		return nil, err
	}
	keys := make([]images.TileKey, n.DataTiles)
	for i := range keys {
		keys[i] = images.TileKey{Hash: images.Digest(p.Tiles[32*i:]), Length: images.TileLength}
	}
	if tail := p.Length % images.TileLength; tail != 0 && len(keys) > 0 && m.State(p.Length/images.TileLength) == images.TileData {
		keys[len(keys)-1].Length = int32(tail)
	}
	return keys, nil
}
