package repository

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"

	"seedbed/images"
	"seedbed/images/tile"
)

// segment is a pack being written: a journal file in the spool. Its methods are safe for concurrent use, except as
// they say.
type segment struct {
	name   string // path in the spool
	handle uint32 // of the pack that it becomes

	mu      sync.Mutex
	f       file
	end     int64   // bytes of whole records; guarded by mu, as all below
	entries []entry // of the records
	synced  int     // records known to be durable
	err     error   // after a failed write or sync nothing more can be promised
	buf     []byte

	sealMu sync.Mutex // serialises sealing
	id     images.Digest
	closed bool // index written and synced, id set; guarded by sealMu
	sealed bool // in the bucket; guarded by sealMu
}

// createSegment creates the file durably.
func createSegment(fsys fileSystem, dir, name string, handle uint32) (*segment, error) {
	f, err := fsys.Create(name)
	if err != nil {
		return nil, fmt.Errorf("create spool segment: %w", err)
	}
	if _, err = f.Write([]byte(packMagic)); err == nil {
		if err = f.Sync(); err == nil {
			err = fsys.SyncDir(dir)
		}
	}
	if err != nil {
		f.Close()
		_ = fsys.Remove(name) // without records it is removed at the next start
		return nil, fmt.Errorf("create spool segment %s: %w", name, err)
	}
	return &segment{name: name, handle: handle, f: f, end: int64(len(packMagic))}, nil
}

// add appends one tile and returns its ordinal. It is not durable until sync.
func (s *segment) add(key images.TileKey, t tile.Encoded) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.addLocked(key, t)
}

// randomTile returns a tile that nobody has.
func randomTile() (images.TileKey, tile.Encoded) {
	b := make([]byte, 16)
	rand.Read(b)
	return tile.KeyOf(b), tile.Encoded{Codec: tile.Stored, Length: int32(len(b)), Bytes: b}
}

// addLocked is add for a caller that holds mu.
func (s *segment) addLocked(key images.TileKey, t tile.Encoded) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	s.buf = appendRecord(s.buf[:0], key, t)
	if _, err := s.f.Write(s.buf); err != nil {
		err = fmt.Errorf("write spool segment %s: %w", s.name, err)
		if e := s.f.Truncate(s.end); e != nil {
			s.err = err // half a record stays: recovery cuts it off, but nothing can follow it
		}
		return 0, err
	}
	e := entry{key: key, codec: t.Codec, length: int32(len(t.Bytes)), offset: s.end}
	s.entries, s.end = append(s.entries, e), e.end()
	return len(s.entries) - 1, nil
}

// length returns the bytes of all records.
func (s *segment) length() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.end
}

// sync makes every record added before the call durable. One call may serve several callers.
func (s *segment) sync() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil && s.synced < len(s.entries) && s.f != nil {
		if err := s.f.Sync(); err != nil {
			// What the kernel dropped stays unknown, and a second sync would report success.
			s.err = fmt.Errorf("sync spool segment %s: %w", s.name, err)
		} else {
			s.synced = len(s.entries)
		}
	}
	return s.err
}

// finish writes the index and makes the whole file durable; nothing is added afterwards. Where the pack's ID is one that
// taken reports, a tile of random bytes gives it another. The caller holds sealMu.
func (s *segment) finish(taken func(images.Digest) bool) error {
	if s.closed {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return s.err
	}
	index, id := encodeIndex(s.entries, s.end)
	for taken(id) {
		if _, err := s.addLocked(randomTile()); err != nil {
			return err
		}
		index, id = encodeIndex(s.entries, s.end)
	}
	if _, err := s.f.Write(index); err != nil {
		err = fmt.Errorf("write index of spool segment %s: %w", s.name, err)
		if e := s.f.Truncate(s.end); e != nil {
			s.err = err
		}
		return err
	}
	if err := s.f.Sync(); err != nil {
		s.err = fmt.Errorf("sync spool segment %s: %w", s.name, err)
		return s.err
	}
	s.synced = len(s.entries)
	_ = s.f.Close() // everything is durable
	s.f, s.id, s.closed, s.buf = nil, id, true, nil
	return nil
}

// broken reports whether the file cannot be trusted any more.
func (s *segment) broken() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err != nil
}

// abandon closes the file as it is; the next start recovers its records.
func (s *segment) abandon() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.f == nil {
		return nil
	}
	err := s.f.Close()
	s.f = nil
	if s.err == nil {
		s.err = errClosed
	}
	return err
}

// recovered is what a segment was found to hold.
type recovered struct {
	entries []entry
	end     int64         // of whole records
	extra   int64         // bytes behind them that are no record and no index
	id      images.Digest // set if the index follows and is whole
}

// recoverSegment reads a segment that a stopped process left. Its records are good up to the first that is not whole:
// what was acknowledged had been synced, so that nothing acknowledged lies behind.
func recoverSegment(f file) (r recovered, err error) {
	info, err := f.Stat()
	if err != nil {
		return r, err
	}
	size := info.Size()
	magic := make([]byte, len(packMagic))
	if _, err := f.ReadAt(magic, 0); err != nil && !errors.Is(err, io.EOF) {
		return r, err
	}
	if string(magic) != packMagic {
		r.extra = size
		return r, nil
	}
	r.end = int64(len(packMagic))
	buf := make([]byte, maxRecordLength)
	for {
		n, err := f.ReadAt(buf[:min(int64(len(buf)), size-r.end)], r.end)
		if err != nil && !errors.Is(err, io.EOF) {
			return r, err
		}
		key, t, err := decodeRecord(buf[:n])
		if err != nil || r.end > maxPackLength {
			break
		}
		e := entry{key: key, codec: t.Codec, length: int32(len(t.Bytes)), offset: r.end}
		r.entries, r.end = append(r.entries, e), e.end()
	}
	r.extra = size - r.end
	index, id := encodeIndex(r.entries, r.end)
	if r.extra != int64(len(index)) {
		return r, nil
	}
	rest := make([]byte, len(index))
	if _, err := f.ReadAt(rest, r.end); err != nil && !errors.Is(err, io.EOF) {
		return r, err
	}
	if string(rest) == string(index) && binary.BigEndian.Uint64(rest[len(rest)-trailerLength:]) == uint64(r.end) {
		r.id, r.extra = id, 0
	}
	return r, nil
}
