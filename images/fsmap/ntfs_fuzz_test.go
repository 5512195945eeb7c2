//go:build linux

package fsmap

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// smallFiles writes files into a mounted file system, enough for directories of several clusters.
func smallFiles(t testing.TB, dir string) {
	t.Helper()
	for i := range 200 {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("a file with a long name %d", i)), make([]byte, i*10), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"pagefile.sys", "hiberfil.sys"} {
		if err := os.WriteFile(filepath.Join(dir, name), bytes.Repeat([]byte("wake"), 100_000), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func FuzzNTFS(f *testing.F) {
	var seeds [][]byte
	var places [][]int64
	for _, args := range []string{"-c 512", "-c 4096", "-c 65536"} {
		path := newNTFS(f, 17, args)
		dir, unmount := mount(f, "ntfs-3g", path)
		smallFiles(f, dir)
		unmount()
		b := bytesOf(f, path)
		list := []int64{0}
		for _, at := range signs(b, 512, func(u []byte) bool { return string(u[:4]) == "FILE" || string(u[:4]) == "INDX" }) {
			// Of the files without a meaning some are enough.
			if string(b[at:at+4]) == "INDX" || len(list) < 17 || bytes.Contains(b[at:at+1024], []byte("p\x00a\x00g\x00e\x00")) {
				list = append(list, at)
			}
		}
		parts := takeApart(f, b)
		seeds, places = append(seeds, b), append(places, append(list, int64(parts.content(ntfsBitmap)), int64(parts.content(ntfsLogFile))))
	}
	fuzzMap(f, 4096, seeds, places, func(_ int64, unit []byte) {
		for at := 0; at+512 <= len(unit); at += 512 {
			b := unit[at:]
			switch length := map[string]int{"FILE": 1024, "INDX": 4096, "RSTR": 4096}[string(b[:4])]; {
			case length == 0 || length > len(b):
			default: // the ends of its sectors
				if usa := int(le.Uint16(b[4:])); usa < 500 {
					for end := 510; end < length; end += 512 {
						copy(b[end:end+2], b[usa:usa+2])
					}
				}
			}
		}
	})
}

func FuzzExFAT(f *testing.F) {
	var seeds [][]byte
	var places [][]int64
	for _, cluster := range []string{"512", "4096", "32K"} {
		path := newPartition(f, 24<<20)
		run(f, "mkfs.exfat", "-L", "Stick", "-c", cluster, path)
		dir, unmount := mount(f, "mount.exfat-fuse", path)
		smallFiles(f, dir)
		unmount()
		b := bytesOf(f, path)
		heap, size := int64(le.Uint32(b[88:]))*512, int64(512)<<b[109]
		root := int64(le.Uint32(b[96:]))
		fat := int64(le.Uint32(b[80:])) * 512
		seeds, places = append(seeds, b), append(places, []int64{0, 64, 88, fat, fat + 4*root, heap, heap + (root-2)*size})
	}
	fuzzMap(f, 8192, seeds, places, func(at int64, unit []byte) {
		if at == 0 && unit[108] == 9 {
			exfatSum(unit)
		}
	})
}
