package images

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"
)

func example() *Manifest {
	return &Manifest{
		Format: FormatVersion, Name: "debian-lab", Version: "1", Created: 1_750_000_000, DiskLength: 8 << 30, SectorLength: 512,
		PieceLength: 1 << 20, Firmware: []string{"bios", "uefi"},
		Frame: Frame{Table: "gpt", Region: []Ref{{Digest: Sum([]byte("lba0")), Length: 512, Kind: RegionLBA0}, {Digest: Sum([]byte("gpt")), Length: 16896, Kind: RegionGPT, Offset: 512}}},
		Partitions: []Partition{
			{Number: 1, Offset: 1 << 20, Length: 1 << 20, Type: "21686148-6449-6E6F-744E-656564454649", MapKind: "full", UsedLength: 1 << 20,
				DataTiles: 2, ZeroTiles: 14, Root: Sum([]byte("root")), Map: Ref{Digest: Sum([]byte("map")), Length: 20}, TileLayer: Ref{Digest: Sum([]byte("tiles")), Length: 64}},
			{Number: 3, Offset: 2 << 20, Length: 4 << 30, Type: "0FC63DAF-8483-4772-8E79-3D69D8477DE4", GUID: "8A0E8A0E-0000-4000-8000-000000000001", Label: "root",
				FS: "ext4", FSUUID: "8a0e8a0e-0000-4000-8000-000000000001", MapKind: "used", UsedLength: 1 << 30, DataTiles: 10_000, ZeroTiles: 100,
				Root: Sum([]byte("root 3")), Map: Ref{Digest: Sum([]byte("map 3")), Length: 2000},
				PieceLayer: Ref{Digest: Sum([]byte("pieces")), Length: 32 * 900}, TileLayer: Ref{Digest: Sum([]byte("tiles 3")), Length: 320_000}},
		},
	}
}

func TestManifestIsCanonical(t *testing.T) {
	m := example()
	b, d, err := m.Encode()
	if err != nil || d != Sum(b) {
		t.Fatal(d, err)
	}
	again, err := DecodeManifest(b)
	if err != nil {
		t.Fatal(err)
	}
	b2, d2, err := again.Encode()
	if err != nil || !bytes.Equal(b, b2) || d != d2 {
		t.Errorf("it became other bytes: %v", err)
	}
	// The format must not change by accident: images keep their names.
	if got, want := d.String(), "7be4bd89efd398e9d544404d4dee8ede71a3d3b16918c8569383a86279865a31"; got != want {
		t.Errorf("the example's name is %s, want %s", got, want)
	}
	if m.DataTiles() != 10_002 || m.UsedLength() != 1<<30+1<<20 || m.EndOfPartitions() != 2<<20+4<<30 || m.Partitions[1].FileName() != "p0003" {
		t.Errorf("sums: %d %d %d %s", m.DataTiles(), m.UsedLength(), m.EndOfPartitions(), m.Partitions[1].FileName())
	}
}

func TestLayersAreThoseThatTheManifestNames(t *testing.T) {
	m := example()
	names := func(list []Ref) (names []string) {
		for _, r := range list {
			for _, name := range []string{"lba0", "gpt", "map", "tiles", "map 3", "pieces", "tiles 3"} {
				if r.Digest == Sum([]byte(name)) {
					names = append(names, name)
				}
			}
		}
		return names
	}
	description := []string{"map", "map 3", "pieces", "lba0", "gpt"}
	if got := names(m.Description()); !slices.Equal(got, description) || len(m.Description()) != len(description) {
		t.Errorf("description: %q", got)
	}
	all := append(description, "tiles", "tiles 3")
	if got := names(m.Layers()); !slices.Equal(got, all) || len(m.Layers()) != len(all) {
		t.Errorf("layers: %q", got)
	}
}

func TestOtherEncodingsAreRefused(t *testing.T) {
	b, _, err := example().Encode()
	if err != nil {
		t.Fatal(err)
	}
	var fields map[int]any
	if err := cbor.Unmarshal(b, &fields); err != nil {
		t.Fatal(err)
	}
	fields[99] = "unknown"
	unknown, err := cbor.Marshal(fields)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string][]byte{
		"unknown field": unknown, "something behind": append(bytes.Clone(b), 0), "cut": b[:len(b)-1], "empty": nil,
		"too long": make([]byte, MaxManifestLength+1), "indefinite length": append(append([]byte{0xbf}, b[1:]...), 0xff),
		"a longer integer": bytes.Replace(b, []byte{0x01, 0x01, 0x02}, []byte{0x01, 0x18, 0x01, 0x02}, 1),
	} {
		if m, err := DecodeManifest(c); err == nil {
			t.Errorf("%s: read as %+v", name, m)
		}
	}
}

