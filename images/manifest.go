package images

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"time"

	"github.com/fxamacker/cbor/v2"
)

// FormatVersion is the version of the manifest that this package writes and the only one that it reads.
const FormatVersion = 1

// MaxManifestLength bounds an encoded manifest, in bytes.
const MaxManifestLength = 64 << 10

// Manifest describes one image: an immutable capture of one disk. Its SHA-256 over the canonical encoding (RFC 8949
// §4.2.1) is the image's name; its signature is detached. Immutable after decoding.
type Manifest struct {
	Format  int    `cbor:"1,keyasint" json:"format"`
	Name    string `cbor:"2,keyasint" json:"name"`    // "debian-lab"; see ValidName
	Version string `cbor:"3,keyasint" json:"version"` // "1", "2", ...
	Created int64  `cbor:"4,keyasint" json:"created"` // seconds since 1970, UTC
	// DiskLength is the length of the captured disk in bytes, SectorLength its logical sector: 512 or 4096.
	DiskLength   int64 `cbor:"5,keyasint" json:"disk_length"`
	SectorLength int   `cbor:"6,keyasint" json:"sector_length"`
	PieceLength  int64 `cbor:"7,keyasint" json:"piece_length"`
	Frame        Frame `cbor:"8,keyasint" json:"frame"`
	// Partitions in ascending order of Number; their byte ranges do not overlap.
	Partitions []Partition `cbor:"9,keyasint" json:"partitions"`
	// Firmware says how the captured system can boot: "bios", "uefi", both.
	Firmware []string `cbor:"10,keyasint,omitempty" json:"firmware,omitempty"`
	// Origin says where the content comes from, if no disk was read for it: "content of debian:1, source not read".
	Origin string `cbor:"11,keyasint,omitempty" json:"origin,omitempty"`
}

// MapNone is the MapKind of a partition that was not captured: its map is empty, and a deployment writes nothing there.
const MapNone = "none"

// Bounds of what a manifest tells people: dropped contents of a partition, bytes of a name of one, bytes of an origin.
const (
	MaxDropped      = 16
	maxDroppedName  = 255
	maxOriginLength = 255
)

// Frame names the bytes of the disk outside its partitions.
type Frame struct {
	Table  string `cbor:"1,keyasint" json:"table"` // "gpt", "mbr" or "none"
	Region []Ref  `cbor:"2,keyasint,omitempty" json:"regions,omitempty"`
}

// Kinds of frame region.
const (
	RegionLBA0    = "lba0"    // boot code, disk signature, MBR or protective MBR
	RegionGPT     = "gpt"     // primary header and entry array, from LBA 1
	RegionBackup  = "backup"  // backup entry array and header
	RegionEBR     = "ebr"     // one extended boot record
	RegionGap     = "gap"     // between the table and the first partition (GRUB's core.img on MBR disks)
	RegionBetween = "between" // used bytes between or behind partitions
)

// Ref names content of its own, stored beside the manifest as a layer.
type Ref struct {
	Digest Digest `cbor:"1,keyasint" json:"digest"`
	Length int64  `cbor:"2,keyasint" json:"length"`
	// Kind and Offset are set for frame regions: what it is and where it lay on the captured disk, in bytes.
	Kind   string `cbor:"3,keyasint,omitempty" json:"kind,omitempty"`
	Offset int64  `cbor:"4,keyasint,omitempty" json:"offset,omitempty"`
}

