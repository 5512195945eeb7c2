package tile

import (
	"bytes"
	"crypto/sha256"
	"math/rand/v2"
	"os/exec"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"seedbed/images"
)

var codecs = []Codec{Stored, LZ4, Zstd}

// text returns n bytes that compress, like programs do.
func text(n int, seed uint64) []byte {
	r := rand.New(rand.NewPCG(seed, 1))
	words := make([][]byte, 200)
	for i := range words {
		words[i] = make([]byte, 3+r.IntN(12))
		for j := range words[i] {
			words[i][j] = byte(r.Uint32())
		}
	}
	var b []byte
	for len(b) < n {
		b = append(b, words[r.IntN(len(words))]...)
	}
	return b[:n]
}

func noise(n int, seed byte) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

var lengths = []int{1, 2, 511, 512, 4096, images.LeafLength - 1, images.LeafLength, images.LeafLength + 1, 3*images.LeafLength + 512, images.TileLength - 1, images.TileLength}

func TestEveryCodecGivesBackEveryLength(t *testing.T) {
	for _, codec := range codecs {
		for _, level := range []int{0, 1, 3, 9} {
			for _, n := range lengths {
				for name, raw := range map[string][]byte{"text": text(n, uint64(n)), "noise": noise(n, 3), "zeros": make([]byte, n)} {
					before := bytes.Clone(raw)
					e, err := Encode(codec, level, raw)
					if err != nil {
						t.Fatalf("%v level %d, %d bytes of %s: %v", codec, level, n, name, err)
					}
					if err := e.Check(); err != nil {
						t.Fatalf("%v level %d, %d bytes of %s: %v", codec, level, n, name, err)
					}
					if !bytes.Equal(before, raw) {
						t.Fatalf("%v: the tile was changed", codec)
					}
					if name == "noise" && e.Codec != Stored {
						t.Errorf("%v: %d bytes of noise are %v, want none", codec, n, e.Codec)
					}
					same, err := EncodeInPlace(codec, level, before)
					if err != nil || same.Codec != e.Codec || !bytes.Equal(same.Bytes, e.Bytes) || &same.Bytes[0] != &before[0] {
						t.Fatalf("%v level %d, %d bytes of %s in place: %v", codec, level, n, name, err)
					}
					if n >= 4096 && name != "noise" && codec != Stored && (e.Codec != codec || len(e.Bytes) > n*3/4) {
						t.Errorf("%v: %d bytes of %s take %d as %v", codec, n, name, len(e.Bytes), e.Codec)
					}
					for _, dst := range [][]byte{nil, make([]byte, 0, images.TileLength), noise(images.TileLength, 9)} {
						got, err := e.Decode(dst)
						if err != nil || !bytes.Equal(got, raw) {
							t.Fatalf("%v level %d, %d bytes of %s do not come back: %v", codec, level, n, name, err)
						}
						if cap(dst) >= n && &got[0] != &dst[:1][0] {
							t.Errorf("%v: memory of the caller was not used", codec)
						}
					}
				}
			}
		}
	}
}

func TestDecodeWritesNothingPastTheStatedLength(t *testing.T) {
	raw := text(images.TileLength, 5)
	for _, codec := range codecs {
		e, err := Encode(codec, 0, raw)
		if err != nil {
			t.Fatal(err)
		}
		for _, length := range []int32{-1, 0, 1, int32(len(e.Bytes)), int32(len(e.Bytes)) + 1, images.TileLength - 1, images.TileLength + 1, 1 << 30} {
			if length == e.Length {
				continue
			}
			lie := e
			lie.Length = length
			dst := bytes.Repeat([]byte{0xEE}, 2*images.TileLength)
			if _, err := lie.Decode(dst[:0:images.TileLength]); err == nil {
				t.Errorf("%v: a tile of %d bytes was decoded as one of %d", codec, e.Length, length)
			}
			if n := max(0, min(int(length), images.TileLength)); bytes.Count(dst[n:], []byte{0xEE}) != len(dst)-n {
				t.Errorf("%v, stated length %d: bytes after it were written", codec, length)
			}
		}
	}
}

func TestEncodeRefusesOtherSizesAndCodecs(t *testing.T) {
	for _, raw := range [][]byte{nil, make([]byte, images.TileLength+1)} {
		if _, err := Encode(Zstd, 0, raw); err == nil {
			t.Errorf("a tile of %d bytes was encoded", len(raw))
		}
	}
	if _, err := Encode(7, 0, []byte{1}); err == nil {
		t.Error("codec 7 was taken")
	}
	for _, c := range codecs {
		if got, err := ParseCodec(c.String()); err != nil || got != c {
			t.Errorf("ParseCodec(%q) = %v, %v", c, got, err)
		}
	}
	if _, err := ParseCodec("gzip"); err == nil {
		t.Error("gzip was taken for a codec")
	}
}

