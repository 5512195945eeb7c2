package swarm

import (
	"context"
	"fmt"
	"sync"

	"seedbed/images"
	"seedbed/images/peerwire"
	"seedbed/images/tile"
)

// tilesPerRead is how many tiles are read from the storage at once: 1 MiB. tilesPerNear is it where the storage is near.
const (
	tilesPerRead = 16
	tilesPerNear = 4
)

// readBuffers are for the tiles of one read of a storage that is near, and what it keeps between them: a link has one only
// while it sends.
var readBuffers = sync.Pool{New: func() any { b := make([]byte, tilesPerNear*(images.TileLength+1<<10)); return &b }}

// upload sends tiles, and the hashes ahead of them where asked for. data is a buffer to use again. The error is the
// connection's: tiles that cannot be read are refused.
func (s *Swarm) upload(ctx context.Context, l *link, u upload, data []byte) ([]byte, error) {
	kind := byte(l.tileKind.Load())
	data = data[:0]
	sent := int64(0)
	if u.hashes {
		hashes := s.cfg.Storage.TileHashes(u.piece)
		if hashes == nil {
			return s.refuse(l, u, data)
		}
		data = peerwire.AppendTile(data, kind, peerwire.Hashes{Piece: u.piece, Hashes: hashes})
		sent = int64(len(hashes) * len(images.Digest{}))
	}
	if !s.memory.holds(u.piece) { // what waits in the outbox does not wait for the storage
		if err := l.writeControl(); err != nil {
			return data, err
		}
	}
	var buf []byte
	if s.near {
		read := readBuffers.Get().(*[]byte)
		defer func() {
			if spoil != nil {
				spoil(*read)
			}
			readBuffers.Put(read)
		}()
		buf = *read
	}
	tiles, err := s.readTiles(ctx, u, buf)
	if err != nil {
		if ctx.Err() != nil {
			return data, ctx.Err()
		}
		s.cfg.Log.Warn("tiles could not be read", "piece", u.piece, "peer", l.remote, "err", err)
		return s.refuse(l, u, data)
	}
	target := l.up.share(peerwire.TilesTarget, messageTime, 1)
	for first := true; len(tiles) > 0 || len(data) > 0; first = false {
		if !l.up.limited() {
			data = l.appendControl(data)
		} else if !first {
			if err := l.writeControl(); err != nil {
				return data, err
			}
		}
		n, length := 0, 0
		for n < len(tiles) && length < target {
			length += len(tiles[n].Bytes) + peerwire.TileOverhead
			n++
		}
		var parts [][]byte
		if n > 0 {
			data, parts = peerwire.AppendTiles(data, kind, peerwire.Tiles{Piece: u.piece, Tiles: tiles[:n]})
		} else {
			parts = [][]byte{data}
		}
		if err := l.writeData(ctx, parts...); err != nil {
			return data, err
		}
		for _, t := range tiles[:n] {
			sent += int64(len(t.Bytes))
		}
		s.count.toPeers.Add(sent)
		tiles, data, sent = tiles[n:], data[:0], 0
	}
	return data, nil
}

// refuse says that the tiles, or the hashes, cannot be read. What data holds goes ahead.
func (s *Swarm) refuse(l *link, u upload, data []byte) ([]byte, error) {
	s.tell(unreadable{l, u.piece})
	data = peerwire.AppendTile(data, byte(l.tileKind.Load()), peerwire.Reject{Piece: u.piece, Tiles: u.tiles})
	_, err := l.conn.Write(data)
	return data, err
}

// readTiles takes tiles from the cache, and the rest from the storage, which may put them into buf.
func (s *Swarm) readTiles(ctx context.Context, u upload, buf []byte) ([]peerwire.IndexedTile, error) {
	found := s.memory.find(u.piece, u.tiles)
	rest := u.tiles
	for i := range found {
		rest.Remove(i)
	}
	var read []tile.Encoded
	if !rest.IsEmpty() {
		var err error
		if read, err = s.cfg.Storage.Read(ctx, u.piece, rest, buf); err != nil {
			return nil, err
		}
		if len(read) != rest.Len() {
			return nil, fmt.Errorf("storage gave %d tiles of %d", len(read), rest.Len())
		}
	}
	list := make([]peerwire.IndexedTile, 0, u.tiles.Len())
	for i := range u.tiles.All() {
		t, ok := found[i]
		if !ok {
			t, read = read[0], read[1:]
		}
		list = append(list, peerwire.IndexedTile{Index: i, Encoded: t})
	}
	return list, nil
}
