package parttable

import (
	"fmt"

	"seedbed/images"
)

// LoadFrame fetches the frame of an image and checks each region against its digest. fetch may block.
func LoadFrame(m *images.Manifest, fetch func(images.Ref) ([]byte, error)) ([]Region, error) {
	var frame []Region
	for _, r := range m.Frame.Region {
		b, err := fetch(r)
		if err != nil {
			return nil, fmt.Errorf("frame of %s: %w", m.Name, err)
		}
		if int64(len(b)) != r.Length || images.Sum(b) != r.Digest {
			return nil, fmt.Errorf("frame of %s: the bytes of region %s are not those of %s", m.Name, r.Kind, r.Digest.Short())
		}
		frame = append(frame, Region{Kind: r.Kind, Offset: r.Offset, Bytes: b})
	}
	return frame, nil
}

// Needed returns the length in bytes of the smallest disk that holds the image and its table.
func Needed(m *images.Manifest, frame []Region) (int64, error) {
	n, err := MinimumDisk(frame, m.Frame.Table, m.SectorLength)
	if err != nil {
		return 0, err
	}
	return max(n, m.EndOfPartitions()), nil
}