func TestManyGoroutinesShareTheCodecs(t *testing.T) {
	var group sync.WaitGroup
	for g := range 8 {
		group.Go(func() {
			buf := make([]byte, images.TileLength)
			for i := range 30 {
				raw := text(lengths[(g+i)%len(lengths)], uint64(g*100+i))
				e, err := Encode(codecs[i%len(codecs)], 0, raw)
				if err != nil {
					t.Error(err)
					return
				}
				if got, err := e.Decode(buf); err != nil || !bytes.Equal(got, raw) || Hash(got) != Hash(raw) {
					t.Errorf("goroutine %d, tile %d: %v", g, i, err)
				}
			}
		})
	}
	group.Wait()
}

// The zstd program must read what we write, and we what it writes.
func TestZstdProgramAgrees(t *testing.T) {
	zstd := tool(t, "zstd", "zstd")
	raw := text(images.TileLength, 7)
	e, err := Encode(Zstd, 0, raw)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(zstd, "-d", "-c")
	cmd.Stdin = bytes.NewReader(e.Bytes)
	if out, err := cmd.Output(); err != nil || sha256.Sum256(out) != sha256.Sum256(raw) {
		t.Errorf("zstd -d reads another tile: %v", err)
	}
	cmd = exec.Command(zstd, "-19", "--stream-size=65536", "-c")
	cmd.Stdin = bytes.NewReader(raw)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := (Encoded{Codec: Zstd, Length: images.TileLength, Bytes: out}).Decode(nil); err != nil || !bytes.Equal(got, raw) {
		t.Errorf("what zstd -19 wrote is not read: %v", err)
	}
}

func tool(t testing.TB, name, pkg string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%s is missing; install the package %s", name, pkg)
	}
	return path
}

func FuzzDecode(f *testing.F) {
	for _, codec := range codecs {
		for _, n := range []int{1, 600, images.TileLength} {
			e, err := Encode(codec, 0, text(n, 1))
			if err != nil {
				f.Fatal(err)
			}
			f.Add(byte(e.Codec), e.Length, e.Bytes)
		}
	}
	f.Fuzz(func(t *testing.T, codec byte, length int32, b []byte) {
		got, err := (Encoded{Codec: Codec(codec), Length: length, Bytes: b}).Decode(nil)
		if err == nil && len(got) != int(length) {
			t.Fatalf("stated %d bytes, decoded %d", length, len(got))
		}
	})
}

func BenchmarkEncode(b *testing.B) {
	raw := text(images.TileLength, 7)
	for _, codec := range codecs {
		b.Run(codec.String(), func(b *testing.B) {
			b.SetBytes(int64(len(raw)))
			for b.Loop() {
				if _, err := Encode(codec, 0, raw); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkDecode(b *testing.B) {
	raw := text(images.TileLength, 7)
	dst := make([]byte, images.TileLength)
	for _, codec := range codecs {
		e, err := Encode(codec, 0, raw)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(codec.String(), func(b *testing.B) {
			b.SetBytes(int64(len(raw)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := e.Decode(dst); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func TestCutTakesRangesOverTiles(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 5).Draw(t, "tiles")
		var raw [][]byte
		for i := range n {
			length := images.TileLength
			if i == n-1 {
				length = rapid.IntRange(1, images.TileLength).Draw(t, "last")
			}
			raw = append(raw, bytes.Repeat([]byte{byte(i + 1)}, length))
			raw[i][0], raw[i][length-1] = 0xAA, 0xBB
		}
		all := bytes.Join(raw, nil)
		from := rapid.IntRange(0, len(all)).Draw(t, "from")
		to := rapid.IntRange(from, len(all)).Draw(t, "to")
		if got := bytes.Join(Cut(raw, int64(from), int64(to)), nil); !bytes.Equal(got, all[from:to]) {
			t.Fatalf("[%d, %d) of %d bytes: %d bytes came", from, to, len(all), len(got))
		}
	})
}

func TestRawIsWhatDecodeGives(t *testing.T) {
	for _, codec := range []Codec{Stored, LZ4, Zstd} {
		want := bytes.Repeat([]byte("seedbed "), 1000)
		e, err := Encode(codec, 0, want)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := e.Raw(nil)
		if err != nil || !bytes.Equal(raw, want) {
			t.Errorf("%v: %d bytes, %v", codec, len(raw), err)
		}
		if shared := &raw[0] == &e.Bytes[0]; shared != (codec == Stored) {
			t.Errorf("%v: shared memory: %v", codec, shared)
		}
		e.Length++
		if _, err := e.Raw(nil); err == nil {
			t.Errorf("%v: a wrong length passes", codec)
		}
	}
}
