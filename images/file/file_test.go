package file

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"seedbed/images"
	"seedbed/images/capture"
	"seedbed/images/intake"
	"seedbed/images/layout"
	"seedbed/images/tile"
)

const mib = 1 << 20

// sample is an image of one file system that is copied in full: random bytes, and zeros here and there.
type sample struct {
	disk     []byte
	manifest *images.Manifest
	layout   *layout.Layout
	layers   map[images.Digest][]byte
	digest   images.Digest
}

func (s *sample) Have(_ context.Context, keys []images.TileKey) ([]bool, error) {
	have := make([]bool, len(keys))
	for i := range have {
		have[i] = true
	}
	return have, nil
}
func (s *sample) Put(context.Context, []intake.Tile) error { return nil }
func (s *sample) Close() error                             { return nil }
func (s *sample) Commit(_ context.Context, spec *intake.Spec) (_ *intake.Published, err error) {
	if s.manifest, s.layers, err = intake.Assemble(spec, "sample", "1"); err != nil {
		return nil, err
	}
	if s.layout, err = layout.Load(s.manifest, func(r images.Ref) ([]byte, error) { return s.layers[r.Digest], nil }); err != nil {
		return nil, err
	}
	_, s.digest, err = s.manifest.Encode()
	return &intake.Published{Digest: s.digest, Name: "sample", Version: "1"}, err
}

func newSample(t *testing.T) *sample {
	t.Helper()
	s := &sample{disk: make([]byte, 8*mib+512*7)}
	rand.NewChaCha8([32]byte{3}).Read(s.disk)
	clear(s.disk[:1024]) // no table
	for _, at := range []int{images.TileLength * 9, images.TileLength * 40, images.TileLength * 41} {
		clear(s.disk[at : at+images.TileLength])
	}
	if _, err := capture.Disk(t.Context(), bytes.NewReader(s.disk), int64(len(s.disk)), 512, s, capture.Options{Full: true}); err != nil {
		t.Fatal(err)
	}
	return s
}

// hashes returns those of the data tiles of a piece.
func (s *sample) hashes(piece int) (list []images.Digest) {
	for t := range s.layout.Data(piece).All() {
		list = append(list, images.TileHash(s.tile(piece, t)))
	}
	return list
}

func (s *sample) tile(piece, t int) []byte {
	span := s.layout.Span(piece)
	at := s.layout.DiskOffset(span.Partition) + span.Offset + int64(t)*images.TileLength
	return s.disk[at : at+int64(s.layout.TileLength(piece, t))]
}

// memory is a Disk.
type memory struct{ b []byte }

func (m *memory) ReadAt(b []byte, offset int64) (int, error) {
	return bytes.NewReader(m.b).ReadAt(b, offset)
}
func (m *memory) WriteAt(b []byte, offset int64) (int, error) {
	if offset+int64(len(b)) > int64(len(m.b)) {
		return 0, io.ErrShortWrite
	}
	return copy(m.b[offset:], b), nil
}
func (m *memory) Zero(offset, length int64) error { clear(m.b[offset : offset+length]); return nil }
func (m *memory) Sync() error                     { return nil }

