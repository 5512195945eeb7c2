package repository

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"iter"
	"math/rand/v2"
	"runtime"
	"slices"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"seedbed/images"
	"seedbed/images/tile"
)

// synthetic is a bucket whose packs are computed when they are read, so that a repository of many TiB takes no room. Its
// tile number k is in pack k/tiles, with a hash and an encoded length that follow from k.
type synthetic struct {
	tiles   int // of each pack
	packs   []images.Digest
	numbers map[images.Digest]int
	payload []byte

	mu      sync.Mutex
	objects map[string][]byte         // guarded by mu, as all below
	layers  map[string]syntheticLayer // tile layers, computed
	calls   []string                  // "read packs/...", "list packs/"
}

// syntheticLayer is a tile layer: the tile of each rank.
type syntheticLayer []uint32

func mix(x uint64) uint64 { // splitmix64
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

func syntheticHash(k uint64) (d images.Digest) {
	for i := range 4 {
		binary.BigEndian.PutUint64(d[8*i:], mix(4*k+uint64(i)))
	}
	return d
}

// syntheticLength is 16 to 48 KiB: 32 in the middle, as half-compressible tiles have.
func syntheticLength(k uint64) int32 { return int32(16<<10 + mix(k)&0x7fff) }

// newSynthetic returns count packs of so many tiles. named computes their names, for tests that read indexes; else the
// names are arbitrary.
func newSynthetic(count, tiles int, named bool) *synthetic {
	s := &synthetic{tiles: tiles, packs: make([]images.Digest, count), numbers: map[images.Digest]int{},
		payload: make([]byte, 48<<10), objects: map[string][]byte{}, layers: map[string]syntheticLayer{}}
	rand.NewChaCha8([32]byte{1}).Read(s.payload)
	var group errgroup.Group
	group.SetLimit(runtime.NumCPU())
	for n := range s.packs {
		group.Go(func() error {
			s.packs[n] = syntheticHash(uint64(1)<<60 + uint64(n))
			if named {
				_, s.packs[n] = encodeIndex(s.entries(n))
			}
			return nil
		})
	}
	_ = group.Wait()
	for n, id := range s.packs {
		s.numbers[id] = n
	}
	return s
}

// entries returns the records of a pack and where they end.
func (s *synthetic) entries(pack int) ([]entry, int64) {
	list := make([]entry, s.tiles)
	end := int64(len(packMagic))
	for i := range list {
		k := uint64(pack*s.tiles + i)
		list[i] = entry{images.TileKey{Hash: syntheticHash(k), Length: images.TileLength}, tile.Zstd, syntheticLength(k), end}
		end = list[i].end()
	}
	return list, end
}

// pack returns bytes of a pack.
func (s *synthetic) pack(n int, offset, length int64) []byte {
	list, end := s.entries(n)
	size := end + int64(len(indexMagic)+entryLength*len(list)+trailerLength)
	if length < 0 || offset+length > size {
		length = max(size-offset, 0)
	}
	out := make([]byte, 0, length)
	put := func(at int64, b []byte) { // b lies at at; what is wanted of it is the next
		from, to := max(offset-at, 0), min(offset+length-at, int64(len(b)))
		if from < to {
			out = append(out, b[from:to]...)
		}
	}
	put(0, []byte(packMagic))
	first := sort.Search(len(list), func(i int) bool { return list[i].end() > offset })
	for _, e := range list[first:] {
		if e.offset >= offset+length {
			break
		}
		header := appendRecord(nil, e.key, tile.Encoded{Codec: e.codec, Length: e.key.Length})
		binary.BigEndian.PutUint32(header[8:], uint32(e.length))
		sum := crc32.Update(crc32.Checksum(header[:44], castagnoli), castagnoli, s.payload[:e.length])
		binary.BigEndian.PutUint32(header[44:], sum)
		put(e.offset, header)
		put(e.offset+recordHeaderLength, s.payload[:e.length])
	}
	if offset+length > end {
		index, _ := encodeIndex(list, end)
		put(end, index)
	}
	return out
}

func (s *synthetic) Read(_ context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	s.mu.Lock()
	s.calls = append(s.calls, "read "+key)
	object, ok := s.objects[key]
	layer := s.layers[key]
	s.mu.Unlock()
	id, isPack := packID(key)
	n, known := s.numbers[id]
	switch {
	case ok:
		end := int64(len(object))
		if length >= 0 {
			end = min(end, offset+length)
		}
		object = object[offset:end]
	case isPack && known:
		object = s.pack(n, offset, length)
	case layer != nil:
		for i := offset / 32; i < (offset+length)/32; i++ {
			d := syntheticHash(uint64(layer[i]))
			object = append(object, d[:]...)
		}
	default:
		return nil, fmt.Errorf("object %s: %w", key, ErrNotExist)
	}
	return io.NopCloser(bytes.NewReader(object)), nil
}

func (s *synthetic) Stat(_ context.Context, key string) (Object, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, "stat "+key)
	if b, ok := s.objects[key]; ok {
		return Object{Key: key, Length: int64(len(b))}, nil
	}
	if id, ok := packID(key); ok {
		if n, ok := s.numbers[id]; ok {
			_, end := s.entries(n)
			return Object{Key: key, Length: end + int64(len(indexMagic)+entryLength*s.tiles+trailerLength)}, nil
		}
	}
	return Object{}, fmt.Errorf("object %s: %w", key, ErrNotExist)
}

