package repository

import (
	"bytes"
	"testing"
)

// FuzzMarks decodes mark lists from arbitrary bytes; what is accepted encodes to the same bytes.
func FuzzMarks(f *testing.F) {
	f.Add(encodeMarks([]string{"packs/1f", "layers/2e.g2"}))
	f.Add(encodeMarks(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if keys, err := decodeMarks(b); err == nil && !bytes.Equal(encodeMarks(keys), b) {
			t.Fatal("the list encodes to other bytes")
		}
	})
}

// FuzzBadRecords decodes lists of damaged records from arbitrary bytes; what is accepted means the same once encoded.
func FuzzBadRecords(f *testing.F) {
	f.Add(badRecords{all: true}.encode())
	f.Add(badRecords{ordinals: map[uint32]bool{1: true, 70_000: true}}.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		bad, err := decodeBadRecords(b)
		if err != nil {
			return
		}
		again, err := decodeBadRecords(bad.encode())
		if err != nil || again.all != bad.all || !bad.all && len(again.ordinals) != len(bad.ordinals) {
			t.Fatalf("%+v became %+v, %v", bad, again, err)
		}
	})
}

func TestGenerationsAreNamedAndRead(t *testing.T) {
	for _, c := range []struct {
		object, key string
		generation  int
	}{{"placements/ab/p0001", "placements/ab/p0001", 1}, {"placements/ab/p0001.g2", "placements/ab/p0001", 2},
		{"layers/cd.g17", "layers/cd", 17}, {"layers/cd.g1", "layers/cd.g1", 1}, {"layers/cd.g02", "layers/cd.g02", 1}, {"manifests/ab.sig", "manifests/ab.sig", 1}} {
		if key, n := generationOf(c.object); key != c.key || n != c.generation {
			t.Errorf("%s is generation %d of %s, want %d of %s", c.object, n, key, c.generation, c.key)
		}
	}
}
