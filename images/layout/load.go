package layout

import (
	"fmt"

	"seedbed/images"
)

// Load fetches the maps and piece layers that a manifest names, checks each against its digest and returns the layout.
// fetch returns the content of one layer; it is called one at a time and may block.
func Load(m *images.Manifest, fetch func(images.Ref) ([]byte, error)) (*Layout, error) {
	checked := func(p *images.Partition, what string, r images.Ref) ([]byte, error) {
		b, err := fetch(r)
		if err != nil {
			return nil, fmt.Errorf("%s of partition %d of %s: %w", what, p.Number, m.Name, err)
		}
		if int64(len(b)) != r.Length || images.Sum(b) != r.Digest {
			return nil, fmt.Errorf("%s of partition %d of %s: the bytes are not those of %s", what, p.Number, m.Name,
				r.Digest.Short())
		}
		return b, nil
	}
	maps := make([]*images.Map, len(m.Partitions))
	layers := make([][]byte, len(m.Partitions))
	for i := range m.Partitions {
		p := &m.Partitions[i]
		b, err := checked(p, "map", p.Map)
		if err != nil {
			return nil, err
		}
		if maps[i], err = images.DecodeMap(b); err != nil {
			return nil, fmt.Errorf("partition %d of %s: %w", p.Number, m.Name, err)
		}
		if p.PieceLayer.Length == 0 {
			continue
		}
		if layers[i], err = checked(p, "piece layer", p.PieceLayer); err != nil {
			return nil, err
		}
	}
	return New(m, maps, layers)
}