func (s *synthetic) List(_ context.Context, prefix string) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		s.mu.Lock()
		s.calls = append(s.calls, "list "+prefix)
		var keys []string
		for key := range s.objects {
			keys = append(keys, key)
		}
		s.mu.Unlock()
		if prefix == "packs/" {
			for _, id := range s.packs {
				keys = append(keys, packKey(id))
			}
		}
		for _, key := range keys {
			if strings.HasPrefix(key, prefix) && !yield(Object{Key: key}, nil) {
				return
			}
		}
	}
}

func (s *synthetic) Put(_ context.Context, key string, r io.Reader, _ int64) error {
	b, err := io.ReadAll(r)
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.objects[key]; ok {
		return ErrExists
	}
	s.objects[key] = b
	return err
}

func (s *synthetic) Delete(context.Context, string) error { return errors.ErrUnsupported }

// count returns how many calls began with prefix since the last call, and forgets them if it is empty.
func (s *synthetic) count(prefix string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.calls {
		if strings.HasPrefix(c, prefix) {
			n++
		}
	}
	if prefix == "" {
		s.calls = nil
	}
	return n
}

// image adds an image of length bytes without free space, on one partition. In each of versions-1 further versions 2 % of
// it changed, in stretches of 1 to 8 tiles, so that the last version, which is the image, has tiles in many packs.
func (s *synthetic) image(tb testing.TB, length int64, versions int) images.Digest {
	tb.Helper()
	m, k := s.manifest(length, versions)
	raw, d, err := m.Encode()
	if err != nil {
		tb.Fatal(err)
	}
	p := &placement{}
	numbers := map[uint32]uint32{}
	for _, t := range k {
		n := t / uint32(s.tiles)
		if _, ok := numbers[n]; !ok {
			numbers[n] = uint32(len(p.packs))
			p.packs = append(p.packs, s.packs[n])
		}
		p.add(numbers[n], t%uint32(s.tiles))
		p.encodedLength += int64(syntheticLength(uint64(t)))
	}
	s.objects[manifestKey(d)], s.objects[signatureKey(d)] = raw, []byte("signature")
	s.objects[placementKey(d, &m.Partitions[0])] = p.encode()
	s.layers[layerKey(m.Partitions[0].TileLayer.Digest)] = k
	return d
}

