package s3_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"seedbed/images/repository"
	"seedbed/images/repository/buckettest"
	"seedbed/images/repository/s3"
	"seedbed/images/repository/s3/s3test"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t testing.TB, location string) *s3.Bucket {
	t.Helper()
	b, err := s3.Open(t.Context(), location)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func TestS3IsABucket(t *testing.T) {
	endpoint := s3test.Start(t, "images")
	n := 0
	buckettest.Run(t, func(t *testing.T) repository.Bucket {
		n++
		return open(t, fmt.Sprintf("s3://images/test/%d?endpoint=%s", n, endpoint))
	})
}

func TestALargeObjectIsCreatedOnceInParts(t *testing.T) {
	b := open(t, "s3://images?endpoint="+s3test.Start(t, "images"))
	content := make([]byte, 40<<20+12345)
	rand.NewChaCha8([32]byte{1}).Read(content)
	var won atomic.Int32
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			err := b.Put(t.Context(), "packs/a", bytes.NewReader(content), int64(len(content)))
			if err == nil {
				won.Add(1)
			} else if !errors.Is(err, repository.ErrExists) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if won.Load() != 1 {
		t.Errorf("%d creators won", won.Load())
	}
	r, err := b.Read(t.Context(), "packs/a", 17<<20, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	h := sha256.New()
	if n, err := io.Copy(h, r); err != nil || n != int64(len(content))-17<<20 || [32]byte(h.Sum(nil)) != sha256.Sum256(content[17<<20:]) {
		t.Errorf("%d bytes came back, %v", n, err)
	}
	for name, length := range map[string]int64{"short": int64(len(content)) + 1, "long": int64(len(content)) - 1} {
		if err := b.Put(t.Context(), "packs/b", bytes.NewReader(content), length); err == nil {
			t.Errorf("%s: no error", name)
		}
		if _, err := b.Stat(t.Context(), "packs/b"); !errors.Is(err, repository.ErrNotExist) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAListingHasSeveralPages(t *testing.T) {
	b := open(t, "s3://images/p?endpoint="+s3test.Start(t, "images"))
	const count = 1100
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := w; i < count; i += 8 {
				if err := b.Put(t.Context(), fmt.Sprintf("packs/%04d", i), strings.NewReader("x"), 1); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	n := 0
	for _, err := range b.List(t.Context(), "packs/") {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	if n != count {
		t.Errorf("%d objects listed, want %d", n, count)
	}
}

func TestWhatIsWrongIsSaidWithItsRemedy(t *testing.T) {
	endpoint := s3test.Start(t, "images")
	expect := func(location string, words ...string) {
		t.Helper()
		b, err := s3.Open(t.Context(), location)
		if err == nil {
			b.Close()
			t.Errorf("%s was opened", location)
			return
		}
		for _, w := range words {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %q is not in: %v", location, w, err)
			}
		}
	}
	expect("s3://none?endpoint="+endpoint, "create the bucket")
	expect("s3://images?endpoint=http://127.0.0.1:1", "the service runs")
	expect("s3://images?endpoint=nowhere", "endpoint is no URL")
	expect("s3://images?key=x", `"key"`)
	expect("s3://images/A%20B", "prefix")
	expect("file:///x", "s3://bucket/prefix")
	expect("s3://me:secret@images", "AWS_ACCESS_KEY_ID")
	if _, err := s3.Open(t.Context(), "s3://me:secret@images"); strings.Contains(err.Error(), "secret@") {
		t.Errorf("the secret is repeated: %v", err)
	}
	t.Setenv("AWS_SECRET_ACCESS_KEY", "wrong")
	expect("s3://images?endpoint="+endpoint, "AWS_SECRET_ACCESS_KEY")
}

func TestALocationIsReadAndWritten(t *testing.T) {
	for _, c := range []s3.Config{
		{Bucket: "images"}, {Bucket: "images", Prefix: "site/a"},
		{Bucket: "images", Prefix: "a", Endpoint: "https://minio.example:9000", Region: "eu-1"},
	} {
		if got, err := s3.Parse(c.String()); err != nil || got != c {
			t.Errorf("%s is read as %+v, %v", c, got, err)
		}
	}
}
