package torrent

import (
	"context"
	"crypto/sha1"
	"fmt"
	"maps"
	"net/url"
	"runtime"
	"strconv"
	"sync"

	"golang.org/x/sync/errgroup"

	"seedbed/images"
	"seedbed/images/bencode"
	"seedbed/images/layout"
	"seedbed/images/tile"
)

// Hybrid returns the info dictionary of an image's open swarm: v1 and v2 in one (BEP 52, "upgrade path"). The files of v1
// are the partitions, each filled up to whole pieces by a pad file (BEP 47) of zeros, so that the pieces of both versions
// are the same bytes. sums are the SHA-1 of all pieces, as Sums returns them. It is private (BEP 27) and named NAME-VERSION.
func Hybrid(m *images.Manifest, sums []byte) (*Info, error) {
	if err := m.Check(); err != nil {
		return nil, err
	}
	pieces := int64(0)
	var files []any
	for i := range m.Partitions {
		p := &m.Partitions[i]
		pieces += (p.Length + m.PieceLength - 1) / m.PieceLength
		files = append(files, map[string]any{"length": p.Length, "path": []string{p.FileName()}})
		if pad := padding(m, p.Length); pad > 0 {
			// BEP 47: attribute p, and a path that is the same wherever the length is.
			files = append(files, map[string]any{"attr": "p", "length": pad, "path": []string{".pad", strconv.FormatInt(pad, 10)}})
		}
	}
	if int64(len(sums)) != pieces*sha1.Size {
		return nil, fmt.Errorf("torrent: %d bytes of SHA-1 sums for %d pieces", len(sums), pieces)
	}
	info := &Info{}
	v1 := map[string]any{"files": files, "pieces": sums}
	info.encode(m, v1)
	info.V1 = sha1.Sum(info.Bytes)
	maps.Copy(v1, map[string]any{"name": m.Name + "-" + m.Version, "piece length": m.PieceLength, "private": int64(1)})
	info.PlainBytes = bencode.Encode(v1)
	info.Plain = sha1.Sum(info.PlainBytes)
	return info, nil
}

// PlainMetainfo returns the .torrent file of the dictionary without v2; announce as for Metainfo.
func (info *Info) PlainMetainfo(announce string) ([]byte, error) {
	decoded, err := bencode.Decode(info.PlainBytes)
	if err != nil {
		return nil, fmt.Errorf("torrent: %w", err)
	}
	metainfo := map[string]any{"info": decoded}
	if announce != "" {
		metainfo["announce"] = announce
	}
	return bencode.Encode(metainfo), nil
}

// padding returns the length of the pad file behind a partition. Like libtorrent's, a torrent of one file has none, and
// any other has one behind its last file too.
func padding(m *images.Manifest, length int64) int64 {
	if rest := length % m.PieceLength; rest > 0 && len(m.Partitions) > 1 {
		return m.PieceLength - rest
	}
	return 0
}

// Source is where Sums reads an image: (*repository.Reader), for one. Safe for concurrent use.
type Source interface {
	Layout() *layout.Layout
	// ReadPiece returns data tiles of a piece, in ascending order.
	ReadPiece(ctx context.Context, piece int, tiles images.TileSet) ([]tile.Encoded, error)
	// TileHashes returns the hash of each data tile of a piece in ascending order, nil if they cannot be read.
	TileHashes(piece int) []images.Digest
}

// Sums reads an image, checks each tile against its hash, and returns the SHA-1 of every piece, 20 bytes each, with free and
// zero tiles and pad files as zeros (BEP 3, "pieces"). It works on all processors and holds one piece for each. progress may
// be nil; it is told bytes of data, one call at a time.
func Sums(ctx context.Context, src Source, progress func(done, total int64)) ([]byte, error) {
	shape := src.Layout()
	sums := make([]byte, shape.Count()*sha1.Size)
	empty := sumsOfZeros()
	var mu sync.Mutex // guards done and calls of progress
	done := int64(0)
	group, running := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	for piece := range shape.Count() {
		if running.Err() != nil {
			break
		}
		sum := sums[piece*sha1.Size:][:sha1.Size]
		if shape.Data(piece).IsEmpty() {
			copy(sum, empty(WireLength(shape, piece)))
			continue
		}
		group.Go(func() error {
			n, err := sumPiece(running, src, piece, sum)
			if err != nil {
				return fmt.Errorf("hash piece %d: %w", piece, err)
			}
			mu.Lock()
			defer mu.Unlock()
			if done += n; progress != nil {
				progress(done, shape.DataLength())
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	return sums, ctx.Err()
}

// WireLength returns the length of a piece of the hybrid torrent in bytes: pad files fill up all but those of a torrent of
// one file.
func WireLength(shape *layout.Layout, piece int) int64 {
	if shape.Partitions() > 1 {
		return shape.PieceLength()
	}
	return shape.Span(piece).Length
}

// sumsOfZeros returns a function that gives the SHA-1 of so many zeros, and computes each once.
func sumsOfZeros() func(length int64) []byte {
	known := map[int64][]byte{}
	return func(length int64) []byte {
		if known[length] == nil {
			sum := sha1.Sum(make([]byte, length))
			known[length] = sum[:]
		}
		return known[length]
	}
}

// zeroTile is what free and zero tiles read as.
var zeroTile [images.TileLength]byte

// sumPiece puts the SHA-1 of a piece with data into sum, and returns the bytes of its data tiles.
func sumPiece(ctx context.Context, src Source, piece int, sum []byte) (data int64, err error) {
	shape := src.Layout()
	set := shape.Data(piece)
	tiles, err := src.ReadPiece(ctx, piece, set)
	if err != nil {
		return 0, err
	}
	hashes := src.TileHashes(piece)
	if len(tiles) != set.Len() || len(hashes) != set.Len() {
		return 0, fmt.Errorf("%d tiles and %d hashes for %d tiles", len(tiles), len(hashes), set.Len())
	}
	h := sha1.New()
	buf := make([]byte, 0, images.TileLength)
	left := WireLength(shape, piece)
	for t := range shape.Tiles(piece) {
		length := shape.TileLength(piece, t)
		raw := zeroTile[:length]
		if set.Has(t) {
			if raw, err = tiles[0].Decode(buf); err != nil {
				return 0, fmt.Errorf("tile %d: %w", t, err)
			}
			if len(raw) != length || tile.Hash(raw) != hashes[0] {
				return 0, fmt.Errorf("tile %d does not have its hash; `seedbed image verify` names what is damaged", t)
			}
			tiles, hashes = tiles[1:], hashes[1:]
			data += int64(length)
		}
		h.Write(raw)
		left -= int64(length)
	}
	for ; left > 0; left -= images.TileLength {
		h.Write(zeroTile[:min(left, images.TileLength)])
	}
	h.Sum(sum[:0])
	return data, nil
}

// Layers returns the full piece layer of each partition, as Metainfo takes them.
func Layers(shape *layout.Layout) [][]byte {
	layers := make([][]byte, shape.Partitions())
	for i := range layers {
		first, end := shape.Pieces(i)
		if end-first < 2 {
			continue
		}
		for piece := first; piece < end; piece++ {
			h := shape.PieceHash(piece)
			layers[i] = append(layers[i], h[:]...)
		}
	}
	return layers
}

// Magnet returns the magnet link (BEP 9) of an open swarm, by both its names.
func (info *Info) Magnet(name, announce string) string {
	return fmt.Sprintf("magnet:?xt=urn:btih:%x&xt=urn:btmh:1220%s&dn=%s&tr=%s", info.V1, info.InfoHash, name, url.QueryEscape(announce))
}