// Partition is one partition of the captured disk. Number 0 is a file system on the whole disk, without a table.
type Partition struct {
	Number int    `cbor:"1,keyasint" json:"number"`                // 1-based, as the table counts
	Offset int64  `cbor:"2,keyasint" json:"offset"`                // bytes from the start of the captured disk
	Length int64  `cbor:"3,keyasint" json:"length"`                // bytes
	Type   string `cbor:"4,keyasint" json:"type"`                  // GPT type GUID, or two hexadecimal digits of an MBR type
	GUID   string `cbor:"5,keyasint,omitempty" json:"guid"`        // unique partition GUID (GPT)
	Label  string `cbor:"6,keyasint,omitempty" json:"label"`       // GPT partition name
	FS     string `cbor:"7,keyasint,omitempty" json:"file_system"` // "ext4", "fat32", "swap", "ntfs", ... "" if unknown
	FSUUID string `cbor:"8,keyasint,omitempty" json:"fs_uuid"`     // as blkid prints it
	// MapKind says where the map comes from: "used" (file-system map), "full", "header" (swap), MapNone.
	MapKind string `cbor:"9,keyasint" json:"map_kind"`
	// UsedLength is the sum of the map's extents; DataTiles and ZeroTiles count tiles by state.
	UsedLength int64 `cbor:"10,keyasint" json:"used_length"`
	DataTiles  int64 `cbor:"11,keyasint" json:"data_tiles"`
	ZeroTiles  int64 `cbor:"12,keyasint" json:"zero_tiles"`
	// Root is the merkle root over the masked content: "pieces root" of BEP 52.
	Root Digest `cbor:"13,keyasint" json:"root"`
	// Map is the encoded Map. PieceLayer holds the hash of each piece that has a data tile, TileLayer the hash of each
	// data tile, 32 bytes each in order. A partition of at most one piece has no piece layer.
	Map        Ref `cbor:"14,keyasint" json:"map"`
	PieceLayer Ref `cbor:"15,keyasint,omitempty" json:"piece_layer"`
	TileLayer  Ref `cbor:"16,keyasint,omitempty" json:"tile_layer"`
	// Dropped names what was left out by choice: "/pagefile.sys", "swap space". At most MaxDropped.
	Dropped []string `cbor:"17,keyasint,omitempty" json:"dropped,omitempty"`
}

// FileName is the partition's name in the torrent: "p0001".
func (p *Partition) FileName() string { return fmt.Sprintf("p%04d", p.Number) }

// DataTiles returns the number of data tiles of all partitions.
func (m *Manifest) DataTiles() (n int64) {
	for i := range m.Partitions {
		n += m.Partitions[i].DataTiles
	}
	return n
}

// UsedLength returns the used bytes of all partitions.
func (m *Manifest) UsedLength() (n int64) {
	for i := range m.Partitions {
		n += m.Partitions[i].UsedLength
	}
	return n
}

// EndOfPartitions returns the first byte position after all partitions: a disk must be at least this long, and have room for
// the backup table behind it where there is one.
func (m *Manifest) EndOfPartitions() (end int64) {
	for i := range m.Partitions {
		end = max(end, m.Partitions[i].Offset+m.Partitions[i].Length)
	}
	return end
}

// Description returns what a machine needs before it can join the image's swarm: maps, piece layers and the regions of the
// frame, none of length 0. One that several partitions share is there for each.
func (m *Manifest) Description() []Ref {
	var list []Ref
	for i := range m.Partitions {
		p := &m.Partitions[i]
		list = appendLayers(list, p.Map, p.PieceLayer)
	}
	return appendLayers(list, m.Frame.Region...)
}

// Layers returns all layers that the manifest names: Description, and the tile layers.
func (m *Manifest) Layers() []Ref {
	list := m.Description()
	for i := range m.Partitions {
		list = appendLayers(list, m.Partitions[i].TileLayer)
	}
	return list
}

// appendLayers appends those that there are: a partition may have no piece layer, and no data.
func appendLayers(list []Ref, refs ...Ref) []Ref {
	for _, r := range refs {
		if r.Length > 0 {
			list = append(list, r)
		}
	}
	return list
}

// CreatedAt returns Created as a time.
func (m *Manifest) CreatedAt() time.Time { return time.Unix(m.Created, 0).UTC() }

var canonical = func() cbor.EncMode {
	mode, err := cbor.CoreDetEncOptions().EncMode()
	if err != nil {
		panic(err) // options are constants
	}
	return mode
}()

