package disk

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestPartsAreWrittenOneBehindTheOther(t *testing.T) {
	const length = 4 << 20
	for _, sizes := range [][]int{{1}, {1, 2, 3}, {4096, 65536, 1, 65536}, {65536, 65536, 65536, 100}, make([]int, 0), {0, 5, 0}, manySizes(maxParts + 300)} {
		t.Run(fmt.Sprint(len(sizes)), func(t *testing.T) {
			name := filepath.Join(t.TempDir(), "disk")
			if err := os.WriteFile(name, make([]byte, length), 0o600); err != nil {
				t.Fatal(err)
			}
			d, err := Open(name, "disk")
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			var parts [][]byte
			for i, n := range sizes {
				parts = append(parts, bytes.Repeat([]byte{byte(i%250 + 1)}, n))
			}
			all := bytes.Join(parts, nil)
			const offset = 12345
			if err := d.WriteParts(parts, offset); err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			want := make([]byte, length)
			copy(want[offset:], all)
			if !bytes.Equal(got, want) {
				t.Error("the disk holds something else")
			}
			if err := d.WriteParts(append(parts, make([]byte, length)), offset); err == nil || !strings.Contains(err.Error(), "outside") {
				t.Errorf("beyond the end: %v", err)
			}
			if again, _ := os.ReadFile(name); !bytes.Equal(again, want) {
				t.Error("a write beyond the end changed the disk")
			}
		})
	}
}

func manySizes(n int) []int {
	sizes := make([]int, n)
	for i := range sizes {
		sizes[i] = 100 + i%7
	}
	return sizes
}

func TestAShortWriteGoesOnWhereItStopped(t *testing.T) {
	parts := [][]byte{[]byte("abc"), []byte("de"), {}, []byte("fgh")}
	all := "abcdefgh"
	for n := range len(all) + 1 {
		if got := string(bytes.Join(after(parts, n), nil)); got != all[n:] {
			t.Errorf("behind %d bytes: %q", n, got)
		}
	}
	if string(parts[0]) != "abc" {
		t.Error("the caller's list was changed")
	}
}
