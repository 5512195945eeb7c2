package restore

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"unsafe"
)

// rawDisk is a disk that takes whole sectors alone, from memory that begins at one.
type rawDisk struct {
	mu   sync.Mutex
	b    []byte
	unit int
}

var errRaw = errors.New("not whole sectors")

func (d *rawDisk) check(b []byte, offset int64) error {
	u := uint64(d.unit)
	if uint64(offset)%u != 0 || uint64(len(b))%u != 0 || uint64(uintptr(unsafe.Pointer(&b[0])))%u != 0 || offset+int64(len(b)) > int64(len(d.b)) {
		return errRaw
	}
	return nil
}

func (d *rawDisk) ReadAt(b []byte, offset int64) (int, error) {
	if err := d.check(b, offset); err != nil {
		return 0, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return copy(b, d.b[offset:]), nil
}

func (d *rawDisk) WriteAt(b []byte, offset int64) (int, error) {
	if err := d.check(b, offset); err != nil {
		return 0, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return copy(d.b[offset:], b), nil
}

// Any bytes can be read and written, by several at once, and their neighbours stay.
func TestSectorsTakeAnyBytes(t *testing.T) {
	for _, unit := range []int{512, 4096} {
		const length = 3<<20 + 8192
		disk := &rawDisk{b: make([]byte, length), unit: unit}
		if _, err := disk.WriteAt(make([]byte, 100), 0); !errors.Is(err, errRaw) {
			t.Fatal("the disk takes parts of sectors")
		}
		s, want := newSectors(disk, unit, length), make([]byte, length)
		random := rand.NewChaCha8([32]byte{byte(unit)})
		random.Read(want)
		var g sync.WaitGroup
		cuts := rand.New(random)
		for at := 0; at < length; {
			n := min(1+cuts.IntN([]int{50, 5000, 2 << 20}[cuts.IntN(3)]), length-at)
			piece, offset := want[at:at+n], int64(at)
			g.Go(func() {
				if done, err := s.WriteAt(piece, offset); done != n || err != nil {
					t.Errorf("write %d bytes at %d: %d, %v", n, offset, done, err)
				}
			})
			at += n
		}
		g.Wait()
		if !bytes.Equal(disk.b, want) {
			t.Fatalf("sectors of %d: the disk holds something else", unit)
		}
		for range 50 {
			at := cuts.IntN(length)
			b := make([]byte, 1+cuts.IntN(2<<20))
			n, err := s.ReadAt(b, int64(at))
			left := min(len(b), length-at)
			if n != left || !bytes.Equal(b[:n], want[at:at+left]) || (n < len(b)) != errors.Is(err, io.EOF) || n == len(b) && err != nil {
				t.Fatalf("read %d bytes at %d: %d, %v", len(b), at, n, err)
			}
		}
		if _, err := s.WriteAt([]byte{1, 2}, length-1); err == nil {
			t.Error("it writes behind the end")
		}
		if n, err := s.ReadAt(make([]byte, 1), length); n != 0 || !errors.Is(err, io.EOF) {
			t.Errorf("behind the end: %d, %v", n, err)
		}
	}
}