func TestManifestThatCannotBeIsRefused(t *testing.T) {
	for want, spoil := range map[string]func(*Manifest){
		"format":              func(m *Manifest) { m.Format = 2 },
		"name":                func(m *Manifest) { m.Name = "../etc" },
		"version":             func(m *Manifest) { m.Version = "" },
		"sector length":       func(m *Manifest) { m.SectorLength = 520 },
		"disk length":         func(m *Manifest) { m.DiskLength++ },
		"piece length":        func(m *Manifest) { m.PieceLength = 3 << 20 },
		"table":               func(m *Manifest) { m.Frame.Table = "apm" },
		"no partitions":       func(m *Manifest) { m.Partitions = nil },
		"frame region":        func(m *Manifest) { m.Frame.Region[0].Offset = m.DiskLength },
		"out of order":        func(m *Manifest) { m.Partitions[1].Number = 1 },
		"not inside the disk": func(m *Manifest) { m.Partitions[1].Length = 8 << 30 },
		"at a sector":         func(m *Manifest) { m.Partitions[0].Length-- },
		"data and":            func(m *Manifest) { m.Partitions[0].ZeroTiles = 15 },
		"bytes used":          func(m *Manifest) { m.Partitions[0].UsedLength = 1<<20 + 1 },
		"map kind":            func(m *Manifest) { m.Partitions[0].MapKind = "guessed" },
		"was not captured":    func(m *Manifest) { m.Partitions[0].MapKind = MapNone },
		"an origin of":        func(m *Manifest) { m.Origin = strings.Repeat("x", 256) },
		"17 names":            func(m *Manifest) { m.Partitions[0].Dropped = slices.Repeat([]string{"/pagefile.sys"}, 17) },
		"1 names":             func(m *Manifest) { m.Partitions[0].Dropped = []string{""} },
		"map of":              func(m *Manifest) { m.Partitions[0].Map.Length = 0 },
		"tile layer":          func(m *Manifest) { m.Partitions[0].TileLayer.Length = 32 },
		"piece layer":         func(m *Manifest) { m.Partitions[0].PieceLayer.Length = 32 },
		"overlap":             func(m *Manifest) { m.Partitions[1].Offset = 1<<20 + 512 },
	} {
		m := example()
		spoil(m)
		if _, _, err := m.Encode(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one about %q", err, want)
		}
	}
}

func TestSignatureIsOfTheSiteAndOfAManifest(t *testing.T) {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	other, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	b, _, err := example().Encode()
	if err != nil {
		t.Fatal(err)
	}
	s := Sign(private, b)
	if err := Verify(public, b, s); err != nil {
		t.Error(err)
	}
	for name, err := range map[string]error{
		"another key": Verify(other, b, s), "another manifest": Verify(public, b[1:], s), "no key": Verify(nil, b, s),
		"no signature": Verify(public, b, nil), "a signature over the bare bytes": Verify(public, b, ed25519.Sign(private, b)),
	} {
		if !errors.Is(err, ErrSignature) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestDigestsAreReadAsPrinted(t *testing.T) {
	d := Sum([]byte("x"))
	if got, err := ParseDigest(d.String()); err != nil || got != d {
		t.Errorf("%v, %v", got, err)
	}
	for _, s := range []string{"", "12", strings.Repeat("g", 64), d.String() + "00", strings.Repeat("a", 1<<20)} {
		if got, err := ParseDigest(s); err == nil || !got.IsZero() || len(err.Error()) > 200 {
			t.Errorf("%.20q gives %v, %v", s, got, err)
		}
	}
	h := InfoHash(d)
	if w := h.Wire(); !bytes.Equal(w[:], d[:20]) {
		t.Errorf("on the wire %x", w)
	}
}

func FuzzDecodeManifest(f *testing.F) {
	b, _, err := example().Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := DecodeManifest(b)
		if err != nil {
			return
		}
		again, _, err := m.Encode()
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("it became other bytes: %v", err)
		}
	})
}
