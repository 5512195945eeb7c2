package agent

import (
	"bytes"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"seedbed/images"
)

// TestRangesAreThoseOfTheLayer, whether the server sends one, several, or the layer as a whole.
func TestRangesAreThoseOfTheLayer(t *testing.T) {
	layer := make([]byte, 4096)
	for i := range layer {
		layer[i] = byte(rand.Uint32())
	}
	one := []images.Extent{{Offset: 32, Length: 64}}
	several := []images.Extent{{Offset: 0, Length: 32}, {Offset: 1024, Length: 128}, {Offset: 4064, Length: 32}}
	for _, whole := range []bool{true, false} {
		for _, ranges := range [][]images.Extent{one, several} {
			r := httptest.NewRequest("GET", "/", nil)
			if !whole {
				r.Header.Set("Range", rangeHeader(ranges))
			}
			w := httptest.NewRecorder()
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(layer))
			parts, err := splitRanges(w.Header(), w.Code, w.Body.Bytes(), ranges)
			if err != nil || len(parts) != len(ranges) {
				t.Fatalf("%d ranges, whole %v: %d parts, %v", len(ranges), whole, len(parts), err)
			}
			for i, e := range ranges {
				if !bytes.Equal(parts[i], layer[e.Offset:e.End()]) {
					t.Errorf("range %v is not that of the layer", e)
				}
			}
			if _, err := splitRanges(w.Header(), http.StatusPartialContent, w.Body.Bytes()[:10], ranges); err == nil {
				t.Error("a cut-off answer was taken")
			}
		}
	}
}

func FuzzSplitRanges(f *testing.F) {
	f.Add("multipart/byteranges; boundary=x", []byte("--x\r\nContent-Range: bytes 0-0/9\r\n\r\na\r\n--x--\r\n"), 206)
	f.Fuzz(func(t *testing.T, kind string, b []byte, status int) {
		ranges := []images.Extent{{Offset: 0, Length: 1}, {Offset: 2, Length: 3}}
		parts, err := splitRanges(http.Header{"Content-Type": {kind}}, status, b, ranges)
		if err == nil && (len(parts) != 2 || len(parts[0]) != 1 || len(parts[1]) != 3) {
			t.Errorf("%d parts", len(parts))
		}
	})
}