func (s *synthetic) manifest(length int64, versions int) (*images.Manifest, syntheticLayer) {
	random := rand.New(rand.NewPCG(1, 2))
	k := make(syntheticLayer, length/images.TileLength)
	for i := range k {
		k[i] = uint32(i)
	}
	next := uint32(len(k))
	for range versions - 1 {
		for changed := 0; changed < len(k)/50; {
			n := 1 + random.IntN(8)
			first := random.IntN(len(k) - n)
			for i := range n {
				k[first+i] = next
				next++
			}
			changed += n
		}
	}
	if int(next) > len(s.packs)*s.tiles {
		panic("not enough packs for the image")
	}
	pieceLength := images.PieceLengthFor(length, length)
	var layer []byte
	var pieces []images.Digest
	hashes := make([]images.Digest, pieceLength/images.TileLength)
	for at := 0; at < len(k); at += len(hashes) {
		for i := range hashes {
			hashes[i] = syntheticHash(uint64(k[at+i]))
		}
		h := images.PieceHash(slices.Clone(hashes), pieceLength, pieceLength, length)
		layer, pieces = append(layer, h[:]...), append(pieces, h)
	}
	mapped := (&images.Map{Length: length, Extents: []images.Extent{{Length: length}}}).Encode()
	add := func(b []byte) images.Ref {
		ref := images.Ref{Digest: images.Sum(b), Length: int64(len(b))}
		s.objects[layerKey(ref.Digest)] = b
		return ref
	}
	return &images.Manifest{Format: images.FormatVersion, Name: "large", Version: "1", Created: 1, SectorLength: 512,
		PieceLength: pieceLength, DiskLength: length, Frame: images.Frame{Table: "none"},
		Partitions: []images.Partition{{Number: 1, Length: length, Type: "83", MapKind: "full", UsedLength: length,
			DataTiles: int64(len(k)), Root: images.PartitionRoot(pieces, pieceLength), Map: add(mapped), PieceLayer: add(layer),
			TileLayer: images.Ref{Digest: images.Sum([]byte("tile layer")), Length: 32 * int64(len(k))}}}}, k
}

// slow is a bucket that answers after a while and gives each request so many bytes a second; 0 is any number.
type slow struct {
	Bucket
	latency time.Duration
	rate    float64
}

func (s slow) Read(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	time.Sleep(s.latency)
	r, err := s.Bucket.Read(ctx, key, offset, length)
	if err != nil || s.rate == 0 {
		return r, err
	}
	return struct {
		io.Reader
		io.Closer
	}{&slowReader{r, s.rate}, r}, nil
}

type slowReader struct {
	r    io.Reader
	rate float64
}

func (s *slowReader) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	time.Sleep(time.Duration(float64(n) / s.rate * float64(time.Second)))
	return n, err
}

func (s slow) Stat(ctx context.Context, key string) (Object, error) {
	time.Sleep(s.latency)
	return s.Bucket.Stat(ctx, key)
}

func (s slow) List(ctx context.Context, prefix string) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		n := 0
		for o, err := range s.Bucket.List(ctx, prefix) {
			if n%1000 == 0 { // a page of S3
				time.Sleep(s.latency)
			}
			if n++; !yield(o, err) {
				return
			}
		}
	}
}

// openScale opens a repository whose readers may keep 64 MiB.
func openScale(tb testing.TB, b Bucket) *Repository {
	tb.Helper()
	r, err := Open(tb.Context(), b, Config{Spool: tb.TempDir()})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := r.Close(); err != nil {
			tb.Error(err)
		}
	})
	return r
}

// usage measures the heap that fn needs at most, in bytes beyond what is there before.
func usage(fn func()) int64 {
	var before, now runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	done, peak := make(chan struct{}), make(chan uint64)
	go func() {
		most := uint64(0)
		for tick := time.NewTicker(time.Millisecond); ; {
			runtime.ReadMemStats(&now)
			most = max(most, now.HeapAlloc)
			select {
			case <-tick.C:
			case <-done:
				tick.Stop()
				peak <- most
				return
			}
		}
	}()
	fn()
	close(done)
	return int64(<-peak) - int64(before.HeapAlloc)
}
