package fsmap

import (
	"errors"
	"slices"
	"strconv"
	"strings"
	"testing"

	"seedbed/images"
)

func TestSwapKeepsItsHeaderOnly(t *testing.T) {
	for _, page := range []int{4096, 64 << 10} {
		path := newPartition(t, 8<<20)
		run(t, "mkswap", "-q", "-p", strconv.Itoa(page), "-L", "space", path)
		r := scan(t, path)
		if r.FS != "swap" || r.Kind != KindHeader || !slices.Equal(r.Used, []images.Extent{{Offset: 0, Length: int64(page)}}) || r.Warning != "" {
			t.Errorf("page of %d: %+v", page, r)
		}
		if dropped := []Dropped{{"swap space", 8<<20 - int64(page)}}; !slices.Equal(r.Dropped, dropped) {
			t.Errorf("dropped %v, want %v", r.Dropped, dropped)
		}
		compareBlkid(t, path)
		f, length := open(t, path)
		if r, err := Scan(f, length, Options{KeepContents: true}); err != nil || r.Kind != KindUsed || len(r.Dropped) != 0 || !slices.Equal(r.Used, []images.Extent{{Offset: 0, Length: length}}) {
			t.Errorf("page of %d, contents kept: %+v, %v", page, r, err)
		}
		if _, err := f.WriteAt([]byte("S1SUSPEND\x00"), int64(page)-10); err != nil {
			t.Fatal(err)
		}
		for _, keep := range []bool{false, true} {
			if _, err := Scan(f, length, Options{KeepContents: keep}); !errors.Is(err, ErrDirty) || !strings.Contains(err.Error(), "hibernated") {
				t.Errorf("hibernated: %v", err)
			}
		}
	}
}
