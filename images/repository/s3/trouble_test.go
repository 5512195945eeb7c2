package s3_test

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"seedbed/images/repository"
	"seedbed/images/repository/s3/s3test"
)

// cutter passes connections on to a service and cuts each after so many bytes of answer.
func cutter(t *testing.T, endpoint string, after int64) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	serve := func(c net.Conn) {
		defer c.Close()
		s, err := net.Dial("tcp", strings.TrimPrefix(endpoint, "http://"))
		if err != nil {
			t.Error(err)
			return
		}
		wg.Go(func() { _, _ = io.Copy(s, c); s.Close() })
		_, _ = io.CopyN(c, s, after)
		s.Close()
	}
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { serve(c) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		wg.Wait()
	})
	return "http://" + l.Addr().String()
}

func TestAnAnswerThatIsCutOffIsReadOn(t *testing.T) {
	endpoint := s3test.Start(t, "images")
	whole := open(t, "s3://images?endpoint="+endpoint)
	content := make([]byte, 3<<20)
	rand.NewChaCha8([32]byte{1}).Read(content)
	if err := whole.Put(t.Context(), "packs/a", bytes.NewReader(content), int64(len(content))); err != nil {
		t.Fatal(err)
	}
	b := open(t, "s3://images?endpoint="+cutter(t, endpoint, 500<<10))
	for _, length := range []int64{-1, 2 << 20} {
		r, err := b.Read(t.Context(), "packs/a", 1000, length)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r)
		r.Close()
		want := content[1000:]
		if length > 0 {
			want = want[:length]
		}
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("length %d: %d bytes of %d, %v", length, len(got), len(want), err)
		}
	}
}

// late answers each read after 30 ms.
type late struct{ repository.Bucket }

func (l late) Read(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	time.Sleep(30 * time.Millisecond)
	return l.Bucket.Read(ctx, key, offset, length)
}

// Reading an image in order from a real service on the same two cores, each request 30 ms late.
func BenchmarkReadLate(b *testing.B) {
	endpoint := s3test.Start(b, "images")
	opened := open(b, "s3://images?endpoint="+endpoint)
	disk := make([]byte, 600<<20)
	rand.NewChaCha8([32]byte{1}).Read(disk)
	d := captureDisk(b, openRepository(b, opened, b.TempDir()), disk)
	r := openRepository(b, late{opened}, b.TempDir())
	b.SetBytes(int64(len(disk)))
	for b.Loop() {
		x, err := r.OpenImage(b.Context(), d)
		if err != nil {
			b.Fatal(err)
		}
		for piece := range x.Layout().Count() {
			if _, err := x.ReadPiece(b.Context(), piece, x.Layout().Data(piece)); err != nil {
				b.Fatal(err)
			}
		}
	}
}