var strict = func() cbor.DecMode {
	mode, err := cbor.DecOptions{
		DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden, TagsMd: cbor.TagsForbidden,
		ExtraReturnErrors: cbor.ExtraDecErrorUnknownField, MaxArrayElements: 4096, MaxNestedLevels: 8,
	}.DecMode()
	if err != nil {
		panic(err) // options are constants
	}
	return mode
}()

// Encode checks the manifest and returns its canonical bytes and their SHA-256, the image's name.
func (m *Manifest) Encode() ([]byte, Digest, error) {
	if err := m.Check(); err != nil {
		return nil, Digest{}, err
	}
	b, err := canonical.Marshal(m)
	if err != nil {
		return nil, Digest{}, fmt.Errorf("manifest %s: %w", m.Name, err)
	}
	if len(b) > MaxManifestLength {
		return nil, Digest{}, fmt.Errorf("manifest %s: %d bytes, more than %d", m.Name, len(b), MaxManifestLength)
	}
	return b, Sum(b), nil
}

// DecodeManifest reads and checks canonical bytes; others, and unknown fields, are errors.
func DecodeManifest(b []byte) (*Manifest, error) {
	if len(b) > MaxManifestLength {
		return nil, fmt.Errorf("manifest: %d bytes, more than %d", len(b), MaxManifestLength)
	}
	m := new(Manifest)
	if err := strict.Unmarshal(b, m); err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	again, _, err := m.Encode()
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(again, b) {
		return nil, errors.New("manifest: not in canonical encoding")
	}
	return m, nil
}

