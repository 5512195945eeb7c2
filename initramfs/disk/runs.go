package disk

import (
	"errors"
	"io"
	"runtime"

	"seedbed/images"
)

// runLength is how many bytes are read at once, and the memory of a worker.
const runLength = directChunk

// workers is how many goroutines read and hash: all processors, since SHA-256 takes longer than a solid-state disk; two for
// a disk that has to move its heads, one reading while the other hashes.
func (s *Storage) workers() int {
	if s.dev.Rotational {
		return 2
	}
	return runtime.NumCPU()
}

// runReader reads successive tiles from the disk itself, past the page cache. Owned by one goroutine.
type runReader struct {
	s    *Storage
	r    *DirectReader
	buf  []byte // begins at a page, so that nothing is copied
	free func() error
}

// newRunReader opens a reader; the caller closes it.
func (s *Storage) newRunReader() (*runReader, error) {
	r, err := s.dev.Direct()
	if err != nil {
		return nil, err
	}
	length := int64(runLength)
	if s.dev.Rotational {
		length = max(length, s.layout.PieceLength()) // a piece in one go: the other worker's piece lies elsewhere
	}
	buf, free, err := newAligned(int(length))
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return &runReader{s, r, buf, free}, nil
}

func (r *runReader) Close() error { return errors.Join(r.free(), r.r.Close()) }

// tiles shows f each of the tiles of a piece as the disk holds it through the mask, in order. raw is valid until f
// returns.
func (r *runReader) tiles(piece int, tiles images.TileSet, f func(t int, raw []byte)) error {
	return r.s.readRuns(r, piece, tiles, r.buf, f)
}

// ReadAt implements io.ReaderAt: one worker at a time where the disk has heads.
func (r *runReader) ReadAt(b []byte, offset int64) (int, error) {
	if r.s.dev.Rotational {
		r.s.turn.Lock()
		defer r.s.turn.Unlock()
	}
	return r.r.ReadAt(b, offset)
}

// readRuns is runReader.tiles for any way to read and any buffer of at least a tile.
func (s *Storage) readRuns(r io.ReaderAt, piece int, tiles images.TileSet, buf []byte, f func(t int, raw []byte)) error {
	n := s.layout.Tiles(piece)
	for t := 0; t < n; {
		if !tiles.Has(t) {
			t++
			continue
		}
		run := 1
		for t+run < n && tiles.Has(t+run) && (run+1)*images.TileLength <= len(buf) {
			run++
		}
		raw := buf[:s.layout.TileExtent(piece, t, run).Length]
		if err := s.readMasked(r, piece, t, raw); err != nil {
			return err
		}
		for i := range run {
			f(t+i, raw[i*images.TileLength:min((i+1)*images.TileLength, len(raw))])
		}
		t += run
	}
	return nil
}

// hashPiece returns the hash of each data tile of the piece as the disk holds it through the mask, in order.
func (s *Storage) hashPiece(piece int) ([]images.Digest, error) {
	data := s.data(piece)
	hashes := make([]images.Digest, 0, data.Len())
	err := s.readRuns(s.dev, piece, data, make([]byte, runLength), func(_ int, raw []byte) {
		hashes = append(hashes, images.TileHash(raw))
	})
	return hashes, err
}

// isZero reports whether all bytes are zero.
func isZero(b []byte) bool {
	for len(b) >= 8 {
		if b[0]|b[1]|b[2]|b[3]|b[4]|b[5]|b[6]|b[7] != 0 {
			return false
		}
		b = b[8:]
	}
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
