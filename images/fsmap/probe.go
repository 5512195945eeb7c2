package fsmap

import ()

// magic recognises a kind by fixed bytes at an offset.
func magic(name string, offset int, values ...string) func(*volume) *Info {
	return func(v *volume) *Info {
		for _, s := range values {
			if string(v.head[offset:offset+len(s)]) == s {
				return &Info{FS: name}
			}
		}
		return nil
	}
}

// probeBitLocker also knows BitLocker To Go, which shows a small FAT with a reader program and hides the rest.
func probeBitLocker(v *volume) *Info {
	const toGo = "\x3b\xd6\x67\x49\x29\x2e\xd8\x4a\x83\x99\xf6\xa3\x39\xe3\xd0\x01" // 4967D63B-2E29-4AD8-8399-F6A339E3D001
	if string(v.head[3:11]) == "-FVE-FS-" || string(v.head[424:440]) == toGo {
		return &Info{FS: "bitlocker"}
	}
	return nil
}

func probeLUKS(v *volume) *Info {
	if string(v.head[:6]) != "LUKS\xba\xbe" {
		return nil
	}
	return &Info{FS: "luks", UUID: text(v.head[168:208])} // both versions keep it as text
}

// probeMDRaid looks where Linux software RAID keeps its superblock: version 1.1 at the start, 1.2 at 4 KiB, 1.0 8-12 KiB
// and 0.90 64-128 KiB before the end.
func probeMDRaid(v *volume) *Info {
	const magic = 0xa92b4efc
	if le.Uint32(v.head) == magic || le.Uint32(v.head[4096:]) == magic {
		return &Info{FS: "mdraid"}
	}
	for _, off := range []int64{(v.length/512 - 16) &^ 7 * 512, v.length&^(64<<10-1) - 64<<10} {
		if b, err := v.read(off, 4); err == nil && le.Uint32(b) == magic {
			return &Info{FS: "mdraid"}
		}
	}
	return nil
}
