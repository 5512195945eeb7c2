package fsmap

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"hash/crc32"

	"github.com/cespare/xxhash/v2"
	"golang.org/x/crypto/blake2b"

	"seedbed/images"
)

// Features of btrfs (Linux, include/uapi/linux/btrfs.h).
const (
	// btrfsIncompatKnown: mixed back references, default subvolume, mixed groups, LZO, Zstandard, big metadata, extended
	// inode references, RAID 5 and 6, skinny metadata, no holes, metadata UUID, RAID1C3 and C4, simple quotas. Missing:
	// zoned, extent tree v2, RAID stripe tree.
	btrfsIncompatKnown = 0x1 | 0x2 | 0x4 | 0x8 | 0x10 | 0x20 | 0x40 | 0x80 | 0x100 | 0x200 | btrfsMetadataUUID | 0x800 | 0x10000
	btrfsMetadataUUID  = 0x400
	// btrfsROKnown: free-space tree, which is valid, verity, block-group tree.
	btrfsROKnown   = 0x1 | 0x2 | 0x4 | btrfsGroupTree
	btrfsGroupTree = 0x8
	// btrfsFlagsKnown: written, relocation. Missing: seeding, dumps of metadata, conversions under way.
	btrfsFlagsKnown = 0x1 | 0x2
	btrfsErrors     = 0x4
)

const (
	btrfsSuperLength = 4096
	btrfsReserved    = 1 << 20 // bytes at the start that no file gets: boot loaders live there
)

// btrfsSupers are where the superblock and its copies lie, in bytes.
var btrfsSupers = []int64{64 << 10, 64 << 20, 256 << 30}

// btrfs is one file system on one device.
type btrfs struct {
	v           *volume
	sb          []byte
	fsid        []byte // as tree blocks have it
	device      uint64 // its ID
	length      int64  // bytes of the partition that it takes
	blockLength int64  // of a tree block
	areas       []*btrfsArea
}

func probeBtrfs(v *volume) *Info {
	if sb := v.head[64<<10:]; string(sb[64:72]) == "_BHRfS_M" {
		return &Info{FS: "btrfs", UUID: formatUUID(sb[32:]), Label: text(sb[299 : 299+256])}
	}
	return nil
}

// scanBtrfs maps by the extent tree, all copies of what it lists.
func scanBtrfs(v *volume) ([]images.Extent, error) {
	t, err := parseBtrfs(v)
	if err != nil {
		return nil, err
	}
	if err := t.readAreas(); err != nil {
		return nil, err
	}
	used, err := t.readExtents()
	if err != nil {
		return nil, err
	}
	list, err := t.copies(used)
	if err != nil {
		return nil, err
	}
	list = append(list, images.Extent{Offset: 0, Length: btrfsReserved}, images.Extent{Offset: t.length, Length: v.length - t.length})
	for _, at := range btrfsSupers {
		if at+btrfsSuperLength <= t.length {
			list = append(list, images.Extent{Offset: at, Length: btrfsSuperLength})
		}
	}
	return list, nil
}

// btrfsSum returns the checksum of b, of the kind that a superblock names, padded with zeros; false for an unknown kind.
func btrfsSum(kind uint16, b []byte) (sum [32]byte, known bool) {
	switch kind {
	case 0:
		le.PutUint32(sum[:], crc32.Checksum(b, castagnoli))
	case 1:
		le.PutUint64(sum[:], xxhash.Sum64(b))
	case 2:
		sum = sha256.Sum256(b)
	case 3:
		sum = blake2b.Sum256(b)
	default:
		return sum, false
	}
	return sum, true
}

func (t *btrfs) sumRight(b []byte) bool {
	sum, known := btrfsSum(le.Uint16(t.sb[196:]), b[32:])
	return known && bytes.Equal(sum[:], b[:32])
}

// newestSuper returns the superblock, or the newest right copy where it is damaged.
func newestSuper(v *volume) ([]byte, error) {
	var found []byte
	fsid := v.head[64<<10+32:][:16]
	for i, at := range btrfsSupers {
		sb, err := v.read(at, btrfsSuperLength)
		if err != nil {
			break // the partition ends before, or that part of it cannot be read
		}
		t := btrfs{sb: sb}
		if string(sb[64:72]) != "_BHRfS_M" || int64(le.Uint64(sb[48:])) != at || !bytes.Equal(sb[32:48], fsid) || !t.sumRight(sb) {
			continue
		}
		switch {
		case found == nil:
			found = sb
		case le.Uint64(sb[72:]) > le.Uint64(found[72:]):
			if int64(le.Uint64(found[48:])) == btrfsSupers[0] {
				return nil, unmapped("copy %d of its superblock is newer than the first; check it with btrfs check", i)
			}
			found = sb
		}
	}
	if found == nil {
		if kind := le.Uint16(v.head[64<<10+196:]); kind > 3 {
			return nil, fmt.Errorf("%w: checksums of kind %d; capture it in full, or with a newer release", ErrUnknownFeature, kind)
		}
		return nil, unmapped("the checksum of its superblock is wrong; check it with btrfs check")
	}
	return found, nil
}

// parseBtrfs reads and checks the superblock.
func parseBtrfs(v *volume) (*btrfs, error) {
	sb, err := newestSuper(v)
	if err != nil {
		return nil, err
	}
	t := &btrfs{v: v, sb: sb, fsid: sb[32:48], device: le.Uint64(sb[201:]), blockLength: int64(le.Uint32(sb[148:]))}
	if err := t.checkFeatures(); err != nil {
		return nil, err
	}
	sector, length := le.Uint32(sb[144:]), le.Uint64(sb[209:])
	switch {
	case le.Uint64(sb[136:]) != 1:
		return nil, unmapped("it has %d devices, and the system needs all of them", le.Uint64(sb[136:]))
	case sector < 512 || sector > 64<<10 || sector&(sector-1) != 0:
		return nil, unmapped("sectors of %d bytes", sector)
	case t.blockLength < int64(sector) || t.blockLength > 64<<10 || t.blockLength&(t.blockLength-1) != 0:
		return nil, unmapped("tree blocks of %d bytes", t.blockLength)
	case length < btrfsReserved || length > uint64(v.length):
		return nil, unmapped("it says that it has %d bytes, its partition has %d", length, v.length)
	case le.Uint32(sb[160:]) > 2048:
		return nil, unmapped("its superblock has %d bytes of addresses", le.Uint32(sb[160:]))
	}
	t.length = int64(length)
	return t, nil
}

// checkFeatures refuses what is dirty and what is not known.
func (t *btrfs) checkFeatures() error {
	sb := t.sb
	incompat, ro, flags := le.Uint64(sb[188:]), le.Uint64(sb[180:]), le.Uint64(sb[56:])
	if u := incompat &^ btrfsIncompatKnown; u != 0 {
		return fmt.Errorf("%w: incompatible features %#x; capture it in full, or with a newer release", ErrUnknownFeature, u)
	}
	if u := ro &^ btrfsROKnown; u != 0 {
		return fmt.Errorf("%w: read-only compatible features %#x; capture it in full, or with a newer release", ErrUnknownFeature, u)
	}
	if incompat&btrfsMetadataUUID != 0 {
		t.fsid = sb[571:587]
	}
	switch {
	case flags&btrfsErrors != 0:
		return fmt.Errorf("%w: the kernel found errors in it; repair it as btrfs check advises, then capture again", ErrDirty)
	case flags&^btrfsFlagsKnown != 0:
		return unmapped("it is a seed, a dump, or being converted (flags %#x)", flags)
	case le.Uint64(sb[96:]) != 0:
		return fmt.Errorf("%w: its log tree has to be replayed; mount and unmount it, or shut the system down cleanly, then capture again", ErrDirty)
	}
	return nil
}
