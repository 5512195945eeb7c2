package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestArchivesUnpack lets zstd and cpio read an archive.
func TestArchivesUnpack(t *testing.T) {
	for tool, pkg := range map[string]string{"cpio": "cpio", "zstd": "zstd"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Fatalf("%s is missing: apt-get install %s", tool, pkg)
		}
	}
	a := newArchive()
	a.add("etc/deep/file", 0o644, []byte("content\n"))
	a.add("init", 0o755, []byte("program"))
	one, err := a.compress(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(one)%4 != 0 {
		t.Errorf("%d bytes are no multiple of 4", len(one))
	}
	if two, err := a.compress(t.Context()); err != nil || !bytes.Equal(one, two) {
		t.Error("the same content gave other bytes")
	}
	dir := t.TempDir()
	cmd := exec.Command("sh", "-c", "zstd -dc | cpio -idm --quiet")
	cmd.Dir, cmd.Stdin = dir, bytes.NewReader(bytes.TrimRight(one, "\x00"))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "etc/deep/file")); err != nil || string(b) != "content\n" {
		t.Errorf("%q %v", b, err)
	}
	if info, err := os.Stat(filepath.Join(dir, "init")); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("init: %v %v", info, err)
	}
}

func TestReadDebFollowsLinks(t *testing.T) {
	if _, err := exec.LookPath("dpkg-deb"); err != nil {
		t.Fatal("dpkg-deb is missing: apt-get install dpkg")
	}
	root := t.TempDir()
	for name, content := range map[string]string{
		"DEBIAN/control":             "Package: x\nVersion: 1\nArchitecture: all\nMaintainer: x <x@example.org>\nDescription: x\n",
		"usr/lib/firmware/real.bin":  "bytes",
		"usr/lib/firmware/other.bin": "other",
	} {
		file := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(root, "usr/lib/firmware/sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../real.bin", filepath.Join(root, "usr/lib/firmware/sub/link.bin")); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "x_1_all.deb")
	if out, err := exec.Command("dpkg-deb", "-Znone", "-b", root, file).CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	deb, err := readDeb(t.Context(), file, func(s string) bool { return strings.HasPrefix(s, "usr/lib/firmware/") })
	if err != nil {
		t.Fatal(err)
	}
	if b, ok := deb.resolve("usr/lib/firmware/sub/link.bin"); !ok || string(b) != "bytes" {
		t.Errorf("%q %v", b, ok)
	}
	if _, ok := deb.resolve("usr/lib/firmware/absent"); ok {
		t.Error("an absent file was found")
	}
}
