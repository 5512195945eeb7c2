package repository

import (
	"context"
	"sort"

	"seedbed/images"
)

// frame says where the records of a pack lie: two bytes for each, where the pack's index has 45. Immutable.
type frame struct {
	lengths []uint16 // encoded length of each record, less one
	starts  []uint32 // position of records 0, frameEvery, 2*frameEvery, ...
}

// frameEvery bounds the additions of a look-up.
const frameEvery = 64

// frameCache bounds the frames in memory: those of 500 GiB of packs of 256 MiB with records of 32 KiB.
const frameCache = 32 << 20

func newFrame(entries []entry) *frame {
	f := &frame{lengths: make([]uint16, len(entries)), starts: make([]uint32, 0, len(entries)/frameEvery+1)}
	for i, e := range entries {
		f.lengths[i] = uint16(e.length - 1) // decodeIndex took 1 to images.TileLength
		if i%frameEvery == 0 {
			f.starts = append(f.starts, uint32(e.offset))
		}
	}
	return f
}

func (f *frame) count() int { return len(f.lengths) }

// record returns the bytes [start, end) of record i in its pack.
func (f *frame) record(i uint32) (start, end int64) {
	k := i / frameEvery
	start = int64(f.starts[k])
	for _, n := range f.lengths[k*frameEvery : i] {
		start += recordHeaderLength + int64(n) + 1
	}
	return start, start + recordHeaderLength + int64(f.lengths[i]) + 1
}

// size is the memory that it takes, in bytes.
func (f *frame) size() int64 { return int64(2*len(f.lengths) + 4*len(f.starts)) }

// frame returns the frame of a pack, from its index.
func (r *Repository) frame(ctx context.Context, id images.Digest) (*frame, error) {
	return r.frames.get(ctx, id, 0, r.fetchFrame(id))
}

func (r *Repository) fetchFrame(id images.Digest) fetching[*frame] {
	return func(ctx context.Context) (*frame, int64, error) {
		entries, err := readIndex(ctx, r.bucket, id)
		if err != nil {
			return nil, 0, err
		}
		f := newFrame(entries)
		return f, f.size(), nil
	}
}

// packPart is a part of a pack that is fetched at once, with the records in it that are wanted.
type packPart struct {
	pack       int // in the placement
	start, end int64
	wanted     []wantedRecord
}

// wantedRecord is a record of a pack that a reader wants.
type wantedRecord struct {
	at         int // in what the reader asked for
	pack       int // in the placement
	start, end int64
}

const (
	// gapLength is how many bytes between two wanted records are fetched along rather than asked for around: at 100 MB/s
	// they cost 3 ms, where a request costs some 30 ms and money.
	gapLength = 256 << 10
	// partLength bounds what is fetched at once, so that a long piece comes over several connections.
	partLength = 4 << 20
)

// partsOf joins wanted records into as few parts as is cheap: gaps may be as long as gapLength, and in all no longer than
// what is wanted and one gap. It sorts wanted.
func partsOf(wanted []wantedRecord) (parts []packPart) {
	sort.Slice(wanted, func(i, j int) bool {
		a, b := wanted[i], wanted[j]
		return a.pack < b.pack || a.pack == b.pack && a.start < b.start
	})
	waste, useful := int64(0), int64(0)
	for i, w := range wanted {
		if k := len(parts) - 1; k >= 0 && parts[k].pack == w.pack {
			p := &parts[k]
			gap := max(w.start-p.end, 0) // the same record may be wanted twice
			if gap <= gapLength && waste+gap <= useful+gapLength && w.end-p.start <= partLength {
				waste, useful = waste+gap, useful+w.end-w.start
				p.end, p.wanted = max(p.end, w.end), wanted[i-len(p.wanted):i+1]
				continue
			}
		}
		parts = append(parts, packPart{w.pack, w.start, w.end, wanted[i : i+1]})
		waste, useful = 0, w.end-w.start
	}
	return parts
}
