package api_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"seedbed/appliance/api"
	"seedbed/appliance/client"
	"seedbed/appliance/fleet"
	"seedbed/images"
	"seedbed/images/packed"
	"seedbed/images/restore"
)

// exports are images of which one gives out a disk of 1 MiB and may fail before or in the middle.
type exports struct {
	api.Images
	before, middle error
}

func (e exports) Export(_ context.Context, _ string, length int64, out api.DiskOutput) error {
	if e.before != nil {
		return e.before
	}
	if length == 0 {
		length = 1 << 20
	}
	if err := out.Begin(length, 20); err != nil {
		return err
	}
	if err := out.Write(0, []byte("the first")); err != nil {
		return err
	}
	if e.middle != nil {
		return e.middle
	}
	return out.Write(1<<20-8, []byte("the last"))
}

// sink takes a disk as a stream of all its bytes.
type sink struct {
	bytes.Buffer
	length int64
	w      restore.Sequential
}

func (s *sink) Begin(length, _ int64) error {
	s.length, s.w.W = length, &s.Buffer
	return nil
}

func (s *sink) Write(offset int64, b []byte) error { return s.w.Write(offset, b) }

// over serves lib on a socket and returns a client.
func over(t *testing.T, lib api.Images) *client.Client {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(api.NewOperators(api.Config{Images: lib}).Local())
	s.Listener.Close()
	s.Listener = l
	s.Start()
	t.Cleanup(s.Close)
	c := client.Local(socket)
	t.Cleanup(c.Close)
	return c
}

func TestADiskTravelsOverTheSocket(t *testing.T) {
	var s sink
	if err := over(t, exports{}).Export(t.Context(), "debian:1", 0, &s); err != nil {
		t.Fatal(err)
	}
	if b := s.Bytes(); s.length != 1<<20 || len(b) != 1<<20 || !bytes.HasPrefix(b, []byte("the first\x00")) || !bytes.HasSuffix(b, []byte("\x00the last")) {
		t.Errorf("%d of %d bytes", len(b), s.length)
	}
	refused := &fleet.Refusal{Code: "disk-unfit", Detail: "too small"}
	for _, e := range []exports{{before: refused}, {middle: refused}} {
		r, ok := errors.AsType[*fleet.Refusal](over(t, e).Export(t.Context(), "debian:1", 1<<20, &sink{}))
		if !ok || r.Code != refused.Code || r.Detail != refused.Detail {
			t.Errorf("%+v", r)
		}
	}
}

// Show tells the name of the file that is exported.
func (e exports) Show(context.Context, string) (*api.ImageDetail, error) {
	return &api.ImageDetail{Manifest: &images.Manifest{Name: "debian", Version: "1"}}, nil
}

// TestADiskTravelsCompressed as one stream; one that breaks is cut off.
func TestADiskTravelsCompressed(t *testing.T) {
	get := func(e exports) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		api.NewOperators(api.Config{Images: e}).Local().ServeHTTP(w, httptest.NewRequest("GET", "/api/v1/images/debian/disk?format=zstd", nil))
		return w
	}
	var plain sink
	if err := over(t, exports{}).Export(t.Context(), "debian:1", 0, &plain); err != nil {
		t.Fatal(err)
	}
	w, disk := get(exports{}), bytes.Buffer{}
	if err := packed.Unpack(&disk, w.Body, "zstd"); err != nil || !bytes.Equal(disk.Bytes(), plain.Bytes()) {
		t.Errorf("%v, %d bytes of %d", err, disk.Len(), plain.Len())
	}
	if got := w.Header().Get("Content-Disposition"); got != `attachment; filename="debian-1.img.zst"` || w.Header().Get("Content-Type") != packed.Kind {
		t.Errorf("headers %v", w.Header())
	}
	refused := &fleet.Refusal{Code: "disk-unfit", Detail: "too small"}
	if w := get(exports{before: refused}); w.Code != 409 && w.Code != 400 || !strings.Contains(w.Body.String(), "too small") {
		t.Errorf("refused: %d %s", w.Code, w.Body)
	}
	defer func() {
		if recover() != http.ErrAbortHandler {
			t.Error("a disk that breaks ends as if it was whole")
		}
	}()
	get(exports{middle: refused})
}

// sent returns a whole disk as it travels.
func sent(t testing.TB) []byte {
	w := httptest.NewRecorder()
	api.NewOperators(api.Config{Images: exports{}}).Local().ServeHTTP(w, httptest.NewRequest("GET", "/api/v1/images/debian:1/disk", nil))
	if w.Code != 200 {
		t.Fatal(w.Body)
	}
	return w.Body.Bytes()
}

func TestADiskThatIsCutOffIsAnError(t *testing.T) {
	whole := sent(t)
	for n := range whole {
		if err := api.ReceiveDisk(bytes.NewReader(whole[:n]), &sink{}); err == nil {
			t.Fatalf("%d of %d bytes were taken for a disk", n, len(whole))
		}
	}
	if err := api.ReceiveDisk(strings.NewReader("HTTP/1.1 what is this, and it is long enough to be a head"), &sink{}); err == nil {
		t.Error("something else was taken for a disk")
	}
}

// discarding checks that bytes come in order.
type discarding struct{ length, end int64 }

func (d *discarding) Begin(length, _ int64) error {
	d.length = length
	return nil
}

func (d *discarding) Write(offset int64, b []byte) error {
	if offset < d.end || offset+int64(len(b)) > d.length {
		return io.ErrShortWrite
	}
	d.end = offset + int64(len(b))
	return nil
}

func FuzzReceiveDisk(f *testing.F) {
	f.Add(sent(f))
	f.Add([]byte("SBDISK1\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := api.ReceiveDisk(bytes.NewReader(b), &discarding{}); errors.Is(err, io.ErrShortWrite) {
			t.Error("bytes outside the disk, or out of order")
		}
	})
}
