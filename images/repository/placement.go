package repository

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"sort"

	"seedbed/images"
)

// A placement says where the data tiles of one partition lie, in the order of the tiles:
//
//	magic "SBPLACE1", then unsigned varints: encoded length, number of packs
//	pack IDs (32 each), then unsigned varints: number of runs
//	for each run: pack in the list above, first ordinal, number of tiles
//	CRC-32C (4) of everything before
//
// The encoded length counts each distinct tile of the image once, with the first partition that has it.
const placementMagic = "SBPLACE1"

// placement is a decoded placement. Immutable.
type placement struct {
	encodedLength int64
	packs         []images.Digest
	runs          []placeRun
	tiles         int64
}

// placeRun is a run of data tiles that lie one after the other in a pack.
type placeRun struct {
	start   int64 // data tiles before the run
	pack    uint32
	ordinal uint32
}

// add appends one tile.
func (p *placement) add(pack, ordinal uint32) {
	if k := len(p.runs) - 1; k < 0 || p.runs[k].pack != pack || p.runs[k].ordinal+uint32(p.tiles-p.runs[k].start) != ordinal {
		p.runs = append(p.runs, placeRun{p.tiles, pack, ordinal})
	}
	p.tiles++
}

// end returns the number of data tiles up to the end of run i.
func (p *placement) end(i int) int64 {
	if i+1 < len(p.runs) {
		return p.runs[i+1].start
	}
	return p.tiles
}

// find returns the run that holds data tile number rank.
func (p *placement) find(rank int64) int {
	return sort.Search(len(p.runs), func(i int) bool { return p.runs[i].start > rank }) - 1
}

// at returns where data tile number rank lies.
func (p *placement) at(rank int64) (images.Digest, uint32) {
	r := p.runs[p.find(rank)]
	return p.packs[r.pack], r.ordinal + uint32(rank-r.start)
}

func (p *placement) encode() []byte {
	b := append([]byte(nil), placementMagic...)
	b = binary.AppendUvarint(b, uint64(p.encodedLength))
	b = binary.AppendUvarint(b, uint64(len(p.packs)))
	for _, id := range p.packs {
		b = append(b, id[:]...)
	}
	b = binary.AppendUvarint(b, uint64(len(p.runs)))
	for i, r := range p.runs {
		b = binary.AppendUvarint(b, uint64(r.pack))
		b = binary.AppendUvarint(b, uint64(r.ordinal))
		b = binary.AppendUvarint(b, uint64(p.end(i)-r.start))
	}
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// decodePlacement is the reverse of encode. tiles is the number of data tiles that the manifest gives the partition.
func decodePlacement(b []byte, tiles int64) (*placement, error) {
	if len(b) < len(placementMagic)+4 || string(b[:len(placementMagic)]) != placementMagic {
		return nil, errors.New("placement: no magic at byte 0")
	}
	body := b[:len(b)-4]
	if crc32.Checksum(body, castagnoli) != binary.BigEndian.Uint32(b[len(body):]) {
		return nil, errors.New("placement: the checksum is wrong")
	}
	rest, bad := body[len(placementMagic):], false
	next := func(limit int64) int64 {
		v, n := binary.Uvarint(rest)
		if bad = bad || n <= 0 || v > uint64(limit); bad {
			return 0
		}
		rest = rest[n:]
		return int64(v)
	}
	p := &placement{encodedLength: next(1 << 62)}
	packs := next(int64(len(rest) / 32))
	for range packs {
		if len(rest) < 32 {
			return nil, errors.New("placement: it ends among the packs")
		}
		p.packs, rest = append(p.packs, images.Digest(rest[:32])), rest[32:]
	}
	runs := next(int64(len(rest) / 3))
	p.runs = make([]placeRun, 0, runs)
	for i := int64(0); i < runs && !bad; i++ {
		bad = packs == 0 // then there is no pack to name
		r := placeRun{start: p.tiles, pack: uint32(next(packs - 1)), ordinal: uint32(next(maxPackLength))}
		count := next(tiles - p.tiles)
		if bad = bad || count == 0; bad {
			return nil, fmt.Errorf("placement: run %d cannot be", i)
		}
		p.runs, p.tiles = append(p.runs, r), p.tiles+count
	}
	if bad || len(rest) != 0 || p.tiles != tiles {
		return nil, fmt.Errorf("placement: it places %d of %d data tiles", p.tiles, tiles)
	}
	return p, nil
}

func placementKey(image images.Digest, p *images.Partition) string {
	return "placements/" + image.String() + "/" + p.FileName()
}
