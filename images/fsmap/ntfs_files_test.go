//go:build linux

package fsmap

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"seedbed/images"
)

// What only has the name of a page file stays in the map.
func TestNTFSKeepsWhatIsNoPlainPageFile(t *testing.T) {
	t.Parallel()
	content := bytes.Repeat([]byte("content "), 100_000)
	for name, create := range map[string]func(path string) error{
		"directory": func(path string) error {
			return errors.Join(os.Mkdir(path, 0o755), os.WriteFile(path+"/file", content, 0o600))
		},
		"two names": func(path string) error {
			return errors.Join(os.WriteFile(path, content, 0o600), os.Link(path, path+".too"))
		},
		"sparse": func(path string) error {
			f, err := os.Create(path)
			if err != nil {
				return err
			}
			_, err = f.WriteAt(content, 4<<20)
			return errors.Join(err, f.Close())
		},
		"short":          func(path string) error { return os.WriteFile(path, content[:ntfsKept], 0o600) },
		"in its record":  func(path string) error { return os.WriteFile(path, content[:100], 0o600) },
		"letter like it": func(path string) error { return os.WriteFile(strings.Replace(path, "sys", "ſys", 1), content, 0o600) },
		"symbolic link": func(path string) error {
			return errors.Join(os.WriteFile(path+".real", content, 0o600), os.Symlink(path+".real", path))
		},
		"in another directory": func(path string) error {
			return errors.Join(os.Mkdir(path+".d", 0o755), os.WriteFile(path+".d/pagefile.sys", content, 0o600))
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := newNTFS(t, 8, "")
			dir, unmount := mount(t, "ntfs-3g", path)
			if err := create(filepath.Join(dir, "pagefile.sys")); err != nil {
				t.Fatal(err)
			}
			unmount()
			r := mapped(t, path, "ntfs")
			f, length := open(t, path)
			if kept, err := Scan(f, length, Options{KeepContents: true}); err != nil || !slices.Equal(r.Used, kept.Used) || len(r.Dropped) != 0 {
				t.Errorf("dropped %v, %v", r.Dropped, err)
			}
		})
	}
}

// A page file and a master file table in more parts than one record names are found through lists of attributes.
func TestNTFSInManyParts(t *testing.T) {
	t.Parallel()
	path := newNTFS(t, 12, "-c 512")
	dir, unmount := mount(t, "ntfs-3g", path)
	write := func(name string, n int) bool {
		return os.WriteFile(filepath.Join(dir, name), bytes.Repeat([]byte(name[:1]), n), 0o600) == nil
	}
	count := 0
	for ; write(fmt.Sprint("small", count), 1100); count++ {
	}
	for i := 0; i < count; i += 2 {
		if err := os.Remove(filepath.Join(dir, fmt.Sprint("small", i))); err != nil {
			t.Fatal(err)
		}
	}
	const length = 1300 << 10
	if err := os.WriteFile(filepath.Join(dir, "pagefile.sys"), make([]byte, length), 0o600); err != nil {
		t.Fatal(count, err)
	}
	for i := 0; write(fmt.Sprint("tiny", i), 10) && i < count; i++ {
	}
	want := contents(t, dir)
	unmount()
	f, partition := open(t, path)
	v, _, _, err := probe(f, partition)
	if err != nil {
		t.Fatal(err)
	}
	n, err := openNTFS(v)
	if err != nil {
		t.Fatal(err)
	}
	files, err := n.rootFiles("pagefile.sys")
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	s := &ntfsStream{n: n}
	if err := s.load(files[0].record, ntfsData, ""); err != nil || files[0].record.attributes[1].kind != ntfsAttributeList {
		t.Fatalf("%v, attributes %v", err, files[0].record.attributes)
	}
	t.Logf("%d files, the page file is in %d parts, the master file table in %d", count, len(s.runs), len(n.mft.runs))
	r := mapped(t, path, "ntfs")
	if want := []Dropped{{"/pagefile.sys", length - ntfsKept}}; !slices.Equal(r.Dropped, want) {
		t.Errorf("dropped %v, want %v", r.Dropped, want)
	}
	kept, err := Scan(f, partition, Options{KeepContents: true})
	if err != nil || images.TotalLength(kept.Used)-images.TotalLength(r.Used) != length-ntfsKept {
		t.Fatalf("%+v, %v", kept, err)
	}
	compareNTFS(t, path, kept)
	out := poison(t, path, r.Used)
	run(t, "ntfsresize", "-f", "-i", out)
	dir, unmount = mount(t, "ntfs-3g", out, "-o", "ro")
	got := contents(t, dir)
	unmount()
	delete(got, "/pagefile.sys")
	delete(want, "/pagefile.sys")
	sameTree(t, got, want)
}

// A header may claim terabytes; what is read and kept goes by what is there.
func TestHeadersThatLieCostLittle(t *testing.T) {
	path := newPartition(t, 8<<20)
	run(t, "mkfs.exfat", "-c", "512", path)
	exfat := bytesOf(t, path)
	le.PutUint64(exfat[72:], 8<<40/512)
	le.PutUint32(exfat[84:], 1<<26) // sectors of the table
	le.PutUint32(exfat[88:], 1<<27)
	le.PutUint32(exfat[92:], 1<<32-16)
	exfatSum(exfat)
	ntfs := emptyNTFS(t)
	le.PutUint64(ntfs[0x28:], 8<<40/512-1)
	for name, b := range map[string][]byte{"exfat": exfat, "ntfs": ntfs} {
		r := &counting{memory: memory{b, 8 << 40}}
		found, err := Scan(r, r.length, Options{})
		if err != nil || found.Kind != KindFull || found.FS != name || found.Warning == "" {
			t.Errorf("%s: %+v, %v", name, found, err)
		}
		if r.read > 2<<20 {
			t.Errorf("%s: %d bytes were read", name, r.read)
		}
	}
}
