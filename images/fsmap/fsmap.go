// Package fsmap tells which bytes of a partition its file system uses. Where it is not certain it says "all of them",
// and why; it never guesses.
package fsmap

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"seedbed/images"
)

// Kinds of map, as images.Partition.MapKind has them.
const (
	KindUsed   = "used"   // from the file system's own records of what is in use
	KindFull   = "full"   // every byte
	KindHeader = "header" // only what describes the content, which is dropped by choice (swap)
)

// Info names the file system of a partition.
type Info struct {
	FS    string // "ext4", "fat32", "swap", "ntfs", ...; "" if none was recognised
	UUID  string // as blkid prints it: "1234-ABCD" for FAT; "" if it has none
	Label string // "" if it has none
}

// Result is what Scan found.
type Result struct {
	Info
	Kind string
	// Used are the ranges in use: sorted, not touching, inside the partition.
	Used []images.Extent
	// Warning is a sentence for people, where the map is worse than they may expect; else empty.
	Warning string
	// Dropped are files and spaces whose contents are not in Used by choice, in the order of their names.
	Dropped []Dropped
}

// Dropped is content that another machine has no use for: a page file, a hibernation file, swap space.
type Dropped struct {
	Name   string // "/pagefile.sys", "swap space"
	Length int64  // bytes of the partition that are not in use for that reason
}

// Options say what Scan does where there is a choice. The zero value drops page files, and refuses what is not safe.
type Options struct {
	// KeepContents keeps the contents of page files, hibernation files and swap space.
	KeepContents bool
	// Full copies in full, with a warning, what would be refused (ErrDirty, ErrUnknownFeature, ErrOpaque).
	Full bool
	// RefuseOpaque refuses content that can only be copied in full: encrypted, of a kind without a map, or part of a volume
	// made of several. Without it such a partition is copied in full, with a warning.
	RefuseOpaque bool
	// Pool says that the partition's type is one of those of which the disk's volumes are made, in parts or several of them
	// (Windows' dynamic disks, storage spaces): what its file system calls free may be another volume's, so it is copied in full.
	Pool bool
}

// The refusals of Scan. The error that wraps one tells the reason and the remedy.
var (
	// ErrDirty says that a file system was not cleanly unmounted or is hibernated: what its records call free may be in use.
	ErrDirty = errors.New("the file system is not clean")
	// ErrUnknownFeature says that a file system has an incompatible feature that this program does not know.
	ErrUnknownFeature = errors.New("the file system has a feature that is not known")
	// ErrOpaque says that nothing tells free space from content, and that the caller asked not to copy such content.
	ErrOpaque = errors.New("its free space cannot be told from its content")
)

// Refused reports whether err is a refusal of Scan, which Options.Full overrules.
func Refused(err error) bool {
	return errors.Is(err, ErrDirty) || errors.Is(err, ErrUnknownFeature) || errors.Is(err, ErrOpaque)
}

// unmappedError says why a file system cannot be mapped; Scan then copies all of it.
type unmappedError string

func (e unmappedError) Error() string { return string(e) }

func unmapped(format string, a ...any) error { return unmappedError(fmt.Sprintf(format, a...)) }

// volume is the partition that is looked at.
type volume struct {
	r      io.ReaderAt
	length int64
	head   []byte // its first bytes: all signatures but those at its end
	// ranges bounds what a scan may collect: no file system in use is in so many parts, and memory is bounded.
	ranges int
	// keep is Options.KeepContents; dropped is what the scan left out otherwise.
	keep       bool
	dropped    []Dropped
	options    Options // for file systems within this one (logical volumes), which scanWithin maps: it is Scan
	scanWithin func(r io.ReaderAt, length int64, o Options) (*Result, error)
	// warnings are of parts that are copied in full: sentences for Result.Warning.
	warnings []string
}

// headLength covers the last signature from the start, that of btrfs.
const headLength = 68 << 10

// read returns n bytes at off. What does not lie in the partition cannot be mapped.
func (v *volume) read(off, n int64) ([]byte, error) {
	if off < 0 || n < 0 || n > v.length || off > v.length-n {
		return nil, unmapped("it refers to bytes [%d, +%d) outside its partition of %d bytes", off, n, v.length)
	}
	b := make([]byte, n)
	if k, err := v.r.ReadAt(b, off); int64(k) < n {
		return nil, fmt.Errorf("read %d bytes at %d: %w", n, off, err)
	}
	return b, nil
}

// bounded is the error of a scan that collected too much.
func (v *volume) bounded(list []images.Extent) error {
	if len(list) > v.ranges {
		return unmapped("it is in more than %d parts", v.ranges)
	}
	return nil
}

// kind is one file system or container.
type kind struct {
	// probe returns nil if the partition does not hold this kind.
	probe func(v *volume) *Info
	// scan returns the used ranges in any order, overlapping or not; the rest of the partition behind the file system
	// is among them. What it drops it notes in v.dropped. nil: this kind is copied in full, and warning says why; with a
	// warning it is opaque.
	scan    func(v *volume) ([]images.Extent, error)
	kind    string // of the map; "" is KindUsed
	warning string
	// outer kinds are recognised beside what lies in them, which then does not count.
	outer bool
}

// kinds has one line per file system.
var kinds = []kind{
	{probe: probeExt, scan: scanExt},
	{probe: probeFAT, scan: scanFAT},
	{probe: probeSwap, scan: scanSwap, kind: KindHeader},
	{probe: probeNTFS, scan: scanNTFS},
	{probe: probeExFAT, scan: scanExFAT},
	{probe: probeXFS, scan: scanXFS},
	{probe: probeBtrfs, scan: scanBtrfs},
	{probe: probeF2FS, warning: noMap},
	{probe: magic("hfsplus", 1024, "H+\x00\x04", "HX\x00\x05"), warning: noMap},
	{probe: probeAPFS, warning: noMap},
	{probe: magic("refs", 3, "ReFS\x00"), warning: noMap},
	{probe: probeBcachefs, warning: noMap},
	{probe: magic("squashfs", 0, "hsqs")}, // has no free space
	{probe: magic("iso9660", 32769, "CD001")},
	{probe: probeLUKS, warning: luks},
	{probe: probeBitLocker, warning: bitLocker},
	{probe: probeLVM, scan: scanLVM},
	{probe: probeZFS, warning: zfs},
	{probe: probeMDRaid, warning: mdRaid, outer: true},
}

// Probe names the file system of a partition of length bytes. An unknown one is no error; several signatures at once
// give their names joined by "+".
func Probe(r io.ReaderAt, length int64) (Info, error) {
	_, info, _, err := probe(r, length)
	return info, err
}

func probe(r io.ReaderAt, length int64) (*volume, Info, []*kind, error) {
	v := &volume{r: r, length: length, ranges: 4 * maxExtents}
	var err error
	if v.head, err = v.read(0, min(headLength, length)); err != nil {
		return nil, Info{}, nil, fmt.Errorf("probe file system: %w", err)
	}
	v.head = append(v.head, make([]byte, headLength-len(v.head))...) // a short partition reads as if zeros followed
	var found []*kind
	var infos []Info
	for i := range kinds {
		if info := kinds[i].probe(v); info != nil {
			found, infos = append(found, &kinds[i]), append(infos, *info)
			if kinds[i].outer {
				return v, *info, found[len(found)-1:], nil
			}
		}
	}
	switch len(infos) {
	case 0:
		return v, Info{}, nil, nil
	case 1:
		return v, infos[0], found, nil
	}
	var names []string
	for _, info := range infos {
		names = append(names, info.FS)
	}
	return v, Info{FS: strings.Join(names, "+")}, found, nil
}

// Full returns the map that copies every byte of a partition of length bytes, with the name of its file system.
func Full(r io.ReaderAt, length int64) (*Result, error) {
	info, err := Probe(r, length)
	if err != nil {
		return nil, err
	}
	return full(info, length, ""), nil
}

func full(info Info, length int64, warning string) *Result {
	return &Result{Info: info, Kind: KindFull, Used: []images.Extent{{Offset: 0, Length: length}}, Warning: warning}
}

// plainLength is how long partitions are that hold no file system by design, BIOS boot and Microsoft reserved, in
// bytes. They give no warning.
const plainLength = 16 << 20

