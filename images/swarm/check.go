package swarm

import (
	"context"
	"fmt"
	"time"

	"seedbed/images"
	"seedbed/images/tile"
)

// verdict is what a worker found out about an assembly.
type verdict struct {
	a *assembly
	// badHashes says that the tile hashes which a peer sent do not give the piece's hash; bad are the tiles that do
	// not have their hash.
	badHashes bool
	bad       images.TileSet
	// written are decoded bytes. err is an error of the storage and ends the swarm.
	written int64
	err     error
}

// work checks and writes assemblies until ctx ends. Its buffer grows to one piece and is kept.
func (s *Swarm) work(ctx context.Context) {
	var buf []byte
	for {
		select {
		case <-ctx.Done():
			return
		case a := <-s.jobs:
			var v verdict
			v, buf = s.check(a, buf)
			s.tell(v)
		}
	}
}

// check decodes the tiles of a piece, compares each with its hash and writes all of them, or none if one is wrong. One
// write per run of successive tiles. What is stored as it is, is not copied.
func (s *Swarm) check(a *assembly, buf []byte) (verdict, []byte) {
	v := verdict{a: a}
	hashes := s.cfg.Storage.TileHashes(a.piece)
	if hashes == nil {
		if s.cfg.Open != nil && a.hashes == nil && a.need == s.cfg.Pieces.Data(a.piece) {
			return s.checkWhole(a, buf)
		}
		if a.hashes == nil || s.cfg.Pieces.CheckHashes(a.piece, a.hashes) != nil {
			v.badHashes = true
			return v, buf
		}
		hashes = a.hashes
		s.cfg.Storage.Learn(a.piece, hashes)
	}
	if n := s.lengthOf(a.piece, a.need); int64(cap(buf)) < n {
		buf = make([]byte, n)
	}
	list := make([][]byte, 0, a.need.Len())
	at, rank := 0, 0
	for i := range s.cfg.Pieces.Data(a.piece).All() {
		if a.need.Has(i) {
			end := at + s.cfg.Pieces.TileLength(a.piece, i)
			raw, err := a.tiles[i].Raw(buf[at:at:end])
			if err != nil || len(raw) != end-at || rank >= len(hashes) || tile.Hash(raw) != hashes[rank] {
				v.bad.Add(i)
			}
			list = append(list, raw)
			at = end
		}
		rank++
	}
	if !v.bad.IsEmpty() {
		return v, buf
	}
	return s.put(v, list), buf
}

// put writes the decoded tiles of a piece that is right.
func (s *Swarm) put(v verdict, raw [][]byte) verdict {
	started := time.Now()
	v.err = s.write(v.a, raw)
	for i := range raw {
		v.written += int64(len(raw[i]))
	}
	s.count.writeNanos.Add(int64(time.Since(started)))
	return v
}

// write gives the decoded tiles of a piece to the storage, those that follow one another at once.
func (s *Swarm) write(a *assembly, raw [][]byte) error {
	first, n := 0, 0
	flush := func() error {
		if n == 0 {
			return nil
		}
		if err := s.cfg.Storage.Write(a.piece, first, raw[:n]); err != nil {
			return fmt.Errorf("write piece %d from tile %d: %w", a.piece, first, err)
		}
		raw, n = raw[n:], 0
		return nil
	}
	for i := range a.need.All() {
		if i != first+n {
			if err := flush(); err != nil {
				return err
			}
		}
		if n == 0 {
			first = i
		}
		n++
	}
	return flush()
}
