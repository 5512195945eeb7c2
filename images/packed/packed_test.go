package packed

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// piece is data on a disk.
type piece struct {
	offset int64
	b      []byte
}

// testDisk is a disk with a lot of nothing.
func testDisk() (length int64, pieces []piece) {
	random := rand.NewChaCha8([32]byte{3})
	noise := make([]byte, 3<<20)
	random.Read(noise)
	text := bytes.Repeat([]byte("what a disk says "), 200_000)
	return 220<<20 + 512, []piece{{0, noise[:512]}, {1 << 20, noise}, {150 << 20, text}, {150<<20 + int64(len(text)), noise[:77]}, {219 << 20, text[:4096]}}
}

// sumOf is the hash of a disk.
func sumOf(t testing.TB, length int64, pieces []piece) (sum [32]byte) {
	t.Helper()
	h, at := sha256.New(), int64(0)
	zeros := func(end int64) {
		for at < end {
			n := min(end-at, 1<<20)
			h.Write(zeroPage[:n])
			at += n
		}
	}
	for _, p := range pieces {
		zeros(p.offset)
		h.Write(p.b)
		at += int64(len(p.b))
	}
	zeros(length)
	return [32]byte(h.Sum(nil))
}

func pack(t testing.TB, length int64, pieces []piece) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := NewWriter(&b, length)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range pieces {
		if err := w.Write(p.offset, p.b); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Finish(length); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestAFileThatIsCutBetweenTwoFramesIsRefused: zstd itself sees nothing wrong with it.
func TestAFileThatIsCutBetweenTwoFramesIsRefused(t *testing.T) {
	length, pieces := testDisk()
	b := pack(t, length, pieces)
	frames := 0
	for at := noteLength + 1; at < len(b); at++ {
		if !isZstd(b[at:]) {
			continue
		}
		var disk bytes.Buffer
		if c := exec.Command("zstd", "-dc"); func() error { c.Stdin, c.Stdout = bytes.NewReader(b[:at]), &disk; return c.Run() }() != nil {
			continue // bytes that look like the begin of a frame
		}
		frames++
		err := Unpack(io.Discard, bytes.NewReader(b[:at]), "zstd")
		if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), fmt.Sprintf("%d bytes, and holds %d of them", length, disk.Len())) {
			t.Errorf("cut at byte %d of %d, where zstd finds %d bytes: %v", at, len(b), disk.Len(), err)
		}
	}
	if frames < 3 {
		t.Errorf("the file has %d places between frames; it is to have three at least", frames)
	}
	if err := Unpack(io.Discard, bytes.NewReader(b[:noteLength]), "zstd"); !errors.Is(err, ErrDamaged) {
		t.Errorf("cut after what it says of itself: %v", err)
	}
}

// TestASkippedFrameAtTheBeginIsZstd: pzstd begins with one.
func TestASkippedFrameAtTheBeginIsZstd(t *testing.T) {
	length, pieces := testDisk()
	b := append([]byte("\x50\x2a\x4d\x18\x04\x00\x00\x00size"), pack(t, length, pieces)[noteLength:]...)
	h := sha256.New()
	if err := Unpack(h, bytes.NewReader(b), Recognise(b[:HeadLength])); err != nil || [32]byte(h.Sum(nil)) != sumOf(t, length, pieces) {
		t.Errorf("%v", err)
	}
}

// TestADiskComesBack by our reader and by the reference tools; zeros cost nearly nothing.
func TestADiskComesBack(t *testing.T) {
	length, pieces := testDisk()
	want, b := sumOf(t, length, pieces), pack(t, length, pieces)
	if len(b) > 3<<20+512<<10 {
		t.Errorf("3 MiB of noise and 217 MiB that hold nothing take %d bytes", len(b))
	}
	h := sha256.New()
	if name := Recognise(b); name != "zstd" {
		t.Fatalf("it is %q", name)
	}
	if err := Unpack(h, bytes.NewReader(b), "zstd"); err != nil || [32]byte(h.Sum(nil)) != want {
		t.Errorf("our reader: %v, right: %t", err, [32]byte(h.Sum(nil)) == want)
	}
	for _, tool := range []string{"zstd", "gzip"} {
		in := b
		if tool == "gzip" { // of the disk that zstd unpacked
			c := exec.Command("sh", "-c", "zstd -dc | gzip -1")
			c.Stdin = bytes.NewReader(b)
			var err error
			if in, err = c.Output(); err != nil {
				t.Fatalf("zstd and gzip (Debian: zstd, gzip): %v", err)
			}
		}
		c := exec.Command(tool, "-dc")
		c.Stdin = bytes.NewReader(in)
		h := sha256.New()
		c.Stdout = h
		if err := c.Run(); err != nil || [32]byte(h.Sum(nil)) != want {
			t.Errorf("%s: %v, right: %t", tool, err, [32]byte(h.Sum(nil)) == want)
		}
		h = sha256.New()
		if err := Unpack(h, bytes.NewReader(in), Recognise(in)); err != nil || [32]byte(h.Sum(nil)) != want {
			t.Errorf("our reader of %s: %v, right: %t", tool, err, [32]byte(h.Sum(nil)) == want)
		}
	}
}

func TestWhatIsDamagedIsRefused(t *testing.T) {
	length, pieces := testDisk()
	b := pack(t, length, pieces)
	cut := b[:len(b)/2]
	changed := bytes.Clone(b)
	changed[2<<20] ^= 1
	for name, c := range map[string][]byte{"cut": cut, "changed": changed, "with more behind": append(bytes.Clone(b), "more"...)} {
		if err := Unpack(io.Discard, bytes.NewReader(c), "zstd"); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A window of 1 GiB is more memory than one stream may take.
	file := filepath.Join(t.TempDir(), "long")
	c := exec.Command("zstd", "-q", "--ultra", "--long=30", "-1", "-o", file)
	c.Stdin = strings.NewReader("short")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("zstd (Debian: zstd): %v %s", err, out)
	}
	long, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := Unpack(io.Discard, bytes.NewReader(long), "zstd"); !errors.Is(err, ErrDamaged) {
		t.Errorf("a window of 1 GiB: %v", err)
	}
	if Recognise([]byte("\xfd7zXZ\x00")) != "" || Recognise(nil) != "" {
		t.Error("it recognises what it does not read")
	}
	full := errors.New("no room")
	if err := Unpack(failing{full}, bytes.NewReader(b), "zstd"); !errors.Is(err, full) || errors.Is(err, ErrDamaged) {
		t.Errorf("no room: %v", err)
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }
