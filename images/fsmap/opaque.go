package fsmap

import "fmt"

// Why a kind is copied in full, and what to do about it.
const (
	noMap = "there is no map for it: every byte is copied, and free space is not told from content; fill its free space " +
		"with zeros before the capture (a file of zeros, sdelete -z on Windows), they take no room"
	encrypted = "it is encrypted: every byte is copied, does not compress, and all machines will share one key; "
	luks      = encrypted + "decrypt it before the capture with cryptsetup reencrypt --decrypt, or encrypt each machine after its deployment"
	bitLocker = encrypted + "decrypt it before the capture with manage-bde -off and wait until manage-bde -status says so " +
		"(Windows 11 encrypts by itself, also where it only waits for activation)"
	member = "it is part of a volume made of several: every byte is copied, and the system may need its other parts; "
	mdRaid = member + "capture a system that is installed without software RAID, or the assembled array"
	pool   = "it belongs to a dynamic disk or a storage pool of Windows, which may keep several volumes in it: every byte is copied; " +
		"capture a system that is installed on a basic disk"
	zfs = member + "capture a system that is installed on ext4, XFS or btrfs, or copy its file systems with zfs send"
)

func probeF2FS(v *volume) *Info {
	sb := v.head[1024:] // struct f2fs_super_block in Linux' include/linux/f2fs_fs.h
	if le.Uint32(sb) != 0xF2F52010 {
		return nil
	}
	return &Info{FS: "f2fs", UUID: formatUUID(sb[108:]), Label: text([]byte(ntfsText(sb[124 : 124+1024])))}
}

// probeAPFS recognises a container (Apple File System Reference, nx_superblock_t).
func probeAPFS(v *volume) *Info {
	if string(v.head[32:36]) != "NXSB" {
		return nil
	}
	return &Info{FS: "apfs", UUID: formatUUID(v.head[72:])}
}

// probeBcachefs tells bcachefs from bcache, which keeps its superblock at the same place: under the magic number that
// both had once, bcache's has versions up to 6 in eight bytes, bcachefs' two versions of two bytes.
func probeBcachefs(v *volume) *Info {
	const both, own = "\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81", "\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef"
	sb := v.head[4096:]
	switch s := string(sb[24:40]); {
	case s == both && le.Uint64(sb[16:]) <= 6:
		return &Info{FS: "bcache", UUID: formatUUID(sb[40:])}
	case s == both || s == own:
		return &Info{FS: "bcachefs", UUID: formatUUID(sb[56:]), Label: text(sb[72:104])}
	}
	return nil
}

// isBitLockerToGo knows the form for removable disks: a small FAT with a reader program, which hides the rest.
func isBitLockerToGo(v *volume) bool {
	const id = "\x3b\xd6\x67\x49\x29\x2e\xd8\x4a\x83\x99\xf6\xa3\x39\xe3\xd0\x01" // 4967D63B-2E29-4AD8-8399-F6A339E3D001
	return string(v.head[424:440]) == id && string(v.head[3:11]) == "MSWIN4.1"
}

// probeBitLocker knows the boot sectors of Windows Vista (which names the metadata's cluster) and of 7 and later alike.
func probeBitLocker(v *volume) *Info {
	if string(v.head[3:11]) == "-FVE-FS-" || isBitLockerToGo(v) {
		return &Info{FS: "bitlocker"}
	}
	return nil
}

func probeLUKS(v *volume) *Info {
	if string(v.head[:6]) != "LUKS\xba\xbe" {
		return nil
	}
	info := &Info{FS: "luks", UUID: text(v.head[168:208])} // both versions keep it as text
	if be.Uint16(v.head[6:]) == 2 {
		info.Label = text(v.head[24:72])
	}
	return info
}

// probeMDRaid looks where Linux software RAID keeps its superblock (include/uapi/linux/raid/md_p.h): version 1.1 at the
// start, 1.2 at 4 KiB, 1.0 8-12 KiB and 0.90 64-128 KiB before the end.
func probeMDRaid(v *volume) *Info {
	const magic = 0xa92b4efc
	for _, off := range []int64{0, 4096, (v.length/512 - 16) &^ 7 * 512} {
		b, err := v.read(off, 256)
		if err == nil && le.Uint32(b) == magic && le.Uint32(b[4:]) == 1 && int64(le.Uint64(b[144:])) == off/512 {
			return &Info{FS: "mdraid", UUID: formatUUID(b[16:]), Label: text(b[32:64])}
		}
	}
	b, err := v.read(v.length&^(64<<10-1)-64<<10, 128)
	if err != nil || le.Uint32(b) != magic && be.Uint32(b) != magic {
		return nil
	}
	id := make([]byte, 16) // in four words, the first apart
	for i, at := range []int{20, 52, 56, 60} {
		be.PutUint32(id[4*i:], le.Uint32(b[at:]))
	}
	return &Info{FS: "mdraid", UUID: formatUUID(id)}
}

// A ZFS label (OpenZFS, include/sys/vdev_impl.h): 256 KiB, twice at the start and twice at the end of what is a multiple
// of that; in it the pool's properties from 16 KiB and a ring of uberblocks from 128 KiB.
const (
	zfsLabel       = 256 << 10
	zfsProperties  = 16 << 10
	zfsRing        = 128 << 10
	zfsUberblock   = 0x00bab10c
	zfsLeast       = 4 // uberblocks that make a pool; libblkid asks for as many
	zfsPropertyMax = 112 << 10
)

func probeZFS(v *volume) *Info {
	end := v.length &^ (zfsLabel - 1)
	for _, at := range []int64{0, zfsLabel, end - 2*zfsLabel, end - zfsLabel} {
		ring, err := v.read(at+zfsRing, zfsLabel-zfsRing)
		if err != nil {
			continue
		}
		count := 0
		for ; len(ring) >= 1024; ring = ring[1024:] {
			if le.Uint64(ring) == zfsUberblock || be.Uint64(ring) == zfsUberblock {
				count++
			}
		}
		if count < zfsLeast {
			continue
		}
		info := &Info{FS: "zfs"}
		if b, err := v.read(at+zfsProperties, zfsPropertyMax); err == nil {
			zfsNames(b, info)
		}
		return info
	}
	return nil
}

// zfsNames reads the pool's name and number from a list of name-value pairs in XDR (OpenZFS, module/nvpair/nvpair.c).
func zfsNames(b []byte, info *Info) {
	const number, str = 8, 9
	for b = b[12:]; len(b) >= 12; {
		length, nameLength := int64(be.Uint32(b)), int64(be.Uint32(b[8:]))
		if length < 12 || length > int64(len(b)) || nameLength > length-12 {
			return // also the end: a pair of no bytes
		}
		name, value := string(b[12:12+nameLength]), b[min(length, 12+(nameLength+3)&^3):length]
		if len(value) >= 16 { // type, number of elements, value
			switch kind := be.Uint32(value); {
			case name == "pool_guid" && kind == number:
				info.UUID = fmt.Sprint(be.Uint64(value[8:]))
			case name == "name" && kind == str:
				info.Label = text(value[12:][:min(int64(be.Uint32(value[8:])), int64(len(value)-12))])
			}
		}
		b = b[length:]
	}
}