var validName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,63}$`)

// ValidName reports whether s can name an image or a version: 1-64 of a-z 0-9 . _ - beginning with a letter or digit.
func ValidName(s string) bool { return validName.MatchString(s) }

// Check reports the first thing in the manifest that cannot be: sizes that are no powers of two, partitions that
// overlap or leave the disk, counts that contradict each other.
func (m *Manifest) Check() error {
	bad := func(format string, a ...any) error {
		return fmt.Errorf("manifest %q: "+format, append([]any{clip(m.Name)}, a...)...)
	}
	switch {
	case m.Format != FormatVersion:
		return bad("format %d, this program reads %d; use a newer program", m.Format, FormatVersion)
	case !ValidName(m.Name) || !ValidName(m.Version):
		return bad("name %q and version %q must be 1-64 of a-z 0-9 . _ -", clip(m.Name), clip(m.Version))
	case m.SectorLength != 512 && m.SectorLength != 4096:
		return bad("sector length %d is neither 512 nor 4096", m.SectorLength)
	case m.DiskLength <= 0 || m.DiskLength > 1<<56 || m.DiskLength%int64(m.SectorLength) != 0:
		return bad("disk length %d is not a positive number of sectors of %d", m.DiskLength, m.SectorLength)
	case m.PieceLength < MinPieceLength || m.PieceLength > MaxPieceLength || m.PieceLength&(m.PieceLength-1) != 0:
		return bad("piece length %d is no power of two from %d to %d", m.PieceLength, MinPieceLength, MaxPieceLength)
	case m.Frame.Table != "gpt" && m.Frame.Table != "mbr" && m.Frame.Table != "none":
		return bad("table %q is neither gpt, mbr nor none", clip(m.Frame.Table))
	case len(m.Partitions) == 0:
		return bad("no partitions")
	case len(m.Origin) > maxOriginLength:
		return bad("an origin of %d bytes, at most %d can be", len(m.Origin), maxOriginLength)
	}
	for i, r := range m.Frame.Region {
		if r.Offset < 0 || r.Length <= 0 || r.Length > MaxFrameLength || r.Offset > m.DiskLength-r.Length {
			return bad("frame region %d [%d, +%d) is not inside the disk of %d bytes", i, r.Offset, r.Length, m.DiskLength)
		}
	}
	for i := range m.Partitions {
		p := &m.Partitions[i]
		tiles := TileCount(p.Length)
		switch {
		case p.Number < 0 || p.Number > 9999 || (i > 0 && p.Number <= m.Partitions[i-1].Number):
			return bad("partition number %d is out of order", p.Number)
		case p.Offset < 0 || p.Length <= 0 || p.Length > m.DiskLength || p.Offset > m.DiskLength-p.Length:
			return bad("partition %d [%d, +%d) is not inside the disk of %d bytes", p.Number, p.Offset, p.Length, m.DiskLength)
		case p.Length%int64(m.SectorLength) != 0 || p.Offset%int64(m.SectorLength) != 0:
			return bad("partition %d does not begin and end at a sector", p.Number)
		case p.DataTiles < 0 || p.ZeroTiles < 0 || p.DataTiles > tiles || p.ZeroTiles > tiles-p.DataTiles:
			return bad("partition %d: %d data and %d zero tiles of %d", p.Number, p.DataTiles, p.ZeroTiles, tiles)
		case p.UsedLength < 0 || p.UsedLength > p.Length:
			return bad("partition %d: %d bytes used of %d", p.Number, p.UsedLength, p.Length)
		case p.MapKind != "used" && p.MapKind != "full" && p.MapKind != "header" && p.MapKind != MapNone:
			return bad("partition %d: map kind %q is neither used, full, header nor none", p.Number, clip(p.MapKind))
		case p.MapKind == MapNone && p.UsedLength > 0:
			return bad("partition %d was not captured and has %d bytes in use", p.Number, p.UsedLength)
		case len(p.Dropped) > MaxDropped || slices.ContainsFunc(p.Dropped, badDropped):
			return bad("partition %d: %d names of dropped contents, at most %d of 1-%d bytes can be", p.Number, len(p.Dropped), MaxDropped, maxDroppedName)
		case p.Map.Length <= 0 || p.Map.Length > MaxMapLength:
			return bad("partition %d: map of %d bytes", p.Number, p.Map.Length)
		case p.TileLayer.Length != 32*p.DataTiles:
			return bad("partition %d: tile layer of %d bytes for %d data tiles", p.Number, p.TileLayer.Length, p.DataTiles)
		case p.PieceLayer.Length < 0 || p.PieceLayer.Length%32 != 0 || p.PieceLayer.Length > 32*p.DataTiles ||
			(p.Length <= m.PieceLength && p.PieceLayer.Length != 0):
			return bad("partition %d: piece layer of %d bytes for %d data tiles", p.Number, p.PieceLayer.Length, p.DataTiles)
		}
		for j := range m.Partitions[:i] {
			q := &m.Partitions[j]
			if (Extent{p.Offset, p.Length}).Intersect(Extent{q.Offset, q.Length}).Length > 0 {
				return bad("partitions %d and %d overlap", q.Number, p.Number)
			}
		}
	}
	return nil
}

func badDropped(s string) bool { return s == "" || len(s) > maxDroppedName }

// SuperblockLength is where file systems on a whole disk say what they are, in bytes from its start: XFS, FAT and NTFS in the
// first sector, ext at byte 1024, swap at the end of the first page. Whoever writes such a disk writes these sectors last.
const SuperblockLength = 4096

// MaxFrameLength bounds one region of a frame, and all that are not part of the table together, in bytes. Gaps are 1 MiB by
// today's tools.
const MaxFrameLength = 64 << 20

// signContext keeps a manifest's signature from being taken for one over anything else.
const signContext = "seedbed manifest v1\x00"

// Sign returns the detached Ed25519 signature (RFC 8032) over an encoded manifest.
func Sign(key ed25519.PrivateKey, manifest []byte) []byte {
	return ed25519.Sign(key, append([]byte(signContext), manifest...))
}

// ErrSignature says that a manifest was not signed by the site's key.
var ErrSignature = errors.New("the manifest's signature is not by this site's key")

// Verify returns ErrSignature unless signature is by key over the encoded manifest.
func Verify(key ed25519.PublicKey, manifest, signature []byte) error {
	if len(key) != ed25519.PublicKeySize || !ed25519.Verify(key, append([]byte(signContext), manifest...), signature) {
		return ErrSignature
	}
	return nil
}