func storage(t *testing.T, c Config) *Storage {
	t.Helper()
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// contents decodes tiles and fails the test unless they are those of the sample.
func contents(t *testing.T, s *sample, piece int, list []tile.Encoded) {
	t.Helper()
	i := 0
	for at := range s.layout.Data(piece).All() {
		raw, err := list[i].Decode(nil)
		if err != nil || !bytes.Equal(raw, s.tile(piece, at)) {
			t.Fatalf("tile %d of piece %d: %v", at, piece, err)
		}
		i++
	}
}

func TestLookFindsWhatADiskHoldsAndWriteCompletesIt(t *testing.T) {
	s := newSample(t)
	disk := &memory{bytes.Clone(s.disk)}
	disk.b[3*mib] ^= 1                  // one tile of a piece
	disk.b[images.TileLength*40+5] ^= 1 // not zero, and has to be
	clear(disk.b[5*mib : 6*mib])        // nothing of some pieces
	st := storage(t, Config{Disk: disk, Layout: s.layout})
	seen := newSet(s.layout.Count())
	found := make(chan int, s.layout.Count())
	length, read := st.LookLength(), make(chan int64, 1<<16)
	if err := st.Look(t.Context(), func(p int) { found <- p }, func(n int64) { read <- n }); err != nil {
		t.Fatal(err)
	}
	close(found)
	close(read)
	for p := range found {
		if seen.has(p) {
			t.Errorf("piece %d was found twice", p)
		}
		seen.add(p)
	}
	for n := range read {
		length -= n
	}
	if length != 0 {
		t.Errorf("LookLength differs by %d bytes from what was read", length)
	}
	whole, part, none := 0, 0, 0
	for p := range s.layout.Count() {
		data := s.layout.Data(p)
		if data.IsEmpty() {
			continue
		}
		if !seen.has(p) || st.Unseen(p) {
			t.Fatalf("piece %d was not looked at", p)
		}
		if st.InPart(p) {
			st.Learn(p, s.hashes(p))
		}
		switch held := st.Held(p); held {
		case data:
			whole++
		case images.TileSet{}:
			none++
		default:
			part++
		}
	}
	if none != 4 || part != 1 || whole == 0 {
		t.Errorf("%d pieces are held whole, %d in part, %d not", whole, part, none)
	}
	for p := range s.layout.Count() {
		for at := range s.layout.Data(p).Minus(st.Held(p)).All() {
			if err := st.Write(p, at, [][]byte{s.tile(p, at)}); err != nil {
				t.Fatal(err)
			}
		}
		st.Learn(p, s.hashes(p))
	}
	if !bytes.Equal(disk.b, s.disk) || st.HeldLength() != s.layout.DataLength() {
		t.Error("the disk is not that of the image")
	}
	open := func() (Reader, error) { return nopCloser{disk}, nil }
	if err := st.Verify(t.Context(), open, func(int64) {}); err != nil {
		t.Error(err)
	}
	for _, at := range []int{2*mib + 1, images.TileLength*9 + 1} {
		disk.b[at] ^= 1
		err := st.Verify(t.Context(), open, func(int64) {})
		wrong, ok := errors.AsType[*WrongError](err)
		if !ok || wrong.Extent.Intersect(images.Extent{Offset: int64(at), Length: 1}).Length == 0 {
			t.Errorf("byte %d is wrong: %v", at, err)
		}
		disk.b[at] ^= 1
	}
}

type nopCloser struct{ io.ReaderAt }

func (nopCloser) Close() error { return nil }

func TestADiskThatIsOnlyReadGivesOutWhatIsRight(t *testing.T) {
	s := newSample(t)
	disk := &memory{bytes.Clone(s.disk)}
	disk.b[3*mib] ^= 1
	st := storage(t, Config{Disk: disk, Layout: s.layout, ReadOnly: true})
	if err := st.Look(t.Context(), nil, nil); err != nil {
		t.Fatal(err)
	}
	wrong := int(3 * mib / s.layout.PieceLength())
	for p := range s.layout.Count() {
		if held := st.Held(p); p == wrong && !held.IsEmpty() || p != wrong && held != s.layout.Data(p) {
			t.Errorf("piece %d: %d tiles are held", p, held.Len())
		}
	}
	list, err := st.Read(t.Context(), 2, s.layout.Data(2), nil)
	if err != nil {
		t.Fatal(err)
	}
	contents(t, s, 2, list)
	disk.b[2*s.layout.PieceLength()+100] ^= 1 // somebody writes to the disk
	if _, err := st.Read(t.Context(), 2, s.layout.Data(2), nil); !errors.Is(err, errChanged) {
		t.Errorf("what is wrong was given out: %v", err)
	}
	if err := st.Write(2, 0, [][]byte{s.tile(2, 0)}); err == nil {
		t.Error("a disk that is only read was written")
	}
}

func TestTheFirstTileIsHeldBack(t *testing.T) {
	s := newSample(t)
	disk := &memory{bytes.Repeat([]byte{0xFF}, len(s.disk))}
	st := storage(t, Config{Disk: disk, Layout: s.layout, HoldFirst: true})
	if err := st.Look(t.Context(), nil, nil); err != nil {
		t.Fatal(err)
	}
	if err := st.Write(0, 0, [][]byte{s.tile(0, 0), s.tile(0, 1)}); err != nil {
		t.Fatal(err)
	}
	if !isZero(disk.b[:images.TileLength]) || !bytes.Equal(disk.b[images.TileLength:2*images.TileLength], s.tile(0, 1)) {
		t.Error("the first tile is on the disk, or the second is not")
	}
	var first images.TileSet
	first.Add(0)
	list, err := st.Read(t.Context(), 0, first, nil)
	if err != nil {
		t.Fatal(err)
	}
	if raw, err := list[0].Decode(nil); err != nil || !bytes.Equal(raw, s.tile(0, 0)) {
		t.Errorf("the first tile is not given out: %v", err)
	}
}

// fill puts the pieces of a sample on a shelf.
func fill(t *testing.T, s *sample, shelf *Shelf, pieces ...int) {
	t.Helper()
	for _, p := range pieces {
		shelf.Learn(p, s.hashes(p))
		for at := range s.layout.Data(p).All() {
			if err := shelf.Write(p, at, [][]byte{s.tile(p, at)}); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func openShelf(t *testing.T, path string, s *sample) *Shelf {
	t.Helper()
	shelf, err := OpenShelf(path, s.digest, s.layout, tile.LZ4)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { shelf.Close() })
	return shelf
}

func TestAShelfKeepsTilesOverARestart(t *testing.T) {
	s := newSample(t)
	path := filepath.Join(t.TempDir(), "tiles")
	shelf := openShelf(t, path, s)
	fill(t, s, shelf, 5, 2, 7)
	for range 2 {
		for p := range s.layout.Count() {
			want := images.TileSet{}
			if slices.Contains([]int{5, 2, 7}, p) {
				want = s.layout.Data(p)
				list, err := shelf.Read(t.Context(), p, want, nil)
				if err != nil {
					t.Fatal(err)
				}
				contents(t, s, p, list)
				if !slices.Equal(shelf.TileHashes(p), s.hashes(p)) {
					t.Errorf("hashes of piece %d", p)
				}
			}
			if shelf.Held(p) != want {
				t.Errorf("piece %d: %d tiles are held", p, shelf.Held(p).Len())
			}
		}
		if err := shelf.Sync(); err != nil {
			t.Fatal(err)
		}
		shelf.Close()
		shelf = openShelf(t, path, s)
	}
	if _, err := OpenShelf(path, images.Sum([]byte("another")), s.layout, tile.LZ4); err == nil {
		t.Error("tiles of another image were taken")
	}
}

// TestAShelfThatWasCutOrDamagedGivesOutNothingWrong cuts the file at many lengths, and changes many bytes.
func TestAShelfThatWasCutOrDamagedGivesOutNothingWrong(t *testing.T) {
	s := newSample(t)
	path := filepath.Join(t.TempDir(), "tiles")
	shelf := openShelf(t, path, s)
	fill(t, s, shelf, 1, 3)
	shelf.Close()
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	check := func(what string, at int) {
		t.Helper()
		shelf, err := OpenShelf(path, s.digest, s.layout, tile.LZ4)
		if err != nil {
			if what == "cut" {
				t.Fatalf("cut at %d: %v", at, err)
			}
			return // the beginning names another image
		}
		defer shelf.Close()
		for _, p := range []int{1, 3} {
			for t2 := range shelf.Held(p).All() {
				var one images.TileSet
				one.Add(t2)
				list, err := shelf.Read(t.Context(), p, one, nil)
				if err != nil {
					if shelf.Held(p).Has(t2) {
						t.Fatalf("%s at %d: a damaged tile is held", what, at)
					}
					continue
				}
				if raw, err := list[0].Decode(nil); err != nil || !bytes.Equal(raw, s.tile(p, t2)) {
					t.Fatalf("%s at %d: tile %d of piece %d is wrong: %v", what, at, t2, p, err)
				}
			}
			if hashes := shelf.TileHashes(p); hashes != nil && !slices.Equal(hashes, s.hashes(p)) {
				t.Fatalf("%s at %d: hashes of piece %d are wrong", what, at, p)
			}
		}
		fill(t, s, shelf, 2) // it goes on
		list, err := shelf.Read(t.Context(), 2, s.layout.Data(2), nil)
		if err != nil {
			t.Fatalf("%s at %d: %v", what, at, err)
		}
		contents(t, s, 2, list)
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 60 {
		at := random.IntN(len(whole))
		if err := os.WriteFile(path, whole[:at], 0o600); err != nil {
			t.Fatal(err)
		}
		check("cut", at)
		b := bytes.Clone(whole)
		b[at] ^= byte(1 + random.IntN(255))
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		check("damage", at)
	}
}

func TestPart(t *testing.T) {
	s := newSample(t)
	even := NewPart(s.layout, func(p int) bool { return p%2 == 0 })
	odd := NewPart(s.layout, func(p int) bool { return p%2 == 1 })
	all := NewPart(s.layout, func(int) bool { return true })
	if even.DataLength()+odd.DataLength() != s.layout.DataLength() || even.DataPieces()+odd.DataPieces() != s.layout.DataPieces() {
		t.Error("two halves are not the whole")
	}
	if !all.IsWhole() || even.IsWhole() || even.Equal(odd) || !all.Equal(all) {
		t.Error("wholeness")
	}
	for p := range s.layout.Count() {
		if even.Data(p).Union(odd.Data(p)) != s.layout.Data(p) || !even.Data(p).Intersect(odd.Data(p)).IsEmpty() {
			t.Errorf("piece %d", p)
		}
	}
}