// Scan returns the used bytes of a partition of length bytes. What has no map or contradicts itself is copied in full,
// with a warning; what is not clean or has an unknown feature is refused, unless o.Full says to copy it in full too.
func Scan(r io.ReaderAt, length int64, o Options) (*Result, error) {
	if length <= 0 {
		return nil, fmt.Errorf("map of a partition of %d bytes", length)
	}
	v, info, found, err := probe(r, length)
	if err != nil {
		return nil, err
	}
	v.keep, v.options, v.scanWithin = o.KeepContents, o, Scan // named here, since Scan needs kinds and kinds would need Scan
	result, err := scanKind(v, info, found)
	if err == nil && o.Pool {
		result = full(info, length, pool)
	}
	if err == nil && o.RefuseOpaque && !o.Full && result.Kind == KindFull && result.Warning != "" {
		err = fmt.Errorf("%w: %s", ErrOpaque, result.Warning)
	}
	if err != nil && o.Full && Refused(err) {
		return full(info, length, fmt.Sprintf("%s: %v; as asked, every byte is copied", info.FS, err)), nil
	}
	if err != nil {
		return nil, err
	}
	return result, nil
}

// scanKind maps what the probes found.
func scanKind(v *volume, info Info, found []*kind) (*Result, error) {
	length := v.length
	switch {
	case len(found) == 0 && length > plainLength:
		return full(info, length, "no file system was recognised: every byte is copied"), nil
	case len(found) == 0:
		return full(info, length, ""), nil
	case len(found) > 1:
		return full(info, length, "it has the signatures of several file systems ("+info.FS+"): every byte is copied; remove the stale ones with wipefs"), nil
	case found[0].scan == nil:
		warning := found[0].warning
		if warning != "" {
			warning = info.FS + ": " + warning
		}
		return full(info, length, warning), nil
	}
	list, err := found[0].scan(v)
	switch why := unmappedError(""); {
	case errors.As(err, &why):
		return full(info, length, fmt.Sprintf("%s: %v: every byte is copied", info.FS, why)), nil
	case err != nil:
		return nil, fmt.Errorf("map of %s: %w", info.FS, err)
	}
	kind := found[0].kind
	if kind == "" || v.keep { // a header only where the rest is dropped
		kind = KindUsed
	}
	slices.SortFunc(v.dropped, func(a, b Dropped) int { return cmp.Compare(a.Name, b.Name) })
	return &Result{Info: info, Kind: kind, Used: normal(list, length, maxExtents), Warning: strings.Join(v.warnings, "; "), Dropped: v.dropped}, nil
}

// maxExtents bounds the map: an extent takes at most 18 bytes encoded, images.MaxMapLength in all.
const maxExtents = 3 << 20

// normal sorts, joins and clips the ranges. Above limit it calls the shortest gaps used, which is always safe.
func normal(list []images.Extent, length int64, limit int) []images.Extent {
	whole := images.Extent{Offset: 0, Length: length}
	slices.SortFunc(list, func(a, b images.Extent) int { return cmp.Compare(a.Offset, b.Offset) })
	var out []images.Extent
	for _, e := range list {
		out = images.AppendExtent(out, e.Intersect(whole))
	}
	for gap := int64(4096); len(out) > limit; gap *= 2 {
		joined := out[:0]
		for _, e := range out {
			if k := len(joined); k > 0 && e.Offset-joined[k-1].End() <= gap {
				joined[k-1].Length = e.End() - joined[k-1].Offset
				continue
			}
			joined = append(joined, e)
		}
		out = joined
	}
	return out
}

var (
	le = binary.LittleEndian
	be = binary.BigEndian
)

// formatUUID prints 16 bytes as RFC 9562 §4 does, or "" where all are zero.
func formatUUID(b []byte) string {
	if len(bytes.Trim(b[:16], "\x00")) == 0 {
		return ""
	}
	h := hex.EncodeToString(b[:16])
	return strings.Join([]string{h[:8], h[8:12], h[12:16], h[16:20], h[20:]}, "-")
}

// text reads a name that ends at its first NUL or is padded with spaces.
func text(b []byte) string {
	b, _, _ = bytes.Cut(b, []byte{0})
	return strings.ToValidUTF8(strings.TrimRight(string(b), " "), "?")
}
