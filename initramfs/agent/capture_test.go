package agent

import (
	"bytes"
	"testing"
	"time"

	"seedbed/images"
	"seedbed/images/intake"
	"seedbed/images/tile"
)

func TestRateIsThatOfTheLastSeconds(t *testing.T) {
	var r rate
	at := time.Unix(1e9, 0)
	if got := r.at(at, 1000); got != 0 {
		t.Errorf("the first sample gives %v", got)
	}
	for s := 1; s <= 30; s++ { // 100 bytes a second, then 10
		done := int64(1000 + 100*min(s, 15) + 10*max(0, s-15))
		got := r.at(at.Add(time.Duration(s)*time.Second), done)
		want := map[int]float64{1: 100, 15: 100, 20: 55, 30: 10}[s]
		if want != 0 && (got < want-1 || got > want+1) {
			t.Errorf("after %d s: %v, want %v", s, got, want)
		}
	}
	if got := r.at(at.Add(31*time.Second), 0); got != 0 {
		t.Errorf("begun anew: %v", got)
	}
	if got := timeLeft(1000, 100); got != 10*time.Second {
		t.Errorf("%v left", got)
	}
	if timeLeft(1000, 0) != 0 || timeLeft(0, 5) != 0 {
		t.Error("what is not known is not 0")
	}
}

func TestBatchKeepsWhatTheApplianceLacks(t *testing.T) {
	var tiles []intake.Tile
	b := new(batch)
	for i := range 5 {
		raw := bytes.Repeat([]byte{byte(i + 1)}, 1000*(i+1))
		e, err := tile.Encode(tile.Zstd, 0, raw)
		if err != nil {
			t.Fatal(err)
		}
		tiles = append(tiles, intake.Tile{Key: tile.KeyOf(raw), Encoded: e})
		b.body = append(b.body, intake.EncodeTiles(tiles[i:])...)
		b.keys, b.ends = append(b.keys, tiles[i].Key), append(b.ends, len(b.body))
	}
	b.keep([]bool{true, false, true, true, false})
	got, err := intake.DecodeTiles(b.body)
	if err != nil || len(got) != 2 || got[0].Key != tiles[1].Key || got[1].Key != tiles[4].Key || len(b.keys) != 2 || b.ends[1] != len(b.body) {
		t.Fatalf("%d tiles, ends %v of %d, %v", len(got), b.ends, len(b.body), err)
	}
	for _, g := range got {
		if _, err := g.Check(make([]byte, 0, images.TileLength)); err != nil {
			t.Error(err)
		}
	}
	b.keep([]bool{true, true})
	if len(b.keys) != 0 || len(b.body) != 0 {
		t.Errorf("%d tiles in %d bytes are left", len(b.keys), len(b.body))
	}
}
